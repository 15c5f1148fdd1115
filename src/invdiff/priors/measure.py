"""The error spectrum of a prior, from its errors on clean images."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from invdiff.priors.modes import channel_basis, to_modes
from invdiff.priors.spectrum import (
    CONTRASTS,
    EDGES,
    SIGMAS,
    SPREAD,
    ErrorSpectrum,
    band_of,
    contrast,
    place_contrast,
    read,
    smooth,
)

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Powers of the effect of contrast, of which the likeliest is taken."""


@torch.no_grad()
def measure(
    denoise: Callable[[Tensor, float], Tensor],
    images: Tensor,
    sigmas: tuple[float, ...] = SIGMAS,
    seed: int = 0,
    batch: int = 8,
) -> ErrorSpectrum:
    """The error spectrum of a denoiser, from its errors on clean images.

    denoise(x, sigma): as `Prior.denoise`. images: (N, C, ..., H, W) in the prior's range, which it
    was not trained on. One evaluation for each image and sigma. For each sigma the errors are
    divided by their local factor, and what is left is averaged over bands; the factor is the mean
    square error by contrast, to the power under which the errors are likeliest as a normal law.
    """
    bands, local, share = [], [], []
    for i, sigma in enumerate(sigmas):
        g = torch.Generator().manual_seed(1_000_003 * seed + i)
        z = torch.randn(images.shape, generator=g).to(images)
        parts = zip(torch.split(images, batch), torch.split(z, batch), strict=True)
        found = torch.cat([denoise(x + sigma * n, sigma) for x, n in parts])
        b, s = _level(found - images, found, sigma)
        bands.append(b)
        local.append(s)
        share.append((found - images).double().square().mean() / sigma**2)
    return ErrorSpectrum(torch.stack(bands), torch.stack(local), torch.stack(share), sigmas)


def _level(error: Tensor, found: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """(bands, local) of one noise level."""
    where = place_contrast(contrast(found).double())
    factor = _by_contrast(error.double().square().mean(1, keepdim=True), where)
    tables = [_normalised(factor**strength, where) for strength in STRENGTHS]
    tried = [(*_whitened(error, table, where), table) for table in tables]
    bands, _, best = max(tried, key=lambda found: found[1])
    return (bands / sigma**2).clamp(1e-9, 1.0), best


def _normalised(table: Tensor, where: tuple[Tensor, Tensor]) -> Tensor:
    """A table of factors whose mean over pixels is 1."""
    return table / float(read(table, where).mean())


def _whitened(error: Tensor, table: Tensor, where: tuple[Tensor, Tensor]) -> tuple[Tensor, float]:
    """(bands of the errors over the root of S, their log-likelihood per number as a normal law)."""
    S = smooth(read(table, where), SPREAD).to(error)
    c = to_modes(error / S.sqrt())
    L = _by_band(c, error.shape)
    each = _spread_out(L, error.shape).to(c)
    return L, -0.5 * float((each.log() + c.square() / each).mean() + S.log().mean())


def _by_contrast(power: Tensor, where: tuple[Tensor, Tensor]) -> Tensor:
    """Mean of power at each contrast; where there are few pixels, that of the nearest contrast."""
    lower, share = where
    near = (lower + (share > 0.5)).flatten()
    count = torch.zeros(len(CONTRASTS), dtype=torch.float64).index_add_(
        0, near, torch.ones(near.numel(), dtype=torch.float64)
    )
    total = torch.zeros_like(count).index_add_(0, near, power.flatten())
    enough = (count > 1e-3 * near.numel()).nonzero().flatten()
    nearest = (torch.arange(len(count))[:, None] - enough).abs().argmin(1)
    mean = (total / count.clamp_min(1))[enough[nearest]]
    return mean.clamp_min(1e-12) / float(mean.clamp_min(1e-12).mean())


def _by_band(c: Tensor, shape: torch.Size) -> Tensor:
    """Mean square of coefficients (N, channels, H, W) by group and band; that of the nearest band
    where one is empty."""
    band, (_, groups) = band_of(*shape[-2:]), channel_basis(tuple(shape[1:-2]))
    out = torch.full((max(groups) + 1, len(EDGES) - 1), math.nan, dtype=torch.float64)
    for g in range(max(groups) + 1):
        power = c[:, [i for i, k in enumerate(groups) if k == g]].square().mean((0, 1))
        for b in torch.unique(band).tolist():
            out[g, b] = power[band == b].mean()
    full = (~out[0].isnan()).nonzero().flatten()
    nearest = (torch.arange(out.shape[1])[:, None] - full).abs().argmin(1)
    return out[:, full[nearest]].clamp_min(1e-14)


def _spread_out(L: Tensor, shape: torch.Size) -> Tensor:
    """Bands (groups, bands) as an array of modes (channels, H, W)."""
    _, groups = channel_basis(tuple(shape[1:-2]))
    band = band_of(*shape[-2:])
    return torch.stack([L[g][band] for g in groups])
