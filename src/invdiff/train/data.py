"""Batches of clean images, cut on the training device from one packed array of pixels."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.train.become import BECOME
from invdiff.train.recipe import Recipe


def to_x(pixels: Tensor, window: tuple[float, float]) -> Tensor:
    """Images (n, h, w, C) in the data's units as (n, C, h, w) on [-1, 1]."""
    low, high = window
    x = pixels.permute(0, 3, 1, 2).float().clamp(low, high)
    return (x - low) / ((high - low) / 2) - 1


def centre_crops(images: list[np.ndarray], recipe: Recipe, count: int) -> Tensor | None:
    """Centre crops of the first images that are large enough, made into what recipe.become says.

    At most count, (n, C, side, side) on [-1, 1], always the same; None where none is large enough.
    """
    side, crops = recipe.validation, list[np.ndarray]()
    for im in images:
        h, w = im.shape[:2]
        if min(h, w) >= side and len(crops) < count:
            top, left = (h - side) // 2, (w - side) // 2
            crops.append(im[top : top + side, left : left + side])
    if not crops:
        return None
    x = to_x(torch.from_numpy(np.stack(crops)), recipe.window)
    return BECOME[recipe.become](x, torch.Generator().manual_seed(recipe.seed))


class PatchSampler:
    """Random images, as the network is trained on them; files are chosen by their area."""

    def __init__(
        self, images: list[np.ndarray], recipe: Recipe, device: torch.device | str
    ) -> None:
        self.recipe = recipe
        halved = round(recipe.halves * recipe.batch)
        counts = (recipe.batch - halved, halved)
        sources = (images, [_half(im) for im in images if halved])
        self.pools = [(_Pool(im, device), n) for im, n in zip(sources, counts, strict=True) if n]
        self.generator = torch.Generator(device=device)

    def __call__(self, step: int) -> Tensor:
        """The batch of a step: a function of (recipe.seed, step), so that a run can resume."""
        g, r = self.generator, self.recipe
        g.manual_seed(r.seed * 1_000_003 + step)
        x = to_x(torch.cat([pool.cut(n, r.patch, g) for pool, n in self.pools]), r.window)
        if r.symmetries != "none":
            shape = (3, len(x), 1, 1, 1)
            flip_h, flip_w, swap = torch.rand(shape, generator=g, device=x.device) < 0.5
            x = torch.where(flip_w, x.flip(3), x)
            if r.symmetries == "all":
                x = torch.where(flip_h, x.flip(2), x)
                x = torch.where(swap, x.transpose(2, 3), x)
        x = BECOME[r.become](x, g)
        if len(r.scales) > 1:
            drawn = torch.randint(len(r.scales), (), generator=g, device=x.device)
            x = F.avg_pool2d(x, r.scales[int(drawn)])
        return x


class _Pool:
    """All images in one (pixels, C) tensor, cut by index arithmetic."""

    def __init__(self, images: list[np.ndarray], device: torch.device | str) -> None:
        flat = np.concatenate([im.reshape(-1, im.shape[2]) for im in images])
        self.pixels = torch.from_numpy(flat).to(device)
        shape = torch.tensor([im.shape[:2] for im in images], device=device)
        self.h, self.w = shape[:, 0], shape[:, 1]
        area = self.h * self.w
        self.start = area.cumsum(0) - area
        self.area = area.float()

    def cut(self, n: int, side: int, g: torch.Generator) -> Tensor:
        """n patches (n, side, side, C), in the type of the images."""
        device = self.pixels.device
        i = torch.multinomial(self.area, n, replacement=True, generator=g)
        u, v = torch.rand(2, n, generator=g, device=device)
        top = (u * (self.h[i] - side + 1)).long()
        left = (v * (self.w[i] - side + 1)).long()
        span = torch.arange(side, device=device)
        rows = top[:, None, None] + span[:, None]
        cols = left[:, None, None] + span[None, :]
        return self.pixels[self.start[i][:, None, None] + rows * self.w[i][:, None, None] + cols]


def _half(image: np.ndarray) -> np.ndarray:
    h, w = (s // 2 * 2 for s in image.shape[:2])
    wide = np.float64 if image.dtype.kind == "f" else np.int64
    x = image[:h, :w].astype(wide)
    total = x[0::2, 0::2] + x[1::2, 0::2] + x[0::2, 1::2] + x[1::2, 1::2]
    return (total / 4 if wide is np.float64 else (total + 2) // 4).astype(image.dtype)
