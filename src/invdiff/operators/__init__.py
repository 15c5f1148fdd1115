"""Measurement operators: the ladder in `algebra`, then one family for each file."""

from invdiff.operators.algebra import Identity, Linear, Operator, PseudoInvertible, Spectral
from invdiff.operators.algebra.compose import (
    Affine,
    Composed,
    ComposedLinear,
    ComposedPseudoInvertible,
    Stack,
    affine,
)
from invdiff.operators.algebra.decoded import Decoded, DecodedLinear
from invdiff.operators.algebra.krylov import conjugate_gradients, least_squares
from invdiff.operators.algebra.scaling import (
    Scaled,
    ScaledOperator,
    ScaledPseudoInvertible,
    ScaledSpectral,
    scaled,
)
from invdiff.operators.algebra.sums import Summed, SummedLinear
from invdiff.operators.algebra.transposed import Transposed, TransposedSpectral
from invdiff.operators.bayer import Bayer
from invdiff.operators.blur import Blur, blur
from invdiff.operators.blur_kernels import check_kernel, gaussian_kernel, motion_kernel
from invdiff.operators.camera import Bracket, CameraResponse, to_photons
from invdiff.operators.circular_blur import CircularBlur
from invdiff.operators.closures import ClosureAmplitudes, ClosurePhases
from invdiff.operators.coils import (
    calibration_region,
    calibration_width,
    coil_images,
    espirit,
    mvue,
    mvue_scale,
    normalised,
    ring_maps,
    root_sum_of_squares,
    zero_filled,
)
from invdiff.operators.color import REC601, Grayscale
from invdiff.operators.dct import DCTSubsampling
from invdiff.operators.downsample import AveragePool, Bicubic, Upsample
from invdiff.operators.geometry import Geometry
from invdiff.operators.given.functions import FromFunction, FromFunctions, dot_test
from invdiff.operators.given.matrix import Matrix, MatrixProduct, SparseMatrix
from invdiff.operators.hdr import HDR
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.interferometry import (
    Interferometry,
    grid_uv,
    low_frequencies,
    random_uv,
)
from invdiff.operators.jpeg import JPEG
from invdiff.operators.kernel_network import KernelNetworkBlur
from invdiff.operators.mri import (
    Fourier,
    RealFourier,
    Sense,
    as_channels,
    as_complex,
    fft2c,
    ifft2c,
)
from invdiff.operators.noncartesian import (
    NonCartesian,
    density_compensation,
    radial_uv,
    spiral_uv,
)
from invdiff.operators.nonlinear_blur import NonlinearBlur
from invdiff.operators.phase import CodedDiffraction, PhaseRetrieval, resolve_ambiguity
from invdiff.operators.quantize import Quantize
from invdiff.operators.radon import Radon, largest_side, limited_angle, sparse_view
from invdiff.operators.sampling import (
    acceleration,
    equispaced,
    gaussian_lines,
    gaussian_points,
    poisson_disc,
    random_lines,
)
from invdiff.operators.sensing import BlockSensing, WalshHadamard
from invdiff.operators.separable import Separable
from invdiff.operators.separable_blur import SeparableBlur
from invdiff.operators.single_pixel import SinglePixel
from invdiff.operators.stations import TelescopeArray, earth_rotation
from invdiff.operators.tomography import fbp, line_integrals, metal_trace, transmit
from invdiff.operators.varying import TiledBlur, Warp, lens_kernels
from invdiff.operators.video import Frames, TemporalPool
from invdiff.operators.weighted import Mixed, Weighted

__all__ = [
    "JPEG",
    "HDR",
    "REC601",
    "Affine",
    "Bayer",
    "Bracket",
    "CameraResponse",
    "ClosureAmplitudes",
    "ClosurePhases",
    "DCTSubsampling",
    "KernelNetworkBlur",
    "SinglePixel",
    "TiledBlur",
    "Warp",
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
    "Fourier",
    "Geometry",
    "FromFunction",
    "FromFunctions",
    "Grayscale",
    "Identity",
    "Inpaint",
    "Interferometry",
    "Decoded",
    "DecodedLinear",
    "Linear",
    "NonCartesian",
    "Matrix",
    "MatrixProduct",
    "Mixed",
    "NonlinearBlur",
    "Operator",
    "PseudoInvertible",
    "Quantize",
    "Radon",
    "PhaseRetrieval",
    "RealFourier",
    "Scaled",
    "ScaledOperator",
    "ScaledPseudoInvertible",
    "ScaledSpectral",
    "Sense",
    "Separable",
    "SeparableBlur",
    "SparseMatrix",
    "Spectral",
    "Stack",
    "Summed",
    "SummedLinear",
    "Transposed",
    "TransposedSpectral",
    "WalshHadamard",
    "TelescopeArray",
    "TemporalPool",
    "Upsample",
    "Weighted",
    "acceleration",
    "affine",
    "as_channels",
    "as_complex",
    "blur",
    "calibration_region",
    "calibration_width",
    "check_kernel",
    "coil_images",
    "conjugate_gradients",
    "density_compensation",
    "dot_test",
    "fbp",
    "equispaced",
    "espirit",
    "fft2c",
    "gaussian_kernel",
    "gaussian_lines",
    "gaussian_points",
    "ifft2c",
    "largest_side",
    "least_squares",
    "limited_angle",
    "line_integrals",
    "metal_trace",
    "motion_kernel",
    "resolve_ambiguity",
    "mvue",
    "mvue_scale",
    "normalised",
    "poisson_disc",
    "radial_uv",
    "random_lines",
    "ring_maps",
    "root_sum_of_squares",
    "earth_rotation",
    "lens_kernels",
    "to_photons",
    "gaussian_kernel",
    "grid_uv",
    "least_squares",
    "low_frequencies",
    "motion_kernel",
    "random_uv",
    "scaled",
    "sparse_view",
    "spiral_uv",
    "transmit",
    "zero_filled",
]
