"""Find the factor on the prior's error spectrum with which samples are as unsure as they should be.

    python benchmarks/inflation.py ../shared/data/photos [--tasks x4 deblur] [--values 1.35 1.7]

The photographs are those that the prior `photo` was not trained on and that no page reports, cut
into --crops squares along the middle of the longer side. Each value is measured as `calibration.py`
does, in its measurements, with the preset of the task and the same noise; errors are standard ones
over photographs, whose squares count as one. `tasks/presets.py` tells which value was taken, and
why: a larger one makes intervals hold more of the truth, and single samples worse.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import restoration
from calibration import ROWS, Row, calibration, counted, problem
from invdiff.core import InvdiffError
from invdiff.priors.load import load_prior
from invdiff.problem.metrics import psnr
from invdiff.sampling.run import solve
from invdiff.solvers.spectral_ancestral import SpectralAncestral
from invdiff.tasks import TASKS
from invdiff.tasks.auto import choose
from invdiff.train.recipes import PHOTO

DRAWN = {"cid22-Performance-Graph.webp"}
"""Held-out files that are no photographs."""
WINDOW = (-1.0, 1.0)


def unreported(folder: Path) -> Iterator[Tensor]:
    """Held-out photographs that no page reports, (3, H, W) on [-1, 1]."""
    reported = {path.name for path in restoration.DATA.glob("*.webp")}
    for path in sorted(folder.iterdir()):
        if PHOTO.held_out(path.name) and path.name not in reported | DRAWN:
            with Image.open(path) as image:
                pixels = torch.from_numpy(np.array(image.convert("RGB")))
            yield pixels.permute(2, 0, 1).float() / 127.5 - 1


def squares(image: Tensor, side: int, count: int) -> Tensor:
    """Squares of (3, H, W), evenly along the middle of its longer side: (count, 3, side, side)."""
    height, width = image.shape[-2:]
    found = list[Tensor]()
    for k in range(count):
        share = (k + 1) / (count + 1)
        x, y = (share, 0.5) if width >= height else (0.5, share)
        left, top = int((width - side) * x), int((height - side) * y)
        found.append(image[:, top : top + side, left : left + side])
    return torch.stack(found)


def solver_of(row: Row, truth: Tensor, value: float, args: argparse.Namespace) -> SpectralAncestral:
    """The sampler that `auto` takes for a measurement, with another factor."""
    solver = choose(TASKS[row.task], problem(row, truth))[0]
    if not isinstance(solver, SpectralAncestral):
        raise InvdiffError(f"{row.key} is sampled by {solver.name}, which has no such factor.")
    made = replace(solver, inflation=value, preconditioner=args.preconditioner)
    return made.with_steps(args.steps) if args.steps else made


def measured(
    row: Row, truth: Tensor, solver: SpectralAncestral, samples: int, each: int
) -> dict[str, float]:
    """What `calibration.py` tells, with errors over photographs of `each` squares."""
    p = problem(row, truth)
    result = solve(p, load_prior(row.prior), solver, samples, seed=1, batch=24)
    found = dict[str, float]()
    for name, values in calibration(result.samples, truth, row.picture, counted(p)).items():
        v = torch.tensor(values).reshape(-1, each).mean(1)
        found[name] = float(v.mean())
        found[name + "_error"] = float(v.std() / math.sqrt(len(v)))
    shown = restoration.shown(truth)
    found["mean"] = float(psnr(restoration.shown(result.mean), shown, WINDOW).mean())
    one = [psnr(restoration.shown(x), shown, WINDOW).mean() for x in result.samples.unbind(1)]
    return found | {"one": float(torch.stack(one).mean()), "seconds": result.seconds}


def main() -> None:
    """Print a line of JSON for every task and value."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what the prior `photo` was trained on")
    parser.add_argument("--tasks", nargs="+", default=["x4", "deblur"])
    parser.add_argument("--values", nargs="+", type=float, default=[1.35, 1.7])
    parser.add_argument("--preconditioner", default="modes")
    parser.add_argument("--steps", type=int, default=0, help="in place of those of the preset")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--crops", type=int, default=3)
    parser.add_argument("--samples", type=int, default=6)
    args = parser.parse_args()
    photographs = [squares(x, args.side, args.crops) for x in unreported(args.folder)]
    if not photographs:
        raise InvdiffError(f"{args.folder} holds no photograph that the prior was kept from.")
    truth = torch.cat(photographs)
    for value in args.values:
        for row in (row for row in ROWS if row.key in args.tasks):
            solver = solver_of(row, truth, value, args)
            found = measured(row, truth, solver, args.samples, args.crops)
            told = {"task": row.key, "inflation": value, "steps": solver.schedule.steps}
            told["preconditioner"] = args.preconditioner
            print(json.dumps(told | {k: round(v, 3) for k, v in found.items()}), flush=True)


if __name__ == "__main__":
    main()
