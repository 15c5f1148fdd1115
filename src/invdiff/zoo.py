"""Named problems: what a task measures, with which solver and knobs it is best solved, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invdiff.core import InvdiffError, Problem, nearest
from invdiff.instances import INSTANCES
from invdiff.needs import Need, missing, offers, why_not
from invdiff.noise import Gaussian
from invdiff.operators.base import Identity, Linear
from invdiff.operators.blur import blur
from invdiff.operators.color import REC601, Grayscale
from invdiff.operators.downsample import AveragePool, Bicubic
from invdiff.operators.inpaint import Inpaint
from invdiff.paths import VE, Karras, Path
from invdiff.solvers import registry, solver_class
from invdiff.solvers.base import Solver
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.diffpir import DiffPIR
from invdiff.solvers.replacement import Replacement
from invdiff.solvers.snips import SNIPS

Size = tuple[int, int]


@dataclass(frozen=True)
class Task:
    """One kind of damage that the command line, the page and the benchmark know by name.

    name: as users type it. summary: one line. operator(size, options): A for images (H, W).
    image_size(y_size, options): size of the unknown image for a measurement of y_size.
    channels: of the measurement. options: names and meanings of what it must be told;
    defaults: of the options that may be left out.
    """

    name: str
    summary: str
    operator: Callable[[Size, Mapping[str, Any]], Linear]
    image_size: Callable[[Size, Mapping[str, Any]], Size] = lambda size, options: size
    channels: int = 3
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _inpaint(size: Size, options: Mapping[str, Any]) -> Linear:
    return Inpaint(options["mask"])


def _downsample(size: Size, options: Mapping[str, Any]) -> Linear:
    kinds = {"bicubic": Bicubic, "mean": AveragePool}
    kind = options.get("downsampling", "bicubic")
    if kind not in kinds:
        raise nearest(kind, kinds, "downsampling")
    return kinds[kind](options["scale"], size)


def _deblur(size: Size, options: Mapping[str, Any]) -> Linear:
    return blur(options["kernel"], size, options.get("boundary", "reflect"))


TASKS: dict[str, Task] = {
    t.name: t
    for t in (
        Task(
            "inpaint",
            "fill in pixels that are missing or unwanted",
            _inpaint,
            options={"mask": "a picture of the same size that marks the pixels to restore"},
        ),
        Task(
            "super-resolution",
            "enlarge a photograph by a whole factor",
            _downsample,
            lambda size, o: (size[0] * o["scale"], size[1] * o["scale"]),
            options={
                "scale": "enlargement factor, a whole number of 2 or more",
                "downsampling": "how the small picture came about: bicubic (antialiased) or mean",
            },
            defaults={"downsampling": "bicubic"},
        ),
        Task(
            "deblur",
            "undo a known blur",
            _deblur,
            options={
                "kernel": "gaussian:SIGMA, motion:LENGTH,DEGREES, or a file with the kernel",
                "boundary": "what lies beyond the edge: reflect, zero or circular",
            },
            defaults={"boundary": "reflect"},
        ),
        Task(
            "denoise",
            "remove Gaussian noise of a known level",
            lambda size, o: Identity(),
            options={"sigma": "noise level on the scale where black is 0 and white is 1"},
        ),
        Task(
            "colorize",
            "give a grey photograph plausible colours",
            lambda size, o: Grayscale(REC601),
            channels=1,
        ),
    )
}


def task(name: str) -> Task:
    """The task called name. Raises InvdiffError with the nearest names when there is none."""
    if name not in TASKS:
        raise nearest(name, TASKS, "task")
    return TASKS[name]


def example(name: str, size: Size = (16, 16), sigma: float = 0.05) -> Problem:
    """A small instance of a task, for tables and tests: its types decide which solver can.

    name: of a task, or of one of `instances.INSTANCES`, which have a size of their own.
    """
    if name in INSTANCES:
        return INSTANCES[name](sigma)
    options: dict[str, Any] = {
        "mask": torch.ones(1, 1, *size),
        "scale": 4,
        "kernel": torch.ones(3, 3) / 9,
    }
    A = task(name).operator(size, options)
    x_shape = (3, *size)
    return Problem(torch.zeros(1, *A.y_shape(x_shape)), A, Gaussian(sigma), x_shape)


def table() -> list[tuple[str, dict[str, str]]]:
    """(solver, {task: "" or why not}) for every solver and task: generated, never kept by hand."""
    rows = []
    for name, cls in registry().items():
        cells = {}
        for t in (*TASKS, *INSTANCES):
            # a solver for noiseless data is judged on noiseless data
            options = [why_not(cls(), example(t, sigma=s)) for s in (0.05, 0.0)]
            cells[t] = min(options, key=len)
        rows.append((name, cells))
    return rows


TYPICAL = 0.1
"""A noise level in the prior's range for which tables show presets that depend on it."""


