"""The house rules that a machine can check: no printing, light imports."""

import ast
import re
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).parents[2] / "src" / "invdiff"


def modules() -> list[Path]:
    """Every source file but the public `__init__`."""
    return [p for p in sorted(SRC.rglob("*.py")) if p != SRC / "__init__.py"]


def top(path: Path) -> str:
    """Name of the top-level module or package that a file belongs to."""
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def test_only_the_command_line_prints() -> None:
    """print() belongs to the command line."""
    printing = []
    for path in modules():
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        if any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls):
            printing.append(path)
    assert [str(p.relative_to(SRC)) for p in printing if top(p) not in {"cli", "commands"}] == []
    assert any(top(p) == "commands" for p in printing)  # the rule would be seen to be broken


def test_solvers_do_not_sniff() -> None:
    """No hasattr and no isinstance inside a solver: capability is declared and checked before."""
    for path in sorted((SRC / "solvers").glob("*.py")):
        if path.name in {"__init__.py", "families.py"}:
            continue
        tree = ast.parse(path.read_text())
        names = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call)
                 and isinstance(n.func, ast.Name)}  # fmt: skip
        assert not names & {"hasattr", "isinstance", "getattr"}, path.name
        assert "requires_grad" not in path.read_text(), path.name


def test_importing_is_light() -> None:
    """`import invdiff` loads neither torch nor any heavy library; nothing loads torchvision."""
    code = (
        "import sys, invdiff; assert 'torch' not in sys.modules;"
        "import invdiff.sampling.run, invdiff.tasks;"
        "bad = {'torchvision', 'diffusers', 'matplotlib', 'skimage'};"
        "bad |= {'zuko', 'torchdiffeq'};"
        "found = bad & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_exist() -> None:
    """Everything in __all__ can be imported and has a docstring."""
    import invdiff

    for name in invdiff.__all__:
        value = getattr(invdiff, name)
        assert name in {"__version__", "NOISELESS"} or value.__doc__, name


def test_solvers_are_complete() -> None:
    """Every solver names its paper, claim and knobs with help texts, and is a public name."""
    import dataclasses

    import invdiff
    from invdiff.solvers import registry

    for name, cls in registry().items():
        assert getattr(invdiff, cls.__name__, None) is cls, name
        assert cls.paper and cls.claim in {"exact", "asymptotic", "heuristic"}, name
        assert cls.__doc__ and re.search("arXiv|ICLR|IEEE", cls.__doc__), name
        for f in dataclasses.fields(cls):
            assert f.name == "schedule" or f.metadata.get("help"), f"{name}.{f.name}"
