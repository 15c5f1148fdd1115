"""Named problems: what a task measures, with which solver and knobs it is best solved, and why."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError, Problem
from invdiff.instances import INSTANCES
from invdiff.needs import Need, missing, offers, why_not
from invdiff.noise import Gaussian
from invdiff.operators.base import Linear
from invdiff.operators.jpeg_cells import coarse_error, planes
from invdiff.paths import VE, VP, Karras, Path
from invdiff.solvers import registry, solver_class
from invdiff.solvers.base import Solver
from invdiff.solvers.csgm import CSGM
from invdiff.solvers.daps import DAPS
from invdiff.solvers.ddnm import DDNMPlus
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.ddrm_jpeg import DDRMJPEG
from invdiff.solvers.dds import DDS
from invdiff.solvers.diffpir import DiffPIR
from invdiff.solvers.dps import DPS
from invdiff.solvers.hqs import HQS
from invdiff.solvers.mcg import MCG
from invdiff.solvers.mmps import MMPS
from invdiff.solvers.one_call import OneCall
from invdiff.solvers.pigdm import PiGDM
from invdiff.solvers.pocs import POCS
from invdiff.solvers.reddiff import REDDiff
from invdiff.solvers.replacement import Replacement
from invdiff.solvers.score_medical import ScoreMedical
from invdiff.solvers.score_mri import ScoreMRI
from invdiff.solvers.snips import SNIPS
from invdiff.solvers.spectral_ancestral import SpectralAncestral
from invdiff.solvers.spectral_jpeg import SpectralJPEG
from invdiff.tasks import PHOTO_TASKS, Size
from invdiff.tasks import TASKS as TASKS
from invdiff.tasks import Task as Task
from invdiff.tasks import task as task


def example(name: str, size: Size = (16, 16), sigma: float | None = None) -> Problem:
    """A small instance of a task, for tables and tests: its types decide which solver can.

    name: of a task, or of one of `instances.INSTANCES`, which have a size of their own. sigma: of
    Gaussian noise; without it 0.05, and 0 for tasks whose measurements have none.
    """
    if sigma is None:
        sigma = 0.05 if name not in TASKS or TASKS[name].level else 0.0
    if name in INSTANCES:
        return INSTANCES[name](sigma)
    options: dict[str, Any] = {
        "mask": torch.ones(1, 1, *size),
        "scale": 4,
        "kernel": torch.ones(3, 3) / 9,
        "peak": 100.0,
    }
    kind = task(name)
    options = {**{k: v for k, v in kind.defaults.items() if v != ""}, **options}
    A, noise = kind.operator(size, options), kind.noise(sigma, options, (0.0, 1.0), 1)
    x_shape = (3, *size)
    return Problem(torch.zeros(1, *A.y_shape(x_shape)), A, noise, x_shape)


def columns() -> list[str]:
    """Every task, and every instance that is no task."""
    return list(dict.fromkeys((*TASKS, *INSTANCES)))


def table() -> list[tuple[str, dict[str, str]]]:
    """(solver, {task: "" or why not}) for every solver and task: generated, never kept by hand."""
    rows = []
    for name, cls in registry().items():
        cells = {}
        for t in columns():
            # a solver for noiseless data is judged on noiseless data
            options = [why_not(cls(), example(t, sigma=s)) for s in (0.05, 0.0)]
            cells[t] = min(options, key=len)
        rows.append((name, cells))
    return rows


TYPICAL = 0.1
"""A noise level in the prior's range for which tables show presets that depend on it."""


def preset(task_name: str, solver_name: str, sigma_y: float, size: Size = (256, 256)) -> Solver:
    """The tuned configuration of a solver for a task, else the defaults of its paper.

    sigma_y: noise of the measurement, in the prior's range. size: (H, W) of the image.
    """
    key = (task_name, solver_class(solver_name).name)
    if key in SIZED:
        return SIZED[key](size)
    return TUNED[key](sigma_y) if key in TUNED else solver_class(solver_name)()


def _end(sigma_y: float, usual: float) -> float:
    """Where a path ends: at the measurement's own noise, if that is below the usual end.

    Most solvers leave the last level's error in the result, so that a path that ends above the
    noise of y gives samples that miss y.
    """
    return min(usual, max(sigma_y, 2e-3))


