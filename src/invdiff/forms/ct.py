"""Sinograms as measurements: files of scanners in, float images out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError, Problem
from invdiff.figures import Scale
from invdiff.forms.base import Level, Made, Measured, View, real_numbers
from invdiff.io import check_pixels, luma, read_array, read_photo, save_picture, words
from invdiff.operators.geometry import Geometry
from invdiff.operators.radon import Radon
from invdiff.priors.base import Prior
from invdiff.rng import Rng
from invdiff.scans import centre_of_rotation, read_dicom, read_sinogram, read_tiff, write_tiff
from invdiff.scans.drift import without_drift, without_rings
from invdiff.scans.files import Npz
from invdiff.scans.problems import ct_problem
from invdiff.scans.sinogram import Sinogram
from invdiff.tasks import Task

WINDOW = (-1024.0, 500.0)
"""Hounsfield units that are shown as black and white."""
FIELDS = 20
"""White fields that a simulated scan has."""


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

    def measurement(self, problem: Problem) -> list[tuple[str, Tensor]]:
        return [("filtered back-projection", self.picture(self.first))]

    def save(self, folder: Path, name: str, values: Tensor) -> None:
        save_picture(folder / f"{name}.png", self.picture(values))
        if find_spec("tifffile") is None:
            np.save(folder / f"{name}.npy", values[0].numpy())
        else:
            write_tiff(folder / f"{name}.tif", values, self.units)


def read(task: Task, path: str, options: Mapping[str, Any], noise: Level, prior: Prior) -> Measured:
    """The problem of reconstructing a slice from a sinogram; `ct_problem` tells how."""
    if prior.image_range != (-1.0, 1.0):
        raise InvdiffError(f"ct needs a prior on [-1, 1], not on {prior.image_range}.")
    for name, other in (("outliers", "replace"), ("rings", "remove"), ("drift", "remove")):
        if options[name] not in ("keep", other):
            raise InvdiffError(f"--{name} is keep or {other}, found {options[name]}.")
    kind = options.get("kind")
    if kind not in (None, "counts", "transmission", "integrals"):
        raise InvdiffError(f"--kind is counts, transmission or integrals, found {kind}.")
    s = _sinogram(path, options, kind)
    s = without_rings(s) if options["rings"] == "remove" else s
    s = without_drift(s) if options["drift"] == "remove" else s
    s, rays = _rays(s, options)
    shift, told = _centre(s, options["center"])
    side = options.get("side", s.integrals.shape[1])
    if side < 1:
        raise InvdiffError(f"--side is at least 1 pixel, found {side}.")
    check_pixels((side, side), "The slice")
    A = Radon.of(s.geometry.shifted(shift), (side, side), options.get("pixel", 1.0))
    sigma = None if noise in (None, "estimate") else float(noise)
    equal = _equal(options.get("weights"), sigma, s)
    c = ct_problem(s, A, options.get("water"), sigma, options.get("views"), equal=equal)
    black, white = WINDOW if c.units == "HU" else (c.low, c.high)
    view = FloatView(c.first, c.low, c.high, c.units, black, white)
    notes = [*s.facts, told, rays]
    if "views" in options:
        notes.append(f"{options['views']} of {len(s.angles)} views are used")
    if c.units != "HU":
        notes.append("values are attenuation; --water MU makes them Hounsfield units")
    line = f"{c.sigma:.4g} of the line integrals: {c.how}"
    views, bins = s.integrals.shape
    about = f"sinogram, {views} views of {bins} bins"
    return Measured(c.problem, view, about, line, tuple(notes))


def _equal(told: str | None, sigma: float | None, s: Sinogram) -> bool:
    """Whether all rays have the same noise. Raises InvdiffError where they cannot have another."""
    if told not in (None, "photons", "equal"):
        raise InvdiffError(f"--weights is photons or equal, found {told}.")
    if told == "photons" and sigma is not None:
        raise InvdiffError("--noise is the same for all rays; leave it or --weights photons out.")
    if told == "photons" and s.variance is None:
        raise InvdiffError(
            "The file has no counts, from which rays get the noise of their photons; leave "
            "--weights out."
        )
    return told == "equal" or s.variance is None


def _sinogram(path: str, options: Mapping[str, Any], kind: Any) -> Sinogram:
    """The file, with the angles that were told."""
    told = options.get("angles")
    angles: Tensor | tuple[float, float] | None = None
    if told is not None:
        file = Path(told)
        angles = real_numbers(read_array(file), told) if file.exists() else _span(told)
    return read_sinogram(
        path,
        key=options.get("key"),
        row=options.get("slice"),
        angles=angles,
        kind=kind,
        join=options.get("join", 1),
        zingers=options["outliers"] == "replace",
    )


def _span(text: str) -> tuple[float, float]:
    """START,STOP in degrees; STOP is not repeated."""
    try:
        start, stop = (float(v) for v in text.split(","))
    except ValueError:
        raise InvdiffError(
            f"{text} is no file and no START,STOP in degrees; give --angles FILE.npy or 0,180."
        ) from None
    if not math.isfinite(stop - start) or start == stop:
        raise InvdiffError(f"--angles START,STOP are two different numbers, found {text}.")
    return start, stop


def _source(options: Mapping[str, Any], found: float | None = None) -> float | None:
    """How far the source of a fan is, in bins, as told or else as found in a file; None for
    parallel rays."""
    geometry, told = options.get("geometry"), options.get("source")
    if geometry not in (None, "parallel", "fan"):
        raise InvdiffError(f"--geometry is parallel or fan, found {geometry}.")
    fan = found is not None if geometry is None else geometry == "fan"
    source: float | None = (found if told is None else told) if fan else told
    if fan != (source is not None):
        raise InvdiffError(
            "A fan needs --source, its distance from the axis of rotation in bins, and parallel "
            "rays have none."
        )
    if source is not None and not 0 < source < math.inf:
        raise InvdiffError(f"--source is a distance in bins, above 0, found {source:g}.")
    return source


def _rays(s: Sinogram, options: Mapping[str, Any]) -> tuple[Sinogram, str]:
    """s with the geometry that was told, else with the file's, and what it is in words."""
    source = _source(options, s.source)
    asked = any(k in options for k in ("geometry", "source"))
    how = "as asked" if asked else "as the file says"
    if source is None:
        told = f"parallel rays, {how}" if asked else "parallel rays, for no source is told"
    else:
        told = f"a fan, its source {source:g} bins from the axis of rotation, {how}"
    return dataclasses.replace(s, source=source), told


