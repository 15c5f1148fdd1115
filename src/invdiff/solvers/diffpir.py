"""Plug-and-play restoration: alternate the denoiser and the proximal step of the data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from invdiff.core.rng import Rng
from invdiff.core.schedules import VP, Schedule
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State


@dataclass(frozen=True)
class DiffPIR(Solver):
    """X = argmin |y - A x|^2 + rho |x - x0|^2 with rho = lam sigma_n^2 / v^2, then re-noised.

    Zhu, Zhang, Liang, Cao, Wen, Timofte, Van Gool 2023, "Denoising diffusion models for
    plug-and-play image restoration", arXiv 2305.08995, Algorithm 1. lambda -> lam, v = s / a,
    sigma_n -> the noise level, at least sigma_floor. The noise that explains x_t by X is kept with
    sqrt(1 - zeta), fresh noise enters with sqrt(zeta).
    lam is in consistent units: the official code mixes ranges, so its value is 4 lam.

    clip "value": x0 is clipped to the prior's range before the data step, as in the official code.
    final "proximal": X of the last step. "denoised": its x0. "noisy": the last state as it is, with
    the noise of the last level (0.01 of the image for the usual table): the official code, which
    throws away the last evaluation. It also starts elsewhere: from y (blur, mask) or its bicubic
    enlargement, noised to the first level, where this starts from noise.
    """

    name: ClassVar[str] = "diffpir"
    paper: ClassVar[str] = "Zhu et al. 2023, arXiv 2305.08995, Algorithm 1"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LINEAR, Need.GAUSSIAN})

    when_it_diverges: ClassVar[str] = "a larger lam or sigma_floor"

    lam: float = knob(1.75, "weight of the prior against the data", 1e-6)
    zeta: float = knob(0.3, "share of fresh noise (variance) in each step", 0, 1)
    sigma_floor: float = knob(0.002, "smallest noise level that the data step assumes", 1e-6, 1)
    final: Literal["proximal", "denoised", "noisy"] = knob("proximal", "what the last step returns")
    clip: Literal["off", "value"] = knob("off", "whether x0 is clipped to the prior's range")
    tol: float = knob(
        0.0,
        "error that an iterative data step may leave, in deviations; 0 is its operator's cg_tol",
        0,
        1,
    )
    schedule: Schedule = field(default=VP(100, spacing="quad"), kw_only=True)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """The main scripts of yuanzhi-zhu/DiffPIR, whose lambda is 4 lam.

        deblur: main_ddpir_deblur.py, lambda 7 (of 1 x 7), zeta .3 (of .1 x 3), 100 steps, noise of
        12.75/255 on [0, 1]. inpaint: main_ddpir_inpainting.py and configs/inpaint.yaml, lambda 1,
        zeta 1, 20 steps, no noise. main_ddpir_sisr.py sweeps lambda from 2 to 12 at zeta .25 and
        names no winner, so there is no entry.
        """
        same: dict[str, Any] = {"clip": "value", "final": "noisy"}
        return {
            "deblur": cls(7 / 4, 0.3, **same),
            "inpaint": cls(1 / 4, 1.0, schedule=VP(20, spacing="quad"), **same),
        }

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x0, _ = steps.clipped(prior.x0(state.x, level), prior.value_range, self.clip)
        if to.s == 0 and self.final == "noisy":
            return State(state.step + 1, state.x, x0)
        if to.s == 0 and self.final == "denoised":
            return State(state.step + 1, to.a * x0, x0)
        noise = max(problem.sigma_y, self.sigma_floor)
        rho = self.lam * (noise / level.sigma) ** 2
        X = problem.linear.proximal(x0, problem.y, rho, self.tol * noise)
        eps = eps_from(state.x, X, level)
        x = steps.renoise(X, eps, to, rng.normal(X, "step"), self.zeta**0.5 * to.s)
        return State(state.step + 1, x, X)
