"""Noise models: how a measurement scatters around A(x0); and how to estimate its level."""

from invdiff.noise.base import Noise
from invdiff.noise.coloured import Coloured, CorrelatedGaussian, DiagonalGaussian
from invdiff.noise.counts import Poisson, PoissonGaussian
from invdiff.noise.estimate import (
    Estimate,
    noise_from_background,
    noise_from_detail,
    noise_from_kspace,
    noise_from_scan,
)
from invdiff.noise.gaussian import NOISELESS, GaussianNoise
from invdiff.noise.heavy import Laplace, Rician, StudentT
from invdiff.noise.stationary import StationaryGaussian

__all__ = [
    "NOISELESS",
    "Coloured",
    "CorrelatedGaussian",
    "DiagonalGaussian",
    "Estimate",
    "GaussianNoise",
    "Laplace",
    "Noise",
    "Poisson",
    "PoissonGaussian",
    "Rician",
    "StationaryGaussian",
    "StudentT",
    "noise_from_background",
    "noise_from_detail",
    "noise_from_kspace",
    "noise_from_scan",
]
