"""The contracts of operators, solvers and tasks, as functions for tests of your own classes.

    from invdiff.testing import check_operator
    def test_half():
        check_operator(Half(), (3, 16, 16))

Each raises AssertionError, in one sentence, at the first promise that is broken.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from invdiff import fields
from invdiff.core import InvdiffError
from invdiff.core.encode import decode, encode
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Linear, Operator, PseudoInvertible
from invdiff.operators.downsample import AveragePool
from invdiff.operators.given.functions import dot_test
from invdiff.priors.base import Prior
from invdiff.priors.gaussian import GaussianPrior
from invdiff.priors.load import load_prior
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.sampling.solver import Solver
from invdiff.sampling.state import State
from invdiff.sampling.stream import finish, stream
from invdiff.solvers import solver_class
from invdiff.tasks.auto import choose, configured, estimator
from invdiff.tasks.base import Simulation, Task

TOLERANCE = 1e-8
"""Relative gap that float64 allows an operator: round-off of some thousand sums is far below."""


def check_operator(A: Operator, x_shape: tuple[int, ...]) -> None:
    """Batches, shapes, types and, of a linear operator, linearity, adjoint and pseudo-inverse.

    x_shape: of one image that A takes, (C, H, W). All in float64.
    """
    draw = torch.Generator().manual_seed(0)
    A = A.to("cpu", torch.float64)
    x = torch.randn(2, *x_shape, generator=draw, dtype=torch.float64)
    before, y, name = x.clone(), A(x), type(A).__name__
    _say(torch.equal(x, before), f"{name} changes its argument")
    _say(y.shape == (2, *A.y_shape(x_shape)), f"{name}: y_shape is not the shape of A(x)")
    alone = torch.cat([A(x[:1]), A(x[1:])])
    _say(_near(y, alone), f"{name}: a row of a batch is not what it is alone")
    _say(bool(torch.isfinite(torch.view_as_real(y) if y.is_complex() else y).all()),
         f"{name}: A(x) is not finite")  # fmt: skip
    if isinstance(A, Linear):
        _say(_near(A(2 * x[:1] - 3 * x[1:]), 2 * y[:1] - 3 * y[1:]), f"{name} is not linear")
        gap = dot_test(A, x_shape)
        _say(gap < TOLERANCE, f"{name}: <A x, y> and <x, A^T y> differ by {gap:.1e}")
    if isinstance(A, PseudoInvertible) and A.consistent(x_shape):
        gap = float((A(A.pinv(y)) - y).abs().max() / y.abs().max().clamp_min(1e-12))
        _say(gap < 1e-4, f"{name}: A(pinv(A x)) differs from A x by {gap:.1e} of the largest")


def check_solver(
    solver: Solver, problem: Problem | None = None, prior: Prior | None = None, steps: int = 4
) -> None:
    """Deterministic, row by row, resumable bit for bit, and without a change of what it is given.

    problem: that it can solve; without it block means of 8 x 8 pixels with noise of 0.05. prior:
    without it a normal law. steps: of its schedule, to be quick.
    """
    name, solver = solver.name, solver.with_steps(steps)
    if problem is None:
        A, x = AveragePool(2, (8, 8)), torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)
        problem = Problem(A(x), A, GaussianNoise(0.05), (3, 8, 8))
    prior = prior or GaussianPrior(torch.zeros(problem.x_shape), 0.25)
    y = problem.y.clone()
    first = solve(problem, prior, solver, 3, seed=7).samples
    again = solve(problem, prior, solver, 3, seed=7).samples
    _say(torch.equal(first, again), f"{name} gives other samples for the same seed")
    _say(torch.equal(problem.y, y), f"{name} changes the measurement")
    if not solver.coupled:
        apart = solve(problem, prior, solver, 3, seed=7, batch=1).samples
        _say(_near(first, apart, 1e-4), f"{name}: a sample alone is not what it is in a batch")
    rows = problem.rows(torch.zeros(2, dtype=torch.long))
    states = list(stream(rows, prior, solver, [1, 2]))
    kept = [_copy(s) for s in states]
    middle = len(states) // 2
    resumed = list(stream(rows, prior, solver, [1, 2], states[middle]))[-1]
    _say(torch.equal(resumed.x, states[-1].x), f"{name} resumed at step {middle} goes another way")
    unchanged = all(torch.equal(a.x, b.x) for a, b in zip(states, kept, strict=True))
    _say(unchanged, f"{name} changes a state that it was given")
    x = finish(states[-1], rows, prior, solver, [1, 2])
    _say(tuple(x.shape) == (2, *problem.x_shape), f"{name}: samples have another shape than x")


def check_task(task: Task, file: str | Path | None = None, prior: Prior | None = None) -> None:
    """Options that make the same task again, as text and in run.json; presets that exist; and of a
    file, a problem that its solver can solve, with pictures of it.

    file: a measurement of the task; None leaves it out. prior: without it, the task's.
    """
    cls, name = type(task), task.name
    fields.hints(cls)  # raises TypeError for a type that no command line can read
    try:
        same = fields.build(cls, {k.lstrip("-"): v for k, v in fields.changed(task).items()}, name)
    except InvdiffError as error:
        raise AssertionError(f"{name} cannot be made from its own options: {error}") from error
    _say(str(same) == str(task), f"{name}: its options as text make another task")
    tensors: dict[str, Tensor] = {}
    form = encode(task, tensors)
    _say(str(decode(form, tensors)) == str(task), f"{name}: run.json makes another task of it")
    toy = cls.toy()
    for preset in cls.presets:
        found = configured(cls, preset.solver, toy)
        _say(isinstance(found, solver_class(preset.solver)), f"{name}: preset {preset.solver}")
    chosen, _ = choose(cls, toy)
    _say(chosen.num_steps > 0, f"{name}: its solver {chosen.name} has no steps")
    estimator(cls, toy)
    made = cls.simulation()
    _say(made is None or issubclass(made, Simulation | Task), f"{name}: simulation is no class")
    if file is None:
        return
    measured = task.read(Path(file), prior or load_prior(cls.prior))
    problem, view = measured.problem, measured.view
    x = torch.zeros(2, *problem.x_shape)
    values = view.values(x)
    _say(len(values) == 2, f"{name}: values of its view have lost the samples")
    size = tuple(view.picture(values[0]).shape[-2:])
    _say(size == view.size(problem.x_shape), f"{name}: pictures have another size than is told")
    _say(bool(view.measurement(problem)), f"{name}: nothing is shown of the measurement")


def _say(true: bool, sentence: str) -> None:
    if not true:
        raise AssertionError(f"{sentence}.")


def _near(a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> bool:
    largest = max(float(b.abs().max()), 1e-12)
    return bool((a - b).abs().max() <= tolerance * largest)


def _copy(state: State) -> State:
    extra = {k: v.clone() for k, v in state.extra.items()}
    return dataclasses.replace(state, x=state.x.clone(), x0=state.x0.clone(), extra=extra)
