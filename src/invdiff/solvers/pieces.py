"""Draws of pixels that are measured one by one, by an operator that is linear in pieces."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invdiff.operators.algebra import Operator
from invdiff.solvers.normal import truncated_normal

LEAST = 1e-5
"""Noise that is supposed where there is none: on a flat piece a density needs one."""


def pixel_draw(
    A: Operator, y: Tensor, tau: float, centre: Tensor, r2: float, choice: Tensor, u: Tensor
) -> Tensor:
    """A draw of x ~ N(centre, r2) given y = A(x) + tau n, of each pixel by itself: exact.

    On a piece from low to high, where A(x) = slope x + offset, that law is a normal one, cut to the
    piece. The piece is drawn first, by its mass. choice, u: uniform in (0, 1), of the shape of
    centre.
    """
    tau, mean = max(tau, LEAST), centre.double()
    drawn, masses = [], []
    for low, high, slope, offset in A.pieces:
        r = y.double() - offset
        precision = 1 / r2 + slope**2 / tau**2
        at = (mean / r2 + slope * r / tau**2) / precision
        std = torch.full_like(at, precision**-0.5)
        ends = torch.full_like(at, low), torch.full_like(at, high)
        drawn.append(truncated_normal(at, std, *ends, u.double()))
        spread = slope**2 * r2 + tau**2
        evidence = -0.5 * (r - slope * mean).square() / spread - 0.5 * math.log(spread)
        masses.append(evidence + log_mass(at, std, *ends))
    weights = torch.stack(masses).softmax(0).cumsum(0)
    taken = (choice.double() >= weights[:-1]).sum(0, keepdim=True)
    return torch.stack(drawn).gather(0, taken)[0].to(centre)


def log_mass(mean: Tensor, std: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """log of the mass of N(mean, std^2) between low and high, by its lower tail."""
    a, b = (low - mean) / std, (high - mean) / std
    flip = a + b > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    below, above = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    return above + torch.log1p(-(below - above).exp().clamp_max(1 - 1e-15))