def configured(task_name: str, solver_name: str, problem: Problem) -> Solver:
    """The preset of a solver for a task, at the noise level and the size of a problem."""
    sigma_y = problem.sigma_y if isinstance(problem.noise, Gaussian) else TYPICAL
    size = (int(problem.x_shape[-2]), int(problem.x_shape[-1]))
    found = preset(task_name, solver_name, sigma_y, size)
    if isinstance(found, SpectralAncestral) and task_name == "inpaint" and has_hole(problem):
        return dataclasses.replace(found, path=Karras(*HOLE, 0.01))
    if isinstance(found, POCS) and problem.A.cells:
        level = math.hypot(coarse_error(planes(problem.jpeg, problem.y)), FINE)
        return dataclasses.replace(found, path=VE(2, level, 0.55 * level))
    return found


FINE = 0.015
"""Error of good JPEG files beyond that of their coarse frequencies, as a noise level; found on
photographs that are not reported."""

REACH = 4
"""Pixels from the nearest known one beyond which an unknown one lies in a hole."""


def has_hole(problem: Problem) -> bool:
    """Whether a mask leaves pixels that are far from all that are known."""
    known = problem.A.restrict(torch.ones_like(problem.y[:1])).real.abs().amax(1, keepdim=True)
    near = F.max_pool2d((known > 0).float(), 2 * REACH + 1, 1, REACH)
    return bool((near == 0).any())


def _start(top: float, steps: int, last: float = 0.02) -> Path:
    """The grid of Karras et al. from a level at which the task's unknown part is all noise."""
    return Karras(steps, top, last)


def _noise_path(sigma_y: float, steps: int) -> Path:
    """From just above the measurement's own noise: a denoising problem begins half way."""
    top = 1.001 * max(sigma_y, 1e-3)
    return Karras(steps, top, min(0.02, top / 4))


def _short_snips(sigma_y: float) -> Solver:
    """A chain of 400 steps, whose step size keeps its excess noise near the paper's."""
    return SNIPS(c=0.15, K=2, final="denoised", path=VE(400, 3.0, _end(sigma_y, 0.02)))


def _short_daps(data_std: float, top: float, sigma_y: float) -> Solver:
    """One evaluation a step, in place of the five of its flow, and 60 steps."""
    return DAPS(centre="tweedie", data_std=data_std, path=_start(top, 60, _end(sigma_y, 0.01)))


INFLATION = 1.35
"""Factor on the prior's error spectrum in samples. Details that are drawn from a normal law look
less like an image than the real ones, so later evaluations take a part of them away again. Found on
photographs that are not reported."""

CALIBRATED = {
    "inpaint": (10, 1.0),
    "super-resolution": (14, 3.0),
    "deblur": (14, 3.0),
    "colorize": (20, 10.0),
    "demosaic": (12, 1.0),
    "compressed-sensing": (14, 5.0),
    "mri": (20, 5.0),
    "ct": (20, 5.0),
}
"""Steps and first level of `spectral-ancestral`, by task."""

HOLE = (20, 5.0)
"""The same for masks with pixels that are far from all known ones."""

SPLIT = {
    "inpaint": (60, 1.0, 0.005, "data"),
    "super-resolution": (8, 0.4, 0.02, "data"),
    "deblur": (8, 0.4, 0.02, "data"),
    "demosaic": (30, 0.4, 0.004, "data"),
    "compressed-sensing": (30, 1.0, 0.02, "data"),
    "mri": (30, 1.0, 0.01, "data"),
    "ct": (30, 1.0, 0.01, "data"),
}
"""Steps, first and last level of `hqs`, by task, and what it returns. The last level lies below the
noise of y, else the last data step follows that noise. Colours have none: it settles for one guess,
where the mean of samples averages them."""


def _from_noise(sigma_y: float) -> Path:
    """From the measurement's own noise, which is the first state."""
    top = max(sigma_y, 1e-6)
    return Karras(8, top, min(0.02, top / 4))


def _calibrated(steps: int, top: float) -> Callable[[float], Solver]:
    return lambda s: SpectralAncestral(inflation=INFLATION, path=Karras(steps, top, 0.01))


def _split(steps: int, top: float, last: float, final: str) -> Callable[[float], Solver]:
    return lambda s: HQS(final=final, path=VE(steps, top, last))  # type: ignore[arg-type]


