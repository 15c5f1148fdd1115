"""The noise floor of a photograph: what is left in its flattest parts, at several scales.

Detail of a picture varies from place to place, noise hardly does. Of all small patches the tenth
that has the least energy tells the noise, and whether there is a floor at all: among patches of
nothing but noise the lower tenth and the lower third differ by the chance of counting alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError

SIDE = 4
"""Coefficients along the side of a patch: 8 pixels at the finest scale, 16 at the next."""
FEWEST_PATCHES = 16
"""Patches below which the lower tenth is no estimate."""
WINDOW, FEW_WINDOWS = 2, 16
"""Coefficients along the side of an overlapping window, and the fewest of them for a median."""
CLIPPED = 0.004
"""Pixels nearer to 0 or 1 than one of 255 levels may be clipped, which hides noise."""
COLOURS = torch.linalg.qr(torch.tensor([[1.0, 1, 1], [1, -1, 0], [1, 1, -2]]).double().T)[0].T
"""Orthonormal axes of colour: brightness, and two of colour differences."""
FLOOR = 1.25
"""Ratio of the levels by the lower third and by the lower tenth up to which there is a floor: on
photographs with white noise it is 0.97 to 1.16, on clean ones 1.1 to 4."""


@dataclass(frozen=True)
class Floor:
    """The noise floor of one Haar band.

    sigma: level of the lower tenth of the patches, a standard deviation, as if they were noise
    alone. ratio: that of the lower third over it; NaN where sigma is 0.
    """

    sigma: float
    ratio: float

    @property
    def found(self) -> bool:
        """Whether patches agree as patches of noise do."""
        return self.sigma > 0 and self.ratio <= FLOOR


def noise_floors(image: Tensor, usable: Tensor, scales: int = 1) -> list[Floor]:
    """Floors of the diagonal Haar details at scales 1, 2, ... of `image` (C, H, W).

    Orthonormal Haar coefficients (Mallat 1989): white noise has the same level at every scale.
    usable: (H, W); patches with other pixels are left out. The list ends where fewer than 16
    patches are left, and is empty for small pictures.
    """
    if image.ndim != 3 or image.is_complex() or usable.shape != image.shape[1:]:
        raise InvdiffError(
            f"A picture is real and (C, H, W), with (H, W) usable pixels, found "
            f"{tuple(image.shape)} and {tuple(usable.shape)}."
        )
    low, found = torch.nan_to_num(image.double()), []
    for k in range(1, scales + 1):
        if min(low.shape[1:]) < 2 * SIDE:
            break
        low, detail = haar(low)
        energies = _patches(detail, usable, 2**k)
        if len(energies) < FEWEST_PATCHES:
            break
        found.append(_floor(energies, len(image) * SIDE**2))
    return found


def typical_levels(image: Tensor, usable: Tensor, scales: int) -> list[float]:
    """Levels of the diagonal Haar details at scales 1, 2, ... of `image` (C, H, W), by the median
    of overlapping windows: for an image that is mostly flat where it is usable, (H, W).

    As `noise_floors` else, which takes the lower tenth of patches that are twice as wide: less
    than the typical noise, where that varies from place to place. The list ends where fewer than
    FEW_WINDOWS are left.
    """
    low, found = torch.nan_to_num(image.double()), []
    unusable = (~usable).double()[None]
    for k in range(1, scales + 1):
        if min(low.shape[1:]) < 2 * WINDOW:
            break
        low, detail = haar(low)
        rows, columns = (int(n) for n in detail.shape[1:])
        bad = F.max_pool2d(unusable, 2**k)[:, :rows, :columns]
        bad = F.max_pool2d(bad, WINDOW, 1)[0]
        energies = F.avg_pool2d(detail.square().mean(0)[None], WINDOW, 1)[0][bad == 0]
        if len(energies) < FEW_WINDOWS:
            break
        n = len(image) * WINDOW**2
        found.append(math.sqrt(float(energies.median()) / _chi_square(n, 0.0)))
    return found


def unclipped(pixels: Tensor) -> Tensor:
    """Which pixels of (C, H, W) on [0, 1] are neither black nor white in any channel, (H, W)."""
    return ((pixels > CLIPPED) & (pixels < 1 - CLIPPED)).all(0)


def haar(x: Tensor) -> tuple[Tensor, Tensor]:
    """(coarse, diagonal detail) of (C, H, W), each at half the size, orthonormal."""
    h, w = (side // 2 * 2 for side in x.shape[1:])
    a, b, c, d = (x[:, i:h:2, j:w:2] for i in (0, 1) for j in (0, 1))
    return (a + b + c + d) / 2, (a - b - c + d) / 2


def _patches(detail: Tensor, usable: Tensor, step: int) -> Tensor:
    """Mean squares of the patches whose pixels are all usable, (N,)."""
    rows, columns = (side // SIDE for side in detail.shape[1:])
    cut = detail[:, : rows * SIDE, : columns * SIDE].square().mean(0)
    energy = F.avg_pool2d(cut[None], SIDE)[0]
    side = SIDE * step
    bad = F.max_pool2d((~usable[: rows * side, : columns * side]).float()[None], side)[0]
    return energy[bad == 0]


def _floor(energies: Tensor, n: int) -> Floor:
    tenth, third = (
        math.sqrt(float(energies.quantile(share)) / _chi_square(n, z))
        for share, z in ((0.1, -1.28155), (0.3, -0.52440))
    )
    return Floor(tenth, third / tenth if tenth > 0 else math.nan)


def _chi_square(n: int, z: float) -> float:
    """Quantile of chi-square with n degrees of freedom over n, where a normal law has the quantile
    z (Wilson and Hilferty 1931)."""
    return (1 - 2 / (9 * n) + z * math.sqrt(2 / (9 * n))) ** 3


def colour_axes(image: Tensor) -> tuple[Tensor, Tensor | None]:
    """Brightness (1, H, W) and colour differences (2, H, W) of a picture, by orthonormal axes; a
    grey picture has no differences."""
    if image.shape[0] == 1:
        return image.double(), None
    axes = torch.einsum("ij,jhw->ihw", COLOURS, image.double())
    return axes[:1], axes[1:]
