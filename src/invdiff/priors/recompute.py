"""Gradients through a network in less memory: its blocks are computed again instead of kept.

Between the two passes only what enters each block is kept, and the backward pass computes a block
again when it comes to it (gradient checkpointing, Chen et al. 2016, arXiv 1604.06174). The numbers
are the same bit for bit; the time is that of one more forward pass.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from invdiff.core.alike import AlikeAsNow
from invdiff.core.memory import available

Checkpoint = Literal["auto", True, False]
"""Whether blocks are computed again: auto where what the whole network would keep for the backward
pass is more than `SHARE` of the memory that is free."""
SHARE = 0.5

_DECIDED: weakref.WeakKeyDictionary[nn.Module, dict[Any, bool]] = weakref.WeakKeyDictionary()
"""What `auto` decided, for each network and input."""


def blocks(net: nn.Module) -> list[nn.Module]:
    """The blocks of a network: innermost entries of its lists (ModuleList, Sequential) that hold
    two layers with weights or more. None where it has no such lists."""
    return list(_inside(net, listed=False))


def _inside(module: nn.Module, listed: bool) -> Iterator[nn.Module]:
    lists = isinstance(module, nn.ModuleList | nn.Sequential)
    found = [block for child in module.children() for block in _inside(child, lists)]
    if not found and listed and type(module) is not nn.ModuleList:
        layers = sum(1 for part in module.modules() if part._parameters)
        if layers > 1 and "forward" not in vars(module):
            found = [module]
    yield from found


def wanted(net: nn.Module, x: Tensor, time: Tensor, asked: Checkpoint) -> bool:
    """Whether blocks are computed again for net(x, time): for `auto`, as was decided when such an
    input was first seen."""
    if asked != "auto":
        return asked
    decided = _DECIDED.setdefault(net, {})
    key = (tuple(x.shape), x.dtype, x.device)
    if key not in decided:
        decided[key] = kept(net, x, time) > SHARE * available(x.device)
    return decided[key]


def kept(net: nn.Module, x: Tensor, time: Tensor) -> float:
    """Bytes that net(x, time) keeps for its backward pass, counted on tensors without numbers:
    too many where a device has a form of attention that keeps less. 0 where the network cannot be
    evaluated on such tensors."""
    found: dict[int, Any] = {}

    def note(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        found[storage._cdata] = storage
        return t

    own = (*net.named_parameters(remove_duplicate=False), *net.named_buffers())
    weights = {name: torch.empty_like(value, device="meta") for name, value in own}
    given = x.detach().to("meta").requires_grad_(), time.to("meta")
    try:
        with torch.enable_grad(), saved_tensors_hooks(note, lambda t: t):
            torch.func.functional_call(net, weights, given)
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return 0.0
    for value in weights.values():
        found.pop(value.untyped_storage()._cdata, None)
    return float(sum(storage.nbytes() for storage in found.values()))


@contextlib.contextmanager
def by_blocks(net: nn.Module) -> Iterator[None]:
    """Within it, the network keeps what enters its blocks."""
    parts = blocks(net)
    for part in parts:
        part.forward = partial(again, part.forward)
    try:
        yield
    finally:
        for part in parts:
            vars(part).pop("forward", None)


def again(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """forward(*args, **kwargs), of which nothing is kept but what enters it."""
    contexts = contextlib.nullcontext(), AlikeAsNow()
    return checkpoint(
        forward, *args, use_reentrant=False, preserve_rng_state=False,
        context_fn=lambda: contexts, **kwargs,
    )  # fmt: skip
