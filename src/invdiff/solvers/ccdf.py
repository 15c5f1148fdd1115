"""Come closer, diffuse faster: any solver, started from a noised first guess."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from torch import Tensor

from invdiff.core import InvdiffError, Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP, Schedule
from invdiff.operators.algebra.krylov import inverse_squared_norm
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import Solver, knob
from invdiff.sampling.state import State
from invdiff.solvers.replacement import Replacement

SCHEDULE = VP(1000, spacing="trailing")
"""The schedule of which `start` is a fraction."""


@dataclass(frozen=True)
class CCDF(Solver):
    """x_{t0} = a x_init + s z, then the steps of another solver from there.

    Chung, Sim, Ye 2022, "Come-closer-diffuse-faster: accelerating conditional diffusion models for
    inverse problems through stochastic contraction", arXiv 2112.05146. x_init -> guess,
    t0 -> start, N' -> num_steps. The paper proves it for steps x <- A_i x' + b_i with |A_i| <= 1:
    `Replacement` and `ILVR` are such. Any other base runs, and without a proof.

    base: a solver, whose schedule it keeps unless `schedule` is given. It starts at the level of
    the base's schedule whose sigma = s / a is nearest to that of the variance-preserving schedule
    at the fraction `start`, or to `sigma` itself, which means the same on every schedule.
    with_steps(n) makes the schedule so fine that n steps are left.
    guess "pinv": A^+ y. "transpose": A^T y / |A|^2, for super-resolution the cubic enlargement;
    it does not amplify noise. With Unconditional() as base, y enters through the guess alone.
    """

    name: ClassVar[str] = "ccdf"
    paper: ClassVar[str] = "Chung, Sim, Ye 2022, arXiv 2112.05146"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PINV})

    base: Solver = knob(Replacement(corrector_steps=0, schedule=SCHEDULE), "the solver that runs")
    start: float = knob(0.2, "fraction t0 of the schedule at which it starts", 0.001, 1)
    sigma: float = knob(0.0, "noise level at which it starts; 0 takes that of `start`", 0)
    guess: Literal["pinv", "transpose"] = knob("pinv", "first estimate that is noised")
    schedule: Schedule = field(default=None, kw_only=True)  # type: ignore[assignment]  # the base's

    def __post_init__(self) -> None:
        super().__post_init__()
        base = (
            self.base
            if self.schedule is None
            else dataclasses.replace(self.base, schedule=self.schedule)
        )
        if base.weighted:
            raise InvdiffError(
                f"ccdf starts from a guess, and weights are those of a start from noise; give "
                f"{base.name} without weights."
            )
        known = {"base": base, "schedule": base.schedule}
        known |= {"coupled": base.coupled, "when_it_diverges": base.when_it_diverges}
        for name, value in known.items():
            object.__setattr__(self, name, value)

    def requires(self) -> tuple[frozenset[Need], ...]:
        return tuple(needs | self.needs for needs in self.base.requires())

    @property
    def levels(self) -> list[Level]:
        """Those of the base from the start on."""
        if "_levels" not in self.__dict__:
            *noisy, clean = self.base.levels
            bar = SCHEDULE.alpha_bars()[round(self.start * SCHEDULE.steps) - 1]
            sigma = self.sigma or math.sqrt(1 / bar - 1)
            first = min(range(len(noisy)), key=lambda i: abs(math.log(noisy[i].sigma / sigma)))
            self.__dict__["_levels"] = [*noisy[first:], clean]
        levels: list[Level] = self.__dict__["_levels"]
        return levels

    def with_steps(self, steps: int) -> Self:
        """The same solver with `steps` steps after the jump."""

        def on(n: int) -> CCDF:
            return dataclasses.replace(self, schedule=dataclasses.replace(self.schedule, steps=n))

        n = max(steps, round(steps * self.schedule.steps / self.num_steps))
        while on(n).num_steps < steps:
            n += 1
        while n > steps and on(n - 1).num_steps >= steps:
            n -= 1
        return dataclasses.replace(self, schedule=on(n).schedule)

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        extra, top = self.base.init(problem, prior, rng).extra, self.levels[0]
        z = rng.normal(problem.x_like, "jump")
        x_init = self._guess(problem, z)
        return State(0, top.a * x_init + top.s * z, x_init, extra)

    def _guess(self, problem: Problem, like: Tensor) -> Tensor:
        A = problem.linear
        if self.guess == "pinv":
            return A.pinv(problem.y)
        return inverse_squared_norm(A, like) * A.adjoint(problem.y)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        state = self.base.step(self._shifted(state, self._skip), problem, prior, rng)
        return self._shifted(state, -self._skip)

    def finish(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> Tensor:
        return self.base.finish(self._shifted(state, self._skip), problem, prior, rng)

    @property
    def _skip(self) -> int:
        """How many steps of the base are left out."""
        return len(self.base.levels) - len(self.levels)

    @staticmethod
    def _shifted(state: State, by: int) -> State:
        return dataclasses.replace(state, step=state.step + by)
