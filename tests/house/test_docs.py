"""The generated pages of docs/ say what the code does."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from invdiff.core import Problem
from invdiff.noise import Gaussian
from invdiff.operators import AveragePool
from invdiff.paths import VP
from invdiff.priors.base import Denoiser
from invdiff.run import solve
from invdiff.solvers import registry

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "make_docs.py"


def check(script: Path) -> subprocess.CompletedProcess[str]:
    """Run make_docs.py --check."""
    command = [sys.executable, str(script), "--check"]
    return subprocess.run(command, capture_output=True, text=True)


def test_generated_pages_are_up_to_date() -> None:
    """When this fails, run: python benchmarks/make_docs.py"""
    done = check(SCRIPT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_page_is_noticed(tmp_path: Path) -> None:
    """Negative twin: one word changed in one page fails the check, and the page is named."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "docs").mkdir()
    script = tmp_path / "benchmarks" / "make_docs.py"
    script.write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    for name in ("solvers.md", "operators.md"):
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        (tmp_path / "docs" / name).write_text(text.replace("a solver's", "its"), encoding="utf-8")
    record = (ROOT / "docs" / "posterior.json").read_text(encoding="utf-8")
    (tmp_path / "docs" / "posterior.json").write_text(record, encoding="utf-8")
    done = check(script)
    assert done.returncode == 1
    assert "docs/solvers.md differs" in done.stdout and "operators" not in done.stdout


def test_every_operator_has_its_place_among_the_forward_models() -> None:
    """When this fails, run: python benchmarks/forward_models.py"""
    import invdiff.operators as ops
    from invdiff.operators import Linear, Operator, PseudoInvertible, Separable, Spectral

    script = ROOT / "benchmarks" / "forward_models.py"
    done = check(script)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (ROOT / "docs" / "forward-models.md").read_text(encoding="utf-8")
    rungs = (Operator, PseudoInvertible, Linear, Spectral, Separable)
    for name in ops.__all__:
        thing = getattr(ops, name)
        if isinstance(thing, type) and issubclass(thing, Operator) and thing not in rungs:
            assert name in text, name
    pictures = [f.stat().st_size for f in (ROOT / "docs/images/operators").glob("*.png")]
    assert max(pictures) < 42_000 and sum(pictures) < 1_500_000


def test_readme_shows_the_measured_table() -> None:
    """The README's table is the one that benchmarks/restoration.py wrote."""
    table = (ROOT / "docs" / "restoration.md").read_text(encoding="utf-8").strip()
    assert table.count("|") > 10
    assert table in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_solver_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/add-a-solver.md: its example is a solver, does not enter the registry, and reads y."""
    text = (ROOT / "docs" / "add-a-solver.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "guide.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    solver = importlib.import_module("guide").Pulled(path=VP(5))
    A = AveragePool(2, (8, 8))
    prior = Denoiser(lambda x, sigma: x / (1 + sigma**2))
    low, high = (
        solve(Problem(torch.full((1, 3, 4, 4), v), A, Gaussian(0.05), (3, 8, 8)), prior, solver)
        for v in (-0.5, 0.5)
    )
    assert float(high.mean.mean() - low.mean.mean()) > 0.9
    assert "pulled" not in registry()
