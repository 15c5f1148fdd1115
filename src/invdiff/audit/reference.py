"""A posterior on a learned prior that is known by a long run, and how far samples are from it.

The prior is the law of a chain of 50 ancestral steps of `fashion28`, whose end is drawn from N(D,
0.02^2); `benchmarks/reference.py` samples its posterior by two methods, and writes the record that
is read here: mean, deviation and quantiles of every pixel, and of the twelve directions in which
the posterior varies most, what shows that it converged, and what exact samples and the prior give.
A solver has its own schedule, and so a slightly different law of the prior: that is a part of what
its figures tell.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invdiff.audit import learned
from invdiff.core.schedules import Karras
from invdiff.noise import GaussianNoise
from invdiff.priors.load import load_prior
from invdiff.problem import Problem
from invdiff.sampling.needs import missing
from invdiff.sampling.run import solve
from invdiff.sampling.solver import Solver
from invdiff.tasks import TASKS
from invdiff.tasks.auto import configured

PRIOR, SHAPE = learned.PRIOR, learned.SHAPE
SCHEDULE = Karras(50, 80.0, 0.02)
SPREAD = 0.05
"""Deviation of the posterior above which a pixel counts."""
LEVELS = tuple((i + 0.5) / 16 for i in range(16))
"""Of the quantiles."""
DIRECTIONS, REPLICAS = 12, 200
FEW, MANY, GROWN = 24, 96, 256
"""Samples of a solver in `--quick`, in full, and where particles are added."""
QUICK = ("ddrm", "spectral-ancestral", "ddnm+", "diffpir", "daps", "mmps", "ddsmc")
"""Solvers of `--quick`: cheap ones."""
FILE = Path(__file__).with_name("reference.json")
FIGURES = ("mean", "log_sd", "w1", "directions")


@dataclass(frozen=True)
class ReferenceCase:
    """Noise on [-1, 1], and the seed of its draw."""

    sigma: float
    seed: int


CASES = {"half": ReferenceCase(1.5, 5), "x4": ReferenceCase(0.3, 6)}
"""By the operators of `learned`: the left half is seen, or block means of 4 x 4."""


def problem_of(case: str, y: Tensor) -> Problem:
    """y (1, ...) as a problem."""
    return Problem(y, learned.operator(case), GaussianNoise(CASES[case].sigma), SHAPE)


def matrix(case: str) -> tuple[Tensor, Tensor]:
    """A as (numbers of y that were measured, pixels), float64, and which of y these are."""
    eye = torch.eye(math.prod(SHAPE), dtype=torch.float64).reshape(-1, *SHAPE)
    whole = learned.operator(case)(eye).flatten(1).mT
    kept = whole.abs().sum(1) > 0
    return whole[kept], kept


@dataclass(frozen=True)
class Law:
    """Moments and quantiles of a posterior. mean, sd: (n,); quantiles: (levels, n); axes: (k, n),
    of unit length, and the same three of x along them, (k,) and (levels, k)."""

    mean: Tensor
    sd: Tensor
    quantiles: Tensor
    axes: Tensor
    axes_mean: Tensor
    axes_sd: Tensor
    axes_quantiles: Tensor

    @property
    def counted(self) -> Tensor:
        """The pixels that vary, (n,), bool."""
        return self.sd > SPREAD


def law_of(x: Tensor, weight: Tensor) -> Law:
    """Of draws x (N, n) of weights (N,) that sum to 1."""
    x, w = x.double(), weight.double()
    mean = w @ x
    off = x - mean
    axes = torch.linalg.eigh((off * w[:, None]).T @ off)[1].T.flip(0)[:DIRECTIONS]
    along = x @ axes.T
    sd, axes_sd = ((w @ (v - w @ v).square()).sqrt() for v in (x, along))
    return Law(mean, sd, quantiles(x, w), axes, w @ along, axes_sd, quantiles(along, w))


def quantiles(x: Tensor, weight: Tensor) -> Tensor:
    """At LEVELS, (levels, n): the least value up to which the weights (N,) reach the level."""
    order = x.argsort(0)
    edges = weight[order].cumsum(0).mT.contiguous()  # (n, N)
    level = torch.tensor(LEVELS, dtype=edges.dtype).expand(len(edges), -1).contiguous()
    index = torch.searchsorted(edges, level).clamp_max(len(x) - 1)
    return x.gather(0, order).mT.gather(1, index).mT


def figures(x: Tensor, law: Law) -> dict[str, float]:
    """How far samples x (S, n) of equal weight are from a law, in its deviations.

    mean: rms error of the pixels' means. log_sd: mean log of their deviations over those of the
    law. w1: mean Wasserstein-1 distance of the pixels' laws, by quantiles. directions: the same
    of the law's axes.
    """
    x, on = x.double().flatten(1), law.counted
    equal = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    along = x @ law.axes.T
    x = x[:, on]
    far = (quantiles(x, equal) - law.quantiles[:, on]).abs().mean(0) / law.sd[on]
    along_far = (quantiles(along, equal) - law.axes_quantiles).abs().mean(0) / law.axes_sd
    off = (x.mean(0) - law.mean[on]) / law.sd[on]
    found = (
        off.square().mean().sqrt(),
        (x.std(0).clamp_min(1e-6) / law.sd[on]).log().mean(),
        far.mean(),
        along_far.mean(),
    )
    return {k: round(float(v), 4) for k, v in zip(FIGURES, found, strict=True)}


def null(x: Tensor, weight: Tensor, law: Law, size: int) -> dict[str, list[float]]:
    """The median and 99 % of the figures of `size` exact samples, drawn from x (N, n)."""
    g = torch.Generator().manual_seed(size)
    each = [
        figures(x[torch.multinomial(weight, size, True, generator=g)], law) for _ in range(REPLICAS)
    ]
    found = {k: torch.tensor([one[k] for one in each], dtype=torch.float64).abs() for k in FIGURES}
    return {k: [round(float(v.quantile(q)), 4) for q in (0.5, 0.99)] for k, v in found.items()}


@lru_cache(maxsize=1)
def record() -> dict[str, Any]:
    """What `benchmarks/reference.py` wrote."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


