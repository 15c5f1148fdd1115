"""What a result is compared with where the truth is known: read from files, and its PSNR."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.files.arrays import check_file, check_real, read_only_array, span_of
from invdiff.files.frames import each, listed, unpacked
from invdiff.files.pictures import read_photo, words
from invdiff.problem.metrics import psnr

ARRAYS = (".npy", ".npz")


@dataclass(frozen=True, eq=False)
class Truth:
    """A clean image in the layout of `Restoration.estimate`; of complex images the magnitude.

    file: where it is from. array: (H, W), of colours (H, W, 3), of parts (parts, ...). span:
    (black, white), whose distance is the peak of PSNR. part: what the first axis counts, "frame" or
    "slice"; "" for one picture. colours: whether the last axis is that of three colours.
    """

    file: Path
    array: np.ndarray
    span: tuple[float, float] = (0.0, 1.0)
    part: str = ""
    colours: bool = False

    def fitted(self, like: np.ndarray) -> Truth:
        """The same for results like this array: grey is repeated where they have colours.

        Raises InvdiffError where number, size or colours differ.
        """
        like = self._laid(like)
        colours = like.ndim > 2 + bool(self.part)
        have, want = (
            a.shape[: a.ndim - c] for a, c in ((self.array, self.colours), (like, colours))
        )
        if have[:-2] != want[:-2]:
            raise InvdiffError(
                f"{self.file} has {have[0]} {self.part}{'s' * (have[0] != 1)}, but the result has "
                f"{want[0]}; give the truth of all {self.part}s, and of no more."
            )
        if have[-2:] != want[-2:]:
            raise InvdiffError(
                f"{self.file} is of {words(have[-2:])} pixels, but the result of "
                f"{words(want[-2:])}; give the clean image of the same size."
            )
        if self.colours and not colours:
            raise InvdiffError(
                f"{self.file} has colours, but the result is grey; give the truth in grey."
            )
        if colours and not self.colours:
            array = np.repeat(self.array[..., None], like.shape[-1], -1)
            return replace(self, array=array, colours=True)
        return self

    def psnr(self, image: np.ndarray) -> tuple[float, list[float]]:
        """PSNR in dB of a result of the same shape, and of each of its parts, if several."""
        both = (np.ascontiguousarray(a, np.float64) for a in (self._laid(image), self.array))
        x, ref = map(torch.from_numpy, both)
        parts = psnr(x, ref, self.span).tolist() if self.part and len(x) > 1 else []
        return float(psnr(x[None], ref[None], self.span)), parts

    def _laid(self, image: np.ndarray) -> np.ndarray:
        """A result in the layout of `array`: magnitudes, and one slice as a stack of one."""
        image = np.abs(image) if np.iscomplexobj(image) else image
        return image[None] if self.part == "slice" and image.ndim == 2 else image


def clean_picture(file: Path, among: tuple[int, int] | None) -> Truth:
    """A clean picture on [0, 1].

    among: which picture of its file the measurement is, and of how many: of a file with several the
    truth is the one of the same number. Raises InvdiffError where there is none.
    """
    check_file(file)
    several = listed(file)
    if not several:
        return _picture(file, file)
    if among is None:
        raise InvdiffError(
            f"{file} holds {len(several)} pictures, but the measurement is one; give the picture "
            "that it came from."
        )
    number, count = among
    if len(several) != count:
        raise InvdiffError(
            f"{file} holds {len(several)} pictures, but the measurement {count}; give a truth of "
            "as many."
        )
    with tempfile.TemporaryDirectory(prefix="invdiff-") as folder:
        return _picture(unpacked(str(file), several[number], Path(folder)), file)


def clean_clip(file: Path) -> Truth:
    """The frames of a clean clip on [0, 1]: an animation, a video, pages of a TIFF, or an array
    (frames, H, W[, 3]). Grey frames are repeated where others have colours.

    Raises InvdiffError for one picture, frames of several sizes, and what cannot be read.
    """
    check_file(file)
    if file.suffix.lower() in ARRAYS:
        return _clip_array(file)
    frames = list[np.ndarray]()
    if listed(file):
        with tempfile.TemporaryDirectory(prefix="invdiff-") as folder:
            frames = [_picture(alone, file).array for alone in each(file, Path(folder))]
    if not frames:
        read_photo(file)  # which tells what is broken
        raise InvdiffError(
            f"{file} is one picture, but the result is a clip; give all of its frames, as an "
            "animation, a video or an array (frames, height, width)."
        )
    sizes = {f.shape[:2] for f in frames}
    if len(sizes) > 1:
        found = " and ".join(words(s) for s in sorted(sizes)[:2])
        raise InvdiffError(f"{file} has frames of {found} pixels; save it with frames of one size.")
    colours = any(f.ndim == 3 for f in frames)
    if colours:
        frames = [f if f.ndim == 3 else np.repeat(f[..., None], 3, -1) for f in frames]
    return Truth(file, np.stack(frames), part="frame", colours=colours)


def numbers(file: Path) -> np.ndarray:
    """An array of a file (.npy, .npz) of data, without axes of one number.

    Raises InvdiffError for other files, and what is not finite.
    """
    check_file(file)
    if file.suffix.lower() not in ARRAYS:
        raise InvdiffError(
            f"{file} is no array, and pictures do not tell units; give the truth as .npy, in the "
            "units of the results."
        )
    array = np.asarray(read_only_array(file))
    if not bool(np.isfinite(array).all()):
        raise InvdiffError(f"{file} holds NaN or infinite values; replace them.")
    return array.reshape([n for n in array.shape if n != 1] or [1])


def clean_magnitudes(file: Path) -> Truth:
    """A clean complex image, or its magnitude, (H, W), in the units of the k-space. The peak of
    PSNR is its largest magnitude."""
    array = np.abs(numbers(file)).astype(np.float64)
    if array.ndim != 2:
        raise InvdiffError(f"{file} is of shape {array.shape}, but the result is one image.")
    return Truth(file, array, (0.0, _top(file, float(array.max()))))


def clean_slices(
    file: Path, array: Tensor | np.ndarray, units: str, window: tuple[float, float]
) -> Truth:
    """Clean slices, (H, W) or (slices, H, W), in units. The peak of PSNR is the width of the window
    in HU, below which padding is cut off, and the largest value in other units.

    Raises InvdiffError for other shapes, and for HU where the units are others.
    """
    found = np.asarray(array, np.float64)
    if found.ndim not in (2, 3):
        raise InvdiffError(f"{file} is of shape {found.shape}; slices are (slices, height, width).")
    found = found.reshape(-1, *found.shape[-2:])
    if units == "HU":
        return Truth(file, found.clip(window[0]), window, "slice")
    if float(found.min()) < -500:
        raise InvdiffError(
            f"{file} seems to be in HU, for it begins at {float(found.min()):.4g}, but the results "
            f"are in {units}; give the truth in these units, or tell --water."
        )
    return Truth(file, found, (0.0, _top(file, float(found.max()))), "slice")


def _top(file: Path, top: float) -> float:
    if not top > 0:
        raise InvdiffError(f"{file} is empty: no value is above 0.")
    return top


def _picture(alone: Path, file: Path) -> Truth:
    """The picture in a file, which is from another."""
    found = read_photo(alone).pixels.permute(1, 2, 0).squeeze(2).numpy()
    return Truth(file, found, colours=found.ndim == 3)


def _clip_array(file: Path) -> Truth:
    array = read_only_array(file)
    check_real(array, str(file))
    colours = array.ndim == 4 and array.shape[-1] == 3
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3 + colours:
        raise InvdiffError(
            f"{file} is of shape {array.shape}; a clip is (frames, height, width) or (frames, "
            "height, width, 3)."
        )
    black, white = span_of(array, str(file))
    found = (np.asarray(array, np.float64) - black) / (white - black)
    return Truth(file, found, part="frame", colours=colours)
