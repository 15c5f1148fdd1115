"""Laws of counts, from which every verdict of the audit comes: binomial, and sums of places.

No library of statistics is asked for: these are sums of at most a few thousand terms, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@lru_cache(maxsize=4096)
def binomial_cdf(n: int, p: float) -> Tensor:
    """P(X <= k) for k = 0..n, X the successes of n trials of probability p; (n + 1,), float64."""
    if p <= 0 or p >= 1:
        found = torch.ones(n + 1, dtype=torch.float64)
        return found if p <= 0 else found * (torch.arange(n + 1) == n)
    k, size = torch.arange(n + 1, dtype=torch.float64), torch.tensor(float(n), dtype=torch.float64)
    ways = torch.lgamma(size + 1) - torch.lgamma(k + 1) - torch.lgamma(size - k + 1)
    log_p = ways + k * math.log(p) + (size - k) * math.log1p(-p)
    return log_p.exp().cumsum(0).clamp_max(1.0)


def binomial_p(k: int, n: int, p: float) -> float:
    """Two-sided p-value of k successes: twice the smaller tail, at most 1."""
    cdf = binomial_cdf(n, p)
    below, above = float(cdf[k]), 1 - (float(cdf[k - 1]) if k else 0.0)
    return min(1.0, 2 * min(below, above))


def binomial_band(n: int, p: float, level: float = 0.95) -> tuple[float, float]:
    """Shares of successes (low, high) that hold at least `level` of Binomial(n, p)."""
    cdf, tail = binomial_cdf(n, p), (1 - level) / 2
    low, high = (int(torch.searchsorted(cdf, q)) for q in (tail, 1 - tail))
    return low / n, min(high, n) / n


def share_interval(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of Clopper and Pearson (1934) for a share of which k of n were seen."""
    tail = (1 - level) / 2

    def crossed(above: bool) -> float:
        low, high = 0.0, 1.0
        for _ in range(50):
            p = (low + high) / 2
            cdf = binomial_cdf.__wrapped__(n, p)
            chance = 1 - float(cdf[k - 1]) if above else float(cdf[k])
            low, high = (p, high) if (chance < tail) == above else (low, p)
        return (low + high) / 2

    return (crossed(True) if k else 0.0), (crossed(False) if k < n else 1.0)


@lru_cache(maxsize=64)
def _sum_of_places(replicas: int, problems: int) -> np.ndarray:
    """P(sum = s) of as many independent places, each uniform on 0..replicas."""
    one = np.full(replicas + 1, 1 / (replicas + 1))
    law = np.ones(1)
    for _ in range(problems):
        law = np.convolve(law, one)
    return law


def places_p(places: Sequence[int], replicas: int, two_sided: bool = False) -> float:
    """p-value of places among exact replicas: exact, for it is the law of a sum of uniforms.

    places: one of each problem, how many of its `replicas` exact values are below the value that
    is judged. Small where these are larger than exact ones; two_sided: or smaller.
    """
    law, total = _sum_of_places(replicas, len(places)), sum(places)
    above, below = float(law[total:].sum()), float(law[: total + 1].sum())
    return min(1.0, 2 * min(above, below)) if two_sided else min(1.0, above)


def holm(p_values: dict[str, float], level: float = 0.01) -> dict[str, bool]:
    """Which are significant together (Holm 1979): any false alarm has a chance of at most `level`.

    p-values may depend on each other in any way.
    """
    rejected, count = dict.fromkeys(p_values, False), len(p_values)
    for i, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        if p_values[name] > level / (count - i):
            break
        rejected[name] = True
    return rejected
