"""Blur and distortion that vary over the image: tiled kernels (a lens) and displacements (air)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.arguments import checked
from invdiff.core.rng import Rng
from invdiff.operators.algebra import Linear
from invdiff.operators.blur import Blur
from invdiff.operators.blur_kernels import WIDEST, check_kernel, gaussian_kernel
from invdiff.operators.boundaries import check_boundary, check_reach, margins
from invdiff.operators.circular_blur import CircularBlur
from invdiff.operators.sizes import check_image, checked_size


def hat_windows(n: int, tiles: int) -> Tensor:
    """How much each of `tiles` equal parts of n samples counts at each: (tiles, n), sum 1.

    1 in the middle of the part, falling linearly to 0 in the middle of the next one; float64.
    """
    place = ((torch.arange(n).double() + 0.5) * tiles / n - 0.5).clamp(0, tiles - 1)
    return (1 - (torch.arange(tiles)[:, None] - place[None, :]).abs()).clamp_min(0)


@dataclass(frozen=True, eq=False)
class TiledBlur(Linear):
    """y = sum over tiles t of w_t * (k_t convolved with x): a kernel that changes over the image.

    kernels: (rows, columns, h, w), real: those in the middles of a grid of equal tiles. w_t: hats
    that overlap and sum to 1, so that between the middles the kernels are interpolated linearly.
    With one tile it is `blur`. boundary: "reflect", "mirror", "replicate", "zero", "circular", or
    "valid", with which y is (H - h + 1) x (W - w + 1). size: (H, W) of images.
    It costs one convolution by FFT for each tile.
    Raises InvdiffError for bad kernels, and for more tiles than pixels along an axis.
    """

    kernels: Tensor
    size: tuple[int, int]
    boundary: str = "reflect"

    def __post_init__(self) -> None:
        size = checked_size(self.size)
        if self.kernels.ndim != 4 or 0 in self.kernels.shape:
            raise InvdiffError(
                "Kernels of tiles have shape (rows, columns, height, width), found "
                f"{tuple(self.kernels.shape)}."
            )
        rows, columns = self.kernels.shape[:2]
        if rows > size[0] or columns > size[1]:
            raise InvdiffError(
                f"{rows} x {columns} tiles do not fit an image of {size[0]} x {size[1]} pixels."
            )
        known = ("circular", "reflect", "mirror", "zero", "replicate", "valid")
        check_boundary(self.boundary, known)
        for kernel in self.kernels.flatten(0, 1):
            check_kernel(kernel)
        object.__setattr__(self, "size", size)
        check_reach(margins(self.kernels, self.boundary), size, self.boundary)

    @cached_property
    def _parts(self) -> list[Linear]:
        kernels = self.kernels.flatten(0, 1)
        if self.boundary == "circular":
            return [CircularBlur(k, self.size) for k in kernels]
        return [Blur(k, self.size, self.boundary) for k in kernels]

    @cached_property
    def windows(self) -> Tensor:
        """w_t of the pixels of y, (tiles, H, W), float64, in the order of the kernels."""
        sides = zip(
            self.size,
            self.kernels.shape[:2],
            margins(self.kernels, self.boundary),
            strict=True,
        )
        rows, columns = (
            hat_windows(n, tiles)[:, before : n - after] for n, tiles, (before, after) in sides
        )
        return (rows[:, None, :, None] * columns[None, :, None, :]).flatten(0, 1)

    def __call__(self, x: Tensor) -> Tensor:
        windows = self._as("windows", x)
        out = x.new_zeros(*x.shape[:-2], *windows.shape[1:])
        for window, part in zip(windows, self._parts, strict=True):
            out = out + window * part(x)
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        out = y.new_zeros(*y.shape[:-2], *self.size)
        for window, part in zip(self._as("windows", y), self._parts, strict=True):
            out = out + part.adjoint(window * y)
        return out

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        check_image(type(self).__name__, self.size, x_shape)
        return (*x_shape[:-2], *self.windows.shape[1:])


@checked
def lens_kernels(grid: tuple[int, int], centre: float = 0.5, corner: float = 2.0) -> Tensor:
    """Kernels of a simple lens for `TiledBlur`: sharp in the middle, smeared outwards at the edge.

    grid: (rows, columns) of tiles. centre, corner: standard deviation in pixels, above 0, of the
    round Gaussian in the middle, and along the radius at the corners; across the radius it grows
    half as much. (rows, columns, n, n), each of sum 1, float64.
    """
    rows, columns = checked_size(grid)
    if not (0 < centre <= WIDEST and 0 < corner <= WIDEST):
        raise InvdiffError(
            f"Blur widths are pixels above 0, {WIDEST:g} at most, found {centre} and {corner}."
        )
    reach = math.ceil(3 * max(centre, corner))
    at = torch.arange(-reach, reach + 1).double()
    found = []
    for i in range(rows):
        for j in range(columns):
            dy, dx = (2 * i + 1) / rows - 1, (2 * j + 1) / columns - 1
            far, angle = math.hypot(dy, dx) / math.sqrt(2), math.atan2(dy, dx)
            out = at[:, None] * math.sin(angle) + at[None, :] * math.cos(angle)
            across = at[:, None] * math.cos(angle) - at[None, :] * math.sin(angle)
            long, short = (centre + (corner - centre) * far * f for f in (1.0, 0.5))
            kernel = torch.exp(-0.5 * ((out / long) ** 2 + (across / short) ** 2))
            found.append(kernel / kernel.sum())
    return torch.stack(found).reshape(rows, columns, *found[0].shape)


@dataclass(frozen=True, eq=False)
class Warp(Linear):
    """y[i, j] = x at (i + dy, j + dx), by bilinear interpolation: images seen through moving air.

    displacement: (M or 1, 2, H, W), real, in pixels: dy along rows and dx along columns, one field
    for each measurement or one for all. Places beyond the edge count as the nearest pixel on it.
    A is a sparse matrix of four weights for each pixel; its adjoint spreads by the same weights.
    Images (B, C, ..., H, W) to y of the same shape.
    Raises InvdiffError for displacements of another shape, or that are not finite.
    """

    displacement: Tensor

    batched: ClassVar[tuple[str, ...]] = ("displacement",)

    def __post_init__(self) -> None:
        d = self.displacement
        if d.ndim != 4 or d.shape[1] != 2 or 0 in d.shape or not d.is_floating_point():
            raise InvdiffError(
                "Displacements have shape (batch or 1, 2, height, width), real, found "
                f"{tuple(d.shape)} of {d.dtype}."
            )

    @classmethod
    @checked
    def turbulence(
        cls, size: tuple[int, int], strength: float = 1.5, scale: float = 8.0, seed: int = 0
    ) -> Warp:
        """A smooth random field of tilts, the same for the same seed; it is periodic.

        size: (H, W). strength: root mean square of dy, and of dx, in pixels, 0 or more. scale:
        standard deviation in pixels of the Gaussian that smooths white noise. Turbulence also
        blurs: `TiledBlur(...) @ Warp.turbulence(...)`.
        """
        size = checked_size(size)
        if not 0 <= strength < math.inf:
            raise InvdiffError(f"A strength is a number of pixels of 0 or more, found {strength}.")
        if not scale <= max(size):
            raise InvdiffError(f"A scale of {scale} pixels is larger than the image of {size}.")
        white = Rng.of(seed).normal(torch.empty(1, 2, *size, dtype=torch.float64), "turbulence")
        field = CircularBlur(gaussian_kernel(scale), size)(white)
        rms = field.square().mean((2, 3), keepdim=True).sqrt()
        return cls(strength * field / rms)

    @cached_property
    def _sparse(self) -> tuple[Tensor, Tensor]:
        """Flat indices and weights of the four neighbours: (M, 4, H W) each."""
        d = self.displacement.detach().double()
        h, w = d.shape[-2:]
        low, part = [], []
        for axis, n in ((0, h), (1, w)):
            rest = torch.arange(n, dtype=torch.float64, device=d.device)
            place = (d[:, axis] + (rest[:, None] if axis == 0 else rest)).clamp(0, n - 1)
            low.append(place.floor().clamp_max(max(n - 2, 0)))
            part.append(place - low[-1])
        index, weight = [], []
        for i in (0, 1):
            for j in (0, 1):
                row, column = (low[0] + i).clamp_max(h - 1), (low[1] + j).clamp_max(w - 1)
                index.append((row * w + column).long().flatten(1))
                vertical = part[0] if i else 1 - part[0]
                weight.append((vertical * (part[1] if j else 1 - part[1])).flatten(1))
        return torch.stack(index, dim=1), torch.stack(weight, dim=1)

    @property
    def weights(self) -> Tensor:
        """Weights of the four neighbours of each pixel, (M, 4, H W), float64."""
        return self._sparse[1]

    def _each(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Indices and weights with axes for the channels of like."""
        ones = [1] * (like.ndim - 3)
        index, weight = self._sparse[0].to(like.device), self._as("weights", like)
        m, _, n = index.shape
        return index.reshape(m, 4, *ones, n), weight.reshape(m, 4, *ones, n)

    def __call__(self, x: Tensor) -> Tensor:
        index, weight = self._each(x)
        flat, out = x.flatten(-2), torch.zeros_like(x).flatten(-2)
        for k in range(4):
            out = out + weight[:, k] * flat.gather(-1, index[:, k].expand(flat.shape))
        return out.reshape(x.shape)

    def adjoint(self, y: Tensor) -> Tensor:
        index, weight = self._each(y)
        flat, out = y.flatten(-2), torch.zeros_like(y).flatten(-2)
        for k in range(4):
            out = out.scatter_add(-1, index[:, k].expand(flat.shape), weight[:, k] * flat)
        return out.reshape(y.shape)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        h, w = self.displacement.shape[-2:]
        check_image(type(self).__name__, (h, w), x_shape)
        return tuple(x_shape)
