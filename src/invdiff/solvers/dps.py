"""Diffusion posterior sampling: follow the gradient of the misfit of the clean estimate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from invdiff import steps
from invdiff.core import Problem, State, batch_norm
from invdiff.needs import Need
from invdiff.paths import VP, Path
from invdiff.priors.base import Prior, eps_from
from invdiff.rng import Rng
from invdiff.solvers.base import Solver, knob


@dataclass(frozen=True)
class DPS(Solver):
    """x' = ancestral step; x_{i-1} = x' - c grad_{x_i} loss(y - A(x0(x_i))).

    Chung, Kim, McCann, Klasky, Ye 2023, "Diffusion posterior sampling for general noisy inverse
    problems", arXiv 2209.14687, Algorithm 1. zeta -> c, x0_hat -> x0.
    loss "l2": c = zeta on the gradient of the norm |r|, as the official code (its norm is over the
    batch; here it is per sample, and over measured entries only). "l2sq": zeta / |r| on the
    gradient of |r|^2, the paper's text, which is twice as large. "gaussian": zeta on the gradient
    of |r|^2 / (2 sigma_y^2), the log-likelihood itself.
    The step is in the frame of the path: zeta belongs to variance-preserving paths.
    """

    name: ClassVar[str] = "dps"
    paper: ClassVar[str] = "Chung et al. 2023, arXiv 2209.14687, Algorithm 1"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PRIOR_VJP, Need.OPERATOR_VJP, Need.GAUSSIAN})

    when_it_diverges: ClassVar[str] = "a smaller zeta or more steps"

    zeta: float = knob(1.0, "guidance step size; 0 ignores y", 0)
    loss: Literal["l2", "l2sq", "gaussian"] = knob("l2", "which misfit is followed")
    eta_ddim: float = knob(1.0, "fresh noise per step: 0 is deterministic, 1 is DDPM", 0, 1)
    path: Path = field(default_factory=lambda: VP(1000, spacing="trailing"), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss == "gaussian":  # the likelihood of a noiseless y is no density
            object.__setattr__(self, "needs", self.needs | {Need.NOISY})

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x0, pull = prior.x0_vjp(state.x, level)
        eps = eps_from(state.x, x0, level)
        x = steps.ddim(x0, eps, level, to, rng.normal(state.x, "step"), self.eta_ddim)
        r = problem.residual(x0)
        if self.loss == "gaussian":
            r = r / problem.sigma_y**2
        else:
            norm = batch_norm(r)
            r = r / torch.where(norm > 0, norm, 1.0) * (2.0 if self.loss == "l2sq" else 1.0)
        x = x + self.zeta * pull(problem.A.vjp(x0, r))
        return State(state.step + 1, x, x0)
