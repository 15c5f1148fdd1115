"""Photographs as measurements: pictures in, pictures out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError, Problem
from invdiff.forms.base import Level, Made, Measured, View
from invdiff.io import Photo, Range, from_range, read_photo, save_picture, words
from invdiff.operators.inpaint import Inpaint
from invdiff.photos import beyond, damaged, read_options, shown
from invdiff.priors.base import Prior
from invdiff.rng import Rng
from invdiff.tasks import Margin, Task, without_margin


@dataclass(frozen=True, eq=False)
class PhotoView(View):
    """Samples as pictures, with what of the photo is put into them as it is.

    grey: without colour. alpha: transparency, (H, W) uint8. icc: the colour profile, bytes as
    uint8. turn: the EXIF orientation by which results are turned upright. margin: pixels around the
    photo that are restored with it and cut off. kept: pixels that are shown as they were measured,
    (H, W) bool, and measured: their values on [0, 1], (C, H, W), before they are turned.
    """

    value_range: Range = (-1.0, 1.0)
    grey: bool = False
    alpha: Tensor | None = None
    icc: Tensor | None = None
    turn: int = 1
    margin: Margin = (0, 0, 0, 0)
    kept: Tensor | None = None
    measured: Tensor | None = None

    def size(self, x_shape: tuple[int, ...]) -> tuple[int, int]:
        above, below, left, right = self.margin
        return x_shape[-2] - above - below, x_shape[-1] - left - right

    def values(self, x: Tensor) -> Tensor:
        x = without_margin(x, self.margin)
        pixels = shown(x, self.grey, self.value_range)
        if self.kept is not None and self.measured is not None:
            pixels = torch.where(self.kept, self.measured, pixels)
        return upright(pixels, self.turn)

    def picture(self, values: Tensor) -> Tensor:
        return values

    def measurement(self, problem: Problem) -> list[tuple[str, Tensor]]:
        """The photo; missing pixels are middle grey."""
        y, A = problem.y[0], problem.A
        y = y + beyond(A, problem.x_shape, self.value_range)[0]
        pixels = from_range(y, self.value_range)
        if isinstance(A, Inpaint):
            pixels = torch.where(A.mask[0].bool(), pixels, 0.5)
        pixels = pixels.mean(0, keepdim=True) if self.grey else pixels
        return [("input", upright(pixels, self.turn))]

    def save(self, folder: Path, name: str, values: Tensor) -> None:
        profile = None if self.icc is None else self.icc.numpy().tobytes()
        save_picture(folder / f"{name}.png", values, self.alpha, profile)


def upright(pixels: Tensor, turn: int) -> Tensor:
    """Pixels (..., H, W) as they are seen, from those stored with an EXIF orientation of 1 to 8."""
    if turn in (5, 6, 7, 8):
        pixels = pixels.mT
    axes = {2: (-1,), 3: (-2, -1), 4: (-2,), 6: (-1,), 7: (-2, -1), 8: (-2,)}.get(turn, ())
    return pixels.flip(axes) if axes else pixels


def profile(photo: Photo, problem: Problem, grey: bool) -> Tensor | None:
    """The colour profile of the photo, where the results have the same channels."""
    if photo.icc and photo.grey == (grey or problem.x_shape[0] == 1):
        return torch.frombuffer(bytearray(photo.icc), dtype=torch.uint8)
    return None


def read(task: Task, path: str, options: Mapping[str, Any], noise: Level, prior: Prior) -> Measured:
    """The problem of restoring a photograph; `photos.damaged` tells how.

    Inpainting shows known pixels as they are in the file, unless their noise was told.
    """
    photo = read_photo(path)
    d = damaged(photo, task.name, options, noise, prior)
    icc, A = profile(photo, d.problem, d.grey), d.problem.A
    view = PhotoView(prior.image_range, d.grey, photo.alpha, icc, margin=d.margin)
    if isinstance(A, Inpaint) and noise is None:
        known = shown(d.problem.y[0], d.grey, prior.image_range)
        view = replace(view, kept=A.mask[0].bool().all(0), measured=known)
    return Measured(d.problem, view, photo.about, d.noise, d.notes)


def make(task: Task, path: str, options: Mapping[str, Any], noise: float, seed: int) -> Made:
    """The photograph damaged, on [0, 1]: measurement.png, .npy, truth.png, and mask or kernel.

    A mask may also be random:SHARE or box:TOP,LEFT,HEIGHT,WIDTH.
    """
    photo, values = read_photo(path), dict(options)
    truth, notes = clean_pixels(photo, values.get("scale", 1))
    size = (int(truth.shape[1]), int(truth.shape[2]))
    read = _made_options(values, size, seed)
    A, model = task.operator(size, read), task.noise(noise, read, (0.0, 1.0), 1)
    A.y_shape(tuple(truth.shape))  # refuses a grey picture where colours are needed
    z = A(truth[None]) if not task.centred else (A(2 * truth[None] - 1) + 1) / 2
    truth = without_margin(truth, task.margin(read))
    y = model.sample(z, Rng.of(seed))[0]
    files = {"mask": "mask.png", "kernel": "kernel.npy"}

    def write(folder: Path) -> None:
        if "mask" in read:
            save_picture(folder / "mask.png", (read["mask"][0] == 0).float())
        if "kernel" in read:
            np.save(folder / "kernel.npy", read["kernel"].numpy())
        save_picture(folder / "measurement.png", y)
        save_picture(folder / "truth.png", truth)
        np.save(folder / "measurement.npy", y.permute(1, 2, 0).squeeze(2).numpy())

    told = f"{words((y.shape[1], y.shape[2]))} pixels" + (
        f", noise {noise:g}" if task.level else ""
    )
    return Made(
        photo.about,
        told,
        "measurement.png" if task.level else "measurement.npy",  # photons may exceed white
        _flags(task, values, noise),
        {key: name for key, name in files.items() if key in read},
        write,
        tuple(notes),
    )


def clean_pixels(photo: Photo, scale: int = 1) -> tuple[Tensor, list[str]]:
    """Pixels of a clean photo, cut to multiples of the scale, and what was done to them."""
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


def _made_options(values: dict[str, Any], size: tuple[int, int], seed: int) -> dict[str, Any]:
    """Options with mask and kernel read or made."""
    word, colon, rest = str(values.get("mask", "")).partition(":")
    if not colon or word not in ("random", "box"):
        return read_options(values, size)
    try:
        numbers = [float(v) for v in rest.split(",")]
        if word == "random" and len(numbers) == 1:
            mask = Inpaint.random(size, 1 - numbers[0], seed=seed).mask
        elif word == "box" and len(numbers) == 4:
            mask = Inpaint.box(size, *(int(v) for v in rest.split(","))).mask
        else:
            raise ValueError
    except InvdiffError:
        raise
    except ValueError:
        raise InvdiffError(
            f"{word}:{rest} is not a mask; give random:SHARE, box:TOP,LEFT,HEIGHT,WIDTH or a file."
        ) from None
    return read_options({**values, "mask": mask}, size)


def _flags(task: Task, values: Mapping[str, Any], noise: float) -> dict[str, str]:
    """Options of `restore` that belong to this measurement; files are added later."""
    flags = {k: str(v) for k, v in values.items() if task.defaults.get(k) != v}
    if "sigma" in task.options:
        flags["sigma"] = str(noise)
    elif noise > 0:
        flags["noise"] = str(noise)
    return flags
