"""Whether a prior that was just loaded denoises: a wrong schedule, head or range shows at once.

A synthetic picture of overlapping discs (the dead leaves model of Lee, Mumford and Huang 2001,
whose edges, scales and flat parts are those of natural images) is noised at three levels. What the
prior makes of it is compared with the best filter that knows the picture's mean and variance v and
nothing else, whose mean squared error is v sigma^2 / (v + sigma^2).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.base import Prior
from invdiff.priors.guidance import Guided
from invdiff.priors.latent import LatentPrior

LEVELS = {0.2: (0.5, 0.9), 0.5: (0.5, 0.9), 2.0: (1.0, 2.5)}
"""Noise level, in half-ranges of the images: the error over that of the filter up to which a prior
passes, and that from which it fails. Measured: priors of natural images have 0.2, 0.2 to 0.4 and
0.5 to 0.75; of clothes alone 0.5, 0.75 and 1.7; with another schedule, prediction or scale of time
one of the three was at least 0.65, 0.65 or 1.03. Between the two limits a prior passes if it knows
its noise level: told half or twice the truth, its error is at least MARGIN times as large."""
MARGIN = 1.25
NOT_DISTILLED = "weights of EDM, not distilled ones"
"""What is presumed of a network that a consistency model may have been made of."""
PURE, SAME = 60.0, 0.02
"""A level, in half-ranges, at which nothing of the image is left, and what two denoised pictures of
pure noise may differ by (mean square over two, in half-ranges squared). A denoiser gives the mean
image both times: measured 0.003; an image drawn from each noise, as a consistency function does:
0.05 to 0.07."""
SIDE = 64
"""Of the picture for a prior of free size, rounded up to what the network takes."""
SCHEDULE = "its noise schedule (schedule, train_steps, rescale_timesteps, sde)"
HEADS, PREDICTS = "its attention (heads, attention_order)", "what it predicts (prediction)"


def check_denoises(prior: Prior) -> None:
    """InvdiffError, which says what is likely wrong, unless the prior denoises the picture.

    Three evaluations; two more at a level where the error is between its limits. Priors of latents,
    of video and of anything but images (C, H, W) pass unseen, as do levels outside of the prior's.
    """
    prior = prior.conditional if isinstance(prior, Guided) else prior
    shape = prior.shape
    if isinstance(prior, LatentPrior) or shape is None or len(shape) != 3:
        return
    if not all(map(math.isfinite, prior.value_range)) or _device(prior).type == "meta":
        return
    for n, (level, (fine, failing)) in enumerate(LEVELS.items()):
        low, high = prior.value_range
        sigma = level * (high - low) / 2
        if not prior.sigma_min <= sigma <= prior.sigma_max:
            continue
        error = _error(prior, sigma)
        found = error(1.0)
        if found <= fine:
            continue
        knows = found < failing and min(error(0.5), error(2.0)) >= MARGIN * found
        if not knows:
            raise InvdiffError(_sentence(prior, level, found, fine, n == len(LEVELS) - 1))
    if NOT_DISTILLED in prior.presumed and _draws(prior):
        raise InvdiffError(
            f"{prior.name} draws another image from each noise, so it is a distilled consistency "
            "model and no denoiser; take the EDM weights that it was made from (edm_*.pt), or load "
            "it unchecked with --no-check (check=False)."
        )


def _draws(prior: Prior) -> bool:
    """Whether two pictures of pure noise become two images, and not one mean image."""
    low, high = prior.value_range
    sigma, generator = PURE * (high - low) / 2, torch.Generator().manual_seed(0)
    noise = torch.randn(2, *_shape(prior), generator=generator).to(_device(prior))
    with torch.no_grad():
        one, two = prior.denoise(sigma * noise, sigma).float()
    return float((one - two).square().mean()) / 2 > SAME * ((high - low) / 2) ** 2


def _sentence(prior: Prior, level: float, found: float, fine: float, last: bool) -> str:
    """What to say of a prior that fails. last: at the highest level alone."""
    likely = f"{SCHEDULE} or {HEADS}"
    if last:  # eps and v are one and the same at little noise
        likely = f"{PREDICTS} or {SCHEDULE}"
    elif not found <= 1:  # worse than no network at all
        likely = f"{PREDICTS}, {HEADS}, the range of its images (centered) or {SCHEDULE}"
    told = f"presumed: {', '.join(prior.presumed)}; " if prior.presumed else ""
    return (
        f"{prior.name} does not denoise: at noise level {level:g} (in half-ranges) its error is "
        f"{found:.2g} times that of a linear filter, where a prior has less than {fine:g}; what is "
        f"likely wrong is {likely}; {told}give the right options, or load it unchecked with "
        "--no-check (check=False)."
    )


def _error(prior: Prior, sigma: float) -> Callable[[float], float]:
    """The error of the prior when it is told a multiple of sigma, over that of the filter."""
    low, high = prior.value_range
    shape = _shape(prior)
    clean = (low + high) / 2 + (high - low) / 2 * leaves(shape).double()
    noise = torch.randn(clean.shape, dtype=clean.dtype, generator=torch.Generator().manual_seed(0))
    device = _device(prior)
    v = float(clean.var(correction=0))
    filtered = v * sigma**2 / (v + sigma**2)

    def error(told: float) -> float:
        noisy = (clean + sigma * noise).float()[None].to(device)
        with torch.no_grad():
            found = prior.denoise(noisy, told * sigma).double().cpu()[0]
        return float((found - clean).square().mean()) / filtered

    return error


def _shape(prior: Prior) -> tuple[int, int, int]:
    """Of the picture: the prior's own, with sides near SIDE where they are free."""
    assert prior.shape is not None
    channels, *sides = prior.shape
    stride = getattr(getattr(prior, "net", None), "stride", 1)
    free = -(-SIDE // stride) * stride
    h, w = (free if n is None else n for n in sides)
    return channels or 3, h, w


def _device(prior: Prior) -> torch.device:
    net = getattr(prior, "net", None)
    first = next(net.parameters(), None) if isinstance(net, torch.nn.Module) else None
    return torch.device("cpu") if first is None else first.device


def leaves(shape: tuple[int, int, int], count: int = 300) -> Tensor:
    """A picture (C, H, W) on [-1, 1] of overlapping discs, the same for all time.

    Radii have the density r^-3 from side/16 to side/2.5, so that the picture looks alike at every
    scale; each disc has a grey value, a little colour and a slope. Edges are smoothed over a pixel.
    """
    channels, h, w = shape
    rng, side = np.random.default_rng(0), max(h, w)
    fine = 4 if side <= 64 else 2  # parts of a pixel
    picture = np.zeros((channels, h * fine, w * fine))
    side *= fine
    small, large = 16.0**2, 2.5**2
    for _ in range(count):
        r = side / math.sqrt(small + rng.random() * (large - small))
        y, x = rng.random(2) * picture.shape[1:]
        colour = rng.uniform(-0.6, 0.6) + 0.15 * rng.standard_normal(channels)
        slope = rng.normal(0, 0.4, 2) / side
        top, left = max(int(y - r), 0), max(int(x - r), 0)
        part = picture[:, top : int(y + r) + 2, left : int(x + r) + 2]
        dy = np.arange(top, top + part.shape[1])[:, None] - y
        dx = np.arange(left, left + part.shape[2])[None] - x
        value = colour[:, None, None] + slope[0] * dy + slope[1] * dx
        part[...] = np.where(dy**2 + dx**2 < r * r, value, part)
    blocks = picture.reshape(channels, h, fine, w, fine).mean((2, 4))
    return torch.from_numpy(np.clip(blocks, -1, 1))
