"""The measurements of published comparisons, each with the noise on the scale of its code.

Images are on [-1, 1], and noise is added on that range, to unrounded values. Papers that speak of
0.05 differ by a factor of two: the codes of DPS and DAPS add it on [-1, 1]; those of DDRM
(runners/diffusion.py: sigma_0 is doubled) and DiffPIR mean [0, 1], which is 0.1 here. What a suite
leaves out, or has of ours in place of other people's files, is told by its text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from invdiff.bench.kernels import KERNEL, motion, published_side
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.operators.algebra import Operator
from invdiff.operators.algebra.spectral import Identity
from invdiff.operators.blur import blur
from invdiff.operators.blur_kernels import gaussian_kernel
from invdiff.operators.color import Grayscale
from invdiff.operators.downsample import AveragePool, Bicubic
from invdiff.operators.hdr import HDR
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.mri import Fourier, RealFourier
from invdiff.operators.phase import PhaseRetrieval
from invdiff.operators.radon import Radon
from invdiff.operators.sampling import equispaced
from invdiff.operators.separable_blur import SeparableBlur
from invdiff.scans.problems import ITERATIONS

Size = tuple[int, int]
VIEWS = 23
"""Projections of CT in the configurations of Song et al. 2022 (configs/default_cs_configs.py)."""


@dataclass(frozen=True)
class SuiteCase:
    """A measurement. operator(size, seed): of an image; what is random in it comes from the seed.

    task: the one whose presets solvers take. sigma: standard deviation of the noise, images on
    [-1, 1]. moves: of a motion blur, what lies beyond the edge; else empty. of_complex: the
    operator of complex images, where it is another one.
    """

    name: str
    task: str
    operator: Callable[[Size, int], Operator]
    sigma: float = 0.05
    moves: str = ""
    of_complex: Callable[[Size, int], Operator] | None = None


@dataclass(frozen=True)
class Suite:
    """Measurements that were published together. about: what of them is meant, what is left out.

    prior: what is taken where none is named. channels: that a prior of it may have: 3 of colour, 1
    of grey, 2 of complex images. scans: whether images may be scans too.
    """

    about: str
    cases: tuple[SuiteCase, ...]
    prior: str = "photo"
    channels: tuple[int, ...] = (3,)
    scans: bool = False


def with_kernels(suite: Suite, files: Sequence[Path]) -> Suite:
    """The suite with kernels of files in place of random ones: one for each image, by its seed.

    Raises InvdiffError where no case is a motion blur.
    """
    if not any(case.moves for case in suite.cases):
        raise InvdiffError("The suite has no motion blur; leave --kernels out.")
    cases = (
        dataclasses.replace(case, operator=motion(case.moves, files)) if case.moves else case
        for case in suite.cases
    )
    return dataclasses.replace(suite, cases=tuple(cases))


def _uniform(seed: int, name: str, low: float, high: float) -> float:
    share = float(Rng.of(seed).uniform(torch.empty(1, 1), name))
    return low + (high - low) * share


def _random(low: float, high: float) -> Callable[[Size, int], Operator]:
    """A share of the pixels is missing, uniform on [low, high), in all channels."""

    def make(size: Size, seed: int) -> Operator:
        return Inpaint.random(size, 1 - _uniform(seed, "share", low, high), seed)

    return make


def _box(size: Size, seed: int) -> Operator:
    """A box of half of the side, 1/16 of the side or more from the border: 128 of 256 pixels."""
    height, width = size[0] // 2, size[1] // 2
    corner = []
    for n, side, name in ((size[0], height, "top"), (size[1], width, "left")):
        margin = n // 16
        last = n - side - margin
        corner.append(min(last - 1, int(_uniform(seed, name, margin, last))))
    return Inpaint.box(size, corner[0], corner[1], height, width)


def _gaussian(size: Size, seed: int) -> Operator:
    """Standard deviation 3, mirrored at the edge, which is not repeated (ReflectionPad2d)."""
    return blur(gaussian_kernel(3.0), size, "mirror")


def _wide(size: Size, seed: int) -> Operator:
    """Standard deviation 3 to 9 by the seed, cut to the published side, of an image that repeats:
    main_ddpir_deblur.py of DiffPIR."""
    kernel = gaussian_kernel(_uniform(seed, "width", 3.0, 9.0))
    cut = max(0, (kernel.shape[0] - published_side(size)) // 2)
    kernel = kernel[cut : kernel.shape[0] - cut, cut : kernel.shape[1] - cut]
    return blur(kernel / kernel.sum(), size, "circular")


def _bicubic(size: Size, seed: int) -> Operator:
    return Bicubic(4, size)


def _moved(boundary: str, sigma: float) -> SuiteCase:
    return SuiteCase("motion", "deblur", motion(boundary), sigma, boundary)


def _linear(sigma: float, low: float, high: float) -> tuple[SuiteCase, ...]:
    return (
        SuiteCase("super-resolution", "super-resolution", _bicubic, sigma),
        SuiteCase("box", "inpaint", _box, sigma),
        SuiteCase("random", "inpaint", _random(low, high), sigma),
        SuiteCase("gaussian", "deblur", _gaussian, sigma),
        _moved("mirror", sigma),
    )


def _bell(width: float, reach: int) -> Tensor:
    """Gaussian taps at -reach to reach, of sum 1."""
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1).double() / width) ** 2)
    return taps / taps.sum()


BLURS = {
    "uniform": (torch.full((9,), 1 / 9, dtype=torch.float64),) * 2,
    "gaussian": (_bell(10.0, 2),) * 2,
    "anisotropic": (_bell(1.0, 4), _bell(20.0, 4)),
}
"""Taps along the height and the width of the blurs of DDRM (runners/diffusion.py)."""
GREY = (0.3333, 0.3334, 0.3333)
"""Weights of the colours in DDRM's colorization (functions/svd_replacement.py)."""


