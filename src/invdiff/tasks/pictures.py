"""Pictures in and out of a prior's range, and how they are seen and saved."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.files.metadata import Metadata
from invdiff.files.pictures import Photo, Range, from_range, save_picture, words
from invdiff.operators.algebra import Operator
from invdiff.operators.inpaint import Inpaint
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.tasks.base import View
from invdiff.tasks.validity import unmasked
from invdiff.tasks.values import Size

Margin = tuple[int, int, int, int]
"""Pixels above, below, left and right of a photograph."""
NO_MARGIN: Margin = (0, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class PhotoView(View):
    """Samples as pictures, with what of the photo is put into them as it is.

    grey: without colour. alpha: transparency, (H, W) uint8. icc: the colour profile, bytes as
    uint8. turn: the EXIF orientation by which results are turned upright. margin: pixels around the
    photo that are restored with it and cut off. kept: pixels that are shown as they were measured,
    (H, W) bool, and measured: their values on [0, 1], (C, H, W), before they are turned. depth:
    bits of the photo's numbers: 8 and 16 are written so, 32, floating point, with 16 and as an
    array beside, whose black and white are those of span. exif and text: what the photo's file said
    beside its pixels, bytes as uint8 (text: JSON in UTF-8).
    """

    value_range: Range = (-1.0, 1.0)
    grey: bool = False
    alpha: Tensor | None = None
    icc: Tensor | None = None
    turn: int = 1
    margin: Margin = NO_MARGIN
    kept: Tensor | None = None
    measured: Tensor | None = None
    depth: int = 8
    span: Range = (0.0, 1.0)
    exif: Tensor | None = None
    text: Tensor | None = None

    @property
    def beside(self) -> str:
        if self.depth != 32:
            return ""
        return "beside each picture lies a .npy of the same name, in the numbers of the file"

    def size(self, x_shape: tuple[int, ...]) -> Size:
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
        y = y + beyond(unmasked(A), problem.x_shape, self.value_range)[0]
        pixels = from_range(y, self.value_range)
        if isinstance(A, Inpaint):
            pixels = torch.where(A.mask[0].bool(), pixels, 0.5)
        elif unmasked(A) is not A:
            pixels = torch.where(A.restrict(torch.ones_like(problem.y[:1]))[0] > 0, pixels, 0.5)
        pixels = pixels.mean(0, keepdim=True) if self.grey else pixels
        return [("input", upright(pixels, self.turn))]

    def save(self, folder: Path, name: str, values: Tensor) -> None:
        path, metadata = folder / f"{name}.png", Metadata(_bytes(self.exif), self._texts())
        save_picture(path, values, self.alpha, _bytes(self.icc), self.depth, metadata)
        if self.depth == 32:
            low, high = self.span
            array = low + (high - low) * values.permute(1, 2, 0).squeeze(2).double()
            np.save(folder / f"{name}.npy", array.float().numpy())

    def _texts(self) -> dict[str, str]:
        text = _bytes(self.text)
        return {} if text is None else dict(json.loads(text.decode("utf-8")))


def _bytes(value: Tensor | None) -> bytes | None:
    return None if value is None else value.numpy().tobytes()


def as_tensor(value: bytes | None) -> Tensor | None:
    """Bytes as uint8, as views keep them."""
    return torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else None


def picture_view(
    photo: Photo,
    problem: Problem,
    value_range: Range,
    grey: bool,
    turn: int = 1,
    margin: Margin = NO_MARGIN,
    of: type[PhotoView] | None = None,
) -> PhotoView:
    """The view of a photograph's restoration, which keeps what its file says; of: its class."""
    text = json.dumps(photo.metadata.text).encode() if photo.metadata.text else None
    return (of or PhotoView)(
        value_range,
        grey,
        photo.alpha,
        profile(photo, problem, grey),
        turn,
        margin,
        depth=photo.depth,
        span=photo.span if photo.depth == 32 else (0.0, 1.0),
        exif=as_tensor(photo.metadata.exif),
        text=as_tensor(text),
    )


def upright(pixels: Tensor, turn: int) -> Tensor:
    """Pixels (..., H, W) as they are seen, from those stored with an EXIF orientation of 1 to 8."""
    if turn in (5, 6, 7, 8):
        pixels = pixels.mT
    axes = {2: (-1,), 3: (-2, -1), 4: (-2,), 6: (-1,), 7: (-2, -1), 8: (-2,)}.get(turn, ())
    return pixels.flip(axes) if axes else pixels


def profile(photo: Photo, problem: Problem, grey: bool) -> Tensor | None:
    """The colour profile of the photo, where the results have the same channels."""
    if photo.icc and photo.grey == (grey or problem.x_shape[0] == 1):
        return as_tensor(photo.icc)
    return None


def with_margin(size: Size, margin: Margin) -> Size:
    """(height, width) of a photograph together with its margin."""
    above, below, left, right = margin
    return size[0] + above + below, size[1] + left + right


def without_margin(pixels: Tensor, margin: Margin) -> Tensor:
    """Pixels (..., H, W) with their margin cut off."""
    above, below, left, right = margin
    return pixels[..., above : pixels.shape[-2] - below, left : pixels.shape[-1] - right]


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


def takes(prior: Prior, size: Size) -> bool:
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


def shown(x: Tensor, grey: bool, value_range: Range) -> Tensor:
    """Images (..., C, H, W) in a prior's range as pixels on [0, 1]; grey ones as their mean."""
    x = from_range(x, value_range)
    return x.mean(-3, keepdim=True) if grey else x


def clean_pixels(photo: Photo, scale: int = 1) -> tuple[Tensor, list[str]]:
    """Pixels of a clean photo, cut to multiples of the scale, and what was done to them."""
    check_scale(scale, photo)
    height, width = (side // scale * scale for side in photo.size)
    notes = []
    if photo.alpha is not None and int(photo.alpha.min()) < torch.iinfo(photo.alpha.dtype).max:
        notes.append("the transparency is left out, hidden pixels are filled")
    if (height, width) != photo.size:
        notes.append(f"cut to {words((height, width))}, a multiple of the scale")
    pixels = photo.pixels[:, :height, :width]
    numbers = photo.valid is None or photo.alpha is not None
    if not (numbers and bool(torch.isfinite(pixels).all())):
        raise InvdiffError("The picture holds NaN or infinite values; replace them.")
    return pixels, notes


def check_scale(scale: int, photo: Photo) -> None:
    """Raise InvdiffError for a factor beyond the picture."""
    if scale > min(photo.size):
        raise InvdiffError(
            f"A scale of {scale} is larger than the image of {words(photo.size)} pixels."
        )
