"""What all priors of a network share: how the network is evaluated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

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
    """

    net: Callable[[Tensor, Tensor], Tensor]
    checkpoint: Checkpoint = "auto"

    def set_checkpoint(self, asked: Checkpoint) -> None:
        """Set `checkpoint`. Raises InvdiffError for True where the network has no blocks."""
        asked = admitted_as(Checkpoint, asked, "checkpoint")
        if asked is True and not self.has_blocks:
            raise InvdiffError(
                f"The network {self.name} holds no lists of blocks (ModuleList or Sequential) "
                "that could be computed again; leave checkpoint out."
            )
        self.checkpoint = asked

    @property
    def has_blocks(self) -> bool:
        """Whether the network has blocks that can be computed again."""
        return isinstance(self.net, nn.Module) and bool(recompute.blocks(self.net))

    def evaluated(self, x: Tensor, time: Tensor) -> Tensor:
        """net(x, time)."""
        net, pulled = self.net, torch.is_grad_enabled() and x.requires_grad
        if not (pulled and isinstance(net, nn.Module)):
            return net(x, time)
        again = recompute.wanted(net, x, time, self.checkpoint)
        with recompute.by_blocks(net) if again else contextlib.nullcontext():
            return net(x, time)


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
