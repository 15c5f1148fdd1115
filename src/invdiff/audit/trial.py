"""One problem of which all is known, and everything that its samples can be told by.

Each quantity of a cloud of samples stands beside the same quantity of exact clouds of the same
size: what counts is its place among these. The truth, which the prior drew, has its rank among the
samples. Places and ranks of exact samples are uniform, so that a verdict needs no threshold that
somebody chose (`verdict.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from invdiff.audit import stein
from invdiff.audit.coverage import highest_density
from invdiff.audit.gmm25 import GMM25, gmm25_problem
from invdiff.audit.ranks import ranks, tarp_distances
from invdiff.core.rng import Rng
from invdiff.noise import NOISELESS
from invdiff.priors.gaussian import GaussianMixture, GaussianPrior
from invdiff.problem import Problem

REPLICAS, SLICES = 19, 128
"""Exact clouds that a cloud is compared with; directions of the sliced distance."""
LARGER_IS_WORSE = ("distance", "modes", "stein")
"""Quantities that are discrepancies; of others both sides count."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A problem of GMM-25, or the same with a noiseless y, whose posterior is then another one."""

    cell: GMM25
    problem: Problem
    posterior: GaussianMixture
    truth: Tensor

    @property
    def prior(self) -> GaussianMixture:
        """The law of the truth."""
        return self.cell.prior

    @property
    def noisy(self) -> bool:
        """Whether y has noise, and the posterior a density."""
        return self.problem.sigma_y > 0


@lru_cache(maxsize=512)
def trial(d: int, dy: int, number: int, noiseless: bool = False) -> Trial:
    """Problem `number` of the cell (d, dy), with the truth that made it."""
    cell = gmm25_problem(d, dy, number)
    truth = cell.prior.sample(1, Rng.of(number))  # as gmm25_problem draws it
    problem = cell.problem
    if noiseless:
        problem = Problem(problem.A(truth), problem.A, NOISELESS, problem.x_shape)
    return Trial(cell, problem, cell.prior.posterior(problem), truth)


def score(law: GaussianMixture, x: Tensor) -> Tensor:
    """grad log density of a mixture of one covariance at x (S, *x_shape): (S, n), float64."""
    means, precision = law.means.double().flatten(1), torch.linalg.inv(law.covs[0])
    off = x.double().flatten(1)[:, None] - means
    pulled = off @ precision
    logits = law.weights.log() - 0.5 * (pulled * off).sum(2)
    return -(torch.softmax(logits, 1)[..., None] * pulled).sum(1)


def quantities(t: Trial, x: Tensor, seed: int) -> dict[str, float]:
    """What a cloud x (S, *x_shape) of the trial is told by.

    distance: sliced Wasserstein-2 to exact samples, the same of a seed. modes: total variation of
    the shares of the modes, 0 to 1. residual: mean of |y - A x|^2 / sigma^2 over the numbers of y.
    width: mean square distance to the nearest mode of the posterior over what it is for exact
    samples of one mode. stein: U-statistic of the Stein discrepancy. The last three of noisy y.
    """
    size, means = len(x), t.prior.means.flatten(1)
    exact = t.posterior.sample(size, 900_000 + seed)
    nearest = torch.cdist(x.double().flatten(1), means).argmin(1)
    share = torch.bincount(nearest, minlength=len(means)) / size
    found = {
        "distance": t.cell.distance(x, exact, SLICES, seed, order=2),
        "modes": 0.5 * float((share - t.posterior.weights).abs().sum()),
    }
    if t.noisy:
        misfit = t.problem.residual(x).double().square().sum()
        found["residual"] = float(misfit) / (size * t.problem.y.numel() * t.problem.sigma_y**2)
        precision = torch.linalg.inv(t.posterior.covs[0])
        off = x.double().flatten(1)[:, None] - t.posterior.means.double().flatten(1)
        near = ((off @ precision) * off).sum(2).amin(1)
        found["width"] = float(near.mean()) / off.shape[2]
        c = stein.scale_for(t.problem.spectral.s)
        u = stein.kernel_matrix(x, score(t.posterior, x), c)
        found["stein"] = stein.discrepancy(u, off.shape[2])
    return found


@lru_cache(maxsize=2048)
def null(t: Trial, size: int, seed: int) -> dict[str, tuple[float, ...]]:
    """The quantities of REPLICAS exact clouds of `size` samples, compared with the same ones."""
    each = [
        quantities(t, t.posterior.sample(size, 500_000 + 1000 * seed + i), seed)
        for i in range(REPLICAS)
    ]
    return {name: tuple(one[name] for one in each) for name in each[0]}


def place(value: float, among: tuple[float, ...]) -> int:
    """How many exact values are below; a tie counts half of its values, rounded down."""
    below, ties = sum(v < value for v in among), sum(v == value for v in among)
    return below + ties // 2


def statistics(t: Trial, x: Tensor) -> dict[str, Tensor]:
    """f(x, y) of images (S, *x_shape) whose ranks are looked at, each (S,).

    seen: along what y sees best. modes: along the diagonal of the plane of the modes. residual:
    |y - A x|^2, without which a sampler of the prior passes. density: log p(x) + log p(y | x), or
    log p(x) where y has no noise.
    """
    density = t.prior.log_prob(x)
    found = {"seen": t.problem.spectral.Vt(x.double())[:, 0]}
    found["modes"] = x.double().flatten(1)[:, :2].sum(1)
    if t.noisy:
        misfit = t.problem.residual(x).double().flatten(1).square().sum(1)
        found["residual"] = misfit
        density = density - misfit / (2 * t.problem.sigma_y**2)
    return found | {"density": density}


@lru_cache(maxsize=512)
def linear_estimate(t: Trial) -> Tensor:
    """The mean of x given y if the prior were one normal law of its mean and covariance, (1, n)."""
    law = GaussianPrior(t.prior.mean, t.prior.cov)
    return law.posterior(t.problem).mean.flatten()[None]


def reference(t: Trial, seed: int) -> Tensor:
    """A point of TARP, (1, n): where y points to, moved by the scale of a mode at random.

    It has to follow y: at random points, or where y hardly moves it, a sampler of the prior passes.
    """
    start = linear_estimate(t)
    return start + Rng.of(seed).normal(start, "tarp")


def examined(t: Trial, x: Tensor, seed: int, size: int) -> dict[str, float | int | bool]:
    """All that the record keeps of a cloud x (n, *x_shape), of which `size` samples are compared.

    Values of `quantities`, NAME_exact (the median of exact clouds), NAME_place among REPLICAS, the
    ranks of the truth among the first size samples, and `inside`: of the 90 % region.
    """
    x = x[:size]
    found: dict[str, float | int | bool] = {}
    nulls = null(t, size, seed)
    for name, value in quantities(t, x, seed).items():
        found[name] = round(value, 6)
        found[f"{name}_exact"] = round(sorted(nulls[name])[REPLICAS // 2], 6)
        found[f"{name}_place"] = place(value, nulls[name])
    own, theirs = statistics(t, t.truth), statistics(t, x)
    for name in own:
        found[f"rank_{name}"] = int(ranks(own[name], theirs[name][None], seed))
    flat = x.double().flatten(1)
    pair = tarp_distances(t.truth.double().flatten(1), flat[None], reference(t, seed))
    found["rank_tarp"] = int(ranks(pair[0], pair[1], seed))
    if t.noisy:
        found["inside"] = bool(highest_density(own["density"], theirs["density"][None]))
    return found
