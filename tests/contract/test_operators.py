"""What every operator promises: linearity, adjoint, inverses, decomposition, batch, precision."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.sparse.linalg import aslinearoperator
from torch import Tensor

import invdiff.operators as ops
from invdiff.core import InvdiffError
from invdiff.noise import StationaryGaussian
from invdiff.operators import Linear, Operator, Spectral
from invdiff.operators.algebra.shapes import image_shape
from invdiff.operators.weighted import Whitening

torch.set_num_threads(1)
Shape = tuple[int, ...]
B = 3
EPS = torch.finfo(torch.float64).eps


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def sharp(kernel: Tensor) -> Tensor:
    """The kernel with a strong middle tap, so that it inverts well."""
    kernel = kernel.double().clone()
    kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] += 2 * kernel.sum()
    return kernel / kernel.sum()


def rough(height: int, width: int) -> Tensor:
    return sharp(random(height, width, seed=height * 31 + width).abs())


def mask(*shape: int) -> Tensor:
    return random(*shape, seed=5) > 0


class Pairs(Linear):
    """An operator with a complex measurement, seen as pairs of real numbers in a last axis.

    Its real inner product is Re <y, v>, so that every promise below reads as for real operators.
    """

    def __init__(self, base: Linear) -> None:
        object.__setattr__(self, "base", base)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.view_as_real(self.base(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.base.adjoint(torch.view_as_complex(y.contiguous()))

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return self.base.vjp(x, torch.view_as_complex(v.contiguous()))

    def pinv(self, y: Tensor) -> Tensor:
        return self.base.pinv(torch.view_as_complex(y.contiguous()))

    def solve(self, b: Tensor, shift: float) -> Tensor:
        return self.base.solve(b, shift)

    def rows(self, index: Tensor) -> Pairs:
        return type(self)(self.base.rows(index))

    def y_shape(self, x_shape: Shape) -> Shape:
        return (*self.base.y_shape(x_shape), 2)


class RealParts(Operator):
    """An operator that need not be linear, its complex measurement as pairs of real numbers."""

    __init__ = Pairs.__init__
    __call__ = Pairs.__call__
    vjp = Pairs.vjp
    rows = Pairs.rows
    y_shape = Pairs.y_shape


class SpectralPairs(Pairs, Spectral):
    @property
    def s(self) -> Tensor:
        return self.base.s

    def V(self, c: Tensor) -> Tensor:
        return self.base.V(c)

    def Vt(self, x: Tensor) -> Tensor:
        return self.base.Vt(x)

    def U(self, c: Tensor) -> Tensor:
        return torch.view_as_real(self.base.U(c))

    def Ut(self, y: Tensor) -> Tensor:
        return self.base.Ut(torch.view_as_complex(y.contiguous()))


def pairs(A: Linear) -> Pairs:
    return (SpectralPairs if isinstance(A, Spectral) else Pairs)(A)


def undiff(v: Tensor) -> Tensor:
    """The adjoint of torch.diff along the last axis."""
    zero = torch.zeros_like(v[..., :1])
    return torch.cat([zero, v], -1) - torch.cat([v, zero], -1)


def flipped(x: Tensor) -> Tensor:
    return x.flip(-1)


def numpy_fourier(shape: Shape) -> Linear:
    """Every other column of the orthonormal Fourier transform, for numpy arrays of one image."""

    def forward(x: np.ndarray) -> np.ndarray:
        return np.fft.fft2(x, norm="ortho")[..., ::2]

    def adjoint(y: np.ndarray) -> np.ndarray:
        full = np.zeros(shape, complex)
        full[..., ::2] = y
        return np.fft.ifft2(full, norm="ortho").real

    return Linear.from_functions(forward, adjoint, shape, numpy=True)


def sech2(x: np.ndarray, v: np.ndarray) -> np.ndarray:
    return v / np.cosh(x) ** 2


TAPS = (torch.tensor([0.05, 0.8, 0.15]), torch.tensor([0.05, 0.1, 0.75, 0.1]))
RGB = (3, 12, 10)
POOL = ops.AveragePool(2, (12, 10))
MAPS = ops.ring_maps(3, (6, 5), distance=1.45)
EACH_MAPS = torch.view_as_complex(random(B, 3, 5, 4, 2, seed=6))
HALF = ops.Inpaint.random((6, 5), 0.5, seed=1, batch=B)
RADON = ops.Radon(ops.sparse_view(3), (7, 6), 4)
WELL = torch.eye(4).double() + random(4, 4, seed=8) / 5
COILS = torch.complex(WELL[:3, :3], random(3, 3, seed=1) / 9)
TALL = random(18, 12, seed=4) / 4 + torch.eye(18, 12).double()
SPARSE = scipy.sparse.csr_array((TALL * (TALL.abs() > 0.25)).numpy())
EACH_UV = torch.cat([ops.random_uv(6, 3.0, seed=k) for k in (1, 2, 4)])
LOW_UV = ops.grid_uv(ops.low_frequencies((7, 6), 3))
TILES = torch.stack([rough(3, 5), rough(5, 3).T, sharp(torch.eye(5)[1:4]), rough(3, 5)])
EACH_KERNEL = torch.stack([TILES[:2], TILES[2:], TILES[1:3]])
EACH_WARP = torch.cat(
    [ops.Warp.turbulence((7, 6), 0.3, 2.0, seed=k).displacement for k in (1, 2, 3)]
)
EHT = ops.earth_rotation(6, 3, 2.5, seed=2)
VISIBILITIES = ops.Interferometry(EHT.uv, (6, 5))
SHAKEN = ops.grid_uv(torch.ones(6, 5)) + 0.1 * random(1, 30, 2, seed=7)
DENSE = SHAKEN, (6, 5), MAPS, ops.density_compensation(SHAKEN, (6, 5))
FULL = ops.Fourier(torch.ones(1, 1, 6, 5))
CASES: list[tuple[str, Operator, Shape]] = [
    ("identity", ops.Identity(), (2, 5, 4)),
    ("mask", ops.Inpaint(mask(1, 1, 12, 10)), RGB),
    ("mask-float", ops.Inpaint(mask(1, 3, 12, 10).float()), RGB),
    ("mask-each", ops.Inpaint.random((12, 10), 0.4, seed=0, batch=B), RGB),
    ("mask-box", ops.Inpaint.box((7, 5), 1, 2, 3, 3), (1, 7, 5)),
    ("mask-video", ops.Inpaint(mask(1, 1, 4, 6, 5)), (2, 4, 6, 5)),
    ("pool", POOL, RGB),
    ("pool-rest", ops.AveragePool(3, (13, 7)), (1, 13, 7)),
    ("pool-1", ops.AveragePool(1, (5, 4)), (1, 5, 4)),
    ("pool-pixel", ops.AveragePool(1, (1, 1)), (2, 1, 1)),
    ("pool-all", ops.AveragePool(5, (5, 7)), (1, 5, 7)),
    ("pool-video", ops.AveragePool(2, (6, 5)), (2, 3, 6, 5)),
    ("bicubic", ops.Bicubic(2, (12, 10)), RGB),
    ("bicubic-rest", ops.Bicubic(3, (13, 7)), (1, 13, 7)),
    ("circular", ops.CircularBlur(ops.gaussian_kernel(0.7), (12, 10)), RGB),
    ("circular-prime", ops.CircularBlur(rough(3, 5), (13, 7)), (1, 13, 7)),
    ("circular-even", ops.CircularBlur(rough(4, 2), (7, 6)), (1, 7, 6)),
    ("circular-zeros", ops.CircularBlur(torch.ones(2, 2) / 4, (6, 8)), (1, 6, 8)),
    ("circular-large", ops.CircularBlur(rough(9, 11), (5, 4)), (2, 5, 4)),
    ("circular-pixel", ops.CircularBlur(rough(3, 3), (1, 1)), (1, 1, 1)),
    ("circular-video", ops.CircularBlur(rough(3, 3), (6, 5)), (2, 3, 6, 5)),
    ("separable-reflect", ops.SeparableBlur(*TAPS, (12, 10), "reflect"), RGB),
    ("separable-zero", ops.SeparableBlur(*TAPS, (13, 7), "zero"), (1, 13, 7)),
    ("separable-circular", ops.SeparableBlur(*TAPS, (7, 6), "circular"), (1, 7, 6)),
    ("blur-gauss", ops.blur(ops.gaussian_kernel(0.6), (8, 9)), (1, 8, 9)),
    ("blur-reflect", ops.Blur(rough(5, 3), (12, 10), "reflect"), RGB),
    ("blur-zero", ops.Blur(rough(4, 3), (13, 7), "zero"), (1, 13, 7)),
    ("blur-motion", ops.Blur(sharp(ops.motion_kernel(4, 30)), (7, 8), "reflect"), (1, 7, 8)),
    ("separable-unknown", ops.SeparableBlur(*TAPS, (13, 11), "unknown"), (1, 13, 11)),
    ("blur-unknown", ops.Blur(rough(4, 3), (13, 7), "unknown"), (1, 13, 7)),
    ("separable-replicate", ops.SeparableBlur(*TAPS, (13, 7), "replicate"), (1, 13, 7)),
    ("separable-valid", ops.SeparableBlur(*TAPS, (13, 11), "valid"), (1, 13, 11)),
    ("blur-replicate", ops.Blur(rough(4, 3), (13, 7), "replicate"), (1, 13, 7)),
    ("blur-replicate-large", ops.Blur(sharp(random(9, 7).abs()), (3, 4), "replicate"), (2, 3, 4)),
    ("blur-valid", ops.Blur(rough(4, 3), (13, 7), "valid"), (1, 13, 7)),
    ("blur-channels", ops.Blur(TILES[:3], (6, 5), "replicate"), (3, 6, 5)),
    ("blur-each", ops.Blur(TILES[:3, None], (6, 5)), (2, 6, 5)),
    ("blur-each-channel", ops.Blur(EACH_KERNEL, (6, 5), "unknown"), (2, 6, 5)),
    ("circular-channels", ops.CircularBlur(TILES[1:], (6, 5)), (3, 6, 5)),
    ("circular-each", ops.CircularBlur(TILES[:3, None], (6, 5)), (2, 6, 5)),
    ("circular-one", ops.CircularBlur(EACH_KERNEL[:1], (5, 6)), (2, 5, 6)),
    ("tiled-valid", ops.TiledBlur(TILES.reshape(2, 2, 3, 5), (7, 8), "valid"), (1, 7, 8)),
    ("tiled-replicate", ops.TiledBlur(TILES.reshape(2, 2, 3, 5), (5, 6), "replicate"), (1, 5, 6)),
    (
        "whitening",
        Whitening(StationaryGaussian((0.1, 0.5), ((1.0, 0.2), (0.5, 0.4))), (12, 10)),
        RGB,
    ),
    ("blur-video", ops.Blur(rough(3, 3), (6, 5), "reflect"), (2, 3, 6, 5)),
    ("gray", ops.Grayscale(), RGB),
    ("gray-negative", ops.Grayscale((-0.5, 0.0, 2.0)), (3, 4, 5)),
    ("decoded", ops.DecodedLinear(POOL, ops.Upsample(2, (12, 10)), POOL), (3, 6, 5)),
    ("radon", RADON, (1, 7, 6)),
    ("radon-channels", ops.Radon((10.0, 75.0), (8, 8), 4, pitch=1.2, pixel=0.5), (3, 8, 8)),
    ("radon-fan", ops.Radon(ops.sparse_view(3, 360), (7, 6), 4, shift=0.3, source=9), (1, 7, 6)),
    ("radon-rays", ops.Radon(ops.sparse_view(3), (7, 6), 4, mode="rays"), (2, 7, 6)),
    ("radon-metal", ops.Inpaint(mask(1, 1, 3, 4)) @ RADON, (1, 7, 6)),
    ("hadamard", ops.WalshHadamard(9, (8, 4), seed=2), (3, 8, 4)),
    ("hadamard-all", ops.WalshHadamard(16, (4, 4)), (1, 4, 4)),
    ("hadamard-pixel", ops.WalshHadamard(1, (1, 1)), (2, 1, 1)),
    ("hadamard-video", ops.WalshHadamard(3, (2, 8)), (2, 3, 2, 8)),
    ("block", ops.BlockSensing(5, (8, 4), 4, seed=1), (3, 8, 4)),
    ("block-all", ops.BlockSensing(4, (4, 6), 2), (1, 4, 6)),
    ("block-video", ops.BlockSensing(3, (3, 6), 3), (2, 2, 3, 6)),
    ("bayer", ops.Bayer(), RGB),
    ("bayer-odd", ops.Bayer("GBRG"), (3, 7, 5)),
    ("bayer-pixel", ops.Bayer("BGGR"), (3, 1, 1)),
    ("bayer-video", ops.Bayer("GRBG"), (3, 2, 3, 4)),
    ("dct", ops.DCTSubsampling.random((12, 10), 0.3, seed=1, low=3), RGB),
    ("dct-each", ops.DCTSubsampling.random((7, 5), 0.4, seed=1, batch=B), (2, 7, 5)),
    ("dct-low", ops.DCTSubsampling.lowest((5, 7), 3), (1, 5, 7)),
    ("dct-pixel", ops.DCTSubsampling(torch.ones(1, 1, 1, 1)), (1, 1, 1)),
    ("dct-video", ops.DCTSubsampling(mask(1, 1, 1, 4, 6)), (2, 3, 4, 6)),
    ("hadamard-sequency", ops.WalshHadamard(9, (8, 4), order="sequency"), (3, 8, 4)),
    ("single-pixel", ops.SinglePixel(ops.WalshHadamard(9, (4, 8), seed=2)), (2, 4, 8)),
    ("tiled-blur", ops.TiledBlur(TILES.reshape(2, 2, 3, 5), (12, 10)), RGB),
    ("tiled-zero", ops.TiledBlur(TILES.reshape(4, 1, 3, 5), (7, 6), "zero"), (1, 7, 6)),
    ("tiled-circular", ops.TiledBlur(TILES.reshape(1, 4, 3, 5), (5, 6), "circular"), (1, 5, 6)),
    ("tiled-video", ops.TiledBlur(TILES.reshape(2, 2, 3, 5), (6, 5)), (2, 3, 6, 5)),
    ("warp", ops.Warp.turbulence((12, 10), 0.15, 2.0, seed=0), RGB),
    ("warp-each", ops.Warp(EACH_WARP), (2, 7, 6)),
    ("warp-video", ops.Warp.turbulence((5, 6), 0.2, 1.5, seed=4), (2, 3, 5, 6)),
    (
        "turbulence",
        ops.TiledBlur(TILES.reshape(2, 2, 3, 5), (7, 6)) @ ops.Warp.turbulence((7, 6), 0.3, 2.0),
        (1, 7, 6),
    ),
    ("photons", ops.to_photons(50.0, ops.Bicubic(2, (5, 6))), (1, 5, 6)),
    ("gray-video", ops.Grayscale(), (3, 4, 5, 6)),
    ("upsample", ops.Upsample(2, (12, 10)), (3, 6, 5)),
    ("upsample-rest", ops.Upsample(3, (13, 7)), (1, 5, 3)),
    ("upsample-bicubic", ops.Upsample(2, (12, 10), "bicubic"), (3, 6, 5)),
    ("upsample-bicubic-rest", ops.Upsample(4, (13, 7), "bicubic"), (1, 4, 2)),
    ("frames", ops.Frames((0, 1, 2), 6), (2, 6, 4, 5)),
    ("frames-order", ops.Frames((4, 1), 5), (1, 5, 3, 4)),
    ("temporal-pool", ops.TemporalPool(2, 6), (2, 6, 4, 3)),
    ("temporal-pool-rest", ops.TemporalPool(3, 7), (1, 7, 3, 4)),
    ("space-time", ops.AveragePool(2, (4, 6)) @ ops.Frames((0, 3), 4), (2, 4, 4, 6)),
    ("space-time-pool", ops.TemporalPool(2, 4) @ ops.Bicubic(2, (6, 4)), (1, 4, 6, 4)),
    ("interferometry", pairs(ops.Interferometry(ops.random_uv(10, 5.0), (12, 10))), RGB),
    ("interferometry-each", pairs(ops.Interferometry(EACH_UV, (7, 6))), (2, 7, 6)),
    ("interferometry-grid", pairs(ops.Interferometry(LOW_UV, (7, 6))), (1, 7, 6)),
    ("composed", POOL @ ops.CircularBlur(rough(3, 3), (12, 10)), RGB),
    ("composed-mask", HALF @ POOL, (1, 12, 10)),
    ("stack", ops.Stack((POOL, ops.Grayscale()), RGB), RGB),
    ("stack-mask", ops.Stack((HALF, ops.Bicubic(2, (6, 5))), (2, 6, 5)), (2, 6, 5)),
    ("scaled", ops.scaled(ops.Blur(rough(3, 3), (5, 6)), -1.5), (1, 5, 6)),
    ("scaled-spectral", ops.scaled(ops.Bicubic(2, (5, 6)), -1.5), (1, 5, 6)),
    ("fourier", pairs(ops.Fourier(mask(1, 1, 6, 5))), (2, 6, 5)),
    ("fourier-each", pairs(ops.Fourier(mask(B, 1, 5, 4))), (2, 5, 4)),
    ("fourier-coils", pairs(ops.Fourier(mask(1, 1, 1, 6))), (6, 5, 6)),
    ("fourier-video", pairs(ops.Fourier(mask(1, 1, 3, 4, 1))), (2, 3, 4, 4)),
    ("fourier-real", pairs(ops.RealFourier(mask(1, 1, 8, 6))), (1, 8, 6)),
    ("fourier-real-odd", pairs(ops.RealFourier(mask(1, 1, 7, 5))), (2, 7, 5)),
    ("fourier-real-each", pairs(ops.RealFourier(mask(B, 1, 1, 6))), (1, 5, 6)),
    ("fourier-real-video", pairs(ops.RealFourier(mask(1, 1, 3, 4, 5))), (1, 3, 4, 5)),
    ("sense", pairs(ops.Sense(MAPS, random(1, 1, 6, 5, seed=5) > -0.5)), (2, 6, 5)),
    ("sense-each", pairs(ops.Sense(EACH_MAPS, mask(B, 1, 5, 4))), (2, 5, 4)),
    ("sense-full", pairs(ops.Sense(EACH_MAPS, torch.ones(1, 1, 5, 4))), (2, 5, 4)),
    ("noncartesian", pairs(ops.NonCartesian(SHAKEN, (6, 5))), (2, 6, 5)),
    ("noncartesian-coils", pairs(ops.NonCartesian(SHAKEN[:, ::5], (6, 5), MAPS)), (2, 6, 5)),
    ("noncartesian-each", pairs(ops.NonCartesian(EACH_UV, (7, 6), eps=1e-3)), (4, 7, 6)),
    ("noncartesian-density", pairs(ops.NonCartesian(*DENSE)), (2, 6, 5)),
    ("weighted", ops.Weighted(random(1, 3, 1, 4, seed=7).abs() * mask(1, 3, 5, 4)), (3, 5, 4)),
    ("weighted-each", ops.Weighted(random(B, 1, 5, 1, seed=7).abs()), (2, 5, 4)),
    ("weighted-mask", ops.Weighted(0.5 + random(1, 1, 6, 5, seed=7).abs()) @ HALF, (2, 6, 5)),
    ("mixed", ops.Mixed(WELL[:3, :3]), (3, 5, 4)),
    ("mixed-last", ops.Mixed(WELL, axis=3), (2, 3, 4)),
    ("mixed-all", ops.Mixed(WELL, axis=None), (1, 2, 2)),
    ("mixed-coils", pairs(ops.Mixed(COILS) @ ops.Sense(MAPS, torch.ones(1, 1, 6, 5))), (2, 6, 5)),
    ("matrix-wide", Linear.from_matrix(random(7, 12, seed=1), (1, 3, 4)), (1, 3, 4)),
    ("matrix-tall", Linear.from_matrix(TALL, (2, 2, 3), (3, 6)), (2, 2, 3)),
    ("matrix-rank", Linear.from_matrix(random(6, 2) @ random(2, 8), (8,)), (8,)),
    ("matrix-plain", Linear.from_matrix(TALL, (1, 4, 3), decompose=False), (1, 4, 3)),
    ("matrix-complex", pairs(Linear.from_matrix(TALL[:8] + 1j * TALL[9:17], (12,))), (12,)),
    ("matrix-sparse", Linear.from_matrix(SPARSE, (1, 4, 3), (2, 9)), (1, 4, 3)),
    ("functions", Linear.from_functions(torch.diff, undiff, (2, 3, 5)), (2, 3, 5)),
    ("functions-numpy", pairs(numpy_fourier((1, 4, 6))), (1, 4, 6)),
    (
        "functions-masked",
        HALF @ Linear.from_functions(flipped, flipped, (1, 6, 5)),
        (1, 6, 5),
    ),
    ("scipy", Linear.from_scipy(aslinearoperator(SPARSE), (1, 4, 3), (3, 6)), (1, 4, 3)),
    ("affine", ops.affine(ops.Bicubic(2, (5, 6)), 0.5, 0.5), (1, 5, 6)),
    ("times-affine", -2 * ops.affine(ops.Bicubic(2, (5, 6)), 0.5, 0.5), (1, 5, 6)),
    ("minus", -HALF, (2, 6, 5)),
    ("divided", POOL / 3, RGB),
    ("times-composed", 2 * (HALF @ POOL), (1, 12, 10)),
    ("times-complex", pairs(-0.5 * ops.Fourier(mask(B, 1, 5, 4))), (2, 5, 4)),
    ("sum", ops.Blur(rough(3, 3), (6, 5)) + ops.CircularBlur(rough(3, 1), (6, 5)), (2, 6, 5)),
    ("sum-each", 0.3 * HALF + ops.Blur(rough(3, 3), (6, 5), "zero"), (1, 6, 5)),
    ("sum-affine", ops.affine(ops.Identity(), 2.0, 0.5) + HALF, (1, 6, 5)),
    ("sum-complex", pairs(ops.Fourier(mask(1, 1, 6, 5)) + FULL), (2, 6, 5)),
    ("unsharp", 2.5 * ops.Identity() - ops.blur(ops.gaussian_kernel(0.6), (6, 5)), (1, 6, 5)),
    ("transpose", POOL.T, (3, 6, 5)),
    ("transpose-linear", ops.Blur(rough(4, 3), (7, 6), "unknown").T, (1, 4, 4)),
    ("transpose-each", HALF.T, (2, 6, 5)),
    ("transpose-scaled", (-2 * ops.Frames((0, 2), 3)).T, (1, 2, 4, 3)),
    ("normal", HALF.T @ HALF, (1, 6, 5)),
    ("normal-complex", FULL.T @ (0.5 * FULL), (2, 6, 5)),
]
NONLINEAR: list[tuple[str, Operator, Shape]] = [
    ("quantize", ops.Quantize(7), RGB),
    ("quantize-lower", ops.Quantize(10, "lower"), (1, 5, 4)),
    ("quantize-video", ops.Quantize.bits(3), (2, 3, 6, 5)),
    ("quantize-pool", ops.Quantize(7) @ POOL, RGB),
    ("scaled-quantize", ops.scaled(ops.Identity(), 2.0) @ ops.Quantize(7), RGB),
    ("quantize-affine", ops.Quantize(7) @ ops.affine(POOL, 0.5, 0.25), RGB),
    ("quantize-mask-each", ops.Quantize(7) @ HALF, (1, 6, 5)),
    ("jpeg", ops.JPEG(30), (3, 17, 23)),
    ("jpeg-grey", ops.JPEG(30), (1, 12, 10)),
    ("jpeg-pool", ops.JPEG(30) @ POOL, RGB),
    ("times-quantize", 0.3 * ops.Quantize(7), RGB),
    ("times-quantize-pool", -(ops.Quantize(7) @ POOL), RGB),
    ("times-jpeg", 100 * ops.JPEG(30), (1, 12, 10)),
]
EXACT = [c for c in NONLINEAR if c[1].consistent(c[2]) and "jpeg" not in c[0]]
CURVED: list[tuple[str, Operator, Shape]] = [
    ("function", Operator.from_function(torch.tanh), (2, 5, 4)),
    ("function-numpy", Operator.from_function(np.tanh, sech2, numpy=True), (2, 5, 4)),
    ("phase", ops.PhaseRetrieval(), RGB),
    ("phase-unit", ops.PhaseRetrieval(4.0, unit_range=True), (1, 5, 4)),
    ("diffraction", ops.CodedDiffraction.random((7, 6), 2, seed=0), (2, 7, 6)),
    ("hdr", ops.HDR(), RGB),
    ("nonlinear-blur", ops.NonlinearBlur(radius=2), RGB),
    ("decoded", ops.Decoded(POOL, ops.HDR(), ops.Identity()), RGB),
    ("response", ops.CameraResponse(), RGB),
    ("response-reverse", ops.CameraResponse(2.2, 0.1, reverse=True), (1, 5, 4)),
    ("bracket", ops.Bracket((0.5, 1.0, 4.0)), RGB),
    (
        "camera",
        ops.CameraResponse() @ ops.Bracket((0.5, 2.0)) @ ops.CameraResponse().inverse(),
        RGB,
    ),
    ("times-curved", -0.5 * ops.HDR(), RGB),
    ("sum-curved", ops.HDR() + 2 * ops.CircularBlur(rough(3, 3), (12, 10)), RGB),
    ("difference-curved", ops.CameraResponse() - ops.CameraResponse(2.0), (1, 5, 4)),
    ("closure-phases", RealParts(ops.ClosurePhases(EHT.triangles()) @ VISIBILITIES), (2, 6, 5)),
    ("closure-amplitudes", ops.ClosureAmplitudes(EHT.quadrangles()) @ VISIBILITIES, (2, 6, 5)),
    (
        "closure-ratios",
        ops.ClosureAmplitudes(EHT.quadrangles(), log=False) @ VISIBILITIES,
        (1, 6, 5),
    ),
]
LINEAR = [c for c in CASES if isinstance(c[1], Linear)]
SPECTRAL = [c for c in CASES if isinstance(c[1], Spectral)]


def each(cases: list[tuple[str, Operator, Shape]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("A", "shape"), [pytest.param(*c[1:], id=c[0]) for c in cases])


def coefficients(A: Spectral, shape: Shape) -> Shape:
    """Shape of A's coefficients of one image."""
    return tuple(A.Vt(torch.zeros(1, *shape)).shape[1:])


