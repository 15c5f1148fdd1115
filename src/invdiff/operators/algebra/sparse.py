"""Sparse maps of rows (B, n): by a matrix that is kept, or view by view, with their transposes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Csr = tuple[Tensor, Tensor, Tensor]
"""Row pointers, columns and values of a sparse matrix."""
Map = Callable[[Tensor], Tensor]
"""Rows (B, n) to rows (B, m), linear."""
Part = Callable[[int], tuple[Tensor, Tensor]]
"""Pixels and weights, (rays, k) each, of the rays of a view."""


def joseph(point: Tensor, way: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pixels and weights (float64) of rays through pixels of side 1, (rays, 2 max(H, W)).

    point, way: a point and the unit direction of every ray, (rays, 2), x right and rows down, the
    origin in the middle of the image. Where a ray misses the image the weight is 0, of pixel 0.
    """
    steep = way[:, 1].abs() >= way[:, 0].abs()
    height, width = size
    shape = (len(point), max(size), 2)
    pixels = torch.zeros(shape, dtype=torch.long, device=point.device)
    weights = torch.zeros(shape, dtype=torch.float64, device=point.device)
    for rays, along, lines, across in ((steep, 1, height, width), (~steep, 0, width, height)):
        p, d = point[rays], way[rays]
        line = torch.arange(lines, dtype=torch.float64, device=point.device)
        t = (line - (lines - 1) / 2 - p[:, along, None]) / d[:, along, None]
        where = p[:, 1 - along, None] + t * d[:, 1 - along, None] + (across - 1) / 2
        low = where.floor()
        cell = torch.stack([low, low + 1], dim=2)
        share = (1 - (where[:, :, None] - cell).abs()) / d[:, along, None, None].abs()
        inside = (cell >= 0) & (cell < across)
        weights[rays, :lines] = torch.where(inside, share, 0.0)
        index = line[:, None] * width + cell if along else cell * width + line[:, None]
        pixels[rays, :lines] = torch.where(inside, index, 0.0).long()
    return pixels.flatten(1), weights.flatten(1)


def transposed(matrix: Csr, columns: int) -> Csr:
    """The transpose of a matrix of so many columns."""
    pointers, column, values = matrix
    rows = torch.repeat_interleave(
        torch.arange(len(pointers) - 1, dtype=torch.int32), pointers.diff()
    )
    order = column.argsort(stable=True)
    counts = torch.bincount(column, minlength=columns)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
    return starts, rows[order], values[order]


def sparse(matrix: Csr, shape: Sequence[int], device: torch.device) -> Tensor:
    """A sparse tensor; on the meta device, which has none, a dense one that holds nothing."""
    if device.type == "meta":
        return torch.empty(tuple(shape), dtype=matrix[2].dtype, device=device)
    pointers, column, values = (part.to(device) for part in matrix)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            pointers, column, values, tuple(shape), check_invariants=False
        )


def sparse_pair(
    forward: Csr, back: Csr, shape: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """A matrix of `shape` and its transpose as sparse tensors."""
    return sparse(forward, shape, device), sparse(back, shape[::-1], device)


TOGETHER = 4
"""Columns that a product of a sparse matrix takes at once on a CPU. Of other numbers of them it is
half as fast, and sums in another order, so that a row would depend on how many there are."""


def by_matrix(matrix: Tensor) -> Map:
    """x to M x for every row, by the same sums whatever the number of rows."""

    def forward(x: Tensor) -> Tensor:
        n = len(x)
        more = -n % TOGETHER if x.device.type == "cpu" else 0
        return (matrix @ F.pad(x, (0, 0, 0, more)).T).T[:n] if more else (matrix @ x.T).T

    return forward


def by_rays(part: Part, views: int) -> Map:
    """Sums of weighted pixels along every ray, one view after another."""

    def forward(x: Tensor) -> Tensor:
        found = []
        for view in range(views):
            pixels, weights = part(view)
            found.append((x[:, pixels] * weights).sum(2))
        return torch.cat(found, dim=1)

    return forward


def by_rays_back(part: Part, views: int, n: int) -> Map:
    """The transpose: every ray adds its value to its n pixels, by the same weights."""

    def back(y: Tensor) -> Tensor:
        image = y.new_zeros(len(y), n)
        for view, line in enumerate(y.chunk(views, dim=1)):
            pixels, weights = part(view)
            image.index_add_(1, pixels.flatten(), (line[:, :, None] * weights).flatten(1))
        return image

    return back


def product(x: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
    """Rows x (..., n) to M x; the transpose of M serves its gradients, of any order."""
    return mapped(x, by_matrix(matrix), by_matrix(transpose))


def mapped(x: Tensor, forward: Map, back: Map) -> Tensor:
    """forward of rows x (..., n); the transpose back serves its gradients, of any order."""
    out: Tensor = _Mapped.apply(x, forward, back)  # type: ignore[no-untyped-call]
    return out


class _Mapped(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, forward: Map, back: Map) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        return forward(rows).reshape(*x.shape[:-1], -1).contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Map, Map], output: Tensor) -> None:
        ctx.maps = inputs[1:]

    @staticmethod
    def jvp(ctx: Any, x: Tensor, *_: None) -> Tensor:
        return mapped(x, *ctx.maps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        forward, back = ctx.maps
        return mapped(grads[0], back, forward), None, None
