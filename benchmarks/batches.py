"""Are samples the same to the bit, however many are drawn together?

    python benchmarks/batches.py [--tasks denoise deblur ...] [--solvers ddrm ...]

Six samples of every solver that can do a task, in float32 on the CPU, through `invdiff.restore`: 1,
4 and 6 at a time, of crops of a photograph of the package of 24 x 20 and 64 x 48 pixels (one side
below and one above the size where torch takes another convolution for one row), in 3 steps of the
prior `photo`; and 28 x 28 pixels of `fashion28`. Prints a line a task; the exit code is 1 where two
samples differ in a bit.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from PIL import Image

import invdiff
from invdiff.core import InvdiffError

TASKS: dict[str, dict[str, Any]] = {
    "denoise": {"noise": 0.1},
    "deblur": {"noise": 0.02, "kernel": "gaussian:1.0"},
    "inpaint": {"noise": 0.02},
    "super-resolution": {"noise": 0.02, "scale": 2},
    "demosaic": {"noise": 0.02},
    "colorize": {"noise": 0.02},
}
SIZES = ((24, 20), (64, 48))
BATCHES = (1, 4, 6)


def inputs(task: str, rows: int, columns: int) -> tuple[np.ndarray, dict[str, Any]]:
    """The file of a task as an array of bytes, and its options."""
    with Image.open(str(files("invdiff") / "app" / "examples" / "alpacas.jpg")) as photo:
        pixels = np.asarray(photo.convert("RGB"))[60 : 60 + rows, 80 : 80 + columns]
    options = dict(TASKS[task])
    if task == "inpaint":
        options["mask"] = (np.random.default_rng(0).random((rows, columns)) < 0.3) * np.uint8(255)
    if task in ("demosaic", "colorize"):
        pixels = pixels[..., 1]
    return pixels, options


def answers(task: str, file: np.ndarray, **options: Any) -> Iterator[torch.Tensor]:
    """The samples for each of BATCHES."""
    for batch in BATCHES:
        done = invdiff.restore(
            task, file, samples=6, batch=batch, want="samples", progress=False, **options
        )
        yield done.result.samples


def differ(task: str, file: np.ndarray, **options: Any) -> bool | None:
    """Whether samples differ between batches; None where the solver cannot do the task."""
    try:
        first, *others = answers(task, file, **options)
    except InvdiffError as error:
        print(f"({options['solver']}: {str(error)[:70]}) ", end="", file=sys.stderr)
        return None
    return not all(torch.equal(first, other) for other in others)


def cases(tasks: list[str], solvers: list[str]) -> Iterator[tuple[str, str, bool | None]]:
    """(task and size, solver, what `differ` says)."""
    for task in tasks:
        for size in SIZES:
            file, options = inputs(task, *size)
            for solver in solvers:
                told = differ(task, file, solver=solver, steps=3, **options)
                yield f"{task}, {size[0]} x {size[1]}", solver, told
    for solver in solvers:
        file = np.pad(inputs("demosaic", 20, 20)[0], 4)
        told = differ("denoise", file, solver=solver, steps=3, noise=0.1, prior="fashion28")
        yield "denoise, 28 x 28 of fashion28", solver, told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--solvers", nargs="+", default=list(invdiff.registry()))
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    wrong, row, equal = list[str](), "", 0
    for where, solver, told in cases(given.tasks, given.solvers):
        if where != row:
            print(f"{where}: " if not row else f"{equal} solvers equal\n{where}: ", end="")
            row, equal = where, 0
        equal += told is False
        if told:
            wrong.append(f"{where}: {solver}")
            print(f"{solver} DIFFERS, ", end="", flush=True)
    print(f"{equal} solvers equal")
    print("\n".join(wrong) or f"all samples equal to the bit, {BATCHES} at a time")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