def maps(A: Operator, shape: Shape) -> dict[str, tuple[Callable[[Tensor], Tensor], Shape]]:
    """Every linear map that A offers, with the shape of its argument."""
    y = A.y_shape(shape)
    found: dict[str, tuple[Callable[[Tensor], Tensor], Shape]] = {"A": (A, shape)}
    if isinstance(A, Linear):
        found |= {"adjoint": (A.adjoint, y), "pinv": (A.pinv, y)}
        found["solve"] = (lambda b: A.solve(b, 0.05), shape)
    if isinstance(A, Spectral):
        c = coefficients(A, shape)
        found |= {"V": (A.V, c), "Vt": (A.Vt, shape), "U": (A.U, c), "Ut": (A.Ut, y)}
    return found


def matrix(f: Callable[[Tensor], Tensor], shape: Shape) -> Tensor:
    """The matrix of a linear map of arrays of the given shape, float64."""
    n = math.prod(shape)
    return f(torch.eye(n, dtype=torch.float64).reshape(n, *shape)).flatten(1).T


def same(a: Tensor, b: Tensor, tol: float) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tol)


def counted(a: Tensor) -> Tensor:
    """The singular values of a matrix that are not numerically zero, in falling order."""
    s = torch.linalg.svdvals(a)
    return s[s > max(a.shape) * EPS * s[0]]


