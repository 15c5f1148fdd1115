"""LATINO: encode, noise, denoise, decode, and a proximal step on the image; without gradients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from invdiff.core import Problem, State
from invdiff.needs import Need
from invdiff.paths import VP, Path
from invdiff.priors.base import Prior
from invdiff.rng import Rng
from invdiff.solvers.base import Solver, knob


@dataclass(frozen=True)
class LATINO(Solver):
    """u = D(z0(z_i)), p = prox(u), z_{i-1} = a' E(p) + s' z: few steps, each with fresh noise.

    Spagnoletti, Prost, Almansa, Papadakis, Pereyra 2025, "LATINO-PRO: latent consistency inverse
    solver with prompt optimization", arXiv 2503.12615: LATINO, without the optimisation of the
    prompt. prox(u) = argmin |y - A x|^2 / (2 sigma_y^2) + |x - u|^2 / (2 v), v = delta (1 - abar)
    with abar = a^2 / (a^2 + s^2) of z_i; D and E are the decoder and the encoder.
    Made for a distilled prior, whose z0 is a sample and no mean; with any other the images are
    smooth. Steps and the form of v are the official code's, which changes delta with the task and
    the step by hand. It also starts from a noised encoding of an estimate; here it is from noise.
    clip: u and p are clipped to the range of images, as the code does.
    """

    name: ClassVar[str] = "latino"
    paper: ClassVar[str] = "Spagnoletti et al. 2025, arXiv 2503.12615"
    needs: ClassVar[frozenset[Need]] = frozenset(
        {Need.AUTOENCODER, Need.IMAGE_LINEAR, Need.GAUSSIAN, Need.NOISY}
    )

    when_it_diverges: ClassVar[str] = "a smaller delta"

    delta: float = knob(1.0, "variance of x about u over 1 - abar; 0 ignores y", 0)
    clip: bool = knob(False, "whether images are clipped to the prior's range")
    path: Path = field(
        default_factory=lambda: VP(
            8, schedule="scaled-linear", spacing="trailing", beta_min=0.00085, beta_max=0.012
        ),
        kw_only=True,
    )

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        A, D, E = problem.latent.linear, problem.latent.inner, problem.latent.encoder
        x = D(prior.x0(state.x, level))
        x = x.clamp(*prior.image_range) if self.clip else x
        if v := self.delta * (1 - level.alpha_bar):
            x = x + A.ridge(problem.y - A(x), problem.sigma_y**2 / v)
            x = x.clamp(*prior.image_range) if self.clip else x
        z0 = E(x)
        noise = to.s * rng.normal(z0, "step") if to.s else 0.0
        return State(state.step + 1, to.a * z0 + noise, z0)
