"""Small instances of measurements beyond photographs: columns of the table solver x task."""

from __future__ import annotations

from collections.abc import Callable

import torch

from invdiff.core import Problem
from invdiff.noise import Gaussian, Noise
from invdiff.operators.base import Operator
from invdiff.operators.interferometry import Interferometry, earth_rotation_uv

INSTANCES: dict[str, Callable[[float], Problem]] = {
    "interferometry": lambda sigma: unmeasured(
        Interferometry(earth_rotation_uv(8, 12, 7.0), (16, 16)), sigma, (1, 16, 16)
    ),
}
"""Name to f(sigma): a problem with y = 0 whose types decide which solver can. sigma is the level of
the Gaussian noise, 0 for none; where the noise is of another kind, it is not used."""


def unmeasured(A: Operator, noise: Noise | float, x_shape: tuple[int, ...]) -> Problem:
    """The problem of one measurement y = 0 (complex where A gives complex numbers)."""
    y = torch.zeros_like(A(torch.zeros(1, *x_shape)))
    return Problem(y, A, noise if isinstance(noise, Noise) else Gaussian(noise), x_shape)
