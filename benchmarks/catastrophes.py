"""Deblurring ordinary files by the right kernel and the default noise: is the answer destroyed?

    python benchmarks/catastrophes.py [--samples N] [--side PIXELS]

Two photographs that the prior was not trained on are blurred by SciPy (Gaussian, 2 pixels), the
middle is cut out and saved as an ordinary file: PNG with noise of 0.02, JPEG of quality 85 and 95,
and a clean PNG. `restore` is told the kernel and nothing else. Each line tells the noise that was
supposed, and the PSNR of the file, of the estimate, and of the mean of the samples; the exit code
is 1 where one of these is worse than the file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.sampling.pose import pose
from invdiff.sampling.run import solve
from invdiff.tasks import Deblur, Kernel
from invdiff.tasks.auto import choose, estimator

ROOT = Path(__file__).parents[1]
PHOTOGRAPHS = {
    "A": ROOT / "examples" / "alpacas.webp",
    "B": ROOT / "benchmarks" / "data" / "cid22-3779187.webp",
}
FILES = (
    ("A", "noise.png"),
    ("B", "noise.png"),
    ("A", "q85.jpg"),
    ("B", "q85.jpg"),
    ("A", "q95.jpg"),
    ("A", "clean.png"),
)


def pixels(path: Path) -> np.ndarray:
    """(H, W, 3) on [0, 1]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")) / 255


def middle(picture: np.ndarray, side: int) -> np.ndarray:
    top, left = ((n - side) // 2 for n in picture.shape[:2])
    return picture[top : top + side, left : left + side]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(a - b).mean()))


def save(path: Path, picture: np.ndarray) -> None:
    """As 8 bits; the name tells the quality of a JPEG, and whether there is noise."""
    if path.name.startswith("noise"):
        picture = picture + 0.02 * np.random.default_rng(0).standard_normal(picture.shape)
    image = Image.fromarray((picture * 255).round().clip(0, 255).astype(np.uint8))
    image.save(path, **({"quality": int(path.stem[1:])} if path.suffix == ".jpg" else {}))


def restored(path: Path, prior: Prior, samples: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Estimate and mean of `restore deblur --kernel gaussian:2`, and the noise, in words."""
    task = Deblur(kernel=Kernel("gaussian:2"))
    m = task.read(path, prior)
    asked = pose(m.problem, prior).problem
    best = estimator(task, asked)
    assert best is not None
    solver = choose(task, asked)[0]
    result = solve(m.problem, prior, solver, samples, batch=1, estimator=best[0])
    assert result.estimate is not None
    answers = (m.view.values(x)[0] for x in (result.estimate, result.mean))
    one, mean = (a.permute(1, 2, 0).double().clamp(0, 1).numpy() for a in answers)
    return one, mean, m.noise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--side", type=int, default=128)
    args = parser.parse_args()
    torch.set_num_threads(1)
    prior, worse = load_prior("photo"), 0
    with tempfile.TemporaryDirectory() as folder:
        for name, file in FILES:
            whole, path = pixels(PHOTOGRAPHS[name]), Path(folder) / file
            save(path, middle(gaussian_filter(whole, (2, 2, 0)), args.side))
            truth = middle(whole, args.side)
            *answers, noise = restored(path, prior, args.samples)
            before, (one, mean) = psnr(pixels(path), truth), (psnr(a, truth) for a in answers)
            worse += min(one, mean) < before
            line = f"{name} {file:10} {before:6.2f} -> {one:6.2f}, mean {mean:6.2f} dB; {noise}"
            print(line, flush=True)
    return int(worse > 0)


if __name__ == "__main__":
    sys.exit(main())
