"""Named problems: what a task measures, with which solver and knobs it is best solved, and why."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from invdiff.core import InvdiffError, Problem
from invdiff.instances import INSTANCES
from invdiff.needs import Need, missing, offers, why_not
from invdiff.noise import Gaussian
from invdiff.operators.base import Linear
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
from invdiff.solvers.mcg import MCG
from invdiff.solvers.mmps import MMPS
from invdiff.solvers.pigdm import PiGDM
from invdiff.solvers.reddiff import REDDiff
from invdiff.solvers.replacement import Replacement
from invdiff.solvers.score_medical import ScoreMedical
from invdiff.solvers.score_mri import ScoreMRI
from invdiff.solvers.snips import SNIPS
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


def configured(task_name: str, solver_name: str, problem: Problem) -> Solver:
    """The preset of a solver for a task, at the noise level and the size of a problem."""
    sigma_y = problem.sigma_y if isinstance(problem.noise, Gaussian) else TYPICAL
    size = (int(problem.x_shape[-2]), int(problem.x_shape[-1]))
    return preset(task_name, solver_name, sigma_y, size)


def _start(top: float, steps: int, last: float = 0.02) -> Path:
    """The grid of Karras et al. from a level at which the task's unknown part is all noise."""
    return Karras(steps, top, last)


def _noise_path(sigma_y: float, steps: int) -> Path:
    """From just above the measurement's own noise: a denoising problem begins half way."""
    top = 1.001 * max(sigma_y, 1e-3)
    return Karras(steps, top, min(0.02, top / 4))


def _short_snips() -> Solver:
    """A chain of 400 steps, whose step size keeps its excess noise near the paper's."""
    return SNIPS(c=0.15, K=2, final="denoised", path=VE(400, 3.0, 0.02))


def _short_daps(data_std: float, top: float) -> Solver:
    """One evaluation a step, in place of the five of its flow, and 60 steps."""
    return DAPS(centre="tweedie", data_std=data_std, path=_start(top, 60, 0.01))


