"""Which noise a photograph is taken to have: what a task supposes of a file, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from invdiff.core import WARNING, InvdiffError
from invdiff.files.pictures import Photo
from invdiff.noise import GaussianNoise, StationaryGaussian, noise_from_detail
from invdiff.noise.bands import correlated_floors, noise_spectrum
from invdiff.noise.flat import colour_axes, noise_floors, unclipped
from invdiff.operators.jpeg_error import noise_from_tables

if TYPE_CHECKING:
    from invdiff.tasks.photo import PhotoTask

ROUNDING = 1 / (255 * math.sqrt(12))
"""Standard deviation on [0, 1] of the error that 8-bit rounding makes."""
FLOAT = 1e-4
"""Level of numbers that were not rounded to 8 or 16 bits: small, and yet a noise level."""
SHARP = 0.045
"""Detail, by `noise_from_detail`, that none of 150 clean photographs exceeded, as they are, or made
two or four times smaller: one of 100 has 0.035, half of them 0.009."""

WHITE = 1.5
"""Ratio of the floors at the second and at the finest scale below which noise is white: on
photographs with white noise it is 1.0 to 1.4."""


@dataclass(frozen=True)
class Supposed:
    """A noise level on [0, 1], where it comes from in words, and what else was seen.

    field: correlated noise, which stands in place of white noise of sigma.
    """

    sigma: float
    how: str
    notes: tuple[str, ...] = ()
    field: StationaryGaussian | None = None


def supposed(photo: Photo, pixels: Tensor, task: PhotoTask) -> Supposed:
    """The noise of a photograph, for a task, by the level that the task was told.

    pixels: (1 or 3, H, W) on [0, 1], as they are measured. "estimate" asks for `noise_from_detail`,
    texture and all; no level takes the largest of what rounding, the detail beyond a sharp
    photograph's own texture, the tables of a JPEG file and the task's own floor say. "correlated"
    takes `noise_spectrum`.
    """
    told = task.level
    mask = task.known(photo.size)
    known = None if mask is None else mask[0, 0].bool()
    if photo.valid is not None:
        valid = photo.valid.all(0)
        known = valid if known is None else known & valid
    if told is not None and told.word == "correlated":
        if photo.valid is not None:
            raise InvdiffError(
                f"{int((~valid).sum())} pixels of the picture are transparent or no numbers, and "
                "correlated noise is told by pictures without gaps; give --noise with a level, or "
                "crop them."
            )
        return _correlated(pixels)
    if told is not None and not told.word:
        sigma = GaussianNoise(told.sigma).sigma
        return Supposed(sigma, "as given", _louder(pixels, task, photo, sigma))
    terms = [_rounding(photo.pixels, known)]
    if told is not None:
        terms.append((estimate_sigma(pixels, known), "estimated from the photo's finest detail"))
    else:
        # the rounding of a flat part is a floor too, and no other noise
        terms += [d for d in _detail(pixels, task, photo) if d[0] > 2 * terms[0][0]]
    tables = noise_from_tables(photo.path, len(pixels) == 1) if photo.path else None
    if tables is not None:
        terms.append((tables.sigma, "what the quantisation of the JPEG file lost"))
    if told is None and task.least > 0:
        terms.append((task.least, f"the least that is supposed for {task.name}, as no model fits"))
    terms.sort(key=lambda term: -term[0])
    others = "".join(f"; {how}: {sigma:.4f}" for sigma, how in terms[1:])
    warned = _warned(pixels, task) if photo.valid is None else ()
    return Supposed(terms[0][0], terms[0][1] + others, warned)


def _louder(pixels: Tensor, task: PhotoTask, photo: Photo, sigma: float) -> tuple[str, ...]:
    """The note that the photo itself shows more than twice the noise that was told."""
    found = [d for d in _detail(pixels, task, photo) if d[0] > max(2 * sigma, 4 * ROUNDING)]
    if not found:
        return ()
    level, how = max(found)
    return (
        f"{WARNING}the photo shows noise of {level:.4f} ({how}), more than twice what was told",
    )


def _correlated(pixels: Tensor) -> Supposed:
    """Noise by its spectrum."""
    field = noise_spectrum(pixels)
    scales = ", ".join(f"1/{round(1 / f)}" for f in field.frequencies)
    rows = [", ".join(f"{s:.4f}" for s in row) for row in field.sigmas]
    how = f"correlated, {rows[0]} at {scales} cycles per pixel"
    how += f" in brightness, {rows[1]} in colour differences" if len(rows) > 1 else ""
    return Supposed(field.level, how + "; from the photo's flattest parts", (), field)


def _warned(pixels: Tensor, task: PhotoTask) -> tuple[str, ...]:
    """The note that the noise is correlated, where it is and the task can take it."""
    floors = correlated_floors(pixels) if task.stationary else None
    if floors is None:
        return ()
    return (
        f"the noise looks correlated: {floors[0]:.4f} at the finest scale, but {floors[1]:.4f} at "
        "twice that scale; --noise correlated supposes its spectrum",
    )


def _rounding(pixels: Tensor, known: Tensor | None) -> tuple[float, str]:
    """What the values themselves say about the number of bits that they were rounded to."""
    values = pixels if known is None else pixels[:, known.bool()]
    values = values[torch.isfinite(values)].double()
    for bits in (8, 16):
        levels = (2**bits - 1) * values
        # float32 holds 65535 x to 0.004
        if bool(((levels - levels.round()).abs() < 0.02).all()):
            return 255 * ROUNDING / (2**bits - 1), f"rounding to {bits} bits"
    return FLOAT, "floating-point numbers, so no rounding to 8 bits"


def _detail(pixels: Tensor, task: PhotoTask, photo: Photo) -> list[tuple[float, str]]:
    """(level, reason) of what the detail of a photograph says, as far as it can be trusted."""
    kept = task.texture(photo.size)
    if kept is None:
        return []
    step, found = task.stride, []
    valid = None if photo.valid is None else photo.valid.all(0)
    parts = [(i, j) for i in range(step) for j in range(step)]
    planes = [pixels[:, i::step, j::step] for i, j in parts]
    masks = [None if valid is None else valid[i::step, j::step] for i, j in parts]
    pairs = list(zip(planes, masks, strict=True))
    floors = [floor for plane, mask in pairs if (floor := noise_floor(plane, mask)) > 0]
    if 2 * len(floors) >= len(planes):
        level = math.sqrt(sum(f**2 for f in floors) / len(floors))
        found.append((level, "the noise of the photo's flattest parts"))
    try:
        squares = [noise_from_detail(plane, mask).sigma ** 2 for plane, mask in pairs]
    except InvdiffError:  # too few pixels
        return found
    excess = sum(squares) / len(squares) - (kept * SHARP) ** 2
    if excess > 0:
        found.append((math.sqrt(excess), "the photo's finest detail, beyond what texture makes"))
    return found


def noise_floor(pixels: Tensor, known: Tensor | None = None) -> float:
    """Level of the white noise in the flattest parts of (C, H, W); 0 where there is none.

    known: (H, W), the measured pixels.
    In colours that of the colour differences, which noise has and texture hardly. White noise is
    as strong at the next scale; texture is two to five times as strong.
    """
    brightness, differences = colour_axes(pixels)
    image = brightness if differences is None else differences
    usable = unclipped(pixels)
    floors = noise_floors(image, usable if known is None else usable & known, 2)
    white = len(floors) == 2 and floors[0].found and floors[1].sigma < WHITE * floors[0].sigma
    return floors[0].sigma if white else 0.0


def estimate_sigma(pixels: Tensor, known: Tensor | None = None) -> float:
    """Noise level of (C, H, W) by `noise_from_detail`; known: (H, W), the measured pixels.

    Raises InvdiffError, with the flag to give, where there are fewer than 64 blocks of pixels.
    """
    try:
        return noise_from_detail(pixels, known).sigma
    except InvdiffError as error:
        raise InvdiffError(str(error).replace("give its", "give --noise with its")) from None
