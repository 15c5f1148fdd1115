"""RED-diff: fit one image to the data, with the denoiser's noise estimate as the regulariser."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from invdiff.core import batch_dot
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP, Schedule
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State

WEIGHTS: dict[str, Callable[[float], float]] = {
    "linear": lambda v: v,
    "sqrt": math.sqrt,
    "square": lambda v: v**2,
    "log": math.log1p,
    "clip": lambda v: min(v, 1.0),
    "two-thirds": lambda v: v ** (2 / 3),
    "const": lambda v: 1.0,
}
"""The weight w(v) of the prior at noise level v = s / a, by name."""

OFFICIAL: dict[str, dict[str, Any]] = {
    "super-resolution": {"lr": 0.1},
    "inpaint": {"lr": 0.25, "sigma0": 1e-4},
    "inpaint-noisy": {"lr": 0.25, "lam": 1.0, "schedule": VP(10, spacing="strided")},
    "inpaint-readme": {"lr": 0.5, "schedule": VP(100, spacing="strided")},
    "deblur": {"lr": 0.5},
    "hdr": {"lr": 0.5},
    "phase-retrieval": {"lr": 0.5},
    "nonlinear-blur": {"lr": 0.5},
}
"""What differs by task from lam 0.25, 50 steps and no spread (_configs/exp/default.yaml and
_configs/algo/reddiff.yaml of NVlabs/RED-diff): sample_test.sh, and README.md for "inpaint-readme".
"inpaint-noisy" is for y of noise 0.1. sample_batch.sh has lam 1 and 1000 steps for all tasks."""

FITS, FITTED = 60, 0.05
"""Steps of `kept` at most, and the share of the misfit above the noise at which they end."""

Start = Literal["adjoint", "pinv", "guess", "zeros", "prior"]
Weight = Literal["linear", "sqrt", "square", "log", "clip", "two-thirds", "const"]


@dataclass(frozen=True)
class REDDiff(Solver):
    """Adam on |y - A(mu)|^2 / (2 sigma_y^2) + lam w(v) <e(x_t) - eps, mu>, from noisy t to clean t.

    Mardani, Song, Kautz, Vahdat 2023, "A variational perspective on solving inverse problems with
    diffusion models", arXiv 2305.04391, Algorithm 1. q(x0 | y) = N(mu, sigma0^2), mu -> state.x,
    lambda -> lam, v = s / a, x_t = a x0 + s eps with x0 = mu + sigma0 z; e is the noise that the
    prior sees in x_t, and no gradient passes through it. "linear" w(v) = v makes the prior's
    gradient lam (mu - x0(x_t)).
    It seeks a mode: its results are no samples of the posterior, and differ by their noise alone.

    scaling "likelihood": the sums above, sigma_y at least sigma_floor. "official": the official
    code, which does not know sigma_y and takes means over the entries of y and of x in place of the
    sums, so that lam means something else for every operator; `official()` has its constants. The
    code returns mu from before the last update; here it is from after.
    With scaling "official" the epsilon of Adam is the official code's for one image at a time: of
    larger batches that code takes the mean, so that its epsilon counts as many times more.
    init_from "adjoint": the first step of steepest descent from 0; "pinv": A^+ y, the paper's, for
    linear operators; "guess": `Operator.guess`, the official code's start for operators that are
    not linear, where A^+ is not known: |F^-1 y| for phase retrieval, A(y) for nonlinear blur, y /
    gain for saturation; "zeros"; "prior": what the prior sees in the noise of the first level. The
    final "data" moves the last mu until y - A(mu) is no more than the noise (`kept`): for noise
    below sigma_floor, and for pixels that saturate where y does not, which have no gradient. The
    default lam and lr are ours: with the photo prior, lam = 30 is near the best for bicubic
    super-resolution, inpainting, deblurring and saturation, and half of the best for denoising.
    """

    name: ClassVar[str] = "reddiff"
    paper: ClassVar[str] = "Mardani, Song, Kautz, Vahdat 2023, arXiv 2305.04391, Algorithm 1"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.OPERATOR_VJP})
    betas: ClassVar[tuple[float, float]] = (0.9, 0.99)

    when_it_diverges: ClassVar[str] = "a smaller lr or lam"

    lam: float = knob(30.0, "weight of the prior", 0)
    lr: float = knob(0.1, "Adam's rate: about the change of a pixel in one step", 1e-6)
    weight: Weight = knob("linear", "how the prior's weight depends on the noise level")
    scaling: Literal["likelihood", "official"] = knob("likelihood", "sums with sigma_y, or means")
    obs_weight: float = knob(1.0, "factor on the data term; 0 ignores y", 0)
    sigma_floor: float = knob(0.01, "smallest noise level that the data term assumes", 1e-6)
    sigma0: float = knob(0.0, "standard deviation of q around mu", 0)
    init_from: Start = knob("adjoint", "where mu starts")
    final: Literal["mean", "data"] = knob("mean", "mu as it is, or moved to within the noise of y")
    schedule: Schedule = field(default=VP(100), kw_only=True)

    def requires(self) -> tuple[frozenset[Need], ...]:
        told = self.scaling == "likelihood" or self.final == "data"
        more = {Need.GAUSSIAN} if told else set()
        more |= {Need.PINV} if self.init_from == "pinv" else set()
        more |= {Need.GUESS} if self.init_from == "guess" else set()
        return (self.needs | more,)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """sample_test.sh and README.md of NVlabs/RED-diff: means, linear weight, lam 0.25 but for
        noisy y, 50 steps, mu from `Operator.guess`, which is H_pinv there."""
        same: dict[str, Any] = {"lam": 0.25, "scaling": "official", "init_from": "guess"}
        same["schedule"] = VP(50, spacing="strided")
        return {task: cls(**(same | own)) for task, own in OFFICIAL.items()}

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        zero = torch.zeros_like(problem.x_like)
        mu = zero.clone()
        if self.init_from == "adjoint":
            mu = first_fit(problem)
        elif self.init_from == "pinv":
            mu = problem.linear.pinv(problem.y)
        elif self.init_from == "guess":
            mu = problem.A.guess(problem.y, problem.x_shape)
        elif self.init_from == "prior":
            top = self.levels[0]
            mu = prior.x0(top.s * rng.normal(zero, "init"), top)
        return State(0, mu, mu.clone(), {"m": zero, "v": zero.clone()})

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level = self.levels[state.step]
        x0, eps = state.x, rng.normal(state.x, "step")
        if self.sigma0:
            x0 = x0 + self.sigma0 * rng.normal(x0, "spread")
        e = prior.eps(level.a * x0 + level.s * eps, level)
        r = problem.residual(x0)
        data = -self.obs_weight * problem.A.vjp(x0, r)
        prior_term = self.lam * WEIGHTS[self.weight](level.sigma) * (e - eps)
        if self.scaling == "official":
            g = data / r[0].numel() + prior_term / x0[0].numel()
        else:
            g = data / max(problem.sigma_y, self.sigma_floor) ** 2 + prior_term
        change, m, v = steps.adam(g, state.extra["m"], state.extra["v"], state.step, self.betas)
        mu = state.x - self.lr * change
        if self.final == "data" and state.step == len(self.levels) - 2:
            mu = kept(problem, mu)
        return State(state.step + 1, mu, mu.clone(), {"m": m, "v": v})


def first_fit(problem: Problem) -> Tensor:
    """The first step of steepest descent on |y - A(x)|^2 from x = 0, A linearised there.

    For a linear A it is c A^T y with the best c. Shape of an image; 0 where A has no gradient at 0.
    """
    zero = torch.zeros_like(problem.x_like)
    r = problem.residual(zero)
    return best_step(problem, zero, r, problem.A.vjp(zero, r))


def best_step(problem: Problem, x: Tensor, r: Tensor, g: Tensor) -> Tensor:
    """c g with the c of least |r - (A(x + c g) - A(x))|, A linearised at x; r = y - A(x)."""
    A = problem.A
    top = g.abs().flatten(1).amax(1).reshape(-1, *[1] * (g.ndim - 1))
    g = g / torch.where(top > 0, top, 1.0)
    h = 1e-2  # of the range of images: small enough for the slope, large enough for round-off
    slope = (A(x + h * g) - A(x)) / h
    top = batch_dot(slope, slope).reshape(top.shape)
    return batch_dot(slope, r).reshape(top.shape) / torch.where(top > 0, top, 1.0) * g


def kept(problem: Problem, x: Tensor) -> Tensor:
    """x moved towards y until y - A(x) is the noise and no more, in root mean square of each row.

    Morozov's discrepancy principle, by steps along `Operator.pull`. A row that is as near stays as
    it is.
    """
    for _ in range(FITS):
        r = problem.residual(x)
        far = batch_dot(r, r).double().flatten() / r[0].numel() / (2 if r.is_complex() else 1)
        share = (1 - problem.sigma_y / far.clamp_min(1e-30).sqrt()).clamp_min(0)
        if not bool((share > FITTED).any()):
            break
        share = share.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        x = x + share * best_step(problem, x, r, problem.A.pull(x, r))
    return x
