"""Pages of a TIFF through tifffile: those that Pillow has no mode for, and those within others."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invdiff.core import InvdiffError
from invdiff.files.raster import check_pixels

SUBFILE = 254
"""NewSubfileType (TIFF 6.0, section 8): bit 0 a reduced picture, bit 2 a mask of transparency."""
NEEDS = "pip install 'invdiff[photo]'"


@dataclass(frozen=True, eq=False)
class Page:
    """A page of a TIFF. values: its samples, (H, W, S). inverted: whether white is the smallest
    number. extra: what samples beyond the colours are. tags: by number. count: pages of the file.
    """

    values: np.ndarray
    inverted: bool
    extra: list[int]
    tags: dict[int, Any]
    count: int


def read_page(path: Path, frame: int) -> Page:
    """A page; -1 for the first that is not marked as reduced, or else the largest within others.

    Raises InvdiffError where tifffile is not installed, or cannot decode the page.
    """
    try:
        import tifffile
    except ImportError:
        raise InvdiffError(
            f"{path} is a TIFF of numbers that Pillow does not read; {NEEDS} reads it, or save it "
            "as 16-bit PNG."
        ) from None
    try:
        with _quiet(), tifffile.TiffFile(path) as file:
            page = full_page(file) if frame < 0 else file.pages[frame]
            check_pixels((int(page.imagelength), int(page.imagewidth)), str(path))
            values = np.asarray(page.asarray())
            extra = [int(e) for e in page.extrasamples]
            inverted = int(page.photometric) == 0
            planar = int(page.planarconfig) == 2 and values.ndim == 3
            tags = {int(tag.code): tag.value for tag in page.tags}
            count = len(file.pages)
    except InvdiffError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        more = f"; {NEEDS} reads it" if "imagecodecs" in reason else "; save it once more"
        raise InvdiffError(f"{path} is a TIFF that cannot be read ({reason}){more}.") from error
    return Page(_samples(values, planar, path), inverted, extra, tags, count)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the log of tifffile, which tells of each broken tag on its own."""
    log = logging.getLogger("tifffile")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _samples(values: np.ndarray, planar: bool, path: Path) -> np.ndarray:
    """(H, W, S) of a page. Raises InvdiffError where it is no picture."""
    if values.ndim == 2:
        values = values[..., None]
    elif planar:
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.dtype.kind not in "uif" or values.size == 0:
        raise InvdiffError(
            f"{path} holds {values.dtype} of shape {values.shape}, which is no picture; save it as "
            "16-bit PNG."
        )
    return values.astype(np.float32) if values.dtype == np.float16 else values


def full_page(file: Any) -> Any:
    """The first page of a file that is not marked as reduced, nor a mask of transparency; else the
    largest of those within others."""
    whole = [page for page in file.pages if not int(page.subfiletype) & 5]
    if whole:
        return whole[0]
    inner = [one for page in file.pages for one in page.pages or () if not int(one.subfiletype) & 5]
    return max(inner or list(file.pages), key=lambda p: int(p.imagelength) * int(p.imagewidth))


def sub_pages(path: Path) -> int:
    """How many pages lie within others; 0 where they cannot be counted."""
    try:
        import tifffile

        with _quiet(), tifffile.TiffFile(path) as file:
            return sum(len(page.pages or ()) for page in file.pages)
    except Exception:
        return 0
