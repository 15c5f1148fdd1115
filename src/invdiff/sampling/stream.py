"""The driver: the states of one batch of rows, one after the other. Nothing here prints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from invdiff.core import InvdiffError, undisturbed
from invdiff.core.alike import alike
from invdiff.core.arguments import checked
from invdiff.core.rng import Rng
from invdiff.priors.base import Counted, Prior
from invdiff.priors.latent import in_latent_space
from invdiff.problem import Problem
from invdiff.problem.whiten import centre
from invdiff.sampling.needs import check
from invdiff.sampling.pose import Posed, pose
from invdiff.sampling.solver import Solver, registry
from invdiff.sampling.state import State

FAR = 1e5
"""No clean estimate is as many times larger than the prior's range, or than 100 where that has no
end: a state that holds one has diverged, though it is finite."""


class DivergedError(InvdiffError):
    """A sampler left all bounds; the message names the step and what to turn down."""


def posed_for(problem: Problem, prior: Prior, solver: Solver) -> Posed:
    """The problem as solvers see it. Raises IncompatibleError when this one cannot solve it."""
    with undisturbed(problem.y.device):
        posed = pose(problem, prior)
        check_posed(posed, prior, solver)
    return posed


def check_posed(posed: Posed, prior: Prior, solver: Solver) -> None:
    """Raise IncompatibleError when the solver cannot, naming the operator and noise as given."""
    told = in_latent_space(centre(posed.asked), prior)
    check(solver, told, prior, (cls() for cls in registry().values()), posed.problem)


@checked
def stream(
    problem: Problem,
    prior: Prior,
    solver: Solver,
    seeds: Sequence[int],
    start: State | None = None,
    portable: bool = False,
) -> Iterator[State]:
    """Yield the state before the first step (or `start`), and after every step.

    seeds: one integer for each row of problem.y. start: a saved state to go on from; the result is
    bit for bit that of an uninterrupted run. portable: draw noise on the CPU.
    With a prior of latents, states are of latents, and the prior's decoder makes images of them.
    Raises IncompatibleError before any network call, DivergedError when a state is not finite.
    """
    posed = posed_for(problem, prior, solver)
    return states(posed.problem, Counted(prior), solver, seeds, start, portable)


def states(
    problem: Problem,
    prior: Prior,
    solver: Solver,
    seeds: Sequence[int],
    start: State | None,
    portable: bool,
) -> Iterator[State]:
    """`stream` of a problem that was posed, with a solver that can."""
    if len(seeds) != problem.batch:
        raise InvdiffError(f"{problem.batch} measurements need as many seeds, found {len(seeds)}.")
    rng = Rng.of(seeds, portable)
    device = problem.y.device
    with undisturbed(device), alike(problem.batch, device):
        state = start or solver.init(problem, prior, rng.at(-1))
    yield state
    while state.step < solver.num_steps:
        with undisturbed(device), alike(problem.batch, device):
            state = solver.step(state, problem, prior, rng.at(state.step))
        if state.x.device.type == "cpu" or state.step == solver.num_steps:
            _check_finite(state, prior, solver)
        yield state


@checked
def finish(
    state: State,
    problem: Problem,
    prior: Prior,
    solver: Solver,
    seeds: Sequence[int],
    portable: bool = False,
) -> Tensor:
    """The samples of the last state of a stream, (B, *x_shape); latents of a prior of latents."""
    with undisturbed(problem.y.device):
        posed = pose(problem, prior)
    return finished(state, posed.problem, Counted(prior), solver, seeds, portable)


def finished(
    state: State,
    problem: Problem,
    prior: Prior,
    solver: Solver,
    seeds: Sequence[int],
    portable: bool,
) -> Tensor:
    device = problem.y.device
    with undisturbed(device), alike(problem.batch, device):
        rng = Rng.of(seeds, portable).at(state.step)
        return solver.finish(state, problem, prior, rng)


def _check_finite(state: State, prior: Prior, solver: Solver) -> None:
    largest = max(map(abs, prior.value_range))
    far = FAR * (largest if math.isfinite(largest) else 100)
    parts = (state.x, *state.extra.values())
    finite = all(bool(torch.isfinite(part.sum())) for part in parts)
    if not finite or bool(state.x0.abs().max() > far):
        where = f"reached values beyond {far:g}" if finite else "left the finite numbers"
        raise DivergedError(
            f"{solver.name} {where} at step {state.step} of {solver.num_steps}; "
            f"try {solver.when_it_diverges}."
        )
