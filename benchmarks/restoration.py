"""Restoration of held-out photographs against the classical answer to the same measurement.

    python benchmarks/restoration.py [--tasks NAME ...] [--samples 8] [--out docs/restoration.md]

Every figure is a mean over 12 photographs of 256 x 256 pixels that the prior was not trained on.
Noise levels are on the scale where black is 0 and white is 1. The classical answer has its free
constant chosen with the truth in hand (the best mean PSNR over a grid); ours has not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from invdiff.core import Case, Problem
from invdiff.metrics import psnr, ssim
from invdiff.noise import Gaussian
from invdiff.operators.blur import gaussian_kernel
from invdiff.operators.inpaint import Inpaint
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.rng import Rng
from invdiff.run import row_seed, solve
from invdiff.zoo import auto, task, wiener

DATA = Path(__file__).parent / "data"


def photographs(count: int | None = None) -> Tensor:
    """The benchmark's photographs, (12, 3, 256, 256) on [-1, 1]."""
    files = sorted(DATA.glob("*.webp"))[:count]
    arrays = [np.array(Image.open(f).convert("RGB")) for f in files]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1


@dataclass(frozen=True)
class Row:
    """A measurement and its classical answer. sigma is on [0, 1]; margin in dB is the bar."""

    title: str
    task: str
    options: dict
    sigma: float
    classical: str
    baseline: Callable[[Case], Tensor]
    margin: float


def best(case: Case, answers: list[Tensor]) -> Tensor:
    """The answer of the highest mean PSNR: the classical method with its best constant."""
    return max(answers, key=lambda a: float(psnr(a.clamp(-1, 1), case.truth, (-1, 1)).mean()))


def bicubic(case: Case) -> Tensor:
    """Bicubic enlargement of the small picture."""
    size = case.truth.shape[-2:]
    return F.interpolate(case.problem.y, size=size, mode="bicubic", align_corners=False)


def best_wiener(case: Case) -> Tensor:
    """Wiener deconvolution in the blur's own basis, best constant."""
    return best(case, [wiener(case.problem, c) for c in np.geomspace(1e-4, 1e-1, 25)])


def biharmonic(case: Case) -> Tensor:
    """Biharmonic inpainting."""
    from skimage.restoration import inpaint_biharmonic

    known = case.problem.A.mask[0, 0].bool().numpy()
    done = [
        inpaint_biharmonic(y.permute(1, 2, 0).numpy(), ~known, channel_axis=-1)
        for y in case.problem.y
    ]
    return torch.from_numpy(np.stack(done)).permute(0, 3, 1, 2).float()


def best_nlm(case: Case) -> Tensor:
    """Non-local means, best filter strength."""
    from skimage.restoration import denoise_nl_means

    sigma = case.problem.sigma_y
    answers = []
    for h in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        done = [
            denoise_nl_means(
                y.permute(1, 2, 0).numpy(),
                h=h * sigma,
                sigma=sigma,
                patch_size=5,
                patch_distance=6,
                fast_mode=True,
                channel_axis=-1,
            )
            for y in case.problem.y
        ]
        answers.append(torch.from_numpy(np.stack(done)).permute(0, 3, 1, 2).float())
    return best(case, answers)


def rows() -> list[Row]:
    """The table's rows."""
    mask = Inpaint.random((256, 256), 0.5, seed=0).mask
    kernel = gaussian_kernel(2.0)
    return [
        Row("super-resolution x4, noise 0.01", "super-resolution", {"scale": 4}, 0.01,
            "bicubic", bicubic, 0.5),
        Row("deblurring, Gaussian 2.0, noise 0.02", "deblur", {"kernel": kernel}, 0.02,
            "Wiener", best_wiener, 1.0),
        Row("inpainting, 50 % of pixels at random", "inpaint", {"mask": mask}, 0.0,
            "biharmonic", biharmonic, 3.0),
        Row("denoising, noise 0.1", "denoise", {"sigma": 0.1}, 0.1,
            "non-local means", best_nlm, 1.5),
    ]  # fmt: skip


def case(row: Row, truth: Tensor) -> Case:
    """The measurement of every photograph, with noise that is always the same."""
    A = task(row.task).operator(tuple(truth.shape[-2:]), row.options)
    noise = Gaussian.on_unit_range(row.sigma)
    rng = Rng.of([row_seed(2026, i, 0) for i in range(len(truth))])
    return Case(Problem(noise.sample(A(truth), rng), A, noise, tuple(truth.shape[1:])), truth)


def score(x: Tensor, truth: Tensor) -> tuple[float, float]:
    """Mean PSNR in dB and SSIM of images clamped to the range."""
    x = x.cpu().clamp(-1, 1)
    return (
        float(psnr(x, truth.cpu(), (-1, 1)).mean()),
        float(ssim(x, truth.cpu(), (-1, 1)).mean()),
    )


def measure(row: Row, prior: Prior, args: argparse.Namespace) -> dict:
    """One row of the table."""
    truth = photographs(args.images)
    c = case(row, truth)
    classical = score(row.baseline(c), truth)
    solver, _ = auto(row.task, c.problem)
    began = time.perf_counter()
    result = solve(c.problem.to(args.device), prior, solver, args.samples, seed=0, batch=args.batch)
    mean = score(result.mean, truth)
    singles = [score(result.samples[:, k], truth) for k in range(args.samples)]
    single = tuple(float(np.mean([s[i] for s in singles])) for i in (0, 1))
    return {
        "title": row.title, "solver": solver.name, "nfe": result.nfe, "vjps": result.vjps,
        "classical": row.classical, "classical_score": classical, "mean": mean, "single": single,
        "margin": mean[0] - classical[0], "bar": row.margin,
        "seconds": time.perf_counter() - began,
    }  # fmt: skip


def markdown(found: list[dict], args: argparse.Namespace) -> str:
    """The table as the docs show it."""
    lines = [
        "| measurement | solver, NFE | classical answer | PSNR / SSIM | "
        f"ours, mean of {args.samples} | one sample | gain |",
        "|---|---|---|---|---|---|---|",
    ]
    for f in found:
        pairs = [f"{f[k][0]:.2f} / {f[k][1]:.3f}" for k in ("classical_score", "mean", "single")]
        cost = f"{f['nfe']}" + (f" + {f['vjps']} VJP" if f["vjps"] else "")
        lines.append(
            f"| {f['title']} | {f['solver']}, {cost} | {f['classical']} | {pairs[0]} | {pairs[1]} "
            f"| {pairs[2]} | {f['margin']:+.2f} dB |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and print the table; exit code 1 when a bar is missed."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--tasks", nargs="*", default=None)
    p.add_argument("--samples", type=int, default=8)
    p.add_argument("--images", type=int, default=12)
    p.add_argument("--batch", type=int, default=12)
    p.add_argument("--prior", default="photo")
    p.add_argument("--precision", default="float32")
    p.add_argument("--device", default="cpu")
    p.add_argument("--out", type=Path, default=None, help="write the table to this file")
    args = p.parse_args()
    prior = load_prior(args.prior, args.device)
    prior.precision = args.precision
    found = []
    for row in rows():
        if args.tasks and row.task not in args.tasks:
            continue
        found.append(measure(row, prior, args))
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    text = markdown(found, args)
    print(text)
    if args.out:
        args.out.write_text(text)
    return int(any(f["margin"] < f["bar"] for f in found))


if __name__ == "__main__":
    sys.exit(main())
