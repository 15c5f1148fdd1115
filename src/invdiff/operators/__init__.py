"""Measurement operators: the ladder in `base`, then one family for each file."""

from invdiff.operators.algebra import (
    Affine,
    Composed,
    ComposedLinear,
    ComposedPseudoInvertible,
    Scaled,
    ScaledSpectral,
    Stack,
    affine,
    scaled,
)
from invdiff.operators.base import Identity, Linear, Operator, PseudoInvertible, Spectral
from invdiff.operators.blur import Blur, CircularBlur, blur, gaussian_kernel, motion_kernel
from invdiff.operators.color import REC601, Grayscale
from invdiff.operators.downsample import AveragePool, Bicubic
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.jpeg import JPEG
from invdiff.operators.krylov import conjugate_gradients, least_squares
from invdiff.operators.quantize import Quantize
from invdiff.operators.separable import Separable, SeparableBlur, check_kernel

__all__ = [
    "JPEG",
    "REC601",
    "Affine",
    "AveragePool",
    "Bicubic",
    "Blur",
    "CircularBlur",
    "Composed",
    "ComposedLinear",
    "ComposedPseudoInvertible",
    "Grayscale",
    "Identity",
    "Inpaint",
    "Linear",
    "Operator",
    "PseudoInvertible",
    "Quantize",
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
    "gaussian_kernel",
    "least_squares",
    "motion_kernel",
    "scaled",
]
