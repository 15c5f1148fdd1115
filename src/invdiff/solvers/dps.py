"""Diffusion posterior sampling: follow the gradient of the misfit of the clean estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from invdiff.core import batch_norm, nearest
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP, Path
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State

REPO = {
    "super-resolution": 0.3,
    "deblur": 0.3,
    "inpaint": 0.5,
    "phase-retrieval": 1.0,
    "nonlinear-blur": 0.3,
}
"""The official repository's step for each task, with Gaussian noise of 0.05 on [-1, 1]:
configs/*_config.yaml of DPS2022/diffusion-posterior-sampling, whose blurs have the boundary
"mirror" here. All but those of inpainting and nonlinear blur were chosen for Poisson noise, before
its configurations changed to Gaussian noise: with it they are several times too small."""

PAPER = {
    "super-resolution": 1.0,
    "deblur": 1.0,
    "inpaint": 1.0,
    "phase-retrieval": 0.4,
    "nonlinear-blur": 1.0,
    "poisson": 0.3,
}
"""The paper's zeta' for FFHQ as it is remembered: only that of super-resolution was checked (issue
6 of the repository), and that of phase retrieval has a second witness: sample_test.sh of
NVlabs/RED-diff, whose runs of DPS have .4 for it, 2 for Gaussian blur, .5 for inpainting, .05 for
nonlinear blur and .1 for saturation, each on |r|^2 / |r|, which is loss "l2sq"."""


SHORT = {
    "super-resolution": 20.0,
    "deblur": 20.0,
    "inpaint": 16.0,
    "poisson": 20.0,
    "hdr": 8.0,
    "nonlinear-blur": 20.0,
    "phase-retrieval": 12.0,
}
"""Our step for 100 steps and images of 256 x 256, from trials with the photo prior on crops of 64
and 128 pixels; "hdr" is for the straight-through gradient, "phase-retrieval" for random masks."""

Loss = Literal[
    "l2", "l2sq", "gaussian", "likelihood", "poisson_diag", "poisson_norm", "poisson_official"
]


@dataclass(frozen=True)
class DPS(Solver):
    """x' = ancestral step; x_{i-1} = x' - c grad_{x_i} loss(y - A(x0(x_i))).

    Chung, Kim, McCann, Klasky, Ye 2023, "Diffusion posterior sampling for general noisy inverse
    problems", arXiv 2209.14687, Algorithm 1. zeta -> c, x0_hat -> x0, y - A(x0) -> r.
    loss "l2": c = zeta on the gradient of the norm |r|, as the official code (its norm is over the
    batch; here it is per sample, and over measured entries only). Its length does not fall with r,
    so that noiseless data are never met exactly; at r = 0 it is 0. "l2sq": zeta / |r| on the
    gradient of |r|^2, the paper's text, which is twice as large. "gaussian": zeta on the gradient
    of |r|^2 / (2 sigma_y^2), the log-likelihood itself.
    "likelihood": zeta on minus the gradient of log p(y | x0) of any noise that has a density, such
    as `Laplace`, `StudentT`, `Rician`, `PoissonGaussian`; of Gaussian noise it is "gaussian".
    "poisson_diag": zeta on the gradient of sum_j r_j^2 / (2 max(k_j, count_floor)), r in counts and
    k_j the counts of y: the paper's weighted norm, the Gaussian limit of the Poisson likelihood.
    "poisson_norm": zeta on the gradient of its root (sum_j r_j^2 / max(k_j, count_floor))^(1/2),
    which is to it as "l2" is to "gaussian": it stands far larger steps.
    "poisson_official": zeta on the gradient of |r| mean_j(1 / |y_j|), the official code's: one
    number for the whole image, which depends on where 0 lies on the scale of y. The mean is over
    measured entries, and |y_j| at least half a count (on the code's own grid of 255 counts, no y_j
    is nearer to 0).
    clip: x0 is clipped to the prior's range, for the step and for the misfit. "value" is the
    official code, whose gradient vanishes where x0 was clipped, so that y cannot bring such a pixel
    back; "straight-through" keeps the gradient.
    variance: of the fresh noise. "lower" is the lower bound, that of `eta_ddim`; "learned", for
    eta_ddim 1, that which the network learned: the official code's (learned_range).
    `official(task)` has it; `repo(task)` is the same for priors that learned none. The official
    respacing to n steps is `VP(n, spacing="ends")`. The step is in the frame of the path: zeta
    belongs to variance-preserving paths. `short(task, size)` takes 100 steps in place of 1000;
    docs/short.md tells at what cost.
    """

    name: ClassVar[str] = "dps"
    paper: ClassVar[str] = "Chung et al. 2023, arXiv 2209.14687, Algorithm 1"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PRIOR_VJP, Need.OPERATOR_VJP})

    when_it_diverges: ClassVar[str] = "a smaller zeta or more steps"

    zeta: float = knob(1.0, "guidance step size; 0 ignores y", 0)
    loss: Loss = knob("l2", "which misfit is followed")
    eta_ddim: float = knob(1.0, "fresh noise per step: 0 is deterministic, 1 is DDPM", 0, 1)
    clip: steps.Clip = knob("off", "whether x0 is clipped, and the gradient too")
    count_floor: float = knob(1.0, "smallest photon count as a variance, in Poisson losses", 1e-6)
    variance: steps.Variance = knob("lower", "variance of the fresh noise")
    path: Path = field(default_factory=lambda: VP(1000, spacing="trailing"), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss == "gaussian":  # the likelihood of a noiseless y is no density
            object.__setattr__(self, "needs", self.needs | {Need.GAUSSIAN, Need.NOISY})
        elif self.loss == "likelihood":
            object.__setattr__(self, "needs", self.needs | {Need.DENSITY})
        elif self.loss != "l2" and self.loss != "l2sq":
            object.__setattr__(self, "needs", self.needs | {Need.POISSON})
        if self.variance == "learned":
            object.__setattr__(self, "needs", self.needs | {Need.LEARNED_VARIANCE})

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """`repo` with the learned variance: configs/*_config.yaml of the official repository."""
        return {t: cls(zeta=z, clip="value", variance="learned") for t, z in REPO.items()}

    @classmethod
    def repo(cls, task: str) -> DPS:
        """The official repository's configuration for a task of REPO: 1000 steps, x0 clipped.

        Its noise level 0.05 is on [-1, 1], where the paper's is on [0, 1].
        """
        if task not in REPO:
            raise nearest(task, REPO, "task of DPS's repository")
        return cls(zeta=REPO[task], clip="value")

    @classmethod
    def published(cls, task: str, literal: bool = False) -> DPS:
        """The paper's constants for a task of PAPER, which see: 1000 steps, x0 clipped.

        literal: read zeta' as the text has it, on the gradient of |r|^2, which is twice the step.
        """
        if task not in PAPER:
            raise nearest(task, PAPER, "task of the DPS paper")
        loss: Loss = "poisson_official" if task == "poisson" else "l2sq" if literal else "l2"
        return cls(zeta=PAPER[task], loss=loss, clip="value")

    @classmethod
    def short(cls, task: str, size: tuple[int, int], steps: int = 100) -> DPS:
        """Ours for a task of SHORT: 100 steps or so, where the paper has 1000.

        size: (H, W) of the images. The step of a norm has a length for the whole image, so that the
        same change of each pixel needs a zeta that grows with the side; and zeta falls with steps.
        """
        if task not in SHORT:
            raise nearest(task, SHORT, "short configuration of DPS")
        zeta = SHORT[task] * math.sqrt(size[0] * size[1]) / 256 * 100 / steps
        return cls(zeta=zeta, path=VP(steps))

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        z = rng.normal(state.x, "step")
        if self.variance == "learned":
            x0, v, pull = prior.x0_v_vjp(state.x, level)
            z = steps.spread(z, v, level, to)
        else:
            x0, pull = prior.x0_vjp(state.x, level)
        x0, inside = steps.clipped(x0, prior.value_range, self.clip)
        eps = eps_from(state.x, x0, level)
        x = steps.ddim(x0, eps, level, to, z, self.eta_ddim)
        uphill = problem.A.vjp(x0, self._uphill(x0, problem))
        return State(state.step + 1, x + self.zeta * pull(inside * uphill), x0)

    def _uphill(self, x0: Tensor, problem: Problem) -> Tensor:
        """Minus the gradient of the loss with respect to A(x0), shape of y."""
        if self.loss == "likelihood":
            return problem.noise.score(problem.y, problem.A(x0))
        return self._weighted(problem.residual(x0), problem)

    def _weighted(self, r: Tensor, problem: Problem) -> Tensor:
        """The same for the losses of the residual r."""
        if self.loss == "gaussian":
            return r / problem.sigma_y**2
        if self.loss in ("poisson_diag", "poisson_norm"):
            noise = problem.poisson
            weight = noise.gain**2 / noise.rate(problem.y).clamp_min(self.count_floor)
            plain = self.loss == "poisson_diag"
            return weight * r / (1.0 if plain else _divisor(weight.sqrt() * r))
        unit = r / _divisor(r)
        if self.loss == "poisson_official":
            least = 0.5 / problem.poisson.gain
            measured = problem.A.restrict(torch.ones_like(r))
            weight = (measured / problem.y.abs().clamp_min(least)).flatten(1).sum(1)
            weight = weight / measured.flatten(1).sum(1)
            return unit * weight.reshape(-1, *[1] * (r.ndim - 1))
        return 2.0 * unit if self.loss == "l2sq" else unit


def _divisor(r: Tensor) -> Tensor:
    """|r| of every sample, and 1 where r is 0: there the gradient of a norm is taken as 0."""
    norm = batch_norm(r)
    return torch.where(norm > 0, norm, 1.0)
