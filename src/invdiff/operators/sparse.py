"""Sparse matrices with their transposes: products with rows of a batch, and their gradients."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Csr = tuple[Tensor, Tensor, Tensor]
"""Row pointers, columns and values of a sparse matrix."""


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


def product(x: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
    """Rows x (..., n) to M x; the transpose of M serves its gradients, of any order."""
    out: Tensor = _Product.apply(x, matrix, transpose)  # type: ignore[no-untyped-call]
    return out


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
        ctx.matrix, ctx.transpose = matrix, transpose
        rows = x.reshape(-1, x.shape[-1])
        return (matrix @ rows.T).T.reshape(*x.shape[:-1], -1).contiguous()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return product(grads[0], ctx.transpose, ctx.matrix), None, None
