"""Recipes: everything that decides a trained prior, in one frozen object each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from invdiff.core import InvdiffError
from invdiff.priors.photo_net import PhotoNetConfig


@dataclass(frozen=True)
class Recipe:
    """How a denoiser is trained with the loss of Karras et al. 2022 (arXiv 2206.00364), eq. 8.

    exclude, hold_out: file-name prefixes that are left out, and from which validation is taken.
    hold_out_one_in: a file of a hold_out prefix is validation when the SHA-256 of its name,
        as an integer, is divisible by this.
    halves: chance that a patch comes from the image at half size (block mean): such patches
        are sharper, and free of the file's compression artefacts.
    p_mean, p_std: log-normal law of sigma; tail: chance of a log-uniform sigma on
        [sigma_min, sigma_max] instead.
    batch patches of patch x patch pixels a step, flipped and transposed at random.
    lr rises over warmup steps, stays, and falls linearly to 0 over the last share `cooldown` of the
        steps, so that a run may be prolonged before that; ema: decay of the weights' running mean.
    grad_clip: a gradient is shortened to this many times the running mean of its norm.
    """

    name: str
    net: PhotoNetConfig
    attribution: str
    exclude: tuple[str, ...] = ()
    hold_out: tuple[str, ...] = ()
    hold_out_one_in: int = 10
    halves: float = 0.35
    p_mean: float = -1.2
    p_std: float = 1.4
    tail: float = 0.1
    sigma_min: float = 0.002
    sigma_max: float = 160.0
    patch: int = 96
    batch: int = 16
    steps: int = 10_600
    warmup: int = 300
    cooldown: float = 0.3
    lr: float = 4e-4
    grad_clip: float = 2.0
    ema: float = 0.999
    seed: int = 0

    def held_out(self, name: str) -> bool:
        """Whether the file `name` is validation, and so never trained on."""
        digest = int.from_bytes(hashlib.sha256(name.encode()).digest(), "big")
        return name.startswith(self.hold_out) and digest % self.hold_out_one_in == 0


PHOTO = Recipe(
    name="photo",
    net=PhotoNetConfig(),
    exclude=("cloth-",),
    hold_out=("cid22-", "clic-"),
    attribution=(
        "Trained on free-software desktop wallpapers (CC0, CC-BY, CC-BY-SA and Unsplash licences; "
        "projects Budgie, elementary OS, deepin, Cutefish, Solus, MATE, Ubuntu MATE, Pop!_OS), the "
        "training part of CID22 (Cloudinary Image Dataset '22, CC-BY-SA-4.0) and photographs of "
        "CLIC 2025 (Unsplash licence)."
    ),
)

RECIPES = {r.name: r for r in (PHOTO,)}


def recipe(name: str) -> Recipe:
    """The recipe called name. Raises InvdiffError when there is none."""
    if name not in RECIPES:
        raise InvdiffError(f"There is no recipe called {name!r}; known are {', '.join(RECIPES)}.")
    return RECIPES[name]
