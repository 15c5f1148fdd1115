"""Scans that are made of a slice: sinograms with counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.limits import limited
from invdiff.core.option import option
from invdiff.core.rng import Rng
from invdiff.files.pictures import luma, read_array, read_photo, save_picture, words
from invdiff.operators.geometry import Geometry
from invdiff.operators.radon import Radon
from invdiff.scans import read_dicom, read_tiff
from invdiff.scans.dicom_files import is_dicom
from invdiff.scans.files import Npz
from invdiff.tasks.base import (
    Made,
    Simulation,
    real_numbers,
)
from invdiff.tasks.ct import Ct, source_of_fan
from invdiff.tasks.ct_view import WINDOW
from invdiff.tasks.values import Angles

FIELDS = 20
"""White fields that a simulated scan has."""


MOST_VIEWS = 20_000
"""Views of a sinogram that is made."""


@dataclass(frozen=True, kw_only=True)
class MakeCt(Simulation):
    """Simulate the scan of a slice in Hounsfield units: .npy, .npz, .tif, DICOM or a picture."""

    views: int = option("how many there are", 60, min=1)
    angles: Angles | None = option(
        "START,STOP in degrees, in equal steps; STOP is not repeated; 0,180 by default, of a fan "
        "0,360",
        None,
    )
    geometry: Literal["parallel", "fan"] = option("of the rays", "parallel")
    source: float | None = option(
        "of a fan: distance from the source to the axis of rotation, in pixels", None
    )
    photons: float = option("in a ray that meets nothing", 1e6)
    pixel: float | None = option("side of a pixel in mm; an image is 360 mm wide without it", None)
    water: float = option("attenuation of water per mm", 0.02)

    def __post_init__(self) -> None:
        super().__post_init__()
        limited("A simulated scan of 512 bins", self.views, "views", MOST_VIEWS, 4 * 512)
        for name in ("pixel", "water", "photons"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InvdiffError(f"--{name} is a number above 0, found {value}.")

    def make(self, file: Path, out: Path, seed: int) -> Made:
        """sinogram.npz with counts, and the truth.

        Rays are traced through pixels of half the size, so that data and reconstruction do not
        share their discretisation.
        """
        hu, about, notes = clean_slice(str(file))
        side = int(hu.shape[-1])
        mm = 360.0 / side if self.pixel is None else self.pixel
        source = source_of_fan(self.geometry, self.source)
        span = self.angles or Angles("0,180" if source is None else "0,360")
        start, stop = span.span()
        angles = tuple(start + (stop - start) * k / self.views for k in range(self.views))
        rays = Geometry(angles, source=source).covering((side, side))
        A = Radon.of(rays, (side, side), mm)
        fine = Radon.of(rays.rescaled(2), (2 * side, 2 * side), mm / 2)
        z = fine(F.interpolate(self.water * (1 + hu / 1000), scale_factor=2))
        rng = Rng.of(seed)
        counts = rng.poisson(self.photons * (-z).exp(), "measurement")[0, 0]
        white = rng.poisson(torch.full((1, FIELDS, A.detectors), float(self.photons)), "white")[0]

        def write(folder: Path) -> None:
            arrays = {"counts": counts.numpy(), "white": white.numpy(), "theta": np.array(angles)}
            if source is not None:
                arrays["source"] = np.array(source)
            np.savez(folder / "sinogram.npz", **arrays)  # type: ignore[arg-type]
            np.save(folder / "truth.npy", hu[0, 0].numpy())
            black, white_ = WINDOW
            save_picture(folder / "truth.png", (hu[0] - black) / (white_ - black))

        told = f"{self.views} views of {A.detectors} bins from {start:g} to {stop:g} degrees, "
        told += f"{self.photons:g} photons in a free ray, pixels of {mm:g} mm"
        told += "" if source is None else f", a fan from {source:g} bins away"
        # the span, for a file of small angles could be read as radians
        task = Ct(water=self.water, pixel=mm, side=side, angles=span)
        return Made(task, about, told, "sinogram.npz", write, notes)


def clean_slice(path: str) -> tuple[Tensor, str, tuple[str, ...]]:
    """A clean square slice in HU (1, 1, N, N), what it is, and what was made up."""
    file, notes = Path(path), list[str]()
    ending = file.suffix.lower()
    if ending in (".dcm", ".ima") or (file.is_file() and is_dicom(file)):
        slices = read_dicom(file).hu
        hu, about = slices[len(slices) // 2, 0], "DICOM slice"
        if len(slices) > 1:
            notes.append(f"slice {len(slices) // 2} of {len(slices)}, the middle one")
    elif ending in (".tif", ".tiff"):
        hu, about = read_tiff(file)[0], "TIFF of Hounsfield units"
    elif ending == ".npz":
        npz = Npz(file)
        name = npz.first("hu") or (npz.names[0] if len(npz.names) == 1 else "hu")
        hu, about = real_numbers(npz[name], f"{name} in {path}"), f"array {name}, in HU"
    elif ending == ".npy":
        hu, about = real_numbers(read_array(file), path), "array, in HU"
    else:
        photo = read_photo(file)
        hu, about = 2000 * luma(photo.pixels)[0] - 1000, photo.about
        notes.append("its brightness is taken as -1000 to 1000 HU")
    if hu.ndim != 2 or not bool(torch.isfinite(hu).all()):
        raise InvdiffError(f"{path} is not one slice of finite numbers, (height, width).")
    side = min(hu.shape)
    top, left = ((n - side) // 2 for n in hu.shape)
    if hu.shape[0] != hu.shape[1]:
        notes.append(f"cut to the square of {words((side, side))} in the middle")
    square = hu[top : top + side, left : left + side].clamp_min(-1000)
    return square.float()[None, None], about, tuple(notes)
