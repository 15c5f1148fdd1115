"""Calibration on truths that a learned prior draws itself: the 28 x 28 prior.

    python benchmarks/learned.py [--steps 14 30 100] [--truths 96] [--samples 15]

Truths are 250 ancestral steps of `fashion28`, so that the prior is right about them. For each
problem and number of steps: coverage of 90 % intervals over pixels whose spread exceeds 0.02, error
over predicted, mean square residual over sigma^2 of single samples (1 for exact samples), and the
ranks of the truth's statistics among the samples in four bins (flat is right; the band holds 99 %
of each bin for exact samples). V grows where y contradicts the denoiser (`seen_scale`), which a
prior of many modes needs; `--seen_scale 0` is what the presets for photographs do.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor

from calibration import student
from invdiff.core.rng import Rng
from invdiff.core.schedules import Karras
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Identity
from invdiff.operators.downsample import AveragePool
from invdiff.operators.inpaint import Inpaint
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.problem import Problem
from invdiff.sampling.run import row_seed, solve
from invdiff.solvers.spectral_ancestral import SpectralAncestral
from invdiff.solvers.unconditional import Unconditional
from invdiff.tasks.presets import INFLATION

SIZE = (28, 28)
BINS = 4


def truths(prior: Prior, count: int) -> Tensor:
    """Draws of the prior, (count, 1, 28, 28)."""
    shape = (1, *SIZE)
    blank = Problem(torch.zeros(1, *shape), Identity(), GaussianNoise(1.0), shape)
    solver = Unconditional(schedule=Karras(250, 80.0, 0.01))
    return solve(blank, prior, solver, count, seed=77, batch=96).samples[0]


def problems() -> dict[str, tuple[object, float]]:
    """Operator and noise on [-1, 1]."""
    left = torch.zeros(1, 1, *SIZE)
    left[..., :14] = 1
    return {
        "denoise 0.5": (Identity(), 0.5),
        "left half, 0.05": (Inpaint(left), 0.05),
        "25 % of pixels, 0.05": (Inpaint.random(SIZE, 0.25, seed=0), 0.05),
        "x4 block means, 0.05": (AveragePool(4, SIZE), 0.05),
    }


def solver_for(name: str, sigma: float, steps: int, args: argparse.Namespace) -> SpectralAncestral:
    how = {
        "inflation": args.inflation,
        "covariance": args.covariance,
        "seen_scale": args.seen_scale,
    }
    if name.startswith("denoise"):
        return SpectralAncestral(data="start", schedule=Karras(steps, sigma, 0.02), **how)
    return SpectralAncestral(schedule=Karras(steps, 20.0, 0.02), **how)


def high(x: Tensor) -> Tensor:
    """Energy of differences of neighbours, over the last two axes."""
    return x.diff(dim=-1).square().mean((-1, -2)) + x.diff(dim=-2).square().mean((-1, -2))


def ranks(truth: Tensor, samples: Tensor) -> list[int]:
    """Counts of the truth's rank among the samples in BINS bins; (M,), (M, K)."""
    place = (samples < truth[:, None]).sum(1) * BINS // (samples.shape[1] + 1)
    return torch.bincount(place, minlength=BINS).tolist()


def band(count: int) -> tuple[int, int]:
    """Within which a bin lies with 99 %: binomial."""
    from scipy.stats import binom

    low, high = binom.ppf([0.005, 0.995], count, 1 / BINS)
    return int(low), int(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[14, 30, 100])
    parser.add_argument("--truths", type=int, default=96)
    parser.add_argument("--samples", type=int, default=15)
    parser.add_argument("--inflation", type=float, default=INFLATION)
    parser.add_argument("--covariance", default="local")
    parser.add_argument("--seen_scale", type=float, default=4.0)
    parser.add_argument("--problems", nargs="+", choices=list(problems()))
    args = parser.parse_args()
    prior = load_prior("fashion28")
    truth = truths(prior, args.truths)
    print(f"band of ranks: {band(args.truths)} of {args.truths / BINS:g}")
    print("| problem | steps | coverage 90 | ratio | residual | ranks: mean | ranks: detail |")
    print("|---|---|---|---|---|---|---|")
    for name, (A, sigma) in problems().items():
        if args.problems and name not in args.problems:
            continue
        rng = Rng.of([row_seed(5, i, 0) for i in range(args.truths)])
        p = Problem(GaussianNoise(sigma).sample(A(truth), rng), A, GaussianNoise(sigma), (1, *SIZE))
        for steps in args.steps:
            x = solve(p, prior, solver_for(name, sigma, steps, args), args.samples, 1, 240).samples
            k, mean, std = args.samples, x.mean(1), x.std(1)
            seen = std > 0.02
            inside = (truth - mean).abs() <= student(0.9, k) * std
            predicted = (std.square() * (1 + 1 / k))[seen].mean()
            ratio = math.sqrt(float((truth - mean)[seen].square().mean() / predicted))
            r = p.y[:, None] - A(x.flatten(0, 1)).reshape(args.truths, k, *p.y.shape[1:])
            kept = A.restrict(torch.ones_like(p.y)).bool()[:, None].expand_as(r)
            residual = float(r[kept].square().mean()) / sigma**2
            rows = [ranks(f(truth), f(x)) for f in (lambda t: t.mean((-3, -2, -1)),
                                                    lambda t: high(t).squeeze(-1))]  # fmt: skip
            bins = " | ".join(" ".join(map(str, row)) for row in rows)
            cover = float(inside[seen].float().mean())
            print(
                f"| {name} | {steps} | {cover:.3f} | {ratio:.2f} | {residual:.2f} | {bins} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
