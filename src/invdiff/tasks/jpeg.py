"""JPEG repair: the file tells its own quantisation tables and its subsampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.option import option
from invdiff.core.schedules import VE, Karras
from invdiff.files.arrays import check_file
from invdiff.files.metadata import orientation_of
from invdiff.files.pictures import Photo, check_pixels, read_photo, save_picture, words
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.operators.jpeg import JPEG, decode
from invdiff.operators.jpeg_cells import coarse_error, planes
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.problem.toys import unmeasured
from invdiff.sampling.solver import Solver
from invdiff.solvers.ddrm_jpeg import DDRMJPEG
from invdiff.solvers.pigdm import PiGDM
from invdiff.solvers.pocs import POCS
from invdiff.solvers.spectral_jpeg import SpectralJPEG
from invdiff.tasks.base import Choice, Made, Measured, Preset, Simulation, Task
from invdiff.tasks.pictures import clean_pixels, picture_view, prior_channels
from invdiff.tasks.presets import EVERY_PHOTO, INFLATION, start
from invdiff.tasks.values import Size

FINE = 0.015
"""Error of good JPEG files beyond that of their coarse frequencies, as a noise level; found on
photographs that are not reported."""


def _projections(problem: Problem) -> Solver:
    """Levels from the file's own quantisation steps."""
    if not problem.A.cells:
        return POCS()
    level = math.hypot(coarse_error(planes(problem.jpeg, problem.y)), FINE)
    return POCS(schedule=VE(2, level, 0.55 * level))


@dataclass(frozen=True, kw_only=True)
class MakeJPEG(Simulation):
    """Compress a photograph."""

    quality: int = option("of the JPEG, 1 to 95", min=1, max=95)
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = option("of its colours", "4:2:0")

    def make(self, file: Path, out: Path, seed: int) -> Made:
        """The photograph as a JPEG file: measurement.jpg and truth.png."""
        photo = read_photo(file)
        truth, notes = clean_pixels(photo)
        A = JPEG(self.quality, self.subsampling)
        A.y_shape(tuple(truth.shape))
        compressed = A.encode(levels(truth))

        def write(folder: Path) -> None:
            (folder / "measurement.jpg").write_bytes(compressed)
            save_picture(folder / "truth.png", truth)

        told = f"{words(photo.size)} pixels, quality {A.quality}, {len(compressed)} bytes"
        return Made(RepairJPEG(), photo.about, told, "measurement.jpg", write, tuple(notes))


@dataclass(frozen=True, kw_only=True)
class RepairJPEG(Task):
    """Remove the artifacts of a JPEG file, which tells its own quantisation tables."""

    name: ClassVar[str] = "jpeg"
    example: ClassVar[str] = "photo.jpg"
    auto: ClassVar[Choice] = Choice(
        "spectral-jpeg", "its samples lie in the cells of the file, and are calibrated"
    )
    best: ClassVar[Choice | None] = Choice(
        "pocs", "one picture in the cells of the file, by two evaluations"
    )
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "spectral-jpeg",
            lambda p: SpectralJPEG(inflation=INFLATION, schedule=Karras(12, 1.0, 0.01)),
            source="calibration.md",
        ),
        Preset("pocs", _projections, source="calibration.md"),
        Preset("ddrm-jpeg", lambda p: DDRMJPEG(schedule=start(p, 1.0, 20))),
        Preset("pigdm", lambda p: PiGDM(weight=0.4, schedule=start(p, 1.0, 20))),
        *EVERY_PHOTO,
    )

    def read(self, file: Path, prior: Prior) -> Measured:
        """The problem of removing the artifacts of a JPEG file.

        The blocks of 8 x 8 belong to the pixels as they are stored, so these are restored, and the
        results are turned by the EXIF orientation. A grey file is repeated in the channels of a
        colour prior. Raises InvdiffError when the file is no JPEG, or the prior has not the range
        of one.
        """
        d = decoded(file, prior)
        y, A, grey, photo = d.y, d.jpeg, d.grey, d.photo
        check_pixels(photo.size, str(file))
        problem = Problem(y, A, NOISELESS, tuple(y.shape[1:]))
        view = picture_view(photo, problem, prior.image_range, grey or y.shape[1] == 1, d.turn)
        return Measured(problem, view, d.about, "none but quantisation, which the file tells")

    @classmethod
    def simulation(cls) -> type[Simulation]:
        return MakeJPEG

    @classmethod
    def toy(cls, sigma: float = 0.0, size: Size = (16, 16)) -> Problem:
        return unmeasured(JPEG(10), GaussianNoise(sigma), (3, *size))


@dataclass(frozen=True, eq=False)
class DecodedFile:
    """A JPEG file, decoded. y: (1, C, H, W) on [-1, 1] as it is stored, C as the prior has them.

    grey: whether the file is. turn: its EXIF orientation. about: the file in words.
    """

    jpeg: JPEG
    photo: Photo
    y: Tensor
    grey: bool
    turn: int
    about: str


def decoded(file: Path, prior: Prior) -> DecodedFile:
    """What tasks of JPEG files begin with. Raises InvdiffError when the file is none, or the prior
    is not on [-1, 1], or of grey pictures where the file has colours."""
    check_file(file)
    jpeg, photo = JPEG.from_file(file), read_photo(file)
    if prior.image_range != (-1.0, 1.0):
        raise InvdiffError(f"JPEG files are on [-1, 1], but the prior is on {prior.image_range}.")
    found, channels = decode(file.read_bytes()), prior_channels(prior)
    grey = len(found) == 1
    if channels < len(found):
        raise InvdiffError(
            f"{file} has colours, but the prior is of grey pictures; save it as a grey JPEG, or "
            "give another --prior."
        )
    y = (found.float() / 127.5 - 1).expand(channels, -1, -1)[None].contiguous()
    tables = ", ".join(str(t[0]) for t in jpeg.tables or ())
    about = f"{photo.about}, steps of the mean {tables}"
    about += "" if grey else f", {jpeg.subsampling}"
    return DecodedFile(jpeg, photo, y, grey, orientation(file), about)


def orientation(path: Path) -> int:
    """The EXIF orientation of a file, 1 to 8."""
    with Image.open(path) as image:
        return orientation_of(image)[0]


def levels(pixels: Tensor) -> Tensor:
    """Pixels on [0, 1] as 8 bits."""
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8)
