"""The scale of a file's numbers, as users tell it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from invdiff.core import InvdiffError


@dataclass(frozen=True)
class Span:
    """The numbers of a file that stand for black and for white, BLACK,WHITE."""

    metavar: ClassVar[str] = "BLACK,WHITE"

    black: float
    white: float

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            black, white = (float(v) for v in text.split(","))
        except ValueError:
            black = white = 0.0
        if not math.isfinite(black - white) or black == white:
            raise InvdiffError(
                f"--range is BLACK,WHITE, two different numbers, as 0,255 or -1,1, found {text}."
            )
        return cls(black, white)

    @classmethod
    def of(cls, value: Any) -> Self:
        black, white = value
        return cls.parse(f"{black},{white}")

    def __str__(self) -> str:
        return f"{self.black:.17g},{self.white:.17g}"
