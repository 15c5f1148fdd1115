"""`invdiff train`: fit a prior to images."""

from __future__ import annotations

import math
import os
import shlex
import sys
from pathlib import Path

from invdiff.cli import INTERRUPTED, OK
from invdiff.commands import options
from invdiff.commands.options import Given
from invdiff.commands.restore import say, terminations_as_interrupts
from invdiff.core import InvdiffError
from invdiff.restoration.job import torch_device
from invdiff.train.fit import fit
from invdiff.train.recipes import RECIPES, recipe

ABOUT = """Train a prior by a recipe, on images.

DATA is a folder or a tar archive of image files, or an .npy or .npz file with an array of shape
(images, height, width) or (images, height, width, channels).

OUT receives checkpoint.pt, log.jsonl, and at the end NAME.safetensors, which `restore --prior`
takes, with its card NAME.md. An interrupted training goes on with --resume.

On several GPUs: torchrun --nproc_per_node GPUS -m invdiff train ... (or `accelerate launch`). Each
step's batch is shared by them, so --batch is that of all together."""


def run(name: str, args: list[str]) -> int:
    """Train; the exit code."""
    to = options.parser(name, "NAME --data PATH --out FOLDER [options]", ABOUT)
    to.add_argument("name", nargs="?", type=str, help=f"recipe: {', '.join(RECIPES)}")
    to.add_argument("--data", type=str, help="folder or tar of images, or array file")
    to.add_argument("--key", type=str, help="name of the array in an .npz file of several")
    to.add_argument("--out", type=str, help="folder for the checkpoint, the log and the weights")
    to.add_argument("--start", type=str, help="weights of an earlier training to begin with")
    to.add_argument("--steps", type=int, help="optimiser steps, instead of the recipe's")
    to.add_argument("--batch", type=int, help="patches in a step, instead of the recipe's")
    to.add_argument("--patch", type=int, help="side of a patch in pixels, a multiple of 8")
    to.add_argument("--minutes", type=float, help="stop after this long; --resume goes on")
    to.add_argument("--device", type=str, help="auto, cpu or cuda")
    to.add_argument("--compile", action="store_true", help="use torch.compile")
    to.add_argument("--float32", action="store_true", help="do not use bfloat16")
    to.add_argument("--resume", action="store_true", help="go on from the checkpoint in OUT")
    to.add_argument("--quiet", action="store_true", help="no progress bar")
    to.add_argument("--config", action="config", help="YAML file with any of these options")
    given = options.parse(to, options.normalised(args))
    for key, text in (("name", "NAME"), ("data", "--data"), ("out", "--out")):
        if key not in given:
            raise InvdiffError(f"{text} is missing; invdiff train NAME --data PATH --out FOLDER.")
    for key in ("steps", "batch", "patch", "minutes"):
        if key in given and not given[key] > 0:
            raise InvdiffError(f"--{key} is a number above 0, found {given[key]}.")
    out, again = Path(given["out"]), ["--resume"] * ("--resume" not in args)
    main, launcher = _launcher()
    resume = shlex.join([*launcher, name, *args, *again])
    try:
        with terminations_as_interrupts():
            complete = _fit(given, out)
    except KeyboardInterrupt:
        if not (out / "checkpoint.pt").exists():
            raise
        if main:
            told = f"invdiff: interrupted; go on from the checkpoint with: {resume}"
            print(told, file=sys.stderr)
        return INTERRUPTED
    if not main:
        return OK
    if complete:
        say([("done", str(out / f"{given['name']}.safetensors"))])
    else:
        say([("stopped", f"after --minutes; go on with: {resume}")])
    return OK


def _launcher() -> tuple[bool, list[str]]:
    """Whether this process speaks for all that torchrun started, and how to start them again."""
    count = os.environ.get("WORLD_SIZE", "1")
    if count == "1":
        return True, ["invdiff"]
    here = os.environ.get("LOCAL_WORLD_SIZE", count)
    again = ["torchrun", "--nproc_per_node", here, "-m", "invdiff"]
    return os.environ.get("RANK", "0") == "0", again


def _fit(given: Given, out: Path) -> bool:
    """Train as asked; whether training is complete."""
    return fit(
        recipe(given["name"]),
        Path(given["data"]),
        out,
        steps=given.get("steps"),
        batch=given.get("batch"),
        patch=given.get("patch"),
        key=given.get("key"),
        start=Path(given["start"]) if "start" in given else None,
        minutes=given.get("minutes", math.inf),
        device=torch_device(given.get("device", "auto")),
        compile=given.get("compile", False),
        mixed=not given.get("float32", False),
        resume=given.get("resume", False),
        progress=not given.get("quiet", False),
    )
