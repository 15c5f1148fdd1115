"""The page of photographs: a row for every task, the mosaic's classical answer, and the table."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from invdiff.core.rng import Rng
from invdiff.noise import NOISELESS, Poisson
from invdiff.operators import Bayer, Identity
from invdiff.problem import Case, Problem
from invdiff.sampling.needs import missing
from invdiff.tasks import TASKS
from invdiff.tasks.auto import choose

ROOT = Path(__file__).parents[2]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """benchmarks/photographs.py as a module."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module("photographs")
    for name in ("photographs", "medical", "restoration", "tv"):
        sys.modules.pop(name, None)


def test_every_task_whose_answer_is_a_photograph_has_a_row(page: ModuleType) -> None:
    # mri.md, ct.md, mri-and-ct.md, enlarge-jpeg.md
    elsewhere = ("mri", "ct", "low-dose-ct", "enlarge-jpeg")
    assert [r.task for r in page.ROWS] == [n for n in TASKS if n not in elsewhere]
    truth = torch.rand(1, 3, *page.SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for row in page.ROWS:
        case = row.case(truth)
        assert torch.isfinite(case.problem.y).all()
        solver, _ = choose(TASKS[row.task], case.problem)
        assert not missing(solver, case.problem), row.task


def test_bilinear_demosaicing_is_exact_on_even_colours(page: ModuleType) -> None:
    x = torch.tensor([0.3, -0.2, 0.7])[None, :, None, None].expand(1, 3, 12, 12)
    A = Bayer("GBRG")
    found = page.bilinear(Case(Problem(A(x), A, NOISELESS, (3, 12, 12)), x))
    torch.testing.assert_close(found, x)
    ramp = torch.linspace(-1, 1, 12).expand(1, 3, 12, 12)
    found = page.bilinear(Case(Problem(A(ramp), A, NOISELESS, (3, 12, 12)), ramp))
    torch.testing.assert_close(found[..., 1:-1, 1:-1], ramp[..., 1:-1, 1:-1])


def test_stabilised_counts_lose_most_of_their_noise(page: ModuleType) -> None:
    x = torch.linspace(-0.8, 0.8, 64).expand(1, 3, 64, 64)
    noise = Poisson(30.0)
    y = noise.sample(x, Rng.of(0))
    found = page.stabilised(Case(Problem(y, Identity(), noise, (3, 64, 64)), x))
    assert float((found - x).square().mean()) < 0.1 * float((y - x).square().mean())


def test_the_page_marks_what_auto_takes(page: ModuleType) -> None:
    rows = [
        {"task": "denoise", "answer": name, "mean": (30.0, 0.9), "one": 29.0, "cost": cost,
         "misfit": misfit, "auto": name == "ddrm"}
        for name, cost, misfit in (("ddrm", "8", 1.0), ("non-local means", "-", None))
    ]  # fmt: skip
    rows.append({"task": "denoise", "answer": "dps", "failed": "left the numbers", "auto": False})
    text = page.page(rows, {"samples": 2, "steps": 50, "precision": "bfloat16"})
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[2:] == [
        "| non-local means | - | 30.00 / 0.900 |  | - |",
        "| **ddrm** | 8 | 30.00 / 0.900 | 29.00 | 1.00 |",
        "| dps | - | diverged | | |",
    ]