TUNED: dict[tuple[str, str], Callable[[float], Solver]] = {
    ("inpaint", "ddrm"): lambda s: DDRM(eta_prop=1.0, path=_start(5.0, 100, _end(s, 0.01))),
    ("inpaint", "diffpir"): lambda s: DiffPIR(zeta=1.0, path=_start(5.0, 100, _end(s, 0.01))),
    ("inpaint", "mmps"): lambda s: MMPS(path=_start(5.0, 20, _end(s, 0.02))),
    ("inpaint", "pigdm"): lambda s: PiGDM(guidance="paper", path=_start(5.0, 50, _end(s, 0.01))),
    ("super-resolution", "ddrm"): lambda s: DDRM(
        eta_prop=0.95, path=_start(1.0, 20, _end(s, 0.02))
    ),
    ("inpaint", "daps"): lambda s: _short_daps(0.02, 5.0, s),
    ("super-resolution", "daps"): lambda s: _short_daps(0.05, 20.0, s),
    ("super-resolution", "diffpir"): lambda s: DiffPIR(
        zeta=1.0, path=_start(1.0, 20, _end(s, 0.02))
    ),
    ("super-resolution", "ddnm+"): lambda s: DDNMPlus(path=_start(1.0, 20, _end(s, 0.02))),
    ("super-resolution", "dds"): lambda s: DDS(gamma=10.0, path=_start(1.0, 20, _end(s, 0.02))),
    ("super-resolution", "mmps"): lambda s: MMPS(path=_start(3.0, 12, _end(s, 0.02))),
    ("deblur", "ddrm"): lambda s: DDRM(eta_prop=0.95, path=_start(1.0, 20, _end(s, 0.02))),
    ("denoise", "ddrm"): lambda s: DDRM(path=_noise_path(s, 8)),
    ("colorize", "ddrm"): lambda s: DDRM(eta_prop=0.95, path=_start(10.0, 40, _end(s, 0.02))),
    ("deblur", "diffpir"): lambda s: DiffPIR(
        lam=2.0, zeta=1.0, path=_start(0.5, 20, _end(s, 0.02))
    ),
    ("deblur", "daps"): lambda s: _short_daps(0.05, 20.0, s),
    ("deblur", "dds"): lambda s: DDS(gamma=10.0, path=_start(1.0, 20, _end(s, 0.02))),
    ("deblur", "mmps"): lambda s: MMPS(path=_start(3.0, 12, _end(s, 0.02))),
    ("demosaic", "daps"): lambda s: _short_daps(0.02, 5.0, s),
    ("demosaic", "mmps"): lambda s: MMPS(path=_start(3.0, 12, _end(s, 0.01))),
    ("demosaic", "diffpir"): lambda s: DiffPIR(zeta=1.0, path=_start(3.0, 80, _end(s, 0.01))),
    ("demosaic", "ddrm"): lambda s: DDRM(eta_prop=1.0, path=_start(5.0, 40, _end(s, 0.01))),
    ("jpeg", "ddrm-jpeg"): lambda s: DDRMJPEG(path=_start(1.0, 20, _end(s, 0.02))),
    ("jpeg", "pigdm"): lambda s: PiGDM(weight=0.4, path=_start(1.0, 20, _end(s, 0.02))),
    ("hdr", "reddiff"): lambda s: REDDiff(sigma_floor=0.02, path=VP(100)),
    ("compressed-sensing", "diffpir"): lambda s: DiffPIR(
        zeta=1.0, path=_start(5.0, 40, _end(s, 0.02))
    ),
    ("compressed-sensing", "mmps"): lambda s: MMPS(path=_start(3.0, 12, _end(s, 0.01))),
    ("compressed-sensing", "ddrm"): lambda s: DDRM(
        eta_prop=1.0, path=_start(5.0, 40, _end(s, 0.01))
    ),
    ("mri", "dps"): lambda s: DPS(zeta=3.0, path=VP(200)),
    ("mri", "diffpir"): lambda s: DiffPIR(zeta=1.0, path=_start(5.0, 40, _end(s, 0.02))),
    ("mri", "ddrm"): lambda s: DDRM(eta_prop=1.0, path=_start(5.0, 40, _end(s, 0.01))),
    ("mri", "ddnm+"): lambda s: DDNMPlus(path=_start(5.0, 50, _end(s, 0.01))),
    ("mri", "dds"): lambda s: DDS(path=_start(5.0, 50, _end(s, 0.01))),
    ("mri", "pigdm"): lambda s: PiGDM(guidance="paper", path=_start(5.0, 50, _end(s, 0.01))),
    ("mri", "daps"): lambda s: _short_daps(0.05, 20.0, s),
    ("mri", "reddiff"): lambda s: REDDiff(sigma_floor=0.05, path=VP(200)),
    ("mri", "mmps"): lambda s: MMPS(path=_start(5.0, 30, _end(s, 0.02))),
    ("mri", "snips"): lambda s: SNIPS(
        c=0.15, K=1, final="denoised", path=VE(400, 3.0, _end(s, 0.01))
    ),
    ("mri", "score-mri"): lambda s: ScoreMRI(path=VE(75, 20.0, _end(s, 0.01))),
    ("mri", "score-medical"): lambda s: ScoreMedical(
        lam=0.5, final="none", path=_start(20.0, 60, _end(s, 0.02))
    ),
    ("mri", "csgm"): lambda s: CSGM(final="denoised", path=VE(600, 1.232, 0.004)),
    ("ct", "diffpir"): lambda s: DiffPIR(lam=0.5, zeta=1.0, path=_start(20.0, 60, _end(s, 0.02))),
    ("ct", "mmps"): lambda s: MMPS(iterations=12, path=_start(20.0, 30, _end(s, 0.02))),
    ("ct", "daps"): lambda s: _short_daps(0.05, 20.0, s),
    ("ct", "dds"): lambda s: DDS(gamma=10.0, path=_start(20.0, 50, _end(s, 0.01))),
    ("ct", "csgm"): lambda s: CSGM(final="denoised", path=VE(400, 5.0, _end(s, 0.01))),
    ("ct", "pigdm"): lambda s: PiGDM(guidance="paper", path=_start(5.0, 50, _end(s, 0.01))),
    ("ct", "reddiff"): lambda s: REDDiff(sigma_floor=0.05, path=VP(200)),
    ("ct", "score-medical"): lambda s: ScoreMedical(
        lam=0.8, snr=0.45, final="none", path=_start(20.0, 60, _end(s, 0.02))
    ),
    ("ct", "mcg"): lambda s: MCG(
        rho=3.0, weight="pinv", lam=0.8, final="none", path=VP(60, spacing="trailing")
    ),
    ("ct", "dps"): lambda s: DPS(zeta=8.0, path=VP(180, spacing="trailing")),
    ("jpeg", "spectral-jpeg"): lambda s: SpectralJPEG(
        inflation=INFLATION, path=Karras(12, 1.0, 0.01)
    ),
    ("denoise", "spectral-ancestral"): lambda s: SpectralAncestral(
        data="start", inflation=INFLATION, path=_from_noise(s)
    ),
    ("denoise", "one-call"): lambda s: OneCall(refills=2, path=VE(1, max(s, 1e-6), max(s, 1e-6))),
    **{(name, "spectral-ancestral"): _calibrated(*path) for name, path in CALIBRATED.items()},
    **{(name, "hqs"): _split(*path) for name, path in SPLIT.items()},
    **{
        (t.name, "replacement"): lambda s: Replacement(path=_start(20.0, 60, _end(s, 0.02)))
        for t in PHOTO_TASKS
    },
    **{(t.name, "snips"): lambda s: _short_snips(s) for t in PHOTO_TASKS},
}
"""Knobs for photographs were found by trials on those of `benchmarks/tune.py` and
`benchmarks/photographs.py`, on pictures that the prior was not
trained on; those of mri and ct on single slices.

For tasks with few unknowns (super-resolution, deblurring) the grid starts at sigma 1, where the
measurement already fixes the coarse picture; holes and colours need a start above the images' own
contrast. Those of replacement and snips were not searched: they stand in for the 2000 and 2500
evaluations of the papers, with what that costs on normal laws in the solvers' tests.
"""


