"""Few steps: where a schedule should end when a run is shorter than its preset.

    python benchmarks/few_steps.py [--images 12] [--side 96] [--out docs/few-steps.md]

Samples of 2 to 8 steps of crops from the middle of the benchmark's photographs, twice with the same
measurement and seed: with the last level of the preset, and as `--steps` has it, at LAST / steps or
above. PSNR of one sample, and misfit: rms of (y - A x) / sigma, 1 for the truth. The gain is a mean
over photographs with its standard error. MRI and CT (`overhead.py --problems`) are one image each.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import overhead
import restoration
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Identity, Linear
from invdiff.operators.blur import blur
from invdiff.operators.blur_kernels import gaussian_kernel
from invdiff.operators.downsample import Bicubic
from invdiff.operators.inpaint import Inpaint
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.problem import Problem
from invdiff.problem.metrics import psnr
from invdiff.sampling.run import solve
from invdiff.sampling.solver import Solver
from invdiff.tasks import TASKS
from invdiff.tasks.auto import LAST, configured, in_steps

STEPS = (2, 3, 4, 6, 8)
SOLVERS = ("ddrm", "diffpir", "spectral-ancestral", "ddnm+", "dds")
MEDICAL = ("diffpir", "spectral-ancestral", "dds")
ESTIMATES, MANY, FEW = (12, 8, 6, 4, 3, 2), 20, 4
SETTINGS = tuple(itertools.product((0.2, 0.3, 0.4, 0.6, 0.8), (0.02, 0.03, 0.05), (0.1, 0.23, 0.5)))
"""First and last level, and lam, of FEW steps."""


def measurements(side: int) -> dict[str, tuple[str, Linear, float]]:
    """By name: task, operator and noise on [-1, 1]."""
    size = (side, side)
    return {
        "x4": ("super-resolution", Bicubic(4, size), 0.02),
        "blur": ("deblur", blur(gaussian_kernel(2.0), size, "reflect"), 0.02),
        "30 % of the pixels": ("inpaint", Inpaint.random(size, 0.3, 1), 0.02),
        "noise": ("denoise", Identity(), 0.2),
    }


def judged(solver: Solver, problem: Problem, prior: Prior, truth: Tensor) -> tuple[Tensor, float]:
    """PSNR of one sample of each row, (B,), and misfit of all."""
    x = solve(problem, prior, solver, seed=1, batch=12).samples[:, 0]
    r = problem.A.restrict(problem.y - problem.A(x)).abs().square().sum()
    count = problem.A.restrict(torch.ones_like(problem.y)).abs().sum()
    return psnr(x, truth, prior.value_range), math.sqrt(float(r / count)) / problem.sigma_y


def rows(name: str, task: str, problem: Problem, prior: Prior, truth: Tensor) -> Iterator[str]:
    """Rows of the table, of all solvers of a measurement."""
    for solver in SOLVERS if prior.name.startswith("photo") else MEDICAL:
        preset = configured(TASKS[task], solver, problem)
        for steps in (n for n in STEPS if n < preset.num_steps):
            new = in_steps(preset, steps)
            if new == (old := preset.with_steps(steps)):
                continue
            (before, m), (after, k) = (judged(s, problem, prior, truth) for s in (old, new))
            gain = after - before
            error = f" ± {float(gain.std()) / math.sqrt(len(gain)):.2f}" if len(gain) > 1 else ""
            means = (f"{float(v.mean()):.2f}" for v in (before, after))
            cells = [name, f"`{solver}`", steps, *means, f"{float(gain.mean()):+.2f}{error}",
                     f"{m:.2f}", f"{k:.2f}"]  # fmt: skip
            yield f"| {' | '.join(map(str, cells))} |"


def estimates(name: str, task: str, problem: Problem, prior: Prior, truth: Tensor) -> Iterator[str]:
    """Rows of the table of estimates, against MANY steps."""
    preset = configured(TASKS[task], "hqs", problem)
    best, misfit = judged(preset.with_steps(MANY), problem, prior, truth)
    yield f"| {name} | {MANY} | {float(best.mean()):.2f} | | {misfit:.2f} |"

    def row(label: object, value: Tensor, m: float) -> str:
        lost = value - best
        error = float(lost.std()) / math.sqrt(len(lost))
        told = f"{float(value.mean()):.2f} | {float(lost.mean()):+.2f} ± {error:.2f} | {m:.2f}"
        return f"| {name} | {label} | {told} |"

    for steps in ESTIMATES:
        yield row(steps, *judged(preset.with_steps(steps), problem, prior, truth))
    tried = {}
    for first, last, lam in SETTINGS:
        solver = dataclasses.replace(preset, lam=lam, schedule=VE(FEW, first, last))
        tried[first, last, lam] = judged(solver, problem, prior, truth)
    (first, last, lam), found = max(tried.items(), key=lambda one: float(one[1][0].mean()))
    yield row(f"{FEW}, {first:g} to {last:g}, lam {lam:g}", *found)


def main() -> int:
    """Print the table, or write the page."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--images", type=int, default=12)
    p.add_argument("--side", type=int, default=96)
    p.add_argument("--out", type=Path)
    args = p.parse_args()
    torch.set_num_threads(1)
    photos = restoration.photographs(args.images)
    off = (photos.shape[-1] - args.side) // 2
    truth = photos[..., off : off + args.side, off : off + args.side].contiguous()
    prior, lines = load_prior("photo"), list[str]()

    few = list[str]()

    def show(found: Iterator[str], to: list[str] = lines) -> None:
        for line in found:
            to.append(line)
            print(line, flush=True)

    for name, (task, A, sigma) in measurements(args.side).items():
        rng = Rng.of(list(range(len(truth))))
        y = GaussianNoise(sigma).sample(A(truth), rng)
        problem = Problem(y, A, GaussianNoise(sigma), tuple(truth.shape[1:]))
        show(rows(name, task, problem, prior, truth))
        if task != "denoise":
            show(estimates(name, task, problem, prior, truth), few)
    for name, (task, spec, A, _, sigma, _) in overhead.scanned().items():
        if spec == "photo":
            continue
        scan = load_prior(spec)
        image = overhead.truth_for(spec, scan)
        y = GaussianNoise(sigma).sample(A(image), Rng.of([3]))
        problem = Problem(y, A, GaussianNoise(sigma), tuple(image.shape[1:]))
        show(rows(name, task, problem, scan, image))
    if args.out:
        told = PAGE.format(images=args.images, side=args.side, last=LAST)
        args.out.write_text("\n".join([told, *HEAD, *lines, "", FEW_PAGE, *FEW_HEAD, *few, ""]))
    return 0


