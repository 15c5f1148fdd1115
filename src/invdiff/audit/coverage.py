"""Whether regions that should hold 90 % of the posterior hold the truth as often.

Of S exact samples and a truth of the same posterior, any order is as likely as any other. So the
region above the density of the ceil(a S)-th densest sample holds the truth with probability
ceil(a S) / (S + 1), exactly. Samples have equal weights: to weigh them by their density once more
makes exact samples fail.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from invdiff.audit.counts import binomial_band, binomial_p, share_interval
from invdiff.core.rng import Rng
from invdiff.sampling.run import row_seed


class Coverage(NamedTuple):
    """share of truths inside, what it is for exact samples, their 95 % band, and the p-value.

    interval: of Clopper and Pearson, for the share, 95 %.
    """

    share: float
    expected: float
    band: tuple[float, float]
    interval: tuple[float, float]
    p: float


def expected(level: float, samples: int) -> float:
    """The share of truths in the region of a level, for so many exact samples of each."""
    return math.ceil(level * samples - 1e-9) / (samples + 1)


def highest_density(truth: Tensor, samples: Tensor, level: float = 0.9) -> Tensor:
    """Which truths lie in the region of highest density, (N,) of bool.

    truth: log density of each truth, (N,), up to a constant of y; samples: (N, S).
    """
    kept = math.ceil(level * samples.shape[1] - 1e-9)
    threshold = samples.sort(dim=1, descending=True).values[:, kept - 1]
    return truth >= threshold


def covered(inside: Tensor, level: float, samples: int) -> Coverage:
    """What a count of truths inside says. Their share is that of independent measurements."""
    k, n, p = int(inside.sum()), len(inside), expected(level, samples)
    return Coverage(k / n, p, binomial_band(n, p), share_interval(k, n), binomial_p(k, n, p))


def interval_share(truth: Tensor, samples: Tensor, level: float = 0.9) -> Tensor:
    """Share of pixels of each image that lie within the central interval of the samples, (N,).

    truth: (N, ...); samples: (N, S, ...). The interval runs from the i-th smallest sample to the
    i-th largest, i = floor((1 - level) / 2 (S + 1)), or 1: it holds the truth with probability
    1 - 2 i / (S + 1) (`interval_expected`). Pixels of an image are not independent.
    """
    i = _order(level, samples.shape[1])
    ordered = samples.flatten(2).sort(dim=1).values
    flat = truth.flatten(1)
    inside = (flat >= ordered[:, i - 1]) & (flat <= ordered[:, -i])
    return inside.double().mean(1)


def blurred_share(
    truth: Tensor, samples: Tensor, scale: float, level: float = 0.9, seed: int = 0
) -> Tensor:
    """`interval_share` of truth and samples with normal noise of deviation `scale` on each, (N,).

    Exact samples keep their share, for the noise is of one law. What differs by less than its
    scale, as black and nearly black, no longer counts as missed; and no pixel is left out by the
    spread of the samples, which would hide the errors of a solver whose samples hardly differ.
    """
    every = torch.cat([truth[:, None], samples], 1).double()
    rng = Rng.of([row_seed(seed, i, 0) for i in range(len(every))])
    every = every + scale * rng.normal(every, "blur")
    return interval_share(every[:, 0], every[:, 1:], level)


def _order(level: float, samples: int) -> int:
    return max(1, math.floor((1 - level) / 2 * (samples + 1) + 1e-9))


def interval_expected(level: float, samples: int) -> float:
    """The share for exact samples, on a law without atoms."""
    return 1 - 2 * _order(level, samples) / (samples + 1)


def mean_p(values: Tensor, mean: float) -> float:
    """Two-sided p-value that independent values (N,) have this mean, by sign flips of them.

    Of values about a mean whose law is symmetric it is exact; else an approximation for large N.
    """
    off = values.double() - mean
    signs = torch.randint(
        0, 2, (9999, len(off)), generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    null = ((2 * signs - 1) @ off).abs()
    return (1 + int((null >= off.sum().abs() - 1e-12).sum())) / 10_000
