"""A plugin of somebody else: an operator, a task and a solver, known by name once registered."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

import invdiff
from invdiff.core.option import option
from invdiff.core.rng import Rng
from invdiff.operators.algebra import Linear, Operator
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import Solver, knob
from invdiff.sampling.state import State
from invdiff.tasks.base import Choice
from invdiff.tasks.photo import NoisyPhoto
from invdiff.tasks.values import Size


@dataclass(frozen=True, eq=False)
class Dim(Linear):
    """y = share * x: a filter in front of the lens."""

    share: float = 0.5

    def __call__(self, x: Tensor) -> Tensor:
        return self.share * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self.share * y


@dataclass(frozen=True)
class Nudge(Solver):
    """Landweber steps between the prior's denoising and the data (for tests, arXiv none)."""

    name: ClassVar[str] = "nudge"
    paper: ClassVar[str] = "nobody 2026"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LINEAR})

    pull: float = knob(0.5, "step towards the data", 0, 2)

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        x = problem.linear.adjoint(problem.y)
        return State(0, x, x.clone())

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level = self.levels[state.step]
        x0 = prior.denoise(state.x + level.sigma * rng.normal(state.x, "nudge"), level.sigma)
        x0 = x0 + self.pull * problem.linear.adjoint(problem.residual(x0))
        return State(state.step + 1, x0, x0.clone())


@dataclass(frozen=True, kw_only=True)
class Brighten(NoisyPhoto):
    """Undo a grey filter in front of the lens."""

    name: ClassVar[str] = "brighten"
    example: ClassVar[str] = "photo.png --share 0.5"
    auto: ClassVar[Choice] = Choice("nudge", "it is the stranger's own")

    share: float = option("of the light that passes", 0.5, min=0.01, max=1)

    def operator(self, size: Size) -> Operator:
        return Dim(self.share)


invdiff.register(Dim, Nudge, Brighten)
