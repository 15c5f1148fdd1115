"""The noise of a measurement, estimated from itself: a value, and a sentence on where it is from.

Nothing here is used unless it is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.noise.base import parts
from invdiff.noise.coloured import CorrelatedGaussian
from invdiff.noise.gaussian import GaussianNoise

Box = tuple[int, int, int, int]
"""Top, left, height and width of a region, in pixels."""
FEWEST = 64
"""Numbers below which no level is estimated: its error would be 9 percent and more."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A noise level, or a covariance, that was estimated.

    value: standard deviation (of the real part, where complex) or covariance (k, k), in the units
    of what it was estimated from. error: relative standard error of value, where the noise is as
    assumed. how: where value comes from, a sentence.
    """

    value: float | Tensor
    error: float
    how: str

    @property
    def sigma(self) -> float:
        """The standard deviation; of a covariance, the root of the mean variance."""
        v = self.value
        return float(v.diagonal().real.mean().sqrt()) if isinstance(v, Tensor) else v

    @property
    def noise(self) -> GaussianNoise | CorrelatedGaussian:
        """The noise model; a covariance is along axis 1 of a batch."""
        v = self.value
        return CorrelatedGaussian(v) if isinstance(v, Tensor) else GaussianNoise(v)


def noise_from_detail(image: Tensor, known: Tensor | None = None) -> Estimate:
    """Noise level of (C, H, W) from the finest diagonal Haar coefficients: median |d| / 0.6745.

    Donoho and Johnstone 1994, Biometrika 81. known: (H, W), the pixels that were measured; blocks
    of 2 x 2 pixels with others are left out. Texture counts as noise, so that it is too high
    rather than too low.
    image: real. Raises InvdiffError where there are fewer than 64 blocks, and for other shapes.
    """
    if image.ndim != 3 or image.is_complex():
        raise InvdiffError(
            f"The noise of a real image (C, H, W) is estimated, found {tuple(image.shape)} of "
            f"{image.dtype}."
        )
    if known is not None and known.shape != image.shape[1:]:
        raise InvdiffError(
            f"Known pixels are {tuple(image.shape[1:])} as the image, found {tuple(known.shape)}."
        )
    h, w = (side // 2 * 2 for side in image.shape[1:])
    x = image[:, :h, :w].double()
    detail = (x[:, ::2, ::2] - x[:, 1::2, ::2] - x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 2
    if known is not None:
        blocks = -F.max_pool2d(-known[None, :h, :w].float(), 2) > 0
        detail = detail[blocks.expand_as(detail)]
    detail = detail[torch.isfinite(detail)]
    n = detail.numel()
    if n < FEWEST * image.shape[0]:
        raise InvdiffError("There are too few known pixels to estimate the noise; give its level.")
    sigma = float(detail.abs().flatten().median()) / 0.6745
    # the median of |N(0, 1)| has the variance 1 / (4 n f^2), f = 0.6356 its density there
    error = 1 / (2 * 0.6356 * 0.6745 * math.sqrt(n))
    how = f"median of {n} diagonal Haar coefficients, where texture counts as noise"
    return Estimate(sigma, error, how)


def noise_from_background(y: Tensor, region: Box | Tensor, magnitude: bool = False) -> Estimate:
    """Noise level from a region where the picture is even, or, of magnitudes, empty.

    y: (..., H, W), real or complex. region: a box, or a mask that broadcasts over y. The mean of
    each picture of H x W is taken off, so that the region may be grey. magnitude: y is the
    magnitude of a complex signal that is 0 in the region (air); the level is that of its parts,
    the sigma of `Rician`.
    Raises InvdiffError where the region is not in the picture or holds fewer than 64 numbers.
    """
    if y.ndim < 2:
        raise InvdiffError(f"A picture has a height and a width, found shape {tuple(y.shape)}.")
    if isinstance(region, Tensor):
        if region.ndim > y.ndim or any(
            n not in (1, m) for n, m in zip(reversed(region.shape), reversed(y.shape), strict=False)
        ):
            raise InvdiffError(
                f"A mask of shape {tuple(region.shape)} does not fit pictures {tuple(y.shape)}."
            )
        inside, name = (region != 0).expand(y.shape), "a mask"
    else:
        top, left, height, width = region
        if not (0 <= top < top + height <= y.shape[-2] and 0 <= left < left + width <= y.shape[-1]):
            raise InvdiffError(
                f"The box {region} (top, left, height, width) does not lie within a picture of "
                f"{y.shape[-2]} x {y.shape[-1]}."
            )
        inside = torch.zeros(y.shape, dtype=torch.bool)
        inside[..., top : top + height, left : left + width] = True
        name = f"the box {region}"
    pictures = zip(y.reshape(-1, *y.shape[-2:]), inside.reshape(-1, *y.shape[-2:]), strict=True)
    values = [picture[where] for picture, where in pictures if bool(where.any())]
    n = sum(parts(v).numel() for v in values)
    free = n - sum(2 if v.is_complex() else 1 for v in values)  # a mean is taken off each
    if n < FEWEST or free < FEWEST // 2:
        raise InvdiffError(f"The region holds {n} numbers, too few to estimate the noise from.")
    if not all(bool(v.isfinite().all()) for v in values):
        raise InvdiffError("The region holds NaN or infinite numbers; choose another.")
    if magnitude:
        power = float(torch.cat(values).double().square().mean()) / 2
        how = f"root mean square of {n} magnitudes in {name}, over sqrt(2), taken to be empty"
        return Estimate(math.sqrt(power), 0.5 / math.sqrt(n), how)
    squares = sum(float(parts(v - v.mean()).double().square().sum()) for v in values)
    how = f"standard deviation of {n} numbers in {name}, taken to be even"
    return Estimate(math.sqrt(squares / free), 1 / math.sqrt(2 * free), how)


def noise_from_kspace(kspace: Tensor, share: float = 0.1) -> Estimate:
    """Noise level, of the real part, from the outermost samples of k-space.

    kspace: (..., H, W), complex, zero frequency at (H // 2, W // 2), 0 where not sampled. share: of
    each half axis that counts as outermost. From the median of the power, which few strong samples
    do not move; signal that reaches so far counts as noise.
    Raises InvdiffError for fewer than 64 samples.
    """
    if not kspace.is_complex() or kspace.ndim < 2 or not 0 < share <= 1:
        raise InvdiffError(
            f"The outermost samples are a share in (0, 1] of complex k-space (..., H, W), found "
            f"{share} of {tuple(kspace.shape)}, {kspace.dtype}."
        )
    h, w = kspace.shape[-2:]
    rows, columns = (
        (torch.arange(n, device=kspace.device) - n // 2).abs() / (n / 2) for n in (h, w)
    )
    outer = torch.maximum(rows[:, None], columns[None, :]) >= 1 - share
    samples = kspace[outer.expand(kspace.shape)]
    samples = samples[samples != 0]
    n = samples.numel()
    if n < FEWEST:
        raise InvdiffError(f"{n} samples lie that far out, too few to estimate the noise from.")
    sigma = median_level(samples)
    how = (
        f"median power of {n} samples in the outermost {100 * share:g} % of k-space, an upper "
        "bound, as signal there counts as noise"
    )
    return Estimate(sigma, 0.5 / (math.log(2) * math.sqrt(n)), how)


def median_level(samples: Tensor) -> float:
    """Sigma of a real part of complex noise, whose median power is 2 sigma^2 ln 2."""
    return math.sqrt(float(samples.abs().double().square().median()) / (2 * math.log(2)))


def noise_from_scan(scan: Tensor, axis: int = 0) -> Estimate:
    """Covariance between coils from a scan without signal, as `CorrelatedGaussian` takes it.

    scan: complex or real samples of noise alone; axis: its coils. E[n n^H] / 2 where complex.
    Raises InvdiffError for fewer than ten samples for each coil, and when there is no such axis.
    """
    if not -scan.ndim <= axis < scan.ndim:
        raise InvdiffError(f"A scan of {scan.ndim} axes has no axis {axis}.")
    rows = scan.movedim(axis, 0).flatten(1)
    rows = rows.to(torch.complex128 if rows.is_complex() else torch.float64)
    coils, n = rows.shape
    if n < 10 * coils:
        raise InvdiffError(
            f"{n} samples are too few for the covariance of {coils} coils; ten for each are needed."
        )
    cov = rows @ rows.mH / (n * (2 if rows.is_complex() else 1))
    how = f"covariance of {coils} coils over {n} samples of noise alone"
    return Estimate((cov + cov.mH) / 2, 1 / math.sqrt(n), how)
