"""Super-resolution: a small photograph, enlarged by a whole factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from invdiff.core.option import option
from invdiff.files.pictures import Photo
from invdiff.operators.algebra import Operator
from invdiff.operators.downsample import AveragePool, Bicubic
from invdiff.solvers.ddnm import DDNMPlus
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.dds import DDS
from invdiff.solvers.diffpir import DiffPIR
from invdiff.solvers.mmps import MMPS
from invdiff.tasks.base import Choice, Preset
from invdiff.tasks.photo import NoisyPhoto
from invdiff.tasks.pictures import check_scale
from invdiff.tasks.presets import (
    DRAWS,
    EVERY_PHOTO,
    SPLITS,
    calibrated,
    daps,
    dps,
    mcg,
    split,
    start,
)
from invdiff.tasks.values import Size


@dataclass(frozen=True, kw_only=True)
class SuperResolution(NoisyPhoto):
    """Enlarge a photograph by a whole factor."""

    name: ClassVar[str] = "super-resolution"
    example: ClassVar[str] = "photo.png --scale 2"
    stationary: ClassVar[bool] = True
    auto: ClassVar[Choice] = Choice("spectral-ancestral", DRAWS)
    best: ClassVar[Choice | None] = Choice("hqs", SPLITS)
    presets: ClassVar[tuple[Preset, ...]] = (
        calibrated(10, 3.0, modes=True),
        split(24, 0.6, 0.02),
        Preset("ddrm", lambda p: DDRM(eta_prop=0.95, schedule=start(p, 1.0, 20))),
        daps(0.05, 20.0),
        Preset("diffpir", lambda p: DiffPIR(zeta=1.0, schedule=start(p, 1.0, 20))),
        Preset("ddnm+", lambda p: DDNMPlus(schedule=start(p, 1.0, 20))),
        Preset("dds", lambda p: DDS(gamma=10.0, schedule=start(p, 1.0, 20))),
        Preset("mmps", lambda p: MMPS(schedule=start(p, 3.0, 12))),
        dps("super-resolution"),
        mcg(),
        *EVERY_PHOTO,
    )

    scale: int = option("enlargement factor, a whole number of 2 or more", min=2)
    downsampling: Literal["bicubic", "mean"] = option(
        "how the small picture came about: bicubic (antialiased) or mean", "bicubic"
    )

    @property
    def factor(self) -> int:
        return self.scale

    def operator(self, size: Size) -> Operator:
        return {"bicubic": Bicubic, "mean": AveragePool}[self.downsampling](self.scale, size)

    def check(self, photo: Photo) -> None:
        check_scale(self.scale, photo)

    @classmethod
    def small(cls, size: Size) -> Self:
        return cls(scale=4)