def _short_mcg(size: Size) -> Solver:
    return MCG(rho=10 * math.sqrt(size[0] * size[1]) / 256, path=VP(100))


SIZED: dict[tuple[str, str], Callable[[Size], Solver]] = {
    ("inpaint", "dps"): lambda size: DPS.short("inpaint", size),
    ("inpaint", "mcg"): _short_mcg,
    ("super-resolution", "dps"): lambda size: DPS.short("super-resolution", size),
    ("super-resolution", "mcg"): _short_mcg,
    ("deblur", "dps"): lambda size: DPS.short("deblur", size),
    ("low-light", "dps"): lambda size: DPS.short("poisson", size),
    ("phase-retrieval", "dps"): lambda size: DPS(
        12 * math.sqrt(size[0] * size[1]) / 256, clip="straight-through", path=VP(150)
    ),
}
"""The same for solvers whose step has a length for the whole image, so that it grows with the side:
100 or 150 steps instead of the paper's 1000."""

FALLBACK = ("dps", "it needs a gradient of the operator alone")
"""What `auto` takes where the measured choice cannot, as where an operator is not linear."""

LATENT = ("psld", "the prior is of latents, and psld uses the encoder too; not measured")
"""What `auto` takes for a prior of latents."""

DRAWS = "its samples agree with the measurement; docs/calibration.md tells how sure they are"
AUTO: dict[str, tuple[str, str]] = {
    "inpaint": ("spectral-ancestral", DRAWS),
    "super-resolution": ("spectral-ancestral", DRAWS),
    "deblur": ("spectral-ancestral", DRAWS),
    "denoise": ("spectral-ancestral", DRAWS),
    "colorize": ("spectral-ancestral", DRAWS),
    "demosaic": ("spectral-ancestral", DRAWS),
    "jpeg": ("spectral-jpeg", "its samples lie in the cells of the file, and are calibrated"),
    "hdr": ("reddiff", "it gains 5 dB over y / gain"),
    "low-light": (
        "dps",
        "it gains 9 dB at 30 photons, 1 dB more than non-local means of the counts",
    ),
    "phase-retrieval": ("dps", "starts from noise, of which one random mask lets most succeed"),
    "compressed-sensing": ("spectral-ancestral", DRAWS),
    "mri": ("spectral-ancestral", DRAWS),
    "ct": ("spectral-ancestral", DRAWS),
}
"""Solver for a task, and why it: as measured by `benchmarks/photographs.py` (docs/photographs.md),
and for mri and ct by `benchmarks/medical.py` (docs/mri.md, docs/ct.md). How holes and colours look
is no number: pictures were looked at."""


