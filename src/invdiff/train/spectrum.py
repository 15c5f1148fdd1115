"""The error spectrum of a prior, measured on images that it was not trained on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError, nearest
from invdiff.priors.base import Prior
from invdiff.priors.measure import measure
from invdiff.priors.photo import PhotoPrior
from invdiff.priors.photo_net import PhotoNetConfig
from invdiff.priors.precision import LOSS, Precision
from invdiff.priors.spectrum import SIGMAS, ErrorSpectrum, isotropic
from invdiff.train.become import BECOME
from invdiff.train.data import PatchSampler, to_x
from invdiff.train.files import Images, read
from invdiff.train.recipe import Recipe
from invdiff.train.recipes import RECIPES

PATCHES, SIDE = 48, 128
"""Patches that are measured, and their side where the prior takes any size."""


def recipe_of(prior: Prior, name: str = "") -> Recipe:
    """The recipe that says how files become images of the prior: that called name, or its own.

    Other priors take pictures, grey or in colour, scaled to their range. Raises InvdiffError for a
    prior whose images are neither.
    """
    if name and name not in RECIPES:
        raise nearest(name, RECIPES, "recipe")
    if name or prior.name in RECIPES:
        return RECIPES[name or prior.name]
    channels = (prior.shape or (None,))[0] or 3
    if prior.autoencoder is not None or channels not in (1, 3) or len(prior.shape or "...") != 3:
        raise InvdiffError(
            f"The prior {prior.name} is of images that no picture file holds; tell by --recipe "
            f"what files become: {', '.join(RECIPES)}."
        )
    mode = "L" if channels == 1 else "RGB"
    return Recipe("", PhotoNetConfig(), "", mode=mode, halves=0.0, patch=1)  # type: ignore[arg-type]


def images(
    prior: Prior, recipe: Recipe, data: Path, count: int = PATCHES, without: Path | None = None
) -> Tensor:
    """Patches of what the recipe holds out, (count, *shape) in the prior's range, always the same.

    data: as for training. without: a folder of files that are left out, by their names. Where
    nothing is held out all images are taken.
    """
    if without is not None:
        names = tuple(sorted(path.name for path in without.iterdir()))
        recipe = replace(recipe, exclude=(*recipe.exclude, *names))
    train, valid = read(data, recipe)
    return patches(prior, recipe, valid or train, count)


def patches(prior: Prior, recipe: Recipe, found: Images, count: int = 0) -> Tensor:
    """Random patches of the size of the prior's images, or of SIDE, in its range; PATCHES of them
    unless told."""
    count = count or PATCHES
    free = (prior.shape or (None, None, None))[-1] is None and not recipe.become.startswith(
        "moving"
    )
    side = recipe.validation if not free else SIDE
    side = min(side, *(min(image.shape[:2]) for image in found))
    plain = replace(
        recipe, patch=side, batch=count, halves=0.0, symmetries="none", scales=(1,), validation=side
    )
    x = PatchSampler(found, plain, "cpu")(0)
    if len(prior.shape or ()) == 4:  # frames are channels of the network
        x = x.reshape(len(x), *prior.shape)  # type: ignore[misc]
    return _ranged(x, recipe, prior)


def middle(prior: Prior, image: np.ndarray, size: tuple[int, int]) -> Tensor | None:
    """The middle of an image (H, W, C) as the prior's recipe makes it, (1, C, *size) in its range;
    None where the image is smaller."""
    recipe, (h, w) = recipe_of(prior), size
    top, left = (image.shape[0] - h) // 2, (image.shape[1] - w) // 2
    if min(top, left) < 0:
        return None
    cut = torch.from_numpy(image[None, top : top + h, left : left + w].copy())
    x = BECOME[recipe.become](to_x(cut, recipe.window), torch.Generator().manual_seed(recipe.seed))
    return _ranged(x, recipe, prior)


def _ranged(x: Tensor, recipe: Recipe, prior: Prior) -> Tensor:
    low, high = prior.value_range
    return x if recipe.become else (x + 1) / 2 * (high - low) + low


def measured(prior: Prior, x: Tensor) -> ErrorSpectrum:
    """The spectrum on images x, with the fingerprint of the weights that made it.

    Of a network of ours too from which noise level on it, and its blocks, may run in bfloat16.
    """
    with torch.no_grad():
        found = replace(measure(prior.denoise, x), prior=prior.fingerprint)
    if not isinstance(prior, PhotoPrior):
        return found
    low = allowed_from(prior, x, "bfloat16")
    return replace(found, bfloat16_from=low, blocks_from=allowed_from(prior, x, "blocks"))


@torch.no_grad()
def allowed_from(prior: PhotoPrior, x: Tensor, kind: Precision) -> float | None:
    """The least of SIGMAS from which on a precision adds at most `precision.LOSS` to the error.

    x: clean images (N, *shape). kind: bfloat16, or blocks, at all levels. None where it adds more
    at the largest of SIGMAS.
    """
    asked, known, least = prior.precision, prior.spectrum, None
    if kind == "blocks":
        prior.spectrum = replace(known or isotropic(), bfloat16_from=None, blocks_from=0.0)
    try:
        for i, sigma in reversed(list(enumerate(SIGMAS))):
            z = torch.randn(x.shape, generator=torch.Generator().manual_seed(i)).to(x)
            errors = list[float]()
            for numbers in ("float32", kind):
                prior.precision = numbers
                done = torch.cat([prior.denoise(one[None], sigma) for one in x + sigma * z])
                errors.append(float((done - x).double().square().mean()))
            if 10 * math.log10(errors[1] / errors[0]) > LOSS:
                break
            least = sigma
    finally:
        prior.precision, prior.spectrum = asked, known
    return least
