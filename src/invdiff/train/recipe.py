"""What decides a trained prior, in one frozen object."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from invdiff.priors.photo_net import PhotoNetConfig


@dataclass(frozen=True)
class Recipe:
    """How a denoiser is trained with the loss of Karras et al. 2022 (arXiv 2206.00364), eq. 8.

    about, limits: what the card says first and last: what is denoised; what the prior cannot know.
    shape: of the prior's images where (channels, any height, any width) does not say it.
    mode: how image files are read, "RGB" or "L" (grey). key: name of the array in an .npz file.
    window: values of the data that become -1 and 1; what lies beyond is clipped.
    exclude, hold_out: file-name prefixes that are left out, and from which validation is taken.
    hold_out_one_in: a file of a hold_out prefix is validation when the SHA-256 of its name,
        as an integer, is divisible by this. hold_out_last: of an array, so many images are.
    validation, validated: side in pixels of the centre crops that the PSNR is measured on, and
        how many of them at most.
    halves: chance that a patch comes from the image at half size (block mean): such patches
        are sharper, and free of the file's compression artefacts.
    symmetries: under which a patch may be changed: all eight of the square, left-right, or none.
    become: what patches are made into, a name in `train.become.BECOME`; "" leaves them as they are.
    scales: each batch is reduced by one of these factors (block mean), all equally likely.
    p_mean, p_std: log-normal law of sigma; tail: chance of a log-uniform sigma on
        [sigma_min, sigma_max] instead.
    batch patches of patch x patch pixels a step.
    lr rises over warmup steps, stays, and falls linearly to 0 over the last share `cooldown` of the
        steps, so that a run may be prolonged before that; ema: decay of the weights' running mean.
    grad_clip: a gradient is shortened to this many times the running mean of its norm.
    """

    name: str
    net: PhotoNetConfig
    attribution: str
    about: str = "RGB photographs of any size, on [-1, 1]"
    limits: str = ""
    shape: tuple[int | None, ...] | None = None
    mode: Literal["RGB", "L"] = "RGB"
    key: str = ""
    window: tuple[float, float] = (0, 255)
    exclude: tuple[str, ...] = ()
    hold_out: tuple[str, ...] = ()
    hold_out_one_in: int = 10
    hold_out_last: int = 0
    validation: int = 256
    validated: int = 12
    halves: float = 0.35
    symmetries: Literal["all", "mirror", "none"] = "all"
    become: str = ""
    scales: tuple[int, ...] = (1,)
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
