"""The task `enlarge-jpeg` beside what ignores the JPEG: docs/enlarge-jpeg.md.

    python benchmarks/enlarge.py [--samples 8]

Four photographs of the benchmark, 128 x 128, made smaller by 2 (antialiased) and compressed at
quality 30 with colours at 4:2:0. PSNR in dB; of samples their mean.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import restoration
from invdiff.files.pictures import read_photo, save_picture
from invdiff.priors.load import load_prior
from invdiff.problem.metrics import psnr
from invdiff.sampling.checks import misfit
from invdiff.sampling.pose import pose
from invdiff.sampling.run import estimate, solve
from invdiff.tasks import EnlargeJPEG, NoiseLevel, SuperResolution, Task
from invdiff.tasks.auto import choose, estimator
from invdiff.tasks.enlarge_jpeg import MakeSmallJPEG

PAGE = Path(__file__).parents[1] / "docs/enlarge-jpeg.md"
SCALE, QUALITY = 2, 30
ROUNDING = "0.0011"
"""Noise of 8 bits alone, on [0, 1]: what ignores the JPEG supposes it."""


def answers(task: Task, file: Path, samples: int) -> tuple[Tensor, Tensor, float]:
    """(estimate, samples, residual of the samples)."""
    prior = load_prior("photo")
    asked = task.read(file, prior).problem
    problem = pose(asked, prior).problem
    best, (sampler, _) = estimator(task, problem), choose(task, problem)
    assert best is not None
    one = estimate(asked, prior, best[0]).estimate
    drawn = solve(asked, prior, sampler, samples, seed=0).samples[0]
    rows = asked.rows(torch.zeros(samples, dtype=torch.long))
    assert one is not None
    return one[0], drawn, float(misfit(rows, drawn).square().mean().sqrt())


def measured(truth: Tensor, samples: int) -> list[float]:
    """The figures of one photograph, in the order of COLUMNS."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_picture(folder / "clean.png", (truth + 1) / 2)
        made = MakeSmallJPEG(scale=SCALE, quality=QUALITY).make(folder / "clean.png", folder, 0)
        made.write(folder)
        file = folder / made.measurement
        decoded = 2 * read_photo(file).pixels - 1
        plain = F.interpolate(decoded[None], scale_factor=SCALE, mode="bicubic")[0].clamp(-1, 1)
        ignoring = SuperResolution(scale=SCALE, noise=NoiseLevel(ROUNDING))
        one, drawn, _ = answers(ignoring, file, samples)
        best, ours, residual = answers(EnlargeJPEG(scale=SCALE), file, samples)
    centre, wide = ours.mean(0), 1.645 * (1 + 1 / samples) ** 0.5 * ours.std(0)
    covered = float(((truth - centre).abs() <= wide).float().mean())
    found = [plain, one, drawn.mean(0), best, centre, ours[0]]
    return [*(float(psnr(x[None], truth[None], (-1.0, 1.0))) for x in found), covered, residual]


COLUMNS = [
    "bicubic of the decoded file",
    "super-resolution that ignores the JPEG: estimate",
    "mean",
    "enlarge-jpeg: estimate",
    "mean",
    "one sample",
    "90 % intervals held",
    "residual",
]


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=8)
    args = parser.parse_args()
    truths = restoration.photographs()[::3, :, 64:192, 64:192]
    rows = []
    for truth in truths:
        rows.append(measured(truth, args.samples))
        print(" ".join(f"{v:.2f}" for v in rows[-1]), flush=True)
    middle = torch.tensor(rows).mean(0).tolist()
    lines = [
        "# A small JPEG, enlarged",
        "",
        f"Four photographs of the benchmark, 128 x 128, made smaller by {SCALE} (antialiased) and",
        f"compressed at quality {QUALITY} with colours at 4:2:0: `invdiff restore enlarge-jpeg`",
        f"with --scale {SCALE}, beside what takes the decoded file for a clean one. PSNR in dB;",
        f"means are of {args.samples} samples. Made by `python benchmarks/enlarge.py`.",
        "",
        "| photograph | " + " | ".join(COLUMNS) + " |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    for name, row in [*((str(i), r) for i, r in enumerate(rows, 1)), ("mean", middle)]:
        lines.append(f"| {name} | " + " | ".join(f"{v:.2f}" for v in row) + " |")
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
