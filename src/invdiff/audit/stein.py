"""Stein discrepancy of samples by the score of the posterior: no exact samples are needed.

score-KSD (arXiv 2602.04189) with the inverse multiquadric kernel, as a U-statistic: without its
diagonal. The V-statistic that was published falls with the spread of samples, so that samples of
half the spread beat exact ones. The null of the U-statistic is 0 in the mean.

It is blind. A score says nothing of the weights of far-apart modes: samples of one mode alone, and
samples with the weights swapped, pass. Say so wherever it is printed (`BLIND`).
"""

from __future__ import annotations

import torch
from torch import Tensor

BLIND = "blind to modes that are missing, and to their weights"


def kernel_matrix(x: Tensor, score: Tensor, c: float) -> Tensor:
    """u_ij of the Stein kernel for k(x, x') = (c^2 + |x - x'|^2)^(-1/2), (S, S), float64.

    x, score: (S, n). Its expectation over independent exact samples is 0.
    """
    x, score = x.double().flatten(1), score.double().flatten(1)
    n = x.shape[1]
    q = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()
    base = c * c + q
    phi, first, second = base**-0.5, -0.5 * base**-1.5, 0.75 * base**-2.5
    along = (score * x).sum(1)
    cross = score @ x.mT  # s_i . x_j
    inner = cross.mT - along[:, None] - along[None] + cross  # (s_j - s_i) . (x_i - x_j)
    return phi * (score @ score.mT) + 2 * first * inner - 2 * n * first - 4 * q * second


def discrepancy(u: Tensor, n: int) -> float:
    """The U-statistic of u (S, S), divided by the dimension n: 0 in the mean for exact samples."""
    count = len(u)
    return float((u.sum() - u.diagonal().sum()) / (n * count * (count - 1)))


def bootstrap(u: Tensor, n: int, times: int = 999, seed: int = 0) -> Tensor:
    """`times` values of the null of `discrepancy`, by multinomial weights; float64.

    Liu, Lee and Jordan 2016 (arXiv 1602.03253), section 4.3. Where exact samples can be drawn, use
    their discrepancies: this is approximate for few samples.
    """
    count = len(u)
    drawn = torch.randint(count, (times, count), generator=torch.Generator().manual_seed(seed))
    w = torch.zeros(times, count, dtype=torch.float64)
    w.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    w = w / count - 1 / count
    off = u - (u.sum() - u.diagonal().sum()) / (count * (count - 1))  # the null has the mean 0
    off = off - torch.diag(off.diagonal())
    return ((w @ off) * w).sum(1) / n * count / (count - 1)


def p_value(value: float, null: Tensor) -> float:
    """Share of the null that is at least as large, with the value itself counted."""
    return (1 + int((null >= value).sum())) / (1 + len(null))


def scale_for(singular: Tensor) -> float:
    """c of the kernel, 1 / (median singular value + 1), as was published: not from the samples."""
    return 1 / (float(singular.double().median()) + 1)
