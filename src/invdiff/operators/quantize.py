"""Uniform quantisation: fewer grey levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.base import PseudoInvertible
from invdiff.operators.separable import whole

MOST = 1 << 16


@dataclass(frozen=True, eq=False)
class Quantize(PseudoInvertible):
    """y = the value that stands for x's bin, of `levels` bins of equal width on [-1, 1].

    Images (B, ...) of any shape; y has the same shape. Values beyond [-1, 1] count to the first or
    last bin; a value on an edge belongs to the bin above it.
    levels: whole number from 2 to 65536; `Quantize.bits(n)` has 2^n.
    value: what stands for a bin: its "centre", or its "lower" edge, as in the official code of
    DDRM-JPEG (Kawar et al. 2022), which makes images darker by half a bin.
    Its generalised inverse is the identity, for quantising twice is quantising once, bit for bit.
    No gradient passes. Raises InvdiffError for other numbers of levels.
    """

    levels: int
    value: Literal["centre", "lower"] = "centre"

    differentiable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (whole(self.levels) and 2 <= self.levels <= MOST):
            raise InvdiffError(
                f"The number of levels is a whole number from 2 to {MOST}, found {self.levels}."
            )
        if self.value not in ("centre", "lower"):
            raise InvdiffError(f"A bin's value is its centre or its lower edge, not {self.value}.")

    @classmethod
    def bits(cls, bits: int, value: Literal["centre", "lower"] = "centre") -> Quantize:
        """Quantisation to 2^bits levels, bits from 1 to 16."""
        if not (whole(bits) and 1 <= bits <= 16):
            raise InvdiffError(f"The number of bits is a whole number from 1 to 16, found {bits}.")
        return cls(2**bits, value)

    def __call__(self, x: Tensor) -> Tensor:
        # edges and values come from one table, so that a value falls into its own bin exactly
        halves = torch.arange(2 * self.levels, dtype=torch.float64) / self.levels - 1
        edges, centres = halves.to(x.device, x.dtype).reshape(-1, 2).T.contiguous()
        index = torch.bucketize(x.contiguous(), edges[1:], right=True)
        return (centres if self.value == "centre" else edges)[index]

    def pinv(self, y: Tensor) -> Tensor:
        """y itself."""
        return y

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(x_shape)
