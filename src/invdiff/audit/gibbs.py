"""Gibbs samplers of Levy processes given y: the gold standard of `levy.py`.

Signals s of length L have independent increments u = D s. Each law but one is a normal law of
random variance: given the variances s is normal, and given s the variances are independent.
Bernoulli and Laplace increments are 0 or not; whether, is drawn with the increments integrated out,
by rank-one updates, in two branches that exclude each other: a visit to an increment is one draw.

arXiv 2509.12821, appendix. All is float64, and a batch of chains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

LAWS = {
    "gauss": "N(0, 0.25)",
    "laplace": "Laplace of scale 1",
    "bl": "0 with probability 0.9, else Laplace of scale 1",
    "student1": "Student t, 1 degree of freedom",
    "student2": "Student t, 2 degrees of freedom",
    "student3": "Student t, 3 degrees of freedom",
}
VARIANCE, ZERO = 0.25, 0.9
LEAST = 1e-7
"""Of u^2, in the law of a variance."""
Numpy = np.random.Generator


def increments(law: str, count: int, length: int, rng: Numpy) -> Tensor:
    """Draws of independent increments, (count, length)."""
    size = (count, length)
    if law == "gauss":
        u = math.sqrt(VARIANCE) * rng.standard_normal(size)
    elif law.startswith("student"):
        u = rng.standard_t(int(law[-1]), size)
    else:
        u = rng.laplace(size=size)
        u = u * (rng.random(size) >= ZERO) if law == "bl" else u
    return torch.from_numpy(u)


def log_density(law: str, u: Tensor) -> Tensor:
    """Sum of log p(u_k) over the last axis, up to a constant; not of `bl`, which has atoms."""
    if law == "gauss":
        return -0.5 * u.square().sum(-1) / VARIANCE
    if law == "laplace":
        return -u.abs().sum(-1)
    nu = int(law[-1])
    return -(nu + 1) / 2 * torch.log1p(u.square() / nu).sum(-1)


def wald(mean: Tensor, rng: Numpy) -> Tensor:
    """Inverse normal law of this mean and shape 1 (Michael, Schucany and Haas 1976)."""
    q = mean * torch.from_numpy(rng.standard_normal(tuple(mean.shape)) ** 2) / 2
    x = mean / (1 + q + (2 * q + q * q).sqrt())
    first = torch.from_numpy(rng.random(tuple(mean.shape))) <= mean / (mean + x)
    return torch.where(first, x, mean * (mean / x))


def precisions(law: str, u: Tensor, rng: Numpy) -> Tensor:
    """1 / variance of each increment, given it; shape of u."""
    if law == "gauss":
        return torch.full_like(u, 1 / VARIANCE)
    if law.startswith("student"):
        nu = int(law[-1])
        drawn = torch.from_numpy(rng.standard_gamma((nu + 1) / 2, tuple(u.shape)))
        return drawn / ((nu + u.square()) / 2)
    return wald(1 / u.square().clamp_min(LEAST).sqrt(), rng)


def increments_of(s: Tensor) -> Tensor:
    """D s: the first value, then differences."""
    return torch.cat([s[..., :1], s.diff(dim=-1)], -1)


def dense_chain(law: str, A: Tensor, y: Tensor, sigma: float, rng: Numpy) -> Iterator[Tensor]:
    """States of chains, each (B, L), for y (B, m) = A s + sigma n; of all laws but `bl`."""
    length = A.shape[1]
    fit, back = A.mT @ A / sigma**2, y @ A / sigma**2
    difference = increments_of(torch.eye(length, dtype=torch.float64)).mT
    s = y @ A
    while True:
        g = precisions(law, increments_of(s), rng)
        Q = fit + difference.mT @ (g[..., None] * difference)
        root = torch.linalg.cholesky(Q)
        z = torch.from_numpy(rng.standard_normal((*s.shape, 1)))
        half = torch.linalg.solve_triangular(root, back[..., None], upper=False)
        s = torch.linalg.solve_triangular(root.mT, half + z, upper=True)[..., 0]
        yield s


def jumps_chain(A: Tensor, y: Tensor, sigma: float, rng: Numpy) -> Iterator[Tensor]:
    """The same as `dense_chain` for `bl`."""
    B, length, m = len(y), A.shape[1], len(A)
    K = A.flip(1).cumsum(1).flip(1)  # of increments: A D^-1
    v = torch.from_numpy(rng.random((B, length)) < 0.5)
    w = torch.ones(B, length, dtype=torch.float64)
    u = torch.ones(B, length, dtype=torch.float64)
    eye, odds = torch.eye(m, dtype=torch.float64), math.log((1 - ZERO) / ZERO)
    while True:
        plain = torch.from_numpy(rng.exponential(2.0, (B, length)))
        w = torch.where(v, 1 / precisions("laplace", u, rng), plain)
        inverse = torch.linalg.inv(sigma**2 * eye + (K * (v * w)[:, None]) @ K.mT)
        for k in range(length):
            a, wk, on = K[:, k], w[:, k], v[:, k]
            column = inverse @ a
            tau, beta = column @ a, (y * column).sum(1)
            sign = torch.where(on, -1.0, 1.0).double()
            left = (1 + sign * wk * tau).clamp_min(1e-300)
            # log odds of a jump; where k is in B, of B without it
            gain = odds + sign * (-0.5 * left.log()) + 0.5 * wk * beta.square() / left
            new = torch.from_numpy(rng.random(B)) < torch.sigmoid(gain)
            flips = (new != on).nonzero()[:, 0]
            if len(flips):
                c = column[flips]
                scale = (sign * wk / left)[flips, None, None]
                inverse[flips] -= scale * (c[:, :, None] * c[:, None])
            v[:, k] = new
        u = _slab(K, y, sigma, v, w, rng)
        yield u.cumsum(1)


def _slab(K: Tensor, y: Tensor, sigma: float, v: Tensor, w: Tensor, rng: Numpy) -> Tensor:
    """Increments given which of them jump, 0 where none does; (B, L)."""
    on = v.double()
    fit = (K.mT @ K)[None] / sigma**2 * on[:, :, None] * on[:, None]
    Q = fit + torch.diag_embed(torch.where(v, 1 / w, 1.0))
    root = torch.linalg.cholesky(Q)
    b = (y @ K / sigma**2 * on)[..., None]
    z = torch.from_numpy(rng.standard_normal(b.shape))
    half = torch.linalg.solve_triangular(root, b, upper=False) + z
    return torch.linalg.solve_triangular(root.mT, half, upper=True)[..., 0] * on


def chain(law: str, A: Tensor, y: Tensor, sigma: float, rng: Numpy) -> Iterator[Tensor]:
    """States of chains of any law."""
    if law == "bl":
        return jumps_chain(A, y, sigma, rng)
    return dense_chain(law, A, y, sigma, rng)
