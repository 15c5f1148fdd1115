"""Compressed sensing: some coefficients of a picture, in .npz or .npy files, pictures out."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.option import option
from invdiff.core.rng import Rng
from invdiff.files.pictures import check_pixels, read_photo, save_picture, words
from invdiff.noise import GaussianNoise
from invdiff.operators.dct import DCTSubsampling
from invdiff.operators.sampling import gaussian_points
from invdiff.operators.sensing import WalshHadamard
from invdiff.operators.single_pixel import SinglePixel
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.problem.toys import unmeasured
from invdiff.scans.sensing import BELONGS, LARGEST, Sensed, check_belongs, read_sensed
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.diffpir import DiffPIR
from invdiff.solvers.mmps import MMPS
from invdiff.tasks.base import (
    Choice,
    Made,
    Measured,
    Preset,
    Simulation,
    Task,
    told_level,
)
from invdiff.tasks.pictures import PhotoView, clean_pixels, prior_channels, shown
from invdiff.tasks.presets import DRAWS, SPLITS, calibrated, split, start
from invdiff.tasks.values import ImageSize, NoiseLevel, Numbers, Size

Kind = Literal["hadamard", "gaussian", "dct", "fourier", "single-pixel"]
Order = Literal["sequency", "natural", "random"]
LOWEST = 8
"""`degrade` measures so many of the lowest cosines along each side, besides the random ones."""


@dataclass(frozen=True, eq=False)
class SensingView(PhotoView):
    """Pictures, beside what the coefficients alone tell."""

    def measurement(self, problem: Problem) -> list[tuple[str, Tensor]]:
        """The pseudo-inverse; what was not measured is that of middle grey."""
        least = problem.linear.pinv(problem.y)[0]
        return [("pseudo-inverse", shown(least, self.grey, self.value_range).clamp(0, 1))]


@dataclass(frozen=True, kw_only=True)
class MakeSensing(Simulation):
    """Measure some coefficients of a picture."""

    noise: NoiseLevel | None = option(
        "level to add to each number, for a picture on [0, 1]; of a reading of single-pixel, which "
        "is 1 for a white picture and all mirrors on",
        None,
    )
    kind: Kind = option("of the transform", "hadamard")
    ratio: float = option("measured coefficients for each pixel", 0.25)
    order: Order = option("of Walsh-Hadamard patterns; sequency has coarse ones first", "sequency")
    block: int = option("side of the blocks of gaussian, in pixels", 32)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.ratio <= 1:
            raise InvdiffError(
                f"--ratio is the share that is measured, above 0 to 1, found {self.ratio:g}."
            )
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        check_belongs(self.kind, (k for k in BELONGS if getattr(self, k, None) != defaults.get(k)))

    def make(self, file: Path, out: Path, seed: int) -> Made:
        """measurement.npz, which describes itself, and truth.png.

        The picture is cut to the sides that the transform takes, in the middle.
        """
        photo, level = read_photo(file), told_level(self.noise)
        truth, notes = clean_pixels(photo)
        size = _sides(self.kind, self.block, photo.size)
        if size != photo.size:
            top, left = ((have - n) // 2 for have, n in zip(photo.size, size, strict=True))
            truth = truth[:, top : top + size[0], left : left + size[1]].contiguous()
            notes.append(f"cut to the {words(size)} pixels in the middle, as {self.kind} needs")
        s = self._described(size, seed)
        A = s.operator
        z = A(truth[None])
        y = A.restrict(GaussianNoise(level).sample(z, Rng.of(seed)))[0]
        s = dataclasses.replace(s, y=y, noise=level)

        def write(folder: Path) -> None:
            np.savez(folder / "measurement.npz", **s.arrays())
            save_picture(folder / "truth.png", truth)

        told = f"{self.kind}, {s.count} numbers of {words(size)} pixels, ratio {s.ratio:.3g}, "
        told += f"noise {level:g}"
        return Made(CompressedSensing(), photo.about, told, "measurement.npz", write, tuple(notes))

    def _described(self, size: Size, seed: int) -> Sensed:
        """A measurement that is to be made, without its numbers."""
        mask, keep = None, max(1, round(self.ratio * size[0] * size[1]))
        if self.kind == "dct":
            mask = DCTSubsampling.random(size, self.ratio, seed, min(LOWEST, *size)).mask[0, 0]
        elif self.kind == "fourier":
            mask = gaussian_points(size, 1 / self.ratio, seed)[0, 0]
        elif self.kind == "gaussian":
            keep = max(1, round(self.ratio * self.block**2))
        return Sensed.of(self.kind, size, keep, seed, self.order, self.block, mask)


@dataclass(frozen=True, kw_only=True)
class CompressedSensing(Task):
    """Find a picture from few coefficients of it, or from readings of a single pixel.

    A file has those of the picture on [0, 1]. Readings of a single pixel through a pattern and its
    complement are subtracted: the difference is a Walsh-Hadamard coefficient.
    """

    name: ClassVar[str] = "compressed-sensing"
    example: ClassVar[str] = "measurement.npz"
    auto: ClassVar[Choice] = Choice("spectral-ancestral", DRAWS)
    best: ClassVar[Choice | None] = Choice("hqs", SPLITS)
    presets: ClassVar[tuple[Preset, ...]] = (
        calibrated(14, 5.0),
        split(30, 1.0, 0.02),
        Preset("diffpir", lambda p: DiffPIR(zeta=1.0, schedule=start(p, 5.0, 40))),
        Preset("mmps", lambda p: MMPS(schedule=start(p, 3.0, 12, 0.01))),
        Preset("ddrm", lambda p: DDRM(eta_prop=1.0, schedule=start(p, 5.0, 40, 0.01))),
    )

    noise: NoiseLevel | None = option(
        "standard deviation of each number, for a picture on [0, 1]; else as the file tells", None
    )
    kind: Kind | None = option("of the transform, where the file does not tell", None)
    size: ImageSize | None = option("of the picture, where the file does not tell", None)
    order: Order | None = option("of Walsh-Hadamard patterns", None)
    pattern_seed: int | None = option("of random patterns, that of `degrade`", None)
    block: int | None = option("side of the blocks of gaussian, in pixels; 32 unless told", None)
    mask: Numbers | None = option(
        "file (.npy) with 1 where a coefficient of dct or fourier was measured; without it, where "
        "it is not 0",
        None,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise is not None and self.noise.word:
            raise InvdiffError(
                "The noise of coefficients is not estimated; give --noise as a number."
            )

    def read(self, file: Path, prior: Prior) -> Measured:
        """The problem of finding a picture from some coefficients of a transform of it.

        One channel is repeated in those of a colour prior, as for photographs.
        """
        s = read_sensed(file, self._given())
        check_pixels(s.size, "The picture")
        level = s.noise if self.noise is None else self.noise.sigma
        if level is None:
            raise InvdiffError(
                f"{file} does not tell its noise; give --noise, the standard deviation of a number "
                "in the file for a picture on [0, 1], or 0."
            )
        A, y, sigma = s.operator, s.y, GaussianNoise(level).sigma
        notes = [*s.facts]
        if isinstance(A, SinglePixel):
            y, sigma = A.difference(y), sigma * math.sqrt(2 * s.size[0] * s.size[1])
            A = A.base
            notes.append("readings through each pattern and its complement are subtracted")
        channels = prior_channels(prior)
        if len(y) not in (1, channels):
            raise InvdiffError(
                f"{file} has {len(y)} channels, but the prior has {channels}; give another --prior."
            )
        grey, repeats = len(y) == 1, channels // len(y)
        low, high = prior.image_range
        y = y.expand(channels, *y.shape[1:])[None].contiguous()
        x_shape = (channels, *s.size)
        y = (high - low) * y + low * A(torch.ones(1, *x_shape))
        model = GaussianNoise.on_unit_range(sigma * math.sqrt(repeats), prior.image_range)
        told = f"{level:g} in each number, for a picture on [0, 1]: "
        told += "as the file tells" if self.noise is None else "as given"
        problem = Problem(y, A, model, x_shape)
        return Measured(problem, SensingView(prior.image_range, grey), s.about, told, tuple(notes))

    def _given(self) -> dict[str, Any]:
        """What was told of the numbers."""
        found: dict[str, Any] = {"kind": self.kind, "order": self.order, "block": self.block}
        found["seed"] = self.pattern_seed
        found["size"] = None if self.size is None else self.size.size
        found["mask"] = None if self.mask is None else self.mask.read()
        return {k: v for k, v in found.items() if v is not None}

    @classmethod
    def simulation(cls) -> type[Simulation]:
        return MakeSensing

    @classmethod
    def toy(cls, sigma: float = 0.05, size: Size = (16, 16)) -> Problem:
        return unmeasured(WalshHadamard(64, (16, 16)), GaussianNoise(sigma), (3, 16, 16))


def _sides(kind: str, block: int, size: tuple[int, int]) -> tuple[int, int]:
    """The largest sides within size that the transform takes."""
    if kind in ("hadamard", "single-pixel"):
        return 1 << (size[0].bit_length() - 1), 1 << (size[1].bit_length() - 1)
    if kind != "gaussian":
        return size
    if not 1 <= block <= min(*size, LARGEST):
        raise InvdiffError(
            f"--block is from 1 to {LARGEST} and to the smaller side of the picture, {min(size)}, "
            f"found {block}."
        )
    return size[0] // block * block, size[1] // block * block
