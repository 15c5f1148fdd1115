"""Norms and densities of every sample of a batch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., object])


def constant(function: F) -> F:
    """Mark a function of plain numbers whose result a compiled step takes as it is.

    What `torch.compiler.assume_constant_result` does, without importing the compiler, which made
    each start of a command some 2 s longer (tests/contract/test_one_graph.py compares them).
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function


def batch_norm(x: Tensor) -> Tensor:
    """Euclidean norm of every sample: shape (B, 1, 1, ...) so that it broadcasts over x."""
    return x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))


def batch_dot(x: Tensor, y: Tensor) -> Tensor:
    """Real inner product Re <x, y> of every sample: shape (B, 1, 1, ...)."""
    axes = x.ndim
    if x.is_complex():
        x, y = (torch.view_as_real(z.resolve_conj()) for z in (x, y))
    product = x * y
    return product.flatten(1).sum(1).reshape(-1, *[1] * (axes - 1))


def times(a: Tensor, b: Tensor) -> Tensor:
    """a @ b over the last two axes, one of them being a matrix (m, k), the other a batch of planes.

    Plane by plane: where `@` makes one product of a whole batch, its rounding depends on the batch.
    """
    planes, batch = (a, a.shape[:-2]) if a.ndim > 2 else (b, b.shape[:-2])
    planes = planes.flatten(0, -3)
    left, right = (planes if t.ndim > 2 else t.expand(len(planes), *t.shape) for t in (a, b))
    return torch.bmm(left, right).reshape(*batch, a.shape[-2], b.shape[-1])


def log_normal(r: Tensor, variance: float) -> Tensor:
    """log N(r; 0, variance I) of every sample, shape (B,)."""
    n = r[0].numel()
    return -0.5 * (r.flatten(1).square().sum(1) / variance + n * math.log(2 * math.pi * variance))


def leaf(x: Tensor) -> Tensor:
    """x, detached, with a gradient of its own; also where it was made in inference mode."""
    inference = not torch.compiler.is_compiling() and x.is_inference()
    return (x.clone() if inference else x.detach()).requires_grad_()


@contextlib.contextmanager
def with_gradients() -> Iterator[None]:
    """Where gradients are recorded, whatever the caller has switched off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextlib.contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Without gradients, and the same if the caller is in inference mode or autocast."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for kind in {"cpu", device.type} - {"meta"}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextlib.contextmanager
def as_usual() -> Iterator[None]:
    """Where tensors are made as they usually are: float32 by default, with gradients if wanted.

    For what is loaded under another default, or in inference mode.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False):
            yield
    finally:
        torch.set_default_dtype(before)
