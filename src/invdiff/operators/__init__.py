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
from invdiff.operators.base import (
    Identity,
    Linear,
    Operator,
    Spectral,
    conjugate_gradients,
    least_squares,
)
from invdiff.operators.blur import Blur, CircularBlur, blur, gaussian_kernel, motion_kernel
from invdiff.operators.color import REC601, Grayscale
from invdiff.operators.downsample import AveragePool, Bicubic
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.sensing import BlockSensing, WalshHadamard
from invdiff.operators.separable import Separable, SeparableBlur, check_kernel

__all__ = [
    "REC601",
    "Affine",
    "AveragePool",
    "Bicubic",
    "BlockSensing",
    "Blur",
    "CircularBlur",
    "Composed",
    "ComposedLinear",
    "Grayscale",
    "Identity",
    "Inpaint",
    "Linear",
    "Operator",
    "Scaled",
    "ScaledSpectral",
    "Separable",
    "SeparableBlur",
    "Spectral",
    "Stack",
    "WalshHadamard",
    "affine",
    "blur",
    "check_kernel",
    "conjugate_gradients",
    "gaussian_kernel",
    "least_squares",
    "motion_kernel",
    "scaled",
]