def _ddrm(sigma: float) -> tuple[SuiteCase, ...]:
    """Block means, blurs whose image is 0 beyond its edge, and grey of colours."""
    end = "-noise" if sigma else ""

    def pool(factor: int) -> SuiteCase:
        task = "super-resolution"
        return SuiteCase(
            f"average-{factor}{end}", task, lambda size, seed: AveragePool(factor, size), sigma
        )

    def blurred(name: str) -> SuiteCase:
        rows, columns = BLURS[name]
        return SuiteCase(
            f"{name}{end}",
            "deblur",
            lambda size, seed: SeparableBlur(rows, columns, size, "zero"),
            sigma,
        )

    grey = SuiteCase(f"color{end}", "colorize", lambda size, seed: Grayscale(GREY), sigma)
    return (*map(pool, (2, 4, 8)), *map(blurred, BLURS), grey)


@lru_cache(maxsize=2)
def _ct(size: Size, seed: int = 0) -> Operator:
    """VIEWS parallel projections of norm 1, at the angles of get_ct_subsampling_mask in cs.py of
    yang-song/score_inverse_problems: of as many as the image has rows over 180 degrees, the nearest
    to equal steps from the first to the last."""
    rows = [round(k * (size[0] - 1) / (VIEWS - 1)) for k in range(VIEWS)]
    A = Radon(tuple(180 * row / size[0] for row in rows), size)
    return dataclasses.replace(A, pixel=1 / A.norm((1, *size)), cg_iterations=ITERATIONS)


def _columns(size: Size, acceleration: int) -> Tensor:
    """The columns of get_cartesian_mask in cs.py of yang-song/score_inverse_problems: of W about
    n = W / acceleration, n W / 1000 of them in the middle."""
    width = size[1]
    kept = round(width / acceleration)
    return equispaced(size, width / kept, round(width * kept / 1000))


def _mri(acceleration: int) -> SuiteCase:
    return SuiteCase(
        f"mri-{acceleration}",
        "mri",
        lambda size, seed: RealFourier(_columns(size, acceleration)),
        0.0,
        of_complex=lambda size, seed: Fourier(_columns(size, acceleration)),
    )


