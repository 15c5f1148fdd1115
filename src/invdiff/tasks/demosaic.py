"""Demosaicing: one colour at each pixel of a raw sensor."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch

from invdiff.core.option import option
from invdiff.files.pictures import Photo
from invdiff.files.raw import is_raw, read_mosaic
from invdiff.operators.algebra import Operator
from invdiff.operators.bayer import Bayer
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.diffpir import DiffPIR
from invdiff.solvers.mmps import MMPS
from invdiff.tasks.base import Choice, Preset
from invdiff.tasks.photo import NoisyPhoto
from invdiff.tasks.presets import DRAWS, EVERY_PHOTO, SPLITS, calibrated, daps, split, start
from invdiff.tasks.values import Size


@dataclass(frozen=True, kw_only=True)
class Demosaic(NoisyPhoto):
    """Give every pixel of a raw colour sensor its three colours."""

    name: ClassVar[str] = "demosaic"
    example: ClassVar[str] = "raw.png --pattern RGGB"
    channels: ClassVar[int] = 1
    luma: ClassVar[bool] = False
    stride: ClassVar[int] = 2
    auto: ClassVar[Choice] = Choice("spectral-ancestral", DRAWS)
    best: ClassVar[Choice | None] = Choice("hqs", SPLITS)
    presets: ClassVar[tuple[Preset, ...]] = (
        calibrated(12, 1.0),
        split(30, 0.4, 0.004),
        daps(0.02, 5.0),
        Preset("mmps", lambda p: MMPS(schedule=start(p, 3.0, 12, 0.01))),
        Preset("diffpir", lambda p: DiffPIR(zeta=1.0, schedule=start(p, 3.0, 80, 0.01))),
        Preset("ddrm", lambda p: DDRM(eta_prop=1.0, schedule=start(p, 5.0, 40, 0.01))),
        *EVERY_PHOTO,
    )

    pattern: Literal["RGGB", "BGGR", "GRBG", "GBRG"] = option(
        "colours of the upper left 2 x 2 pixels; camera raw tells its own", "RGGB"
    )

    def operator(self, size: Size) -> Operator:
        return Bayer(self.pattern)

    def photo(self, file: Path) -> tuple[Self, Photo, int]:
        """Of camera raw the numbers of its sensor, its own pattern and levels."""
        if not is_raw(file):
            return super().photo(file)
        raw = read_mosaic(file)
        pixels = torch.from_numpy(raw.values)[None]
        photo = Photo(pixels, about=raw.about, depth=16)
        colours: Any = raw.pattern
        return dataclasses.replace(self, pattern=colours), photo, raw.orientation

    def texture(self, size: Size) -> float | None:
        return 2.0
