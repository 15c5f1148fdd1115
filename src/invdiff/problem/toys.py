"""Small problems of measurements that no task has: columns of the table solver x problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.noise import (
    CorrelatedGaussian,
    DiagonalGaussian,
    GaussianNoise,
    Laplace,
    Noise,
    Poisson,
)
from invdiff.operators.algebra import Operator
from invdiff.operators.algebra.decoded import Autoencoder, decoded
from invdiff.operators.blur_kernels import gaussian_kernel
from invdiff.operators.camera import Bracket
from invdiff.operators.circular_blur import CircularBlur
from invdiff.operators.closures import ClosurePhases
from invdiff.operators.coils import ring_maps
from invdiff.operators.downsample import AveragePool, Bicubic, Upsample
from invdiff.operators.hdr import HDR
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.interferometry import Interferometry
from invdiff.operators.jpeg import JPEG
from invdiff.operators.mri import RealFourier, Sense
from invdiff.operators.nonlinear_blur import NonlinearBlur
from invdiff.operators.quantize import Quantize
from invdiff.operators.radon import Radon, sparse_view
from invdiff.operators.sampling import gaussian_lines, poisson_disc
from invdiff.operators.stations import earth_rotation
from invdiff.operators.tomography import metal_trace
from invdiff.operators.video import Frames
from invdiff.problem import Problem

RGB = (3, 16, 16)
HOLE = torch.ones(1, 1, 16, 16)
HOLE[..., 4:9, 6:12] = 0
UNEVEN = torch.linspace(0.05, 0.2, 16).reshape(1, 1, 1, 16)
LINES = gaussian_lines((16, 12), 3, seed=0)
POINTS = poisson_disc((16, 12), 3, seed=0, center=2)
ARRAY = earth_rotation(8, 12, 7.0)


def _ct_metal(sigma: float) -> Problem:
    """CT from 8 views without the rays that meet a metal part of 3 x 3 pixels."""
    A = Radon(sparse_view(8), (16, 16), pixel=0.1, cg_iterations=10)
    metal = torch.zeros(1, 1, 16, 16)
    metal[..., 6:9, 8:11] = 1
    return unmeasured(metal_trace(A, metal) @ A, sigma, (1, 16, 16))


@dataclass(frozen=True, eq=False)
class Tanh(Operator):
    """tanh(x): the simplest decoder that is not linear."""

    def __call__(self, x: Tensor) -> Tensor:
        return torch.tanh(x)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return x_shape


AUTOENCODER = Autoencoder(Tanh() @ Upsample(2, RGB[1:]), AveragePool(2, RGB[1:]))
"""Latents of 3 x 8 x 8 and images of 3 x 16 x 16; the encoder is right for small latents only."""


def _latent(A: Operator, sigma: float) -> Problem:
    """A measurement of the image of a latent."""
    return unmeasured(decoded(A, AUTOENCODER), sigma, (3, 8, 8))


TOYS: dict[str, Callable[[float], Problem]] = {
    "jpeg-after-pool": lambda sigma: unmeasured(
        JPEG(50) @ AveragePool(2, (16, 16)), sigma, (3, 16, 16)
    ),
    "quantize": lambda sigma: unmeasured(Quantize(8), sigma, (3, 16, 16)),
    "mri-real": lambda sigma: unmeasured(RealFourier(LINES), sigma, (1, 16, 12)),
    "mri-multi-coil": lambda sigma: unmeasured(
        Sense(ring_maps(4, (16, 12)), POINTS), sigma, (2, 16, 12)
    ),
    "interferometry": lambda sigma: unmeasured(
        Interferometry(ARRAY.uv, (16, 16)), sigma, (1, 16, 16)
    ),
    "closure-phases": lambda sigma: unmeasured(
        ClosurePhases(ARRAY.triangles()) @ Interferometry(ARRAY.uv, (16, 16)), sigma, (1, 16, 16)
    ),
    "ct-metal": _ct_metal,
    "video-extension": lambda sigma: unmeasured(Frames((0, 1), 4), sigma, (1, 4, 8, 8)),
    "video-super-resolution": lambda sigma: unmeasured(AveragePool(2, (8, 8)), sigma, (1, 4, 8, 8)),
    "exposures": lambda sigma: unmeasured(Bracket((0.5, 1.0, 4.0)), sigma, RGB),
    "nonlinear-blur": lambda sigma: unmeasured(NonlinearBlur(radius=3), sigma, RGB),
    "uneven-noise": lambda _: unmeasured(Inpaint(HOLE), DiagonalGaussian(UNEVEN), RGB),
    "coil-noise": lambda _: unmeasured(
        Sense(ring_maps(4, (16, 12)), POINTS),
        CorrelatedGaussian(0.01 * (torch.eye(4) + 0.5)),
        (2, 16, 12),
    ),
    "laplace-noise": lambda _: unmeasured(AveragePool(2, RGB[1:]), Laplace(0.05), RGB),
    "latent": lambda sigma: _latent(Bicubic(2, RGB[1:]), sigma),
    "latent-nonlinear": lambda sigma: _latent(HDR(), sigma),
    "poisson": lambda _: unmeasured(
        CircularBlur(gaussian_kernel(1.0), RGB[1:]), Poisson(100.0), RGB
    ),
}
"""Name to f(sigma): a problem with y = 0 whose types decide which solver can. sigma is the level of
the Gaussian noise, 0 for none; where the noise is of another kind, it is not used."""


def unmeasured(A: Operator, noise: Noise | float, x_shape: tuple[int, ...]) -> Problem:
    """The problem of one measurement y = 0 (complex where A gives complex numbers)."""
    y = torch.zeros_like(A(torch.zeros(1, *x_shape)))
    return Problem(y, A, noise if isinstance(noise, Noise) else GaussianNoise(noise), x_shape)
