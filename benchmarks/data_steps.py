"""How near to its end an iterative data step has to be solved, by blur and noise.

    python benchmarks/data_steps.py ../shared/data/photos

A square of 96 x 96 of each held-out photograph that no page reports, blurred with reflected edges:
the presets `hqs` and `diffpir` (one sample) with data steps that end at a thousandth of the right
side (tol 0), or at so many deviations of each step's image; PSNR, and the gain over tol 0 in dB, a
mean over squares with its standard error. `invdiff.tasks.presets.NEARLY` was taken from it. The
last row of `hqs` begins at what 100 iterations without cosine modes find.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from pathlib import Path

import torch

from few_steps import judged
from inflation import squares, unreported
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise
from invdiff.operators import Blur, gaussian_kernel, motion_kernel
from invdiff.priors.load import load_prior
from invdiff.problem import Problem
from invdiff.tasks import TASKS
from invdiff.tasks.auto import configured

SIDE = 96
KERNELS = {"motion of 15": motion_kernel(15, 30.0), "Gaussian of 1.6": gaussian_kernel(1.6)}
NOISES = (0.02, 0.004, 0.002)
TOLS = (0.0, 0.1, 0.03, 0.001)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="photographs; the held-out ones are used")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    truth = torch.cat([squares(x, SIDE, 1) for x in unreported(folder)])
    prior, count = load_prior("photo"), len(truth)
    print(
        "| blur | noise | solver | tol | PSNR | gain | CPU seconds |\n|---|---|---|---|---|---|---|"
    )
    for blur, kernel in KERNELS.items():
        A = Blur(kernel, (SIDE, SIDE), "reflect")
        for sigma in NOISES:
            noise = GaussianNoise(sigma)
            y = noise.sample(A(truth), Rng.of(list(range(count))))
            problem = Problem(y, A, noise, (3, SIDE, SIDE))
            for name in ("hqs", "diffpir"):
                preset, usual = configured(TASKS["deblur"], name, problem), None
                ways = [(f"{tol:g}", {"tol": tol}) for tol in TOLS]
                if name == "hqs":
                    ways.append(("0, start without modes", {"tol": 0.0, "preconditioner": "none"}))
                for told, changes in ways:
                    solver, began = dataclasses.replace(preset, **changes), time.process_time()
                    found, _ = judged(solver, problem, prior, truth)
                    took = time.process_time() - began
                    usual = found if usual is None else usual
                    gain, error = found - usual, float((found - usual).std()) / math.sqrt(count)
                    figures = f"{float(found.mean()):.2f} | {float(gain.mean()):+.2f} ± {error:.2f}"
                    row = f"| {blur} | {sigma} | {name} | {told} | {figures} | {took:.1f} |"
                    print(row, flush=True)


if __name__ == "__main__":
    main()