def _centre(s: Sinogram, told: float | str) -> tuple[float, str]:
    """`Radon.shift`, and where it comes from."""
    bins = s.integrals.shape[1]
    if told == "estimate":
        if s.source is not None:
            raise InvdiffError(
                "--center estimate compares views half a turn apart, as only parallel rays allow; "
                "give --center of a fan as a number."
            )
        shift = centre_of_rotation(s)
        return shift, f"axis of rotation {shift:+.2f} bins from the middle, found from the views"
    shift = float(told)
    if abs(shift) > bins / 2:
        raise InvdiffError(f"--center {shift:g} lies beyond the detector of {bins} bins.")
    return shift, f"axis of rotation {shift:+g} bins from the middle; --center estimate finds it"


def make(task: Task, path: str, options: Mapping[str, Any], noise: float, seed: int) -> Made:
    """A scan of a slice in Hounsfield units: sinogram.npz with counts, and the truth.

    Rays are traced through pixels of half the size, so that data and reconstruction do not share
    their discretisation.
    """
    hu, about, notes = _clean(path)
    side = int(hu.shape[-1])
    mm, water, photons = options.get("pixel", 360.0 / side), options["water"], options["photons"]
    for name, value in (("pixel", mm), ("water", water), ("photons", photons)):
        if not 0 < value < math.inf:
            raise InvdiffError(f"--{name} is a number above 0, found {value}.")
    source = _source(options)
    span = options.get("angles", "0,180" if source is None else "0,360")
    start, stop = _span(span)
    views = options["views"]
    if views < 1:
        raise InvdiffError(f"--views is at least 1, found {views}.")
    if noise > 0:
        raise InvdiffError("The noise of a scan is that of its --photons; leave --noise out.")
    angles = tuple(start + (stop - start) * k / views for k in range(views))
    rays = Geometry(angles, source=source).covering((side, side))
    A = Radon.of(rays, (side, side), mm)
    fine = Radon.of(rays.rescaled(2), (2 * side, 2 * side), mm / 2)
    z = fine(F.interpolate(water * (1 + hu / 1000), scale_factor=2))
    rng = Rng.of(seed)
    counts = rng.poisson(photons * (-z).exp(), "measurement")[0, 0]
    white = rng.poisson(torch.full((1, FIELDS, A.detectors), float(photons)), "white")[0]

    def write(folder: Path) -> None:
        arrays = {"counts": counts.numpy(), "white": white.numpy(), "theta": np.array(angles)}
        if source is not None:
            arrays["source"] = np.array(source)
        np.savez(folder / "sinogram.npz", **arrays)  # type: ignore[arg-type]
        np.save(folder / "truth.npy", hu[0, 0].numpy())
        black, white_ = WINDOW
        save_picture(folder / "truth.png", (hu[0] - black) / (white_ - black))

    told = f"{views} views of {A.detectors} bins from {start:g} to {stop:g} degrees, {photons:g} "
    told += f"photons in a free ray, pixels of {mm:g} mm"
    told += "" if source is None else f", a fan from {source:g} bins away"
    flags = {"water": str(water), "pixel": str(mm), "side": str(side)}
    flags["angles"] = span  # a file of small angles could be read as radians
    return Made(about, told, "sinogram.npz", flags, {}, write, notes)


def _clean(path: str) -> tuple[Tensor, str, tuple[str, ...]]:
    """A clean square slice in HU (1, 1, N, N), what it is, and what was made up."""
    file, notes = Path(path), list[str]()
    ending = file.suffix.lower()
    if ending in (".dcm", ".ima"):
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
