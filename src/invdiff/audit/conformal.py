"""Intervals widened until they hold what they promise: risk-controlling prediction sets.

RCPS (Bates et al. 2021, arXiv 2101.02703; of images: Angelopoulos et al. 2022, arXiv 2202.05265).
Intervals are mean +- lambda times the deviation of the samples; the loss of an image is the share
of its pixels outside. On n calibration images, lambda falls from the largest while an upper bound
of the risk (Hoeffding and Bentkus) stays below epsilon.

The guarantee is marginal over images and pixels, for images exchangeable with those that
calibrated: P(risk <= epsilon) >= 1 - delta. It says nothing of edges, or of what y does not see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.audit.counts import binomial_cdf
from invdiff.core import InvdiffError

GRID = torch.logspace(2, -2, 801, dtype=torch.float64)
"""Factors that are tried, from the largest."""
MARGINAL = "marginal over images and pixels"


@dataclass(frozen=True)
class Widened:
    """factor: by which deviations are multiplied. risk: share of pixels outside, of the
    calibration images. bound: of the risk, with confidence 1 - delta. before: the risk of
    intervals of normal quantiles, without widening."""

    factor: float
    risk: float
    bound: float
    before: float
    epsilon: float
    delta: float
    images: int


def upper_bound(risk: float, n: int, delta: float) -> float:
    """The smaller of the bounds of Hoeffding and of Bentkus on a mean of n values in [0, 1]."""
    low, high = risk, 1.0
    for _ in range(40):
        R = (low + high) / 2
        if R >= 1:
            break
        low, high = (R, high) if _tail(risk, n, R) >= delta else (low, R)
    return high


def _tail(risk: float, n: int, R: float) -> float:
    """An upper bound of P(mean <= risk) where its expectation is R."""
    a = min(risk, R)
    entropy = 0.0
    if a > 0:
        entropy += a * math.log(a / R)
    if a < 1:
        entropy += (1 - a) * math.log((1 - a) / (1 - R))
    k = min(math.ceil(n * risk - 1e-9), n)
    return min(math.exp(-n * entropy), math.e * float(binomial_cdf.__wrapped__(n, R)[k]))


def widening(truth: Tensor, samples: Tensor, epsilon: float = 0.1, delta: float = 0.1) -> Widened:
    """The factor for n images (n, ...) with samples (n, S, ...), S >= 2.

    Raises InvdiffError where so few images can promise nothing.
    """
    n = len(truth)
    mean, std = samples.double().mean(1).flatten(1), samples.double().std(1).flatten(1)
    off = (truth.double().flatten(1) - mean).abs()

    def risk(factor: float) -> float:
        return float((off > factor * std).double().mean(1).mean())

    def bounded(i: int) -> tuple[float, float, float]:
        at = risk(float(GRID[i]))
        return float(GRID[i]), at, upper_bound(at, n, delta)

    low, high, found = 0, len(GRID), None  # the risk rises as the factor falls
    while low < high:
        middle = (low + high) // 2
        if bounded(middle)[2] <= epsilon:
            low, found = middle + 1, bounded(middle)
        else:
            high = middle
    if found is None:
        raise InvdiffError(
            f"{n} calibration images cannot promise a risk of {epsilon:g} with confidence "
            f"{1 - delta:g}: even intervals of {GRID[0]:g} deviations are bounded by "
            f"{bounded(0)[2]:.2f} only; give more images, or ask for less."
        )
    normal = math.sqrt(2) * float(torch.erfinv(torch.tensor(1 - epsilon, dtype=torch.float64)))
    return Widened(*found, risk(normal), epsilon, delta, n)
