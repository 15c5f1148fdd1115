"""Projections onto convex sets for JPEG, one of which is a denoiser: one picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, Schedule
from invdiff.operators.jpeg_cells import nearest, planes
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import Solver
from invdiff.sampling.state import State


@dataclass(frozen=True)
class POCS(Solver):
    """x0 = P(D(x0, sigma_k)), P the way back into the cells that the file tells.

    Rosenholtz and Zakhor 1992, "Iterative procedures for reduction of blocking effects in transform
    image coding", IEEE Transactions on Circuits and Systems for Video Technology 2(1): a smooth
    version of the picture, and then the nearest coefficients that the file allows, in turns.
    No noise is drawn: every sample is the same picture, an estimate.
    Deviation: the denoiser at falling levels stands for their low-pass filter; colours are taken
    back plane by plane (`jpeg_cells.nearest`).
    """

    name: ClassVar[str] = "pocs"
    paper: ClassVar[str] = "Rosenholtz and Zakhor 1992, IEEE TCSVT 2(1)"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CELLS, Need.NOISELESS})
    estimates: ClassVar[bool] = True

    when_it_diverges: ClassVar[str] = "a schedule whose levels lie within those of the prior"

    schedule: Schedule = field(default=VE(2, 0.05, 0.025), kw_only=True)

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        return State(0, problem.y, problem.y.clone())

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        x0 = prior.denoise(state.x, self.levels[state.step].sigma)
        x0 = nearest(planes(problem.jpeg, problem.y), x0)
        return State(state.step + 1, x0, x0.clone())
