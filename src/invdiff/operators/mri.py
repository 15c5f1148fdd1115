"""Cartesian magnetic resonance imaging: k-space of complex and of real images, with coils.

Complex images are two real channels, (B, 2, H, W): real part, imaginary part. K of them are 2 K
channels in the order Re 1, Im 1, Re 2, Im 2, ... k-space is complex, (B, coils, H, W), 0 where it
was not sampled; a single coil keeps its axis, (B, 1, H, W). The Fourier transform is orthonormal
and centred: the zero frequency stands at (H // 2, W // 2), as does the middle of the image.
Videos (B, C, T, H, W) are transformed frame by frame. Noise: `GaussianNoise(sigma)` gives the real
part and the imaginary part of every sample the standard deviation sigma.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.algebra import Linear, Operator, Spectral
from invdiff.operators.algebra.linear import Compact
from invdiff.operators.sense_lines import Lines, lines, sampled_lines
from invdiff.operators.sizes import check_iterations

AXES = (-2, -1)


def fft2c(z: Tensor) -> Tensor:
    """Centred orthonormal Fourier transform over the last two axes; complex."""
    return torch.fft.fftshift(
        torch.fft.fft2(torch.fft.ifftshift(z, dim=AXES), norm="ortho"), dim=AXES
    )


def ifft2c(k: Tensor) -> Tensor:
    """The inverse of fft2c, and its adjoint."""
    return torch.fft.fftshift(
        torch.fft.ifft2(torch.fft.ifftshift(k, dim=AXES), norm="ortho"), dim=AXES
    )


def as_complex(x: Tensor) -> Tensor:
    """Channels (B, 2 K, ...), real, as complex images (B, K, ...)."""
    return torch.complex(x[:, 0::2], x[:, 1::2])


def as_channels(z: Tensor) -> Tensor:
    """Complex images (B, K, ...) as channels (B, 2 K, ...): the inverse of as_complex."""
    return torch.view_as_real(z.resolve_conj()).movedim(-1, 2).flatten(1, 2)


def check_sampling(mask: Tensor) -> None:
    """Raise InvdiffError unless mask (M or 1, 1, ..., H or 1, W or 1) holds 0 and 1, not all 0."""
    if mask.ndim < 4 or mask.shape[1] != 1:
        raise InvdiffError(
            "A sampling mask has shape (batch or 1, 1, height, width), found "
            f"{tuple(mask.shape)}; all coils are sampled alike."
        )
    if mask.is_complex() or not bool(((mask == 0) | (mask == 1)).all()):
        raise InvdiffError("A sampling mask holds only 1 (sampled) and 0; threshold it first.")
    if mask.shape[0] == 0 or not bool(mask.bool().flatten(1).any(1).all()):
        raise InvdiffError("A sampling mask samples nothing at all; mark samples with 1.")


class _Sampled(Operator):
    """What k-space operators share: a mask, and y that is 0 outside it."""

    mask: Tensor
    batched: ClassVar[tuple[str, ...]] = ("mask",)

    def __post_init__(self) -> None:
        check_sampling(self.mask)

    def restrict(self, y: Tensor) -> Tensor:
        return torch.where(self._as("mask", y) > 0, y, y.new_zeros(()))

    def _check(self, x_shape: tuple[int, ...], channels: str, fits: bool) -> None:
        """Raise InvdiffError unless the mask covers images of x_shape, and fits."""
        if not (fits and _covers(self.mask, x_shape)):
            raise InvdiffError(
                f"{type(self).__name__} with a mask of {tuple(self.mask.shape[2:])} measures "
                f"images of {channels} of that size, found images of shape {tuple(x_shape)}."
            )


def _covers(t: Tensor, x_shape: tuple[int, ...]) -> bool:
    """Whether t (B, C, ...) broadcasts over images of x_shape (C', ...) behind the channels."""
    have, size = tuple(t.shape[2:]), tuple(x_shape[1:])
    return len(have) == len(size) and all(m in (1, n) for m, n in zip(have, size, strict=True))


@dataclass(frozen=True, eq=False)
class Fourier(_Sampled, Spectral):
    """Samples of the k-space of complex images: one coil, or each of K images by itself.

    mask: 1 = sampled, shape (M or 1, 1, H, W), or 1 for an axis along which it does not change.
    Images (B, 2 K, H, W) to k-space (B, K, H, W).
    Decomposition in real numbers: V^T is the Fourier transform, its complex coefficients written
    as two channels; s = mask; U keeps what was sampled.
    """

    mask: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.restrict(fft2c(as_complex(x)))

    def adjoint(self, y: Tensor) -> Tensor:
        return as_channels(ifft2c(self.restrict(y)))

    def pinv(self, y: Tensor) -> Tensor:
        return self.adjoint(y)

    @cached_property
    def s(self) -> Tensor:
        """The mask itself, in float64."""
        return self.mask.double()

    def V(self, c: Tensor) -> Tensor:
        return as_channels(ifft2c(as_complex(c)))

    def Vt(self, x: Tensor) -> Tensor:
        return as_channels(fft2c(as_complex(x)))

    def U(self, c: Tensor) -> Tensor:
        return self.restrict(as_complex(c))

    def Ut(self, y: Tensor) -> Tensor:
        return as_channels(self.restrict(y))

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        fits = len(x_shape) > 0 and x_shape[0] % 2 == 0
        self._check(x_shape, "2 channels (real, imaginary) per coil", fits)
        return (x_shape[0] // 2, *x_shape[1:])


@dataclass(frozen=True, eq=False)
class RealFourier(_Sampled, Spectral):
    """Samples of the k-space of real images, (B, C, H, W) to complex (B, C, H, W).

    mask: as for Fourier. A sample at f also tells the one at -f, its complex conjugate. Hence with
    m the mask, A^T A is the filter s^2(f) = (m(f) + m(-f)) / 2: a pair of which one was sampled has
    s^2 = 1/2, because each of its two real degrees of freedom, sqrt 2 Re X(f) and sqrt 2 Im X(f),
    is seen divided by sqrt 2. A filter that is real and even is diagonal in the Hartley transform
    Re F - Im F: this is V, symmetric and its own inverse; U = A V / s where s > 0.
    """

    mask: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.restrict(fft2c(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return ifft2c(self.restrict(y)).real

    @cached_property
    def s(self) -> Tensor:
        """sqrt((m(f) + m(-f)) / 2), of the mask's shape, float64."""
        m = self.mask.double()
        back = m
        for axis in AXES:
            n = m.shape[axis]
            mirrored = (2 * (n // 2) - torch.arange(n, device=m.device)) % n
            back = back.index_select(axis, mirrored)
        return ((m + back) / 2).sqrt()

    def V(self, c: Tensor) -> Tensor:
        f = fft2c(c)
        return f.real - f.imag

    def Vt(self, x: Tensor) -> Tensor:
        return self.V(x)

    def U(self, c: Tensor) -> Tensor:
        return self(self.V(self.inverse_spectrum(c) * c))

    def Ut(self, y: Tensor) -> Tensor:
        return self.inverse_spectrum(y) * self.V(self.adjoint(y))

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._check(x_shape, "real channels", True)
        return tuple(x_shape)


@dataclass(frozen=True, eq=False)
class Sense(_Sampled, Linear):
    """Parallel imaging: every coil samples the k-space of the image weighted by its sensitivity.

    maps: sensitivities S_j, complex, (M or 1, coils, H, W); `normalised` maps have
    sum |S_j|^2 = 1, and then |A| <= 1. mask: as for Fourier, the same for all coils.
    Images (B, 2, H, W) to k-space (B, coils, H, W); A^H y = sum_j conj(S_j) F^H y_j.
    solve is exact where all of k-space or whole lines of it were sampled (`sense_lines`), elsewhere
    conjugate gradients until a residual of cg_tol; pinv is exact where all was sampled, elsewhere
    CGLS; both take at most cg_iterations.
    Pruessmann, Weiger, Scheidegger, Boesiger 1999 (SENSE).
    """

    maps: Tensor
    mask: Tensor
    cg_iterations: int = 200
    cg_tol: float = 1e-3

    batched: ClassVar[tuple[str, ...]] = ("maps", "mask")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_iterations(self.cg_iterations, self.cg_tol)
        if not self.maps.is_complex() or self.maps.ndim != self.mask.ndim:
            raise InvdiffError(
                "Coil sensitivities are complex, (batch or 1, coils, height, width), found "
                f"{tuple(self.maps.shape)} of {self.maps.dtype}."
            )

    def __call__(self, x: Tensor) -> Tensor:
        turned = self._turned(x.real)
        if turned is None:
            return self.restrict(fft2c(self._as("maps", x) * as_complex(x)))
        maps, _, sampled = turned
        return torch.fft.fft2(maps * as_complex(x), norm="ortho") * sampled

    def adjoint(self, y: Tensor) -> Tensor:
        turned = self._turned(y.real)
        if turned is None:
            maps, images = self._as("maps", y), ifft2c(self.restrict(y))
        else:
            maps, signs, _ = turned
            images = torch.fft.ifft2(self.restrict(y) * signs, norm="ortho")
        return as_channels((maps.conj() * images).sum(1, keepdim=True))

    def _turned(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Where both sides are even, a transform is centred by signs before and after it, and no
        array has to be shifted: the maps with signs, the signs of k-space, and those of samples
        alone (0 elsewhere). None where a side is odd."""
        if any(n % 2 for n in self.maps.shape[-2:]):
            return None

        def made() -> tuple[Tensor, Tensor, Tensor]:
            height, width = self.maps.shape[-2:]
            down, across = torch.arange(height)[:, None], torch.arange(width)
            signs = (1 - 2 * ((down + across) % 2)).to(like)
            maps = self._as("maps", like) * (signs * (-1) ** ((height + width) // 2))
            return maps, signs, signs * self._as("mask", like)

        return self._once("turned", like, made)

    @cached_property
    def power(self) -> Tensor:
        """sum_j |S_j|^2, shape (M or 1, 1, H, W)."""
        return self.maps.abs().square().sum(1, keepdim=True)

    @cached_property
    def full(self) -> bool:
        """Whether every frequency was sampled, so that A^H A multiplies by `power`."""
        return bool(self.mask.bool().all())

    def _lines(self, like: Tensor) -> Lines | None:
        """A^H A by lines, in the precision and on the device of like; None where there are none."""
        return self._once(
            "lines", like, lambda: lines(self._as("maps", like), self._as("mask", like))
        )

    def compact(self, like: Tensor) -> Compact | None:
        """Of whole lines: these alone, without the transform along them."""

        def made() -> Compact | None:
            found = sampled_lines(self._as("maps", like), self._as("mask", like))
            if found is None:
                return None
            forward, adjoint = found.forward, found.adjoint
            return Compact(
                lambda x: forward(as_complex(x)), lambda k: as_channels(adjoint(k)),
                found.to, found.back,
            )  # fmt: skip

        return self._once("compact", like, made)

    def iterates(self, like: Tensor) -> bool:
        return not self.full and self._lines(like) is None

    def solve(self, b: Tensor, shift: float) -> Tensor:
        if self.full:
            return b / (self._as("power", b) + shift)
        found = self._lines(b)
        if found is None:
            return super().solve(b, shift)
        return as_channels(found.solve(as_complex(b)[:, 0], shift)[:, None])

    def ridge(self, y: Tensor, shift: float) -> Tensor:
        b = self.adjoint(y)
        found = None if self.full else self._lines(b)
        if found is None:
            return self.solve(b, shift)
        return as_channels(found.ridge(as_complex(b)[:, 0], shift)[:, None])

    def pinv(self, y: Tensor) -> Tensor:
        if not self.full:
            return super().pinv(y)
        power = self._as("power", y)
        seen = power > torch.finfo(power.dtype).eps * power.amax()
        return self.adjoint(y) * torch.where(seen, 1 / torch.where(seen, power, 1.0), 0.0)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        fits = len(x_shape) > 0 and x_shape[0] == 2 and _covers(self.maps, x_shape)
        self._check(x_shape, "2 channels (real, imaginary)", fits)
        return (self.maps.shape[1], *x_shape[1:])
