"""The classical answer that a trained denoiser is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from invdiff.priors.base import Prior


class Wiener(Prior):
    """E[x0 | x0 + sigma eps] of a stationary Gaussian law on a torus: the Wiener filter.

    images: (n, C, H, W) to take the mean of every channel and the power spectrum from. All channels
    and frequencies are uncorrelated. This is the best denoiser that is linear and the same at
    every pixel.
    """

    name = "wiener"

    def __init__(self, images: Tensor) -> None:
        self.shape = tuple(images.shape[1:])
        self.mean = images.mean((0, 2, 3), keepdim=True)
        spectrum = torch.fft.rfft2(images - self.mean, norm="ortho")
        self.power = spectrum.abs().square().mean(0, keepdim=True)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        gain = self.power / (self.power + sigma**2)
        done = torch.fft.irfft2(gain * torch.fft.rfft2(x - self.mean, norm="ortho"), x.shape[-2:],
                                norm="ortho")  # fmt: skip
        return self.mean + done
