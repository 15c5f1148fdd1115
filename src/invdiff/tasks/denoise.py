"""Denoising: Gaussian noise of a known level, or one that is estimated."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from torch import Tensor

from invdiff.core.option import option
from invdiff.core.schedules import VE, Karras
from invdiff.core.schedules import Path as Levels
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
    SPLITS,
    noise_path,
    sigma_of,
    split,
)
from invdiff.tasks.validity import has_gaps, has_hole
from invdiff.tasks.values import NoiseLevel, Size


def _from_noise(problem: Problem) -> Levels:
    """From the measurement's own noise, which is the first state."""
    top = max(sigma_of(problem), 1e-6)
    return Karras(8, top, min(0.02, top / 4))


def _sampler(problem: Problem) -> Solver:
    if not isinstance(problem.A, Identity):  # y is no state of the chain
        filling = Karras(*(HOLE if has_hole(problem) else FEW), 0.01)
        return SpectralAncestral(inflation=INFLATION, path=filling)
    path = _from_noise(problem)
    return SpectralAncestral(data="start", inflation=INFLATION, path=path)


def _one_call(problem: Problem) -> Solver:
    level = max(sigma_of(problem), 1e-6)
    return OneCall(refills=2, path=VE(1, level, level))


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
        Preset("ddrm", lambda p: DDRM(path=noise_path(p, 8))),
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
