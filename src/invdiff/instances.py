"""Small instances of measurements beyond photographs: columns of the table solver x task."""

from __future__ import annotations

from collections.abc import Callable

import torch

from invdiff.core import Problem
from invdiff.noise import Gaussian, Noise, Poisson
from invdiff.operators.base import Operator
from invdiff.operators.blur import CircularBlur, gaussian_kernel
from invdiff.operators.hdr import HDR
from invdiff.operators.nonlinear_blur import NonlinearBlur
from invdiff.operators.phase import PhaseRetrieval

RGB = (3, 16, 16)

INSTANCES: dict[str, Callable[[float], Problem]] = {
    "phase-retrieval": lambda sigma: unmeasured(PhaseRetrieval(), sigma, RGB),
    "hdr": lambda sigma: unmeasured(HDR(), sigma, RGB),
    "nonlinear-blur": lambda sigma: unmeasured(NonlinearBlur(radius=3), sigma, RGB),
    "poisson": lambda _: unmeasured(
        CircularBlur(gaussian_kernel(1.0), RGB[1:]), Poisson(100.0), RGB
    ),
}
"""Name to f(sigma): a problem with y = 0 whose types decide which solver can. sigma is the level of
the Gaussian noise, 0 for none; where the noise is of another kind, it is not used."""


def unmeasured(A: Operator, noise: Noise | float, x_shape: tuple[int, ...]) -> Problem:
    """The problem of one measurement y = 0 (complex where A gives complex numbers)."""
    y = torch.zeros_like(A(torch.zeros(1, *x_shape)))
    return Problem(y, A, noise if isinstance(noise, Noise) else Gaussian(noise), x_shape)
