"""How well a network that is being trained does on held-out images."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from invdiff.priors.photo import PhotoPrior
from invdiff.train.recipe import Recipe

VALIDATION_SIGMAS = (0.05, 0.1, 0.2, 0.5, 1.0)
TIMES = 20
"""How often in a training the held-out loss is measured."""
IMAGES, PIXELS = 64, 2**17
"""At most so many held-out images, of so many pixels in all: it costs a few steps of training."""


def some_of(crops: Tensor) -> Tensor:
    """The first of the crops (n, C, H, W), at most IMAGES with PIXELS in all, and at least one."""
    return crops[: min(IMAGES, max(1, PIXELS // (crops.shape[-2] * crops.shape[-1])))]


def interval(steps: int) -> int:
    """Steps between two measurements."""
    return max(1, steps // TIMES)


def measure(prior: PhotoPrior, crops: Tensor, recipe: Recipe) -> dict[str, Any]:
    """What the log keeps of held-out crops (n, C, H, W): their loss, and PSNR in dB by sigma."""
    found = {}
    for i, sigma in enumerate(VALIDATION_SIGMAS):
        error = _error(prior, crops, sigma, 1000 + i).square().flatten(1).mean(1)
        found[f"{sigma:g}"] = round(float(-10 * torch.log10(error / 4).mean()), 3)
    return {"held_out_loss": held_out_loss(prior, crops, recipe), "psnr": found}


def held_out_loss(prior: PhotoPrior, crops: Tensor, recipe: Recipe) -> float:
    """The training loss on crops (n, C, H, W): E (D - x0)^2 / c_out^2 over the recipe's sigmas.

    The noise levels are quantiles of the recipe's law, and the noise is always the same, so two
    values differ by the weights alone.
    """
    total = 0.0
    for i, (sigma, weight) in enumerate(levels(recipe)):
        error = float(_error(prior, crops, sigma, 2000 + i).square().mean())
        total += weight * error / prior.precond.c_out(sigma) ** 2
    return total


@torch.no_grad()
def _error(prior: PhotoPrior, x0: Tensor, sigma: float, seed: int) -> Tensor:
    """D(x0 + sigma z) - x0."""
    z = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed)).to(x0)
    return prior.denoise(x0 + sigma * z, sigma) - x0


def levels(recipe: Recipe, normal: int = 4, uniform: int = 2) -> list[tuple[float, float]]:
    """(sigma, weight) that stand for the recipe's law: middles of equally likely intervals."""
    lo, hi = math.log(recipe.sigma_min), math.log(recipe.sigma_max)
    law = NormalDist(recipe.p_mean, recipe.p_std)
    drawn = [law.inv_cdf((i + 0.5) / normal) for i in range(normal)]
    tail = [lo + (hi - lo) * (i + 0.5) / uniform for i in range(uniform)]
    found = [(x, (1 - recipe.tail) / normal) for x in drawn]
    found += [(x, recipe.tail / uniform) for x in tail]
    return [(math.exp(min(max(x, lo), hi)), weight) for x, weight in found]