HEAD = (
    "| measurement | solver | steps | PSNR before | after | gain | misfit before | after |",
    "|---|---|---|---|---|---|---|---|",
)
PAGE = """# Few steps

Made by `python benchmarks/few_steps.py --out docs/few-steps.md`: {images} photographs of {side} x
{side} pixels, PSNR of one sample in dB. MRI and CT are one image each, drawn from their priors.

`--steps N` with fewer steps than the preset of a solver moves the end of its schedule: to
{last} / N on the scale of the images (-1 to 1), or to a fifth of its first level, if the preset
ends below. Levels near 0 change little, and few steps are better spent above. "before" has the last
level of the preset. A preset itself, estimates (`hqs`, whose last step follows the noise of y),
schedules of a training table (VP), and whatever is told (`--solver.schedule.sigma_min`) stay as
they are. The number {last} was chosen, among 0.2, 0.3 and 0.4, on four of these photographs, and
the fifth on them too, so that gains are a little better than on others.
"""
FEW_HEAD = ("| measurement | steps | PSNR | lost | misfit |", "|---|---|---|---|---|")
FEW_PAGE = f"""## Estimates

`hqs` of the same photographs, with the preset of the task in other numbers of steps, an evaluation
of the network each; lost: against {MANY} steps. In the last row of each, the best of
{len(SETTINGS)} settings of {FEW} steps, chosen on these photographs.
"""


if __name__ == "__main__":
    sys.exit(main())