def alone(A: Operator, k: int = 0) -> Operator:
    """A for batch row k: it accepts any number of images where its own tensors have one row."""
    return A.rows(torch.tensor([k]))


def assert_adjoint(A: Operator, shape: Shape, dtype: torch.dtype) -> None:
    """<A x, y> = <x, A^T y> up to the round-off of dtype."""
    bound = 1e-10 if dtype == torch.float64 else 1e-5
    assert isinstance(A, Linear)
    x = random(B, *shape, seed=1).to(dtype)
    y = random(B, *A.y_shape(shape), seed=2).to(dtype)
    z, back = A(x).double(), A.adjoint(y).double()
    gap = ((z * y).sum() - (x * back).sum()).abs() / (z.norm() * y.norm())
    assert gap < bound


@each(LINEAR)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adjoint(A: Linear, shape: Shape, dtype: torch.dtype) -> None:
    assert_adjoint(A, shape, dtype)


@dataclass(frozen=True, eq=False)
class WrongAdjoint(ops.CircularBlur):
    """A blur whose transpose returns its input."""

    def adjoint(self, y: Tensor) -> Tensor:
        return y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adjoint_finds_a_wrong_transpose(dtype: torch.dtype) -> None:
    with pytest.raises(AssertionError):
        assert_adjoint(WrongAdjoint(rough(3, 3), (12, 10)), RGB, dtype)