TUNED: dict[tuple[str, str], Callable[[float], Solver]] = {
    ("inpaint", "ddrm"): lambda s: DDRM(eta_prop=1.0, path=_start(5.0, 100, 0.01)),
    ("inpaint", "diffpir"): lambda s: DiffPIR(zeta=1.0, path=_start(5.0, 100, 0.01)),
    ("inpaint", "mmps"): lambda s: MMPS(path=_start(5.0, 20)),
    ("inpaint", "pigdm"): lambda s: PiGDM(path=_start(5.0, 50, 0.01)),
    ("super-resolution", "ddrm"): lambda s: DDRM(eta_prop=0.95, path=_start(1.0, 20)),
    ("inpaint", "daps"): lambda s: _short_daps(0.02, 5.0),
    ("super-resolution", "daps"): lambda s: _short_daps(0.05, 20.0),
    ("super-resolution", "diffpir"): lambda s: DiffPIR(zeta=1.0, path=_start(1.0, 20)),
    ("super-resolution", "ddnm+"): lambda s: DDNMPlus(path=_start(1.0, 20)),
    ("super-resolution", "dds"): lambda s: DDS(gamma=10.0, path=_start(1.0, 20)),
    ("super-resolution", "mmps"): lambda s: MMPS(path=_start(3.0, 12)),
    ("deblur", "ddrm"): lambda s: DDRM(eta_prop=0.95, path=_start(1.0, 20)),
    ("denoise", "ddrm"): lambda s: DDRM(path=_noise_path(s, 8)),
    ("colorize", "ddrm"): lambda s: DDRM(eta_prop=0.95, path=_start(10.0, 40)),
    ("deblur", "diffpir"): lambda s: DiffPIR(lam=2.0, zeta=1.0, path=_start(0.5, 20)),
    ("deblur", "daps"): lambda s: _short_daps(0.05, 20.0),
    ("deblur", "dds"): lambda s: DDS(gamma=10.0, path=_start(1.0, 20)),
    ("deblur", "mmps"): lambda s: MMPS(path=_start(3.0, 12)),
    ("demosaic", "daps"): lambda s: _short_daps(0.02, 5.0),
    ("demosaic", "mmps"): lambda s: MMPS(path=_start(3.0, 12, 0.01)),
    ("demosaic", "diffpir"): lambda s: DiffPIR(zeta=1.0, path=_start(3.0, 80, 0.01)),
    ("demosaic", "ddrm"): lambda s: DDRM(eta_prop=1.0, path=_start(5.0, 40, 0.01)),
    ("jpeg", "ddrm-jpeg"): lambda s: DDRMJPEG(path=_start(1.0, 20)),
    ("jpeg", "pigdm"): lambda s: PiGDM(weight=0.4, path=_start(1.0, 20)),
    ("hdr", "reddiff"): lambda s: REDDiff(sigma_floor=0.02, path=VP(100)),
    ("compressed-sensing", "diffpir"): lambda s: DiffPIR(zeta=1.0, path=_start(5.0, 40)),
    ("compressed-sensing", "mmps"): lambda s: MMPS(path=_start(3.0, 12, 0.01)),
    ("compressed-sensing", "ddrm"): lambda s: DDRM(eta_prop=1.0, path=_start(5.0, 40, 0.01)),
    ("mri", "dps"): lambda s: DPS(zeta=3.0, path=VP(200)),
    ("mri", "diffpir"): lambda s: DiffPIR(zeta=1.0, path=_start(5.0, 40)),
    ("mri", "ddrm"): lambda s: DDRM(eta_prop=1.0, path=_start(5.0, 40, 0.01)),
    ("mri", "ddnm+"): lambda s: DDNMPlus(path=_start(5.0, 50, 0.01)),
    ("mri", "dds"): lambda s: DDS(path=_start(5.0, 50, 0.01)),
    ("mri", "pigdm"): lambda s: PiGDM(path=_start(5.0, 50, 0.01)),
    ("mri", "daps"): lambda s: _short_daps(0.05, 20.0),
    ("mri", "reddiff"): lambda s: REDDiff(sigma_floor=0.05, path=VP(200)),
    ("mri", "mmps"): lambda s: MMPS(path=_start(5.0, 30)),
    ("mri", "snips"): lambda s: SNIPS(c=0.15, K=1, final="denoised", path=VE(400, 3.0, 0.01)),
    ("mri", "score-mri"): lambda s: ScoreMRI(path=VE(75, 20.0, 0.01)),
    ("mri", "score-medical"): lambda s: ScoreMedical(lam=0.5, final="none", path=_start(20.0, 60)),
    ("mri", "csgm"): lambda s: CSGM(final="denoised", path=VE(600, 1.232, 0.004)),
    ("ct", "diffpir"): lambda s: DiffPIR(lam=0.5, zeta=1.0, path=_start(20.0, 60)),
    ("ct", "mmps"): lambda s: MMPS(iterations=12, path=_start(20.0, 30)),
    ("ct", "daps"): lambda s: _short_daps(0.05, 20.0),
    ("ct", "dds"): lambda s: DDS(gamma=10.0, path=_start(20.0, 50, 0.01)),
    ("ct", "csgm"): lambda s: CSGM(final="denoised", path=VE(400, 5.0, 0.01)),
    ("ct", "pigdm"): lambda s: PiGDM(path=_start(5.0, 50, 0.01)),
    ("ct", "reddiff"): lambda s: REDDiff(sigma_floor=0.05, path=VP(200)),
    ("ct", "score-medical"): lambda s: ScoreMedical(
        lam=0.8, snr=0.45, final="none", path=_start(20.0, 60)
    ),
    ("ct", "mcg"): lambda s: MCG(
        rho=3.0, weight="pinv", lam=0.8, final="none", path=VP(60, spacing="trailing")
    ),
    ("ct", "dps"): lambda s: DPS(zeta=8.0, path=VP(180, spacing="trailing")),
    **{(t.name, "replacement"): lambda s: Replacement(path=_start(20.0, 60)) for t in PHOTO_TASKS},
    **{(t.name, "snips"): lambda s: _short_snips() for t in PHOTO_TASKS},
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

FALLBACK = ("diffpir", "the operator has no singular value decomposition, which ddrm needs")
"""What `auto` takes where the measured choice cannot: for example an unsymmetric blur."""

LATENT = ("psld", "the prior is of latents, and psld uses the encoder too; not measured")
"""What `auto` takes for a prior of latents."""

LARGE = 768**2
"""Pixels beyond which `PhotoPrior` runs in tiles."""

TILED = {
    "demosaic": (
        "ddrm",
        "the picture is denoised in tiles, and a gradient computes each tile again",
    ),
}
"""What `auto` takes for such pictures."""

AUTO: dict[str, tuple[str, str]] = {
    "inpaint": (
        "ddrm",
        "the best mean of those measured, and it fills holes, where mmps leaves grey",
    ),
    "super-resolution": ("ddrm", "a better mean than mmps and pigdm, in less time"),
    "deblur": ("ddrm", "a better mean than diffpir at the same cost"),
    "denoise": ("ddrm", "it starts at the photo's own noise, so 8 evaluations are enough"),
    "colorize": ("ddrm", "calm colours, and a mean within 0.2 dB of the best of those measured"),
    "demosaic": (
        "mmps",
        "its mean is 1.4 dB above that of ddrm, by 12 evaluations and 48 gradients",
    ),
    "jpeg": ("ddrm-jpeg", "it gains 1.2 dB at quality 10, where pigdm gains 0.1"),
    "hdr": ("reddiff", "it gains 5 dB over y / gain"),
    "low-light": (
        "dps",
        "it gains 9 dB at 30 photons, 1 dB more than non-local means of the counts",
    ),
    "phase-retrieval": ("dps", "starts from noise, of which one random mask lets most succeed"),
    "compressed-sensing": ("diffpir", "the best mean of those measured, just above that of ddrm"),
    "mri": ("mmps", "its mean is 0.3 to 1.3 dB above that of diffpir, in up to 3 times its time"),
    "ct": ("diffpir", "its mean is within 0.3 dB of that of mmps, or above it, in less time"),
}
"""Solver for a task, and why it: as measured by `benchmarks/photographs.py` (docs/photographs.md),
and for mri and ct by `benchmarks/medical.py` (docs/mri.md, docs/ct.md). How holes and colours look
is no number: pictures were looked at."""


def auto(task_name: str, problem: Problem) -> tuple[Solver, str]:
    """The solver that measurements favour for a task, configured for it, and the reason.

    problem: what is to be solved: its operator decides who can, its noise enters the presets.
    """
    name, reason = AUTO[task(task_name).name]
    if math.prod(problem.x_shape[-2:]) > LARGE:
        name, reason = TILED.get(task_name, (name, reason))
    if Need.AUTOENCODER in offers(problem):
        name, reason = LATENT
    elif missing(solver_class(name)(), problem):
        name, reason = FALLBACK
    return configured(task_name, name, problem), reason


def wiener(problem: Problem, constant: float) -> Tensor:
    """(A^T A + constant)^-1 A^T y: the Wiener filter for white images, whatever the operator."""
    A = problem.A
    if not isinstance(A, Linear):
        raise InvdiffError(f"A Wiener filter needs a linear operator, found {type(A).__name__}.")
    return A.ridge(problem.y, constant)
