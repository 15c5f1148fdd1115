"""Manifold constrained gradients: a gradient of the misfit off the data, then replacement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from invdiff import steps
from invdiff.core import Level, Problem, State, batch_norm
from invdiff.needs import Need
from invdiff.paths import VP, Path
from invdiff.priors.base import Prior, eps_from
from invdiff.rng import Rng
from invdiff.solvers.base import Solver, knob


@dataclass(frozen=True)
class MCG(Solver):
    """x' = reverse step; x'' = x' - rho (I - A^+ A) g; x = x'' + lam A^+ (a y + s A z - A x'').

    Chung, Sim, Ryu, Ye 2022, "Improving diffusion models for inverse problems using manifold
    constraints", arXiv 2206.00941. g = grad_{x_i} |W (y - A x0(x_i))|; the paper writes the square
    of the norm with a step alpha, its code takes the norm itself with rho, as here. weight "identity" is W = I (inpainting, colourisation),
    "pinv" is W = A^+ (CT, where the paper takes filtered back-projection). With lam = 1 and an
    exact A^+ the overwrite undoes whatever g changes in the data, so the projection is redundant.

    known_level: noise level of the pasted data. "next", where x then is, ends with y itself;
    "current" is the official code's, one level too noisy, so that its noise stays in the result;
    "clean" pastes y without noise, the official code's choice for CT. There lam falls from 1 to
    0.6, a lam_drop of 0.4; the Langevin corrector of its variance-exploding runs (colour,
    CT) is left out: `path=VE(...)` gives ancestral steps. Further deviations: norms are per sample
    (there over the batch); x0 is not clipped; colourisation follows the gradient of the misfit to y
    (there to a noised y). Noise in y is copied into the result: for noisy data prefer DPS.
    The step is in the frame of the path: rho = 1 belongs to variance-preserving paths.
    """

    name: ClassVar[str] = "mcg"
    paper: ClassVar[str] = "Chung, Sim, Ryu, Ye 2022, arXiv 2206.00941"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PRIOR_VJP, Need.PINV})

    when_it_diverges: ClassVar[str] = "a smaller rho or more steps"

    rho: float = knob(1.0, "step size of the gradient; 0 is plain replacement", 0)
    weight: Literal["identity", "pinv"] = knob("identity", "W: the norm in which y is missed")
    lam: float = knob(1.0, "strength of the overwrite: 1 replaces, 0 leaves x''", 0, 1)
    lam_drop: float = knob(0.0, "how much lam has fallen, linearly, at the last step", 0, 1)
    known_level: Literal["next", "current", "clean"] = knob("next", "noise level of the data")
    path: Path = field(default_factory=lambda: VP(1000, spacing="trailing"), kw_only=True)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        A = problem.linear
        x0, pull = prior.x0_vjp(state.x, level)
        eps = eps_from(state.x, x0, level)
        x = steps.ddim(x0, eps, level, to, rng.normal(state.x, "step"), 1.0)
        g = -pull(self._weighted(problem.residual(x0), problem))
        x = x - self.rho * (g - A.pinv(A(g)))
        known = {"next": to, "current": level, "clean": Level(to.a, 0.0)}[self.known_level]
        lam = self.lam - self.lam_drop * state.step / max(self.num_steps - 1, 1)
        x = steps.replace(x, problem, known, rng.normal(x, "known"), lam)
        return State(state.step + 1, x, x0)

    def _weighted(self, r: Tensor, problem: Problem) -> Tensor:
        """-d|W r| / dx0 = A^T W^T W r / |W r|; for W = A^+ that is A^+ r / |A^+ r|."""
        A = problem.linear
        back = A.pinv(r) if self.weight == "pinv" else A.adjoint(r)
        norm = batch_norm(back if self.weight == "pinv" else r)
        return back / torch.where(norm > 0, norm, 1.0)
