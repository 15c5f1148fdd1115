"""Do samples agree with what was measured? Every solver with its preset, at linear photo tasks.

    python benchmarks/consistency.py [--solvers NAME ...]

A crop of a photograph of examples/, measured with noise of rounding alone, of 5/255 and of 25/255,
clipped and rounded as files are; two samples each. Residual: rms of (y - A x) / sigma; 1 for exact
samples. Above it a sample misses the measurement, below it follows its noise. Rows are kept in
src/invdiff/consistency.json, which a run reads: what misses y says so before it starts. Of it
docs/consistency.md is made.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.files.pictures import read_photo, to_range
from invdiff.measured import HIGH, LEVELS, LOW, ROUNDING
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Identity, Operator
from invdiff.operators.bayer import Bayer
from invdiff.operators.blur import blur
from invdiff.operators.blur_kernels import gaussian_kernel
from invdiff.operators.color import REC601, Grayscale
from invdiff.operators.downsample import Bicubic
from invdiff.operators.inpaint import Inpaint
from invdiff.priors.load import load_prior
from invdiff.problem import Problem
from invdiff.sampling.checks import misfit
from invdiff.sampling.needs import missing
from invdiff.sampling.run import solve
from invdiff.sampling.solver import Solver
from invdiff.solvers import registry
from invdiff.tasks import TASKS
from invdiff.tasks.auto import configured

ROOT = Path(__file__).parents[1]
RECORD, PAGE = ROOT / "src/invdiff/consistency.json", ROOT / "docs/consistency.md"
SIZE = (48, 48)
OPERATORS: dict[str, Operator] = {
    "denoise": Identity(),
    "inpaint": Inpaint.random(SIZE, 0.5, seed=0),
    "super-resolution": Bicubic(4, SIZE),
    "deblur": blur(gaussian_kernel(1.5), SIZE, "reflect"),
    "demosaic": Bayer("RGGB"),
    "colorize": Grayscale(REC601),
}
MOST = 700
"""Steps beyond which a solver is not run."""


def measured(A: Operator, truth: Tensor, sigma: float) -> Problem:
    level = (max(0.0, sigma**2 - ROUNDING**2)) ** 0.5
    y = GaussianNoise(level).sample(A(truth), Rng.of(5)) if level else A(truth)
    y = ((y.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    noise = GaussianNoise(sigma)
    return Problem(A.restrict(y), A, noise, (3, *SIZE))


def residual(solver: Solver, problem: Problem) -> float | None:
    """Of two samples; None where the run diverged."""
    try:
        x = solve(problem, load_prior("photo"), solver, 2, seed=1).samples[0]
    except InvdiffError:
        return None
    return round(float(misfit(problem, x).square().mean().sqrt()), 3)


def row(name: str, truth: Tensor) -> dict[str, list[float | None]]:
    """Task to residuals at the three levels, of the tasks that the solver can do."""
    found: dict[str, list[float | None]] = {}
    for task, A in OPERATORS.items():
        problems = [measured(A, truth, level) for level in LEVELS.values()]
        solvers = [configured(TASKS[task], name, p) for p in problems]
        if missing(solvers[0], problems[0], load_prior("photo")) or solvers[0].num_steps > MOST:
            continue
        found[task] = [residual(s, p) for s, p in zip(solvers, problems, strict=True)]
        print(f"{name:20} {task:18} {found[task]}", flush=True)
    return found


def page(record: dict[str, dict[str, list[float | None]]]) -> str:
    """The record as a page."""
    lines = [
        "# Consistency: do samples agree with the measurement?",
        "",
        "Residual of samples, rms of (y - A x) / sigma, with noise of 8-bit rounding alone, of",
        "5/255 and of 25/255. It is 1 for exact samples; **above 1.3** they miss what was",
        "measured, _below 0.7_ they follow its noise. Presets are those of `--solver NAME`;",
        "they were made for the mean of samples, all but those of `spectral-ancestral`.",
        "Estimates, which are no samples, are meant to lie below.",
        "",
        "| solver | " + " | ".join(OPERATORS) + " |",
        "|---|" + "---|" * len(OPERATORS),
    ]
    for name, tasks in sorted(record.items()):
        cells = [" / ".join(_word(v) for v in tasks[t]) if t in tasks else "-" for t in OPERATORS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"One crop of {SIZE[0]} x {SIZE[1]} pixels, two samples: figures move by some hundredths.",
        f"Solvers of more than {MOST} steps are not run, nor those that can do none of these",
        "tasks.",
        "Made by `python benchmarks/consistency.py`.",
    ]
    return "\n".join(lines) + "\n"


def _word(value: float | None) -> str:
    if value is None:
        return "diverged"
    text = f"{value:.2f}" if value < 100 else f"{value:.0f}"
    return f"**{text}**" if value > HIGH else f"_{text}_" if value < LOW else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--solvers", nargs="+", choices=list(registry()))
    args = parser.parse_args()
    photo = read_photo(ROOT / "examples/alpacas-small.png").pixels
    truth = to_range(photo[:, 24 : 24 + SIZE[0], 24 : 24 + SIZE[1]], (-1.0, 1.0))[None]
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for name in args.solvers or registry():
        found = row(name, truth)
        if found:
            record[name] = found
            RECORD.write_text(json.dumps(record, indent=1) + "\n")
    PAGE.write_text(page(record))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
