"""What can be said of a solver on a problem of one's own, where nobody knows the posterior.

Nothing here proves samples right. Each figure stands beside what exact samples would give, and
what it cannot see is said with it. Simulation from the prior tells most: truths that it draws,
the same operator and noise, and where each truth lies among the samples of its own measurement.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from invdiff.audit import conformal, stein
from invdiff.audit.coverage import blurred_share, interval_expected, mean_p
from invdiff.audit.learned import SPREAD, detail
from invdiff.audit.ranks import SIMULATIONS, ranks, shape, tarp_distances, uniform_p
from invdiff.audit.verdict import LEVEL, flagged
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.core.schedules import Karras
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Identity, Linear
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.restoration.repeat import repeated
from invdiff.sampling.checks import comparable, misfit
from invdiff.sampling.run import row_seed, solve
from invdiff.sampling.solver import Solver
from invdiff.solvers.unconditional import Unconditional

SCORES = (0.1, 0.3)
"""Levels, in units of [-1, 1], at which the prior's score stands for that of clean images."""
SAMPLES, TRUTHS, LEAST = 7, 32, 8
"""Samples of each truth that is drawn, such truths, and samples of a run for its Stein
discrepancy."""
MOST = 64
"""Calibration images that are used."""


@dataclass(frozen=True)
class Ranked:
    """What simulation tells: p-values by measurement, mean coverage, and what ranks say.

    share: of pixels in central 90 % intervals, over the images; expected: of exact samples.
    """

    p: dict[str, float]
    share: float
    error: float
    expected: float
    words: dict[str, str]


def weights(log_weight: Tensor | None, ess: Tensor | None) -> str:
    """The effective number of samples."""
    if log_weight is None or ess is None:
        return "the solver gives its samples no weights"
    least, count = float(ess.min()), log_weight.shape[1]
    told = f"{least:.1f} of {count} samples count"
    return told + (": together they are worth one" if least < 1.5 and count > 2 else "")


def fitting(problem: Problem, samples: Tensor) -> str:
    """rms of (y - A x) / sigma over all samples, beside its deviation for exact ones.

    The truth's own is 1 +- 1 / sqrt(2 m), m numbers; samples of the posterior share y, so that
    theirs is near 1 only where y has many more numbers than the prior leaves free.
    """
    if not comparable(problem):
        return "the noise of the problem has no level to compare with"
    each = torch.cat([misfit(problem, x) for x in samples.unbind(1)])
    m = int((problem.A.restrict(torch.ones_like(problem.y)) != 0).flatten(1).sum(1)[0])
    low, high = (1 + k * 3 / math.sqrt(2 * m) for k in (-1, 1))
    value = float(each.square().mean().sqrt())
    word = (
        "more than the noise"
        if value > high
        else "less than the noise"
        if value < low
        else "as the noise"
    )
    return f"rms {value:.3f}, the truth's lies in {low:.3f} to {high:.3f}: {word}"


def stein_lines(problem: Problem, prior: Prior, samples: Tensor) -> list[str]:
    """The Stein discrepancy of the samples of each measurement, with its null."""
    gaussian, count = isinstance(problem.noise, GaussianNoise), samples.shape[1]
    lacks = {
        "a linear operator": isinstance(problem.A, Linear),
        "Gaussian noise above 0": gaussian and problem.sigma_y > 0,
        "a prior of images, not of latents": prior.autoencoder is None,
        f"{LEAST} samples or more, found {count}": count >= LEAST,
    }
    if not all(lacks.values()):
        return ["needs " + ", and ".join(need for need, there in lacks.items() if not there)]
    found, half = [], (prior.value_range[1] - prior.value_range[0]) / 2
    half = half if math.isfinite(half) else 1.0
    for level in SCORES:
        x, sigma = samples[0], max(level * half, prior.sigma_min)
        noisy = x + sigma * Rng.of([row_seed(9, 0, i) for i in range(len(x))]).normal(x, "stein")
        with torch.no_grad():
            score = (prior.denoise(noisy, sigma) - noisy) / sigma**2
            fit = problem.linear.adjoint(problem.residual(x)) / problem.sigma_y**2
        n = x[0].numel()
        u = stein.kernel_matrix(x, score + fit, math.sqrt(n) * half)
        value, null = stein.discrepancy(u, n), stein.bootstrap(u, n)
        p = stein.p_value(value, null)
        found.append(
            f"score at {level:g}: {value:.3g}, 95 % of the null below "
            f"{float(null.quantile(0.95)):.3g}, p = {p:.3f}"
        )
    return [*found, f"({stein.BLIND}; and as wrong as the prior's score is)"]


def simulated(
    problem: Problem, prior: Prior, solver: Solver, truths: int, steps: int = 60
) -> tuple[Ranked, Tensor, Tensor]:
    """What ranks of truths that the prior draws say of the solver; the truths and samples too."""
    shape_ = problem.x_shape
    top = min(80.0, prior.sigma_max)
    blank = Problem(problem.y.new_zeros(1, *shape_).float(), Identity(), GaussianNoise(1.0), shape_)
    path = Karras(steps, top, max(0.01, prior.sigma_min))
    truth = solve(blank, prior, Unconditional(schedule=path), truths, seed=77, batch=32).samples[0]
    rng = Rng.of([row_seed(5, i, 0) for i in range(truths)])
    y = problem.noise.sample(problem.A(truth.to(problem.y.device)), rng)
    asked = Problem(problem.A.restrict(y), problem.A, problem.noise, shape_)
    x = solve(asked, prior, solver, SAMPLES, seed=1, batch=64).resampled()
    return judged(asked, truth, x), truth, x