@each(CASES)
def test_linear(A: Operator, shape: Shape) -> None:
    x, z = random(B, *shape, seed=3), random(B, *shape, seed=4)
    zero = A(torch.zeros_like(x))
    assert not (isinstance(A, Linear) and zero.any())
    same(A(2 * x - 3 * z) - zero, 2 * (A(x) - zero) - 3 * (A(z) - zero), 1e-12)


@each(LINEAR)
def test_moore_penrose(A: Linear, shape: Shape) -> None:
    """The four identities that define A^+.

    A backward stable pinv has a relative error of n eps cond, cond = max s / min s that counts.
    Without a decomposition the iteration may stop at |A^T r| = 8 eps |A| |r|: 8 eps cond^2."""
    A, spectral = alone(A), isinstance(A, Spectral)
    a, p = matrix(A, shape), matrix(A.pinv, A.y_shape(shape))
    s = counted(a)
    cond = float(s[0] / s[-1])
    tol = EPS * (4 * max(a.shape) * cond if spectral else 8 * max(a.shape) * cond**2)
    assert tol < 1e-10
    same(a @ p @ a, a, tol * float(s[0]))
    same(p @ a @ p, p, tol / float(s[-1]))
    same(a @ p, (a @ p).T, tol)
    same(p @ a, (p @ a).T, tol)


