"""Blur with a kernel of rank 1: one row of taps along the height, one along the width."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from invdiff.operators.blur_kernels import check_kernel
from invdiff.operators.boundaries import (
    check_boundary,
    check_reach,
    cut,
    mirrored,
    reflected,
    repeated,
)
from invdiff.operators.separable import Separable
from invdiff.operators.sizes import checked_size


def blur_matrix(taps: Tensor, n: int, boundary: str) -> Tensor:
    """Convolution of n samples with taps (k,), float64, shape (n, n).

    With the boundary "unknown" or "valid" there are rows only for samples that read nothing beyond
    the edge.
    """
    taps = taps.detach().cpu().double()
    before, after = cut(taps, boundary)
    at = torch.arange(before, n - after)
    index = at[:, None] - (torch.arange(len(taps)) - len(taps) // 2)[None, :]
    weight = taps.expand(len(at), -1)
    if boundary in ("zero", "unknown", "valid"):
        weight = torch.where((index >= 0) & (index < n), weight, 0.0)
    known = {"reflect": reflected, "mirror": mirrored, "replicate": repeated}
    how = known.get(boundary, torch.remainder)
    return torch.zeros(len(at), n, dtype=torch.float64).scatter_add_(1, how(index, n), weight)


@dataclass(frozen=True, eq=False)
class SeparableBlur(Separable):
    """Convolution with the kernel outer(kernel_rows, kernel_cols).

    kernel_rows, kernel_cols: taps along the height and along the width, 1-D, of any length.
    size: (H, W) of the image. boundary: "reflect", "mirror", "replicate", "zero", "circular", or
    "unknown" and "valid", with which y holds the pixels only that read nothing beyond the edge.
    """

    kernel_rows: Tensor
    kernel_cols: Tensor
    size: tuple[int, int]
    boundary: str = "reflect"

    def __post_init__(self) -> None:
        check_kernel(self.kernel_rows, ndim=1)
        check_kernel(self.kernel_cols, ndim=1)
        known = ("reflect", "mirror", "zero", "circular", "unknown", "replicate", "valid")
        check_boundary(self.boundary, known)
        object.__setattr__(self, "size", checked_size(self.size))
        margins = tuple(cut(taps, self.boundary) for taps in (self.kernel_rows, self.kernel_cols))
        check_reach(margins, self.size, self.boundary)

    @cached_property
    def left(self) -> Tensor:
        return blur_matrix(self.kernel_rows, self.size[0], self.boundary)

    @cached_property
    def right(self) -> Tensor:
        return blur_matrix(self.kernel_cols, self.size[1], self.boundary)
