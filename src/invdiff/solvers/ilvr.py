"""Iterative latent variable refinement: replace the low frequencies of every state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from invdiff.core.rng import Rng
from invdiff.core.schedules import VP, Schedule
from invdiff.operators.algebra.krylov import inverse_squared_norm
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State


@dataclass(frozen=True)
class ILVR(Solver):
    """x_{t-1} = x' - phi(x') + phi(y_{t-1}), phi = up after down: low frequencies from y.

    Choi, Kim, Jeong, Gwon, Yoon 2021, "ILVR: conditioning method for denoising diffusion
    probabilistic models", arXiv 2108.02938, Algorithm 1. x' -> an ancestral DDPM step,
    phi_N(reference noised) -> up(a y + s A z) with y = A(reference), A = Bicubic(N): only the
    small picture is needed. Super-resolution is N = 4 or 8; with a large N and range_t > 0,
    y = Bicubic(N)(photo) guides a new image that shares only the coarse layout of the photo.

    up "transpose": A^T / |A|^2, which for bicubic decimation is cubic enlargement by N, the
    paper's. phi is then symmetric with eigenvalues between 0 and 1, and no projector: A x is not
    exactly y. "pinv": A^+ = A^T (A A^T)^-1, with which it is. range_t: the official code leaves
    range_t + 1 steps free where this leaves range_t. Default schedule: the 100 steps of the
    official command, 999, 989, 979, ..., 10, 0. Noise in y is not modelled. The official code also
    clips x0 to the range of images (clip "value"), takes the variance that the network learned
    (variance "learned"), and pastes y at the level of the step's start (known_level "current");
    `official("super-resolution")` has all of these.
    """

    name: ClassVar[str] = "ilvr"
    paper: ClassVar[str] = "Choi, Kim, Jeong, Gwon, Yoon 2021, arXiv 2108.02938, Algorithm 1"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LINEAR})

    when_it_diverges: ClassVar[str] = "up transpose, which amplifies nothing"

    range_t: int = knob(0, "number of last steps that are left to the prior alone", 0)
    up: Literal["transpose", "pinv"] = knob("transpose", "how y is brought to the image's size")
    known_level: steps.KnownLevel = knob("next", "noise level of the data that is pasted")
    clip: Literal["off", "value"] = knob("off", "whether x0 is clipped to the prior's range")
    variance: steps.Variance = knob("lower", "variance of the fresh noise")
    schedule: Schedule = field(default=VP(100, spacing="ends"), kw_only=True)

    def requires(self) -> tuple[frozenset[Need], ...]:
        more = {Need.PINV} if self.up == "pinv" else set()
        more |= {Need.LEARNED_VARIANCE} if self.variance == "learned" else set()
        return (self.needs | more,)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """The command in README.md of jychoi118/ilvr_adm: down_N 32, range_t 20, respacing 100.

        y = Bicubic(32)(photo) there; a smaller down_N is the same configuration.
        """
        how: dict[str, Any] = {"known_level": "current", "clip": "value", "variance": "learned"}
        return {"super-resolution": cls(range_t=21, **how)}

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        state = super().init(problem, prior, rng)
        scale = inverse_squared_norm(problem.linear, state.x)
        return State(0, state.x, state.x0, {"scale": scale})

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        z = rng.normal(state.x, "step")
        if self.variance == "learned":
            x0, v = prior.x0_v(state.x, level)
            z = steps.spread(z, v, level, to)
        else:
            x0 = prior.x0(state.x, level)
        x0, _ = steps.clipped(x0, prior.value_range, self.clip)
        x = steps.ddim(x0, eps_from(state.x, x0, level), level, to, z, 1.0)
        if state.step < self.num_steps - self.range_t:
            known, z = steps.pasted(level, to, self.known_level), rng.normal(x, "known")
            A, lack = problem.linear, steps.noised_residual(x, problem, known, z)
            up = A.pinv(lack) if self.up == "pinv" else state.extra["scale"] * A.adjoint(lack)
            x = x + up
        return State(state.step + 1, x, x0, state.extra)
