"""MRI: k-space as scanners write it, complex images out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.option import option
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, VP
from invdiff.files.figures import Scale
from invdiff.files.pictures import luma, read_array, read_photo, save_picture, words
from invdiff.noise import Gaussian
from invdiff.operators.algebra import Linear
from invdiff.operators.coils import ring_maps, root_sum_of_squares
from invdiff.operators.mri import Fourier, Sense, as_channels, as_complex
from invdiff.operators.noncartesian import NonCartesian
from invdiff.operators.sampling import (
    acceleration,
    equispaced,
    gaussian_lines,
    poisson_disc,
    random_lines,
)
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.problem.toys import unmeasured
from invdiff.sampling.solver import Solver
from invdiff.scans import is_noncartesian, read_kspace, read_noncartesian
from invdiff.scans.offgrid import noncartesian_problem
from invdiff.scans.problems import MRI, mri_problem
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
    Made,
    Measured,
    Preset,
    Simulation,
    Task,
    View,
    real_numbers,
    told_level,
)
from invdiff.tasks.presets import DRAWS, SPLITS, calibrated, daps, end, split, start
from invdiff.tasks.values import NoiseLevel, Numbers, Size

WHITE = 1.2
"""Magnitude on the prior's scale that is shown as white."""
SHARE = 0.02
"""Weight of the identity in SENSE without a prior, which is shown beside the results."""


@dataclass(frozen=True, eq=False)
class ComplexView(View):
    """Samples as magnitude and phase. unit: x times unit is in the units of the file."""

    unit: float = 1.0

    @property
    def scale(self) -> Scale:
        return Scale(0.0, WHITE * self.unit, "units of the k-space")

    @property
    def beside(self) -> str:
        return "each with its phase (-phase.png: black -pi, white pi) and complex numbers (.npy)"

    def values(self, x: Tensor) -> Tensor:
        return x * self.unit

    def array(self, values: Tensor) -> np.ndarray:
        return np.asarray(as_complex(values)[:, 0].numpy())

    def picture(self, values: Tensor) -> Tensor:
        return root_sum_of_squares(values[None])[0] / (WHITE * self.unit)

    def std(self, values: Tensor) -> Tensor:
        """Of the complex number: the root of the variance of both its parts."""
        return values.var(0).sum(0, keepdim=True).sqrt()

    def measurement(self, problem: Problem) -> list[tuple[str, Tensor]]:
        """Zero-filled, or gridded, and of several coils SENSE without a prior."""
        A = problem.linear
        back = A.adjoint(problem.y)
        panels = [("zero-filled", back)]
        if isinstance(A, NonCartesian):
            panels = [("gridded", A.gridded(problem.y))]
        if problem.y.shape[1] > 1:
            panels.append(("SENSE without prior", A.solve(back, SHARE)))
        return [(title, self.picture(self.values(x)[0])) for title, x in panels]

    def save(self, folder: Path, name: str, values: Tensor) -> None:
        z = as_complex(values[None])[0]
        save_picture(folder / f"{name}.png", self.picture(values))
        save_picture(folder / f"{name}-phase.png", z.angle() / (2 * math.pi) + 0.5)
        np.save(folder / f"{name}.npy", z[0].numpy())


SAMPLINGS: dict[str, Callable[[tuple[int, int], float, int], Tensor]] = {
    "gaussian": gaussian_lines,
    "random": random_lines,
    "equispaced": lambda size, accel, seed: equispaced(size, accel),
    "poisson": poisson_disc,
}
"""Ways to choose samples, by name: columns, and points for the last."""


def _preset(solver: str, make: Callable[[Problem], Solver]) -> Preset:
    return Preset(solver, make, source="mri.md")