@each(LINEAR)
def test_norm(A: Linear, shape: Shape) -> None:
    """The largest singular value of all rows, to the tolerance that was asked for.

    Lanczos stops at a residual of 2 tol, and the error of its value is below that.
    """
    base = A.base if isinstance(A, Pairs) else A
    want = max(float(counted(matrix(alone(A, k), shape))[0]) for k in range(base.batch_rows))
    assert base.norm(shape, tol=1e-9) == pytest.approx(want, rel=2e-9)
    assert base.norm(shape) == pytest.approx(want, rel=2e-4)
    if image_shape(base) is not None:
        assert base.norm() == pytest.approx(want, rel=2e-4)
    assert (base / want).norm(shape) == pytest.approx(1, rel=2e-4)


def left(A: Linear, x: Tensor, b: Tensor, shift: float) -> float:
    """|(A^T A + shift) x - b|."""
    return float((A.adjoint(A(x)) + shift * x - b).norm())


def promised(A: Linear, x: Tensor, b: Tensor, tol: float | None = None) -> float:
    """What `left` may be: round-off where nothing is iterative, else |b| times the tolerance.

    NonCartesian iterates with an A^T A that is exact to eps.
    """
    base = A.base if isinstance(A, Pairs) else A
    tol = base.cg_tol if tol is None else tol
    share = 1e-8 if isinstance(base, Spectral) else tol + 1e-8
    if isinstance(base, ops.NonCartesian):
        return share * float(b.norm()) + 2 * base.eps * base.norm(x.shape[1:]) ** 2 * float(
            x.norm()
        )
    return share * float(b.norm())