SAME_FIGURES = (
    "Images are one channel; PSNR and SSIM of one sample are those of its code without a region of "
    "interest (images clipped to their range, SSIM of 11 Gaussian taps of 1.5), which takes means "
    "of blocks first where both sides have 384 pixels or more. Left out: figures within a disc and "
    "after its histograms are matched, and metal artefacts. "
)
STAND_IN = (
    f"The kernels of its motion blur come from other people's generator; in their place stand "
    f"random paths of ours, of {KERNEL} x {KERNEL} pixels or what fits, so that figures of motion "
    "blur do not compare with published ones; --kernels takes files of yours. "
)
SUITES = {
    "small": Suite(
        "Three measurements to try solvers with: noise of 0.2, half of the pixels, bicubic x4.",
        (
            SuiteCase("denoise", "denoise", lambda size, seed: Identity(), 0.2),
            SuiteCase("half", "inpaint", _random(0.5, 0.5)),
            SuiteCase("super-resolution", "super-resolution", _bicubic),
        ),
    ),
    "dps": Suite(
        "The tasks of Chung et al. 2023 (DPS, arXiv 2209.14687) as its code has them: 30 to 70 % "
        f"of the pixels missing. {STAND_IN}Left out: nonlinear blur, whose network is other "
        "people's.",
        (*_linear(0.05, 0.3, 0.7),
         SuiteCase("phase-retrieval", "phase-retrieval", lambda size, seed: PhaseRetrieval(2.0))),
    ),
    "daps": Suite(
        "The tasks of Zhang et al. 2025 (DAPS, arXiv 2407.01521): 70 to 71 % of the pixels are "
        f"missing, phase retrieval of images on [0, 1]. {STAND_IN}Left out: nonlinear blur; the "
        "best of four runs, which DAPS reports of phase retrieval.",
        (*_linear(0.05, 0.7, 0.71),
         SuiteCase("phase-retrieval", "phase-retrieval",
              lambda size, seed: PhaseRetrieval(2.0, unit_range=True)),
         SuiteCase("hdr", "hdr", lambda size, seed: HDR(2.0))),
    ),
    "diffpir": Suite(
        "Zhu et al. 2023 (DiffPIR, arXiv 2305.08995) with noise of 12.75/255 on [0, 1]: blur of "
        "images that repeat, Gaussian of 3 to 9 pixels by the image, bicubic x4, and without "
        f"noise a box of half of the side or half of the pixels. {STAND_IN}Its code rounds the "
        "blurred picture to 8 bits before noise is added; here it is not rounded.",
        (SuiteCase("gaussian", "deblur", _wide, 0.1),
         _moved("circular", 0.1),
         SuiteCase("super-resolution", "super-resolution", _bicubic, 0.1),
         SuiteCase("box", "inpaint", _box, 0.0),
         SuiteCase("random", "inpaint", _random(0.5, 0.5), 0.0)),
    ),
    "ddrm": Suite(
        "Kawar et al. 2022 (DDRM, arXiv 2201.11793), without noise and with 0.05 on [0, 1], which "
        "is 0.1 here: block means, three separable blurs of an image that is 0 beyond its edge, "
        "and colorization of the mean of the colours. Blurs have all their taps and all their "
        "singular values: its code leaves out the last tap of each, and cuts singular values below "
        "0.03, so that figures of blurs do not compare with its own.",
        (*_ddrm(0.0), *_ddrm(0.1)),
    ),
    "medical-ct": Suite(
        f"CT of Song et al. 2022 (arXiv 2111.08005): {VIEWS} parallel projections without noise, "
        f"at the angles of its code. {SAME_FIGURES}Its code makes and inverts projections in "
        "Fourier space; here they are line integrals (Joseph 1982), and A^+ is least squares.",
        (SuiteCase(f"ct-{VIEWS}", "ct", _ct, 0.0),),
        "ct", (1,), True,
    ),
    "medical-mri": Suite(
        "MRI of Song et al. 2022 (arXiv 2111.08005): equispaced columns of the k-space of real "
        "images, without noise. x8 is its configuration brats_ncsnpp_continuous (30 of 240 "
        f"columns), x4 and x24 follow from the same rule. {SAME_FIGURES}With a prior of complex "
        "images the image is the real part, nothing is known of the phase, and magnitudes are "
        "compared.",
        tuple(map(_mri, (4, 8, 24))),
        "brain-magnitude", (1, 2), True,
    ),
}  # fmt: skip
"""By name."""
