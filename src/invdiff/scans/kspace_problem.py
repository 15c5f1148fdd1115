"""From k-space on a grid to a Problem on a prior's scale, and what undoes that scale."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.core import WARNING, InvdiffError
from invdiff.noise import GaussianNoise
from invdiff.noise.estimate import noise_from_kspace
from invdiff.operators.algebra import Linear
from invdiff.operators.coils import espirit, mvue, mvue_scale, root_sum_of_squares
from invdiff.operators.mri import Fourier, Sense
from invdiff.problem import Problem
from invdiff.scans.kspace import KSpace
from invdiff.scans.redundancy import level_of
from invdiff.scans.whiten import NoiseWhitening

COIL_ITERATIONS = 10
"""Bound on the conjugate gradients of a multi-coil problem; enough for samplers."""
CROP = 0.0
"""Eigenvalue of ESPIRiT below which maps are 0."""
WHITENED = "coils whitened by the noise scan, with their intensity restored"
"""What is told of noise scans that are used."""
DOUBT = 0.7
"""Share of the level of a noise scan below which what the rim of k-space shows contradicts it."""


@dataclass(frozen=True, eq=False)
class MRI:
    """A problem for a prior of magnitudes of about 0 to 1, real and imaginary part as channels.

    scale: x times scale is in the units of the file. sigma: noise per real part in these units.
    how: where sigma comes from. notes: what was done beyond, and what is in doubt. support: (H, W),
    False where the coils see nothing, so that nothing was measured and the image is 0; None where
    they see all.
    """

    problem: Problem
    scale: float
    sigma: float
    how: str
    notes: tuple[str, ...] = ()
    support: Tensor | None = None


def support_of(maps: Tensor | None) -> Tensor | None:
    """(H, W), False where maps (coils, H, W) are 0; None where they are nowhere 0."""
    if maps is None:
        return None
    seen = (maps != 0).any(0)
    return None if bool(seen.all()) else seen


def mri_problem(
    k: KSpace,
    maps: Tensor | None = None,
    sigma: float | None = None,
    rows: int | None = None,
    whiten: bool = True,
    estimate: bool = False,
    crop: float = CROP,
) -> MRI:
    """The problem of reconstructing an image from k-space.

    maps: coil sensitivities (coils, H, W), complex; None estimates those of several coils by
    ESPIRiT, from the calibration samples of k where it has such, and with support: 0 where the
    eigenvalue is below crop. sigma: noise per real part in the units of the file; None takes that
    of the noise scan, else the smaller of two estimates: `noise_from_kspace` of the outermost
    samples of all k-space, and for several coils `noise_from_coils`. estimate: take these in any
    case. rows: only the middle of k-space, so many rows and columns in proportion: larger voxels,
    and the same noise. whiten: use the covariance of a noise scan, k.noise, where there is one; the
    image keeps the intensity of the coils as they are, and sigma is the root of their mean
    variance. The scale is that of Jalal et al. 2021 (`mvue_scale`).
    Raises InvdiffError when maps do not fit, or they or the noise cannot be estimated.
    """
    if rows is not None:
        whole, k = k.data, middle(k, rows)
    else:
        whole = k.data
    coils, *size = k.data.shape
    if maps is not None and tuple(maps.shape) != tuple(k.data.shape):
        raise InvdiffError(
            f"The coil maps have shape {tuple(maps.shape)}, but k-space has {tuple(k.data.shape)} "
            "(coils, height, width)."
        )
    if whiten and k.noise is not None:
        return _whitened(k, maps, sigma, whole, estimate, crop)
    if maps is None and coils > 1:
        maps = espirit((k.data if k.calibration is None else k.calibration)[None], crop=crop)[0]
    if sigma is None:
        level, how = level_of(k, maps, whole)
    else:
        level, how = GaussianNoise(sigma).sigma, "as given"
    alone = torch.ones(k.data.shape, dtype=k.data.dtype)
    scale = float(mvue_scale(k.y, (alone if maps is None else maps)[None]))
    A: Linear = Fourier(k.sampling)
    if maps is not None:
        A = Sense(maps[None].to(k.data.dtype), k.sampling, cg_iterations=COIL_ITERATIONS)
    problem = Problem(k.y / scale, A, GaussianNoise(level / scale), (2, *size))
    return MRI(problem, scale, level, how, (), support_of(maps))


def _whitened(
    k: KSpace, maps: Tensor | None, sigma: float | None, whole: Tensor, estimate: bool, crop: float
) -> MRI:
    """The same of coils whose noise is known: whitened, with an operator of norm 1."""
    assert k.noise is not None
    w = NoiseWhitening.of(k.noise)
    white = dataclasses.replace(k, data=w.white(k.data))
    found = torch.ones_like(k.data) if len(k.data) == 1 else maps
    if found is None:
        lines = k.data if k.calibration is None else k.calibration
        found = w.coloured(espirit(w.white(lines)[None], crop=crop)[0])
    seen = w.white(found)  # of the whitened coils, for the intensity of the others
    power = seen.abs().square().sum(0).sqrt()
    top = power.amax()
    weights, y = (seen / top)[None], white.y / top
    # the image of all coils: sum conj(S) y / sum |S|^2
    image = root_sum_of_squares(mvue(white.y, seen[None]))[0, 0]
    there = power > 0.05 * top
    scale = float(
        torch.where(there, image / power.clamp_min(0.05 * top), 0).flatten().quantile(0.99)
    )
    level, how, notes = _level(w, white, whole, seen, sigma, estimate or not k.noise_level)
    A: Linear = Fourier(k.sampling)
    if len(k.data) > 1:
        A = Sense(weights.to(k.data.dtype), k.sampling, cg_iterations=COIL_ITERATIONS)
    problem = Problem(y / scale, A, GaussianNoise(level / float(top) / scale), (2, *k.mask.shape))
    notes = (WHITENED, *notes)
    support = support_of(found) if len(k.data) > 1 else None
    told = level * w.mean if sigma is not None else level / float(power[there].median())
    return MRI(problem, scale, told, how, notes, support)


def _level(
    w: NoiseWhitening,
    white: KSpace,
    whole: Tensor,
    maps: Tensor,
    sigma: float | None,
    estimate: bool,
) -> tuple[float, str, tuple[str, ...]]:
    """The level of whitened noise, where it comes from, and what speaks against it."""
    if sigma is not None:
        return GaussianNoise(sigma).sigma / w.mean, "as given, on average over the coils", ()
    if estimate:
        own = maps if len(maps) > 1 else None
        level, how = level_of(white, own, w.white(whole))
        return level, f"{how}, of whitened coils, together", ()
    how = "from the noise scan, of the coils together"
    try:
        rim = noise_from_kspace(w.white(whole)).sigma
    except InvdiffError:  # too few samples to tell
        return 1.0, how, ()
    if rim >= DOUBT:
        return 1.0, how, ()
    return 1.0, how, (
        f"{WARNING}the outermost samples show {rim:.0%} of the noise of the noise scan; --noise "
        "estimate takes its level from k-space",
    )  # fmt: skip


def middle(k: KSpace, rows: int) -> KSpace:
    """The middle of k-space with so many rows, and columns in proportion."""
    h, w = k.mask.shape
    if not 0 < rows <= h:
        raise InvdiffError(f"k-space has {h} rows; from 1 to {h} of them can be kept, not {rows}.")
    columns = max(1, round(rows * w / h))
    top, left = h // 2 - rows // 2, w // 2 - columns // 2
    here = (..., slice(top, top + rows), slice(left, left + columns))
    calibration = None if k.calibration is None else k.calibration[here].clone()
    placement = None if k.placement is None else k.placement.coarser(h / rows, w / columns)
    recon = None
    if k.recon is not None:  # the same fields of view, of larger pixels
        recon = max(1, round(k.recon[0] * rows / h)), max(1, round(k.recon[1] * columns / w))
    return dataclasses.replace(
        k, data=k.data[here].clone(), mask=k.mask[here].clone(), calibration=calibration,
        placement=placement, recon=recon,
    )  # fmt: skip