@each(LINEAR)
@pytest.mark.parametrize("shift", [0.01, 3.0])
def test_solve(A: Linear, shape: Shape, shift: float) -> None:
    b = random(B, *shape, seed=5)
    x = A.solve(b, shift)
    assert left(A, x, b, shift) < promised(A, x, b)


@each(LINEAR)
@pytest.mark.parametrize("shift", [0.01, 3.0])
def test_ridge(A: Linear, shape: Shape, shift: float) -> None:
    y = A(random(B, *shape, seed=6))
    x, b = A.ridge(y, shift), A.adjoint(y)
    assert left(A, x, b, shift) < promised(A, x, b)


@each(LINEAR)
def test_solve_without_a_tolerance_ends_at_round_off(A: Linear, shape: Shape) -> None:
    base = A.base if isinstance(A, Pairs) else A
    if "cg_tol" not in {f.name for f in dataclasses.fields(base)}:
        pytest.skip("no field for the tolerance")
    base, b = dataclasses.replace(base, cg_tol=0.0), random(B, *shape, seed=5)
    x = base.solve(b, 0.01)
    assert left(base, x, b, 0.01) < promised(base, x, b, 0.0)


@each(SPECTRAL)
def test_ridge_in_float32_tends_to_the_pseudo_inverse(A: Spectral, shape: Shape) -> None:
    """At a shift below round-off, what A does not see is not divided by it."""
    x = random(B, *shape, seed=7)
    s = A.spectrum(x)
    if float(s[s > 0].min()) < 0.1 * float(s.max()):
        pytest.skip("a small singular value is not far above the shift")
    y, shift = A(x.float()), 1e-10 * float(s.max()) ** 2
    want = A.pinv(A(x)).float()
    assert (A.ridge(y, shift) - want).norm() < 1e-4 * want.norm()