@lru_cache(maxsize=2)
def law(case: str) -> Law:
    """The posterior of a case."""
    kept = record()["cases"][case]["law"]
    return Law(**{k: torch.tensor(v, dtype=torch.float64) for k, v in kept.items()})


def measurement(case: str) -> Tensor:
    """y of a case, (1, ...)."""
    kept = torch.tensor(record()["cases"][case]["y"])
    where = matrix(case)[1]
    y = torch.zeros(len(where)).masked_scatter(where, kept)
    return y.reshape(1, *learned.operator(case)(torch.zeros(1, *SHAPE)).shape[1:])


def drawn(solver: Solver, case: str, samples: int) -> tuple[Tensor, int, int] | None:
    """Samples (S, *SHAPE), evaluations and gradients of one of them; None where it cannot."""
    p, prior = problem_of(case, measurement(case)), load_prior(PRIOR)
    if missing(solver, p, prior):
        return None
    result = solve(p, prior, solver, samples, seed=1, batch=256)
    return result.resampled()[0], result.nfe, result.vjps


def preset(name: str, case: str) -> Solver:
    """A solver as `restore` takes it for a measurement of this kind, at its noise."""
    blank = learned.operator(case)(torch.zeros(1, *SHAPE))
    return configured(TASKS[learned.CASES[case]], name, problem_of(case, blank))


def measured(solver: Solver, case: str, samples: int) -> dict[str, Any] | None:
    """Figures of a solver, of what exact samples give, and of the prior. samples: FEW, MANY."""
    kept = record()["cases"][case]
    rulers = {"null": kept["null"][str(samples)], "prior": kept["prior"][str(samples)]}
    found = drawn(solver, case, samples)
    if found is None:
        return None
    x, nfe, vjps = found
    return figures(x, law(case)) | {"nfe": nfe, "vjps": vjps} | rulers
