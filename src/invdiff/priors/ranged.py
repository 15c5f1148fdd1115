"""A prior of another range for images on [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from invdiff.core import Level
from invdiff.priors.base import Prior


class Ranged(Prior):
    """A prior of images on (low, high) as one of images on [-1, 1], with h = (high - low) / 2.

    D(x, sigma) = (D0(low + h (x + 1), h sigma) - low) / h - 1, where D0 is the prior that is given;
    noise levels are those of [-1, 1]. Not for priors of latents. Its error spectrum, which is told
    on its own range, is left out.
    """

    def __init__(self, prior: Prior) -> None:
        low, high = prior.value_range
        self.prior, self.low, self.half = prior, low, (high - low) / 2
        self.name, self.shape, self.presumed = prior.name, prior.shape, prior.presumed
        self.differentiable, self.learned_variance = prior.differentiable, prior.learned_variance
        self.sigma_min, self.sigma_max = prior.sigma_min / self.half, prior.sigma_max / self.half
        self.tile, self.overlap = prior.tile, prior.overlap

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return self._back(self.prior.denoise(self._given(x, 1.0), self.half * sigma))

    def denoise_v(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        x0, v = self.prior.denoise_v(self._given(x, 1.0), self.half * sigma)
        return self._back(x0), v

    def x0_vjp(
        self, xt: Tensor, level: Level, once: bool = False
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The factors h of the state and of the result cancel in the gradient."""
        x0, pull = self.prior.x0_vjp(
            self._given(xt, level.a), Level(level.a, self.half * level.s), once
        )
        return self._back(x0), pull

    def _given(self, xt: Tensor, a: float) -> Tensor:
        """a x0 + s eps on [-1, 1] as a state on the range of the prior."""
        return self.half * xt + a * (self.low + self.half)

    def _back(self, x0: Tensor) -> Tensor:
        return (x0 - self.low) / self.half - 1

    @property
    def inner(self) -> tuple[Prior, ...]:
        return (self.prior,)

    def to(self, device: torch.device | str) -> Ranged:
        return Ranged(self.prior.to(device))
