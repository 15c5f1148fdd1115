"""Configurations of solvers that several tasks share, by the noise and the size of a problem.

Those for photographs were found by trials on the photographs of `benchmarks/tune.py` and
`benchmarks/photographs.py`, on pictures that the prior was not trained on; those of mri and ct on
single slices. For tasks with few unknowns (super-resolution, deblurring) the grid starts at sigma
1, where the measurement already fixes the coarse picture; holes and colours need a start above the
images' own contrast. Those of replacement and snips were not searched: they stand in for the 2000
and 2500 evaluations of the papers, with what that costs on normal laws in the solvers' tests.
"""

from __future__ import annotations

from typing import Literal

import torch

from invdiff.core import nearest
from invdiff.core.schedules import VE, VP, Karras, Schedule
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Linear
from invdiff.problem import Problem
from invdiff.sampling.solver import Solver
from invdiff.solvers.daps import DAPS
from invdiff.solvers.dps import DPS
from invdiff.solvers.hqs import HQS
from invdiff.solvers.mcg import MCG
from invdiff.solvers.replacement import Replacement
from invdiff.solvers.snips import SNIPS
from invdiff.solvers.spectral_ancestral import SpectralAncestral
from invdiff.tasks.base import Preset, shorter
from invdiff.tasks.validity import has_gaps, has_hole

TYPICAL = 0.1
"""A noise level in the prior's range for problems whose noise is not Gaussian."""
DRAWS = "its samples agree with the measurement; docs/calibration.md tells how sure they are"
SPLITS = "one picture, the data and the prior in turns"
INFLATION = 1.35
"""Factor on the prior's error spectrum in samples. Details that are drawn from a normal law look
less like an image than the real ones, so later evaluations take a part of them away again. Found on
photographs that are not reported."""
INFLATION_IN_MODES = 1.7
"""The same where the gradients of a step are preconditioned in cosine modes, and end nearer to the
solution. Of those tried in `benchmarks/inflation.py`, 1.35 and 1.7, and 2.1 for deblurring: with it
intervals of 90 % hold a little less, those of 50 % a little more; 2.1 makes both hold more, and
single samples 0.3 dB worse."""


def sigma_of(problem: Problem) -> float:
    """The noise of a measurement, in the prior's range."""
    return problem.sigma_y if isinstance(problem.noise, GaussianNoise) else TYPICAL


def side_of(problem: Problem) -> float:
    """The side of the square that has the pixels of the image."""
    return shorter((int(problem.x_shape[-2]), int(problem.x_shape[-1])))


def end(problem: Problem, usual: float) -> float:
    """Where a schedule ends: at the measurement's own noise, if that is below the usual end.

    Most solvers leave the last level's error in the result, so that a schedule that ends above the
    noise of y gives samples that miss y.
    """
    return min(usual, max(sigma_of(problem), 2e-3))


def start(problem: Problem, top: float, steps: int, last: float = 0.02) -> Schedule:
    """The grid of Karras et al. from a level at which the task's unknown part is all noise."""
    return Karras(steps, top, end(problem, last))


def noise_schedule(problem: Problem, steps: int) -> Schedule:
    """From just above the measurement's own noise: a denoising problem begins half way."""
    top = 1.001 * max(sigma_of(problem), 1e-3)
    return Karras(steps, top, min(0.02, top / 4))


def tells_modes(problem: Problem) -> bool:
    """Whether A tells what it does to cosine modes, as blurs and reductions of whole images do."""
    like = torch.ones(1, *problem.x_shape)
    return isinstance(problem.A, Linear) and problem.A.cosine_power(like) is not None


FEW, HOLE = (10, 1.0), (20, 5.0)
"""Steps and first level of the sampler for photographs with scattered unknown pixels, and with
pixels far from all that are known."""
FILLED = 1.0
"""First level of `hqs` for photographs with unknown pixels."""


