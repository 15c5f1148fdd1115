"""The grid of a bench: measurements of images, solvers, priors; one line for each cell."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invdiff.audit.coverage import interval_share
from invdiff.batch.items import seed_of
from invdiff.bench.suites import SuiteCase
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.files.pictures import read_photo, to_range
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.problem import Problem
from invdiff.problem.metrics import align, psnr, ssim
from invdiff.sampling.checks import misfit
from invdiff.sampling.run import solve
from invdiff.sampling.solver import Solver
from invdiff.solvers import solver_class
from invdiff.tasks import TASKS
from invdiff.tasks.auto import choose, configured, estimator

RANGE = (-1.0, 1.0)
"""Of the images that the suites measure."""
SMALLEST = 32
"""Side of an image that has something to restore at x8."""


@dataclass(frozen=True)
class Grid:
    """What a bench measures. solvers: names, `auto`, `estimate`, or NAME@TASK for the settings of
    the authors' own code. side: of the middle that is cut out of every image. samples: of each
    measurement. steps: at most."""

    images: tuple[Path, ...]
    cases: tuple[SuiteCase, ...]
    solvers: tuple[str, ...]
    priors: tuple[str, ...] = ("photo",)
    side: int = 256
    samples: int = 4
    seed: int = 0
    steps: int = 1000
    _priors: dict[str, Prior] = field(default_factory=dict, compare=False)

    def names(self) -> list[tuple[str, SuiteCase, str, str, Path]]:
        """(item, case, prior, solver, image) of every cell, in the order of measuring."""
        return [
            (f"{case.name}/{prior}/{solver}/{image.name}", case, prior, solver, image)
            for case in self.cases
            for prior in self.priors
            for image in self.images
            for solver in self.solvers
        ]

    def lines(self, done: set[str]) -> Iterator[dict[str, Any]]:
        """The line of every cell that is not done: what was measured, or `error`."""
        for item, case, prior, solver, image in self.names():
            if item not in done:
                line = {"item": item, "case": case.name, "prior": prior, "solver": solver}
                line |= {"image": image.name}
                try:
                    yield line | self._measured(case, prior, solver, image)
                except InvdiffError as error:
                    yield line | {"error": str(error)}

    def prior(self, spec: str) -> Prior:
        """A prior, loaded once. Raises InvdiffError for one that is not of colour on [-1, 1]."""
        if spec not in self._priors:
            found = load_prior(spec)
            channels = 3 if found.shape is None else found.shape[0]
            if tuple(found.value_range) != RANGE or channels != 3:
                raise InvdiffError(
                    f"A bench is of colour pictures on [-1, 1]; {spec} has {channels} channels on "
                    f"[{found.value_range[0]:g}, {found.value_range[1]:g}]."
                )
            self._priors[spec] = found
        return self._priors[spec]

    def _measured(self, case: SuiteCase, spec: str, name: str, image: Path) -> dict[str, Any]:
        prior, truth = self.prior(spec), cut(image, self.side)
        seed = seed_of(self.seed, f"{case.name}/{image.name}")
        problem = measurement(case, truth, seed)
        solver = solver_of(name, case, problem)
        if solver.num_steps > self.steps:
            solver = solver.with_steps(self.steps)
        began = time.perf_counter()
        count = 1 if solver.estimates else self.samples
        result = solve(problem, prior, solver, count, seed=self.seed)
        seconds = time.perf_counter() - began
        return {
            "steps": solver.num_steps,
            "evaluations": result.nfe,
            "seconds": round(seconds, 3),
            "samples": count,
            "values": scores(problem, result.samples, truth),
        }


def cut(image: Path, side: int) -> Tensor:
    """The middle of a picture in colour on [-1, 1], (1, 3, side, side).

    Raises InvdiffError for a picture that is smaller, or has pixels that tell nothing.
    """
    photo = read_photo(image)
    height, width = photo.size
    if min(height, width) < side:
        raise InvdiffError(
            f"{image} has {width} x {height} pixels, and {side} x {side} are cut out of its "
            "middle; give a smaller --side."
        )
    if photo.valid is not None and not bool(photo.valid.all()):
        raise InvdiffError(f"{image} has pixels that tell nothing, as transparent ones or NaN.")
    top, left = (height - side) // 2, (width - side) // 2
    pixels = photo.pixels[:, top : top + side, left : left + side]
    return to_range(pixels.expand(3, side, side).contiguous(), RANGE)[None]


def measurement(case: SuiteCase, truth: Tensor, seed: int) -> Problem:
    """The measurement of an image, whose mask and noise are those of the seed."""
    height, width = truth.shape[-2:]
    A = case.operator((height, width), seed)
    noise = GaussianNoise(case.sigma) if case.sigma else NOISELESS
    y = noise.sample(A(truth), Rng.of(seed))
    return Problem(A.restrict(y), A, noise, tuple(truth.shape[1:]))


def solver_of(name: str, case: SuiteCase, problem: Problem) -> Solver:
    """The solver that a name means: with the task's preset, or the settings of its authors.

    Raises InvdiffError for a name that is unknown, and for `estimate` where there is none.
    """
    task = TASKS[case.task]
    if name == "auto":
        return choose(task, problem)[0]
    if name == "estimate":
        found = estimator(task, problem)
        if found is None:
            raise InvdiffError(f"There is no estimate of {case.name} but the mean of samples.")
        return found[0]
    known, _, settings = name.partition("@")
    if settings:
        return solver_class(known).official(settings, RANGE)
    return configured(task, known, problem)


def scores(problem: Problem, samples: Tensor, truth: Tensor) -> dict[str, float | None]:
    """What samples (1, K, C, H, W) of one measurement are worth.

    psnr and ssim of one sample (their mean over samples) and of the mean of samples, images clipped
    to their range, and what the operator cannot tell undone by the truth (`metrics.align`); misfit:
    rms of (y - A x) / sigma, None without noise; coverage: share of pixels within the 90 % interval
    of the samples, None for fewer than two.
    """
    each = [align(x.clamp(*RANGE), truth, problem.A) for x in samples.unbind(1)]
    mean = torch.stack(each).mean(0)
    missed = torch.stack([misfit(problem, x) for x in samples.unbind(1)])
    residual = float(missed.square().mean().sqrt())
    many = len(each) > 1
    found = {
        "psnr": sum(float(psnr(x, truth, RANGE)) for x in each) / len(each),
        "psnr_mean": float(psnr(mean, truth, RANGE)),
        "ssim": sum(float(ssim(x, truth, RANGE)) for x in each) / len(each),
        "ssim_mean": float(ssim(mean, truth, RANGE)),
        "misfit": residual if problem.noise is not NOISELESS else None,
        "coverage": float(interval_share(truth, torch.stack(each, 1))) if many else None,
    }
    return {
        k: round(v, 4) if v is not None and math.isfinite(v) else None for k, v in found.items()
    }


def pictures(folder: Path, most: int, side: int) -> tuple[tuple[Path, ...], list[str]]:
    """The first pictures of a folder, by name, of which a side can be cut, or the one that is
    named; and why others are none.

    Raises InvdiffError where there is none.
    """
    if not folder.exists():
        raise InvdiffError(f"There is no {folder}; give a folder of images, or one image.")
    one = folder.is_file()
    names = [folder] if one else sorted(p for p in folder.iterdir() if p.is_file())
    found, said = list[Path](), list[str]()
    for path in names:
        if len(found) < most and (one or path.suffix.lower() in ENDINGS):
            try:
                cut(path, side)
                found.append(path)
            except InvdiffError as error:
                said.append(str(error))
    if not found:
        why = f"; {said[0]}" if said else f" ({', '.join(sorted(ENDINGS))})."
        raise InvdiffError(f"{folder} holds no image that can be measured{why}")
    return tuple(found), said


ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}
"""Of the files of a folder that are pictures."""


def check_names(solvers: Sequence[str]) -> None:
    """Raise InvdiffError for a solver that nobody knows."""
    for name in solvers:
        known, _, settings = name.partition("@")
        if known not in ("auto", "estimate"):
            cls = solver_class(known)
            if settings:
                cls.official(settings, RANGE)
