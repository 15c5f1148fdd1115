"""From a damaged photograph to a Problem in a prior's range, and from samples back to pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invdiff.core import InvdiffError, Problem
from invdiff.io import Photo, Range, check_pixels, from_range, luma, read_mask, to_range, words
from invdiff.kernels import read_kernel
from invdiff.noise import Gaussian
from invdiff.operators.base import Operator
from invdiff.photo_noise import supposed
from invdiff.priors.base import Prior
from invdiff.tasks import Margin, check_level, check_options, with_margin
from invdiff.tasks import task as task_called


@dataclass(frozen=True, eq=False)
class Damaged:
    """A photograph as a measurement.

    problem: in the prior's range. grey: whether samples are to be shown without colour.
    margin: pixels of the unknown image around those to be shown.
    sigma: noise level on [0, 1]; how: where it comes from. notes: what was decided on the way.
    """

    problem: Problem
    grey: bool
    sigma: float
    how: str
    notes: tuple[str, ...] = ()
    margin: Margin = (0, 0, 0, 0)

    @property
    def noise(self) -> str:
        """The noise in words."""
        if not isinstance(self.problem.noise, Gaussian):
            return self.how
        return f"{self.sigma:.4f} where black is 0 and white is 1: {self.how}"


def damaged(
    photo: Photo, task: str, options: Mapping[str, Any], sigma: float | str | None, prior: Prior
) -> Damaged:
    """The problem of restoring a photograph.

    options: of the task, as users write them: mask (a file), scale, downsampling, kernel (a spec or
    file), boundary. sigma: noise level on [0, 1]; "estimate" measures it, "correlated"
    its spectrum; None takes what `photo_noise.supposed` tells.
    A grey photograph is repeated in the three channels of a colour prior. Its noise is then the
    same in all of them, which counts as noise of sqrt(3) sigma that is different in each: for grey
    images the two have the same likelihood.
    Raises InvdiffError when an option is missing, belongs to another task or does not fit.
    """
    kind, notes = task_called(task), []
    options = check_options(kind, options)
    channels = prior_channels(prior)
    if kind.centred and prior.image_range != (-1.0, 1.0):
        raise InvdiffError(f"{kind.name} needs a prior on [-1, 1], not on {prior.image_range}.")
    pixels, grey, repeats = photo.pixels, False, 1
    if kind.channels == 1 or channels == 1:
        if not kind.luma and not photo.grey:
            raise InvdiffError(
                f"{kind.name} takes the raw values of a sensor, one for each pixel, but this "
                "picture has colours."
            )
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
    values = read_options(options, photo.size)
    shown_size = kind.image_size(photo.size, options)
    margin = kind.margin(values)
    if any(margin) and not takes(prior, with_margin(shown_size, margin)):
        values, margin = {**values, "boundary": "reflect"}, (0, 0, 0, 0)
        notes.append(
            f"the prior {prior.name} has no room for an unknown margin: the edge is reflected"
        )
    size = with_margin(shown_size, margin)
    check_pixels(size, "The restored picture")
    A = kind.operator(size, values)
    check_level(kind, sigma)
    found = supposed(photo, pixels[:1] if repeats > 1 else pixels, kind, values, sigma)
    level, how = found.sigma, found.how
    notes += found.notes
    noise = kind.noise(level, options, prior.image_range, repeats)
    if found.field is not None:
        low, high = prior.image_range
        noise = found.field.scaled((high - low) * math.sqrt(repeats))
    y = to_range(pixels, prior.image_range)[None].contiguous()
    y = y - beyond(A, (channels, *size), prior.image_range)
    if "peak" in options:
        how = f"that of {options['peak']:g} photons in a white pixel"
        if "readout" in options:
            how += f", and read noise of {options['readout']:g} photons"
        elif bool((photo.pixels < 0).any()):
            raise InvdiffError(
                f"{int((photo.pixels < 0).sum())} values of the picture are below black, which "
                "photons cannot make; tell the read noise with --readout, or raise the picture so "
                "that black is 0."
            )
    problem = Problem(y, A, noise, (channels, *size))
    return Damaged(problem, grey, level, how, tuple(notes), margin)


def prior_channels(prior: Prior) -> int:
    """Channels of a prior's pictures: 1, or 3, also where it takes any number.

    Raises InvdiffError for other priors, as that of complex images: their channels are no colours.
    """
    channels = (prior.image_shape or (None,))[0] or 3
    if channels not in (1, 3):
        raise InvdiffError(
            f"The prior {prior.name} has {channels} channels; pictures need one of 1 (grey) or 3 "
            "(colours)."
        )
    return channels


def takes(prior: Prior, size: tuple[int, int]) -> bool:
    """Whether a prior is of pictures of this size: not if it has another, or has latents, whose
    pictures are multiples of 8 pixels or more."""
    shape = (prior.image_shape or (None, None, None))[-2:]
    fits = all(want in (None, have) for want, have in zip(shape, size, strict=True))
    return fits and prior.autoencoder is None


def beyond(A: Operator, x_shape: tuple[int, ...], value_range: Range) -> Tensor:
    """What a zero boundary adds to a measurement: 0 is black there, but not in a prior's range.

    With black at `low`, blurring the photograph is A(x) + low (1 - A(1)).
    """
    if getattr(A, "boundary", "") != "zero":
        return torch.zeros(1, 1, 1, 1)
    return value_range[0] * (1 - A(torch.ones(1, *x_shape)))


def read_options(options: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Options with the mask and the kernel read from what names them, for a picture of size."""
    values = dict(options)
    if isinstance(values.get("mask"), str):
        values["mask"] = read_mask(values["mask"], size)
    if isinstance(values.get("kernel"), str):
        values["kernel"] = read_kernel(values["kernel"], size)
    return values


def shown(x: Tensor, grey: bool, value_range: Range) -> Tensor:
    """Images (..., C, H, W) in a prior's range as pixels on [0, 1]; grey ones as their mean."""
    x = from_range(x, value_range)
    return x.mean(-3, keepdim=True) if grey else x
