"""Blur of a periodic image, and the transforms in which it is a product."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from invdiff.core.alike import irfft2
from invdiff.operators.algebra import Spectral
from invdiff.operators.blur_kernels import check_channels, check_kernels
from invdiff.operators.sizes import check_image, checked_size


def wrapped(kernel: Tensor, grid: tuple[int, int]) -> Tensor:
    """Kernels (..., h, w) on a periodic grid, their centres at (0, 0), taps that meet added;
    float64, CPU."""
    kernel = kernel.detach().cpu().double()
    if kernel.ndim > 2:
        return torch.stack([wrapped(k, grid) for k in kernel])
    out = torch.zeros(grid, dtype=torch.float64)
    rows, cols = ((torch.arange(n) - n // 2) % g for n, g in zip(kernel.shape, grid, strict=True))
    return out.index_put_((rows[:, None], cols[None, :]), kernel, accumulate=True)


def quick(n: int) -> int:
    """The smallest length from n on that an FFT likes: no prime factor above 5."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def filtered(x: Tensor, transfer: Tensor) -> Tensor:
    """x (..., H, W) with every frequency multiplied by transfer (..., H, W // 2 + 1), in rfft2
    order."""
    return irfft2(torch.fft.rfft2(x) * transfer, (int(x.shape[-2]), int(x.shape[-1])))


def hartley(x: Tensor) -> Tensor:
    """Re F x - Im F x over the last two axes, F the orthonormal Fourier transform: real,
    orthonormal, symmetric and its own inverse."""
    f = torch.fft.fft2(x, norm="ortho")
    return f.real - f.imag


@dataclass(frozen=True, eq=False)
class CircularBlur(Spectral):
    """Convolution of a periodic image with any kernel.

    kernel: (h, w), real, of any size, or one for each channel or measurement, (C, h, w) or (M or 1,
    C or 1, h, w). size: (H, W) of the image.
    Decomposition in real numbers, with K the Fourier transform of the kernel: V is the Hartley
    transform Re F - Im F (F the orthonormal Fourier transform), symmetric and its own inverse;
    s = |K|; U is V followed by the filter K / |K| (1 where K = 0), which keeps lengths.
    """

    kernel: Tensor
    size: tuple[int, int]

    def __post_init__(self) -> None:
        check_kernels(self.kernel)
        object.__setattr__(self, "size", checked_size(self.size))

    @property
    def _in_rows(self) -> tuple[str, ...]:
        return ("kernel",) if self.kernel.ndim == 4 else ()

    @cached_property
    def _full(self) -> Tensor:
        """K, shape (..., H, W), complex128, with K(-f) = conj K(f) to the last bit."""
        k = torch.fft.fft2(wrapped(self.kernel, self.size))
        mirrored = k.flip(-2, -1).roll((1, 1), (-2, -1))
        return (k + mirrored.conj()) / 2

    @cached_property
    def transfer(self) -> Tensor:
        """K in rfft2 order, shape (..., H, W // 2 + 1), the first axes as the kernel's."""
        return self._full[..., : self.size[1] // 2 + 1].contiguous()

    @cached_property
    def power(self) -> Tensor:
        """|K|^2 in rfft2 order."""
        return self.transfer.abs().square()

    @cached_property
    def phase(self) -> Tensor:
        """K / |K| in rfft2 order, 1 where K = 0."""
        size = self.transfer.abs()
        return torch.where(size > 0, self.transfer / torch.where(size > 0, size, 1.0), 1.0)

    @cached_property
    def s(self) -> Tensor:
        """|K|, shape (..., H, W), in fft2 order, float64."""
        return self._full.abs()

    def __call__(self, x: Tensor) -> Tensor:
        return filtered(x, self._as("transfer", x))

    def adjoint(self, y: Tensor) -> Tensor:
        return filtered(y, self._as("transfer", y).conj())

    def solve(self, b: Tensor, shift: float) -> Tensor:
        return filtered(b, 1 / (self._as("power", b) + shift))

    def ridge(self, y: Tensor, shift: float) -> Tensor:
        return filtered(y, self._as("transfer", y).conj() / (self._as("power", y) + shift))

    def V(self, c: Tensor) -> Tensor:
        return hartley(c)

    def Vt(self, x: Tensor) -> Tensor:
        return self.V(x)

    def U(self, c: Tensor) -> Tensor:
        return filtered(self.V(c), self._as("phase", c))

    def Ut(self, y: Tensor) -> Tensor:
        return self.V(filtered(y, self._as("phase", y).conj()))

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        check_image(type(self).__name__, self.size, x_shape)
        check_channels(type(self).__name__, self.kernel, x_shape)
        return tuple(x_shape)
