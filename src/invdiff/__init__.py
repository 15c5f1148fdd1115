"""invdiff: recover images from measurements with a diffusion prior.

Public names are loaded when they are first used, so that `invdiff --help` need not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "invdiff.core": ("Case", "InvdiffError", "Level", "Problem", "State"),
    "invdiff.paths": ("VE", "VP", "VPSDE", "Flow", "Karras", "Path", "Stairs", "SubVP"),
    "invdiff.noise": (
        "NOISELESS",
        "CorrelatedGaussian",
        "DiagonalGaussian",
        "Estimate",
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
    ),
    "invdiff.rng": ("Rng",),
    "invdiff.operators": (
        "Affine",
        "AveragePool",
        "Bayer",
        "Bicubic",
        "BlockSensing",
        "Bracket",
        "CameraResponse",
        "CircularBlur",
        "ClosureAmplitudes",
        "ClosurePhases",
        "DCTSubsampling",
        "Frames",
        "CodedDiffraction",
        "Decoded",
        "DecodedLinear",
        "Fourier",
        "Geometry",
        "Grayscale",
        "HDR",
        "Identity",
        "Inpaint",
        "JPEG",
        "Interferometry",
        "KernelNetworkBlur",
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
        "Sense",
        "SinglePixel",
        "SparseMatrix",
        "Spectral",
        "Stack",
        "WalshHadamard",
        "TemporalPool",
        "TelescopeArray",
        "TiledBlur",
        "Upsample",
        "Warp",
        "Weighted",
        "affine",
        "blur",
        "dot_test",
        "earth_rotation",
        "fbp",
        "gaussian_kernel",
        "lens_kernels",
        "limited_angle",
        "line_integrals",
        "metal_trace",
        "motion_kernel",
        "radial_uv",
        "resolve_ambiguity",
        "scaled",
        "sparse_view",
        "to_photons",
        "spiral_uv",
        "transmit",
        "whitened",
    ),
    "invdiff.priors.adapters": ("from_eps_model", "from_k_diffusion", "from_deepinv"),
    "invdiff.priors.base": ("Denoiser", "Prior"),
    "invdiff.priors.channels": ("PerChannel",),
    "invdiff.priors.gaussian": ("GaussianMixture",),
    "invdiff.priors.hub": ("load_diffusers",),
    "invdiff.priors.latent": ("LatentPrior", "in_latent_space"),
    "invdiff.priors.likelihood": ("ProbabilityFlow",),
    "invdiff.priors.bound": ("Bound",),
    "invdiff.priors.load": ("load_prior",),
    "invdiff.priors.units": ("hu_to_x", "x_to_hu"),
    "invdiff.needs": ("IncompatibleError", "Need", "check"),
    "invdiff.solvers": ("Solver", "registry"),
    "invdiff.solvers.ccdf": ("CCDF",),
    "invdiff.solvers.csgm": ("CSGM",),
    "invdiff.solvers.daps": ("DAPS",),
    "invdiff.solvers.ddnm": ("DDNM", "DDNMPlus"),
    "invdiff.solvers.ddrm": ("DDRM",),
    "invdiff.solvers.hqs": ("HQS",),
    "invdiff.solvers.one_call": ("OneCall",),
    "invdiff.solvers.pocs": ("POCS",),
    "invdiff.solvers.spectral_ancestral": ("SpectralAncestral",),
    "invdiff.solvers.spectral_jpeg": ("SpectralJPEG",),
    "invdiff.checks": ("Check",),
    "invdiff.solvers.ddrm_jpeg": ("DDRMJPEG",),
    "invdiff.solvers.dds": ("DDS",),
    "invdiff.solvers.diffpir": ("DiffPIR",),
    "invdiff.solvers.dps": ("DPS",),
    "invdiff.solvers.ilvr": ("ILVR",),
    "invdiff.solvers.latino": ("LATINO",),
    "invdiff.solvers.mcg": ("MCG",),
    "invdiff.solvers.mmps": ("MMPS",),
    "invdiff.solvers.pigdm": ("PiGDM",),
    "invdiff.solvers.psld": ("PSLD",),
    "invdiff.solvers.pyramid": ("Pyramid",),
    "invdiff.solvers.reddiff": ("REDDiff",),
    "invdiff.solvers.replacement": ("Replacement",),
    "invdiff.solvers.resample": ("ReSample",),
    "invdiff.solvers.score_medical": ("ScoreMedical", "ScoreMedicalBaseline"),
    "invdiff.solvers.snips": ("SNIPS",),
    "invdiff.solvers.score_mri": ("ScoreMRI",),
    "invdiff.solvers.score_prior": ("ScorePrior",),
    "invdiff.solvers.unconditional": ("Unconditional",),
    "invdiff.solvers.video_guidance": ("VideoGuidance",),
    "invdiff.restoration.api": ("restore",),
    "invdiff.restoration.restored": ("Restoration",),
    "invdiff.result": ("Result",),
    "invdiff.run": ("DivergedError", "Snapshot", "again", "solve", "stream"),
    "invdiff.metrics": ("align", "best_by_residual", "psnr", "ssim"),
    "invdiff.scans": (
        "KSpace",
        "NonCartesianKSpace",
        "Sinogram",
        "centre_of_rotation",
        "read_dicom",
        "read_kspace",
        "read_noncartesian",
        "read_sinogram",
        "read_tiff",
        "write_tiff",
    ),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}
_RENAMED = {
    "GaussianNoise": ("invdiff.noise", "Gaussian"),
    "GaussianPrior": ("invdiff.priors.gaussian", "Gaussian"),
}

__all__ = ["__version__", *sorted((*_WHERE, *_RENAMED))]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        module, name = _RENAMED[name]
        return getattr(importlib.import_module(module), name)
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'invdiff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


if TYPE_CHECKING:
    from invdiff.core import Case as Case
    from invdiff.core import InvdiffError as InvdiffError
    from invdiff.core import Level as Level
    from invdiff.core import Problem as Problem
    from invdiff.core import State as State
    from invdiff.noise import Gaussian as GaussianNoise
    from invdiff.paths import VE as VE
    from invdiff.paths import VP as VP
    from invdiff.priors.base import Prior as Prior
    from invdiff.priors.gaussian import Gaussian as GaussianPrior
    from invdiff.result import Result as Result
    from invdiff.rng import Rng as Rng
    from invdiff.run import solve as solve
    from invdiff.run import stream as stream

    _ = (GaussianNoise, GaussianPrior)
