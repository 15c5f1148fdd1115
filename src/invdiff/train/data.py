"""Patches of photographs, cut on the training device from one packed array of pixels."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.train.recipes import Recipe

SUFFIXES = {".webp", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


def read_folder(folder: Path, recipe: Recipe) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Training and validation images, uint8 (H, W, 3), by the recipe's rule on file names.

    Raises InvdiffError when there are no usable images.
    """
    if not folder.is_dir():
        raise InvdiffError(f"{folder} is not a folder of images; give one with --data.")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    files = [p for p in files if not p.name.startswith(recipe.exclude or ("\0",))]

    def load(path: Path) -> np.ndarray:
        try:
            with Image.open(path) as image:
                return np.array(image.convert("RGB"))
        except Exception as error:  # Pillow raises whatever a broken file makes it meet
            raise InvdiffError(
                f"{path} cannot be read as an image ({error}); remove it from the folder."
            ) from error

    with ThreadPoolExecutor() as pool:
        images = list(pool.map(load, files))
    held = [recipe.held_out(p.name) for p in files]
    train = [im for im, h in zip(images, held, strict=True) if not h]
    valid = [im for im, h in zip(images, held, strict=True) if h]
    train = [im for im in train if min(im.shape[:2]) >= 2 * recipe.patch]
    if not train:
        raise InvdiffError(
            f"{folder} holds no training image of at least {2 * recipe.patch} pixels a side; "
            "give a folder of larger photographs."
        )
    return train, valid


def centre_crops(images: list[np.ndarray], side: int) -> Tensor | None:
    """Centre crops, (n, 3, side, side) on [-1, 1], of the images that are large enough, if any."""
    crops = []
    for im in images:
        h, w = im.shape[:2]
        if min(h, w) >= side:
            top, left = (h - side) // 2, (w - side) // 2
            crops.append(im[top : top + side, left : left + side])
    if not crops:
        return None
    stack = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float()
    return stack / 127.5 - 1


class PatchSampler:
    """Random patches (batch, 3, patch, patch) on [-1, 1]; images are chosen by their area."""

    def __init__(
        self, images: list[np.ndarray], recipe: Recipe, device: torch.device | str
    ) -> None:
        self.recipe = recipe
        full = images
        halved = [_half(im) for im in images if min(im.shape[:2]) >= 2 * recipe.patch]
        self.pools = [_Pool(full, device), _Pool(halved, device)]
        self.generator = torch.Generator(device=device)

    def __call__(self, step: int) -> Tensor:
        """The batch of a step: a function of (recipe.seed, step), so that a run can resume."""
        g, r = self.generator, self.recipe
        g.manual_seed(r.seed * 1_000_003 + step)
        n_half = round(r.halves * r.batch)
        counts = zip(self.pools, (r.batch - n_half, n_half), strict=True)
        parts = [pool.cut(n, r.patch, g) for pool, n in counts if n]
        x = torch.cat(parts).permute(0, 3, 1, 2).float() / 127.5 - 1
        device = x.device
        flip_h, flip_w, swap = torch.rand(3, len(x), 1, 1, 1, generator=g, device=device) < 0.5
        x = torch.where(flip_h, x.flip(2), x)
        x = torch.where(flip_w, x.flip(3), x)
        return torch.where(swap, x.transpose(2, 3), x)


class _Pool:
    """All images in one (pixels, 3) uint8 tensor, cut by index arithmetic."""

    def __init__(self, images: list[np.ndarray], device: torch.device | str) -> None:
        flat = np.concatenate([im.reshape(-1, 3) for im in images])
        self.pixels = torch.from_numpy(flat).to(device)
        shape = torch.tensor([im.shape[:2] for im in images], device=device)
        self.h, self.w = shape[:, 0], shape[:, 1]
        area = self.h * self.w
        self.start = area.cumsum(0) - area
        self.area = area.float()

    def cut(self, n: int, side: int, g: torch.Generator) -> Tensor:
        """n patches (n, side, side, 3), uint8."""
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
    x = image[:h, :w].astype(np.uint16)
    total = x[0::2, 0::2] + x[1::2, 0::2] + x[0::2, 1::2] + x[1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)
