"""The short runs of docs/short.md cost what the page says."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest

from invdiff.solvers import registry
from invdiff.tasks import TASKS
from invdiff.tasks.auto import configured

ROOT = Path(__file__).parents[2]
LONG = 1000


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch):
    """benchmarks/short.py as a module."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("short")


def printed() -> list[list[str]]:
    """The rows of the page's table: name, solver, evaluations, error of the mean, variance."""
    lines = (ROOT / "docs" / "short.md").read_text(encoding="utf-8").splitlines()
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines if line[:3] == "| `"]


def test_the_page_tells_what_the_short_runs_cost(short):
    """Seeds are fixed: the figures come again up to a digit of rounding."""
    rows = printed()
    assert (ROOT / "docs" / "short.md").read_text(encoding="utf-8").startswith(short.TEXT)
    assert len(rows) == 2 * len(short.ROWS)
    for row, (name, solver, nfe, error, variance) in zip(short.ROWS, rows[1::2], strict=True):
        found = short.cells(row.short, row.sigma_y)
        assert [f"`{row.short.name}`", *found[:2]] == [name, solver, nfe]
        assert float(found[2]) == pytest.approx(float(error), abs=0.011)
        assert float(found[3]) == pytest.approx(float(variance), abs=0.011)
        assert int(nfe) <= 0.21 * int(rows[rows.index([name, solver, nfe, error, variance]) - 1][2])


def test_the_measure_knows_the_posterior(short):
    """Exact samples have an error of 1 / sqrt(64) and a variance of 1, the prior's have not."""
    prior = short.law()
    A = short.Inpaint.box((16, 16), 4, 4, 8, 8)
    problem = short.Problem(A(prior.sample(1, 5)), A, short.GaussianNoise(0.1), (1, 16, 16))
    posterior = prior.posterior(problem)
    spread = posterior.cov.diagonal()
    hole = ~A.mask.bool().flatten()
    for law, exact in ((posterior, True), (prior, False)):
        x = law.sample(64, 3).flatten(1)
        error = ((x.mean(0) - posterior.mean.flatten()).square() / spread)[hole].mean().sqrt()
        variance = float((x.var(0) / spread)[hole].mean())
        # 64 pixels, correlated: their mean square has a relative error of less than sqrt(2)
        assert (error < 2 / math.sqrt(64) and abs(variance - 1) < 0.3) == exact


def test_every_long_solver_has_a_short_run(short):
    """Of 1000 steps or more by default; those of score-prior are its own short run, psld needs a
    prior of latents, and no task has a preset of pnp-dm."""
    long = {name for name, cls in registry().items() if cls().num_steps >= LONG}
    long -= {"score-prior", "psld", "pnp-dm"}
    assert len(long) >= 8 and long <= {row.short.name for row in short.ROWS}


def test_the_presets_of_tasks_are_the_short_runs(short):
    """But for what depends on the task."""
    rows = {row.short.name: row.short for row in short.ROWS}
    for name in ("replacement", "snips"):
        assert configured(TASKS["inpaint"], name, TASKS["inpaint"].toy(0.1)) == rows[name]
