"""Classifier-free guidance: one denoiser from a conditional and an unconditional one."""

from __future__ import annotations

import torch
from torch import Tensor

from invdiff.priors.base import Prior


class Guided(Prior):
    """D = D_uncond + w (D_cond - D_uncond) (Ho and Salimans 2022, arXiv 2207.12598).

    conditional, unconditional: priors of images of one shape and range, which may share a network.
    w: weight; in the paper's notation, w here is 1 + w there. w = 1 is the conditional prior, 0 the
    unconditional one; any other w is the denoiser of no distribution. One evaluation calls the
    networks of both, but at w = 1 that of the conditional one alone.
    """

    def __init__(self, conditional: Prior, unconditional: Prior, w: float) -> None:
        self.conditional, self.unconditional, self.w = conditional, unconditional, w
        self.name, self.shape = conditional.name, conditional.shape
        self.value_range, self.presumed = conditional.value_range, conditional.presumed
        self.sigma_min = max(conditional.sigma_min, unconditional.sigma_min)
        self.sigma_max = min(conditional.sigma_max, unconditional.sigma_max)
        self.differentiable = conditional.differentiable and unconditional.differentiable

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        if sigma == 0:
            return x
        told = self.conditional.denoise(x, sigma)
        if self.w == 1:
            return told
        return torch.lerp(self.unconditional.denoise(x, sigma), told, self.w)

    @property
    def inner(self) -> tuple[Prior, ...]:
        return self.conditional, self.unconditional

    @property
    def fingerprint(self) -> str:
        """Both hashes and w."""
        return f"{self.conditional.fingerprint}-{self.unconditional.fingerprint[-8:]}-{self.w:g}"

    def to(self, device: torch.device | str) -> Guided:
        return Guided(self.conditional.to(device), self.unconditional.to(device), self.w)