def auto(task_name: str, problem: Problem) -> tuple[Solver, str]:
    """The solver that measurements favour for a task, configured for it, and the reason.

    problem: what is to be solved: its operator decides who can, its noise enters the presets.
    """
    name, reason = AUTO[task(task_name).name]
    if Need.AUTOENCODER in offers(problem):
        name, reason = LATENT
    elif missing(solver_class(name)(), problem):
        name, reason = FALLBACK
    return configured(task_name, name, problem), reason


ESTIMATORS: dict[str, tuple[str, str]] = {
    "denoise": ("one-call", "the posterior mean, by one evaluation"),
    "jpeg": ("pocs", "one picture in the cells of the file, by two evaluations"),
    **dict.fromkeys(SPLIT, ("hqs", "one picture, the data and the prior in turns")),
}
"""What makes the one picture that stands for a task, and why it; others have the mean of samples.
As measured by `benchmarks/calibration.py` (docs/calibration.md)."""


def estimator(task_name: str, problem: Problem) -> tuple[Solver, str] | None:
    """The deterministic method for the best single picture of a task, configured, and the reason.

    None where there is none: then the mean of samples, or what the task takes for it, stands.
    """
    if task_name not in ESTIMATORS or Need.AUTOENCODER in offers(problem):
        return None
    name, reason = ESTIMATORS[task_name]
    found = configured(task_name, name, problem)
    return None if missing(found, problem) else (found, reason)


def wiener(problem: Problem, constant: float) -> Tensor:
    """(A^T A + constant)^-1 A^T y: the Wiener filter for white images, whatever the operator."""
    A = problem.A
    if not isinstance(A, Linear):
        raise InvdiffError(f"A Wiener filter needs a linear operator, found {type(A).__name__}.")
    return A.ridge(problem.y, constant)