@dataclass(frozen=True, kw_only=True)
class MakeMri(Simulation):
    """Simulate the k-space of a picture, or of a complex .npy (height, width)."""

    noise: NoiseLevel | None = option(
        "level to add, per real part of k-space, where the magnitude is about 0 to 1", None
    )
    accel: float = option("acceleration that is aimed at", 4.0)
    sampling: Literal["gaussian", "random", "equispaced", "poisson"] = option(
        "gaussian, random or equispaced columns, or poisson points", "gaussian"
    )
    coils: int = option("number of receive coils around the image", 1)

    def make(self, file: Path, out: Path, seed: int) -> Made:
        """kspace.npy, mask.npy, coil-maps.npy, and the truth.

        The picture's brightness is the magnitude, with a smooth phase; a complex .npy (H, W) is
        taken as it is.
        """
        truth, about, notes = _clean(str(file))
        size, level = (int(truth.shape[-2]), int(truth.shape[-1])), told_level(self.noise)
        mask, coils = SAMPLINGS[self.sampling](size, self.accel, seed), self.coils
        maps = ring_maps(coils, size).to(torch.complex64) if coils != 1 else None
        A: Linear = Fourier(mask) if maps is None else Sense(maps, mask)
        y = A.restrict(Gaussian(level).sample(A(truth), Rng.of(seed)))

        def write(folder: Path) -> None:
            np.save(folder / "kspace.npy", y[0].numpy())
            np.save(folder / "mask.npy", mask[0, 0].numpy())
            if maps is not None:
                np.save(folder / "coil-maps.npy", maps[0].numpy())
            np.save(folder / "truth.npy", as_complex(truth)[0, 0].numpy())
            save_picture(folder / "truth.png", root_sum_of_squares(truth)[0] / WHITE)

        told = f"{coils} coil{'s' * (coils > 1)}, {words(size)} samples of k-space, "
        told += f"true acceleration {acceleration(mask)[0]:.2f}, noise {level:g} per real part"
        task = Mri(
            noise=NoiseLevel.of(level),  # an estimate would take signal for it
            mask=Numbers(str(out / "mask.npy")),
            coil_maps=None if maps is None else CoilMaps(str(out / "coil-maps.npy")),
        )
        return Made(task, about, told, "kspace.npy", write, notes)


@dataclass(frozen=True)
class CoilMaps(Numbers):
    """Coil sensitivities (coils, H, W), complex, or the file (.npy) that holds them, or `espirit`,
    which finds them from the calibration region."""

    def maps(self) -> Tensor | None:
        """(coils, H, W) complex; None for espirit."""
        if self.path == "espirit" and self.array is None:
            return None
        array = self.read()
        if array.dtype.kind != "c" or not np.isfinite(array).all():
            raise InvdiffError(f"The coil maps {self.path} are not finite complex numbers.")
        return torch.from_numpy(array.astype(np.complex64))


