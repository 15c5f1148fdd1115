"""Restoration of held-out images against the classical answer to the same measurement.

    python benchmarks/restoration.py [--tasks NAME ...] [--samples 8] [--out docs/restoration.md]
    python benchmarks/restoration.py --prior NAME --data PATH      (writes docs/restoration-NAME.md)

Every figure is a mean over 12 photographs of 256 x 256 pixels that the prior was not trained on; or
over the first 12 images that the rule of the prior's recipe held out, where PATH is what it was
trained on. NAME is that of a recipe, or a file of weights that `invdiff train` wrote.
Noise levels are on the scale where black is 0 and white is 1. The classical answer has its free
constant chosen with the truth in hand (the best mean PSNR over a grid); ours has not.
Complex images (two channels) are scored by their magnitude, on [0, 1]; their noise level is that of
the real part and of the imaginary part on this scale, and masks and blurs act on both parts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from invdiff import fields
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise
from invdiff.operators.blur_kernels import gaussian_kernel
from invdiff.operators.inpaint import Inpaint
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.priors.units import HU_WINDOW
from invdiff.problem import Case, Problem
from invdiff.problem.metrics import psnr, ssim
from invdiff.sampling.run import row_seed, solve
from invdiff.tasks import TASKS, PhotoTask
from invdiff.tasks.auto import choose
from invdiff.train.data import centre_crops
from invdiff.train.files import read
from invdiff.train.recipes import recipe

DATA = Path(__file__).parent / "data"
DOCS = Path(__file__).parents[1] / "docs"


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


def is_complex(x: Tensor) -> bool:
    """Whether images (n, C, H, W) are a real and an imaginary part."""
    return x.shape[1] == 2


def shown(x: Tensor) -> Tensor:
    """What is scored, on [-1, 1] or, for the magnitudes of complex images, on [0, 1]."""
    if is_complex(x):
        return x.square().sum(1, keepdim=True).sqrt().clamp(0, 1)
    return x.clamp(-1, 1)


def best(case: Case, answers: list[Tensor]) -> Tensor:
    """The answer of the highest mean PSNR: the classical method with its best constant."""
    return max(answers, key=lambda a: quality(a, case.truth))


def bicubic(case: Case) -> Tensor:
    """Bicubic enlargement of the small picture."""
    size = case.truth.shape[-2:]
    return F.interpolate(case.problem.y, size=size, mode="bicubic", align_corners=False)


def task(name: str, options: Mapping[str, object]) -> PhotoTask:
    """A task of photographs with its options."""
    found = fields.build(TASKS[name], options, name)
    assert isinstance(found, PhotoTask)
    return found


def wiener(problem: Problem, constant: float) -> Tensor:
    """(A^T A + constant)^-1 A^T y: the Wiener filter for white images, whatever the operator."""
    return problem.linear.ridge(problem.y, constant)


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
    return best(case, nlm_answers(case))


def nlm_answers(case: Case) -> list[Tensor]:
    """Non-local means with filters of several strengths, in units of the noise."""
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
        images = np.stack(done).reshape(-1, *case.truth.shape[-2:], case.truth.shape[1])
        answers.append(torch.from_numpy(images).permute(0, 3, 1, 2).float())
    return answers


def rows() -> list[Row]:
    """The table's rows, for photographs."""
    return tasks((256, 256), 2.0, "bicubic", "super-resolution x4", (0.5, 1.0, 3.0, 1.5))


def class_rows(truth: Tensor) -> list[Row]:
    """The same for other images (n, C, H, W); the bar is the classical answer itself.

    Images of at most 64 pixels are blurred half as much; images without colour are made small by
    the mean of blocks.
    """
    sigma = 1.0 if max(truth.shape[-2:]) <= 64 else 2.0
    kind, title = "mean", "super-resolution x4 (block mean)"
    if truth.shape[1] == 3:
        kind, title = "bicubic", "super-resolution x4"
    return tasks((truth.shape[-2], truth.shape[-1]), sigma, kind, title, (0.0, 0.0, 0.0, 0.0))


def tasks(
    size: tuple[int, int], blur: float, kind: str, enlarged: str, bars: tuple[float, ...]
) -> list[Row]:
    """Rows for images of a size: of the blur in pixels, the reduction and its title, the bars."""
    mask = Inpaint.random(size, 0.5, seed=0).mask[0, 0] == 0  # what is missing
    kernel = gaussian_kernel(blur)
    small = {"scale": 4, "downsampling": kind}
    return [
        Row(f"{enlarged}, noise 0.01", "super-resolution", small, 0.01,
            "bicubic", bicubic, bars[0]),
        Row(f"deblurring, Gaussian {blur:.1f}, noise 0.02", "deblur",
            {"kernel": kernel, "boundary": "reflect"}, 0.02,
            "Wiener", best_wiener, bars[1]),
        Row("inpainting, 50 % of pixels at random", "inpaint", {"mask": mask}, 0.0,
            "biharmonic", biharmonic, bars[2]),
        Row("denoising, noise 0.1", "denoise", {"noise": 0.1}, 0.1,
            "non-local means", best_nlm, bars[3]),
    ]  # fmt: skip


