"""Windows of a prior of clips: error of frames, and flicker at joints against within windows.

    python benchmarks/windows.py --data fashion_mnist.npz [--clips 6] [--out figures.json]

Clips of 32 frames are made of held-out items as `moving-fashion` was trained on clips of 8
(`moving_clips`), and measured in three ways. Each is restored by the solvers that the task takes:
"shared" by `Windows`, which is what `invdiff restore` does, with 0, 2 and 4 frames that
neighbours share at least; "alone" window by window, each a problem of its own, cut side by side, or
with shared frames that are blended afterwards with the same weights.

PSNR is of all frames, in dB. Flicker is the root mean square error of the differences between
neighbouring frames, on the range [-1, 1]: at joints, where not the same windows see both frames or
more than one sees them, and elsewhere. misfit is that of samples, in units of the noise.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Identity, Operator
from invdiff.operators.downsample import AveragePool
from invdiff.operators.inpaint import Inpaint
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.priors.windows import Cuts, Windows
from invdiff.problem import Problem
from invdiff.problem.metrics import psnr
from invdiff.sampling.checks import misfit
from invdiff.sampling.run import solve
from invdiff.tasks import task_class
from invdiff.tasks.auto import choose, estimator
from invdiff.train.become import CANVAS, FRAMES, moving_clips

LONG, HELD_OUT = 32, 1000
"""Frames of a clip; items at the end of the file that the prior was not trained on."""
SHARED, ALONE = (0, 2, 4), (0, 2)
SIZE = (CANVAS, CANVAS)


def clips(path: Path, count: int) -> Tensor:
    """Clips (count, 1, LONG, CANVAS, CANVAS) of held-out items."""
    items = np.load(path)["train"][-HELD_OUT:][: 2 * count]
    x = torch.from_numpy(items).float().reshape(-1, 1, 28, 28) / 127.5 - 1
    return moving_clips(x, torch.Generator().manual_seed(0), LONG)[:, None]


def measurements(truth: Tensor) -> Iterator[tuple[str, str, Problem]]:
    """(task, what was measured, the problem)."""
    g = torch.Generator().manual_seed(5)
    hole = Inpaint.box(SIZE, 6, 6, 20, 20).mask[:, :, None]
    hole = hole.expand(1, 1, LONG, *SIZE).contiguous()
    asked: tuple[tuple[str, str, Operator, float], ...] = (
        ("denoise", "noise of 0.2", Identity(), 0.4),
        ("super-resolution", "means of 4 x 4 pixels, noise of 0.02", AveragePool(4, SIZE), 0.04),
        ("inpaint", "a hole of 20 x 20 pixels, noise of 0.02", Inpaint(hole), 0.04),
    )
    for task, about, A, sigma in asked:
        z = A(truth)
        y = z + sigma * torch.randn(z.shape, generator=g)
        yield task, about, Problem(y, A, GaussianNoise(sigma), tuple(truth.shape[1:]))


def restored(task: str, problem: Problem, prior: Prior, seed: int = 0) -> dict[str, Tensor]:
    """The estimate, and a sample, by the solvers of the task."""
    cls = task_class(task)
    best, solver = estimator(cls, problem), choose(cls, problem)[0]
    assert best is not None
    found = solve(problem, prior, solver, 1, seed, estimator=best[0])
    assert found.estimate is not None
    return {"estimate": found.estimate, "sample": found.samples[:, 0]}


def alone(task: str, problem: Problem, prior: Prior, cuts: Cuts) -> dict[str, Tensor]:
    """The same of each window by itself, blended."""
    found = {name: torch.zeros(problem.x_like.shape) for name in ("estimate", "sample")}
    for k, (start, w) in enumerate(zip(cuts.starts, cuts.weights.float(), strict=True)):
        at = slice(start, start + cuts.length)
        A = Inpaint(problem.A.mask[:, :, at]) if isinstance(problem.A, Inpaint) else problem.A
        shape = (1, cuts.length, *SIZE)
        part = Problem(problem.y[:, :, at].contiguous(), A, problem.noise, shape)
        for name, x in restored(task, part, prior, k).items():
            found[name][:, :, at] += w[:, None, None] * x
    return found


def scores(x: Tensor, truth: Tensor, cuts: Cuts, problem: Problem) -> dict[str, float]:
    seen = [{k for k, s in enumerate(cuts.starts) if s <= t < s + cuts.length} for t in range(LONG)]
    joints = [seen[t] != seen[t + 1] or len(seen[t]) > 1 for t in range(LONG - 1)]
    at = torch.tensor(joints)
    square = (x.diff(dim=2) - truth.diff(dim=2)).square().mean((0, 1, 3, 4))
    return {
        "psnr": float(psnr(x, truth, (-1, 1)).mean()),
        "at joints": float(square[at].mean().sqrt()),
        "within": float(square[~at].mean().sqrt()),
        "misfit": float(misfit(problem, x).mean()),
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("--data", type=Path, required=True, help=".npz with `train`, of Fashion-MNIST")
    p.add_argument("--clips", type=int, default=6)
    p.add_argument("--out", type=Path, help="JSON file of all figures")
    args = p.parse_args()
    torch.set_grad_enabled(False)
    prior, truth = load_prior("moving-fashion"), clips(args.data, args.clips)
    found: list[dict[str, object]] = []
    for task, about, problem in measurements(truth):
        print(f"\n{task}: {about}\n")
        print("| windows | PSNR, estimate | sample | flicker of the estimate, at joints | within "
              "| of a sample, at joints | within | misfit of a sample |")  # fmt: skip
        print("|---|" + "---|" * 7, flush=True)
        runs = [("shared", o) for o in SHARED] + [("alone", o) for o in ALONE]
        for how, overlap in runs:
            cuts = Cuts(LONG, FRAMES, overlap)
            if how == "shared":
                answers = restored(task, problem, Windows(prior, overlap))
            else:
                answers = alone(task, problem, prior, cuts)
            e, s = (scores(answers[k], truth, cuts, problem) for k in ("estimate", "sample"))
            print(f"| {how}, {overlap} | {e['psnr']:.2f} | {s['psnr']:.2f} | {e['at joints']:.3f} "
                  f"| {e['within']:.3f} | {s['at joints']:.3f} | {s['within']:.3f} "
                  f"| {s['misfit']:.2f} |", flush=True)  # fmt: skip
            found.append({"task": task, "windows": how, "shared": overlap, "estimate": e,
                          "sample": s})  # fmt: skip
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
