"""Inpainting: pixels that are missing or unwanted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.option import option
from invdiff.core.schedules import VE, Karras
from invdiff.files.instruments import Instrument
from invdiff.files.masks import Marked, grown
from invdiff.files.pictures import Photo
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Operator
from invdiff.operators.inpaint import Inpaint
from invdiff.problem import Problem
from invdiff.problem.toys import unmeasured
from invdiff.sampling.solver import Solver
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.diffpir import DiffPIR
from invdiff.solvers.hqs import HQS
from invdiff.solvers.mmps import MMPS
from invdiff.solvers.pigdm import PiGDM
from invdiff.solvers.spectral_ancestral import SpectralAncestral
from invdiff.tasks.base import Choice, Preset
from invdiff.tasks.photo import NoisyPhoto
from invdiff.tasks.pictures import PhotoView, shown
from invdiff.tasks.presets import (
    DRAWS,
    EVERY_PHOTO,
    FEW,
    FILLED,
    HOLE,
    INFLATION,
    SPLITS,
    daps,
    dps,
    mcg,
    start,
)
from invdiff.tasks.validity import has_hole, known_around
from invdiff.tasks.values import Mask, Size

TOGETHER = 0.75
"""`known_around` from which known pixels lie together, about holes or lines. There cosine modes
precondition well, and save most of the iterations; where half of the pixels or fewer are known, at
random, they save none."""
SCATTERED = 0.25
"""First level of `hqs` where known pixels do not lie together: what is unknown is near some of
them, and steps are better spent below. Found on photographs that no page reports
(`benchmarks/hqs_start.py`): 0.4 gains half as much; 0.15 gains as much where 30 % is known and more
where 10 % is, but seems to lose most in holes and lines, which may lie between scattered pixels
too, with errors as large as the loss."""


def _together(problem: Problem) -> bool:
    return known_around(problem) >= TOGETHER


def _sampler(problem: Problem) -> Solver:
    return SpectralAncestral(
        inflation=INFLATION,
        preconditioner="modes" if _together(problem) else "none",
        schedule=Karras(*(HOLE if has_hole(problem) else FEW), 0.01),
    )


def _split(problem: Problem) -> Solver:
    first = FILLED if _together(problem) else SCATTERED
    return HQS(final="data", schedule=VE(60, first, 0.005))


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
        Preset("hqs", _split, source="calibration.md"),
        Preset("ddrm", lambda p: DDRM(eta_prop=1.0, schedule=start(p, 5.0, 100, 0.01))),
        Preset("diffpir", lambda p: DiffPIR(zeta=1.0, schedule=start(p, 5.0, 100, 0.01))),
        Preset("mmps", lambda p: MMPS(schedule=start(p, 5.0, 20, 0.02))),
        Preset("pigdm", lambda p: PiGDM(guidance="paper", schedule=start(p, 5.0, 50, 0.01))),
        daps(0.02, 5.0),
        dps("inpaint"),
        mcg(),
        *EVERY_PHOTO,
    )

    mask: Mask = option(
        "a picture that is black where pixels are kept: all others are restored; or "
        "box:TOP,LEFT,HEIGHT,WIDTH, or random:SHARE"
    )
    grow: int = option("pixels by which the mask is widened to each side", 0, min=0)
    white: Literal["restore", "keep"] | None = option(
        "what white means in a picture of a mask; restore without it", None
    )

    def operator(self, size: Size) -> Operator:
        return Inpaint(self.known(size))

    def check(self, photo: Photo) -> None:
        marked = self._marked(photo.size)
        if marked.inverted and self.white is None:
            share = float((~marked.known.bool()).double().mean())
            raise InvdiffError(
                f"The mask {self.mask} is white all along its edge, so that {100 * share:.0f} % of "
                "the picture would be restored; if that is meant give --white restore, and if it "
                "is drawn dark on white give --white keep."
            )
        self.known(photo.size)

    def known(self, size: Size) -> Tensor:
        return grown(self._marked(size).known, self.grow)

    def _marked(self, size: Size, seed: int = 0) -> Marked:
        return self.mask.marked(size, seed, self.white)

    def facts(self, photo: Photo) -> list[str]:
        marked = self._marked(photo.size)
        known = grown(marked.known, self.grow)
        return [dataclasses.replace(marked, known=known).words(self.grow)]

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
        return unmeasured(Inpaint(torch.ones(1, 1, *size)), GaussianNoise(sigma), (3, *size))

    def beside(self, size: Size, out: Path, seed: int) -> tuple[Self, dict[str, Tensor]]:
        task, files = super().beside(size, out, seed)
        known = self._marked(size, seed).known
        files["mask.png"] = (known[0] == 0).float()
        inverted = Instrument(files["mask.png"][0].double(), True).inverted
        white: Literal["restore"] | None = "restore" if inverted else None
        mask = Mask(str(out / "mask.png"))
        return dataclasses.replace(task, mask=mask, white=white), files
