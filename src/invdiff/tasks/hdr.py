"""High dynamic range: shadows and highlights that a sensor clipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from invdiff.core.option import option
from invdiff.core.schedules import VP
from invdiff.operators.algebra import Operator
from invdiff.operators.hdr import HDR
from invdiff.solvers.reddiff import REDDiff
from invdiff.tasks.base import Choice, Preset
from invdiff.tasks.photo import NoisyPhoto
from invdiff.tasks.presets import EVERY_PHOTO, daps
from invdiff.tasks.values import Size


@dataclass(frozen=True, kw_only=True)
class HighDynamicRange(NoisyPhoto):
    """Restore what a sensor clipped in shadows and highlights."""

    name: ClassVar[str] = "hdr"
    centred: ClassVar[bool] = True
    auto: ClassVar[Choice] = Choice(
        "daps",
        "it draws what was clipped from its law: 2 dB nearer than reddiff",
        otherwise=Choice("reddiff", "it needs a gradient of the operator alone"),
    )
    presets: ClassVar[tuple[Preset, ...]] = (
        daps(0.15, 10.0, 30, 0.02),
        Preset("reddiff", lambda p: REDDiff(sigma_floor=0.02, final="data", schedule=VP(100))),
        *EVERY_PHOTO,
    )

    gain: float = option(
        "contrast before clipping, about middle grey: 2 keeps half of the range", 2.0
    )

    def operator(self, size: Size) -> Operator:
        return HDR(self.gain)
