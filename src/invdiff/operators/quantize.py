"""Uniform quantisation: fewer grey levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.algebra import PseudoInvertible
from invdiff.operators.sizes import whole

MOST = 1 << 16
Value = Literal["centre", "lower", "bytes", "ends"]


@dataclass(frozen=True, eq=False)
class Quantize(PseudoInvertible):
    """y = the value that stands for x's bin, of `levels` bins on [-1, 1].

    Images (B, ...) of any shape; y has the same shape. Values beyond [-1, 1] count to the first or
    last bin; a value on an edge belongs to the bin above it.
    levels: whole number from 2 to 65536; `Quantize.bits(n)` has 2^n.
    value: which bins, and what stands for one:
      "centre"  bins of equal width, their centres
      "lower"   bins of equal width, their lower edges: images become darker by half a bin
      "bytes"   on a scale from 0 to 255, bins of 256 / levels bytes and their lower edges: the
                official code of DDRM-JPEG (Kawar et al. 2022), with 8 levels; at most 256, a
                divisor of 256. The last bin is narrower, for 255 is the end of the scale
      "ends"    the nearest of `levels` values at equal distances from -1 to 1, both among them: the
                official code of RED-diff (Mardani et al. 2023). The bins at the ends are half as
                wide
    Its generalised inverse is the identity, for quantising twice is quantising once, bit for bit.
    No gradient passes. Raises InvdiffError for other numbers of levels.
    """

    levels: int
    value: Value = "centre"

    differentiable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (whole(self.levels) and 2 <= self.levels <= MOST):
            raise InvdiffError(
                f"The number of levels is a whole number from 2 to {MOST}, found {self.levels}."
            )
        if self.value not in get_args(Value):
            raise InvdiffError(f"The value of a bin is one of {', '.join(get_args(Value))}, not "
                               f"{self.value}.")  # fmt: skip
        if self.value == "bytes" and 256 % self.levels:
            raise InvdiffError(
                f"Bins of whole bytes divide 256 evenly, and {self.levels} levels do not; take 2, "
                "4, 8, ..., 256 levels, or another value than bytes."
            )

    @classmethod
    def bits(cls, bits: int, value: Value = "centre") -> Quantize:
        """Quantisation to 2^bits levels, bits from 1 to 16."""
        if not (whole(bits) and 1 <= bits <= 16):
            raise InvdiffError(f"The number of bits is a whole number from 1 to 16, found {bits}.")
        return cls(2**bits, value)

    def __call__(self, x: Tensor) -> Tensor:
        # edges and values come from one table, so that a value falls into its own bin exactly
        edges, values = (t.to(x.device, x.dtype).contiguous() for t in self._bins())
        return values[torch.bucketize(x.contiguous(), edges[1:], right=True)]

    def _bins(self) -> tuple[Tensor, Tensor]:
        """Lower edge and value of every bin, (levels,) each, float64."""
        halves = torch.arange(2 * self.levels, dtype=torch.float64)
        if self.value == "bytes":
            edges = halves[::2] * (256 / self.levels) / 255 - 1
            return edges, edges
        if self.value == "ends":
            places = halves / (self.levels - 1) - 1
            return places[::2] - 1 / (self.levels - 1), places[::2]
        places = halves / self.levels - 1
        return places[::2], places[1::2] if self.value == "centre" else places[::2]

    def pinv(self, y: Tensor) -> Tensor:
        """y itself."""
        return y

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(x_shape)
