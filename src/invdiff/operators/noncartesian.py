"""k-space measured anywhere, not on a grid: radial lines, spirals, any trajectory; with coils.

Conventions are those of `mri`: complex images are two real channels, y is complex, sigma is that of
the real part and of the imaginary part, and the transform is orthonormal: on whole frequencies it
is `fft2c`. Frequencies are those of `interferometry`: uv (1 or B, M, 2), u along columns and v
along rows, in cycles per field of view; [-W/2, W/2) x [-H/2, H/2) is what the pixels resolve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.arguments import checked
from invdiff.operators.algebra import Linear
from invdiff.operators.algebra.krylov import conjugate_gradients, least_squares
from invdiff.operators.mri import as_channels, as_complex
from invdiff.operators.sizes import check_count, check_iterations, checked_size

Size = tuple[int, int]
GOLDEN = math.pi * (math.sqrt(5) - 1) / 2
"""111.25 degrees: Winkelmann, Schaeffter, Koehler, Eggers, Doessel 2007, IEEE TMI 26, 68."""


@dataclass(frozen=True, eq=False)
class NonCartesian(Linear):
    """Samples of k-space at any frequencies: y_jm = (H W)^-1/2 sum over pixels of S_j x
    exp(-2 pi i (u_m p / W + v_m q / H)), p and q counted from the pixel (H // 2, W // 2).

    uv: (1 or B, M, 2), real, cycles per field of view. size: (H, W).
    maps: sensitivities S_j, complex, (1 or B, coils, H, W); None for single coils, where each of K
    images is measured by itself. Images (B, 2, H, W) to y (B, coils, M); without maps
    (B, 2 K, H, W) to (B, K, M). density: `density_compensation`, (1 or B, M), from which pinv
    starts its iteration: A^+ stays the same, few iterations come nearer to it.
    eps: relative error of the transform, by finufft (extra `mri`): Barnett, Magland, af Klinteberg
    2019, arXiv:1808.06736. adjoint is the transpose of what is computed up to round-off, whatever
    eps. In float32, phases are as accurate as pixels times the round-off. It runs on the CPU:
    tensors elsewhere are moved there and back. cg_iterations: bound for solve and pinv;
    cg_tol: residual at which solve stops, over the right side.
    Raises InvdiffError for other shapes, and when finufft is absent.
    """

    uv: Tensor
    size: Size
    maps: Tensor | None = None
    density: Tensor | None = None
    eps: float = 1e-6
    cg_iterations: int = 200
    cg_tol: float = 1e-3

    batched: ClassVar[tuple[str, ...]] = ("uv", "maps", "density")

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checked_size(self.size))
        uv, maps, density = self.uv, self.maps, self.density
        if uv.ndim != 3 or uv.shape[2] != 2 or 0 in uv.shape or not uv.is_floating_point():
            raise InvdiffError(
                "A trajectory has shape (batch or 1, samples, 2), real, found "
                f"{tuple(uv.shape)} of {uv.dtype}."
            )
        if not 1e-14 <= self.eps <= 0.1:
            raise InvdiffError(f"eps lies between 1e-14 and 0.1, found {self.eps}.")
        if maps is not None and (
            maps.ndim != 4
            or 0 in maps.shape
            or tuple(maps.shape[2:]) != self.size
            or not maps.is_complex()
        ):
            raise InvdiffError(
                f"Coil sensitivities are complex, (batch or 1, coils, {self.size[0]}, "
                f"{self.size[1]}), found {tuple(maps.shape)} of {maps.dtype}."
            )
        check_iterations(self.cg_iterations, self.cg_tol)
        if density is not None and (
            tuple(density.shape[1:]) != (uv.shape[1],) or not len(density) or density.is_complex()
        ):
            raise InvdiffError(
                f"A density has a weight for each of {uv.shape[1]} samples, (batch or 1, samples), "
                f"found {tuple(density.shape)}."
            )

    def __call__(self, x: Tensor) -> Tensor:
        z = as_complex(x)
        return self._transform(z if self.maps is None else self._as("maps", z) * z, False)

    def adjoint(self, y: Tensor) -> Tensor:
        z = self._transform(y, True)
        if self.maps is not None:
            z = (self._as("maps", z).conj() * z).sum(1, keepdim=True)
        return as_channels(z)

    def gridded(self, y: Tensor) -> Tensor:
        """A^H of y times the density: the usual reconstruction without iteration."""
        return self.adjoint(y if self.density is None else y * self._as("density", y)[:, None])

    def pinv(self, y: Tensor) -> Tensor:
        if self.density is None:
            return super().pinv(y)
        # in the row space of A, as is all that CGLS adds: the shortest solution still
        start = self.gridded(y)
        return start + least_squares(self, y - self(start), self.cg_iterations)

    def iterated(self, b: Tensor, shift: float, enough: float = 0.0) -> Tensor:
        tol = 0.0 if enough else self.cg_tol
        return conjugate_gradients(
            lambda x: self.normal(x) + shift * x, b, self.cg_iterations, tol, enough=enough
        )

    def normal(self, x: Tensor) -> Tensor:
        """A^H A x, to eps: a convolution with the transform of the samples, by FFT on a grid of
        twice the side (Fessler, Lee, Olafsson, Shi, Noll 2005, IEEE Trans. Signal Processing 53,
        3393)."""
        z, (height, width) = as_complex(x), self.size
        if self.maps is not None:
            z = self._as("maps", z) * z
        gain = self._once("gain", z, lambda: self._gain(z))
        grid = (2 * height, 2 * width)
        z = torch.fft.ifft2(torch.fft.fft2(z, s=grid) * gain)[..., :height, :width]
        if self.maps is not None:
            z = (self._as("maps", z).conj() * z).sum(1, keepdim=True)
        return as_channels(z)

    def _gain(self, like: Tensor) -> Tensor:
        """The filter of `normal`, (1 or B, 1, 2 H, 2 W), real: the transform of sum_m exp(2 pi i
        (u_m p / W + v_m q / H)) / (H W), |p| < W and |q| < H."""
        height, width = self.size
        ones = torch.ones(len(self.uv), 1, self.uv.shape[1], dtype=like.dtype, device=like.device)
        grid = (2 * height, 2 * width)
        spread = _Nufft.apply(ones, 2 * self.uv, grid, self.eps, True)  # type: ignore[no-untyped-call]
        spread = torch.fft.ifftshift(spread, dim=(-2, -1)) * (2 / math.sqrt(height * width))
        gain: Tensor = torch.fft.fft2(spread).real
        return gain

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        one = self.maps is not None
        fits = len(x_shape) == 3 and (x_shape[0] == 2 if one else x_shape[0] % 2 == 0)
        if not fits or tuple(x_shape[1:]) != self.size:
            raise InvdiffError(
                f"NonCartesian measures images (2, {self.size[0]}, {self.size[1]}), real and "
                f"imaginary part, found images of shape {tuple(x_shape)}."
            )
        coils = x_shape[0] // 2 if self.maps is None else self.maps.shape[1]
        return (coils, self.uv.shape[1])

    def _transform(self, z: Tensor, back: bool) -> Tensor:
        out: Tensor = _Nufft.apply(z, self.uv, self.size, self.eps, back)  # type: ignore[no-untyped-call]
        return out


class _Nufft(torch.autograd.Function):
    """(B, K, H, W) to (B, K, M), or its adjoint; each is the derivative of the other."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, uv: Tensor, size: Size, eps: float, back: bool) -> Tensor:
        ctx.rest = uv, size, eps, back
        shape = (*z.shape[:2], *(size if back else (uv.shape[1],)))
        if z.device.type == "meta":
            return torch.empty(shape, dtype=z.dtype, device=z.device)
        finufft = _finufft()
        here = z.detach().cpu().resolve_conj()
        # finufft's float32 stops at its own round-off
        options = {"eps": max(eps, 1e-6 if z.dtype == torch.complex64 else 0.0), "modeord": 0}
        sides = torch.tensor([size[1], size[0]], dtype=torch.float64)
        turns = uv.detach().cpu().double() / sides
        points = (2 * math.pi * (turns - turns.round())).to(here.real.dtype).contiguous()
        parts = []
        for k in range(len(points)):
            across, down = (points[k, :, axis].contiguous().numpy() for axis in (0, 1))
            group = (here if len(points) == 1 else here[k : k + 1]).flatten(0, 1)
            values = group.contiguous().numpy()
            # threads that wait for each other cost more than a small transform
            options["nthreads"] = torch.get_num_threads() if values.size > 2**15 else 1
            if back:
                found = finufft.nufft2d1(down, across, values, size, isign=1, **options)
            else:
                found = finufft.nufft2d2(down, across, values, isign=-1, **options)
            parts.append(torch.from_numpy(found))
        out = torch.cat([part.reshape(-1, *shape[1:]) for part in parts])
        return (out / math.sqrt(math.prod(size))).to(z.device)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        uv, size, eps, back = ctx.rest
        out = _Nufft.apply(grads[0], uv, size, eps, not back)  # type: ignore[no-untyped-call]
        return out, None, None, None, None


def _finufft() -> Any:
    try:
        import finufft
    except ImportError:
        raise InvdiffError(
            "NonCartesian needs finufft, which is not installed; run pip install 'invdiff[mri]'."
        ) from None
    return finufft


@checked
def radial_uv(spokes: int, samples: int, size: Size, golden: bool = True) -> Tensor:
    """Frequencies (1, spokes * samples, 2), float64, of diameters through the centre of k-space.

    Each spoke runs from -1 to just below 1, in halves of the resolved band, through 0. golden:
    successive spokes turn by 111.25 degrees, else by 180 / spokes. Square pixels; spokes above
    pi / 2 times the side sample k-space fully.
    """
    _check_trajectory(spokes, samples)
    height, width = checked_size(size)
    turn = GOLDEN if golden else math.pi / spokes
    angle = turn * torch.arange(spokes, dtype=torch.float64)[:, None]
    r = (torch.arange(samples, dtype=torch.float64) - samples // 2) * (2 / samples)
    uv = torch.stack([r * angle.cos() * width / 2, r * angle.sin() * height / 2], dim=-1)
    return uv.reshape(1, -1, 2)


@checked
def spiral_uv(arms: int, samples: int, size: Size, turns: float | None = None) -> Tensor:
    """Frequencies (1, arms * samples, 2), float64, of interleaved Archimedean spirals.

    Radius and angle grow as the square root of time: nearly constant speed, hence even density.
    turns: of each arm; by default side / (2 arms), where neighbouring turns lie one cycle per field
    of view apart, which samples k-space fully.
    """
    _check_trajectory(arms, samples)
    height, width = checked_size(size)
    turns = max(height, width) / (2 * arms) if turns is None else turns
    if not 0 < turns < math.inf:
        raise InvdiffError(f"A spiral makes a number of turns above 0, found {turns}.")
    r = (torch.arange(samples, dtype=torch.float64) / samples).sqrt()
    arm = torch.arange(arms, dtype=torch.float64)[:, None]
    angle = 2 * math.pi * (turns * r + arm / arms)
    uv = torch.stack([r * angle.cos() * width / 2, r * angle.sin() * height / 2], dim=-1)
    return uv.reshape(1, -1, 2)


@checked
def density_compensation(uv: Tensor, size: Size, iterations: int = 30) -> Tensor:
    """Weights (1 or B, M), float64, of samples: small where a trajectory is dense.

    Pipe and Menon 1999, Magn. Reson. Med. 41, 179: w is divided by its convolution w * k until
    that is 1 at every sample. k, nowhere negative, is |transform of the field of view|^2, sinc^2:
    the transform of a triangle over all distances between two pixels. The scale brings A^H W A
    nearest to the identity, on noise.
    """
    check_count("iterations", iterations, 10_000)
    A = NonCartesian(uv, size)
    wide = NonCartesian(2 * uv, (2 * A.size[0], 2 * A.size[1]))
    rows, columns = (1 - (torch.arange(2 * n).double() - n).abs() / n for n in A.size)
    window = torch.outer(rows, columns)
    w = torch.ones(uv.shape[:2], dtype=torch.complex128)[:, None]
    for _ in range(iterations):
        spread = wide._transform(wide._transform(w, True) * window, False)
        w = w / spread.real.clamp_min(1e-6 * float(spread.real.max()))
    weights = w.real[:, 0]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(uv), 2, *A.size, dtype=torch.float64, generator=generator)
    z = A.adjoint(A(x) * weights[:, None])
    scale = (x * z).flatten(1).sum(1) / z.square().flatten(1).sum(1)
    return weights * scale[:, None]


def _check_trajectory(lines: int, samples: int) -> None:
    check_count("lines", lines)
    check_count("samples", samples)
