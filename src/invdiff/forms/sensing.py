"""Compressed sensing as a measurement: coefficients in .npz or .npy files, pictures out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError, Problem
from invdiff.forms.base import Level, Made, Measured
from invdiff.forms.photo import PhotoView, clean_pixels
from invdiff.forms.sensing_files import LARGEST, Sensed, check_belongs, check_kind, read_sensed
from invdiff.io import check_pixels, read_photo, save_picture, words
from invdiff.noise import Gaussian
from invdiff.operators.dct import DCTSubsampling
from invdiff.operators.sampling import gaussian_points
from invdiff.operators.single_pixel import SinglePixel
from invdiff.photos import prior_channels, shown
from invdiff.priors.base import Prior
from invdiff.rng import Rng
from invdiff.tasks import Task

LOWEST = 8
"""`degrade` measures so many of the lowest cosines along each side, besides the random ones."""


@dataclass(frozen=True, eq=False)
class SensingView(PhotoView):
    """Pictures, beside what the coefficients alone tell."""

    def measurement(self, problem: Problem) -> list[tuple[str, Tensor]]:
        """The pseudo-inverse; what was not measured is that of middle grey."""
        least = problem.linear.pinv(problem.y)[0]
        return [("pseudo-inverse", shown(least, self.grey, self.value_range).clamp(0, 1))]


def read(task: Task, path: str, options: Mapping[str, Any], noise: Level, prior: Prior) -> Measured:
    """The problem of finding a picture from some coefficients of a transform of it.

    A file has those of the picture on [0, 1]. Readings of a single pixel through a pattern and its
    complement are subtracted: the difference is a Walsh-Hadamard coefficient. One channel is
    repeated in those of a colour prior, as for photographs.
    """
    if noise == "estimate":
        raise InvdiffError("The noise of coefficients is not estimated; give --noise as a number.")
    s = read_sensed(path, options)
    check_pixels(s.size, "The picture")
    level = s.noise if noise is None else float(noise)
    if level is None:
        raise InvdiffError(
            f"{path} does not tell its noise; give --noise, the standard deviation of a number in "
            "the file for a picture on [0, 1], or 0."
        )
    A, y, sigma = s.operator, s.y, Gaussian(level).sigma
    notes = [*s.facts]
    if isinstance(A, SinglePixel):
        y, sigma = A.difference(y), sigma * math.sqrt(2 * s.size[0] * s.size[1])
        A = A.base
        notes.append("readings through each pattern and its complement are subtracted")
    channels = prior_channels(prior)
    if len(y) not in (1, channels):
        raise InvdiffError(
            f"{path} has {len(y)} channels, but the prior has {channels}; give another --prior."
        )
    grey, repeats = len(y) == 1, channels // len(y)
    low, high = prior.image_range
    y = y.expand(channels, *y.shape[1:])[None].contiguous()
    x_shape = (channels, *s.size)
    y = (high - low) * y + low * A(torch.ones(1, *x_shape))
    model = Gaussian.on_unit_range(sigma * math.sqrt(repeats), prior.image_range)
    told = f"{level:g} in each number, for a picture on [0, 1]: "
    told += "as the file tells" if noise is None else "as given"
    problem = Problem(y, A, model, x_shape)
    return Measured(problem, SensingView(prior.image_range, grey), s.about, told, tuple(notes))


def make(task: Task, path: str, options: Mapping[str, Any], noise: float, seed: int) -> Made:
    """Some coefficients of a picture: measurement.npz, which describes itself, and truth.png.

    The picture is cut to the sides that the transform takes, in the middle.
    """
    photo = read_photo(path)
    truth, notes = clean_pixels(photo)
    kind, block = options["kind"], options["block"]
    check_kind(kind)
    check_belongs(kind, (k for k, v in options.items() if v != task.making_defaults[k]))
    size = _sides(kind, block, photo.size)
    if size != photo.size:
        top, left = ((have - n) // 2 for have, n in zip(photo.size, size, strict=True))
        truth = truth[:, top : top + size[0], left : left + size[1]].contiguous()
        notes.append(f"cut to the {words(size)} pixels in the middle, as {kind} needs")
    s = _described(kind, options, size, seed)
    A = s.operator
    z = A(truth[None])
    y = A.restrict(Gaussian(noise).sample(z, Rng.of(seed)))[0]
    s = dataclasses.replace(s, y=y, noise=noise)

    def write(folder: Path) -> None:
        np.savez(folder / "measurement.npz", **s.arrays())
        save_picture(folder / "truth.png", truth)

    told = (
        f"{kind}, {s.count} numbers of {words(size)} pixels, ratio {s.ratio:.3g}, noise {noise:g}"
    )
    return Made(photo.about, told, "measurement.npz", {}, {}, write, tuple(notes))


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


def _described(kind: str, options: Mapping[str, Any], size: tuple[int, int], seed: int) -> Sensed:
    """A measurement that is to be made, without its numbers."""
    ratio, pixels = options["ratio"], size[0] * size[1]
    if not 0 < ratio <= 1:
        raise InvdiffError(f"--ratio is the share that is measured, above 0 to 1, found {ratio:g}.")
    mask, keep = None, max(1, round(ratio * pixels))
    if kind == "dct":
        mask = DCTSubsampling.random(size, ratio, seed, min(LOWEST, *size)).mask[0, 0]
    elif kind == "fourier":
        mask = gaussian_points(size, 1 / ratio, seed)[0, 0]
    elif kind == "gaussian":
        keep = max(1, round(ratio * options["block"] ** 2))
    return Sensed.of(kind, size, keep, seed, options["order"], options["block"], mask)