def case(row: Row, truth: Tensor) -> Case:
    """The measurement of every photograph, with noise that is always the same."""
    A = task(row.task, row.options).operator(tuple(truth.shape[-2:]))
    noise = GaussianNoise.on_unit_range(row.sigma, (0, 1) if is_complex(truth) else (-1, 1))
    rng = Rng.of([row_seed(2026, i, 0) for i in range(len(truth))])
    return Case(Problem(noise.sample(A(truth), rng), A, noise, tuple(truth.shape[1:])), truth)


def quality(x: Tensor, truth: Tensor) -> float:
    """Mean PSNR in dB of what is shown of the images."""
    window = (0, 1) if is_complex(truth) else (-1, 1)
    return float(psnr(shown(x.cpu()), shown(truth.cpu()), window).mean())


def score(x: Tensor, truth: Tensor) -> tuple[float, float]:
    """Mean PSNR in dB and SSIM of what is shown of the images."""
    window = (0, 1) if is_complex(truth) else (-1, 1)
    similar = ssim(shown(x.cpu()), shown(truth.cpu()), window)
    return quality(x, truth), float(similar.mean())


def measure(row: Row, truth: Tensor, prior: Prior, args: argparse.Namespace) -> dict:
    """One row of the table."""
    c = case(row, truth)
    classical = score(row.baseline(c), truth)
    solver, _ = choose(TASKS[row.task], c.problem)
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


def held_out(name: str, data: Path, count: int, side: int = 0) -> Tensor:
    """The first images that the recipe called name held out, (at most count, C, H, W).

    side: of their middle that is cut out, that of the recipe's validation by default.
    """
    r = recipe(name)
    r = replace(r, validation=side or r.validation)
    if r.become == "moving clips":
        raise InvdiffError(f"{name} is a prior of clips; its images are not restored here.")
    truth = centre_crops(read(data, r)[1], r, count)
    if truth is None:
        raise InvdiffError(f"{data} holds no held-out image of {r.validation} pixels a side.")
    return truth


def introduced(table: str, truth: Tensor, name: str) -> str:
    """The page of a class of images: what was measured, and the table."""
    height, width = truth.shape[-2:]
    lines = [
        f"# Restoration with the prior `{name}`",
        "",
        f"Made by `python benchmarks/restoration.py --prior {name} --data PATH`: means over "
        f"{len(truth)} images of {width} x {height} pixels that the recipe's rule held out. Noise "
        "levels are on the scale where black is 0 and white is 1. The classical answer has its "
        "constant chosen with the truth in hand; ours has not.",
    ]
    if is_complex(truth):
        lines.append(
            "The images are complex. Their magnitudes are scored; noise is that of the real part "
            "and of the imaginary part."
        )
    if name == "ct":
        low, high = HU_WINDOW
        lines.append(f"Black is {low:g} and white {high:g} Hounsfield units.")
    return "\n".join([*lines, "", table])


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
    p.add_argument("--data", type=Path, default=None, help="what the prior was trained on")
    p.add_argument("--out", type=Path, default=None, help="write the table to this file")
    args = p.parse_args()
    try:
        return run(args)
    except InvdiffError as error:
        print(error, file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    """Measure as asked."""
    if args.prior != "photo" and args.data is None:
        raise InvdiffError(
            f"The prior {args.prior} is measured on images that its training held out; give what "
            "it was trained on with --data."
        )
    prior = load_prior(args.prior, args.device)
    prior.precision = args.precision
    if args.data is None:
        truth, table = photographs(args.images), rows()
    else:
        truth = held_out(prior.name, args.data, args.images)
        table = class_rows(truth)
        args.out = args.out or DOCS / f"restoration-{prior.name}.md"
    found = []
    for row in table:
        if args.tasks and row.task not in args.tasks:
            continue
        found.append(measure(row, truth, prior, args))
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    text = markdown(found, args)
    if args.data is not None:
        text = introduced(text, truth, prior.name)
    else:
        text = f"# Restoration with the prior `photo`\n\n{text}"
    print(text)
    if args.out:
        args.out.write_text(text)
    return int(any(f["margin"] < f["bar"] for f in found))


if __name__ == "__main__":
    sys.exit(main())
