"""Colourisation: a grey photograph, given plausible colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from invdiff.operators.algebra import Operator
from invdiff.operators.color import REC601, Grayscale
from invdiff.solvers.ddrm import DDRM
from invdiff.tasks.base import Choice, Preset
from invdiff.tasks.photo import NoisyPhoto
from invdiff.tasks.presets import DRAWS, EVERY_PHOTO, calibrated, start
from invdiff.tasks.values import Size


@dataclass(frozen=True, kw_only=True)
class Colorize(NoisyPhoto):
    """Give a grey photograph plausible colours."""

    name: ClassVar[str] = "colorize"
    channels: ClassVar[int] = 1
    stationary: ClassVar[bool] = True
    auto: ClassVar[Choice] = Choice("spectral-ancestral", DRAWS)
    # no `best`: hqs settles for one guess of the colours, where the mean of samples averages them
    presets: ClassVar[tuple[Preset, ...]] = (
        calibrated(20, 10.0),
        Preset("ddrm", lambda p: DDRM(eta_prop=0.95, schedule=start(p, 10.0, 40))),
        *EVERY_PHOTO,
    )

    def operator(self, size: Size) -> Operator:
        return Grayscale(REC601)
