"""`invdiff train`: fit a prior to images."""

from __future__ import annotations

import math
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from invdiff import fields
from invdiff.cli import INTERRUPTED, OK
from invdiff.commands.common import say, terminations_as_interrupts
from invdiff.commands.parser import Parser, read_config, wants_help
from invdiff.core import InvdiffError
from invdiff.core.option import option
from invdiff.restoration.job import torch_device
from invdiff.train.fit import fit
from invdiff.train.recipes import RECIPES, recipe

ABOUT = """Train a prior by a recipe, on images.

DATA is a folder or a tar archive of image files, or an .npy or .npz file with an array of shape
(images, height, width) or (images, height, width, channels).

OUT receives checkpoint.pt, log.jsonl, and at the end NAME.safetensors, which `restore --prior`
takes, with its card NAME.md. An interrupted training goes on with --resume.

On several GPUs: torchrun --nproc_per_node GPUS -m -- invdiff train ... (or `accelerate launch`).
Each step's batch is shared by them, so --batch is that of all together."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How a prior is trained."""

    data: Path = option("folder or tar of images, or array file")
    key: str | None = option("name of the array in an .npz file of several", None)
    out: Path = option("folder for the checkpoint, the log and the weights")
    start: Path | None = option("weights of an earlier training to begin with", None)
    steps: int | None = option("optimiser steps, instead of the recipe's", None)
    batch: int | None = option("patches in a step, instead of the recipe's", None)
    patch: int | None = option("side of a patch in pixels, a multiple of 8", None)
    minutes: float | None = option("stop after this long; --resume goes on", None)
    device: str = option("auto, cpu or cuda", "auto")
    compile: bool = option("use torch.compile", False)
    float32: bool = option("do not use bfloat16", False)
    resume: bool = option("go on from the checkpoint in OUT", False)
    quiet: bool = option("no progress bar", False)
    config: Path | None = option("YAML file with any of these options", None)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "patch", "minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvdiffError(f"--{name} is a number above 0, found {value}.")


def run(name: str, args: list[str]) -> int:
    """Train; the exit code."""
    to = Parser(name, "NAME --data PATH --out FOLDER [options]", ABOUT)
    to.add(TrainOptions, "options")
    if wants_help(args):
        print(to.format_help().rstrip() + f"\n\nrecipes: {', '.join(RECIPES)}")
        return OK
    given = to.read(args)
    path = given.options.pop("config", None)
    if path is not None:
        content = read_config(path)
        named = content.pop("name", None)
        given.merged(content, fields.options(TrainOptions))
        given.words += [str(named)] if named is not None and not given.words else []
    if len(given.words) != 1:
        raise InvdiffError(
            "NAME, the recipe, is missing, or there is more than one: invdiff train NAME --data "
            f"PATH --out FOLDER, with a name of {', '.join(RECIPES)}."
        )
    recipe_name = given.words[0]
    how = fields.build(TrainOptions, to.of(TrainOptions, given), "train")
    out = how.out
    again = ["--resume"] * ("--resume" not in args)
    main, launcher = _launcher()
    resume = shlex.join([*launcher, name, *args, *again])
    try:
        with terminations_as_interrupts():
            complete = _fit(recipe_name, how)
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
        say([("done", str(out / f"{recipe_name}.safetensors"))])
    else:
        say([("stopped", f"after --minutes; go on with: {resume}")])
    return OK


def _launcher() -> tuple[bool, list[str]]:
    """Whether this process speaks for all that torchrun started, and how to start them again."""
    count = os.environ.get("WORLD_SIZE", "1")
    if count == "1":
        return True, ["invdiff"]
    here = os.environ.get("LOCAL_WORLD_SIZE", count)
    again = ["torchrun", "--nproc_per_node", here, "-m", "--", "invdiff"]  # it knows --start too
    return os.environ.get("RANK", "0") == "0", again


def _fit(name: str, how: TrainOptions) -> bool:
    """Train as asked; whether training is complete."""
    return fit(
        recipe(name),
        how.data,
        how.out,
        steps=how.steps,
        batch=how.batch,
        patch=how.patch,
        key=how.key,
        start=how.start,
        minutes=math.inf if how.minutes is None else how.minutes,
        device=torch_device(how.device),
        compile=how.compile,
        mixed=not how.float32,
        resume=how.resume,
        progress=not how.quiet,
    )
