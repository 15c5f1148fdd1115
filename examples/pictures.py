"""What the examples of this folder share: the picture, the prior, a progress bar, the figure."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

import invdiff
from invdiff.files.figures import overview
from invdiff.files.pictures import from_range, read_photo, to_range
from invdiff.priors.base import Prior
from invdiff.solvers import Solver

SIZE = (128, 128)
SHAPE = (3, *SIZE)


def options(doc: str, steps: str) -> argparse.ArgumentParser:
    """--steps, --seed, --prior and --out, with their help."""
    p = argparse.ArgumentParser(description=doc.split("\n")[0])
    p.add_argument("--steps", type=int, help=f"steps of every sampler; without it, {steps}")
    p.add_argument("--seed", type=int, default=0, help="of all samples (default 0)")
    p.add_argument("--prior", default="photo", help="as for `invdiff restore` (default photo)")
    p.add_argument("--out", type=Path, help="the figure, a PNG file (default NAME.png)")
    return p


def load(name: str) -> Prior:
    """A prior, computed in bfloat16, which is several times faster on most CPUs."""
    return invdiff.load_prior(name, precision="bfloat16")


def picture(prior: Prior) -> Tensor:
    """examples/alpacas.webp at 128 x 128 pixels, in the prior's range: (1, 3, 128, 128)."""
    pixels = read_photo(Path(__file__).with_name("alpacas.webp")).pixels[None]
    return to_range(invdiff.Bicubic(3, (384, 384))(pixels).clamp(0, 1), prior.value_range)


def measured(A: invdiff.Linear, x: Tensor, sigma: float = 0.0) -> invdiff.Problem:
    """y = A x + noise of level sigma, where black is 0 and white is 1."""
    noise = invdiff.GaussianNoise.on_unit_range(sigma)
    return invdiff.Problem(noise.sample(A(x), invdiff.Rng.of(1)), A, noise, SHAPE)


def sample(
    name: str, problem: invdiff.Problem, prior: Prior, solver: Solver, args: argparse.Namespace
) -> Tensor:
    """One sample, with a progress bar: (1, 3, 128, 128)."""
    if args.steps:
        solver = solver.with_steps(args.steps)
    with tqdm(total=solver.num_steps, desc=name, unit="step") as bar:
        result = invdiff.solve(
            problem, prior, solver, seed=args.seed, watch=lambda s: bar.update(s.steps_done - bar.n)
        )
    return result.samples[:, 0]


class Sheet:
    """A figure of titled pictures, with the PSNR of those that estimate the truth."""

    def __init__(self, prior: Prior, truth: Tensor) -> None:
        self.range, self.truth = prior.value_range, truth
        self.panels: list[tuple[str, Tensor]] = []
        self.show("truth", truth)

    def show(self, title: str, x: Tensor, score: bool = False) -> None:
        """Add a picture (1, C, H, W) in the prior's range."""
        if score:
            db = float(invdiff.psnr(x, self.truth, self.range))
            title = f"{title}, {db:.1f} dB"
            print(title)
        self.panels.append((title, from_range(x[0], self.range).clamp(0, 1)))

    def save(self, path: Path, title: str) -> None:
        """Write the figure."""
        overview(self.panels, None, path, title)
        print(f"wrote {path}")
