"""Deblurring: a photograph that a known kernel blurred."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from invdiff.core.option import option
from invdiff.files.kernels import centre_words
from invdiff.files.pictures import Photo
from invdiff.operators.algebra import Operator
from invdiff.operators.blur import blur
from invdiff.operators.boundaries import margins
from invdiff.operators.circular_blur import wrapped
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.dds import DDS
from invdiff.solvers.diffpir import DiffPIR
from invdiff.solvers.mmps import MMPS
from invdiff.solvers.pnpdm import PnPDM
from invdiff.tasks.base import Choice, Preset, Task
from invdiff.tasks.photo import NoisyPhoto
from invdiff.tasks.pictures import NO_MARGIN, Margin
from invdiff.tasks.presets import (
    DRAWS,
    EVERY_PHOTO,
    NEARLY,
    SPLITS,
    calibrated,
    daps,
    dps,
    split,
    start,
)
from invdiff.tasks.values import Kernel, Size

Boundary = Literal["unknown", "valid", "reflect", "mirror", "replicate", "zero", "circular"]
EDGE = (
    "what lies beyond the edge: unknown (a margin is restored too, and cut off), reflect, mirror, "
    "replicate, zero, circular; valid is unknown with a margin of the kernel's whole size"
)


@dataclass(frozen=True, kw_only=True)
class Deblur(NoisyPhoto):
    """Undo a known blur."""

    name: ClassVar[str] = "deblur"
    example: ClassVar[str] = "photo.png --kernel gaussian:1.5"
    stationary: ClassVar[bool] = True
    least: ClassVar[float] = 0.003
    auto: ClassVar[Choice] = Choice("spectral-ancestral", DRAWS)
    best: ClassVar[Choice | None] = Choice("hqs", SPLITS)
    presets: ClassVar[tuple[Preset, ...]] = (
        calibrated(14, 3.0, modes=True),
        split(8, 0.4, 0.02, tol=NEARLY),
        Preset("ddrm", lambda p: DDRM(eta_prop=0.95, schedule=start(p, 1.0, 20))),
        Preset(
            "diffpir",
            lambda p: DiffPIR(lam=2.0, zeta=1.0, tol=NEARLY, schedule=start(p, 0.5, 20)),
        ),
        Preset("pnp-dm", lambda p: PnPDM(tol=NEARLY)),
        daps(0.05, 20.0),
        Preset("dds", lambda p: DDS(gamma=10.0, schedule=start(p, 1.0, 20))),
        Preset("mmps", lambda p: MMPS(schedule=start(p, 3.0, 12))),
        dps("deblur"),
        *EVERY_PHOTO,
    )

    kernel: Kernel = option("gaussian:SIGMA, motion:LENGTH,DEGREES, or a file with the kernel")
    boundary: Boundary = option(EDGE, "unknown")

    def operator(self, size: Size) -> Operator:
        return blur(self.kernel.at(size), size, self.boundary)

    def check(self, photo: Photo) -> None:
        self.kernel.at(photo.size)

    def facts(self, photo: Photo) -> list[str]:
        return [centre_words(self.kernel.at(photo.size))] if self.kernel.drawn else []

    def margin(self, size: Size) -> Margin:
        """What the kernel reads of an unknown boundary."""
        if self.boundary not in ("unknown", "valid"):
            return NO_MARGIN
        (above, below), (left, right) = margins(self.kernel.at(size), self.boundary)
        return above, below, left, right

    def without_margin(self) -> Self:
        return dataclasses.replace(self, boundary="reflect")

    def texture(self, size: Size) -> float | None:
        """Gain of the kernel in the band of the finest diagonal Haar details, over photographs,
        whose power falls as 1 / f^2."""
        transfer = torch.fft.fft2(wrapped(self.kernel.at(size), (64, 64))).abs().square()
        f = torch.fft.fftfreq(64, dtype=torch.float64)
        square = f[:, None] ** 2 + f[None, :] ** 2
        band = torch.outer(torch.sin(math.pi * f) ** 2, torch.sin(math.pi * f) ** 2)
        weight = torch.where(square > 0, band / square.clamp_min(1e-9), 0.0)
        return math.sqrt(float((weight * transfer).sum() / weight.sum()))

    @classmethod
    def small(cls, size: Size) -> Self:
        return cls(kernel=Kernel("mean of 3 x 3", torch.ones(3, 3) / 9))

    def beside(self, size: Size, out: Path, seed: int) -> tuple[Self, dict[str, Tensor]]:
        task, files = super().beside(size, out, seed)
        files["kernel.npy"] = self.kernel.at(size)
        values = {f: getattr(task, f) for f in ("noise", "boundary")}
        restores: Any = Deblur(kernel=Kernel(str(out / "kernel.npy")), **values)
        return restores, files

    @classmethod
    def simulation(cls) -> type[Task]:
        return MakeDeblur


@dataclass(frozen=True, kw_only=True)
class MakeDeblur(Deblur):
    """Blur a photograph."""

    boundary: Boundary = option(EDGE, "reflect")
