"""Blur: true convolution with a kernel, for several kinds of boundary.

Convolution means y[i] = sum over u of k[u] x[i - (u - c)]: the kernel is flipped relative to
cross-correlation. Its centre c is the middle of an odd side, and element n // 2 of an even side n,
the one after the middle. All taps are used. Beyond the edge the image goes on as
  circular   a b c d | a b c d | a b c d
  reflect    d c b a | a b c d | d c b a   (half-sample symmetric)
  mirror       d c b | a b c d | c b a     (whole-sample symmetric: the edge is not repeated, as in
                                            the official code of DPS)
  replicate  a a a a | a b c d | d d d d
  zero       0 0 0 0 | a b c d | 0 0 0 0
and a kernel larger than the image meets as many copies as it reaches. Where the boundary is
  unknown    ? ? ? ? | a b c d | ? ? ? ?
  valid      ? ? ? ? | a b c d | ? ? ? ?
the measurement holds those pixels only that read nothing beyond the edge: it is smaller than the
image. A picture cut out of a larger blurred one is such a measurement. "valid" counts every tap of
the kernel, so that y is (H - h + 1) x (W - w + 1), as elsewhere; "unknown" leaves out taps of 0 at
its sides, and measures as much as there is.

A kernel is one for all, (h, w); or one for each channel, (C, h, w); or for each measurement of a
batch, (M or 1, C or 1, h, w). Kernels of their own take images (C, H, W), and not videos.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core.arguments import checked
from invdiff.operators.algebra import Linear
from invdiff.operators.algebra.circulant import circulant
from invdiff.operators.blur_kernels import check_channels, check_kernels
from invdiff.operators.boundaries import check_boundary, check_reach, margins
from invdiff.operators.circular_blur import CircularBlur, quick
from invdiff.operators.dct import dct2, idct2, mode_power
from invdiff.operators.separable_blur import SeparableBlur
from invdiff.operators.sizes import check_image, check_iterations, checked_size


@dataclass(frozen=True, eq=False)
class Blur(Linear):
    """Convolution with any kernel where the image does not repeat.

    kernel: (h, w), real, of any size, or one for each channel or measurement, (C, h, w) or (M or 1,
    C or 1, h, w). size: (H, W) of the image. boundary: "reflect", "mirror", "replicate", "zero", or
    "unknown" and "valid", with which y holds the pixels only that read nothing beyond the edge.
    The image is continued onto a periodic grid just large enough, convolved there by FFT and
    cropped; the adjoint undoes these steps in reverse, so it is exact. cg_tol: residual at which
    solve stops, over the right side.
    """

    kernel: Tensor
    size: tuple[int, int]
    boundary: str = "reflect"
    cg_tol: float = 1e-3

    def __post_init__(self) -> None:
        check_iterations(self.cg_iterations, self.cg_tol)
        check_kernels(self.kernel)
        known = ("reflect", "mirror", "zero", "unknown", "replicate", "valid")
        check_boundary(self.boundary, known)
        object.__setattr__(self, "size", checked_size(self.size))
        check_reach(margins(self.kernel, self.boundary), self.size, self.boundary)

    @property
    def _in_rows(self) -> tuple[str, ...]:
        return ("kernel",) if self.kernel.ndim == 4 else ()

    @property
    def _zeros(self) -> bool:
        """Whether zeros stand on the grid beyond the image."""
        return self.boundary in ("zero", "unknown", "valid")

    @property
    def _mirrored_once(self) -> bool:
        """Whether the kernel reaches into one mirror image only, on each side, or into no such."""
        room = (n - self._edge for n in self.size)
        once = all(k // 2 <= n for k, n in zip(self.kernel.shape[-2:], room, strict=True))
        return once or self.boundary == "replicate"

    @property
    def _edge(self) -> int:
        """Samples at the edge that the mirror image leaves out."""
        return 1 if self.boundary == "mirror" else 0

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Size of the periodic grid: room for what the kernel reaches on either side of the image,
        or a whole period, (2 H, 2 W) and for a mirror 2 less, where it reaches beyond."""
        (height, width), (h, w) = self.size, self.kernel.shape[-2:]
        if self.boundary in ("unknown", "valid"):
            return quick(height), quick(width)
        if self.boundary == "zero":
            return quick(height + h // 2), quick(width + w // 2)
        if not self._mirrored_once:
            return max(2 * height - 2 * self._edge, 1), max(2 * width - 2 * self._edge, 1)
        return quick(height + h - 1), quick(width + w - 1)

    @cached_property
    def periodic(self) -> CircularBlur:
        """The convolution on the grid."""
        return CircularBlur(self.kernel, self.grid)

    @cached_property
    def _rows(self) -> tuple[int, int, int, int]:
        """Where y lies on the grid: rows from, to, columns from, to."""
        height, width = self.size
        (above, below), (left, right) = margins(self.kernel, self.boundary)
        return above, height - below, left, width - right

    def _padded(self, x: Tensor) -> Tensor:
        """x continued by zeros onto the grid."""
        return F.pad(x, (0, self.grid[1] - x.shape[-1], 0, self.grid[0] - x.shape[-2]))

    def _cropped(self, z: Tensor) -> Tensor:
        """The image's part of the grid: the transpose of _padded."""
        return z[..., : self.size[0], : self.size[1]]

    def _spread(self, y: Tensor) -> Tensor:
        """y at its place on the grid, zeros elsewhere."""
        top, bottom, left, right = self._rows
        return F.pad(y, (left, self.grid[1] - right, top, self.grid[0] - bottom))

    def _measured(self, z: Tensor) -> Tensor:
        """The measurement's part of the grid: the transpose of _spread."""
        top, bottom, left, right = self._rows
        return z[..., top:bottom, left:right]

    def _margins(self, axis: int) -> tuple[int, int]:
        """Samples that the convolution reads after and before the image."""
        n, k = self.size[axis], self.kernel.shape[axis]  # axis: -2 or -1
        whole = max(n - 2 * self._edge, 0)
        return (k // 2, (k - 1) // 2) if self._mirrored_once else (whole, 0)

    def _continued(self, x: Tensor) -> Tensor:
        """x continued onto the grid as the boundary says."""
        if self._zeros:
            return self._padded(x)
        for axis in (-2, -1):
            after, before = self._margins(axis)
            n, mirror, edge = x.shape[axis], x.flip(axis), self._edge
            empty = self.grid[axis] - n - after - before
            gap = x.new_zeros(()).expand(*mirror.narrow(axis, 0, 1).shape)
            if self.boundary == "replicate":
                first = x.narrow(axis, n - 1, 1).repeat_interleave(after, axis)
                last = x.narrow(axis, 0, 1).repeat_interleave(before, axis)
            else:
                first = mirror.narrow(axis, min(edge, n - after), after)
                last = mirror.narrow(axis, max(n - before - edge, 0), before)
            parts = [x, first] + [gap.repeat_interleave(empty, axis)] * (empty > 0)
            x = torch.cat([*parts, last], dim=axis)
        return x

    def _folded(self, z: Tensor) -> Tensor:
        """The transpose of _continued."""
        if self._zeros:
            return self._cropped(z)
        for axis in (-1, -2):
            after, before = self._margins(axis)
            n, total, edge = self.size[axis], self.grid[axis], self._edge
            x = z.narrow(axis, 0, n).clone()
            beyond, ahead = z.narrow(axis, n, after), z.narrow(axis, total - before, before)
            if self.boundary == "replicate":
                x.narrow(axis, n - 1, 1).add_(beyond.sum(axis, keepdim=True))
                x.narrow(axis, 0, 1).add_(ahead.sum(axis, keepdim=True))
            else:
                first = n - after - min(edge, n - after)
                x.narrow(axis, first, after).add_(beyond.flip(axis))
                x.narrow(axis, min(edge, n - before), before).add_(ahead.flip(axis))
            z = x
        return z

    def __call__(self, x: Tensor) -> Tensor:
        return self._measured(self.periodic(self._continued(x)))

    def adjoint(self, y: Tensor) -> Tensor:
        return self._folded(self.periodic.adjoint(self._spread(y)))

    def preconditioner(self, like: Tensor, shift: float) -> Callable[[Tensor], Tensor]:
        """In cosine modes where the image is reflected, which diagonalise a symmetric kernel; by
        frequencies at other boundaries, and where channels have kernels of their own."""
        if self.boundary != "reflect" or self.kernel.ndim > 2:
            return circulant(self, like, shift)
        gain = self._once("cosine power", like, lambda: self._gains().to(like)) + shift
        return lambda r: idct2(dct2(r) / gain)

    def cosine_power(self, variance: Tensor) -> Tensor:
        """A cosine is waves of two directions, which the kernel passes by their mean gain; what
        reflects at edges is left out, and kernels of channels or measurements are averaged."""

        def gains() -> tuple[Tensor, ...]:
            top, bottom, left, right = self._rows
            down, across = (torch.eye(n)[a:b] for n, a, b in (
                (self.size[0], top, bottom), (self.size[1], left, right)
            ))  # fmt: skip
            parts = self._gains(), mode_power(down), mode_power(across).mT
            return tuple(part.to(variance) for part in parts)

        kernel, down, across = self._once("cosine gains", variance, gains)
        return down @ (variance * kernel) @ across

    def _gains(self) -> Tensor:
        """Mean square gain of each cosine mode of the image, (H, W), float64."""
        kernel = self.kernel.detach().cpu().to(torch.complex128)
        down, across = (
            torch.exp(-1j * math.pi / n * torch.arange(n).double()[:, None] * torch.arange(k))
            for n, k in zip(self.size, kernel.shape[-2:], strict=True)
        )
        waves = torch.stack([down @ kernel @ across.mT, down @ kernel @ across.mH])
        return waves.abs().square().flatten(0, -3).mean(0)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        check_image(type(self).__name__, self.size, x_shape)
        check_channels(type(self).__name__, self.kernel, x_shape)
        top, bottom, left, right = self._rows
        return (*x_shape[:-2], bottom - top, right - left)


@checked
def blur(kernel: Tensor, size: tuple[int, int], boundary: str = "reflect") -> Linear:
    """Convolution with kernel (h, w) on the highest rung of the ladder that it allows.

    circular: CircularBlur. Otherwise SeparableBlur where the kernel has rank 1 in the precision of
    its dtype (Gaussian, box), and Blur where it has not. size: (H, W) of the image; with the
    boundaries "unknown" and "valid" the measurement is smaller by the kernel's `margins`.
    Kernels for each channel or measurement, (C, h, w) or (M or 1, C or 1, h, w), make a
    CircularBlur or a Blur.
    """
    check_kernels(kernel)
    known = ("circular", "reflect", "mirror", "unknown", "zero", "replicate", "valid")
    check_boundary(boundary, known)
    if boundary == "circular":
        return CircularBlur(kernel, size)
    if kernel.ndim > 2:
        return Blur(kernel, size, boundary)
    u, s, vt = torch.linalg.svd(kernel.detach().cpu().double(), full_matrices=False)
    eps = torch.finfo(kernel.dtype if kernel.is_floating_point() else torch.float64).eps
    if bool((s[1:] > eps * max(kernel.shape) * s[0]).any()):
        return Blur(kernel, size, boundary)
    gain = u[:, 0].sum()
    return SeparableBlur(u[:, 0] / gain, vt[0] * s[0] * gain, size, boundary)
