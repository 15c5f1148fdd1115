"""The two halves of an autoencoder that diffusers has loaded, as operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.algebra import Operator


@dataclass(frozen=True, eq=False)
class _Half(Operator):
    """Half of an autoencoder that diffusers has loaded, in its own floating type.

    A latent z stands for mean + std z of the autoencoder. factor: pixels to a side of a latent's
    pixel; multiple: of which the sides of an image must be multiples.
    """

    vae: Any
    mean: Tensor
    std: Tensor
    channels: int
    factor: int
    multiple: int

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> _Half:
        self.vae.to(device)
        return super().to(device, dtype)


@dataclass(frozen=True, eq=False)
class Decoder(_Half):
    """Latents (B, C, h, w) to images (B, 3, factor h, factor w), not clipped."""

    def __call__(self, x: Tensor) -> Tensor:
        z = x * self._as("std", x) + self._as("mean", x)
        image: Tensor = self.vae.decode(z.to(self.vae.dtype)).sample
        return image.to(x.dtype)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.vae.config.out_channels, *(self.factor * n for n in x_shape[-2:]))


@dataclass(frozen=True, eq=False)
class Encoder(_Half):
    """Images (B, 3, H, W) to the latents' mean; of a quantised code, the point before it."""

    def __call__(self, x: Tensor) -> Tensor:
        code = self.vae.encode(x.to(self.vae.dtype))
        mean = code["latents"] if "latents" in code else code.latent_dist.mode()
        return (mean.to(x.dtype) - self._as("mean", x)) / self._as("std", x)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        n, (channels, *sides) = self.multiple, x_shape
        if channels != self.vae.config.in_channels or any(side % n for side in sides):
            raise InvdiffError(
                f"This prior takes images of {self.vae.config.in_channels} channels whose sides "
                f"are multiples of {n}, but this one has {' x '.join(map(str, x_shape))}; crop or "
                "pad it."
            )
        return (self.channels, *(side // self.factor for side in sides))


def latent_scale(config: Any, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the autoencoder's latents, (1, C, 1, 1) each."""
    mean, std = config.get("latents_mean"), config.get("latents_std")
    shift = config.get("shift_factor") or 0.0
    means = torch.tensor(mean if mean and std else [shift] * channels, dtype=torch.float64)
    stds = torch.tensor(std if mean and std else [1.0] * channels, dtype=torch.float64)
    stds = stds / config.get("scaling_factor", 1.0)
    return means.reshape(1, -1, 1, 1), stds.reshape(1, -1, 1, 1)
