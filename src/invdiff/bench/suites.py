"""The measurements of published comparisons, each with the noise on the scale of its code.

Images are colour pictures on [-1, 1], and noise is added on that range, to unrounded values. Papers
that speak of 0.05 differ by a factor of two: the codes of DPS and DAPS add it on [-1, 1]; those of
DDRM (runners/diffusion.py: sigma_0 is doubled) and DiffPIR mean [0, 1], which is 0.1 here. What a
suite leaves out is told by its text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from invdiff.core.rng import Rng
from invdiff.operators.algebra import Operator
from invdiff.operators.algebra.spectral import Identity
from invdiff.operators.blur import blur
from invdiff.operators.blur_kernels import gaussian_kernel
from invdiff.operators.downsample import AveragePool, Bicubic
from invdiff.operators.hdr import HDR
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.phase import PhaseRetrieval

Size = tuple[int, int]


@dataclass(frozen=True)
class SuiteCase:
    """A measurement. operator(size, seed): of an image; what is random in it comes from the seed.

    task: the one whose presets solvers take. sigma: standard deviation of the noise, images on
    [-1, 1].
    """

    name: str
    task: str
    operator: Callable[[Size, int], Operator]
    sigma: float = 0.05


@dataclass(frozen=True)
class Suite:
    """Measurements that were published together. about: what of them is meant, what is left out."""

    about: str
    cases: tuple[SuiteCase, ...]


def _uniform(seed: int, name: str, low: float, high: float) -> float:
    import torch

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
    return blur(gaussian_kernel(3.0), size, "reflect")


def _bicubic(size: Size, seed: int) -> Operator:
    return Bicubic(4, size)


def _linear(sigma: float, low: float, high: float) -> tuple[SuiteCase, ...]:
    return (
        SuiteCase("super-resolution", "super-resolution", _bicubic, sigma),
        SuiteCase("box", "inpaint", _box, sigma),
        SuiteCase("random", "inpaint", _random(low, high), sigma),
        SuiteCase("gaussian", "deblur", _gaussian, sigma),
    )


def _pool(factor: int, sigma: float) -> SuiteCase:
    name = f"average-{factor}" + ("-noise" if sigma else "")
    return SuiteCase(name, "super-resolution", lambda size, seed: AveragePool(factor, size), sigma)


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
        "of the pixels missing. Left out: motion blur and nonlinear blur, whose kernels and "
        "network are other people's files.",
        (*_linear(0.05, 0.3, 0.7),
         SuiteCase("phase-retrieval", "phase-retrieval", lambda size, seed: PhaseRetrieval(2.0))),
    ),
    "daps": Suite(
        "The tasks of Zhang et al. 2025 (DAPS, arXiv 2407.01521): 70 to 71 % of the pixels are "
        "missing, phase retrieval of images on [0, 1]. Left out: motion blur and nonlinear blur; "
        "the best of four runs, which DAPS reports of phase retrieval.",
        (*_linear(0.05, 0.7, 0.71),
         SuiteCase("phase-retrieval", "phase-retrieval",
              lambda size, seed: PhaseRetrieval(2.0, unit_range=True)),
         SuiteCase("hdr", "hdr", lambda size, seed: HDR(2.0))),
    ),
    "diffpir": Suite(
        "Zhu et al. 2023 (DiffPIR, arXiv 2305.08995) with noise of 12.75/255 on [0, 1]. Left out: "
        "motion blur, and its inpainting without noise.",
        (SuiteCase("gaussian", "deblur", _gaussian, 0.1),
         SuiteCase("super-resolution", "super-resolution", _bicubic, 0.1)),
    ),
    "ddrm": Suite(
        "Super-resolution of block means of Kawar et al. 2022 (DDRM, arXiv 2201.11793), without "
        "noise and with 0.05 on [0, 1], which is 0.1 here. Left out: its blurs and its "
        "colorization.",
        tuple(_pool(factor, sigma) for sigma in (0.0, 0.1) for factor in (2, 4, 8)),
    ),
}  # fmt: skip
"""By name."""
