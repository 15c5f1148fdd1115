"""CT: sinograms as scanners write them, float images out."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from invdiff.core import WARNING, InvdiffError
from invdiff.core.option import option
from invdiff.core.schedules import VE, VP
from invdiff.files.pictures import check_pixels
from invdiff.noise import GaussianNoise
from invdiff.operators.radon import Radon, sparse_view
from invdiff.priors.base import Prior
from invdiff.priors.units import HU_WINDOW
from invdiff.problem import Problem
from invdiff.problem.toys import unmeasured
from invdiff.scans import centre_of_rotation, read_dicom, read_sinogram, read_tiff
from invdiff.scans.dicom_files import is_dicom
from invdiff.scans.drift import without_drift, without_rings
from invdiff.scans.fan import direction_hint
from invdiff.scans.problems import ct_problem
from invdiff.scans.sinogram import Sinogram
from invdiff.solvers.csgm import CSGM
from invdiff.solvers.dds import DDS
from invdiff.solvers.diffpir import DiffPIR
from invdiff.solvers.dps import DPS
from invdiff.solvers.mcg import MCG
from invdiff.solvers.mmps import MMPS
from invdiff.solvers.pigdm import PiGDM
from invdiff.solvers.reddiff import REDDiff
from invdiff.solvers.score_medical import ScoreMedical
from invdiff.tasks.base import (
    Choice,
    Measured,
    Preset,
    Simulation,
    Task,
    View,
    real_numbers,
)
from invdiff.tasks.ct_view import WINDOW, FloatView
from invdiff.tasks.presets import DRAWS, SPLITS, calibrated, daps, end, split, start
from invdiff.tasks.truth import Truth, clean_slices, numbers
from invdiff.tasks.values import Angles, Centre, NoiseLevel, Size

_preset = partial(Preset, source="ct.md")


@dataclass(frozen=True, kw_only=True)
class Ct(Task):
    """Reconstruct a slice from a sinogram (.h5, .nxs, .npz, .npy, .tif)."""

    name: ClassVar[str] = "ct"
    example: ClassVar[str] = "sinogram.h5 --center estimate"
    prior: ClassVar[str] = "ct"
    scale_1: ClassVar[bool] = False
    auto: ClassVar[Choice] = Choice("spectral-ancestral", DRAWS)
    best: ClassVar[Choice | None] = Choice("hqs", SPLITS)
    presets: ClassVar[tuple[Preset, ...]] = (
        calibrated(20, 5.0),
        split(30, 1.0, 0.01),
        _preset("diffpir", lambda p: DiffPIR(lam=0.5, zeta=1.0, schedule=start(p, 20.0, 60))),
        _preset("mmps", lambda p: MMPS(iterations=12, schedule=start(p, 20.0, 30))),
        daps(0.05, 20.0),
        _preset("dds", lambda p: DDS(gamma=10.0, schedule=start(p, 20.0, 50, 0.01))),
        _preset("csgm", lambda p: CSGM(final="denoised", schedule=VE(400, 5.0, end(p, 0.01)))),
        _preset("pigdm", lambda p: PiGDM(guidance="paper", schedule=start(p, 5.0, 50, 0.01))),
        _preset("reddiff", lambda p: REDDiff(sigma_floor=0.05, schedule=VP(200))),
        _preset(
            "score-medical",
            lambda p: ScoreMedical(lam=0.8, snr=0.45, final="none", schedule=start(p, 20.0, 60)),
        ),
        _preset(
            "mcg",
            lambda p: MCG(
                rho=3.0, weight="pinv", lam=0.8, final="none", schedule=VP(60, spacing="trailing")
            ),
        ),
        _preset("dps", lambda p: DPS(zeta=8.0, schedule=VP(180, spacing="trailing"))),
    )

    noise: NoiseLevel | None = option(
        "of the line integrals, of all rays; else of the photons, or estimated", None
    )
    geometry: Literal["parallel", "fan"] | None = option(
        "of the rays; without it as the file says, or else parallel", None
    )
    source: float | None = option(
        "of a fan: distance from the source to the axis of rotation, in bins", None
    )
    angles: Angles | None = option(
        "file (.npy) or START,STOP in degrees; those of the file without it", None
    )
    angle_unit: Literal["degrees", "radians"] | None = option(
        "of angles in a file that does not tell", None
    )
    direction: Literal["counter-clockwise", "clockwise"] = option(
        "in which the angles count: the object stands still, and the source turns",
        "counter-clockwise",
    )
    first: Literal["views", "bins", "rows"] | None = option(
        "first axis of an array; what fits the angles without it", None
    )
    center: Centre = option("axis of rotation, in bins from the middle, or `estimate`", Centre(0.0))
    views: int | None = option("use so many of the views, in equal steps", None)
    side: int | None = option(
        "of the square image, in pixels of one bin; all bins without it", None
    )
    pixel: float = option("width of a bin at the axis of rotation, in units of length", 1.0)
    water: float | None = option(
        "attenuation of water per unit of length: then results are in HU", None
    )
    top: float | None = option(
        "largest attenuation per unit of length, for the prior; without --water", None
    )
    kind: Literal["counts", "transmission", "percent", "integrals"] | None = option(
        "of numbers that are not told", None
    )
    weights: Literal["photons", "equal"] | None = option(
        "of rays; else photons where counts are and no --noise", None
    )
    outliers: Literal["keep", "replace"] = option("counts far above all around", "keep")
    rings: Literal["keep", "remove"] = option(
        "what each bin adds in all views (a bad flat field)", "keep"
    )
    drift: Literal["keep", "remove"] = option(
        "a line through the air beside the object, per view", "keep"
    )
    join: int = option("make one bin of so many neighbours", 1)
    slice: int | None = option("detector row, from 0; the middle one without it", None)
    key: str | None = option("name of the array in the file", None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise is not None and self.noise.word == "correlated":
            raise InvdiffError("ct takes no correlated noise; leave --noise out to estimate it.")
        if self.side is not None and self.side < 1:
            raise InvdiffError(f"--side is at least 1 pixel, found {self.side}.")

    def read(self, file: Path, prior: Prior) -> Measured:
        """The problem of reconstructing a slice from a sinogram; `ct_problem` tells how."""
        if prior.image_range != (-1.0, 1.0):
            raise InvdiffError(f"ct needs a prior on [-1, 1], not on {prior.image_range}.")
        s = self._sinogram(file)
        s = without_rings(s) if self.rings == "remove" else s
        s = without_drift(s) if self.drift == "remove" else s
        s, rays = self._rays(s)
        shift, told = self._centre(s)
        side = s.integrals.shape[1] if self.side is None else self.side
        check_pixels((side, side), "The slice")
        A = Radon.of(s.geometry.shifted(shift), (side, side), self.pixel)
        sigma = None if self.noise is None or self.noise.word else self.noise.sigma
        equal = self._equal(sigma, s)
        c = ct_problem(s, A, self.water, sigma, self.views, equal=equal, top=self.top)
        black, white = WINDOW if c.units == "HU" else (c.low, c.high)
        view = FloatView(c.first, c.low, c.high, c.units, black, white)
        notes = [*s.facts, told, rays]
        hint = direction_hint(s, shift)
        notes += [WARNING + hint] * bool(hint)
        if self.views is not None:
            notes.append(f"{self.views} of {len(s.angles)} views are used")
        if c.units != "HU":
            notes.append(
                f"values are attenuation, up to {c.high:.4g} {c.scale}; --water MU makes them "
                "Hounsfield units"
            )
        line = f"{c.sigma:.4g} of the line integrals: {c.how}"
        views, bins = s.integrals.shape
        about = f"sinogram, {views} views of {bins} bins"
        return Measured(c.problem, view, about, line, tuple(notes))

    def _equal(self, sigma: float | None, s: Sinogram) -> bool:
        """Whether all rays have the same noise. Raises InvdiffError where they cannot have
        another."""
        if self.weights == "photons" and sigma is not None:
            raise InvdiffError(
                "--noise is the same for all rays; leave it or --weights photons out."
            )
        if self.weights == "photons" and s.variance is None:
            raise InvdiffError(
                "The file has no counts, from which rays get the noise of their photons; leave "
                "--weights out."
            )
        return self.weights == "equal" or s.variance is None

    def _sinogram(self, file: Path) -> Sinogram:
        """The file, with the angles that were told."""
        found: Any = None if self.angles is None else self.angles.read()
        if isinstance(found, np.ndarray):
            found = real_numbers(found, str(self.angles))
        s = read_sinogram(
            str(file),
            key=self.key,
            row=self.slice,
            angles=real_numbers(found, str(self.angles))
            if isinstance(found, np.ndarray)
            else found,
            unit=None if isinstance(found, tuple) else self.angle_unit,
            kind=self.kind,
            join=self.join,
            zingers=self.outliers == "replace",
            first=self.first,
        )
        if self.direction == "counter-clockwise":
            return s
        facts = (*s.facts, "angles taken as clockwise")
        return dataclasses.replace(s, angles=tuple(-a for a in s.angles), facts=facts)

    def _rays(self, s: Sinogram) -> tuple[Sinogram, str]:
        """s with the geometry that was told, else with the file's, and what it is in words."""
        source = source_of_fan(self.geometry, self.source, s.source)
        asked = self.geometry is not None or self.source is not None
        how = "as asked" if asked else "as the file says"
        if source is None:
            told = f"parallel rays, {how}" if asked else "parallel rays, for no source is told"
        else:
            told = f"a fan, its source {source:g} bins from the axis of rotation, {how}"
        return dataclasses.replace(s, source=source), told

    def _centre(self, s: Sinogram) -> tuple[float, str]:
        """`Radon.shift`, and where it comes from."""
        bins = s.integrals.shape[1]
        if self.center.estimated:
            shift = centre_of_rotation(s)
            told = f"axis of rotation {shift:+.2f} bins from the middle, found from the views"
            return shift, told
        shift = self.center.bins
        if abs(shift) > bins / 2:
            raise InvdiffError(f"--center {shift:g} lies beyond the detector of {bins} bins.")
        told = f"axis of rotation {shift:+g} bins from the middle; --center estimate finds it"
        return shift, told

    def truth(self, file: Path, view: View, among: tuple[int, int] | None = None) -> Truth:
        """The slice in the units of the results: .npy, .npz, float TIFF; in HU DICOM too."""
        units = view.units if isinstance(view, FloatView) else "HU"
        ending = file.suffix.lower()
        array: Any
        if file.is_dir() or ending in (".dcm", ".ima") or (file.is_file() and is_dicom(file)):
            if units != "HU":
                raise InvdiffError(
                    f"{file} is in HU, but the results are in {units}; tell --water for HU."
                )
            array = read_dicom(file).hu[:, 0]
        else:
            array = read_tiff(file) if ending in (".tif", ".tiff") else numbers(file)
        return clean_slices(file, array, units, HU_WINDOW)

    @classmethod
    def simulation(cls) -> type[Simulation]:
        from invdiff.tasks.ct_simulation import MakeCt

        return MakeCt

    @classmethod
    def toy(cls, sigma: float = 0.05, size: Size = (16, 16)) -> Problem:
        A = Radon(sparse_view(8), (16, 16), pixel=0.1, cg_iterations=10)
        return unmeasured(A, GaussianNoise(sigma), (1, 16, 16))


def source_of_fan(
    geometry: str | None, told: float | None, found: float | None = None
) -> float | None:
    """How far the source of a fan is, in bins, as told or else as found in a file; None for
    parallel rays."""
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
