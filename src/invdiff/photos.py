"""From a damaged photograph to a Problem in a prior's range, and from samples back to pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invdiff import zoo
from invdiff.core import InvdiffError, Problem
from invdiff.io import Photo, Range, check_pixels, from_range, luma, read_mask, to_range, words
from invdiff.kernels import read_kernel
from invdiff.noise import Gaussian, noise_from_detail
from invdiff.operators.base import Linear
from invdiff.priors.base import Prior

ROUNDING = 1 / (255 * math.sqrt(12))
"""Standard deviation on [0, 1] of the error that 8-bit rounding makes."""


@dataclass(frozen=True, eq=False)
class Damaged:
    """A photograph as a measurement.

    problem: in the prior's range. grey: whether samples are to be shown without colour.
    sigma: noise level on [0, 1]; how: where it comes from. notes: what was decided on the way.
    """

    problem: Problem
    grey: bool
    sigma: float
    how: str
    notes: tuple[str, ...] = ()


def damaged(
    photo: Photo, task: str, options: Mapping[str, Any], sigma: float | str | None, prior: Prior
) -> Damaged:
    """The problem of restoring a photograph.

    options: of the task, as users write them: mask (a file), scale, downsampling, kernel (a spec or
    file), boundary. sigma: noise level on [0, 1]; "estimate" measures it; None is what rounding to
    8 bits makes.
    A grey photograph is repeated in the three channels of a colour prior. Its noise is then the
    same in all of them, which counts as noise of sqrt(3) sigma that is different in each: for grey
    images the two have the same likelihood.
    Raises InvdiffError when an option is missing, belongs to another task or does not fit.
    """
    kind, notes = zoo.task(task), []
    options = check_options(kind, options)
    channels = prior.shape[0] if prior.shape and prior.shape[0] else 3
    pixels, grey, repeats = photo.pixels, False, 1
    if kind.channels == 1 or channels == 1:
        if not photo.grey:
            notes.append("the picture has colours: its Rec. 601 luma is used")
            pixels = luma(pixels)
        grey = channels == 1
    elif photo.grey:
        pixels, grey, repeats = pixels.expand(channels, -1, -1), True, channels
    if "scale" in options and options["scale"] > min(photo.size):
        raise InvdiffError(
            f"A scale of {options['scale']} is larger than the image of {words(photo.size)} pixels."
        )
    size = kind.image_size(photo.size, options)
    check_pixels(size, "The restored picture")
    values = read_options(options, photo.size)
    A = kind.operator(size, values)
    known = values["mask"][0, 0] if "mask" in values else None
    level, how = noise_level(sigma, pixels[:1] if repeats > 1 else pixels, known)
    noise = Gaussian.on_unit_range(level * math.sqrt(repeats), prior.value_range)
    y = to_range(pixels, prior.value_range)[None].contiguous()
    y = y - beyond(A, (channels, *size), prior.value_range)
    return Damaged(Problem(y, A, noise, (channels, *size)), grey, level, how, tuple(notes))


def beyond(A: Linear, x_shape: tuple[int, ...], value_range: Range) -> Tensor:
    """What a zero boundary adds to a measurement: 0 is black there, but not in a prior's range.

    With black at `low`, blurring the photograph is A(x) + low (1 - A(1)).
    """
    if getattr(A, "boundary", "") != "zero":
        return torch.zeros(1, 1, 1, 1)
    return value_range[0] * (1 - A(torch.ones(1, *x_shape)))


def check_options(kind: zoo.Task, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a task but `sigma`; those left out have their defaults.

    Raises InvdiffError for an option of another task, one that is missing, and a bad scale.
    """
    takes = [f"--{name}" for name in kind.options] or ["no options"]
    for name in given:
        if name not in kind.options:
            raise InvdiffError(
                f"--{name} does not belong to {kind.name}, which takes {', '.join(takes)}."
            )
    options = {**kind.defaults, **given}
    for name, meaning in kind.options.items():
        if name not in options and name != "sigma":
            raise InvdiffError(f"{kind.name} needs --{name}: {meaning}.")
    if "scale" in options and not (isinstance(options["scale"], int) and options["scale"] >= 2):
        raise InvdiffError(f"--scale is a whole number of 2 or more, found {options['scale']}.")
    return options


def read_options(options: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Options with the mask and the kernel read from what names them, for a picture of size."""
    values = dict(options)
    if isinstance(values.get("mask"), str):
        values["mask"] = read_mask(values["mask"], size)
    if isinstance(values.get("kernel"), str):
        values["kernel"] = read_kernel(values["kernel"], size)
    return values


def noise_level(
    sigma: float | str | None, pixels: Tensor, known: Tensor | None
) -> tuple[float, str]:
    """Noise level on [0, 1], and where it comes from in words."""
    if sigma is None:
        return ROUNDING, "rounding to 8 bits; if the photo is noisier, give --noise estimate"
    if sigma == "estimate":
        return max(estimate_sigma(pixels, known), ROUNDING), "estimated from the photo"
    return Gaussian(float(sigma)).sigma, "as given"


def estimate_sigma(pixels: Tensor, known: Tensor | None = None) -> float:
    """Noise level of (C, H, W) by `noise_from_detail`; known: (H, W), the measured pixels.

    Raises InvdiffError, with the flag to give, where there are fewer than 64 blocks of pixels.
    """
    try:
        return noise_from_detail(pixels, known).sigma
    except InvdiffError as error:
        raise InvdiffError(str(error).replace("give its", "give --noise with its")) from None


def shown(x: Tensor, grey: bool, value_range: Range) -> Tensor:
    """Images (..., C, H, W) in a prior's range as pixels on [0, 1]; grey ones as their mean."""
    x = from_range(x, value_range)
    return x.mean(-3, keepdim=True) if grey else x