@each(SPECTRAL)
def test_decomposition(A: Spectral, shape: Shape) -> None:
    """A = U s Vt with V square and orthonormal, U orthonormal where s > 0."""
    A = alone(A)
    y_shape, n = A.y_shape(shape), math.prod(shape)
    c = coefficients(A, shape)
    a, v, vt = matrix(A, shape), matrix(A.V, c), matrix(A.Vt, shape)
    u, ut = matrix(A.U, c), matrix(A.Ut, y_shape)
    assert A.s.dtype == torch.float64 and bool((A.s >= 0).all())
    s = A.spectrum(a).expand(1, *c).flatten()
    seen = u[:, s > 0]
    same(v @ vt, torch.eye(n).double(), 1e-10)
    same(vt, v.T, 1e-10)
    same(ut, u.T, 1e-10)
    same(seen.T @ seen, torch.eye(seen.shape[1]).double(), 1e-10)
    same(u @ (s[:, None] * vt), a, 1e-10)
    same(s.sort(descending=True).values[: min(a.shape)], torch.linalg.svdvals(a), 1e-10)


@each(NONLINEAR)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_nonlinear_row_is_the_same_in_a_batch(
    A: Operator, shape: Shape, dtype: torch.dtype
) -> None:
    """Bit for bit; nothing is written to, the precision and the promised shape stay."""
    assert isinstance(A, ops.PseudoInvertible) and not isinstance(A, Linear)
    x = random(B, *shape, seed=6).to(dtype) / 2
    kept, z = x.clone(), A(x)
    image = A.pinv(z)
    assert z.dtype == image.dtype == dtype and torch.equal(x, kept)
    assert tuple(z.shape) == (B, *A.y_shape(shape)) and image.shape == x.shape
    for k in range(B):
        assert torch.equal(alone(A, k)(x[k : k + 1]), z[k : k + 1])
        assert torch.equal(alone(A, k).pinv(z[k : k + 1]), image[k : k + 1])
    same(A.pinv_residual(z, x / 2), image - A.pinv(A(x / 2)), 0.0)


