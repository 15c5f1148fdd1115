"""k-space as a measurement: files of scanners in, complex images out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError, Problem, nearest
from invdiff.figures import Scale
from invdiff.forms.base import Level, Made, Measured, View, real_numbers
from invdiff.io import luma, read_array, read_photo, save_picture, words
from invdiff.noise import Gaussian
from invdiff.operators.base import Linear
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
from invdiff.rng import Rng
from invdiff.scans import is_noncartesian, read_kspace, read_noncartesian
from invdiff.scans.offgrid import noncartesian_problem
from invdiff.scans.problems import MRI, mri_problem
from invdiff.tasks import Task

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


def read(task: Task, path: str, options: Mapping[str, Any], noise: Level, prior: Prior) -> Measured:
    """The problem of reconstructing an image from k-space; `mri_problem` tells how."""
    named = options.get("coil-maps", "espirit")
    maps = None if named == "espirit" else _maps(named)
    sigma = None if noise in (None, "estimate") else float(noise)
    mask, unit = options.get("mask"), options.get("trajectory-unit")
    if is_noncartesian(path, options.get("key")):
        if mask is not None:
            raise InvdiffError(f"{path} is not sampled on a grid, so it has no mask; leave it out.")
        s = read_noncartesian(path, options.get("key"), options.get("slice"), unit)
        m = noncartesian_problem(s, maps, sigma, options.get("rows"))
        return _measured(task, m, s.facts, len(s.data), s.size, named, prior)
    if unit is not None:
        raise InvdiffError(f"{path} holds no trajectory; leave --trajectory-unit out.")
    k = read_kspace(
        path,
        key=options.get("key"),
        slice=options.get("slice"),
        mask=None if mask is None else real_numbers(read_array(Path(mask)), mask),
    )
    m = mri_problem(k, maps, sigma, options.get("rows"))
    size = (int(k.mask.shape[0]), int(k.mask.shape[1]))
    return _measured(task, m, k.facts, len(k.data), size, named, prior)


def _measured(
    task: Task,
    m: MRI,
    facts: tuple[str, ...],
    coils: int,
    size: tuple[int, int],
    named: str,
    prior: Prior,
) -> Measured:
    """The problem, and what was found and decided in words."""
    told = f"{m.sigma:.4g} per real part in the units of the k-space, {m.sigma / m.scale:.4f} "
    told += f"where the image is about 0 to 1: {m.how}"
    notes = list(facts)
    if coils > 1:
        how = "by ESPIRiT, from the calibration region" if named == "espirit" else named
        notes.append(f"coil maps: {how}")
    if prior.name == task.prior and max(m.problem.x_shape[1:]) > 192:
        notes.append(
            f"the prior {prior.name} knows voxels of 128 x 128 images best; --rows 128 makes such"
        )
    return Measured(m.problem, ComplexView(m.scale), f"k-space, {words(size)}", told, tuple(notes))


def _maps(path: str) -> Tensor:
    """Coil sensitivities in a .npy file, (coils, H, W)."""
    array = np.asarray(read_array(Path(path)))
    if array.dtype.kind != "c" or not np.isfinite(array).all():
        raise InvdiffError(f"The coil maps {path} are not finite complex numbers.")
    return torch.from_numpy(array.astype(np.complex64))


SAMPLINGS: dict[str, Callable[[tuple[int, int], float, int], Tensor]] = {
    "gaussian": gaussian_lines,
    "random": random_lines,
    "equispaced": lambda size, accel, seed: equispaced(size, accel),
    "poisson": poisson_disc,
}
"""Ways to choose samples, by name: columns, and points for the last."""


def make(task: Task, path: str, options: Mapping[str, Any], noise: float, seed: int) -> Made:
    """k-space of a picture: kspace.npy, mask.npy, coil-maps.npy, and the truth.

    The picture's brightness is the magnitude, with a smooth phase; a complex .npy (H, W) is taken
    as it is. noise: per real part, where the magnitude is about 0 to 1.
    """
    truth, about, notes = _clean(path)
    size = (int(truth.shape[-2]), int(truth.shape[-1]))
    if options["sampling"] not in SAMPLINGS:
        raise nearest(options["sampling"], SAMPLINGS, "sampling")
    mask = SAMPLINGS[options["sampling"]](size, options["accel"], seed)
    coils = options["coils"]
    maps = ring_maps(coils, size).to(torch.complex64) if coils != 1 else None
    A: Linear = Fourier(mask) if maps is None else Sense(maps, mask)
    y = A.restrict(Gaussian(noise).sample(A(truth), Rng.of(seed)))
    files = {"mask": "mask.npy"} | ({} if maps is None else {"coil-maps": "coil-maps.npy"})

    def write(folder: Path) -> None:
        np.save(folder / "kspace.npy", y[0].numpy())
        np.save(folder / "mask.npy", mask[0, 0].numpy())
        if maps is not None:
            np.save(folder / "coil-maps.npy", maps[0].numpy())
        np.save(folder / "truth.npy", as_complex(truth)[0, 0].numpy())
        save_picture(folder / "truth.png", root_sum_of_squares(truth)[0] / WHITE)

    told = f"{coils} coil{'s' * (coils > 1)}, {words(size)} samples of k-space, true acceleration "
    told += f"{acceleration(mask)[0]:.2f}, noise {noise:g} per real part"
    flags = {"noise": str(noise)}  # an estimate would take signal for it
    return Made(about, told, "kspace.npy", flags, files, write, notes)


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
