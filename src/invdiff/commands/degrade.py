"""`invdiff degrade`: a measurement of a clean photograph, for trying and for benchmarks."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff import __version__, zoo
from invdiff.cli import OK
from invdiff.commands import options
from invdiff.commands.options import Given
from invdiff.commands.restore import say
from invdiff.core import InvdiffError
from invdiff.io import Photo, read_photo, save_picture, words
from invdiff.noise import Gaussian
from invdiff.operators.inpaint import Inpaint
from invdiff.photos import read_options
from invdiff.rng import Rng
from invdiff.serial import check_apart, check_folder, whole_folder

MARKER = "degrade.json"
USAGE = "PHOTO --task TASK --out DIR [options]"
ABOUT = """Damage a clean photograph as a task of `restore` undoes it.

DIR receives measurement.png (what a user would have), measurement.npy (the same without clipping
and rounding), truth.png, the mask or kernel where there is one, and degrade.json with the
command that restores it. --mask may also be random:SHARE (of pixels that are missing) or
box:TOP,LEFT,HEIGHT,WIDTH. Noise levels are on the scale where black is 0 and white is 1."""


def run(name: str, args: list[str]) -> int:
    """Degrade one photograph; the exit code."""
    given = _parse(name, options.normalised(args))
    if "photo" not in given:
        raise InvdiffError("PHOTO is missing; give a clean picture.")
    if "out" not in given:
        raise InvdiffError("--out is missing; give the folder for the measurement.")
    task, values = options.task_options(given)
    sigma = given.get("sigma") if task == "denoise" else given.get("noise", 0.0)
    if not isinstance(sigma, int | float):
        raise InvdiffError("A clean picture has no noise to estimate; give its level as a number.")
    noise, out, seed = Gaussian(float(sigma)), Path(given["out"]), given.get("seed", 0)
    check_folder(out, given.get("overwrite", False), MARKER)
    check_apart(out, *(given[k] for k in ("photo", "mask", "kernel") if k in given))
    photo = read_photo(given["photo"])
    truth, notes = _cropped(photo, values)
    read = _options(values, (truth.shape[1], truth.shape[2]), seed)
    A = zoo.task(task).operator((truth.shape[1], truth.shape[2]), read)
    y = noise.sample(A(truth[None]), Rng.of(seed))[0]
    flags = _flags(task, values, sigma)
    command = ["invdiff", "restore", str(out / "measurement.png"), "--task", task]
    with whole_folder(out, given.get("overwrite", False), MARKER) as folder:
        for key, value in _files(read, y, truth, folder).items():
            flags[key] = str(out / value)
        command += [part for key, value in flags.items() for part in (f"--{key}", value)]
        about = {"invdiff": __version__, "task": task, "options": flags, "seed": seed}
        about |= {"photo": str(given["photo"]), "restore": shlex.join(command)}
        (folder / MARKER).write_text(json.dumps(about, indent=1) + "\n")
    say([("photo", f"{given['photo']} ({photo.about})")])
    say([("", note) for note in notes])
    say([("damaged", f"{task}, {words((y.shape[1], y.shape[2]))} pixels, noise {sigma:g}")])
    say([("results", f"{out}: measurement.png, truth.png"), ("restore", shlex.join(command))])
    return OK


def _cropped(photo: Photo, values: dict[str, Any]) -> tuple[Tensor, list[str]]:
    """Pixels of the photo, cut to multiples of the scale where there is one."""
    scale = values.get("scale", 1)
    if scale > min(photo.size):
        raise InvdiffError(
            f"A scale of {scale} is larger than the image of {words(photo.size)} pixels."
        )
    height, width = (side // scale * scale for side in photo.size)
    notes = ["the transparency is left out"] if photo.alpha is not None else []
    if (height, width) != photo.size:
        notes.append(f"cut to {words((height, width))}, a multiple of the scale")
    pixels = photo.pixels[:, :height, :width]
    if not bool(torch.isfinite(pixels).all()):
        raise InvdiffError("The picture holds NaN or infinite values; replace them.")
    return pixels, notes


def _options(values: dict[str, Any], size: tuple[int, int], seed: int) -> dict[str, Any]:
    """Options with mask and kernel read or made."""
    word, colon, rest = str(values.get("mask", "")).partition(":")
    if not colon or word not in ("random", "box"):
        return read_options(values, size)
    try:
        numbers = [float(v) for v in rest.split(",")]
        if word == "random" and len(numbers) == 1:
            mask = Inpaint.random(size, 1 - numbers[0], seed=seed).mask
        elif word == "box" and len(numbers) == 4:
            mask = Inpaint.box(size, *(int(v) for v in numbers)).mask
        else:
            raise ValueError
    except InvdiffError:
        raise
    except ValueError:
        raise InvdiffError(
            f"{word}:{rest} is not a mask; give random:SHARE, box:TOP,LEFT,HEIGHT,WIDTH or a file."
        ) from None
    return read_options({**values, "mask": mask}, size)


def _flags(task: str, values: dict[str, Any], sigma: float) -> dict[str, str]:
    """Options of `restore` that belong to this measurement; files are added later."""
    flags = {k: str(v) for k, v in values.items() if zoo.task(task).defaults.get(k) != v}
    if task == "denoise":
        flags["sigma"] = str(sigma)
    elif sigma > 0:
        flags["noise"] = str(sigma)
    return flags


def _files(read: dict[str, Any], y: Tensor, truth: Tensor, folder: Path) -> dict[str, str]:
    """Write pictures, mask and kernel; {option: file name} of the last two."""
    files = {}
    if "mask" in read:
        files["mask"] = "mask.png"
        save_picture(folder / "mask.png", (read["mask"][0] == 0).float())
    if "kernel" in read:
        files["kernel"] = "kernel.npy"
        np.save(folder / "kernel.npy", read["kernel"].numpy())
    save_picture(folder / "measurement.png", y)
    save_picture(folder / "truth.png", truth)
    np.save(folder / "measurement.npy", y.permute(1, 2, 0).squeeze(2).numpy())
    return files


def _parse(name: str, args: list[str]) -> Given:
    to = options.parser(name, USAGE, ABOUT)
    to.add_argument("photo", nargs="?", type=str, help="a clean picture")
    options.add_task_options(to)
    to.add_argument("--noise", type=float, help="noise level to add, on [0, 1]; none without it")
    to.add_argument("--seed", type=int, help="of the noise and of random masks, 0 by default")
    to.add_argument("--out", type=str, help="folder for the measurement")
    to.add_argument("--overwrite", action="store_true", help="replace an earlier measurement")
    to.add_argument("--config", action="config", help="YAML file with any of these options")
    return options.parse(to, args)
