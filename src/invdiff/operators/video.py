"""Operators along the frames of videos (B, C, T, H, W): frames that are kept, frames averaged.

Every other operator of this package acts on a video frame by frame. What is measured in time and
in space is a composition: `AveragePool(2, (64, 64)) @ Frames(range(8), 16)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.algebra import Spectral
from invdiff.operators.algebra.spectral import Diagonal
from invdiff.operators.downsample import average_matrix
from invdiff.operators.separable import full_svd
from invdiff.operators.sizes import whole


def _check_video(name: str, T: int, x_shape: tuple[int, ...]) -> None:
    if len(x_shape) != 4 or x_shape[1] != T:
        raise InvdiffError(
            f"{name} was made for videos of {T} frames, shape (channels, {T}, height, width), "
            f"found shape {tuple(x_shape)}; make the operator with the video's number of frames."
        )


@dataclass(frozen=True, eq=False)
class Frames(Diagonal):
    """Some frames are known: x (B, C, T, H, W) to y (B, C, len(indices), H, W), in their order.

    indices: frames that were kept, distinct whole numbers from 0 to T - 1. length: T, all frames.
    The first frames known is prediction, the first and the last interpolation, every other one a
    higher frame rate.
    Decomposition: V = identity, s = 1 for known frames and 0 for the others, shape (T, 1, 1).
    Raises InvdiffError for frames that do not exist or are named twice, and when there is none.
    """

    indices: Sequence[int]
    length: int

    def __post_init__(self) -> None:
        indices = tuple(self.indices)
        inside = whole(self.length) and all(whole(i + 1) and i < self.length for i in indices)
        if not indices or not inside or len(set(indices)) < len(indices):
            raise InvdiffError(
                f"Known frames are distinct numbers from 0 to {self.length} - 1, at least one, "
                f"found {list(indices)}."
            )
        indices = tuple(int(i) for i in indices)
        object.__setattr__(self, "indices", indices)
        object.__setattr__(self, "length", int(self.length))

    def _index(self, like: Tensor) -> Tensor:
        """The indices on the device of like, kept there."""
        casts = self.__dict__.setdefault("_casts", {})
        key = ("index", like.device)
        if key not in casts:
            casts[key] = torch.tensor(self.indices, device=like.device)
        kept: Tensor = casts[key]
        return kept

    @cached_property
    def s(self) -> Tensor:
        """1 where a frame is known, shape (T, 1, 1), float64."""
        s = torch.zeros(self.length, 1, 1, dtype=torch.float64)
        s[list(self.indices)] = 1.0
        return s

    def __call__(self, x: Tensor) -> Tensor:
        return x.index_select(2, self._index(x))

    def adjoint(self, y: Tensor) -> Tensor:
        empty = y.new_zeros(*y.shape[:2], self.length, *y.shape[3:])
        return empty.index_copy(2, self._index(y), y)

    def pinv(self, y: Tensor) -> Tensor:
        return self.adjoint(y)

    def U(self, c: Tensor) -> Tensor:
        return self(c)

    def Ut(self, y: Tensor) -> Tensor:
        return self.adjoint(y)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        _check_video("Frames", self.length, x_shape)
        return (x_shape[0], len(self.indices), *x_shape[2:])


@dataclass(frozen=True, eq=False)
class TemporalPool(Spectral):
    """Each frame of y is the mean of `factor` frames in a row: a long exposure.

    factor: whole number from 1 to T. length: T, the frames of the video, (B, C, T, H, W) to
    (B, C, ceil(T / factor), H, W); where factor does not divide T, the last is the mean of the
    frames left.
    Raises InvdiffError for any other factor.
    """

    factor: int
    length: int

    def __post_init__(self) -> None:
        if not whole(self.length) or not whole(self.factor) or self.factor > self.length:
            raise InvdiffError(
                f"The factor must be a whole number from 1 to the number of frames, found factor "
                f"{self.factor} for {self.length} frames."
            )
        object.__setattr__(self, "factor", int(self.factor))
        object.__setattr__(self, "length", int(self.length))

    @cached_property
    def matrix(self) -> Tensor:
        """What happens along time, (ceil(T / factor), T), float64."""
        return average_matrix(self.length, self.factor)

    @cached_property
    def _svd(self) -> tuple[Tensor, Tensor, Tensor]:
        return full_svd(self.matrix)

    @property
    def left(self) -> Tensor:
        """(t, t), orthonormal."""
        return self._svd[0]

    @property
    def basis(self) -> Tensor:
        """(T, T), orthonormal."""
        return self._svd[2]

    @cached_property
    def s(self) -> Tensor:
        """Singular values, shape (T, 1, 1), float64."""
        return F.pad(self._svd[1], (0, self.length - len(self.matrix)))[:, None, None]

    def __call__(self, x: Tensor) -> Tensor:
        return _along_time(self._as("matrix", x), x)

    def adjoint(self, y: Tensor) -> Tensor:
        return _along_time(self._as("matrix", y).mT, y)

    def V(self, c: Tensor) -> Tensor:
        return _along_time(self._as("basis", c), c)

    def Vt(self, x: Tensor) -> Tensor:
        return _along_time(self._as("basis", x).mT, x)

    def U(self, c: Tensor) -> Tensor:
        return _along_time(self._as("left", c), c[:, :, : len(self.matrix)])

    def Ut(self, y: Tensor) -> Tensor:
        c = _along_time(self._as("left", y).mT, y)
        return F.pad(c, (0, 0, 0, 0, 0, self.length - len(self.matrix)))

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        _check_video("TemporalPool", self.length, x_shape)
        return (x_shape[0], len(self.matrix), *x_shape[2:])


def _along_time(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix (t, T) times every column of frames of x (B, C, T, H, W)."""
    y = matrix @ x.flatten(-2)
    return y.reshape(*y.shape[:-1], *x.shape[-2:])
