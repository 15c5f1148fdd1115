"""A prior of few channels for images of many: complex images, coils, spectra."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from invdiff.core import InvdiffError, Level
from invdiff.priors.base import Prior


class PerChannel(Prior):
    """The prior of `channels` channels, applied to every group of as many channels by itself.

    With a prior of grey images, a complex image (2 channels) has its real and its imaginary part
    denoised apart (Chung and Ye 2022). Groups go through the network as further batch rows: one
    evaluation costs as many as there are groups.
    """

    def __init__(self, prior: Prior, channels: int = 1) -> None:
        self.prior, self.channels = prior, channels
        self.name = f"{prior.name}-per-channel"
        self.shape = None if prior.shape is None else (None, *prior.shape[1:])
        self.value_range, self.differentiable = prior.value_range, prior.differentiable
        self.sigma_min, self.sigma_max = prior.sigma_min, prior.sigma_max

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return self.prior.denoise(self._rows(x), sigma).reshape(x.shape)

    def x0_vjp(
        self, xt: Tensor, level: Level, once: bool = False
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        x0, pull = self.prior.x0_vjp(self._rows(xt), level, once)
        return x0.reshape(xt.shape), lambda v: pull(self._rows(v)).reshape(v.shape)

    def _rows(self, x: Tensor) -> Tensor:
        """(B, G C, ...) as (B G, C, ...)."""
        if x.shape[1] % self.channels:
            raise InvdiffError(
                f"{self.name} takes groups of {self.channels} channels, found {x.shape[1]}; give "
                "images whose channels are a multiple."
            )
        return x.reshape(-1, self.channels, *x.shape[2:])

    @property
    def inner(self) -> tuple[Prior, ...]:
        return (self.prior,)

    def to(self, device: torch.device | str) -> PerChannel:
        return PerChannel(self.prior.to(device), self.channels)
