"""The table solver x task: what it promises is what happens.

Every cell is compared with the problem that a task makes. Of the yes, `covering` chooses those that
run: every solver meets every kind of operator and noise that it takes, every task meets solvers of
every need that it serves, both of them with noise and without. Of the no, those that ask: every
solver refuses for every lack that it can have, and every task is refused for every lack.
"""

from __future__ import annotations

import itertools
from functools import cache

import pytest
import torch
from torch import Tensor

from covering import covering
from invdiff.core.rng import Rng
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.problem.whiten import whiten
from invdiff.sampling.needs import IncompatibleError, Need, closure, offers, why_not
from invdiff.sampling.run import solve
from invdiff.solvers import Solver, registry
from invdiff.tasks.table import columns, example, table

SIGMAS = (0.05, 0.0)
SOLVERS: dict[str, Solver] = {name: cls().with_steps(2) for name, cls in registry().items()}
Cell = tuple[str, str, float]
"""A solver, a task and its noise."""
CELLS: list[Cell] = list(itertools.product(SOLVERS, columns(), SIGMAS))
STRUCTURES = (Need.CELLS, Need.SVD, Need.PINV, Need.OPERATOR_VJP, Need.GENERALISED_INVERSE)


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


@cache
def white(task: str, sigma: float) -> Problem:
    return whiten(measured(task, sigma))


@cache
def offered(task: str, sigma: float) -> frozenset[Need]:
    return offers(measured(task, sigma), white=white(task, sigma))


def said(name: str, task: str, sigma: float) -> str:
    """Why not, or nothing."""
    return why_not(SOLVERS[name], measured(task, sigma), white=white(task, sigma))


def ways(name: str) -> tuple[frozenset[Need], ...]:
    """The sets of needs of a solver, any one of which will do."""
    return SOLVERS[name].requires()


def can(cell: Cell) -> bool:
    name, *problem = cell
    return any(closure(way) <= offered(*problem) for way in ways(name))


def runs(cell: Cell) -> set[tuple[object, ...]]:
    """What one run stands for: solver and kind of problem, task and need, both and the noise.

    A solver sees white noise, whatever Gaussian noise there was.
    """
    name, task, sigma = cell
    problem, given = measured(task, sigma), offered(task, sigma)
    structure = next(need for need in STRUCTURES if need in given)
    kinds = {structure, type(white(task, sigma).noise), sigma, len(problem.x_shape)}
    kinds |= {Need.AUTOENCODER} & given | {("complex", problem.y.is_complex())}
    needs = set[Need | None]({None}).union(*(way for way in ways(name) if closure(way) <= given))
    return {(name, kind) for kind in kinds} | {(task, need, sigma) for need in needs}


def refusals(cell: Cell) -> set[tuple[object, ...]]:
    """What one refusal stands for: solver and lack, task and lack."""
    name, *problem = cell
    lacks = [need for way in ways(name) for need in closure(way) - offered(*problem)]
    return {(which, lack) for which in (name, problem[0]) for lack in lacks}


YES = [cell for cell in CELLS if can(cell)]
NO = [cell for cell in CELLS if not can(cell)]
RUN = covering(YES, runs, spread=lambda cell: cell[1])
REFUSED = covering(NO, refusals, spread=lambda cell: cell[1])


def test_every_cell_is_the_shortest_sentence_of_its_problems():
    """The table looks at empty examples; here are measured ones. The list is of what differs."""
    assert list(promises()) == list(registry())
    wrong = []
    for name, task in itertools.product(SOLVERS, columns()):
        found = [said(name, task, sigma) for sigma in SIGMAS]
        if promises()[name][task] != min(found, key=len):
            wrong.append((name, task, promises()[name][task], found))
    assert wrong == []


@pytest.mark.parametrize("task", columns())
def test_a_yes_runs_two_steps(task):
    """All chosen runs of a task; the list is of those whose samples are no images."""
    bad, chosen = [], [(name, sigma) for name, of, sigma in RUN if of == task]
    for name, sigma in chosen:
        problem = measured(task, sigma)
        samples = solve(problem, Denoiser(two_humps), SOLVERS[name]).samples
        if samples.shape != (1, 1, *problem.x_shape) or not torch.isfinite(samples).all():
            bad.append((name, sigma, tuple(samples.shape)))
    assert bad == [] and chosen


def test_a_no_says_its_sentence():
    """The list is of those that say another one, or none."""
    wrong = []
    for name, task, sigma in REFUSED:
        sentence = said(name, task, sigma).rstrip(".")
        try:
            solve(measured(task, sigma), Denoiser(two_humps), SOLVERS[name])
            wrong.append((name, task, sigma, "it ran"))
        except IncompatibleError as refused:
            if not (sentence and str(refused).startswith(sentence)):
                wrong.append((name, task, sigma, str(refused)))
    assert wrong == [] and len(REFUSED) > 50


def test_no_row_is_empty():
    """Every solver can do something, and every task has a solver that reads its measurement."""
    rows = promises()
    for name, cells in rows.items():
        assert any(not cell for cell in cells.values()), name
    for task in columns():
        assert any(not rows[n][task] and not registry()[n].ignores_y for n in rows), task
