"""The table solver x task: every yes runs two steps, every no says the sentence it promises."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from invdiff.core.rng import Rng
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.needs import IncompatibleError, why_not
from invdiff.sampling.run import solve
from invdiff.solvers import registry
from invdiff.tasks.table import columns, example, table

CELLS = [(name, task) for name in registry() for task in columns()]
SIGMAS = (0.05, 0.0)


def two_humps(x: Tensor, sigma: float) -> Tensor:
    """E[x0 | x] where every pixel is -0.6 or 0.6 with equal chances, plus N(0, 0.04)."""
    total = 0.04 + sigma**2
    return (0.04 * x + sigma**2 * 0.6 * torch.tanh(0.6 * x / total)) / total


@cache
def promises() -> dict[str, dict[str, str]]:
    """The table, made once."""
    return dict(table())


@cache
def measured(task: str, sigma: float) -> Problem:
    """The task's small instance, with a measurement of a truth."""
    empty = example(task, sigma=sigma)
    rng = Rng.of(3)
    truth = two_humps(rng.normal(torch.empty(1, *empty.x_shape), "truth"), 1.0)
    return Problem(empty.noise.sample(empty.A(truth), rng), empty.A, empty.noise, empty.x_shape)


@pytest.mark.parametrize(("name", "task"), CELLS, ids=["-".join(c) for c in CELLS])
def test_a_cell_is_what_happens(name, task):
    solver = registry()[name]().with_steps(2)
    promised = promises()[name][task]
    happened = []
    for sigma in SIGMAS:
        problem = measured(task, sigma)
        sentence = why_not(solver, problem)
        if sentence:
            with pytest.raises(IncompatibleError) as caught:
                solve(problem, Denoiser(two_humps), solver)
            assert str(caught.value).startswith(sentence.rstrip("."))
        else:
            samples = solve(problem, Denoiser(two_humps), solver).samples
            assert samples.shape == (1, 1, *problem.x_shape) and torch.isfinite(samples).all()
        happened.append(sentence)
    assert min(happened, key=len) == promised


def test_no_row_is_empty():
    """Every solver can do something, and every task has a solver that reads its measurement."""
    rows = dict(table())
    for name, cells in rows.items():
        assert any(not cell for cell in cells.values()), name
    for task in columns():
        assert any(not rows[n][task] and not registry()[n].ignores_y for n in rows), task
