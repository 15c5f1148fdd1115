"""LATINO: encode, noise, denoise, decode, and a proximal step on the image; without gradients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from invdiff.core import Level, batch_norm
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP, Schedule
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State

Unit = Literal["one", "misfit"]
TABLE = VP(1000, "scaled-linear", "trailing", beta_min=0.00085, beta_max=0.012)
"""The table of Stable Diffusion; entry t of it is levels()[999 - t]."""
OFFICIAL: dict[str, tuple[float, float, int, Unit]] = {
    "super-resolution-16": (0.3, 0.2, 300, "misfit"),
    "super-resolution-32": (0.15, 0.3, 300, "misfit"),
    "deblur-narrow": (5e-4, 2e-4, 400, "misfit"),
    "deblur-wide": (7e-4, 3e-4, 400, "misfit"),
    "motion-deblur": (4e-4, 2e-4, 400, "misfit"),
    "inpaint-box": (1.0, 0.5, 500, "one"),
    "other": (0.01, 1.0, 200, "one"),
}
"""delta above and from table index t on, t, and its unit: noise_schemes.py of
LATINO-PRO/LATINO-PRO. Gaussian kernels are narrow below 10 pixels; motion blur is that of y with
noise 0.01."""


@dataclass(frozen=True)
class LATINO(Solver):
    """u = D(z0(z_i)), p = prox(u), z_{i-1} = a' E(p) + s' z: few steps, each with fresh noise.

    Spagnoletti, Prost, Almansa, Papadakis, Pereyra 2025, "LATINO-PRO: latent consistency inverse
    solver with prompt optimization", arXiv 2503.12615: LATINO, without the optimisation of the
    prompt. prox(u) = argmin |y - A x|^2 / (2 sigma_y^2) + |x - u|^2 / (2 v), v = delta (1 - abar)
    with abar = a^2 / (a^2 + s^2) of z_i; D and E are the decoder and the encoder.
    Made for a distilled prior, whose z0 is a sample and no mean; with any other the images are
    smooth. Steps and the form of v are the official code's, which changes delta with the task and
    the step by hand: `official(task)`. unit "misfit": delta is multiplied by |y - A u|, as in most
    of its tasks; it depends on the number of pixels then. It also starts from a noised encoding of
    an estimate; here it is from noise. clip: u and p are clipped to the range of images, as the
    code does.
    """

    name: ClassVar[str] = "latino"
    paper: ClassVar[str] = "Spagnoletti et al. 2025, arXiv 2503.12615"
    needs: ClassVar[frozenset[Need]] = frozenset(
        {Need.AUTOENCODER, Need.IMAGE_LINEAR, Need.GAUSSIAN, Need.NOISY}
    )

    when_it_diverges: ClassVar[str] = "a smaller delta"

    delta: float = knob(1.0, "variance of x about u over 1 - abar; 0 ignores y", 0)
    clip: bool = knob(False, "whether images are clipped to the prior's range")
    late_delta: float = knob(1.0, "delta at noise levels up to late_sigma", 0)
    late_sigma: float = knob(0.0, "noise level from which on late_delta holds", 0)
    unit: Unit = knob("one", "what delta is multiplied by: 1, or |y - A u|")
    schedule: Schedule = field(
        default=VP(8, betas="scaled-linear", spacing="trailing", beta_min=0.00085, beta_max=0.012),
        kw_only=True,
    )

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """noise_schemes.py of LATINO-PRO/LATINO-PRO: 8 steps, delta by task and step."""
        found, levels = {}, TABLE.levels()
        for task, (delta, late_delta, t, unit) in OFFICIAL.items():
            found[task] = cls(delta, True, late_delta, levels[999 - t].sigma, unit)
        return found

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        A, D, E = problem.latent.linear, problem.latent.inner, problem.latent.encoder
        x = D(prior.x0(state.x, level))
        x = x.clamp(*prior.image_range) if self.clip else x
        if v := self._delta(level) * (1 - level.alpha_bar):
            x = x + self._pull(problem.y - A(x), v, problem)
            x = x.clamp(*prior.image_range) if self.clip else x
        z0 = E(x)
        noise = to.s * rng.normal(z0, "step") if to.s else 0.0
        return State(state.step + 1, to.a * z0 + noise, z0)

    def _delta(self, level: Level) -> float:
        return self.late_delta if level.sigma <= self.late_sigma else self.delta

    def _pull(self, r: Tensor, v: float, problem: Problem) -> Tensor:
        """What prox adds to u, whose misfit is r; with unit "misfit" every sample has its own v."""
        A, variance = problem.latent.linear, problem.sigma_y**2
        if self.unit == "one":
            return A.ridge(r, variance / v)
        size = batch_norm(r).flatten().clamp_min(torch.finfo(torch.float32).tiny)
        rows = [torch.tensor([i], device=r.device) for i in range(len(r))]
        each = zip(rows, size.tolist(), strict=True)
        return torch.cat([A.rows(i).ridge(r[i], variance / (n * v)) for i, n in each])