def judged(problem: Problem, truth: Tensor, x: Tensor) -> Ranked:
    """Ranks of truths (N, ...) among samples (N, S, ...) of their measurements in the problem."""
    count = x.shape[1]
    statistics = {"mean": lambda v: v.flatten(-3).mean(-1), "detail": detail}
    pairs = {k: (f(truth), f(x)) for k, f in statistics.items()}
    residual = torch.stack(
        [problem.residual(v).abs().flatten(1).square().sum(1) for v in x.unbind(1)], 1
    )
    own = problem.residual(truth).abs().flatten(1).square().sum(1)
    pairs["residual"] = (own, residual)
    back = problem.A.vjp(torch.zeros_like(truth), problem.y).flatten(1)
    scale = x.flatten(0, 1).flatten(1).std() / back.std().clamp_min(1e-12)
    pairs["tarp"] = tarp_distances(truth.flatten(1), x.flatten(2), back * scale)
    places = {k: ranks(t, s, 3) for k, (t, s) in pairs.items()}
    p = {f"rank {k}": uniform_p(r, count) for k, r in places.items()}
    expected, share = interval_expected(0.9, count), blurred_share(truth, x, SPREAD)
    p["coverage"] = mean_p(share, expected)
    words = {k: shape(r, count) for k, r in places.items()}
    error = float(share.std() / math.sqrt(len(share)))
    return Ranked(p, float(share.mean()), error, expected, {k: w for k, w in words.items() if w})


def report(
    source: Path, prior: str | None = None, truths: int = TRUTHS, calibration: Path | None = None
) -> Iterator[str]:
    """The lines of `invdiff audit --problem`, each as soon as it is known.

    Raises InvdiffError where the run or the calibration images cannot be read, before it measures.
    """
    job = repeated(source, prior)
    result = job.earlier
    if result is None or result.samples.shape[1] == 0:
        raise InvdiffError(f"{source} holds no samples; make the run with --want samples.")
    problem, solver = job.posed.asked, job.solver
    alike, left_out = (None, []) if calibration is None else _alike(problem, job.prior, calibration)
    yield from (f"{solver.name} on {source}: {result.samples.shape[1]} samples", "")
    yield "weights   " + weights(result.log_weight, result.ess)
    yield "misfit    " + fitting(problem, result.samples)
    head, *rest = stein_lines(problem, job.prior, result.samples)
    yield from (f"stein     {head}", *(f"          {text}" for text in rest))
    yield from ("", f"{truths} truths drawn by the prior, {SAMPLES} samples of each:")
    found, _, _ = simulated(problem, job.prior, solver, truths)
    bad = flagged(found.p)
    for name, p in found.p.items():
        told = found.words.get(name.removeprefix("rank "), "")
        yield f"  {name:<14} p = {p:.4f}{'  FLAGGED' if name in bad else ''}  {told}".rstrip()
    yield (
        f"  90 % intervals hold {found.share:.3f} ± {found.error:.3f} of the pixels, exact ones "
        f"{found.expected:.3f}"
    )
    yield (
        f"  flagged: what exact samples show with a chance of at most {LEVEL:g}, all together; "
        f"p is at least {1 / (SIMULATIONS + 1):.0e}"
    )
    if alike is not None:
        yield from ("", *(f"left out: {text}" for text in left_out))
        yield from _widened(problem, job.prior, solver, alike)


def _alike(problem: Problem, prior: Prior, data: Path) -> tuple[Tensor, list[str]]:
    """Images like those of the run, and why others are none: the middle of each, of the run's size,
    MOST of them at most. Raises InvdiffError where there is none."""
    from invdiff.train.files import read
    from invdiff.train.spectrum import middle, recipe_of

    said, each = list[str](), list[Tensor]()
    train, valid = read(data, replace(recipe_of(prior), patch=1, halves=0.0), said)
    height, width = problem.x_shape[-2:]
    for image in [*train, *valid]:
        if len(each) < MOST:
            x = middle(prior, image, (height, width))
            if x is None:
                have = f"{image.shape[1]} x {image.shape[0]}"
                said.append(f"an image of {have} pixels, less than {width} x {height} of the run")
            else:
                each.append(x)
    found = torch.cat(each) if each else None
    if found is None or tuple(found.shape[1:]) != problem.x_shape:
        why = f" ({said[0]})" if said else ""
        raise InvdiffError(
            f"{data} holds no image like those of the run, {problem.x_shape}{why}; give "
            "--calibration images of its size, or larger."
        )
    return found, said


def _widened(problem: Problem, prior: Prior, solver: Solver, truth: Tensor) -> list[str]:
    """Intervals that hold 90 % of the pixels of images like these; the bound is of independent
    images."""
    rng = Rng.of([row_seed(6, i, 0) for i in range(len(truth))])
    y = problem.A.restrict(problem.noise.sample(problem.A(truth), rng))
    asked = Problem(y, problem.A, problem.noise, problem.x_shape)
    x = solve(asked, prior, solver, SAMPLES, seed=1, batch=64).resampled()
    w = conformal.widening(truth, x)
    return [
        f"{w.images} calibration images: mean ± {w.factor:.2f} deviations holds all but "
        f"{w.risk:.3f} of the pixels, at most {w.epsilon:g} with confidence {1 - w.delta:g}",
        f"({conformal.MARGINAL}, for images like these; normal intervals leave out {w.before:.3f})",
    ]
