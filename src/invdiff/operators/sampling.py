"""Which samples of k-space are taken: masks (batch, 1, H, W), bool, True where sampled.

Lines run along the height (columns are chosen, as for a phase-encoding direction along the width);
for the other direction, make a mask of (W, H) and take its `.mT`. Random masks: row k of the batch
is the mask of seed + k, whatever the batch. Counts are exact; `acceleration` tells what a mask
really is, which can differ from the number that names it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.arguments import checked
from invdiff.core.rng import Rng
from invdiff.operators.sizes import check_count, checked_size


@checked
def acceleration(mask: Tensor) -> list[float]:
    """The true acceleration of every mask of a batch: all samples / samples taken."""
    return [1 / float(share) for share in mask.double().flatten(1).mean(1)]


def center_lines(n: int, accel: float) -> int:
    """Jalal et al. 2021: floor(8 % of n lines) up to an acceleration of 6, floor(4 %) above."""
    return math.floor((0.08 if accel <= 6 else 0.04) * n)


@checked
def equispaced(
    size: tuple[int, int], accel: float, center: int | None = None, adjusted: bool = True
) -> Tensor:
    """Columns at equal distances and a block of `center` columns in the middle, (1, 1, H, W).

    adjusted True: the distance is stretched so that, with the block, about W / accel columns are
    sampled (Zbontar et al. 2018, fastMRI). False: every accel-th column outside the block comes on
    top of the block (Jalal et al. 2021), so the true acceleration is lower than accel.
    center: by default that of `center_lines`.
    """
    height, width = checked_size(size)
    c, (first, last) = _block(width, accel, center)
    if accel > width:
        raise InvdiffError(f"Of {width} columns not every {accel:g}th can be taken; lower accel.")
    if adjusted:
        if c * accel >= width:
            raise InvdiffError(
                f"A block of {c} of {width} columns leaves nothing to space out at an acceleration "
                f"of {accel}; take fewer central columns."
            )
        distance = accel * (width - c) / (width - c * accel)
        chosen = np.arange(round(distance) // 2, width - 1, distance).round()
    else:
        others = np.array([*range(first), *range(last, width)])
        chosen = others[np.arange(0, len(others), accel).round().astype(int)]
    columns = torch.zeros(width, dtype=torch.bool)
    columns[torch.as_tensor(chosen, dtype=torch.long)] = True
    columns[first:last] = True
    return _from_columns(columns[None], height)


@checked
def random_lines(
    size: tuple[int, int], accel: float, seed: int, center: int | None = None, batch: int = 1
) -> Tensor:
    """Exactly floor(W / accel) columns: a block of `center` and uniformly random ones."""
    height, width = checked_size(size)
    return _from_columns(_drawn(torch.ones(width), accel, seed, center, batch), height)


@checked
def gaussian_lines(
    size: tuple[int, int],
    accel: float,
    seed: int,
    center: int | None = None,
    batch: int = 1,
    std: float = 15 / 128,
) -> Tensor:
    """Exactly floor(W / accel) columns: a block of `center`, and others denser in the middle.

    std: of the Gaussian density, in widths of k-space (15/128: Chung and Ye 2022). Columns are
    drawn without replacement, so the acceleration is the one that was asked for.
    """
    height, width = checked_size(size)
    return _from_columns(_drawn(_bell(width, std), accel, seed, center, batch), height)


@checked
def gaussian_points(
    size: tuple[int, int],
    accel: float,
    seed: int,
    center: int | None = None,
    batch: int = 1,
    std: float = 15 / 128,
) -> Tensor:
    """Exactly floor(H W / accel) samples: a square of side `center`, others of Gaussian density.

    std: in heights and widths of k-space. center: by default `center_lines` of the shorter side.
    """
    height, width = checked_size(size)
    density = torch.outer(_bell(height, std), _bell(width, std))
    square = _square((height, width), accel, center)
    return _weighted(density, square, _wanted(height * width, accel, square), seed, batch)[:, None]


@checked
def poisson_disc(
    size: tuple[int, int], accel: float, seed: int, center: int | None = None, batch: int = 1
) -> Tensor:
    """Exactly floor(H W / accel) samples that keep apart, denser in the middle: Poisson discs.

    Dart throwing on the grid (Cook 1986): samples in random order, each taken unless it lies within
    the disc of an earlier one. The radius grows linearly with the distance from the centre, from 1
    sample; its slope is the largest that still yields enough. A square of side `center` is full
    (by default `center_lines` of the shorter side).
    """
    height, width = checked_size(size)
    square = _square((height, width), accel, center)
    wanted = _wanted(height * width, accel, square)
    rows, cols = (2 * (torch.arange(n).double() - n // 2) / n for n in (height, width))
    far = torch.hypot(rows[:, None], cols[None, :]).numpy()
    check_count("masks", batch)
    masks = []
    for k in range(batch):
        draws = Rng.of(seed + k).uniform(torch.empty(1, height * width), "mask")
        order = draws[0].argsort(stable=True).numpy()
        low, high, best = 0.0, float(height + width), order
        for _ in range(14):
            slope = (low + high) / 2
            taken = _throw(order, 1 + slope * far, square.numpy(), wanted)
            if taken is None:
                high = slope
            else:
                low, best = slope, taken
        mask = square.clone().flatten()
        free = best[~square.flatten().numpy()[best]]
        mask[torch.as_tensor(free[: wanted - int(square.sum())])] = True
        masks.append(mask.reshape(1, height, width))
    return torch.stack(masks)


def _throw(
    order: np.ndarray, radius: np.ndarray, square: np.ndarray, wanted: int
) -> np.ndarray | None:
    """Indices of the darts that hold, in order, until `wanted` are taken; None where fewer fit."""
    height, width = radius.shape
    blocked, taken, count = square.copy(), [], int(square.sum())
    for index in order:
        r, c = divmod(int(index), width)
        if blocked[r, c]:
            continue
        if count == wanted:
            break
        taken.append(index)
        count += 1
        reach = math.ceil(radius[r, c]) - 1  # strictly within the disc
        t, b = max(r - reach, 0), min(r + reach + 1, height)
        lo, hi = max(c - reach, 0), min(c + reach + 1, width)
        rows, cols = np.ogrid[t - r : b - r, lo - c : hi - c]
        blocked[t:b, lo:hi] |= rows**2 + cols**2 < radius[r, c] ** 2
    return np.array(taken, dtype=np.int64) if count == wanted else None


def _block(n: int, accel: float, center: int | None) -> tuple[int, tuple[int, int]]:
    """(how many, (first, behind the last)) of the central lines of n."""
    c = center_lines(n, accel) if center is None else center
    if not accel >= 1 or not 0 <= c <= n:
        raise InvdiffError(
            f"An acceleration is at least 1 and a block of central lines at most {n}, found "
            f"{accel} and {c}."
        )
    return c, (n // 2 - c // 2, n // 2 - c // 2 + c)


def _square(size: tuple[int, int], accel: float, center: int | None) -> Tensor:
    """Mask (H, W) of the central square."""
    side = center_lines(min(size), accel) if center is None else center
    spans = [_block(n, accel, side)[1] for n in size]
    mask = torch.zeros(size, dtype=torch.bool)
    mask[spans[0][0] : spans[0][1], spans[1][0] : spans[1][1]] = True
    return mask


def _wanted(n: int, accel: float, block: Tensor) -> int:
    """floor(n / accel) samples; raises InvdiffError when the central block alone exceeds them."""
    wanted = math.floor(n / accel)
    if wanted < max(int(block.sum()), 1):
        raise InvdiffError(
            f"The central block holds {int(block.sum())} of the {wanted} samples that an "
            f"acceleration of {accel} allows; take a smaller block."
        )
    return wanted


def _drawn(density: Tensor, accel: float, seed: int, center: int | None, batch: int) -> Tensor:
    """floor(n / accel) of n lines with a central block, (batch, n)."""
    n = len(density)
    _, (first, last) = _block(n, accel, center)
    block = torch.zeros(n, dtype=torch.bool)
    block[first:last] = True
    return _weighted(density, block, _wanted(n, accel, block), seed, batch)


def _weighted(density: Tensor, block: Tensor, wanted: int, seed: int, batch: int) -> Tensor:
    """`wanted` places: the block, then by density without replacement; (batch, *density.shape).

    The smallest of -ln(u) / density (Efraimidis and Spirakis 2006).
    """
    check_count("masks", batch)
    n = density.numel()
    u = Rng.of(range(seed, seed + batch)).uniform(torch.empty(batch, n), "mask").double()
    keys = torch.where(block.flatten(), -1.0, -torch.log(1 - u) / density.double().flatten())
    chosen = keys.argsort(dim=1, stable=True)[:, :wanted]
    mask = torch.zeros(batch, n, dtype=torch.bool).scatter_(1, chosen, True)
    return mask.reshape(batch, *density.shape)


def _bell(n: int, std: float) -> Tensor:
    """A Gaussian density over n lines, highest at n // 2."""
    return torch.exp(-0.5 * ((torch.arange(n).double() - n // 2) / (std * n)) ** 2)


def _from_columns(columns: Tensor, height: int) -> Tensor:
    """(batch, W) to (batch, 1, H, W)."""
    return columns[:, None, None, :].expand(-1, 1, height, -1).contiguous()
