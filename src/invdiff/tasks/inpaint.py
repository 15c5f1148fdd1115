"""Inpainting: pixels that are missing or unwanted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core.option import option
from invdiff.core.schedules import Karras
from invdiff.files.pictures import Photo
from invdiff.noise import Gaussian
from invdiff.operators.algebra import Operator
from invdiff.operators.inpaint import Inpaint
from invdiff.problem import Problem
from invdiff.problem.toys import unmeasured
from invdiff.sampling.solver import Solver
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.diffpir import DiffPIR
from invdiff.solvers.mmps import MMPS
from invdiff.solvers.pigdm import PiGDM
from invdiff.solvers.spectral_ancestral import SpectralAncestral
from invdiff.tasks.base import Choice, Preset
from invdiff.tasks.photo import NoisyPhoto
from invdiff.tasks.pictures import PhotoView, shown
from invdiff.tasks.presets import (
    DRAWS,
    EVERY_PHOTO,
    INFLATION,
    SPLITS,
    daps,
    dps,
    mcg,
    split,
    start,
)
from invdiff.tasks.values import Mask, Size

FEW, HOLE = (10, 1.0), (20, 5.0)
"""Steps and first level of the sampler, and of masks with pixels far from all that are known."""
REACH = 4
"""Pixels from the nearest known one beyond which an unknown one lies in a hole."""


def has_hole(problem: Problem) -> bool:
    """Whether a mask leaves pixels that are far from all that are known."""
    known = problem.A.restrict(torch.ones_like(problem.y[:1])).real.abs().amax(1, keepdim=True)
    near = F.max_pool2d((known > 0).float(), 2 * REACH + 1, 1, REACH)
    return bool((near == 0).any())


def _sampler(problem: Problem) -> Solver:
    path = Karras(*(HOLE if has_hole(problem) else FEW), 0.01)
    return SpectralAncestral(inflation=INFLATION, path=path)


@dataclass(frozen=True, kw_only=True)
class Inpainting(NoisyPhoto):
    """Fill in pixels that are missing or unwanted.

    Known pixels are shown as they are in the file, unless their noise was told.
    """

    name: ClassVar[str] = "inpaint"
    example: ClassVar[str] = "photo.png --mask mask.png"
    auto: ClassVar[Choice] = Choice("spectral-ancestral", DRAWS)
    best: ClassVar[Choice | None] = Choice("hqs", SPLITS)
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("spectral-ancestral", _sampler, source="calibration.md"),
        split(60, 1.0, 0.005),
        Preset("ddrm", lambda p: DDRM(eta_prop=1.0, path=start(p, 5.0, 100, 0.01))),
        Preset("diffpir", lambda p: DiffPIR(zeta=1.0, path=start(p, 5.0, 100, 0.01))),
        Preset("mmps", lambda p: MMPS(path=start(p, 5.0, 20, 0.02))),
        Preset("pigdm", lambda p: PiGDM(guidance="paper", path=start(p, 5.0, 50, 0.01))),
        daps(0.02, 5.0),
        dps("inpaint"),
        mcg(),
        *EVERY_PHOTO,
    )

    mask: Mask = option(
        "a picture that is white where pixels are to be restored and black where they are kept; or "
        "box:TOP,LEFT,HEIGHT,WIDTH, or random:SHARE"
    )

    def operator(self, size: Size) -> Operator:
        return Inpaint(self.mask.at(size))

    def check(self, photo: Photo) -> None:
        self.mask.at(photo.size)

    def known(self, size: Size) -> Tensor | None:
        return self.mask.at(size)

    def texture(self, size: Size) -> float | None:
        return None

    def view(self, view: PhotoView, problem: Problem) -> PhotoView:
        if self.noise is not None or not isinstance(problem.A, Inpaint):
            return view
        known = problem.A.mask[0].bool().all(0)
        measured = shown(problem.y[0], view.grey, view.value_range)
        return dataclasses.replace(view, kept=known, measured=measured)

    @classmethod
    def toy(cls, sigma: float = 0.05, size: Size = (16, 16)) -> Problem:
        return unmeasured(Inpaint(torch.ones(1, 1, *size)), Gaussian(sigma), (3, *size))

    def beside(self, size: Size, out: Path, seed: int) -> tuple[Self, dict[str, Tensor]]:
        task, files = super().beside(size, out, seed)
        known = self.mask.at(size, seed)
        files["mask.png"] = (known[0] == 0).float()
        return dataclasses.replace(task, mask=Mask(str(out / "mask.png"))), files
