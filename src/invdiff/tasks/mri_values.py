"""Values of the options of MRI: which image, coil maps, noise scans, axes, names of volumes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.scans.asked import parse_axes
from invdiff.scans.cfl import read_cfl
from invdiff.scans.volumes import ending_of
from invdiff.tasks.values import Numbers


@dataclass(frozen=True)
class Which:
    """One of several images, by its number from 0, or `all` of them (None)."""

    metavar: ClassVar[str] = "N|all"

    index: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        word = text.strip().lower()
        if word == "all":
            return cls(None)
        try:
            index = int(word)
        except ValueError:
            index = -1
        if not 0 <= index < 2**31:
            raise InvdiffError(
                f"Which image is meant is told by its number, from 0, or all; found {text}."
            )
        return cls(index)

    @classmethod
    def of(cls, value: Any) -> Self:
        return cls.parse(str(value))

    def __str__(self) -> str:
        return "all" if self.index is None else str(self.index)


@dataclass(frozen=True)
class Axes:
    """Names of the axes of an array, from the first to the last."""

    metavar: ClassVar[str] = "AXES"

    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(parse_axes(text))

    def __str__(self) -> str:
        return ",".join(self.names)


@dataclass(frozen=True)
class Volume:
    """The name of a file for the image or volume, whose ending says what it is."""

    metavar: ClassVar[str] = "NAME"

    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        ending_of(text)
        return cls(text)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class NoiseScanFile(Numbers):
    """Samples of noise alone: .npy (coils, n), .cfl, ISMRMRD raw data, or an array."""


@dataclass(frozen=True)
class CoilMaps(Numbers):
    """Coil sensitivities (coils, H, W), complex, or the file (.npy, .cfl) that holds them, or
    `espirit`, which finds them from the calibration region; `espirit:0.8` gives them support: where
    the eigenvalue is below 0.8 they, and the image, are 0."""

    def __post_init__(self) -> None:
        word, colon, _ = self.path.partition(":")
        if word == "espirit" and colon and self.array is None and not 0 <= self.crop <= 1:
            raise InvdiffError(
                f"The support of ESPIRiT's maps is an eigenvalue from 0 to 1, as espirit:0.8, "
                f"found {self.path}."
            )

    @property
    def estimated(self) -> bool:
        """Whether ESPIRiT finds them."""
        return self.array is None and self.path.partition(":")[0] == "espirit"

    @property
    def crop(self) -> float:
        """The eigenvalue below which maps of ESPIRiT are 0; -1 for what is none."""
        _, colon, text = self.path.partition(":")
        try:
            return float(text) if colon else 0.0
        except ValueError:
            return -1.0

    def maps(self, slice_: int | None = None) -> Tensor | None:
        """(coils, H, W) complex; None for espirit. slice_: of maps of several slices, the middle
        one for None."""
        if self.estimated:
            return None
        if self.array is None and Path(self.path).suffix.lower() in (".cfl", ".hdr"):
            array = _bart(read_cfl(Path(self.path)), self.path, slice_)
        else:
            array = self.read()
            if array.ndim == 4:
                array = _of_slice(array, slice_, self.path)
        if array.dtype.kind != "c" or not np.isfinite(array).all():
            raise InvdiffError(f"The coil maps {self.path} are not finite complex numbers.")
        return torch.from_numpy(np.array(array, np.complex64))


def _of_slice(array: np.ndarray, slice_: int | None, path: str) -> np.ndarray:
    n = len(array) // 2 if slice_ is None else slice_
    if n >= len(array):
        raise InvdiffError(f"The coil maps {path} are of {len(array)} slices; there is no {n}.")
    return np.asarray(array[n])


def _bart(array: np.ndarray, path: str, slice_: int | None) -> np.ndarray:
    """(coils, H, W) of BART's axes; of several sets of maps the first."""
    many = [k for k in range(5, array.ndim) if array.shape[k] > 1 and k != 13]
    space = [k for k in range(3) if array.shape[k] > 1]
    if many or len(space) > 2:
        raise InvdiffError(
            f"The coil maps {path} have shape {array.shape}; two axes of space, coils and slices "
            "are read."
        )
    space += [k for k in range(3) if k not in space][: 2 - len(space)]
    order = [13, 3, *sorted(space)]
    rest = [k for k in range(array.ndim) if k not in order]
    found = array.transpose([*order, *rest]).reshape([array.shape[k] for k in order] + [-1])
    return _of_slice(found[..., 0], slice_, path)
