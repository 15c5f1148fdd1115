"""Kernels of blurs: three kinds that are common, and what any has to be."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.arguments import checked
from invdiff.core.rng import Rng


def check_kernel(k: Tensor, ndim: int = 2) -> None:
    """Raise InvdiffError unless k is a real kernel with ndim axes, finite, whose sum is not 0.

    Negative taps, and odd or even sides, are allowed.
    """
    if k.ndim != ndim or k.numel() == 0 or k.is_complex():
        raise InvdiffError(
            f"A blur kernel is a real array of {ndim} axes with at least one tap, found shape "
            f"{tuple(k.shape)} of {k.dtype}."
        )
    k = k.detach().cpu().double()
    if not bool(torch.isfinite(k).all()):
        raise InvdiffError("The blur kernel holds NaN or infinite values; replace them.")
    if abs(float(k.sum())) <= torch.finfo(k.dtype).eps * k.numel() * float(k.abs().sum()):
        raise InvdiffError("The taps of the blur kernel sum to 0; a blur keeps constant images.")


def check_kernels(k: Tensor) -> None:
    """Raise InvdiffError unless k is one kernel (h, w), as `check_kernel` asks, or one for each
    channel, (C, h, w), or for each measurement, (M or 1, C or 1, h, w)."""
    if k.ndim not in (3, 4) or 0 in k.shape:
        check_kernel(k)
    for one in k.reshape(-1, *k.shape[-2:]):
        check_kernel(one)


def check_channels(name: str, k: Tensor, x_shape: tuple[int, ...]) -> None:
    """Raise InvdiffError unless kernels k fit images of x_shape; one kernel fits all."""
    if k.ndim == 2:
        return
    channels = k.shape[-3]
    one = k.ndim == 4 and channels == 1
    if len(x_shape) != 3 or not (one or channels == x_shape[0]):
        axes = "(channels, height, width)" if k.ndim == 3 else "(batch, channels, height, width)"
        raise InvdiffError(
            f"{name} has kernels of shape {tuple(k.shape)}, {axes}, found images of shape "
            f"{tuple(x_shape)}; give images with {'any number of' if one else channels} channels "
            "and two more axes, or one kernel (height, width) for all."
        )


WIDEST = 500.0
"""Pixels: kernels that reach farther are refused, for they would not fit into memory."""


@checked
def gaussian_kernel(sigma: float) -> Tensor:
    """Gaussian of standard deviation sigma (pixels, > 0), cut at ceil(4 sigma); sum 1, float64."""
    if not 0 < sigma <= WIDEST:
        raise InvdiffError(
            f"A blur width is a number of pixels above 0, {WIDEST:g} at most, found {sigma}."
        )
    radius = math.ceil(4 * sigma)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1).double() / sigma) ** 2)
    return torch.outer(taps, taps) / taps.sum() ** 2


@checked
def motion_kernel(length: float, angle_degrees: float) -> Tensor:
    """A straight motion of `length` pixels (>= 1), antialiased; odd sides, sum 1, float64.

    angle_degrees: counter-clockwise from the horizontal axis, rows counted downwards. A tap falls
    linearly to 0 at distance 1 from a segment of length - 1 pixels through the centre, so that a
    horizontal motion of 5 pixels is five equal taps, and a motion of 1 pixel changes nothing.
    """
    if not (1 <= length <= WIDEST and math.isfinite(angle_degrees)):
        raise InvdiffError(
            f"A motion has a length of 1 to {WIDEST:g} pixels and an angle in degrees, found "
            f"{length} and {angle_degrees}."
        )
    half, angle = (length - 1) / 2, math.radians(angle_degrees)
    dx, dy = round(math.cos(angle), 15), -round(math.sin(angle), 15)
    rows, cols = (math.ceil(half * abs(d) + 1) - 1 for d in (dy, dx))
    y = torch.arange(-rows, rows + 1).double()[:, None]
    x = torch.arange(-cols, cols + 1).double()[None, :]
    along = (x * dx + y * dy).clamp(-half, half)
    kernel = (1 - torch.hypot(x - along * dx, y - along * dy)).clamp_min(0)
    return kernel / kernel.sum()


def path_kernels(count: int, radius: int, rng: Rng, points: int = 64) -> Tensor:
    """Random movements of a camera, (count, n, n), n = 2 radius + 1, float64, sum 1, none negative.

    A movement is a cubic path of random direction and bend around the middle, which reaches between
    half of radius (pixels, >= 1) and all of it; the kernel is the mean of so many points along it,
    with bilinear interpolation. rng: of one row.
    """
    times = torch.linspace(-1, 1, points, dtype=torch.float64)
    powers = torch.stack([times, 0.5 * times**2, 0.5 * times**3])
    like = torch.empty(1, count, 2, 3, dtype=torch.float64)
    paths = rng.normal(like, "paths")[0] @ powers  # (count, 2, points)
    paths = paths - paths.mean(-1, keepdim=True)
    reach = paths.norm(dim=1).amax(-1)[:, None, None]
    length = 0.5 + 0.5 * rng.uniform(like[..., :1, :1], "lengths")[0]
    paths = paths / reach * length * radius
    grid = torch.arange(-radius, radius + 1, dtype=torch.float64)
    tents = (1 - (grid[:, None] - paths[:, :, None]).abs()).clamp_min(0)  # (count, 2, n, points)
    return torch.einsum("kyt,kxt->kyx", tents[:, 0], tents[:, 1]) / points
