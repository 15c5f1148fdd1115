"""Float images as TIFF, through tifffile (extra `io`): Hounsfield units and anything else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.files.arrays import check_file
from invdiff.scans.files import check_numbers, check_size, guarded


def _tifffile(path: Path) -> Any:
    try:
        import tifffile
    except ImportError:
        raise InvdiffError(
            f"{path}: float TIFF needs tifffile, which is not installed; run pip install "
            "'invdiff[io]'."
        ) from None
    return tifffile


@contextmanager
def _silent() -> Iterator[None]:
    """tifffile logs what it meets in a broken file, which is told in one sentence instead."""
    logger = logging.getLogger("tifffile")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def _series(path: Path) -> Iterator[Any]:
    """The first series of a TIFF of numbers, which are not read yet."""
    check_file(path)
    tifffile = _tifffile(path)
    with _silent(), guarded(path, "a TIFF"), tifffile.TiffFile(path) as file:
        series = file.series[0]
        check_numbers(series.dtype, str(path))
        check_size(tuple(series.shape), max(series.dtype.itemsize, 4), str(path))
        yield series


def read_tiff(path: str | Path) -> Tensor:
    """The first image (C, H, W) float32 of a TIFF, or its stack of pages as channels.

    Values are those of the file; nothing is scaled. Raises InvdiffError when it is no TIFF.
    """
    path = Path(path)
    with _series(path) as series:
        array = np.asarray(series.asarray())
        if series.axes[-1] == "S" and array.ndim == 3:  # the samples of a pixel stand last
            array = np.moveaxis(array, -1, 0)
    if array.ndim not in (2, 3) or array.dtype.kind == "c":
        raise InvdiffError(
            f"{path} has shape {array.shape} of {array.dtype}; a TIFF is read as (height, width) "
            "or pages of these, of real numbers."
        )
    return torch.from_numpy(np.array(array, np.float32)).reshape(-1, *array.shape[-2:])


def read_stack(path: Path) -> np.ndarray:
    """The pages of a TIFF of data, (pages, H, W), or (H, W) of a single one, in their own type.

    Raises InvdiffError when it is no TIFF, or holds colours.
    """
    with _series(path) as series:
        array = np.asarray(series.asarray()).squeeze()
        if series.axes[-1] == "S" or array.ndim not in (2, 3) or array.dtype.kind not in "iuf":
            raise InvdiffError(
                f"{path} has shape {series.shape} of {series.dtype}; a TIFF of data is read as "
                "pages (height, width) of real numbers."
            )
    return array


def write_tiff(path: str | Path, image: Tensor, description: str | None = None) -> None:
    """Write (C, H, W) or (H, W) as 32-bit float TIFF, one page for each channel, exactly."""
    path = Path(path)
    if image.ndim not in (2, 3) or image.is_complex() or image.numel() == 0:
        raise InvdiffError(
            f"A TIFF holds real images (channels, height, width), found {tuple(image.shape)} of "
            f"{image.dtype}."
        )
    values = image.detach().cpu().float().contiguous().numpy()
    _tifffile(path).imwrite(path, values, photometric="minisblack", description=description)
