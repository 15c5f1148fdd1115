"""How files become truths of a bench, for priors of colour, grey or complex images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.files.pictures import luma, read_photo, to_range
from invdiff.priors.units import hu_to_x
from invdiff.scans.dicom_files import is_dicom
from invdiff.scans.files import Npz
from invdiff.tasks.ct_simulation import clean_slice

RANGE = (-1.0, 1.0)
"""Of the images that are measured."""
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
"""Of the files of a folder that are pictures."""
ARRAYS = (".npy", ".npz", ".dcm", ".ima")
"""Of those that may be scans."""
KINDS = {1: "grey", 2: "complex", 3: "colour"}
"""Channels of a prior, in words."""


@dataclass(frozen=True)
class Framing:
    """Images of so many channels: 1 grey; 2 complex, real and imaginary part, whose magnitude is
    what is seen, on [0, 1]; 3 colour. scans: whether files may be arrays, and slices of CT in
    Hounsfield units, which are taken as the prior `ct` does, -1024 as -1 and 1500 as 1."""

    channels: int = 3
    scans: bool = False

    @property
    def endings(self) -> tuple[str, ...]:
        """Of the files of a folder that are images."""
        return ENDINGS + ARRAYS * self.scans

    def truth(self, image: Path, side: int) -> Tensor:
        """The middle of an image on [-1, 1], (1, channels, side, side).

        Of complex images the imaginary part is 0. Raises InvdiffError for an image that is smaller,
        or has pixels that tell nothing.
        """
        with naming(image):
            whole = self._slice(image) if self.scans and in_hu(image) else self._photo(image)
        height, width = whole.shape[-2:]
        if min(height, width) < side:
            raise InvdiffError(
                f"{image} has {width} x {height} pixels, and {side} x {side} are cut out of its "
                "middle; give a smaller --side."
            )
        top, left = (height - side) // 2, (width - side) // 2
        x = whole[:, top : top + side, left : left + side].clamp(*RANGE)
        if self.channels == 2:
            return torch.cat([(x + 1) / 2, torch.zeros_like(x)])[None]
        return x.expand(self.channels, side, side).contiguous()[None]

    def shown(self, x: Tensor) -> Tensor:
        """What is seen of images (B, channels, H, W), clipped to [-1, 1], and is scored."""
        if self.channels == 2:
            x = 2 * x.norm(dim=1, keepdim=True) - 1
        return x.clamp(*RANGE)

    def _photo(self, image: Path) -> Tensor:
        photo = read_photo(image)
        known = photo.valid is None or bool(photo.valid.all())
        if not known or not bool(photo.pixels.isfinite().all()):
            raise InvdiffError(f"{image} has pixels that tell nothing, as transparent ones or NaN.")
        return to_range(photo.pixels if self.channels == 3 else luma(photo.pixels), RANGE)

    def _slice(self, image: Path) -> Tensor:
        return hu_to_x(clean_slice(str(image))[0])[0]


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Put the name of a file before what is said of it, where it is not said."""
    try:
        yield
    except InvdiffError as error:
        if str(file) in str(error):
            raise
        raise InvdiffError(f"{file}: {error}") from error


PHOTOS = Framing()
"""Of priors of colour pictures."""


def in_hu(image: Path) -> bool:
    """Whether a file tells Hounsfield units: DICOM, or a .npz with an array called hu."""
    ending = image.suffix.lower()
    if ending == ".npz":
        return "hu" in Npz(image).names
    return ending in (".dcm", ".ima") or (ending == "" and is_dicom(image))


def pictures(
    folder: Path, most: int, side: int, frame: Framing = PHOTOS
) -> tuple[tuple[Path, ...], list[str]]:
    """The first images of a folder, by name, of which a side can be cut, or the one that is named;
    and why others are none.

    Raises InvdiffError where there is none.
    """
    if not (folder.is_file() or folder.is_dir()):
        raise InvdiffError(
            f"There is no file or folder {folder}; give a folder of images, or one image."
        )
    one = folder.is_file()
    names = [folder] if one else sorted(p for p in folder.iterdir() if p.is_file())
    found, said = list[Path](), list[str]()
    for path in names:
        if len(found) < most and (one or path.suffix.lower() in frame.endings):
            try:
                frame.truth(path, side)
                found.append(path)
            except InvdiffError as error:
                said.append(str(error))
    if not found:
        why = f"; {said[0]}" if said else f" ({', '.join(frame.endings)})."
        raise InvdiffError(f"{folder} holds no image that can be measured{why}")
    return tuple(found), said
