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
from invdiff.operators.hdr import HDR
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.krylov import conjugate_gradients, least_squares
from invdiff.operators.nonlinear_blur import NonlinearBlur
from invdiff.operators.phase import CodedDiffraction, PhaseRetrieval, resolve_ambiguity
from invdiff.operators.separable import Separable, SeparableBlur, check_kernel

__all__ = [
    "HDR",
    "REC601",
    "Affine",
    "AveragePool",
    "Bicubic",
    "Blur",
    "CircularBlur",
    "CodedDiffraction",
    "Composed",
    "ComposedLinear",
    "Grayscale",
    "Identity",
    "Inpaint",
    "Linear",
    "NonlinearBlur",
    "Operator",
    "PhaseRetrieval",
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
    "resolve_ambiguity",
    "scaled",
]