def calibrated(steps: int, top: float, modes: bool = False) -> Preset:
    """`spectral-ancestral` in so many steps from a level; from a higher one where the photo has a
    hole. modes: whether its gradients are preconditioned, where A tells its `cosine_power`."""
    schedule = Karras(steps, top, 0.01)

    def make(problem: Problem) -> Solver:
        far = top < HOLE[1] and has_hole(problem)
        told = modes and tells_modes(problem)
        return SpectralAncestral(
            inflation=INFLATION_IN_MODES if told else INFLATION,
            preconditioner="modes" if told else "none",
            schedule=Karras(*HOLE, 0.01) if far else schedule,
        )

    return Preset("spectral-ancestral", make, source="calibration.md")


NEARLY = 0.03
"""How far from its end an iterative data step of a blur may stop, in deviations of its image. The
1e-3 of the right side that operators take by themselves makes samples of `diffpir` 4 dB worse at a
noise of 0.004, and 16 dB at 0.002; a tenth 0.1 dB at 0.02 (`benchmarks/data_steps.py`)."""


def split(steps: int, top: float, last: float, lam: float = 0.23, tol: float = 0.0) -> Preset:
    """`hqs` in so many steps between two levels, more of them where pixels are unknown. The last
    level lies below the noise of y, else the last data step follows that noise. The start is found
    in cosine modes where nothing is unknown: what it fills in wants to be nearer to its end."""

    def make(problem: Problem) -> Solver:
        more = top < FILLED and has_gaps(problem)
        schedule = VE(2 * steps, FILLED, last) if more else VE(steps, top, last)
        whole = tells_modes(problem) and not has_gaps(problem)
        way: Literal["modes", "none"] = "modes" if whole else "none"
        return HQS(lam, "data", preconditioner=way, tol=tol, schedule=schedule)

    return Preset("hqs", make, source="calibration.md")


def daps(data_std: float, top: float, steps: int = 60, last: float = 0.01) -> Preset:
    """One evaluation a step, in place of the five of its flow."""
    return Preset(
        "daps",
        lambda p: DAPS(centre="tweedie", data_std=data_std, schedule=start(p, top, steps, last)),
    )


def mcg() -> Preset:
    """Its step has a length for the whole image, so that it grows with the side; 100 steps."""
    return Preset("mcg", lambda p: MCG(rho=10 * side_of(p) / 256, schedule=VP(100)))


STEPS_OF_DPS = {
    "super-resolution": 20.0,
    "deblur": 20.0,
    "inpaint": 16.0,
    "poisson": 20.0,
    "hdr": 8.0,
    "nonlinear-blur": 20.0,
    "phase-retrieval": 12.0,
}
"""zeta for 100 steps and images of 256 x 256, from trials with the photo prior on crops of 64 and
128 pixels; "hdr" is for the straight-through gradient, "phase-retrieval" for random masks."""


def short_dps(kind: str, size: tuple[int, int], steps: int = 100) -> DPS:
    """100 steps or so, where the paper has 1000, for a name of STEPS_OF_DPS.

    size: (H, W) of the images. The step of a norm has a length for the whole image, so that the
    same change of each pixel needs a zeta that grows with the side; and zeta falls with steps.
    """
    if kind not in STEPS_OF_DPS:
        raise nearest(kind, STEPS_OF_DPS, "short configuration of DPS")
    return DPS(STEPS_OF_DPS[kind] * shorter(size) / 256 * 100 / steps, schedule=VP(steps))


def dps(kind: str) -> Preset:
    """The same as a preset."""
    return Preset("dps", lambda p: short_dps(kind, (p.x_shape[-2], p.x_shape[-1])))


REPLACEMENT = Preset("replacement", lambda p: Replacement(schedule=start(p, 20.0, 60, 0.02)))
SHORT_SNIPS = Preset(
    "snips",
    lambda p: SNIPS(c=0.15, K=2, final="denoised", schedule=VE(400, 3.0, end(p, 0.02))),
)
"""A chain of 400 steps, whose step size keeps its excess noise near the paper's."""
EVERY_PHOTO = (REPLACEMENT, SHORT_SNIPS)
"""Presets that all tasks of photographs share."""
