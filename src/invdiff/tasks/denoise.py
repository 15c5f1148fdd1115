"""Denoising: Gaussian noise of a known level, or one that is estimated."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from torch import Tensor

from invdiff.core.option import option
from invdiff.core.schedules import VE, Karras, Schedule
from invdiff.operators.algebra import Identity, Operator
from invdiff.problem import Problem
from invdiff.sampling.solver import Solver
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.hqs import HQS
from invdiff.solvers.one_call import OneCall
from invdiff.solvers.spectral_ancestral import SpectralAncestral
from invdiff.tasks.base import Choice, Preset
from invdiff.tasks.photo import NoisyPhoto
from invdiff.tasks.presets import (
    DRAWS,
    EVERY_PHOTO,
    FEW,
    HOLE,
    INFLATION,
    INFLATION_IN_MODES,
    SPLITS,
    noise_schedule,
    sigma_of,
    split,
    tells_modes,
)
from invdiff.tasks.validity import has_gaps, has_hole
from invdiff.tasks.values import NoiseLevel, Size


def _from_noise(problem: Problem) -> Schedule:
    """From the measurement's own noise, which is the first state."""
    top = max(sigma_of(problem), 1e-6)
    return Karras(8, top, min(0.02, top / 4))


def _sampler(problem: Problem) -> Solver:
    if not isinstance(problem.A, Identity):  # y is no state of the chain
        modes = tells_modes(problem)  # of noise with a spectrum: gradients alone are too slow
        return SpectralAncestral(
            inflation=INFLATION_IN_MODES if modes else INFLATION,
            preconditioner="modes" if modes else "none",
            schedule=Karras(*(HOLE if has_hole(problem) else FEW), 0.01),
        )
    schedule = _from_noise(problem)
    return SpectralAncestral(data="start", inflation=INFLATION, schedule=schedule)


def _one_call(problem: Problem) -> Solver:
    level = max(sigma_of(problem), 1e-6)
    return OneCall(refills=2, schedule=VE(1, level, level))


@dataclass(frozen=True, kw_only=True)
class Denoise(NoisyPhoto):
    """Remove Gaussian noise."""

    name: ClassVar[str] = "denoise"
    example: ClassVar[str] = "photo.png --noise estimate"
    stationary: ClassVar[bool] = True
    auto: ClassVar[Choice] = Choice("spectral-ancestral", DRAWS)
    best: ClassVar[Choice | None] = Choice(
        "one-call", "the posterior mean, by one evaluation", otherwise=Choice("hqs", SPLITS)
    )
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("spectral-ancestral", _sampler, source="calibration.md"),
        Preset("hqs", lambda p: split(8, 0.4, 0.02).make(p) if has_gaps(p) else HQS()),
        Preset("one-call", _one_call, source="calibration.md"),
        Preset("ddrm", lambda p: DDRM(schedule=noise_schedule(p, 8))),
        *EVERY_PHOTO,
    )

    noise: NoiseLevel = option(
        "level where black is 0 and white is 1, as 0.1 or 25/255, or `estimate`, or `correlated`, "
        "which estimates its spectrum"
    )

    def operator(self, size: Size) -> Operator:
        return Identity()

    @classmethod
    def small(cls, size: Size) -> Self:
        return cls(noise=NoiseLevel("0.05"))

    def beside(self, size: Size, out: Path, seed: int) -> tuple[Self, dict[str, Tensor]]:
        return dataclasses.replace(self, range=None), {}
