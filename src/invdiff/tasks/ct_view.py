"""CT slices as float images: how they are shown and written."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from torch import Tensor

from invdiff.files.figures import Scale
from invdiff.files.pictures import save_picture
from invdiff.problem import Problem
from invdiff.scans import write_tiff
from invdiff.tasks.base import (
    View,
)

WINDOW = (-1024.0, 500.0)
"""Hounsfield units that are shown as black and white."""


BEYOND, MOST_BEYOND = 0.1, 0.02
"""How far above x = 1, and which share of the pixels, a slice may be before its scale is wrong. By
design a half percent lies above 1 / 1.1 of the scale."""


@dataclass(frozen=True, eq=False)
class FloatView(View):
    """Samples as float images. low, high: values of x = -1 and 1, in units; black, white: values
    shown so; first: an image without a prior, (1, H, W), in units."""

    first: Tensor
    low: float
    high: float
    units: str
    black: float
    white: float

    @property
    def scale(self) -> Scale:
        return Scale(self.black, self.white, self.units)

    @property
    def beside(self) -> str:
        if find_spec("tifffile") is None:
            return (
                f"each with its values ({self.units}) as .npy; for float TIFF, run pip install "
                "'invdiff[io]'"
            )
        return f"each with its values ({self.units}) as float TIFF (.tif)"

    def values(self, x: Tensor) -> Tensor:
        return self.low + (x + 1) * ((self.high - self.low) / 2)

    def picture(self, values: Tensor) -> Tensor:
        return (values - self.black) / (self.white - self.black)

    def warnings(self, x: Tensor) -> list[str]:
        """Where attenuation has a scale that was found, and the slice leaves it."""
        share = float((x > 1 + BEYOND).float().mean())
        if self.units == "HU" or share <= MOST_BEYOND:
            return []
        return [
            f"{100 * share:.0f} % of the pixels are brighter than the scale of the prior, which "
            f"ends at {self.high:.3g}: give a larger --top (the brightest samples reach "
            f"{float(self.values(x).max()):.3g})"
        ]

    def measurement(self, problem: Problem) -> list[tuple[str, Tensor]]:
        return [("filtered back-projection", self.picture(self.first))]

    def save(self, folder: Path, name: str, values: Tensor) -> None:
        save_picture(folder / f"{name}.png", self.picture(values))
        if find_spec("tifffile") is None:
            np.save(folder / f"{name}.npy", values[0].numpy())
        else:
            write_tiff(folder / f"{name}.tif", values, self.units)
