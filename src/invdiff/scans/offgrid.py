"""From samples of k-space off the grid to a Problem on a prior's scale."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.noise import GaussianNoise
from invdiff.noise.estimate import median_level
from invdiff.operators.coils import espirit, normalised, root_sum_of_squares
from invdiff.operators.mri import as_complex, fft2c
from invdiff.operators.noncartesian import NonCartesian, density_compensation
from invdiff.problem import Problem
from invdiff.scans.kspace_problem import MRI, WHITENED, support_of
from invdiff.scans.noncartesian import NonCartesianKSpace
from invdiff.scans.whiten import NoiseWhitening

ITERATIONS = 20
"""Bound on the conjugate gradients of a problem off the grid; enough for samplers."""
GRIDDING = 10
"""Iterations for the coils' images of which sensitivities are estimated."""
CALIBRATION = 24
"""Side of the middle of k-space that ESPIRiT reads."""


def noncartesian_problem(
    k: NonCartesianKSpace,
    maps: Tensor | None = None,
    sigma: float | None = None,
    rows: int | None = None,
    whiten: bool = True,
    estimate: bool = False,
    crop: float = 0.0,
) -> MRI:
    """The problem of reconstructing an image from samples off the grid; as `mri_problem`.

    maps: coil sensitivities (coils, H, W), complex; None estimates those of several coils by
    ESPIRiT, from the images of the coils without a prior. sigma: noise per real part in the units
    of the file; None estimates it from the outermost samples. whiten, estimate: as in
    `mri_problem`. crop: of ESPIRiT. rows: only samples that an image of
    so many rows, and columns in proportion, resolves. The scale is a quantile of the image that
    gridding gives, the operator has norm 1, and its density is that of gridding.
    Raises InvdiffError when maps do not fit, or cannot be estimated.
    """
    w = NoiseWhitening.of(k.noise) if whiten and k.noise is not None else None
    if w is not None:
        k = dataclasses.replace(k, data=w.white(k.data))
    level, how, notes = _level(k, w, sigma, estimate)
    if rows is not None:
        k = _middle(k, rows)
    coils = len(k.data)
    if maps is not None and tuple(maps.shape) != (coils, *k.size):
        raise InvdiffError(
            f"The coil maps have shape {tuple(maps.shape)}, but the measurement has "
            f"{(coils, *k.size)} (coils, height, width)."
        )
    density = density_compensation(k.uv, k.size)
    if maps is None:
        maps = (
            torch.ones(1, *k.size, dtype=torch.complex64) if coils == 1 else _maps(k, density, crop)
        )
        if w is not None and coils > 1:
            maps = w.coloured(maps)
    support = support_of(maps)
    if w is not None:
        maps = w.white(maps)
    A = NonCartesian(k.uv, k.size, maps[None].to(k.data.dtype), density, cg_iterations=ITERATIONS)
    combined = dataclasses.replace(A, maps=normalised(maps[None].to(k.data.dtype)))
    image = root_sum_of_squares(combined.gridded(k.y))[0, 0]
    if w is not None:  # its intensity
        power = maps.abs().square().sum(0).sqrt()
        least = 0.05 * power.amax()
        image = torch.where(power > least, image / power.clamp_min(least), 0)
    scale = float(image.flatten().quantile(0.99))
    unit = 1 / _norm(A)
    scaled = dataclasses.replace(A, maps=A._as("maps", k.y) * unit, density=density / unit**2)
    problem = Problem(
        k.y * (unit / scale), scaled, GaussianNoise(level * unit / scale), (2, *k.size)
    )
    told = level
    if w is not None:
        told = level * w.mean if sigma is not None else level / float(power[power > least].median())
    return MRI(problem, scale, told, how, notes, support)


def _level(
    k: NonCartesianKSpace, w: NoiseWhitening | None, sigma: float | None, estimate: bool
) -> tuple[float, str, tuple[str, ...]]:
    """The noise of the samples, whitened or not, where it comes from, and what was done."""
    notes = (WHITENED,) if w is not None else ()
    if sigma is not None:
        return GaussianNoise(sigma).sigma / (1.0 if w is None else w.mean), "as given", notes
    if w is not None and k.noise_level and not estimate:
        return 1.0, "from the noise scan, of the coils together", notes
    return _noise(k), "an estimate from the outermost samples", notes


def _noise(k: NonCartesianKSpace) -> float:
    """Noise per real part, from the outermost twentieth of the samples; as `noise_from_kspace`."""
    far = (k.uv[0] / torch.tensor([k.size[1], k.size[0]])).norm(dim=1)
    # not torch.quantile, which refuses more than 2^24 values
    edge = far.kthvalue(max(1, math.floor(0.95 * len(far)))).values
    return median_level(k.data[:, far >= edge])


def _middle(k: NonCartesianKSpace, rows: int) -> NonCartesianKSpace:
    """The samples that an image of so many rows resolves."""
    h, w = k.size
    if not 0 < rows <= h:
        raise InvdiffError(
            f"The measurement resolves {h} rows; from 1 to {h} of them can be kept, not {rows}."
        )
    columns = max(1, round(rows * w / h))
    u, v = k.uv[0].abs().unbind(1)
    here = (u <= columns / 2) & (v <= rows / 2)
    if not bool(here.any()):
        raise InvdiffError(f"No sample lies within the middle {rows} rows of k-space.")
    data, uv = k.data[:, here].clone(), k.uv[:, here].clone()
    return dataclasses.replace(k, data=data, uv=uv, size=(rows, columns))


def _maps(k: NonCartesianKSpace, density: Tensor, crop: float) -> Tensor:
    """Sensitivities (coils, H, W), by ESPIRiT on the middle of the k-space of the coils' images."""
    alone = NonCartesian(k.uv, k.size, None, density, cg_iterations=GRIDDING)
    full = fft2c(as_complex(alone.pinv(k.y)))
    return espirit(full, width=min(CALIBRATION, *k.size), crop=crop)[0]


def _norm(A: NonCartesian) -> float:
    """The largest singular value, by power iteration."""
    x = torch.ones(1, 2, *A.size)
    for _ in range(12):
        x = A.adjoint(A(x / x.norm()))
    return math.sqrt(float(x.norm()))
