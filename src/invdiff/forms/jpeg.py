"""JPEG files as measurements: the file tells its quantisation tables and its subsampling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from invdiff.core import InvdiffError, Problem
from invdiff.forms.base import Level, Made, Measured
from invdiff.forms.photo import PhotoView, clean_pixels, profile
from invdiff.io import check_file, check_pixels, read_photo, save_picture, words
from invdiff.noise import NOISELESS
from invdiff.operators.jpeg import JPEG, decode
from invdiff.photos import prior_channels
from invdiff.priors.base import Prior
from invdiff.tasks import Task, check_level


def read(task: Task, path: str, options: Mapping[str, Any], noise: Level, prior: Prior) -> Measured:
    """The problem of removing the artifacts of a JPEG file.

    The blocks of 8 x 8 belong to the pixels as they are stored, so these are restored, and the
    results are turned by the EXIF orientation. A grey file is repeated in the channels of a colour
    prior. Raises InvdiffError when the file is no JPEG, or the prior has not the range of one.
    """
    check_level(task, noise)
    file = Path(path)
    check_file(file)
    A, photo = JPEG.from_file(file), read_photo(file)
    check_pixels(photo.size, str(file))
    if prior.image_range != (-1.0, 1.0):
        raise InvdiffError(f"JPEG files are on [-1, 1], but the prior is on {prior.image_range}.")
    levels, turn = decode(file.read_bytes()), _orientation(file)
    channels = prior_channels(prior)
    grey = len(levels) == 1
    if channels < len(levels):
        raise InvdiffError(
            f"{path} has colours, but the prior is of grey pictures; save it as a grey JPEG, or "
            "give another --prior."
        )
    y = (levels.float() / 127.5 - 1).expand(channels, -1, -1)[None].contiguous()
    problem = Problem(y, A, NOISELESS, tuple(y.shape[1:]))
    view = PhotoView(
        prior.image_range, grey or channels == 1, None, profile(photo, problem, grey), turn
    )
    tables = ", ".join(str(t[0]) for t in A.tables or ())
    about = f"{photo.about}, steps of the mean {tables}" + ("" if grey else f", {A.subsampling}")
    return Measured(problem, view, about, "none but quantisation, which the file tells")


def _orientation(path: Path) -> int:
    with Image.open(path) as image:
        return int(image.getexif().get(0x0112, 1))


def make(task: Task, path: str, options: Mapping[str, Any], noise: float, seed: int) -> Made:
    """The photograph as a JPEG file: measurement.jpg and truth.png."""
    photo = read_photo(path)
    truth, notes = clean_pixels(photo)
    A = JPEG(options["quality"], options["subsampling"])
    A.y_shape(tuple(truth.shape))
    file = A.encode(_levels(truth))

    def write(folder: Path) -> None:
        (folder / "measurement.jpg").write_bytes(file)
        save_picture(folder / "truth.png", truth)

    told = f"{words(photo.size)} pixels, quality {A.quality}, {len(file)} bytes"
    return Made(photo.about, told, "measurement.jpg", {}, {}, write, tuple(notes))


def _levels(pixels: Tensor) -> Tensor:
    """Pixels on [0, 1] as 8 bits."""
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8)
