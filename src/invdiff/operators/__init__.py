"""Measurement operators: the ladder in `base`, then one family for each file."""

from invdiff.operators.algebra import (
    Affine,
    Composed,
    ComposedLinear,
    Scaled,
    ScaledSpectral,
    Stack,
    affine,
    scaled,
)
from invdiff.operators.base import Identity, Linear, Operator, Spectral
from invdiff.operators.blur import Blur, CircularBlur, blur, gaussian_kernel, motion_kernel
from invdiff.operators.color import REC601, Grayscale
from invdiff.operators.downsample import AveragePool, Bicubic
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.interferometry import (
    Interferometry,
    earth_rotation_uv,
    grid_uv,
    low_frequencies,
    random_uv,
)
from invdiff.operators.krylov import conjugate_gradients, least_squares
from invdiff.operators.separable import Separable, SeparableBlur, check_kernel

__all__ = [
    "REC601",
    "Affine",
    "AveragePool",
    "Bicubic",
    "Blur",
    "CircularBlur",
    "Composed",
    "ComposedLinear",
    "Grayscale",
    "Identity",
    "Inpaint",
    "Interferometry",
    "Linear",
    "Operator",
    "Scaled",
    "ScaledSpectral",
    "Separable",
    "SeparableBlur",
    "Spectral",
    "Stack",
    "affine",
    "blur",
    "check_kernel",
    "conjugate_gradients",
    "earth_rotation_uv",
    "gaussian_kernel",
    "grid_uv",
    "least_squares",
    "low_frequencies",
    "motion_kernel",
    "random_uv",
    "scaled",
]
