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
from invdiff.operators.downsample import AveragePool, Bicubic, Upsample
from invdiff.operators.hdr import HDR
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.jpeg import JPEG
from invdiff.operators.krylov import conjugate_gradients, least_squares
from invdiff.operators.nonlinear_blur import NonlinearBlur
from invdiff.operators.phase import CodedDiffraction, PhaseRetrieval, resolve_ambiguity
from invdiff.operators.quantize import Quantize
from invdiff.operators.radon import Radon, limited_angle, sparse_view
from invdiff.operators.sensing import BlockSensing, WalshHadamard
from invdiff.operators.separable import Separable, SeparableBlur, check_kernel
from invdiff.operators.tomography import fbp, line_integrals, metal_trace, transmit
from invdiff.operators.video import Frames, TemporalPool

__all__ = [
    "JPEG",
    "HDR",
    "REC601",
    "Affine",
    "AveragePool",
    "Bicubic",
    "BlockSensing",
    "Blur",
    "CircularBlur",
    "CodedDiffraction",
    "Composed",
    "ComposedLinear",
    "ComposedPseudoInvertible",
    "Frames",
    "Grayscale",
    "Identity",
    "Inpaint",
    "Linear",
    "NonlinearBlur",
    "Operator",
    "PseudoInvertible",
    "Quantize",
    "Radon",
    "PhaseRetrieval",
    "Scaled",
    "ScaledSpectral",
    "Separable",
    "SeparableBlur",
    "Spectral",
    "Stack",
    "WalshHadamard",
    "TemporalPool",
    "Upsample",
    "affine",
    "blur",
    "check_kernel",
    "conjugate_gradients",
    "fbp",
    "gaussian_kernel",
    "least_squares",
    "limited_angle",
    "line_integrals",
    "metal_trace",
    "motion_kernel",
    "resolve_ambiguity",
    "scaled",
    "sparse_view",
    "transmit",
]
