"""Blur kernels as people give them: in words, as numbers, or as a picture."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.files.pictures import (
    check_file,
    check_real,
    luma,
    open_image,
    picture_pixels,
    read_array,
    words,
)
from invdiff.operators.blur import check_kernel, gaussian_kernel, motion_kernel

FORMS = "gaussian:SIGMA, motion:LENGTH,DEGREES, or a file (.npy, .txt, .csv or a picture)"
SHAPES: dict[str, tuple[Callable[..., Tensor], str]] = {
    "gaussian": (gaussian_kernel, "SIGMA"),
    "motion": (motion_kernel, "LENGTH,DEGREES"),
}


def read_kernel(spec: str, size: tuple[int, int]) -> Tensor:
    """The kernel of a spec or file, (h, w) float64, scaled so that its sum is 1.

    spec: `gaussian:SIGMA` (pixels), `motion:LENGTH,DEGREES` (pixels; counter-clockwise from the
    horizontal), or a file: an array in .npy, rows of numbers in .txt or .csv, or a picture whose
    brightness is the kernel. size: (height, width) of the image that is blurred.
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
    check_file(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        array = read_array(path)
        check_real(array, str(path))
        return torch.from_numpy(np.array(array, np.float64))
    if suffix in (".txt", ".csv"):
        return torch.from_numpy(_numbers(path))
    try:
        image, _ = open_image(path)
    except InvdiffError as error:
        raise InvdiffError(f"{path} is not a kernel; give {FORMS}.") from error
    return luma(picture_pixels(image, str(path))[0])[0].double()


def _numbers(path: Path) -> np.ndarray:
    """Rows of numbers, separated by spaces, tabs, commas or semicolons."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [re.split(r"[,;\s]+", line.strip(" \t,;")) for line in lines if line.strip()]
        array = np.array([[float(v) for v in row] for row in rows])
    except ValueError:  # text, bytes that are no text, or rows of different lengths
        array = np.zeros(0)
    if array.ndim != 2:
        raise InvdiffError(f"{path} is not a kernel; it should hold rows of numbers, all as long.")
    return array
