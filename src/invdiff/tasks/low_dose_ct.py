"""The noise of CT slices that are reconstructed already: DICOM in and out, in Hounsfield units."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from invdiff import __version__
from invdiff.core import WARNING, InvdiffError
from invdiff.core.option import option
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, Karras
from invdiff.files.figures import Scale
from invdiff.files.pictures import read_array, save_picture, words
from invdiff.noise import GaussianNoise, Noise, StationaryGaussian
from invdiff.operators.algebra import Identity
from invdiff.priors.base import Prior
from invdiff.priors.units import HU_WINDOW, hu_to_x, x_to_hu
from invdiff.problem import Problem
from invdiff.problem.toys import unmeasured
from invdiff.sampling.solver import Solver
from invdiff.scans import read_dicom, read_tiff, write_tiff
from invdiff.scans.ct_noise import ct_noise, deviation, usual_noise
from invdiff.scans.dicom_files import is_dicom
from invdiff.scans.dicom_values import AIR, LOWEST
from invdiff.scans.dicom_write import packed, unpacked, write_dicom
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.hqs import HQS
from invdiff.solvers.spectral_ancestral import SpectralAncestral
from invdiff.tasks.base import (
    Choice,
    Made,
    Measured,
    Preset,
    Simulation,
    Task,
    View,
    real_numbers,
)
from invdiff.tasks.ct_simulation import clean_slice
from invdiff.tasks.ct_view import WINDOW
from invdiff.tasks.presets import INFLATION_IN_MODES, sigma_of
from invdiff.tasks.truth import Truth, clean_slices
from invdiff.tasks.values import NoiseLevel, Size

NOT_FOR_DIAGNOSIS = "not for diagnosis: a prior may remove or invent what is small"


@dataclass(frozen=True, eq=False)
class SlicesView(View):
    """Slices in HU. held: pixels (slices, H, W) that are kept as they were measured, for they are
    padding or beyond what the prior knows; kept: their values, in order. headers, lengths: of the
    DICOM files that the slices were read from (`dicom_write.packed`); empty for other files. first:
    the middle slice as it was measured, (1, H, W)."""

    held: Tensor
    kept: Tensor
    headers: Tensor
    lengths: tuple[int, ...]
    first: Tensor

    @property
    def scale(self) -> Scale:
        return Scale(*WINDOW, "HU")

    @property
    def beside(self) -> str:
        if self.lengths:
            return f"each with a folder of DICOM slices in HU; {NOT_FOR_DIAGNOSIS}"
        kind = "float TIFF (.tif)" if find_spec("tifffile") else ".npy"
        return f"each with its values in HU as {kind}; {NOT_FOR_DIAGNOSIS}"

    def values(self, x: Tensor) -> Tensor:
        hu = x_to_hu(x).clamp_min(HU_WINDOW[0])
        hu[:, self.held] = self.kept.to(hu)
        return hu

    def array(self, values: Tensor) -> np.ndarray:
        return np.asarray((values[:, 0] if values.shape[1] == 1 else values).numpy())

    def deviation(self, std: Tensor) -> np.ndarray:
        return np.asarray((std[0] if len(std) == 1 else std).numpy())

    def shown(self, values: Tensor) -> Tensor:
        middle = len(values) // 2
        return values[middle : middle + 1]

    def seen(self, image: np.ndarray) -> np.ndarray:
        return image[len(image) // 2] if image.ndim == 3 else image

    def alone(self, measurement: int) -> SlicesView:
        counts = self.held.flatten(1).sum(1)
        start = int(counts[:measurement].sum())
        kept = self.kept[start : start + int(counts[measurement])]
        held = self.held[measurement : measurement + 1]
        return dataclasses.replace(self, held=held, kept=kept, lengths=())

    def picture(self, values: Tensor) -> Tensor:
        black, white = WINDOW
        return (self.shown(values) - black) / (white - black)

    def measurement(self, problem: Problem) -> list[tuple[str, Tensor]]:
        return [("slice as measured", self.picture(self.first))]

    def save(self, folder: Path, name: str, values: Tensor) -> None:
        save_picture(folder / f"{name}.png", self.picture(values))
        if self.lengths:
            told = f"{name} by invdiff {__version__}, a posterior of the noise's spectrum and a "
            told += f"learned prior; {NOT_FOR_DIAGNOSIS}"
            headers = unpacked(self.headers, self.lengths)
            write_dicom(folder / name, values, headers, told, self.held)
        elif find_spec("tifffile") is None:
            np.save(folder / f"{name}.npy", self.array(values[None])[0])
        else:
            write_tiff(folder / f"{name}.tif", values, "HU")


def _level(problem: Problem) -> float:
    return max(sigma_of(problem), 1e-3)


def _draws(problem: Problem) -> Solver:
    """In cosine modes, for without them 100 iterations are too few; with the inflation that was
    found for photographs in such modes."""
    top = 3 * _level(problem)
    schedule = Karras(10, top, min(0.01, top / 12))
    return SpectralAncestral(
        inflation=INFLATION_IN_MODES, preconditioner="modes", schedule=schedule
    )


def _split(problem: Problem) -> Solver:
    level = _level(problem)
    return HQS(lam=1.0, schedule=VE(8, level, level / 3))


@dataclass(frozen=True, kw_only=True)
class MakeLowDose(Simulation):
    """Add the noise of a low dose to a slice in Hounsfield units: .npy, .npz, .tif, DICOM."""

    noise: float = option("standard deviation in HU", 40.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.noise < 1e4:
            raise InvdiffError(f"--noise is a deviation in HU above 0, found {self.noise:g}.")

    def make(self, file: Path, out: Path, seed: int) -> Made:
        hu, about, notes = clean_slice(str(file))
        field = usual_noise(self.noise)
        y = field.sample(hu, Rng.of(seed))[0, 0]

        def write(folder: Path) -> None:
            np.save(folder / "measurement.npy", y.numpy())
            np.save(folder / "truth.npy", hu[0, 0].numpy())
            black, white = WINDOW
            save_picture(folder / "truth.png", (hu[0] - black) / (white - black))

        told = f"{words((y.shape[0], y.shape[1]))} pixels, noise of {self.noise:g} HU"
        task = LowDoseCt(noise=NoiseLevel.of(self.noise))
        return Made(task, about, told, "measurement.npy", write, notes)


@dataclass(frozen=True, kw_only=True)
class LowDoseCt(Task):
    """Remove the noise of CT slices in HU: a DICOM file or series, TIFF, .npy."""

    name: ClassVar[str] = "low-dose-ct"
    example: ClassVar[str] = "SERIES_FOLDER"
    prior: ClassVar[str] = "ct"
    scale_1: ClassVar[bool] = False
    folders: ClassVar[bool] = True
    auto: ClassVar[Choice] = Choice(
        "spectral-ancestral", "it takes noise by its spectrum, and its samples agree with y"
    )
    best: ClassVar[Choice | None] = Choice("hqs", "it takes noise by its spectrum")
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("spectral-ancestral", _draws, source="ct.md"),
        Preset("hqs", _split, source="ct.md"),
        Preset(
            "ddrm",
            lambda p: DDRM(schedule=Karras(10, 3 * _level(p), _level(p) / 5)),
            source="ct.md",
        ),
    )

    noise: NoiseLevel | None = option(
        "standard deviation in HU, in soft tissue; without it that is measured there, as the "
        "shape of its spectrum is",
        None,
    )
    slice: int | None = option("one slice of a stack, from 0 in order; all without it", None)
    series: str | None = option("number or UID, of a folder that holds several", None)
    unit: Literal["file", "hu"] = option(
        "of values: as the file says, or hu where it calls them unspecified", "file"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise is not None and not self.noise.word and not 0 < self.noise.sigma < 1e4:
            raise InvdiffError(f"--noise is a deviation in HU above 0, found {self.noise}.")

    def read(self, file: Path, prior: Prior) -> Measured:
        """The problem of all slices, each a measurement; they share their noise."""
        if prior.value_range != (-1.0, 1.0) or prior.image_range != (-1.0, 1.0):
            raise InvdiffError(f"{self.name} needs a prior on [-1, 1], not on {prior.image_range}.")
        hu, padding, frames, about, notes = self._slices(file)
        told = None if self.noise is None or self.noise.word else self.noise.sigma
        field, levels = ct_noise(hu, told)
        held, some = _held(hu, padding)
        lowest, highest = HU_WINDOW
        y = hu_to_x(torch.where(padding, AIR, hu.clamp(LOWEST, highest))).contiguous()
        x_shape = (1, int(hu.shape[2]), int(hu.shape[3]))
        noise = field.scaled(2 / (highest - lowest))
        headers, lengths = packed(frames) if frames else (torch.zeros(0, dtype=torch.uint8), ())
        middle = len(hu) // 2
        view = SlicesView(held, hu[:, 0][held].clone(), headers, lengths, hu[middle].clone())
        line = f"{deviation(field):.3g} HU, correlated: {', '.join(f'{v:.3g}' for v in levels)} "
        line += "at scales of 1, 2, ... pixels, " + ("as given" if told else "in soft tissue")
        problem = Problem(y, Identity(), noise, x_shape)
        return Measured(problem, view, about, line, (*notes, *some, NOT_FOR_DIAGNOSIS))

    def truth(self, file: Path, view: View, among: tuple[int, int] | None = None) -> Truth:
        """Slices in HU, as files that are restored; of a stack the slice that is asked for."""
        if not file.exists():
            raise InvdiffError(f"There is no file or folder {file}.")
        hu = dataclasses.replace(self, series=None, slice=None)._slices(file)[0][:, 0]
        if self.slice is not None and len(hu) > 1:
            if self.slice >= len(hu):
                raise InvdiffError(
                    f"{file} has {len(hu)} slices, counted from 0; there is no slice {self.slice}."
                )
            hu = hu[self.slice : self.slice + 1]
        return clean_slices(file, hu, "HU", HU_WINDOW)

    def _slices(self, file: Path) -> tuple[Tensor, Tensor, list[Any], str, tuple[str, ...]]:
        """(HU (slices, 1, H, W), padding, what they were read from, in words, notes)."""
        ending, frames = file.suffix.lower(), list[Any]()
        notes: tuple[str, ...] = ()
        if file.is_dir() or ending in (".dcm", ".ima") or is_dicom(file):
            s = read_dicom(file, self.series, self.unit == "hu")
            hu, padding, frames, notes = s.raw, s.padding, list(s.frames), s.facts[1:]
            about = s.facts[0]
        elif ending in (".tif", ".tiff"):
            hu, about = read_tiff(file)[:, None], "TIFF of Hounsfield units"
        elif ending == ".npy":
            hu, about = real_numbers(read_array(file), str(file)), "array of Hounsfield units"
            hu = hu[:, None] if hu.ndim == 3 else hu[None, None]
        else:
            raise InvdiffError(
                f"{file} has none of the endings of slices in HU: .dcm, .ima, .tif, .tiff, .npy, "
                "or a folder of DICOM files; NIfTI and others: numpy.save of their values in HU, "
                "(slices, height, width)."
            )
        if not frames:
            padding = torch.zeros_like(hu, dtype=torch.bool)
        if hu.ndim != 4 or not bool(torch.isfinite(hu).all()):
            raise InvdiffError(f"{file} is no slices of finite numbers, (slices, height, width).")
        return self._chosen(hu, padding, frames, about, notes)

    def _chosen(
        self, hu: Tensor, padding: Tensor, frames: list[Any], about: str, notes: tuple[str, ...]
    ) -> tuple[Tensor, Tensor, list[Any], str, tuple[str, ...]]:
        """All slices, or the one that was asked for."""
        count = len(hu)
        if float(hu.min()) > -500 and float(hu.max()) < 20:
            raise InvdiffError(
                f"The values run from {float(hu.min()):.4g} to {float(hu.max()):.4g}, which are no "
                "Hounsfield units of a body: air is -1000, water 0; attenuation mu becomes 1000 "
                "(mu / mu of water - 1)."
            )
        if self.slice is None:
            about += f", {count} slices" if count > 1 else ""
            return hu, padding, frames, about, notes
        if not 0 <= self.slice < count:
            raise InvdiffError(
                f"There are {count} slices, counted from 0; there is no slice {self.slice}."
            )
        one = slice(self.slice, self.slice + 1)
        notes = (*notes, f"slice {self.slice} of {count}")
        return hu[one], padding[one], frames[one], about, notes

    @classmethod
    def simulation(cls) -> type[Simulation]:
        return MakeLowDose

    @classmethod
    def toy(cls, sigma: float = 0.05, size: Size = (16, 16)) -> Problem:
        noise: Noise = GaussianNoise(0.0)
        if sigma > 0:
            noise = StationaryGaussian((0.25, 0.5), ((sigma, 0.6 * sigma),))
        return unmeasured(Identity(), noise, (1, *size))


def _held(hu: Tensor, padding: Tensor) -> tuple[Tensor, list[str]]:
    """Pixels (slices, H, W) that are kept as they are, and what is told of them."""
    above, below = hu > HU_WINDOW[1], (hu < LOWEST) & ~padding
    notes = [f"{int(padding.sum())} pixels of padding are kept as they are"] * bool(padding.any())
    if bool(above.any()):
        notes.append(
            f"{int(above.sum())} pixels above {HU_WINDOW[1]:g} HU are kept as they are, for the "
            "prior knows nothing so dense"
        )
    if bool(below.any()):
        notes.append(
            f"{WARNING}{int(below.sum())} pixels below {LOWEST:g} HU, which are no air, are kept "
            "as they are"
        )
    return (padding | above | below)[:, 0], notes
