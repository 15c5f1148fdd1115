"""Are samples the same to the bit, however many are drawn together?

    python benchmarks/batches.py [--tasks denoise deblur ...] [--solvers ddrm ...]
    python benchmarks/batches.py --items       five pictures: each alone, and together

Six samples of every solver that can do a task, in float32 on the CPU, through `invdiff.restore`: 1,
4 and 6 at a time, of crops of a photograph of the package of 24 x 20 and 64 x 48 pixels (one side
below and one above the size where torch takes another convolution for one row), in 3 steps of the
prior `photo`; and 28 x 28 pixels of `fashion28`. With --items it is five pictures, their estimates
and a sample of each, 1, 2 and 5 at a time as `invdiff batch` runs them, up to 96 x 96 pixels.
Prints a line a task; the exit code is 1 where two samples differ in a bit.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from PIL import Image

import invdiff
from invdiff.core import InvdiffError
from invdiff.fields import build
from invdiff.priors.load import load_prior
from invdiff.restoration.job import prepare
from invdiff.restoration.perform import perform
from invdiff.restoration.together import kind, perform_together, room
from invdiff.tasks import task_class

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
PRIOR = functools.cache(lambda: load_prior("photo"))


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


def of_items(task: str, size: tuple[int, int], solver: str) -> bool | None:
    """Whether pictures differ between 1, 2 and 5 run together; None where the solver cannot."""
    jobs = []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(5):
            file, options = inputs(task, *size)
            drawn = np.random.default_rng(i).integers(-20, 20, file.shape)
            Image.fromarray(np.uint8(np.clip(file + drawn, 0, 255))).save(f"{folder}/{i}.png")
            if "mask" in options:
                Image.fromarray(options["mask"]).save(f"{folder}/mask.png")
                options["mask"] = f"{folder}/mask.png"
            told = {name: str(value) for name, value in options.items()}
            try:
                jobs.append(prepare(
                    build(task_class(task), told, task), f"{folder}/{i}.png", prior=PRIOR(),
                    solver=solver, configure=lambda s: s.with_steps(3), samples=1, seed=i,
                ))  # fmt: skip
            except InvdiffError:
                return None
    if room(jobs[0]) < 5 or len({kind(job) for job in jobs}) != 1:
        return None
    try:
        alone = [perform(job, quiet=True).result for job in jobs]
    except InvdiffError:
        return None
    for count in (2, 5):
        some = [job for i in range(0, 5, count) for job in perform_together(jobs[i : i + count])]
        for mine, other in zip(alone, some, strict=True):
            if (mine.nfe, mine.vjps) != (other.result.nfe, other.result.vjps):
                return True
            pairs = [(mine.samples, other.result.samples), (mine.estimate, other.result.estimate)]
            if not all(a is None or torch.equal(a, b) for a, b in pairs):
                return True
    return False


def differ(task: str, file: np.ndarray, **options: Any) -> bool | None:
    """Whether samples differ between batches; None where the solver cannot do the task."""
    try:
        first, *others = answers(task, file, **options)
    except InvdiffError as error:
        print(f"({options['solver']}: {str(error)[:70]}) ", end="", file=sys.stderr)
        return None
    return not all(torch.equal(first, other) for other in others)


def cases(
    tasks: list[str], solvers: list[str], items: bool
) -> Iterator[tuple[str, str, bool | None]]:
    """(task and size, solver, what `differ` or `of_items` says)."""
    if items:
        for task, size in itertools.product(tasks, (*SIZES, (96, 96))):
            for solver in solvers:
                yield f"{task}, {size[0]} x {size[1]}", solver, of_items(task, size, solver)
        return
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
    parser.add_argument("--items", action="store_true", help="pictures, in place of samples")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    wrong, row, equal = list[str](), "", 0
    for where, solver, told in cases(given.tasks, given.solvers, given.items):
        if where != row:
            print(f"{where}: " if not row else f"{equal} solvers equal\n{where}: ", end="")
            row, equal = where, 0
        equal += told is False
        if told:
            wrong.append(f"{where}: {solver}")
            print(f"{solver} DIFFERS, ", end="", flush=True)
    print(f"{equal} solvers equal")
    counts = (1, 2, 5) if given.items else BATCHES
    print("\n".join(wrong) or f"all samples equal to the bit, {counts} at a time")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
