"""Norms and densities of every sample of a batch."""

from __future__ import annotations

import math

from torch import Tensor


def batch_norm(x: Tensor) -> Tensor:
    """Euclidean norm of every sample: shape (B, 1, 1, ...) so that it broadcasts over x."""
    return x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))


def batch_dot(x: Tensor, y: Tensor) -> Tensor:
    """Real inner product Re <x, y> of every sample: shape (B, 1, 1, ...)."""
    product = (x.conj() * y).real if x.is_complex() else x * y
    return product.flatten(1).sum(1).reshape(-1, *[1] * (x.ndim - 1))


def log_normal(r: Tensor, variance: float) -> Tensor:
    """log N(r; 0, variance I) of every sample, shape (B,)."""
    n = r[0].numel()
    return -0.5 * (r.flatten(1).square().sum(1) / variance + n * math.log(2 * math.pi * variance))
