"""Where the estimate of inpainting should start, by how the unknown pixels lie.

    python benchmarks/hqs_start.py ../shared/data/photos [--masks MASK ...]

Two squares of 96 x 96 of each held-out photograph that no page reports, with noise of rounding: the
preset `hqs` from several first levels; the gain over level 1.0 in dB, a mean over squares with its
standard error. `invdiff.tasks.inpaint.SCATTERED` was taken from it.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

import torch
from torch import Tensor

from few_steps import judged
from inflation import squares, unreported
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE
from invdiff.noise import GaussianNoise
from invdiff.operators.inpaint import Inpaint
from invdiff.priors.load import load_prior
from invdiff.problem import Problem
from invdiff.tasks import TASKS
from invdiff.tasks.auto import configured

SIDE, SIGMA = 96, 0.004
FIRST = (1.0, 0.4, 0.25, 0.15)


def every(width: int, gap: int) -> Tensor:
    """Whether a pixel of an axis is one of so many, at every so many: (SIDE,) bool."""
    return torch.arange(SIDE) % gap >= gap - width


MASKS = {
    "30 % at random": Inpaint.random((SIDE, SIDE), 0.3, 1),
    "10 % at random": Inpaint.random((SIDE, SIDE), 0.1, 1),
    "all but lines of 3": Inpaint(~every(3, 12).expand(1, 1, SIDE, SIDE)),
    "all but holes of 16 x 16": Inpaint(~(every(16, 40)[:, None] & every(16, 40))[None, None]),
}
"""By what is known."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="photographs; the held-out ones are used")
    parser.add_argument("--masks", nargs="+", choices=MASKS, default=list(MASKS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    truth = torch.cat([squares(x, SIDE, 2) for x in unreported(args.folder)])
    prior, count = load_prior("photo"), len(truth)
    for name in args.masks:
        A, noise = MASKS[name], GaussianNoise(SIGMA)
        y = noise.sample(A(truth), Rng.of(list(range(count))))
        problem = Problem(y, A, noise, (3, SIDE, SIDE))
        preset, usual = configured(TASKS["inpaint"], "hqs", problem), None
        for first in FIRST:
            grid = VE(preset.num_steps, first, preset.schedule.sigma_min)
            found, _ = judged(dataclasses.replace(preset, schedule=grid), problem, prior, truth)
            usual = found if usual is None else usual
            gain = found - usual
            error = float(gain.std()) / math.sqrt(count)
            told = f"{float(found.mean()):.2f} | {float(gain.mean()):+.2f} ± {error:.2f}"
            print(f"| {name} | {first:g} | {told} |", flush=True)


if __name__ == "__main__":
    main()
