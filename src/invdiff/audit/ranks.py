"""Rank statistics: where the truth lies among the samples of its own measurement.

Simulation-based calibration (Talts et al. 2018, arXiv 1804.06788): for truths drawn from the prior
and S exact samples of each posterior, the rank of f(truth, y) among f(sample, y) is uniform on
0..S, whatever f is. The band of the running counts is simultaneous (Sailynoja et al. 2022, arXiv
2103.10522), with the null of discrete ranks.

TARP (Lemos et al. 2023, arXiv 2302.03026) is the same with f = distance to a reference point. The
reference has to depend on y, else a sampler that ignores y passes; and distances have to be taken
in coordinates that are scaled by the pooled spread of the samples: scaled by the range of the
truths, exact samples fail in high dimensions.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from invdiff.audit.counts import binomial_cdf

SIMULATIONS = 9999
"""Of the null; the smallest p-value that they can tell is 1 / (SIMULATIONS + 1)."""


def ranks(truth: Tensor, samples: Tensor, seed: int = 0) -> Tensor:
    """How many samples are below the truth, ties split at random; integers (N,) from 0 to S.

    truth: f of each truth, (N,). samples: f of the samples of the same measurement, (N, S).
    """
    below = (samples < truth[:, None]).sum(1)
    ties = (samples == truth[:, None]).sum(1)
    drawn = torch.rand(len(truth), generator=torch.Generator().manual_seed(seed)).double()
    return below + (drawn * (ties + 1)).floor().long().clamp_max(ties)


def _gamma(counts: np.ndarray) -> np.ndarray:
    """Twice the smallest tail over all points of the running counts; counts (..., S + 1)."""
    n, bins = int(counts.reshape(-1, counts.shape[-1])[0].sum()), counts.shape[-1]
    running, least = counts.cumsum(-1), np.ones(counts.shape[:-1])
    for k in range(bins - 1):
        cdf = np.concatenate([[0.0], binomial_cdf(n, (k + 1) / bins).numpy()])
        at = running[..., k]
        least = np.minimum(least, np.minimum(cdf[at + 1], 1 - cdf[at]))
    found: np.ndarray = 2 * least
    return found


@lru_cache(maxsize=64)
def _null(n: int, bins: int) -> np.ndarray:
    """gamma of SIMULATIONS sets of n uniform ranks, in rising order."""
    drawn = np.random.default_rng(17).multinomial(n, np.full(bins, 1 / bins), SIMULATIONS)
    found: np.ndarray = np.sort(_gamma(drawn))
    return found


def uniform_p(found: Tensor, samples: int) -> float:
    """p-value of ranks (N,) among so many samples: are they uniform on 0..samples?"""
    counts = torch.bincount(found, minlength=samples + 1).numpy()
    null = _null(int(counts.sum()), samples + 1)
    return float(1 + np.searchsorted(null, _gamma(counts), side="right")) / (len(null) + 1)


def band(n: int, samples: int, level: float = 0.99) -> tuple[Tensor, Tensor]:
    """Shares (low, high), each (samples,), that hold all running shares of ranks at once.

    Point k is the share of ranks of at most k, (k + 1) / (samples + 1) in expectation.
    """
    gamma = float(np.quantile(_null(n, samples + 1), 1 - level))
    low, high = [], []
    for k in range(samples):
        cdf = binomial_cdf(n, (k + 1) / (samples + 1))
        low.append(int(torch.searchsorted(cdf, gamma / 2)) / n)
        high.append(min(int(torch.searchsorted(cdf, 1 - gamma / 2)), n) / n)
    return torch.tensor(low), torch.tensor(high)


def shape(found: Tensor, samples: int) -> str:
    """What ranks tell, in words: too narrow, too wide, or pulled to one side."""
    z = found.double() / samples
    lean = float(z.mean() - 0.5) * math.sqrt(12 * len(z))
    scatter = float((z - 0.5).square().mean() * 12 - 1) * math.sqrt(len(z) / 0.8)
    if abs(lean) > max(abs(scatter), 2.5):
        return "samples too low" if lean > 0 else "samples too high"
    if abs(scatter) > 2.5:
        return "too narrow" if scatter > 0 else "too wide"
    return ""


def tarp_distances(truth: Tensor, samples: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the reference, of truths (N,) and of samples (N, S), for `ranks`.

    truth, reference: (N, n); samples: (N, S, n). The reference depends on y. Coordinates are
    divided by the pooled deviation of samples and truths; those that do not vary do not count.
    """
    pooled = torch.cat([samples.flatten(0, 1), truth]).double()
    scale = pooled.std(0)
    scale = torch.where(scale > 1e-12 * (1 + pooled.abs().amax(0)), 1 / scale, 0.0)
    centre = reference.double() * scale
    return (
        (truth * scale - centre).norm(dim=-1),
        (samples * scale - centre[:, None]).norm(dim=-1),
    )


def ecp(found: Tensor, samples: int) -> float:
    """Largest distance of the expected coverage probability to the diagonal, from ranks (N,)."""
    counts = torch.bincount(found, minlength=samples + 1).double().cumsum(0) / len(found)
    expected = torch.arange(1, samples + 2, dtype=torch.float64) / (samples + 1)
    return float((counts - expected).abs().max())
