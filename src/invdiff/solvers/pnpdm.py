"""Split Gibbs sampling: draw z given y near x, then a clean image near z, ever nearer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, NamedTuple

from torch import Tensor

from invdiff.core import CLEAN, Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, Karras, Schedule
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import Solver, knob
from invdiff.sampling.state import State
from invdiff.solvers.moments import posterior_draw


class Move(NamedTuple):
    """One step: a move of the inner sampler; first: rho of the round that begins with it, or 0."""

    level: Level
    to: Level
    first: float


@dataclass(frozen=True)
class PnPDM(Solver):
    """Rounds of z ~ N(z; x, rho^2) p(y | z), then x ~ p(x0 | x0 + rho eps = z), with rho falling.

    Wu, Sun, Chen, Zhang, Yue, Bouman 2024, "Principled probabilistic imaging using diffusion models
    as plug-and-play priors", arXiv 2405.18782, Algorithm 1; with the schedule of DPnP it is Xu, Chi
    2024, "Provably robust score-based diffusion posterior sampling for plug-and-play image
    reconstruction", arXiv 2403.17042. rho_k -> schedule: its levels, one a round. The draw of z
    is exact, for linear operators. That of x is the prior's own sampler, from rho down a grid of
    `inner` levels to `sigma_min`, with steps of DDIM; its last step gives the denoised image.

    At a fixed rho the samples are of the posterior of a noisier measurement, of covariance
    sigma_y^2 + rho^2 A A^T: choose the last rho well below sigma_y, and see that chains join modes
    only while rho is as large as their distance. x starts from 0 with noise of rho_1; it is
    forgotten where rho_1 is larger than the image. Deviation: the inner grid starts at rho itself,
    where the official one starts at the next level of a fixed grid.
    `schedule.steps` counts all steps, of 1 evaluation each: there are schedule.steps / inner
    rounds.
    """

    name: ClassVar[str] = "pnp-dm"
    paper: ClassVar[str] = "Wu et al. 2024, arXiv 2405.18782; Xu, Chi 2024, arXiv 2403.17042"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PINV, Need.GAUSSIAN})

    inner: int = knob(20, "steps of the prior's sampler in each round", 1, 1000)
    sigma_min: float = knob(0.01, "last noise level of the prior's sampler", 1e-6)
    eta_ddim: float = knob(1.0, "fresh noise per inner step: 0 is deterministic", 0, 1)
    tol: float = knob(
        0.0,
        "error that an iterative data step may leave, in deviations; 0 is its operator's cg_tol",
        0,
        1,
    )
    schedule: Schedule = field(default=VE(1000, 10.0, 0.05), kw_only=True)

    @property
    def moves(self) -> list[Move]:
        """All steps of a run, round after round; rounds are as equal in length as can be."""
        if "_moves" not in self.__dict__:
            count, found = -(-self.schedule.steps // self.inner), list[Move]()
            *rhos, _ = dataclasses.replace(self.schedule, steps=count).levels()
            ends = [i * self.schedule.steps // count for i in range(count + 1)]
            for rho, length in zip(rhos, (b - a for a, b in pairwise(ends)), strict=True):
                low = min(self.sigma_min, rho.sigma)
                grid = pairwise(Karras(length, rho.sigma, low).levels())
                found += [Move(t, u, rho.sigma * (i == 0)) for i, (t, u) in enumerate(grid)]
            self.__dict__["_moves"] = found
        moves: list[Move] = self.__dict__["_moves"]
        return moves

    @property
    def levels(self) -> list[Level]:
        """The level of the prior's call in every step, and the image."""
        return [*(move.level for move in self.moves), CLEAN]

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        z = rng.normal(problem.x_like, "init")
        return State(0, self.moves[0].first * z, 0.0 * z)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to, rho = self.moves[state.step]
        x = self._near(state.x, problem, rho, rng) if rho else state.x
        x0 = prior.x0(x, level)
        z = rng.normal(x, "step")
        x = steps.ddim(x0, eps_from(x, x0, level), level, to, z, self.eta_ddim)
        return State(state.step + 1, x, x0)

    def _near(self, x: Tensor, problem: Problem, rho: float, rng: Rng) -> Tensor:
        """A draw of N(x, rho^2) given y."""
        A, sigma_y = problem.linear, problem.sigma_y
        if sigma_y:
            mean = A.proximal(x, problem.y, (sigma_y / rho) ** 2, self.tol * sigma_y)
        else:
            mean = x + A.pinv(problem.residual(x))
        return mean + posterior_draw(x, problem, rho**2, rng)
