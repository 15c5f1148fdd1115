"""Demosaicing: behind a colour filter array each pixel of a sensor sees one colour."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.algebra import Spectral

PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")


@dataclass(frozen=True, eq=False)
class Bayer(Spectral):
    """y[i, j] = x[colour of the filter at (i, j), i, j]; (B, 3, H, W) to a mosaic (B, 1, H, W).

    pattern: colours of the upper left 2 x 2 pixels, row by row, repeated over an image of any size;
    RGGB, BGGR, GRBG or GBRG (Bayer 1976, US patent 3971065). Videos (B, 3, T, H, W) are measured
    frame by frame.
    Decomposition: V turns the colours of each pixel cyclically, so that the one it sees stands
    first, where s = 1; the other two have s = 0. Coefficients have the shape of the images, and for
    videos (B, T, 3, H, W): the colour axis is always the third from the end.
    Raises InvdiffError for other patterns and for images that do not have 3 channels.
    """

    pattern: str = "RGGB"

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise InvdiffError(
                f"A colour filter array is one of {', '.join(PATTERNS)}, found {self.pattern!r}."
            )

    def colours(self, size: tuple[int, int]) -> Tensor:
        """The channel that each pixel of an image of size (H, W) sees: (H, W), 0, 1 or 2."""
        first = torch.tensor(["RGB".index(c) for c in self.pattern]).reshape(2, 2)
        rows, columns = (torch.arange(n) % 2 for n in size)
        return first[rows[:, None], columns[None, :]]

    def _turned(self, x: Tensor, direction: int) -> Tensor:
        """Channel m of each pixel of (..., 3, H, W) from channel m * direction + its colour."""
        casts = self.__dict__.setdefault("_casts", {})
        size = (x.shape[-2], x.shape[-1])
        key = ("turn", direction, size, x.device)
        if key not in casts:
            channel = torch.arange(3)[:, None, None]
            casts[key] = ((channel + direction * self.colours(size)) % 3).to(x.device)
        return x.gather(-3, casts[key].expand(x.shape))

    @cached_property
    def s(self) -> Tensor:
        """(1, 0, 0), shape (3, 1, 1), float64."""
        return torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)[:, None, None]

    def _seen(self, like: Tensor) -> Tensor:
        """1 where the filter of a pixel lets a channel pass, else 0: (3, H, W), or (3, 1, H, W) for
        videos, in the precision and on the device of like."""
        size = (like.shape[-2], like.shape[-1])

        def mask() -> Tensor:
            seen = torch.stack([self.colours(size) == c for c in range(3)]).to(like)
            return seen if like.ndim == 4 else seen[:, None]

        return self._once(f"seen {size} {like.ndim}", like, mask)

    def __call__(self, x: Tensor) -> Tensor:
        return (x * self._seen(x)).sum(1, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self._seen(y)

    def pinv(self, y: Tensor) -> Tensor:
        return self.adjoint(y)

    def solve(self, b: Tensor, shift: float) -> Tensor:
        return b / (self._seen(b) + shift)

    def ridge(self, y: Tensor, shift: float) -> Tensor:
        return self.adjoint(y / (1 + shift))

    def V(self, c: Tensor) -> Tensor:
        return self._turned(c, -1).movedim(-3, 1)

    def Vt(self, x: Tensor) -> Tensor:
        return self._turned(x.movedim(1, -3), 1)

    def U(self, c: Tensor) -> Tensor:
        return c[..., :1, :, :].movedim(-3, 1)

    def Ut(self, y: Tensor) -> Tensor:
        return F.pad(y.movedim(1, -3), (0, 0, 0, 0, 0, 2))

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(x_shape) not in (3, 4) or x_shape[0] != 3:
            raise InvdiffError(
                "A colour filter array is for images of shape (3, height, width) or videos of "
                f"shape (3, frames, height, width), found shape {tuple(x_shape)}."
            )
        return (1, *x_shape[1:])
