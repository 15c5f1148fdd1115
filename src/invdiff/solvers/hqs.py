"""Half-quadratic splitting with a denoiser: one picture, by alternating the data and the prior."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, Schedule
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import Solver, knob
from invdiff.sampling.state import State
from invdiff.solvers.normal import first_mean

START, NEAR = 0.1, 0.05
"""Misfit that the start may leave: in units of the noise, and with modes of the first level, as
`tol` of `spectral-ancestral`."""


@dataclass(frozen=True)
class HQS(Solver):
    """X = argmin |y - A x|^2 + lam (sigma_y / sigma_k)^2 |x - x0|^2, then x0 = D(X, sigma_k).

    Zhang, Li, Zuo, Zhang, Van Gool, Timofte 2021, "Plug-and-play image restoration with deep
    denoiser prior" (DPIR), arXiv 2008.13751, eq. 6 and Algorithm 1; lambda -> lam, and alpha_k =
    lam (sigma_y / sigma_k)^2. No noise is drawn: every sample is the same picture, an estimate.
    final "denoised" returns the last x0; "data" the X of one more data step, which keeps measured
    pixels as they are.
    Deviation: the start is the mean of a normal law with the prior's spectrum (`normal.first_mean`)
    for every operator, where the paper interpolates. Without preconditioner it may be far from that
    mean after 100 iterations: of a blur with little noise, further than the first level hides.
    """

    name: ClassVar[str] = "hqs"
    paper: ClassVar[str] = "Zhang et al. 2021 (DPIR), arXiv 2008.13751, Algorithm 1"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LINEAR, Need.GAUSSIAN})
    estimates: ClassVar[bool] = True

    when_it_diverges: ClassVar[str] = "a larger lam"

    lam: float = knob(0.23, "weight of the prior against the data", 1e-6)
    final: Literal["denoised", "data"] = knob("denoised", "what the last step returns")
    sigma_floor: float = knob(0.002, "smallest noise level that the data step assumes", 1e-6, 1)
    preconditioner: Literal["none", "modes"] = knob(
        "none", "modes: of the start, by cosine modes; it stops at 0.05 of the first level"
    )
    tol: float = knob(
        0.0,
        "error that an iterative data step may leave, in deviations; 0 is its operator's cg_tol",
        0,
        1,
    )
    schedule: Schedule = field(default=VE(8, 0.4, 0.02), kw_only=True)

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        sigma_y, modes = problem.sigma_y, self.preconditioner == "modes"
        enough = START * max(sigma_y, self.sigma_floor)
        if modes:
            enough = NEAR * max(sigma_y, self.levels[0].sigma)
        x0 = first_mean(problem, prior, 100, enough, modes)
        return State(0, x0, x0.clone())

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        noise = max(problem.sigma_y, self.sigma_floor)
        rho = self.lam * (noise / level.sigma) ** 2
        A, y = problem.linear, problem.y
        X = A.proximal(state.x, y, rho, self.tol * noise)
        x0 = prior.denoise(X, level.sigma)
        if to.s == 0 and self.final == "data":
            x0 = A.proximal(x0, y, rho, self.tol * noise)
        return State(state.step + 1, x0, x0.clone())
