"""High dynamic range: the sensor saturates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.algebra import Operator, Piece


@dataclass(frozen=True, eq=False)
class HDR(Operator):
    """y = clip(gain x, -1, 1): both the shadows and the highlights are lost.

    Mardani, Song, Kautz, Vahdat 2023, arXiv 2305.04391, take gain = 2: half of the range is left.
    Images of any shape; pixels are measured independently. gain: a finite number above 0.

    The gradient is gain where |gain x| <= 1 and 0 elsewhere. So the misfit pulls an estimate that
    should be saturated and is not, but not one that is saturated and should not be: a pixel that
    has left the range is brought back by the prior alone. DPS often ends there; RED-diff does not.
    straight_through: give gain everywhere instead. That is not the derivative, but it pulls every
    pixel whose misfit is not 0; it helps DPS and harms RED-diff.
    Raises InvdiffError for another gain.
    """

    gain: float = 2.0
    straight_through: bool = False

    guesses: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.gain < float("inf"):
            raise InvdiffError(f"A gain is a finite number above 0, found {self.gain}.")

    def __call__(self, x: Tensor) -> Tensor:
        return (self.gain * x).clamp(-1, 1)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Shadows, what is between, highlights."""
        end = 1 / self.gain
        return (
            Piece(-math.inf, -end, 0.0, -1.0),
            Piece(-end, end, self.gain, 0.0),
            Piece(end, math.inf, 0.0, 1.0),
        )

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        inside = (self.gain * x).abs() <= 1
        return self.gain * v if self.straight_through else self.gain * v * inside

    def pull(self, x: Tensor, r: Tensor) -> Tensor:
        """Where a pixel has left the range too: it is brought back."""
        return self.gain * r

    def guess(self, y: Tensor, x_shape: tuple[int, ...]) -> Tensor:
        """y / gain."""
        return y / self.gain

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(x_shape)
