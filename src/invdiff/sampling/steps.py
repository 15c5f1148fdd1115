"""The one-liners that samplers share. z is always white noise of the state's shape.

The literature's three incompatible etas have three names, by the std c1 of the fresh noise
when moving to the next level (a', s') from (a, s):
  eta_ddim  c1 = eta s' sqrt(1 - (sigma'/sigma)^2)    DDIM, PiGDM (1 is DDPM's ancestral step)
  eta_prop  c1 = eta s'                               DDRM, DDNM
  zeta      c1 = sqrt(zeta) s'                        DiffPIR
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from invdiff.core import Level, batch_norm
from invdiff.problem import Problem

if TYPE_CHECKING:
    from invdiff.operators.algebra import Linear

KnownLevel = Literal["next", "current"]
Clip = Literal["off", "value", "straight-through"]
Variance = Literal["lower", "learned"]


def renoise(x0: Tensor, eps: Tensor, to: Level, z: Tensor, c1: float) -> Tensor:
    """a' x0 + sqrt(s'^2 - c1^2) eps + c1 z: to level `to` with fresh noise of std c1 <= s'."""
    if to.s == 0:
        return to.a * x0
    c2 = math.sqrt(max(to.s**2 - c1**2, 0.0))
    return to.a * x0 + c2 * eps + c1 * z


def ddim_std(level: Level, to: Level, eta_ddim: float) -> float:
    """c1 of Song, Meng and Ermon 2021 (arXiv 2010.02502), eq. 16, in any frame; 0 when climbing."""
    if to.sigma >= level.sigma:
        return 0.0
    return eta_ddim * to.s * math.sqrt(1.0 - (to.sigma / level.sigma) ** 2)


def ddim(x0: Tensor, eps: Tensor, level: Level, to: Level, z: Tensor, eta_ddim: float) -> Tensor:
    """One DDIM step from `level` to `to`; eta_ddim = 1 is the ancestral DDPM step."""
    return renoise(x0, eps, to, z, ddim_std(level, to, eta_ddim))


def spread(z: Tensor, v: Tensor, level: Level, to: Level) -> Tensor:
    """The noise of an ancestral step, wider than the lower bound as a network learned it.

    Nichol and Dhariwal 2021 (arXiv 2102.09672), eq. 15: ln of the variance lies between ln of the
    lower bound (v = -1, which `ddim` has at eta_ddim = 1) and ln beta, s^2 / s'^2 times it (v = 1).
    v: shape of z. The last step adds no noise. For variance-preserving schedules.
    """
    return z * (level.s / to.s) ** ((1 + v) / 2) if to.s else z


def clipped(x0: Tensor, value_range: tuple[float, float], clip: Clip) -> tuple[Tensor, Tensor]:
    """x0 in the range, and what a gradient in it is multiplied by: shape of x0.

    "off": x0 as it is. "value": the gradient vanishes where x0 was clipped. "straight-through": it
    is kept there.
    """
    inside = torch.ones_like(x0)
    if clip == "off":
        return x0, inside
    within = x0.clamp(*value_range)
    return within, (within == x0).to(x0.dtype) if clip == "value" else inside


def langevin(x: Tensor, score: Tensor, step: float | Tensor, z: Tensor) -> Tensor:
    """x + step score + sqrt(2 step) z."""
    root = (2 * step).sqrt() if isinstance(step, Tensor) else math.sqrt(2 * step)
    return x + step * score + root * z


def unit(r: Tensor) -> Tensor:
    """r / |r| of every sample, and 0 where r = 0: minus the gradient of |y - z| at z = y - r."""
    norm = batch_norm(r)
    return r / torch.where(norm > 0, norm, 1.0)


def replace(
    x: Tensor,
    problem: Problem,
    level: Level,
    z: Tensor,
    lam: float = 1.0,
    A: Linear | None = None,
) -> Tensor:
    """x + lam A^+ (a y + s A z - A x): the observed part of the state, noised to `level`.

    lam = 1 overwrites, lam = 0 changes nothing (Song et al. 2022, eq. 9, for a linear A).
    A: in place of the problem's own operator, for a state that is not an image of its size.
    """
    return x + lam * (A or problem.linear).pinv(noised_residual(x, problem, level, z, A))


def noised_residual(
    x: Tensor, problem: Problem, level: Level, z: Tensor, A: Linear | None = None
) -> Tensor:
    """a y + s A z - A x: what x lacks of the measurement, noised to `level`; shape of y.

    A: in place of the problem's operator.
    """
    A, y = A or problem.linear, problem.y
    return level.a * y + A(level.s * z - x)


def pasted(level: Level, to: Level, known_level: KnownLevel) -> Level:
    """The level to which y is noised when it is pasted after a step from `level` to `to`.

    "next": `to`, which x has reached. "current": `level`, one too noisy, as several official codes
    do. Into the clean image, y itself is pasted in either case.
    """
    return to if known_level == "next" or to.s == 0 else level


def adam(
    grad: Tensor, m: Tensor, v: Tensor, k: int, betas: tuple[float, float] = (0.9, 0.999)
) -> tuple[Tensor, Tensor, Tensor]:
    """Adam's direction, to be multiplied by a step size, and its two moments after step k.

    Kingma and Ba 2015 (arXiv 1412.6980), Algorithm 1 with epsilon = 1e-8; k counts from 0, and m
    and v are 0 before the first step.
    """
    m = betas[0] * m + (1 - betas[0]) * grad
    v = betas[1] * v + (1 - betas[1]) * grad * grad
    unbiased = [moment / (1 - beta ** (k + 1)) for moment, beta in zip((m, v), betas, strict=True)]
    return unbiased[0] / (unbiased[1].sqrt() + 1e-8), m, v