def preset(task_name: str, solver_name: str, sigma_y: float) -> Solver:
    """The tuned configuration of a solver for a task, else the defaults of its paper.

    sigma_y: noise of the measurement, in the prior's range.
    """
    key = (task_name, solver_name)
    return TUNED[key](sigma_y) if key in TUNED else solver_class(solver_name)()


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


TUNED: dict[tuple[str, str], Callable[[float], Solver]] = {
    ("inpaint", "ddrm"): lambda s: DDRM(eta_prop=1.0, path=_start(5.0, 40, 0.01)),
    ("super-resolution", "ddrm"): lambda s: DDRM(eta_prop=0.95, path=_start(1.0, 20)),
    ("deblur", "ddrm"): lambda s: DDRM(eta_prop=0.95, path=_start(1.0, 20)),
    ("denoise", "ddrm"): lambda s: DDRM(path=_noise_path(s, 8)),
    ("colorize", "ddrm"): lambda s: DDRM(eta_prop=0.95, path=_start(10.0, 40)),
    ("deblur", "diffpir"): lambda s: DiffPIR(lam=2.0, zeta=1.0, path=_start(0.5, 20)),
    **{(t, "replacement"): lambda s: Replacement(path=_start(20.0, 60)) for t in TASKS},
    **{(t, "snips"): lambda s: _short_snips() for t in TASKS},
}
"""Knobs found by `benchmarks/tune.py` on photographs that the prior was not trained on.

For tasks with few unknowns (super-resolution, deblurring) the grid starts at sigma 1, where the
measurement already fixes the coarse picture; holes and colours need a start above the images' own
contrast. Those of replacement and snips were not searched: they stand in for the 2000 and 2500
evaluations of the papers, with what that costs on normal laws in the solvers' tests.
"""

FALLBACK = ("diffpir", "the operator has no singular value decomposition, which ddrm needs")
"""What `auto` takes where the measured choice cannot: for example an unsymmetric blur."""

LATENT = ("psld", "the prior is of latents, and psld uses the encoder too; not measured")
"""What `auto` takes for a prior of latents."""

AUTO: dict[str, tuple[str, str]] = {
    "inpaint": ("ddrm", "its mean is within 0.3 dB of that of mmps in less than half the time"),
    "super-resolution": ("ddrm", "a better mean than mmps and pigdm, in less time"),
    "deblur": ("ddrm", "a better mean than diffpir at the same cost"),
    "denoise": ("ddrm", "it starts at the photo's own noise, so 8 evaluations are enough"),
    "colorize": ("ddrm", "the calmest colours of those looked at; not measured"),
}
"""Solver for a task, and why it: measured by `benchmarks/tune.py`."""


def auto(task_name: str, problem: Problem) -> tuple[Solver, str]:
    """The solver that measurements favour for a task, configured for it, and the reason.

    problem: what is to be solved: its operator decides who can, its noise enters the presets.
    """
    name, reason = AUTO[task(task_name).name]
    if Need.AUTOENCODER in offers(problem):
        name, reason = LATENT
    elif missing(solver_class(name)(), problem):
        name, reason = FALLBACK
    return preset(task_name, name, problem.sigma_y), reason


def wiener(problem: Problem, constant: float) -> Tensor:
    """(A^T A + constant)^-1 A^T y: the Wiener filter for white images, whatever the operator."""
    A = problem.A
    if not isinstance(A, Linear):
        raise InvdiffError(f"A Wiener filter needs a linear operator, found {type(A).__name__}.")
    return A.solve(A.adjoint(problem.y), constant)
