"""Phase retrieval: only the magnitude of a Fourier transform is measured.

What a magnitude cannot tell: for zero-padded transforms of real images the global sign, the turn by
180 degrees, and a shift as far as the border stays empty. `resolve_ambiguity` undoes these for
scoring, with the truth in hand; it is no part of a reconstruction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.arguments import checked
from invdiff.core.rng import Rng
from invdiff.operators.algebra import Operator
from invdiff.operators.sizes import checked_size, whole


@dataclass(frozen=True, eq=False)
class PhaseRetrieval(Operator):
    """y = |F P x|: the magnitude of the centred orthonormal transform of the padded image.

    Images (B, C, H, W), real, to y (B, C, H', W') >= 0; channels are measured independently.
    oversample: zeros are put on each side, int(oversample / 8 * H) rows and int(oversample / 8 * W)
    columns: 2 pads 256 to 384, 1.5 times along each axis and 2.25 times the area (the convention of
    Chung et al. 2023, arXiv 2209.14687); 4 doubles each axis.
    unit_range: measure (x + 1) / 2 instead of x. An image on [0, 1] has no sign to lose, but most
    of its energy in one coefficient.

    Where a coefficient is exactly 0 the magnitude has no gradient, and 0 is taken. x = 0 is thus a
    stationary point of every misfit (without unit_range).
    The operator of DAPS (Zhang et al. 2025) is `PhaseRetrieval(2.0, unit_range=True)`.
    Raises InvdiffError for a negative oversampling and for images that are not (C, H, W).
    """

    oversample: float = 2.0
    unit_range: bool = False

    guesses: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.oversample <= 64:
            raise InvdiffError(
                f"Oversampling is a number of 0 or more, 64 at most, found {self.oversample}."
            )

    def padding(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of zeros on each side of an image of `size`."""
        return int(self.oversample / 8 * size[0]), int(self.oversample / 8 * size[1])

    def field(self, x: Tensor) -> Tensor:
        """F P x, complex, (B, C, H', W'), the lowest frequency in the middle."""
        rows, columns = self.padding((x.shape[-2], x.shape[-1]))
        x = (x + 1) / 2 if self.unit_range else x
        return centred_fft(F.pad(x, (columns, columns, rows, rows)))

    def __call__(self, x: Tensor) -> Tensor:
        return self.field(x).abs()

    def guess(self, y: Tensor, x_shape: tuple[int, ...]) -> Tensor:
        """|F^-1 y| without the padding: what the magnitude alone makes, as in RED-diff's code."""
        height, width = x_shape[-2:]
        rows, columns = self.padding((height, width))
        axes = (-2, -1)
        z = torch.fft.ifft2(torch.fft.ifftshift(y, dim=axes), norm="ortho")
        x = torch.fft.fftshift(z, dim=axes).abs()
        x = x[..., rows : rows + height, columns : columns + width]
        return 2 * x - 1 if self.unit_range else x

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        channels, height, width = _image(type(self).__name__, x_shape)
        rows, columns = self.padding((height, width))
        return channels, height + 2 * rows, width + 2 * columns


@dataclass(frozen=True, eq=False)
class CodedDiffraction(Operator):
    """y_k = |F (mask_k x)|: the image is seen through several known masks, one after another.

    Candes, Li, Soltanolkotabi 2015, "Phase retrieval from coded diffraction patterns", arXiv
    1310.3240. Images (B, C, H, W), real, to y (B, C, K, H, W) >= 0; centred orthonormal transform,
    no padding; channels are measured independently.
    masks: (K, H, W), real or complex. With random masks only the global sign is lost.
    Raises InvdiffError when masks have another shape, or do not fit the images.
    """

    masks: Tensor

    def __post_init__(self) -> None:
        if self.masks.ndim != 3 or not self.masks.shape[0]:
            raise InvdiffError(
                f"Diffraction masks have shape (masks, height, width), "
                f"found {tuple(self.masks.shape)}."
            )

    @classmethod
    @checked
    def random(cls, size: tuple[int, int], count: int, seed: int) -> CodedDiffraction:
        """count masks for images of size (H, W); each pixel is 1, i, -1 or -i with equal chances.

        seed: mask k is that of seed + k, whatever the count. Raises InvdiffError without masks.
        """
        if not whole(count) or count > 1000:
            raise InvdiffError(
                f"At least 1 diffraction mask is needed, a whole number up to 1000, found {count}."
            )
        like = torch.empty(count, *checked_size(size))
        quarter = (4 * Rng.of(range(seed, seed + count)).uniform(like, "mask")).long()
        return cls(torch.tensor([1, 1j, -1, -1j], dtype=torch.complex64)[quarter])

    def field(self, x: Tensor) -> Tensor:
        """F (mask_k x), complex, (B, C, K, H, W)."""
        return centred_fft(self._as("masks", x) * x.unsqueeze(-3))

    def __call__(self, x: Tensor) -> Tensor:
        return self.field(x).abs()

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        channels, height, width = _image(type(self).__name__, x_shape)
        if (height, width) != tuple(self.masks.shape[1:]):
            raise InvdiffError(
                f"The masks are for images of {self.masks.shape[1]} x {self.masks.shape[2]}, found "
                f"images of {height} x {width}; make masks of the images' size."
            )
        return channels, *self.masks.shape


def centred_fft(x: Tensor) -> Tensor:
    """Orthonormal transform over the last two axes, origin and lowest frequency in the middle."""
    axes = (-2, -1)
    z = torch.fft.fft2(torch.fft.ifftshift(x, dim=axes), norm="ortho")
    return torch.fft.fftshift(z, dim=axes)


def resolve_ambiguity(
    x: Tensor, reference: Tensor, sign: bool = True, turn: bool = True, shift: int = 0
) -> Tensor:
    """x with the sign, turn and shift of each channel that bring it nearest to the reference.

    For scoring only: it looks at the truth. x, reference: (B, C, H, W), of the same shape.
    sign: allow -x. turn: allow a turn by 180 degrees. shift: allow circular shifts by up to so many
    pixels along each axis. Every candidate is tried, and |candidate - reference| decides.
    """
    if x.shape != reference.shape:
        raise InvdiffError(
            f"Only images of one shape compare, found {tuple(x.shape)} and "
            f"{tuple(reference.shape)}."
        )
    best, highest = x, torch.full_like(x[..., :1, :1], -torch.inf)
    span = range(-shift, shift + 1)
    for turned in (x, x.flip(-2, -1)) if turn else (x,):
        for moved in (turned.roll((i, j), (-2, -1)) for i in span for j in span):
            # |+-moved - reference|^2 differs between candidates by the inner product alone
            match = (moved * reference).sum((-2, -1), keepdim=True)
            factor = match.sign() if sign else torch.ones_like(match)
            factor = torch.where(factor == 0, 1.0, factor)
            better = factor * match > highest
            best = torch.where(better, factor * moved, best)
            highest = torch.where(better, factor * match, highest)
    return best


def _image(name: str, x_shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(x_shape) != 3:
        raise InvdiffError(
            f"{name} measures images of shape (channels, height, width), found {tuple(x_shape)}."
        )
    return x_shape[0], x_shape[1], x_shape[2]
