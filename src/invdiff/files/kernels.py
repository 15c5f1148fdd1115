"""Blur kernels as people give them: in words, as numbers, or as a picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from invdiff.core import WARNING, InvdiffError
from invdiff.files.advice import PNG, how_to_convert
from invdiff.files.instruments import read_instrument
from invdiff.files.raster import words
from invdiff.operators.blur_kernels import check_kernel, gaussian_kernel, motion_kernel

FORMS = "gaussian:SIGMA, motion:LENGTH,DEGREES, or a file (.npy, .npz, .txt, .csv or a picture)"
SHAPES: dict[str, tuple[Callable[..., Tensor], str]] = {
    "gaussian": (gaussian_kernel, "SIGMA"),
    "motion": (motion_kernel, "LENGTH,DEGREES"),
}


def read_kernel(spec: str, size: tuple[int, int]) -> Tensor:
    """The kernel of a spec or file, (h, w) float64, scaled so that its sum is 1.

    spec: `gaussian:SIGMA` (pixels), `motion:LENGTH,DEGREES` (pixels; counter-clockwise from the
    horizontal), or a file: an array in .npy or .npz, rows of numbers in .txt or .csv, or a picture
    whose brightness is the kernel. size: (height, width) of the image that is blurred.
    Raises InvdiffError when it is no kernel, or larger than the image.
    """
    check_spec(spec)
    word, _, rest = spec.partition(":")
    kernel = _shaped(word, rest, size) if word in SHAPES and rest else _from_file(Path(spec))
    return fitted(kernel, size)


def check_spec(spec: str) -> None:
    """Raise InvdiffError when a spec is neither a shape with its numbers nor a file."""
    word, colon, rest = spec.partition(":")
    if word in SHAPES and colon:
        _shape_numbers(word, rest)
    elif not spec.strip() or not Path(spec).is_file():
        raise InvdiffError(f"{spec!r} is not a kernel and no file; give {FORMS}.")


def fitted(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """A kernel (h, w) of sum 1. Raises InvdiffError unless it is one, for pictures of size."""
    check_kernel(kernel)
    if kernel.shape[0] > size[0] or kernel.shape[1] > size[1]:
        raise _too_large(words((kernel.shape[0], kernel.shape[1])) + " taps", size)
    return kernel / kernel.sum()


def _shaped(word: str, rest: str, size: tuple[int, int]) -> Tensor:
    numbers = _shape_numbers(word, rest)
    if numbers[0] > 2 * max(size):
        raise _too_large(f"{numbers[0]:g} pixels", size)
    return SHAPES[word][0](*numbers)


def _shape_numbers(word: str, rest: str) -> list[float]:
    form = SHAPES[word][1]
    try:
        numbers = [float(text) for text in rest.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != len(form.split(",")) or not all(map(math.isfinite, numbers)):
        raise InvdiffError(f"{word}:{rest} is not a kernel; it takes numbers, {word}:{form}.")
    return numbers


def _too_large(what: str, size: tuple[int, int]) -> InvdiffError:
    return InvdiffError(f"The kernel ({what}) is larger than the image of {words(size)} pixels.")


def _from_file(path: Path) -> Tensor:
    try:
        found = read_instrument(path, "kernel")
    except InvdiffError as error:
        if "not an image" in str(error):
            how = how_to_convert(path)
            more = "" if how == PNG else f"; {how}"
            raise InvdiffError(f"{path} is not a kernel; give {FORMS}{more}.") from error
        raise
    if found.inverted:
        raise InvdiffError(
            f"The kernel {path} is light all along its edge and dark inside, as one that is drawn "
            "dark on white; invert it, so that it is white where light goes."
        )
    return found.strength


def centre_of_mass(kernel: Tensor) -> tuple[float, float]:
    """(rows down, columns across) of a kernel's centre of mass from the tap that stands for no
    shift, [h // 2, w // 2], in pixels."""
    weights = kernel.double() / kernel.double().sum()
    down, across = (
        float((weights.sum(1 - axis) * (torch.arange(n) - n // 2)).sum())
        for axis, n in enumerate(weights.shape)
    )
    return down, across


def centre_words(kernel: Tensor) -> str:
    """Where the centre of mass of a kernel is, and what follows of it."""
    down, across = centre_of_mass(kernel)
    size = words((int(kernel.shape[0]), int(kernel.shape[1])))
    said = f"the kernel has {size} taps, its centre of mass "
    if max(abs(down), abs(across)) < 0.05:
        return said + "on its middle tap"
    said += f"{across:+.1f} pixels across and {down:+.1f} down from its middle tap"
    if max(abs(down), abs(across)) < 0.75:
        return said
    return (
        f"{WARNING}{said}: the result is moved by as much the other way against the photo; where "
        "that is not meant, centre the kernel"
    )
