"""Iterative latent variable refinement: replace the low frequencies of every state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from invdiff import steps
from invdiff.core import Problem, State
from invdiff.needs import Need
from invdiff.operators.krylov import inverse_squared_norm
from invdiff.paths import VP, Path
from invdiff.priors.base import Prior, eps_from
from invdiff.rng import Rng
from invdiff.solvers.base import Solver, knob


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
    range_t + 1 steps free where this leaves range_t. Default path: the 100 steps of the official
    command. Noise in y is not modelled.
    """

    name: ClassVar[str] = "ilvr"
    paper: ClassVar[str] = "Choi, Kim, Jeong, Gwon, Yoon 2021, arXiv 2108.02938, Algorithm 1"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LINEAR})

    when_it_diverges: ClassVar[str] = "up transpose, which amplifies nothing"

    range_t: int = knob(0, "number of last steps that are left to the prior alone", 0)
    up: Literal["transpose", "pinv"] = knob("transpose", "how y is brought to the image's size")
    known_level: steps.KnownLevel = knob("next", "noise level of the data that is pasted")
    path: Path = field(default_factory=lambda: VP(100, spacing="trailing"), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.up == "pinv":
            object.__setattr__(self, "needs", self.needs | {Need.PINV})

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        state = super().init(problem, prior, rng)
        scale = inverse_squared_norm(problem.linear, state.x)
        return State(0, state.x, state.x0, {"scale": scale})

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x0 = prior.x0(state.x, level)
        eps = eps_from(state.x, x0, level)
        x = steps.ddim(x0, eps, level, to, rng.normal(x0, "step"), 1.0)
        if state.step < self.num_steps - self.range_t:
            known, z = steps.pasted(level, to, self.known_level), rng.normal(x, "known")
            A, lack = problem.linear, steps.noised_residual(x, problem, known, z)
            up = A.pinv(lack) if self.up == "pinv" else state.extra["scale"] * A.adjoint(lack)
            x = x + up
        return State(state.step + 1, x, x0, state.extra)
