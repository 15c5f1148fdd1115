"""What the scripts of this folder share: a crop of a photograph, options, progress, a sheet."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from tqdm import tqdm

from invdiff import Problem, Rng, Snapshot, load_prior, psnr, solve
from invdiff.files.figures import overview
from invdiff.files.pictures import from_range, read_photo
from invdiff.noise import Noise
from invdiff.operators import Operator
from invdiff.priors.base import Prior
from invdiff.solvers import Solver

HERE = Path(__file__).parent
RANGE = (-1.0, 1.0)


def parser(description: str, steps: int, size: int = 128) -> argparse.ArgumentParser:
    """The options that all scripts have."""
    p = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.add_argument("--image", type=Path, default=HERE / "alpacas.webp", help="a photograph")
    p.add_argument("--size", type=int, default=size, help="side of the square that is restored")
    p.add_argument("--at", type=int, nargs=2, default=(20, 172), help="its top and left pixel")
    p.add_argument("--steps", type=int, default=steps, help="of the solver")
    p.add_argument("--seed", type=int, default=0, help="of the measurement and of the samples")
    p.add_argument("--prior", default="photo", help="what invdiff.load_prior understands")
    p.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float32"])
    p.add_argument("--out", type=Path, default=None, help="picture to write; NAME.png by default")
    return p


def crop(args: argparse.Namespace, shrink: int = 1) -> Tensor:
    """A square of the picture, (1, 3, size, size) on [-1, 1], of means over shrink^2 pixels."""
    side, (top, left) = shrink * args.size, args.at
    pixels = read_photo(args.image).pixels[None, :, top : top + side, left : left + side]
    if pixels.shape[1:] != (3, side, side):
        raise SystemExit(f"{args.image} has no {side} x {side} pixels in colour at {top}, {left}.")
    return 2 * avg_pool2d(pixels, shrink) - 1


def measure(truth: Tensor, A: Operator, noise: Noise, seed: int) -> Problem:
    """y = A(truth) + noise."""
    y = noise.sample(A(truth), Rng.of(seed))
    return Problem(y, A, noise, tuple(truth.shape[1:]))


def prior_of(args: argparse.Namespace) -> Prior:
    """The prior that was asked for."""
    torch.manual_seed(0)
    return load_prior(args.prior, precision=args.precision)


def samples_of(
    problem: Problem, prior: Prior, solver: Solver, seed: int, samples: int = 1
) -> Tensor:
    """(samples, 3, H, W) on [-1, 1] or near it, with a progress bar."""
    with tqdm(total=solver.num_steps, desc=solver.name, unit="step") as bar:

        def watch(snapshot: Snapshot) -> None:
            bar.update(snapshot.steps_done - bar.n)

        return solve(problem, prior, solver, samples, seed, watch=watch).samples[0]


def score(x: Tensor, truth: Tensor) -> float:
    """PSNR in dB of one image, clipped to the range."""
    return float(psnr(x.reshape(truth.shape).clamp(*RANGE), truth, RANGE))


def shown(x: Tensor) -> Tensor:
    """(1, C, H, W) or (C, H, W) on [-1, 1] as pixels (C, H, W) on [0, 1]."""
    return from_range(x.reshape(x.shape[-3:]), RANGE).clamp(0, 1)


def sheet(
    args: argparse.Namespace, name: str, title: str, panels: list[tuple[str, Tensor]]
) -> None:
    """Write the panels, (title, pixels on [0, 1]), on one sheet, and say where."""
    out = args.out or Path(f"{name}.png")
    overview(panels, None, out, title)
    print(f"wrote {out}")
