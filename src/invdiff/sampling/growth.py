"""Is an estimate rougher than its operator explains? Without a truth."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invdiff.noise import Coloured, GaussianNoise
from invdiff.operators.algebra import Linear
from invdiff.problem import Problem
from invdiff.problem.whiten import centre

SIDE = 32, 512
"""Least side of an image whose ringing is told, and the largest square of its middle that tells."""
WEAK, PARTED = 0.1, 5.0
"""Share of the frequencies of a ring that are its weakest, and how much less power they must pass
than its stronger half for the ring to tell."""
ALIKE = 1e-3
"""How much the responses to two points may differ, over the largest value, in a convolution."""


def growth(problem: Problem, x: Tensor) -> float | None:
    """Mean |gradient| of x over that of y, both (M, C, H, W) of about one height and width."""
    y = problem.y
    if y.is_complex() or y.ndim != 4 or y.shape[1] != x.shape[1] or problem.A.cells:
        return None
    if any(not have <= n < 1.5 * have for n, have in zip(x.shape[-2:], y.shape[-2:], strict=True)):
        return None
    if bool((problem.A.restrict(torch.ones_like(y)) == 0).any()):
        return None

    def steepness(t: Tensor) -> float:
        return float(t.diff(dim=-1).abs().mean() + t.diff(dim=-2).abs().mean())

    return steepness(x) / max(steepness(y), 1e-12)


def usual_growth(problem: Problem) -> float | None:
    """The growth of an image whose power falls as 1 / f^2, as that of photographs does.

    It is that of root mean square gradients, times what is not noise of those of y. None where A is
    no convolution around the middle of the image, or the noise has no level.
    """
    problem = centre(problem)
    y, noise = problem.y.float(), problem.noise
    if not isinstance(noise, GaussianNoise | Coloured):
        return None
    passed = _passed(problem, (int(y.shape[-2]), int(y.shape[-1])))
    if passed is None:
        return None
    sigma = noise.sigma if isinstance(noise, GaussianNoise) else noise.level
    down, across = _frequencies(passed)
    slope = (math.pi * down).sin().square() + (math.pi * across).sin().square()
    slope = slope / (down.square() + across.square()).clamp_min(1e-12)
    gain = slope.mean() / (slope * passed).mean().clamp_min(1e-30)
    steepness = y.diff(dim=-1).square().mean() + y.diff(dim=-2).square().mean()
    told = (1 - 4 * sigma**2 / steepness.clamp_min(1e-30)).clamp_min(0)
    return math.sqrt(float(gain * told))


def ringing(problem: Problem, x: Tensor) -> float | None:
    """What x (M, C, H, W) holds at frequencies that A takes away, over that at those it passes.

    Root mean square of gradients, in rings of one |frequency| where the power that A passes
    differs: the weakest tenth over the stronger half, of the worst row. An image has about as much
    in all directions, and an estimate less where A says nothing. A wrong kernel puts stripes
    there. None where no ring tells, as of a round kernel.
    """
    problem = centre(problem)
    size = tuple(min(int(n), SIDE[1]) for n in x.shape[-2:])
    if problem.y.is_complex() or min(size) < SIDE[0]:
        return None
    passed = _passed(problem, (size[0], size[1]))
    if passed is None:
        return None
    top, left = ((n - m) // 2 for n, m in zip(x.shape[-2:], size, strict=True))
    x = x[..., top : top + size[0], left : left + size[1]].float()
    x = x - x.mean(dim=(-2, -1), keepdim=True)
    down, across = (torch.hann_window(n, dtype=x.dtype, device=x.device) for n in size)
    power = torch.fft.fft2(x * (down[:, None] * across)).abs().square().mean(1).flatten(1)
    down, across = _frequencies(passed)
    far = (down.square() + across.square()).sqrt().flatten()
    rings = (far * min(size) / 2).long()  # two steps of the shorter side wide
    rows = passed.flatten(1).expand(len(power), -1)
    told = [_weak_over_strong(rings, *row) for row in zip(rows, power, strict=True)]
    return max((v for v in told if v is not None), default=None)


def _passed(problem: Problem, size: tuple[int, int]) -> Tensor | None:
    """|response of A to a point in the middle|^2 by frequency, (1 or M, *size), over channels.

    None where A is not linear, or does something else to the next point.
    """
    A = problem.A
    if not isinstance(A, Linear):
        return None
    height, width = problem.x_shape[-2:]
    point = torch.zeros(A.batch_rows, *problem.x_shape).to(problem.x_like)
    point[..., height // 2, width // 2] = 1
    with torch.no_grad():
        found, beside = A(point).float(), A(point.roll((1, 1), (-2, -1))).float()
    near = (beside - found.roll((1, 1), (-2, -1))).abs().amax()
    if found.ndim != 4 or not near <= ALIKE * found.abs().amax():
        return None
    top, left = (max(int(n) - m, 0) // 2 for n, m in zip(found.shape[-2:], size, strict=True))
    found = found[..., top : top + size[0], left : left + size[1]]
    return torch.fft.fft2(found, s=size).abs().square().mean(1)


def _frequencies(passed: Tensor) -> tuple[Tensor, Tensor]:
    """Of the rows (h, 1) and the columns (w,) of a transform (..., h, w), in cycles a pixel."""
    down, across = (torch.fft.fftfreq(n, device=passed.device) for n in passed.shape[-2:])
    return down[:, None], across


def _weak_over_strong(rings: Tensor, passed: Tensor, power: Tensor) -> float | None:
    """`ringing` of one row: the ring, what A passes and the power of each frequency, (N,)."""
    order = passed.argsort()
    order = order[rings[order].argsort(stable=True)]
    rings, passed, power = rings[order], passed[order], power[order]
    count = rings.bincount()
    rank = torch.arange(len(rings), device=rings.device) - (count.cumsum(0) - count)[rings]
    weak = rank < (WEAK * count).ceil()[rings]
    strong = rank >= (count // 2)[rings]

    def mean(values: Tensor, some: Tensor) -> Tensor:
        return rings.bincount(values * some, len(count)) / rings.bincount(
            some.to(values)
        ).clamp_min(1)

    radius = torch.arange(len(count), device=rings.device)
    tells = mean(passed, weak) * PARTED <= mean(passed, strong)
    tells &= (radius >= 2) & (radius <= radius[-1] / math.sqrt(2))
    if not bool(tells.any()):
        return None
    steep = radius.square() * tells
    few, more = ((steep * mean(power, some)).sum() for some in (weak, strong))
    return math.sqrt(float(few / more.clamp_min(1e-30)))
