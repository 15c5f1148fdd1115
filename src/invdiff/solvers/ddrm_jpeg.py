"""Denoising diffusion restoration for quantised measurements: JPEG and its kin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from invdiff.core.rng import Rng
from invdiff.core.schedules import VP, Schedule
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State


@dataclass(frozen=True)
class DDRMJPEG(Solver):
    """X = x0 - h^+(h(x0)) + h^+(y), mixed with x0 and re-noised, from a noised h^+(y) half way.

    Kawar, Song, Ermon, Elad 2022, "JPEG artifact correction using denoising diffusion restoration
    models", arXiv 2209.11888: DDRM's rule with h in the place of A, h = decode(encode(.)) and
    h^+ = identity for JPEG. X' = eta_b X + (1 - eta_b) x0; eta -> eta_prop. The default schedule is
    the official grid 0, 15, ..., 285, which begins at sigma 1.15. The paper's averaged variant is
    `Result.mean` of several samples (the official code averages images clamped to their range).

    mix "variance" keeps sqrt(1 - eta^2) of the old noise, so that the state has the variance of its
    level. "linear", 1 - eta, is the official code: for eta between 0 and 1 the state is then less
    noisy than the level that the denoiser is told. At the default of 1 the two agree. The official
    code's quantisation is `Quantize(8, "bytes")`, its JPEG a soft one without the codec's rounding.
    """

    name: ClassVar[str] = "ddrm-jpeg"
    paper: ClassVar[str] = "Kawar, Song, Ermon, Elad 2022, arXiv 2209.11888"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.GENERALISED_INVERSE, Need.NOISELESS})

    when_it_diverges: ClassVar[str] = "a smaller eta_b, or a solver for noisy measurements"

    eta_prop: float = knob(1.0, "share of fresh noise in each step", 0, 1)
    eta_b: float = knob(
        0.4, "weight of the corrected estimate; at 0, y is in the start alone", 0, 1
    )
    mix: Literal["variance", "linear"] = knob("variance", "weight of the old noise: exact, 1 - eta")
    schedule: Schedule = field(default=VP(20, top=300), kw_only=True)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """README.md and main.py of bahjat-kawar/ddrm-jpeg: 20 steps from 300, eta 1, etaB 0.4.

        The command of the README averages 8 samples (num_avg_samples).
        """
        same = cls(mix="linear", schedule=VP(20, spacing="strided", top=300))
        return dict.fromkeys(("jpeg", "quantize"), same)

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        top, z = self.levels[0], rng.normal(problem.x_like, "init")
        return State(0, top.a * problem.invertible.pinv(problem.y) + top.s * z, 0.0 * z)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x0 = prior.x0(state.x, level)
        eps = eps_from(state.x, x0, level)
        x0 = x0 + self.eta_b * problem.invertible.pinv_residual(problem.y, x0)
        z, eta = rng.normal(x0, "step"), self.eta_prop
        if self.mix == "linear":
            x = to.a * x0 + to.s * (eta * z + (1 - eta) * eps)
        else:
            x = steps.renoise(x0, eps, to, z, eta * to.s)
        return State(state.step + 1, x, x0)
