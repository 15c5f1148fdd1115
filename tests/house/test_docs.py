"""The generated pages of docs/ say what the code does."""

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from invdiff import noise
from invdiff.core.schedules import VP
from invdiff.noise import GaussianNoise
from invdiff.operators import AveragePool
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.solvers import registry

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "make_docs.py"


def check(script: Path) -> subprocess.CompletedProcess[str]:
    """Run make_docs.py --check."""
    command = [sys.executable, str(script), "--check"]
    return subprocess.run(command, capture_output=True, text=True)


PAGES = ("solvers.md", "operators.md", "priors.md")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script and what it writes, in a process of its own."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "benchmarks").mkdir()
    (folder / "docs").mkdir()
    script = folder / "benchmarks" / "make_docs.py"
    script.write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    for file in (ROOT / "docs").glob("*.md"):
        if file.name not in PAGES:  # others are linked, where they exist
            (folder / "docs" / file.name).write_bytes(file.read_bytes())
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_generated_pages_are_up_to_date(made: Path) -> None:
    """When this fails, run: python benchmarks/make_docs.py"""
    stale = [
        name
        for name in PAGES
        if (made / "docs" / name).read_bytes() != (ROOT / "docs" / name).read_bytes()
    ]
    texts = made / "src/invdiff/texts"
    stored = {p.name: p.read_bytes() for p in (ROOT / "src/invdiff/texts").glob("*.txt")}
    found = {p.name: p.read_bytes() for p in texts.glob("*.txt")}
    stale += [n for n in {*stored, *found} if stored.get(n) != found.get(n)]
    assert stale == []


def test_a_stale_page_is_noticed(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Negative twin: one word changed in one page fails the check, and the page is named."""
    spec = importlib.util.spec_from_file_location("made_docs", made / "benchmarks/make_docs.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "made_docs", script)
    spec.loader.exec_module(script)
    texts = {name: (made / "docs" / name).read_text(encoding="utf-8") for name in PAGES}
    for name, text in texts.items():  # the pages themselves were made already
        monkeypatch.setattr(script, name.replace(".md", "_page"), lambda text=text: text)
    monkeypatch.setattr(sys, "argv", ["make_docs.py", "--check"])
    assert script.main() == 0 and capsys.readouterr().out == ""
    changed = texts["solvers.md"].replace("a solver's", "its")
    assert changed != texts["solvers.md"]
    (made / "docs" / "solvers.md").write_text(changed, encoding="utf-8")
    assert script.main() == 1
    (made / "docs" / "solvers.md").write_text(texts["solvers.md"], encoding="utf-8")
    shown = capsys.readouterr().out
    assert "docs/solvers.md differs" in shown and "operators" not in shown


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
    """The README's table and docs/calibration.md hold the figures of the record."""
    record = json.loads((ROOT / "src" / "invdiff" / "calibration.json").read_text("utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.split("<!-- calibration -->")[1].split("<!-- /calibration -->")[0]
    page = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
    for row in record:
        figures = f"{row['coverage90']:.3f} ± {row['coverage90_error']:.3f}"
        assert figures in page and f"{row['mean']:.2f} | {row['one']:.2f} |" in page
    usual = [r for r in record if r["default"] and r["side"] == 128]
    shown = [r for r in usual if f"{r['task']}: {r['title']} |" in table]
    assert len(shown) == 5
    for row in shown:
        assert f"| {row['coverage90']:.2f} | {row['ratio']:.2f} |" in table


def test_the_solver_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/add-a-solver.md: its example is a solver, does not enter the registry, and reads y."""
    text = (ROOT / "docs" / "add-a-solver.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "guide.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    solver = importlib.import_module("guide").Pulled(schedule=VP(5))
    A = AveragePool(2, (8, 8))
    prior = Denoiser(lambda x, sigma: x / (1 + sigma**2))
    low, high = (
        solve(
            Problem(torch.full((1, 3, 4, 4), v), A, GaussianNoise(0.05), (3, 8, 8)), prior, solver
        )
        for v in (-0.5, 0.5)
    )
    assert float(high.mean.mean() - low.mean.mean()) > 0.9
    assert "pulled" not in registry()


def test_the_code_of_bring_your_own_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/bring-your-own.md: its samples fit y to the noise, and beat the pseudo-inverse."""
    text = (ROOT / "docs" / "bring-your-own.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(ROOT)
    found: dict[str, Any] = {}
    exec(compile(code, "bring-your-own.md", "exec"), found)
    assert "torch.Size([1, 4, 1, 28, 28])" in capsys.readouterr().out
    problem, mean = found["problem"], found["result"].mean
    assert float(problem.residual(mean).square().mean().sqrt()) < 2 * problem.sigma_y
    truth = torch.tensor(found["picture"])
    plain = problem.A.pinv(problem.y)
    assert float((mean - truth).norm()) < float((plain - truth).norm())


def test_the_noises_of_bring_your_own_are_those_that_exist() -> None:
    """Its table has every noise with the first sentence of its docstring, and no other."""
    text = (ROOT / "docs" / "bring-your-own.md").read_text(encoding="utf-8")
    lines = text.split("| noise | law | solvers |")[1].split("\n\n")[0].splitlines()[2:]
    told = {re.match(r"\| `(\w+)\(", line)[1]: line.split(" | ", 1)[1] for line in lines}
    laws = {
        name: kind
        for name, kind in vars(noise).items()
        if isinstance(kind, type) and issubclass(kind, noise.Noise)
    }
    abstract = {"Noise", "Coloured"}
    assert set(told) == set(laws) - abstract
    for name, rest in told.items():
        first = " ".join((laws[name].__doc__ or "").split("\n\n")[0].split())
        assert rest.startswith(first.replace("|", "\\|")), name


def test_the_sample_of_priors_of_latents_runs(tmp_path: Path) -> None:
    """docs/priors-latent.md: its code runs on a small pipeline."""
    sys.path.insert(0, str(ROOT / "tests" / "priors"))
    saved = importlib.import_module("pipes").saved
    text = (ROOT / "docs" / "priors-latent.md").read_text(encoding="utf-8")
    scope: dict[str, object] = {"FOLDER": saved("sd", tmp_path / "sd")}
    exec(text.split("```python\n")[1].split("```")[0], scope)
    for name in ("dps", "psld"):
        result = scope[name]
        assert result.samples.shape == (1, 2, 3, 16, 16) and result.samples.isfinite().all()
        assert result.latents.shape == (1, 2, 4, 8, 8)
