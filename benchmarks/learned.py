"""Calibration on truths that a learned prior draws itself: the 28 x 28 prior.

    python benchmarks/learned.py [--steps 14 30 100] [--truths 96] [--samples 15]
    python benchmarks/learned.py --page                         docs/learned.md again

With the values of the options that are there by default, every line is kept in docs/learned.json,
and docs/learned.md is written.

Truths are 250 ancestral steps of `fashion28`, so that the prior is right about them. For each
problem and number of steps: coverage of 90 % intervals over pixels whose spread exceeds 0.02, error
over predicted, mean square residual over sigma^2 of single samples (1 for exact samples), and the
ranks of the truth's statistics among the samples in four bins (flat is right; the band holds 99 %
of each bin for exact samples). V grows where y contradicts the denoiser (`seen_scale`), which a
prior of many modes needs; `--seen_scale 0` is what the presets for photographs do.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

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

ROOT = Path(__file__).parents[1]
RECORD, PAGE = ROOT / "docs/learned.json", ROOT / "docs/learned.md"
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


def measured(
    name: str, A: Any, sigma: float, steps: int, truth: Tensor, prior: Prior, args: Any
) -> dict[str, Any]:
    """One line: what samples of every truth are worth."""
    n, k = len(truth), args.samples
    rng = Rng.of([row_seed(5, i, 0) for i in range(n)])
    noise = GaussianNoise(sigma)
    p = Problem(noise.sample(A(truth), rng), A, noise, (1, *SIZE))
    x = solve(p, prior, solver_for(name, sigma, steps, args), k, 1, 240).samples
    mean, std = x.mean(1), x.std(1)
    seen = std > 0.02
    inside = (truth - mean).abs() <= student(0.9, k) * std
    predicted = (std.square() * (1 + 1 / k))[seen].mean()
    r = p.y[:, None] - A(x.flatten(0, 1)).reshape(n, k, *p.y.shape[1:])
    kept = A.restrict(torch.ones_like(p.y)).bool()[:, None].expand_as(r)
    return {
        "problem": name,
        "steps": steps,
        "truths": n,
        "samples": k,
        "coverage": round(float(inside[seen].float().mean()), 3),
        "ratio": round(math.sqrt(float((truth - mean)[seen].square().mean() / predicted)), 2),
        "residual": round(float(r[kept].square().mean()) / sigma**2, 2),
        "mean": ranks(truth.mean((-3, -2, -1)), x.mean((-3, -2, -1))),
        "detail": ranks(high(truth).squeeze(-1), high(x).squeeze(-1)),
    }


HEADS = "problem, steps, coverage of 90 %, error / predicted, residual, ranks: mean, ranks: detail"
HEAD = "| " + HEADS.replace(", ", " | ") + " |\n" + "|---" * 7 + "|"


def line(found: dict[str, Any]) -> str:
    """A line of the table; bins beyond the band are bold."""
    low, high = band(found["truths"])
    bins = [
        " ".join(f"{b}" if low <= b <= high else f"**{b}**" for b in found[key])
        for key in ("mean", "detail")
    ]
    cells = [found["problem"], found["steps"], f"{found['coverage']:.3f}", f"{found['ratio']:.2f}"]
    return "| " + " | ".join(map(str, [*cells, f"{found['residual']:.2f}", *bins])) + " |"


def page(record: list[dict[str, Any]]) -> str:
    """The record as a page."""
    n, k = record[0]["truths"], record[0]["samples"]
    low, high = band(n)
    lines = [
        "# Calibration on a learned prior",
        "",
        f"{n} truths that the prior `fashion28` drew itself (250 ancestral steps), so that it is",
        f"right about them; {k} samples of `spectral-ancestral` for each, with `seen_scale` 4: V",
        "grows where y contradicts the denoiser, as a prior of many modes needs; no preset has it.",
        "Coverage and error over",
        "predicted count pixels whose spread exceeds 0.02; the residual is the mean of",
        "(y - A x)^2 / sigma^2 of single samples; exact samples have 0.90, 1 and 1. Ranks: where",
        "the truth lies among its samples, by the mean of the picture and by the energy of its",
        f"differences (detail), in {BINS} bins. For exact samples each bin lies in {low} to {high}",
        "with 99 %; **bold** ones do not. A truth that has more detail than its samples, time and",
        "again, says that samples are too smooth.",
        "",
        HEAD,
        *map(line, record),
        "",
        "Made by `python benchmarks/learned.py`.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[14, 30, 100])
    parser.add_argument("--truths", type=int, default=96)
    parser.add_argument("--samples", type=int, default=15)
    parser.add_argument("--inflation", type=float, default=INFLATION)
    parser.add_argument("--covariance", default="local")
    parser.add_argument("--seen_scale", type=float, default=4.0)
    parser.add_argument("--problems", nargs="+", choices=list(problems()))
    parser.add_argument("--page", action="store_true")
    args = parser.parse_args()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else []
    if not args.page:
        kept = ("truths", "samples", "inflation", "covariance", "seen_scale")
        usual = all(getattr(args, key) == parser.get_default(key) for key in kept)
        prior = load_prior("fashion28")
        truth = truths(prior, args.truths)
        print(HEAD)
        for name, (A, sigma) in problems().items():
            for steps in args.steps if not args.problems or name in args.problems else ():
                found = measured(name, A, sigma, steps, truth, prior, args)
                print(line(found), flush=True)
                if usual:
                    same = (name, steps)
                    record = [r for r in record if (r["problem"], r["steps"]) != same] + [found]
                    RECORD.write_text(json.dumps(_ordered(record), indent=1) + "\n")
        if not usual:
            return
    PAGE.write_text(page(_ordered(record)))


def _ordered(record: list[dict[str, Any]]) -> list[dict[str, Any]]:
    place = list(problems())
    return sorted(record, key=lambda r: (place.index(r["problem"]), r["steps"]))


if __name__ == "__main__":
    main()
