"""Receive coils: sensitivities, and how the images of several coils become one.

k-space y is complex, (B, coils, H, W), 0 where it was not sampled; complex images are two real
channels for each coil, as in `operators.mri`. The covariance of the coils' noise is `noise`'s:
`noise_from_scan` finds it and `CorrelatedGaussian` takes it, E[n n^H] / 2, that of the real parts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.arguments import checked
from invdiff.operators.mri import as_channels, as_complex, ifft2c
from invdiff.operators.sizes import check_count, checked_size


def normalised(maps: Tensor) -> Tensor:
    """maps (..., coils, H, W) divided by sqrt(sum_j |S_j|^2); 0 where no coil sees anything."""
    total = maps.abs().square().sum(-3, keepdim=True).sqrt()
    return torch.where(total > 0, maps / torch.where(total > 0, total, 1.0), 0.0)


@checked
def ring_maps(coils: int, size: tuple[int, int], distance: float = 2.0) -> Tensor:
    """Smooth synthetic sensitivities of `coils` small coils around the image, normalised.

    S_j = 1 / (z - z_j), z = x + i y with the image on [-1, 1]^2, and z_j on a circle of radius
    `distance` (above sqrt 2, the corners): strength and phase fall off as near a short wire.
    size: (H, W). Returns (1, coils, H, W), complex128.
    """
    check_count("coils", coils, 1000)
    size = checked_size(size)
    if not distance > math.sqrt(2):
        raise InvdiffError(f"Coils stand at a distance above 1.42, found {distance}.")
    rows, cols = (2 * (torch.arange(n).double() + 0.5) / n - 1 for n in size)
    z = torch.complex(cols[None, :].expand(size), rows[:, None].expand(size))
    angle = 2 * math.pi * torch.arange(coils).double() / coils
    centre = distance * torch.polar(torch.ones_like(angle), angle)
    return normalised(1 / (z - centre[:, None, None]))[None]


def calibration_width(y: Tensor) -> int:
    """Side of the largest square at the centre of k-space (B, coils, H, W) that was sampled."""
    sampled = (y != 0).any(1).all(0)
    height, width = sampled.shape
    side = 0
    while side < min(height, width) and bool(_centre(sampled, side + 1).all()):
        side += 1
    return side


def calibration_region(mask: Tensor) -> tuple[int, int]:
    """(rows, columns) of the fully sampled middle of masks (B, 1, H, W).

    The largest square, then as many rows, then as many columns more as are full; (0, 0) where the
    zero frequency itself was not sampled.
    """
    sampled = (mask != 0).flatten(0, -3).all(0)

    def full(rows: int, columns: int) -> bool:
        top, left = (n // 2 - k // 2 for n, k in zip(sampled.shape, (rows, columns), strict=True))
        return bool(sampled[top : top + rows, left : left + columns].all())

    height, width = sampled.shape
    rows = 0
    while rows < min(height, width) and full(rows + 1, rows + 1):
        rows += 1
    columns = rows
    while 0 < rows < height and full(rows + 1, columns):
        rows += 1
    while 0 < columns < width and full(rows, columns + 1):
        columns += 1
    return rows, columns


def _centre(t: Tensor, side: int) -> Tensor:
    """The square of the zero frequency in the middle of the last two axes."""
    top, left = (n // 2 - side // 2 for n in t.shape[-2:])
    return t[..., top : top + side, left : left + side]


def espirit(
    y: Tensor, width: int | None = None, crop: float = 0.95, threshold: float = 0.02
) -> Tensor:
    """Sensitivities by ESPIRiT, from the calibration square alone; needs the extra `mri` (sigpy).

    Uecker et al. 2014, "ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI".
    y: k-space (B, coils, H, W). width: side of the calibration square, fully sampled; nothing else
    of y is read. None takes the square that is found in y (`calibration_width`), 24 at most.
    crop: maps are 0 where the largest eigenvalue is below it (0 crops nothing).
    threshold: singular values of the calibration matrix below this share of the largest are noise.
    Returns (B, coils, H, W), complex64 or complex128 as y; sum |S_j|^2 is 1 or 0.
    Raises InvdiffError when the square was not sampled, or sigpy is absent.
    """
    found = calibration_width(y)
    width = min(found, 24) if width is None else width
    if found < 6:
        raise InvdiffError(
            "ESPIRiT needs a fully sampled square of at least 6 x 6 at the centre of k-space, "
            f"found {found} x {found}; measure calibration lines, or give the sensitivities."
        )
    if not 6 <= width <= found:
        raise InvdiffError(
            f"ESPIRiT was asked for {width} x {width} calibration samples, but the centre of this "
            f"k-space is sampled over {found} x {found}; give a width from 6 to {found}."
        )
    try:
        from sigpy.mri.app import EspiritCalib
    except ImportError:
        raise InvdiffError(
            "ESPIRiT needs sigpy, which is not installed; run pip install 'invdiff[mri]'."
        ) from None
    kept = torch.zeros_like(y)
    _centre(kept, width).copy_(_centre(y, width))
    maps = [
        EspiritCalib(k, calib_width=width, thresh=threshold, crop=crop, show_pbar=False).run()
        for k in kept.cpu().numpy()
    ]
    return torch.stack([torch.as_tensor(m) for m in maps]).to(y.device, y.dtype)


def zero_filled(y: Tensor) -> Tensor:
    """The image of every coil, (B, 2 coils, H, W): inverse Fourier transform, 0 for the unknown."""
    return as_channels(ifft2c(y))


def root_sum_of_squares(x: Tensor) -> Tensor:
    """Magnitude of complex channels (B, 2 K, ...), joined over K coils: (B, 1, ...), real."""
    return x.square().sum(1, keepdim=True).sqrt()


def mvue(y: Tensor, maps: Tensor) -> Tensor:
    """sum_j conj(S_j) F^H y_j / sqrt(sum_j |S_j|^2), (B, 2, H, W), 0 where no coil sees anything.

    The minimum-variance unbiased estimate where k-space is full (Jalal et al. 2021).
    """
    weights = normalised(maps.to(y.device, y.dtype))
    return as_channels((weights.conj() * ifft2c(y)).sum(-3, keepdim=True))


def mvue_scale(y: Tensor, maps: Tensor, quantile: float = 0.99) -> Tensor:
    """The scale of Jalal et al. 2021: a quantile of |MVUE| of the undersampled k-space y itself.

    Per measurement, (B, 1, 1, 1), real: y / scale is on the scale of images of about 0 to 1. It
    depends on how y was sampled, by design: the fully sampled image is not known.
    """
    size = root_sum_of_squares(mvue(y, maps)).flatten(1)
    return torch.quantile(size, quantile, dim=1).reshape(-1, *[1] * (y.ndim - 1))


def coil_images(x: Tensor, maps: Tensor) -> Tensor:
    """S_j x: the complex image x (B, 2, H, W) as each coil sees it, (B, 2 coils, H, W)."""
    z = as_complex(x)
    return as_channels(maps.to(z.device, z.dtype) * z)
