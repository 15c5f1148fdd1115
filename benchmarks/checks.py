"""Are wrong answers warned of, and right ones not? The thresholds of `invdiff.sampling.checks`.

    python benchmarks/checks.py [--side 64] [--samples 2]

Ordinary runs: twelve photographs that the prior was not trained on, by deblurring (a Gaussian and a
motion of 15 pixels), enlarging by 2, inpainting, and denoising, as files of 8 bits with what a
camera does to them, and the default noise. Misuse: a wrong kernel, and a noise that is told ten
times too small. Each line tells the
PSNR of the file (enlarged where it is small) and of the estimate and a sample, the misfit, the
excess over the range and the growth of both, what growth is usual, the ringing of the estimate, and
whether it was warned of. The exit code is 1 where more than two ordinary runs
are warned of, where an estimate is 0.3 dB worse than its file, or where more than a quarter of the
misuses that spoil it pass unseen: without a truth, a kernel that is a little too wide makes a
smooth picture as rough as another picture is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter

from catastrophes import middle, pixels, psnr
from invdiff import fields
from invdiff.core import WARNING
from invdiff.operators import motion_kernel
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.sampling.checks import check
from invdiff.sampling.growth import ringing, usual_growth
from invdiff.sampling.pose import pose
from invdiff.sampling.run import solve
from invdiff.tasks import TASKS
from invdiff.tasks.auto import choose, estimator

ROOT = Path(__file__).parents[1]
MOTION = "motion:15,30"
WRONG = (
    ("gaussian:1.5", "gaussian:2"),
    ("gaussian:1.5", "gaussian:4"),
    ("gaussian:1.5", "motion:11,45"),
    (MOTION, "motion:15,45"),
    (MOTION, "motion:21,30"),
)
"""The kernel that blurred, and the one that is told."""
SPOILT = 0.3
"""dB below its file from which an answer is spoilt."""


@dataclass(frozen=True)
class Run:
    """A file to restore. misuse: what is told wrongly; "" for an ordinary run."""

    name: str
    task: str
    options: dict[str, object]
    noise: float | None
    picture: np.ndarray
    truth: np.ndarray
    ending: str = ".png"
    misuse: str = ""


def noisy(picture: np.ndarray, level: float, seed: int) -> np.ndarray:
    return picture + level * np.random.default_rng(seed).standard_normal(picture.shape)


def smaller(picture: np.ndarray, factor: int) -> np.ndarray:
    h, w = (n // factor for n in picture.shape[:2])
    image = Image.fromarray((picture * 255).round().astype(np.uint8))
    return np.asarray(image.resize((w, h), Image.Resampling.BICUBIC)) / 255


def runs(side: int, folder: Path) -> Iterator[Run]:
    """Ordinary runs, 5 a photograph, and misuse of the first four photographs."""
    holes = np.zeros((side, side), np.uint8)
    holes[:: side // 8] = holes[:, :: side // 8] = 255
    Image.fromarray(holes).save(folder / "mask.png")
    files = sorted((ROOT / "benchmarks/data").glob("*.webp"))
    for k, file in enumerate(files):
        whole = pixels(file)
        truth = middle(whole, side)
        blurred = middle(gaussian_filter(whole, (1.5, 1.5, 0)), side)
        kernel: dict[str, object] = {"kernel": "gaussian:1.5"}
        motion: dict[str, object] = {"kernel": MOTION}
        moved = middle(convolve(whole, motion_kernel(15, 30).numpy()[..., None]), side)
        ending, level = (".jpg", 0.0) if k % 3 == 0 else (".png", 0.01 * (k % 3 - 1))
        small = smaller(truth, 2)
        mask: dict[str, object] = {"mask": str(folder / "mask.png")}
        yield Run(file.stem, "deblur", kernel, None, noisy(blurred, level, k), truth, ending)
        yield Run(file.stem, "deblur", motion, None, noisy(moved, level, k), truth, ending)
        yield Run(file.stem, "super-resolution", {"scale": 2}, None, small, truth, ending)
        yield Run(file.stem, "inpaint", mask, None, truth * (holes[..., None] == 0), truth)
        yield Run(file.stem, "denoise", {}, 0.05, noisy(truth, 0.05, k), truth)
        if k >= 4:
            continue
        for blur, wrong in WRONG:
            told: dict[str, object] = {"kernel": wrong}
            file_ = moved if blur == MOTION else blurred
            yield Run(file.stem, "deblur", told, None, file_, truth, ".png", f"kernel {wrong}")
        yield Run(file.stem, "deblur", kernel, 0.002, noisy(blurred, 0.02, k), truth, ".png",
                  "noise / 10")  # fmt: skip
        yield Run(file.stem, "denoise", {}, 0.01, noisy(truth, 0.1, k), truth, ".png", "noise / 10")


def answer(run: Run, folder: Path, prior: Prior, samples: int) -> tuple[str, bool, bool]:
    """(a line, whether it was warned of, whether the estimate is spoilt)."""
    path = folder / f"file{run.ending}"
    image = Image.fromarray((run.picture * 255).round().clip(0, 255).astype(np.uint8))
    image.save(path, **({"quality": 85} if run.ending == ".jpg" else {}))
    task = fields.build(TASKS[run.task], {**run.options, "noise": run.noise}, run.task)
    m = task.read(path, prior)
    asked = pose(m.problem, prior).problem
    best = estimator(task, asked)
    assert best is not None
    result = solve(m.problem, prior, choose(task, asked)[0], samples, seed=1, estimator=best[0])
    assert result.estimate is not None
    said = [n for n in m.notes if n.startswith(WARNING)]
    numbers = []
    for x in (result.estimate[:, None], result.samples):
        found = check(m.problem, x, prior.image_range, x is not result.samples)
        said += list(found.warnings)
        worst, grown = max(found.misfit or (0.0,)), found.growth or 0.0
        numbers.append(f"{worst:.2f}/{found.excess:.3f}/{grown:.1f}")
    same = found.growth is not None
    rung = ringing(m.problem, result.estimate) if same else None
    usual = usual_growth(m.problem) if same else None
    size = (run.truth.shape[1], run.truth.shape[0])
    with Image.open(path) as opened:
        file = np.asarray(opened.convert("RGB").resize(size, Image.Resampling.BICUBIC)) / 255
    shown = [m.view.values(x)[0].permute(1, 2, 0).double().clamp(0, 1).numpy()
             for x in (result.estimate, result.samples[0])]  # fmt: skip
    before, after, one = (psnr(a, run.truth) for a in (file, *shown))
    line = f"{run.misuse or 'ordinary':18} {run.task:16} {run.name[:22]:22} {before:6.2f} -> "
    line += f"{after:6.2f}, sample {one:6.2f} dB; misfit/excess/growth {', '.join(numbers)}"
    line += "" if usual is None else f", usual {usual:.1f}"
    line += "" if rung is None else f", ringing {rung:.2f}"
    return line + ("  WARNED" if said else ""), bool(said), after < before - SPOILT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--samples", type=int, default=2)
    args = parser.parse_args()
    prior = load_prior("photo")
    ordinary = alarms = spoilt = harmful = unseen = 0
    with tempfile.TemporaryDirectory() as name:
        for run in runs(args.side, Path(name)):
            line, warned, bad = answer(run, Path(name), prior, args.samples)
            print(line, flush=True)
            ordinary += not run.misuse
            alarms += warned and not run.misuse
            spoilt += bad and not run.misuse
            harmful += bool(run.misuse) and bad
            unseen += bool(run.misuse) and bad and not warned
    print(f"{ordinary} ordinary runs: {alarms} warned of, {spoilt} spoilt; ", end="")
    print(f"{harmful} misuses that spoil, {unseen} unseen")
    return int(alarms > 2 or spoilt > 0 or unseen > harmful / 4)


if __name__ == "__main__":
    sys.exit(main())
