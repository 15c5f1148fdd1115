"""Samplers that are wrong in a known way: an audit that passes them is worth nothing.

Each is made from the exact posterior, and has the measurements that should see it. `exact` should
be seen by none. What one measurement cannot see is said too: the Stein discrepancy knows nothing of
missing modes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from invdiff.audit.distance import drawn
from invdiff.audit.trial import Trial, examined, trial
from invdiff.audit.verdict import flagged, p_values
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP
from invdiff.priors.base import Prior
from invdiff.priors.gaussian import GaussianMixture
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.sampling.solver import Solver
from invdiff.sampling.state import State
from invdiff.sampling.steps import ddim
from invdiff.solvers.unconditional import Unconditional

CELL, SIZE = (8, 2), 31
"""The cell of GMM-25 and the samples of each problem."""
PROBLEMS = 60
STOPPED = 0.5
"""Noise that early stopping leaves, where a mode has a deviation of 1."""
Sampler = Callable[[Trial, int, int], Tensor]
"""(trial, samples, seed) -> (samples, *x_shape)."""


def _law(t: Trial, weights: Tensor, scale: float = 1.0) -> GaussianMixture:
    law = t.posterior
    return GaussianMixture(weights, law.means, scale * law.covs, law.value_range)


def _exact(t: Trial, n: int, seed: int) -> Tensor:
    return t.posterior.sample(n, seed)


def _prior(t: Trial, n: int, seed: int) -> Tensor:
    return t.prior.sample(n, seed)


def _half(t: Trial, n: int, seed: int) -> Tensor:
    return _law(t, t.posterior.weights, 0.5).sample(n, seed)


def _double(t: Trial, n: int, seed: int) -> Tensor:
    return _law(t, t.posterior.weights, 2.0).sample(n, seed)


def _dropped(t: Trial, n: int, seed: int) -> Tensor:
    weights = t.posterior.weights.clone()
    weights[weights.argsort()[-2]] = 0
    return _law(t, weights).sample(n, seed)


def _swapped(t: Trial, n: int, seed: int) -> Tensor:
    weights, order = t.posterior.weights.clone(), t.posterior.weights.argsort()
    weights[order[-2:]] = weights[order[-2:]].flip(0)
    return _law(t, weights).sample(n, seed)


def _stopped(t: Trial, n: int, seed: int) -> Tensor:
    x = _exact(t, n, seed)
    return x + STOPPED * Rng.of(seed).normal(x[None], "stopped")[0]


def _map(t: Trial, n: int, seed: int) -> Tensor:
    best = t.posterior.means[int(t.posterior.weights.argmax())]
    return best.expand(n, *best.shape).clone()


def _ignores(t: Trial, n: int, seed: int) -> Tensor:
    return drawn(Unconditional(schedule=VP(50)), t.problem, t.prior, n)[0]


@dataclass(frozen=True)
class Control:
    """A sampler, the measurements that have to see it, and those that are known not to."""

    sampler: Sampler
    seen_by: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()


CONTROLS = {
    "exact": Control(_exact),
    "prior": Control(
        _prior, ("distance", "modes", "residual", "rank residual", "rank tarp", "stein")
    ),
    "half variance": Control(_half, ("width", "stein", "rank density")),
    "double variance": Control(_double, ("width", "residual", "stein", "rank density")),
    "dropped mode": Control(_dropped, ("modes",), ("stein", "width", "residual")),
    "swapped modes": Control(_swapped, ("modes", "distance", "rank tarp"), ("stein", "width")),
    "early stopping": Control(_stopped, ("width", "residual", "rank density")),
    "one MAP repeated": Control(_map, ("width", "modes", "rank density", "rank tarp")),
    "ignores y": Control(_ignores, ("distance", "modes", "residual", "rank residual")),
}


def examine(
    sampler: Sampler, numbers: Sequence[int], cell: tuple[int, int] = CELL, size: int = SIZE
) -> dict[str, list[float | int | bool]]:
    """Lists with an entry for each problem, for `verdict.p_values`."""
    each = []
    for number in numbers:
        t = trial(*cell, number)
        each.append(examined(t, sampler(t, size, 7_000 + number), number, size))
    return {name: [one[name] for one in each] for name in each[0]}


def caught(
    name: str, numbers: Sequence[int] = range(PROBLEMS)
) -> tuple[dict[str, float], list[str]]:
    """p-values of a control, and what flags it."""
    found = p_values(examine(CONTROLS[name].sampler, numbers), SIZE)
    return found, flagged(found)


def mixed(solver: Solver, problem: Problem, prior: Prior, rows: int = 6) -> float:
    """How far a sample moves when others are computed beside it, over the deviation of samples.

    0 up to round-off for a solver whose rows are independent; a `coupled` one is not asked.
    """
    alone = solve(problem, prior, solver, samples=rows, seed=1, batch=1).samples[0].double()
    beside = solve(problem, prior, solver, samples=rows, seed=1).samples[0].double()
    return float((alone - beside).abs().max() / alone.std())


@dataclass(frozen=True)
class BatchNorm(Solver):
    """DPS that divides by the norm over the whole batch: what a sample is depends on its company.

    A fault of code that was written for one image and is given several; a negative control.
    """

    name = "batch-norm"
    paper = "none: a negative control"
    zeta: float = 1.0

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x0, pull = prior.x0_vjp(state.x, level)
        r = problem.residual(x0)
        pulled = pull(problem.A.vjp(x0, r)) / r.norm().clamp_min(1e-12)
        z = rng.normal(state.x, "step")
        eps = (state.x - level.a * x0) / level.s
        x = ddim(x0, eps, level, to, z, 1.0)
        return State(state.step + 1, x + self.zeta * pulled, x0)
