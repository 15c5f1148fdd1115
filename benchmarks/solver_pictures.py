"""Draws what every solver answers to one problem: docs/images/solvers, for docs/gallery.md.

    python benchmarks/solver_pictures.py [NAME ...]

The truth is a draw of the prior `faces64` itself, so that the posterior is what it is said to be:
no person. The lower half of the face is hidden; the noise is 0.05 of half the range. A solver that
cannot take this has the first of `problems` that it can. Each has its default settings. `pyramid`
needs a prior of any size, and has `multiscale`, which knows photographs.

Beside the pictures lies about.json: which problem a solver has, its evaluations and gradients, or
what it lacks. From left to right: the truth, the measurement, three samples, the mean of four, and
their standard deviation, which is white at 0.5 of half the range.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import invdiff.operators as ops
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.core.schedules import Karras
from invdiff.noise import NOISELESS, GaussianNoise, Noise
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.problem import Problem
from invdiff.sampling.needs import missing
from invdiff.sampling.run import solve
from invdiff.solvers import registry
from invdiff.solvers.unconditional import Unconditional

OUT = Path(__file__).resolve().parents[1] / "docs/images/solvers"
SIDE, SEED, SAMPLES, DRAWN, GAP, ZOOM = 64, 1, 4, 3, 3, 2
NOISE, WHITE = 0.05, 0.5
OTHER = {"pyramid": "multiscale"}
"""Priors of solvers that cannot take `faces64`."""


@cache
def prior(name: str = "faces64") -> Prior:
    return load_prior(name, precision="auto")


@cache
def truth() -> Tensor:
    """A draw of the prior, (1, 3, 64, 64) on [-1, 1]."""
    any_problem = Problem(
        torch.zeros(1, 3, SIDE, SIDE), ops.Identity(), GaussianNoise(1.0), (3, SIDE, SIDE)
    )
    drawn = solve(any_problem, prior(), Unconditional(schedule=Karras(60)), seed=SEED)
    return drawn.samples[:, 0].clamp(-1, 1)


def problem(A: ops.Operator, noise: Noise) -> Problem:
    z = A(truth())
    y = noise.sample(z, Rng.of(SEED)) if isinstance(noise, GaussianNoise) else z
    return Problem(y, A, noise, tuple(truth().shape[1:]))


@cache
def problems() -> dict[str, Problem]:
    """In the order in which they are tried."""
    half = ops.Inpaint.box((SIDE, SIDE), 32, 8, 26, 48)
    return {
        "the lower half of a face": problem(half, GaussianNoise(NOISE)),
        "the lower half of a face, without noise": problem(half, NOISELESS),
        "a face as a JPEG file of quality 10": problem(ops.JPEG(10), NOISELESS),
        "a face with noise": problem(ops.Identity(), GaussianNoise(4 * NOISE)),
    }


def strip(found: Problem, samples: Tensor) -> Image.Image:
    """Truth, measurement, samples, mean and standard deviation beside each other."""
    spread = samples.std(0, keepdim=True).mean(1, keepdim=True).expand(1, 3, -1, -1)
    tiles = [truth(), found.y, *samples[:DRAWN, None], samples.mean(0, keepdim=True)]
    tiles.append(2 * spread / WHITE - 1)
    wide = [F.pad(t.clamp(-1, 1), (0, GAP), value=1.0) for t in tiles]
    row = torch.cat(wide, -1)[0, :, :, :-GAP]
    pixels = ((row + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(
        (ZOOM * pixels.shape[1], ZOOM * pixels.shape[0]), Image.Resampling.NEAREST
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", help="solvers; all without")
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    file = OUT / "about.json"
    about = json.loads(file.read_text()) if file.exists() else {}
    for name in parser.parse_args().names or registry():
        began = time.perf_counter()
        about[name] = drawn(name)
        file.write_text(json.dumps(dict(sorted(about.items())), indent=1) + "\n")
        print(f"{name}: {about[name]}, {time.perf_counter() - began:.0f} s", flush=True)
    return 0


def drawn(name: str) -> dict[str, Any]:
    """Draw the picture of a solver; what it shows, or why there is none."""
    solver, model = registry()[name](), prior(OTHER.get(name, "faces64"))
    able = [w for w, p in problems().items() if not missing(solver, p, model)]
    if not able:
        lacks = missing(solver, next(iter(problems().values())), model)
        return {"lacks": [need.value for need in lacks]}
    try:
        result = solve(problems()[able[0]], model, solver, samples=SAMPLES, seed=SEED)
    except InvdiffError as error:
        return {"why": str(error)}
    strip(problems()[able[0]], result.samples[0]).save(OUT / f"{name}.webp", quality=85)
    told = {"problem": able[0], "evaluations": result.nfe, "gradients": result.vjps}
    return told | ({"prior": OTHER[name]} if name in OTHER else {})


if __name__ == "__main__":
    sys.exit(main())
