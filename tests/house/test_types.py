"""The types that users see: the stub of public names, and what mypy makes of a user's file."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import invdiff

ROOT = Path(__file__).parents[2]
STUB = ROOT / "src" / "invdiff" / "__init__.pyi"
FILE = Path(__file__).with_name("users_file.py")


def mypy(*files: Path) -> list[str]:
    """The lines that mypy says of files, by the options of the repository."""
    command = [sys.executable, "-m", "mypy", "--no-error-summary", *map(str, files)]
    environment = os.environ | {"MYPYPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_a_user_sees_real_types(tmp_path: Path) -> None:
    """A user's file has the types that it asserts, its mistakes are found, and no public name is
    Any; a wrong assertion is noticed."""
    names = tmp_path / "names.py"
    names.write_text(
        "import invdiff\n"
        + "".join(f"reveal_type(invdiff.{name})\n" for name in invdiff.__all__)
        + "from typing import assert_type\nassert_type(invdiff.__version__, int)\n"
    )
    said = mypy(FILE, names)
    errors = [line for line in said if ": error:" in line]
    assert len(errors) == 1 and "is not of type" not in errors[0] and '"int"' in errors[0], errors
    revealed = re.findall(r'Revealed type is "(.*)"', "\n".join(said))
    assert len(revealed) == len(invdiff.__all__)
    found = dict(zip(invdiff.__all__, revealed, strict=True))
    vague = [name for name, kind in found.items() if kind == "Any" or "-> Any" in kind]
    assert vague == ["option"]  # a field of any type, as `dataclasses.field`
    assert "invdiff.noise.gaussian.GaussianNoise" in found["GaussianNoise"]
    assert "invdiff.priors.gaussian.GaussianPrior" in found["GaussianPrior"]


def test_the_stub_names_what_is_served() -> None:
    """Every public name is in the stub, as checkers read it, and is the object that is served."""
    checked: dict[str, object] = {}
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 1 and node.module
            home = importlib.import_module(f"invdiff.{node.module}")
            for alias in node.names:
                assert alias.asname, f"{alias.name} is not exported: say `as {alias.name}`"
                assert alias.asname not in checked, f"{alias.asname} has two homes"
                checked[alias.asname] = getattr(home, alias.name)
        elif isinstance(node, ast.Assign):
            assert isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Name)
            checked[node.targets[0].id] = checked[node.value.id]
    public = {name: value for name, value in checked.items() if not name.startswith("_")}
    assert {*public, "__version__"} == set(invdiff.__all__) == set(dir(invdiff))
    for name, value in public.items():
        assert getattr(invdiff, name) is value, name


def test_a_stub_is_read_as_it_is_written() -> None:
    """Imports, also under other names, and nothing else."""
    text = '"""Doc."""\nfrom .a.b import C as C\nfrom .d import E as F\nx: str\n'
    assert invdiff._homes(text) == {"C": ("invdiff.a.b", "C"), "F": ("invdiff.d", "E")}


def test_types_are_promised() -> None:
    """PEP 561: the marker lies in the package, where wheels take it from."""
    assert (STUB.parent / "py.typed").is_file()
