"""Pseudo-inverse guidance: for noisy linear and for noiseless, even undifferentiable, operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invdiff import steps
from invdiff.core import Level, Problem, State
from invdiff.needs import Need
from invdiff.priors.base import Prior, eps_from
from invdiff.rng import Rng
from invdiff.solvers.base import Solver, knob


@dataclass(frozen=True)
class PiGDM(Solver):
    """DDIM steps plus w a_s a_t g, g = J^T A^T (A A^T + sigma_y^2 / r_t^2)^-1 (y - A x0).

    Song, Vahdat, Mardani, Kautz 2023, "Pseudoinverse-guided diffusion models for inverse
    problems", ICLR 2023, Algorithm 1 with the noisy score of section 3. r_t^2 = v^2 / (1 + v^2)
    for v = sigma_t / alpha_t, J = d x0 / d x_t, weight -> w. The factor a_s a_t makes the
    variance-preserving and the variance-exploding form the same; the noise eps is the unguided one.
    At sigma_y = 0, g = J^T (h^+(y) - h^+(h(x0))) without a gradient through h and h^+: the limit of
    the form above where h is linear, and the paper's form for other h, JPEG among them, of which
    it asks for a generalised inverse and no more. It starts from a noised h^+(y).
    """

    name: ClassVar[str] = "pigdm"
    paper: ClassVar[str] = "Song, Vahdat, Mardani, Kautz 2023, ICLR, Algorithm 1"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PRIOR_VJP, Need.PINV, Need.GAUSSIAN})
    or_needs: ClassVar[tuple[frozenset[Need], ...]] = (
        frozenset({Need.PRIOR_VJP, Need.GENERALISED_INVERSE, Need.NOISELESS}),
    )

    when_it_diverges: ClassVar[str] = "a smaller weight or more steps"

    weight: float = knob(1.0, "guidance weight w; 0 ignores y", 0)
    eta_ddim: float = knob(1.0, "fresh noise per step: 0 is deterministic, 1 is DDPM", 0, 1)

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        top = self.levels[0]
        z = rng.normal(problem.x_like, "init")
        start = problem.invertible.pinv(problem.y) if self.weight else 0.0 * z
        return State(0, top.a * start + top.s * z, 0.0 * z)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x0, pull = prior.x0_vjp(state.x, level)
        eps = eps_from(state.x, x0, level)
        x = steps.ddim(x0, eps, level, to, rng.normal(state.x, "step"), self.eta_ddim)
        g = pull(self._misfit(x0, problem, level))
        return State(state.step + 1, x + self.weight * to.a * level.a * g, x0)

    def _misfit(self, x0: Tensor, problem: Problem, level: Level) -> Tensor:
        """(A^T A + sigma_y^2 / r^2)^-1 A^T (y - A x0), which is A^T (A A^T + .)^-1 (y - A x0)."""
        if problem.sigma_y == 0:
            return problem.invertible.pinv_residual(problem.y, x0)
        A, v2 = problem.linear, level.sigma**2
        return A.ridge(problem.residual(x0), problem.sigma_y**2 * (1 + v2) / v2)