@dataclass(frozen=True, kw_only=True)
class Mri(Task):
    """Reconstruct an image from k-space (.npy, .npz, .h5, .mrd, .cfl)."""

    name: ClassVar[str] = "mri"
    example: ClassVar[str] = "kspace.h5"
    prior: ClassVar[str] = "brain"
    scale_1: ClassVar[bool] = False
    auto: ClassVar[Choice] = Choice("spectral-ancestral", DRAWS)
    best: ClassVar[Choice | None] = Choice("hqs", SPLITS)
    presets: ClassVar[tuple[Preset, ...]] = (
        calibrated(20, 5.0),
        split(30, 1.0, 0.01),
        _preset("dps", lambda p: DPS(zeta=3.0, path=VP(200))),
        _preset("diffpir", lambda p: DiffPIR(zeta=1.0, path=start(p, 5.0, 40))),
        _preset("ddrm", lambda p: DDRM(eta_prop=1.0, path=start(p, 5.0, 40, 0.01))),
        _preset("ddnm+", lambda p: DDNMPlus(path=start(p, 5.0, 50, 0.01))),
        _preset("dds", lambda p: DDS(path=start(p, 5.0, 50, 0.01))),
        _preset("pigdm", lambda p: PiGDM(guidance="paper", path=start(p, 5.0, 50, 0.01))),
        daps(0.05, 20.0),
        _preset("reddiff", lambda p: REDDiff(sigma_floor=0.05, path=VP(200))),
        _preset("mmps", lambda p: MMPS(path=start(p, 5.0, 30))),
        _preset(
            "snips", lambda p: SNIPS(c=0.15, K=1, final="denoised", path=VE(400, 3.0, end(p, 0.01)))
        ),
        _preset("score-mri", lambda p: ScoreMRI(path=VE(75, 20.0, end(p, 0.01)))),
        _preset(
            "score-medical",
            lambda p: ScoreMedical(lam=0.5, final="none", path=start(p, 20.0, 60)),
        ),
        _preset("csgm", lambda p: CSGM(final="denoised", path=VE(600, 1.232, 0.004))),
    )

    noise: NoiseLevel | None = option(
        "per real part of k-space, in the units of the file; else estimated", None
    )
    mask: Numbers | None = option(
        "file (.npy) with 1 where k-space was sampled; without it, where it is not 0", None
    )
    coil_maps: CoilMaps | None = option(
        "a file (.npy) of sensitivities (coils, H, W), or espirit, which finds them; espirit "
        "without it",
        None,
    )
    slice: int | None = option("of a file of several, from 0; the middle one without it", None)
    rows: int | None = option(
        "keep so many rows in the middle of k-space, and columns in proportion", None
    )
    key: str | None = option("name of the array in the file", None)
    trajectory_unit: Literal["pixel", "fov", "recon-fov", "radian", "1/m", "rad/m"] | None = option(
        "of samples off the grid: cycles per pixel, per encoded or reconstructed field of view, or "
        "as named; told by their reach without",
        None,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise is not None and self.noise.word == "correlated":
            raise InvdiffError("mri takes no correlated noise; leave --noise out to estimate it.")

    def read(self, file: Path, prior: Prior) -> Measured:
        """The problem of reconstructing an image from k-space; `mri_problem` tells how."""
        path, maps = str(file), None if self.coil_maps is None else self.coil_maps.maps()
        sigma = None if self.noise is None or self.noise.word else self.noise.sigma
        if is_noncartesian(path, self.key):
            if self.mask is not None:
                raise InvdiffError(
                    f"{path} is not sampled on a grid, so it has no mask; leave it out."
                )
            s = read_noncartesian(path, self.key, self.slice, self.trajectory_unit)
            m = noncartesian_problem(s, maps, sigma, self.rows)
            return self._measured(m, s.facts, len(s.data), s.size, prior)
        if self.trajectory_unit is not None:
            raise InvdiffError(f"{path} holds no trajectory; leave --trajectory-unit out.")
        mask = None if self.mask is None else real_numbers(self.mask.read(), self.mask.path)
        k = read_kspace(path, key=self.key, slice=self.slice, mask=mask)
        m = mri_problem(k, maps, sigma, self.rows)
        size = (int(k.mask.shape[0]), int(k.mask.shape[1]))
        return self._measured(m, k.facts, len(k.data), size, prior)

    def _measured(
        self, m: MRI, facts: tuple[str, ...], coils: int, size: Size, prior: Prior
    ) -> Measured:
        """The problem, and what was found and decided in words."""
        told = f"{m.sigma:.4g} per real part in the units of the k-space, {m.sigma / m.scale:.4f} "
        told += f"where the image is about 0 to 1: {m.how}"
        notes = list(facts)
        if coils > 1:
            named = "espirit" if self.coil_maps is None else self.coil_maps.path
            how = "by ESPIRiT, from the calibration region" if named == "espirit" else named
            notes.append(f"coil maps: {how}")
        if prior.name == self.prior and max(m.problem.x_shape[1:]) > 192:
            notes.append(
                f"the prior {prior.name} knows voxels of 128 x 128 images best; --rows 128 makes "
                "such"
            )
        about = f"k-space, {words(size)}"
        return Measured(m.problem, ComplexView(m.scale), about, told, tuple(notes))

    @classmethod
    def simulation(cls) -> type[Simulation]:
        return MakeMri

    @classmethod
    def toy(cls, sigma: float = 0.05, size: Size = (16, 12)) -> Problem:
        return unmeasured(
            Fourier(gaussian_lines((16, 12), 3, seed=0)), Gaussian(sigma), (2, 16, 12)
        )


def _clean(path: str) -> tuple[Tensor, str, tuple[str, ...]]:
    """A clean complex image (1, 2, H, W), what it is, and what was made up."""
    if Path(path).suffix.lower() == ".npy":
        array = read_array(Path(path))
        if array.dtype.kind == "c" and array.ndim == 2:
            z = torch.from_numpy(np.array(array, np.complex64))[None, None]
            if not bool(torch.isfinite(torch.view_as_real(z)).all()):
                raise InvdiffError(f"{path} holds NaN or infinite values; replace them.")
            return as_channels(z), f"complex image, {words((z.shape[2], z.shape[3]))}", ()
    photo = read_photo(path)
    grey = luma(photo.pixels)[None]
    if not bool(torch.isfinite(grey).all()):
        raise InvdiffError("The picture holds NaN or infinite values; replace them.")
    phase = 2.0 * torch.linspace(-1, 1, grey.shape[-1]) ** 2 + 0.7
    truth = torch.cat([grey * phase.cos(), grey * phase.sin()], dim=1)
    return truth, photo.about, ("its brightness is the magnitude; the phase is made up",)