@each(EXACT)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_generalised_inverse(A: Operator, shape: Shape, dtype: torch.dtype) -> None:
    """A(A^+(A(x))) = A(x); JPEG, for which it holds nearly, is in tests/operators/test_jpeg.py."""
    assert isinstance(A, ops.PseudoInvertible)
    z = A(random(B, *shape, seed=7).to(dtype) / 2)
    same(A(A.pinv(z)), z, 8 * torch.finfo(dtype).eps * float(z.abs().max()))
    assert not A.differentiable
    with pytest.raises(InvdiffError, match="No gradient passes through"):
        A.vjp(random(B, *shape), z.double())


@each(SPECTRAL)
def test_onto_and_one_to_one_are_ranks(A: Spectral, shape: Shape) -> None:
    """A A^+ = I where every y has an image, A^+ A = I where every x has its own y."""
    a = matrix(alone(A), shape)
    rank = len(counted(a))
    assert alone(A).rank(shape) == rank
    assert alone(A).onto(shape) == (rank == a.shape[0])
    assert alone(A).one_to_one(shape) == (rank == a.shape[1])
    assert A.rank(shape) == min(alone(A, k).rank(shape) for k in range(B))


@each(CURVED)
def test_not_linear(A: Operator, shape: Shape) -> None:
    """Negative twin of the test above."""
    with pytest.raises(AssertionError):
        test_linear(A, shape)


@each(CASES + CURVED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_is_the_same_in_a_batch(A: Operator, shape: Shape, dtype: torch.dtype) -> None:
    """Up to round-off (a batch may be added in another order): 32 eps covers the sums of one map,
    an iterative solution multiplies it by cond^2. Nothing is written to; the precision stays."""
    iterative = isinstance(A, Linear) and not isinstance(A, Spectral)
    s = counted(matrix(alone(A), shape)) if iterative else torch.ones(1)
    for name, (f, argument) in maps(A, shape).items():
        v = random(B, *argument, seed=6).to(dtype)
        kept = v.clone()
        whole = f(v)
        assert whole.dtype == dtype and torch.equal(v, kept), name
        amplified = float(s[0] / s[-1]) ** 2 if name in ("pinv", "solve") else 1.0
        tol = 32 * torch.finfo(dtype).eps * amplified * float(whole.abs().max())
        for k in (0, B - 1):
            same(maps(alone(A, k), shape)[name][0](v[k : k + 1]), whole[k : k + 1], tol)
    index = torch.tensor([2, 0, 0])
    x = random(B, *shape, seed=7)
    same(A.rows(index)(x[index]), A(x)[index], 1e-14)


@each(CASES + CURVED)
def test_gradients_pass(A: Operator, shape: Shape) -> None:
    x = random(B, *shape, seed=8).requires_grad_()
    z = A(x)
    v = random(*z.shape, seed=9).requires_grad_()
    (expected,) = torch.autograd.grad(z, x, v)
    same(A.vjp(x, v), expected, 1e-12)
    if isinstance(A, Linear):
        (twice,) = torch.autograd.grad(A.adjoint(v), v, x)
        same(twice, z, 1e-12)


@each(CASES + CURVED)
def test_shapes_and_devices(A: Operator, shape: Shape) -> None:
    """y_shape tells the truth; a device without data shows that no tensor is left behind."""
    assert A.y_shape(shape) == tuple(A(random(B, *shape)).shape[1:])
    for name, (f, argument) in maps(A, shape).items():
        if isinstance(A, Spectral) or name in ("A", "adjoint"):
            out = f(torch.empty(B, *argument, device="meta"))
            assert out.device.type == "meta" and out.dtype == torch.float32, name
