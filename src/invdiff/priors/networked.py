"""What all priors of a network share: how the network is evaluated."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from invdiff.core import InvdiffError
from invdiff.core.arguments import admitted_as
from invdiff.priors import recompute
from invdiff.priors.base import Prior
from invdiff.priors.recompute import Checkpoint


class Networked(Prior):
    """A prior of one network.

    net: F(x, time), with any state of its own in its parameters and buffers.
    checkpoint: whether gradients compute the blocks of the network again instead of keeping what
    is inside (`recompute.py`), which takes less memory and more time, and gives the same bits. auto
    decides so, when it first sees an input of a shape, where the whole would keep more than half of
    the memory that is free. Set by `set_checkpoint`.
    compiled: whether torch.compile makes what evaluates it without gradients (`set_compile`); net,
    its fingerprint and its file stay what they are.
    """

    net: Callable[[Tensor, Tensor], Tensor]
    checkpoint: Checkpoint = "auto"
    compiled: bool = False
    _fast: Callable[[Tensor, Tensor], Tensor] | None = None

    def set_checkpoint(self, asked: Checkpoint) -> None:
        """Set `checkpoint`. Raises InvdiffError for True where the network has no blocks."""
        asked = admitted_as(Checkpoint, asked, "checkpoint")
        if asked is True and not self.has_blocks:
            raise InvdiffError(
                f"The network {self.name} holds no lists of blocks (ModuleList or Sequential) "
                "that could be computed again; leave checkpoint out."
            )
        self.checkpoint = asked

    def set_compile(self, device: torch.device | str) -> None:
        """Let torch compile the network when it is first evaluated, and for each new shape of image
        again; each time takes minutes. Results change by round-off, and a sample is the same alone
        and among others but for round-off too. Gradients go through the network as it is.

        device: where it will run. Raises InvdiffError where torch.compile cannot work.
        """
        missing = compiler_missing(torch.device(device).type)
        if missing:
            raise InvdiffError(f"torch.compile needs {missing}; leave compile out.")
        self.compiled = isinstance(self.net, nn.Module)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "_fast"}  # compiled code is no data

    @property
    def has_blocks(self) -> bool:
        """Whether the network has blocks that can be computed again."""
        return isinstance(self.net, nn.Module) and bool(recompute.blocks(self.net))

    def evaluated(self, x: Tensor, time: Tensor, *more: Any) -> Tensor:
        """net(x, time, *more)."""
        net, pulled = self.net, torch.is_grad_enabled() and x.requires_grad
        if self.compiled and not pulled:
            return self._evaluated_fast(x, time, *more)
        if not (pulled and isinstance(net, nn.Module)):
            return net(x, time, *more)
        again = recompute.wanted(net, x, time, self.checkpoint)
        with recompute.by_blocks(net) if again else contextlib.nullcontext():
            return net(x, time, *more)

    def _evaluated_fast(self, x: Tensor, time: Tensor, *more: Any) -> Tensor:
        if self._fast is None:
            self._fast = torch.compile(self.net)
        try:
            with torch._C.DisableTorchFunction():  # compiled code has no modes, as `Alike`
                return self._fast(x, time, *more)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            why = str(error).strip().partition("\n")[0][:100]
            raise InvdiffError(
                f"torch could not compile the network {self.name} ({type(error).__name__}: {why}); "
                "leave compile out."
            ) from error


def compiler_missing(kind: str) -> str:
    """What torch.compile lacks on a kind of device, in words; nothing where it has all."""
    if kind == "cpu":
        known = (os.environ.get("CXX"), "g++", "clang++", "cl")
        found = any(shutil.which(name) for name in known if name)
        return "" if found else "a C++ compiler, such as g++ or clang++, which is not found"
    if kind == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton, which is not installed"
    return ""


def networks(prior: Prior) -> Iterator[Networked]:
    """The priors of a network that a prior is made of, itself among them."""
    if isinstance(prior, Networked):
        yield prior
    for part in prior.inner:
        yield from networks(part)


@contextlib.contextmanager
def recomputed(prior: Prior) -> Iterator[bool]:
    """Within it, networks that may compute their blocks again do; False where none may."""
    able = [n for n in networks(prior) if n.checkpoint == "auto" and n.has_blocks]
    for network in able:
        network.checkpoint = True
    try:
        yield bool(able)
    finally:
        for network in able:
            network.checkpoint = "auto"


@contextlib.contextmanager
def as_it_is(prior: Prior) -> Iterator[None]:
    """Within it, no network is compiled."""
    compiled = [n for n in networks(prior) if n.compiled]
    for network in compiled:
        network.compiled = False
    try:
        yield
    finally:
        for network in compiled:
            network.compiled = True
