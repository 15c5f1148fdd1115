"""Radio interferometry: the Fourier transform of an image at any given frequencies.

Each pair of telescopes measures one Fourier coefficient of the sky, a visibility, at a frequency
(u, v) that follows from their separation as seen from the source. The Earth's rotation moves it.
Frequencies are in cycles per field of view, so whole numbers are those of the discrete transform.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.arguments import checked
from invdiff.operators.algebra import Linear
from invdiff.operators.sizes import check_count, checked_size
from invdiff.operators.stations import check_radius

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Interferometry(Linear):
    """Visibilities, y_m = (H W)^-1/2 sum over pixels of x exp(-2 pi i (u_m p / W + v_m q / H)).

    p and q count columns and rows from the pixel (H // 2, W // 2): there is the phase centre.
    uv: (1 or B, M, 2), real: u along columns and v along rows, in cycles per field of view.
    size: (H, W). Images are real, (B, C, H, W), each channel by itself; y is complex, (B, C, M).
    On whole numbers, each once, it is the centred orthonormal Fourier transform, sampled there.
    Noise: `GaussianNoise(sigma)` gives each part of a visibility, real and imaginary, sigma.
    It costs M H W multiplications, and keeps nothing larger than M (H + W).
    Raises InvdiffError for uv of another shape, and for images of another size.
    """

    uv: Tensor
    size: Size

    batched: ClassVar[tuple[str, ...]] = ("uv",)

    def __post_init__(self) -> None:
        uv = self.uv
        if uv.ndim != 3 or uv.shape[2] != 2 or 0 in uv.shape or not uv.is_floating_point():
            raise InvdiffError(
                "Frequencies have shape (batch or 1, count, 2), real, found "
                f"{tuple(uv.shape)} of {uv.dtype}."
            )
        object.__setattr__(self, "size", checked_size(self.size))

    def _phases(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """exp(-2 pi i v q / H) / sqrt(H), (B, M, H), and the same for u, (B, M, W)."""
        dtype = like.real.dtype if like.is_complex() else like.dtype
        found = []
        for axis, n in ((1, self.size[0]), (0, self.size[1])):
            place = torch.arange(n, dtype=torch.float64, device=like.device) - n // 2
            f = self.uv[..., axis, None].to(like.device, torch.float64)
            phase = torch.polar(torch.full_like(f * place, n**-0.5), -2 * math.pi / n * f * place)
            found.append(phase.to(dtype.to_complex()))
        return found[0], found[1]

    def __call__(self, x: Tensor) -> Tensor:
        rows, columns = self._phases(x)
        z = x.to(rows.dtype) @ columns[:, None].mT  # (B, C, H, M)
        return torch.einsum("bchm,bmh->bcm", z, rows.expand(len(x), -1, -1))

    def adjoint(self, y: Tensor) -> Tensor:
        rows, columns = self._phases(y)
        spread = rows.conj().mT[:, None] * y.to(rows.dtype)[..., None, :]  # (B, C, H, M)
        return (spread @ columns.conj()[:, None]).real

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(x_shape) != 3 or tuple(x_shape[1:]) != tuple(self.size):
            raise InvdiffError(
                f"This array observes images of (channels, {self.size[0]}, {self.size[1]}), found "
                f"images of shape {tuple(x_shape)}."
            )
        return (x_shape[0], self.uv.shape[1])


@checked
def grid_uv(mask: Tensor) -> Tensor:
    """The frequencies, (1, M, 2), float64, that are marked in a centred Fourier plane.

    mask: (H, W), nonzero where measured; the frequency 0 stands at (H // 2, W // 2).
    """
    if mask.ndim != 2 or not bool((mask != 0).any()):
        raise InvdiffError(
            "A mask of frequencies is (height, width) and marks at least one, found shape "
            f"{tuple(mask.shape)} with {int((mask != 0).sum())} marks."
        )
    q, p = mask.nonzero(as_tuple=True)
    uv = torch.stack([p - mask.shape[1] // 2, q - mask.shape[0] // 2], dim=1)
    return uv[None].double()


@checked
def low_frequencies(size: Size, count: int) -> Tensor:
    """A mask (H, W) of the count x count lowest frequencies of the centred Fourier plane."""
    size = checked_size(size)
    if not 1 <= count <= min(size):
        raise InvdiffError(f"An image of {size} has no {count} x {count} lowest frequencies.")
    mask = torch.zeros(size, dtype=torch.bool)
    top, left = (n // 2 - count // 2 for n in size)
    mask[top : top + count, left : left + count] = True
    return mask


@checked
def random_uv(count: int, radius: float, seed: int = 0) -> Tensor:
    """`count` frequencies (1, count, 2), uniform in a disc of the given radius, float64."""
    check_count("frequencies", count, 10_000_000)
    check_radius(radius)
    if seed < 0:
        raise InvdiffError(f"A seed of frequencies is 0 or more, found {seed}.")
    rng = np.random.default_rng(seed)
    r, angle = radius * np.sqrt(rng.random(count)), 2 * math.pi * rng.random(count)
    return torch.from_numpy(np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1))[None]
