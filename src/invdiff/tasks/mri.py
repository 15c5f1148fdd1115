"""MRI: k-space as scanners write it, complex images out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from invdiff.core import InvdiffError
from invdiff.core.option import option
from invdiff.core.schedules import VE, VP
from invdiff.files.pictures import words
from invdiff.noise import GaussianNoise
from invdiff.operators.mri import Fourier
from invdiff.operators.sampling import (
    gaussian_lines,
)
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.problem.toys import unmeasured
from invdiff.scans import (
    KSpace,
    NonCartesianKSpace,
    is_noncartesian,
    read_kspace,
    read_noncartesian,
)
from invdiff.scans.asked import COUNTERS
from invdiff.scans.kspace_problem import MRI, mri_problem
from invdiff.scans.offgrid import noncartesian_problem
from invdiff.scans.volumes import ORDER, check_writable
from invdiff.scans.whiten import with_noise_scan
from invdiff.solvers.csgm import CSGM
from invdiff.solvers.ddnm import DDNMPlus
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.dds import DDS
from invdiff.solvers.diffpir import DiffPIR
from invdiff.solvers.dps import DPS
from invdiff.solvers.mmps import MMPS
from invdiff.solvers.pigdm import PiGDM
from invdiff.solvers.reddiff import REDDiff
from invdiff.solvers.score_medical import ScoreMedical
from invdiff.solvers.score_mri import ScoreMRI
from invdiff.solvers.snips import SNIPS
from invdiff.tasks.base import (
    Choice,
    Measured,
    Parts,
    Preset,
    Simulation,
    Task,
    View,
    real_numbers,
)
from invdiff.tasks.mri_series import series_of
from invdiff.tasks.mri_values import Axes, CoilMaps, NoiseScanFile, Volume, Which
from invdiff.tasks.mri_view import ComplexView
from invdiff.tasks.presets import DRAWS, SPLITS, calibrated, daps, end, split, start
from invdiff.tasks.truth import Truth, clean_magnitudes
from invdiff.tasks.values import NoiseLevel, Numbers, Size

_preset = partial(Preset, source="mri.md")


@dataclass(frozen=True, kw_only=True)
class Mri(Task):
    """Reconstruct an image from k-space (.npy, .npz, .h5, .mrd, .cfl, .mat)."""

    name: ClassVar[str] = "mri"
    example: ClassVar[str] = "kspace.h5"
    prior: ClassVar[str] = "brain"
    scale_1: ClassVar[bool] = False
    auto: ClassVar[Choice] = Choice("spectral-ancestral", DRAWS)
    best: ClassVar[Choice | None] = Choice("hqs", SPLITS)
    presets: ClassVar[tuple[Preset, ...]] = (
        calibrated(20, 5.0),
        split(30, 1.0, 0.01, lam=0.5),  # maps that are estimated add to the noise
        _preset("dps", lambda p: DPS(zeta=3.0, schedule=VP(200))),
        _preset("diffpir", lambda p: DiffPIR(zeta=1.0, schedule=start(p, 5.0, 40))),
        _preset("ddrm", lambda p: DDRM(eta_prop=1.0, schedule=start(p, 5.0, 40, 0.01))),
        _preset("ddnm+", lambda p: DDNMPlus(schedule=start(p, 5.0, 50, 0.01))),
        _preset("dds", lambda p: DDS(schedule=start(p, 5.0, 50, 0.01))),
        _preset("pigdm", lambda p: PiGDM(guidance="paper", schedule=start(p, 5.0, 50, 0.01))),
        daps(0.05, 20.0),
        _preset("reddiff", lambda p: REDDiff(sigma_floor=0.05, schedule=VP(200))),
        _preset("mmps", lambda p: MMPS(schedule=start(p, 5.0, 30))),
        _preset(
            "snips",
            lambda p: SNIPS(c=0.15, K=1, final="denoised", schedule=VE(400, 3.0, end(p, 0.01))),
        ),
        _preset("score-mri", lambda p: ScoreMRI(schedule=VE(75, 20.0, end(p, 0.01)))),
        _preset(
            "score-medical",
            lambda p: ScoreMedical(lam=0.5, final="none", schedule=start(p, 20.0, 60)),
        ),
        _preset("csgm", lambda p: CSGM(final="denoised", schedule=VE(600, 1.232, 0.004))),
    )

    noise: NoiseLevel | None = option(
        "per real part, in the units of the file; else of its scan, or estimated", None
    )
    mask: Numbers | None = option(
        "file (.npy), 1 where k-space was sampled; where it is not 0 without it", None
    )
    coil_maps: CoilMaps | None = option(
        "a file (.npy, .cfl) of (coils, H, W), or espirit; espirit:0.8 makes the image 0 "
        "where its eigenvalue is lower; espirit without it",
        None,
    )
    slice: Which | None = option(
        "of several, from 0, or all, as one volume; the middle one without it", None
    )
    echo: Which | None = option("of several echoes or contrasts, from 0, or all; else 0", None)
    time: Which | None = option("of several times or repetitions, from 0, or all; else 0", None)
    phase: Which | None = option("of several cardiac phases, from 0, or all; else 0", None)
    set: Which | None = option(
        "of several sets (of BART, axes of no other name), from 0, or all; else 0", None
    )
    encoding: int | None = option("of ISMRMRD raw data, from 0", None, min=0)
    rows: int | None = option(
        "keep so many rows in the middle of k-space, and columns in proportion", None
    )
    key: str | None = option("name of the array in the file", None)
    axes: Axes | None = option(
        "of the array, all, as slices,y,x,coils: y are rows, z makes it 3-D", None
    )
    first: Literal["slices", "coils"] | None = option("what the first of three axes is", None)
    origin: Literal["centre", "corner"] | None = option("where the zero frequency stands", None)
    noise_scan: NoiseScanFile | None = option(
        "file (.npy, .cfl, .h5) of noise of the coils; that of the file without", None
    )
    whiten: Literal["auto", "never"] = option(
        "whiten the coils where there is a noise scan, or never", "auto"
    )
    save_as: Volume | None = option(
        "write the estimate too, as NAME.nii.gz (NIfTI, magnitude), NAME.cfl (BART) or NAME.h5 "
        "(fastMRI's reconstruction)",
        None,
    )
    trajectory_unit: Literal["pixel", "fov", "recon-fov", "radian", "1/m", "rad/m"] | None = option(
        "of samples off the grid: cycles per pixel, per encoded or reconstructed "
        "field of view, or as named",
        None,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in COUNTERS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, Which):
                object.__setattr__(self, name, Which.of(value))
        if self.noise is not None and self.noise.word == "correlated":
            raise InvdiffError("mri takes no correlated noise; leave --noise out to estimate it.")

    def read(self, file: Path, prior: Prior) -> Measured:
        """The problem of reconstructing an image from k-space; `mri_problem` tells how."""
        if self.save_as is not None:
            check_writable(self.save_as.name)
        if self.whole:
            raise InvdiffError(
                f"--{self.whole[0]} all asks for several images; `invdiff restore` makes them one "
                "by one, and so does invdiff.restoration.series.restore_all."
            )
        k = self._kspace(file)
        estimated = self.coil_maps is None or self.coil_maps.estimated
        maps = None
        if not estimated and self.coil_maps is not None:
            maps = self.coil_maps.maps(None if self.slice is None else self.slice.index)
        how: dict[str, Any] = {
            "sigma": None if self.noise is None or self.noise.word else self.noise.sigma,
            "whiten": self.whiten == "auto",
            "estimate": self.noise is not None and bool(self.noise.word),
            "crop": self.coil_maps.crop if estimated and self.coil_maps is not None else 0.0,
        }
        if isinstance(k, NonCartesianKSpace):
            m, size, recon = noncartesian_problem(k, maps, rows=self.rows, **how), k.size, None
        else:
            m = mri_problem(k, maps, rows=self.rows, **how)
            size, recon = (int(k.mask.shape[0]), int(k.mask.shape[1])), k.recon
        return self._measured(m, k, size, recon, prior)

    def truth(self, file: Path, view: View, among: tuple[int, int] | None = None) -> Truth:
        """The complex image, or its magnitude, as .npy; magnitudes are compared."""
        return clean_magnitudes(file)

    @property
    def whole(self) -> tuple[str, ...]:
        """By what all images of the file are asked for."""
        asked = {name: getattr(self, name) for name in COUNTERS}
        return tuple(n for n in ORDER if asked[n] is not None and asked[n].index is None)

    def parts(self, file: Path) -> Parts | None:
        if not self.whole:
            return None
        if self.save_as is not None:
            check_writable(self.save_as.name)
        nothing: dict[str, Any] = {name: None for name in self.whole}
        one = dataclasses.replace(self, **nothing)
        return series_of(self, one._kspace(file), self.whole)

    def _kspace(self, file: Path) -> KSpace | NonCartesianKSpace:
        """The image of the file that is asked for, with its noise."""
        path = str(file)
        asked = {name: getattr(self, name) for name in COUNTERS}
        index: dict[str, Any] = {n: None if w is None else w.index for n, w in asked.items()}
        k: KSpace | NonCartesianKSpace
        if is_noncartesian(path, self.key, self.encoding):
            if self.mask is not None:
                raise InvdiffError(
                    f"{path} is not sampled on a grid, so it has no mask; leave it out."
                )
            k = read_noncartesian(
                path, self.key, unit=self.trajectory_unit, encoding=self.encoding, **index
            )
        else:
            if self.trajectory_unit is not None:
                raise InvdiffError(f"{path} holds no trajectory; leave --trajectory-unit out.")
            mask = None if self.mask is None else real_numbers(self.mask.read(), self.mask.path)
            k = read_kspace(
                path, key=self.key, mask=mask, first=self._first(), origin=self.origin,
                axes=None if self.axes is None else self.axes.names, encoding=self.encoding,
                **index,
            )  # fmt: skip
        if self.noise_scan is None or self.whiten == "never":
            return k
        scan = self.noise_scan
        array = None if scan.array is None else scan.read()
        return with_noise_scan(k, Path(scan.path), array)

    def _first(self) -> Literal["slices", "coils"] | None:
        """What the first of three axes is: coils, where maps of theirs are given."""
        known = self.coil_maps is not None and not self.coil_maps.estimated
        return "coils" if known and self.first is None and self.slice is None else self.first

    def _measured(
        self,
        m: MRI,
        k: KSpace | NonCartesianKSpace,
        size: Size,
        recon: Size | None,
        prior: Prior,
    ) -> Measured:
        """The problem, and what was found and decided in words."""
        told = f"{m.sigma:.4g} per real part in the units of the k-space, {m.sigma / m.scale:.4f} "
        told += f"where the image is about 0 to 1: {m.how}"
        notes = [*k.facts, *m.notes]
        if k.noise is not None and self.whiten == "never":
            notes.append("the noise scan is not used (--whiten never)")
        if len(k.data) > 1:
            estimated = self.coil_maps is None or self.coil_maps.estimated
            how = "by ESPIRiT, from the calibration region"
            notes.append(f"coil maps: {how if estimated else str(self.coil_maps)}")
        if prior.name == self.prior and max(m.problem.x_shape[1:]) > 192:
            notes.append(
                f"the prior {prior.name} knows voxels of 128 x 128 images best; --rows 128 makes "
                "such"
            )
        view = self._view(m, k, size, recon)
        shown = view.size(m.problem.x_shape)
        if shown != tuple(m.problem.x_shape[1:]):
            notes.append(f"the image is cut to the {words(shown)} pixels that the scanner shows")
        return Measured(m.problem, view, f"k-space, {words(size)}", told, tuple(notes))

    def _view(
        self, m: MRI, k: KSpace | NonCartesianKSpace, size: Size, recon: Size | None
    ) -> ComplexView:
        """How the image is shown, and where it lies."""
        h, w = m.problem.x_shape[1:]
        shown, affine, placed = None, None, False
        if recon is not None:
            shown = (
                min(h, max(1, round(recon[0] * h / size[0]))),
                min(w, max(1, round(recon[1] * w / size[1]))),
            )
        if k.placement is not None:
            at = k.placement.coarser(size[0] / h, size[1] / w)
            affine, placed = at.affine(shown or (h, w)), at.directions is not None
        name = "" if self.save_as is None else self.save_as.name
        return ComplexView(m.scale, shown, m.support, name, affine, placed)

    @classmethod
    def simulation(cls) -> type[Simulation]:
        from invdiff.tasks.mri_simulation import MakeMri

        return MakeMri

    @classmethod
    def toy(cls, sigma: float = 0.05, size: Size = (16, 12)) -> Problem:
        return unmeasured(
            Fourier(gaussian_lines((16, 12), 3, seed=0)), GaussianNoise(sigma), (2, 16, 12)
        )
