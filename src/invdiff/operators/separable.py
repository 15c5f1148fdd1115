"""Separable operators: one small matrix along the height, one along the width."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core.tensors import times
from invdiff.operators.algebra import Spectral
from invdiff.operators.dct import mode_power
from invdiff.operators.sizes import check_image


def full_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (m, k), s (k,), V (n, n) of a matrix (m, n) = U diag(s) V[:, :k]^T, k = min(m, n).

    The thin decomposition, then V completed by a QR factorisation: far cheaper than a full one.
    """
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    rest = torch.linalg.qr(vt.mT, mode="complete")[0][:, len(s) :]
    return u, s, torch.cat([vt.mT, rest], dim=1)


class Banded:
    """A matrix (m, n), float64, as blocks of rows that skip the zeros on either side.

    Decimation and blur touch few samples, so most of L x R^T is multiplication by 0. The matrix
    stays whole where blocks would save less than half of it, where it is `SMALL`, and on devices
    other than the CPU: there one large product is faster than several small ones.
    """

    ROWS = 16
    SMALL = 2**12

    def __init__(self, matrix: Tensor, like: Tensor) -> None:
        m, n = matrix.shape
        cuts = [slice(i, i + self.ROWS) for i in range(0, m, self.ROWS)]
        spans = [self._span(matrix[cut]) for cut in cuts]
        saved = len(spans) * n - 2 * sum(hi - lo for lo, hi in spans)
        if like.device.type != "cpu" or saved < 0 or m * n < self.SMALL:
            cuts, spans = [slice(0, m)], [(0, n)]
        cast = matrix.to(like.device, like.dtype)
        self.spans = spans
        self.parts = [
            cast[cut, lo:hi].contiguous() for cut, (lo, hi) in zip(cuts, spans, strict=True)
        ]

    @staticmethod
    def _span(part: Tensor) -> tuple[int, int]:
        """First column with an entry, and the one after the last."""
        used = part.ne(0).any(0).nonzero()
        return (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)

    def rows(self, x: Tensor) -> Tensor:
        """M x along the axis -2."""
        done = [times(m, x[..., a:b, :]) for m, (a, b) in zip(self.parts, self.spans, strict=True)]
        return done[0] if len(done) == 1 else torch.cat(done, dim=-2)

    def columns(self, x: Tensor) -> Tensor:
        """x M^T along the axis -1."""
        done = [times(x[..., a:b], m.mT) for m, (a, b) in zip(self.parts, self.spans, strict=True)]
        return done[0] if len(done) == 1 else torch.cat(done, dim=-1)


@dataclass(frozen=True, eq=False)
class Separable(Spectral):
    """y = L x R^T over the last two axes of images (B, C, ..., H, W).

    A subclass gives `left` L (h x H) and `right` R (w x W), float64. The decomposition of A is the
    product of theirs: coefficients keep the shape of the image, s[i, j] = s_L[i] s_R[j], zero where
    i >= min(h, H) or j >= min(w, W). `solve` and `pinv` go through it, A and its adjoint do not.
    """

    @property
    def left(self) -> Tensor:
        """L, shape (h, H), float64, on the CPU: what happens along the height."""
        raise NotImplementedError

    @property
    def right(self) -> Tensor:
        """R, shape (w, W), float64, on the CPU: what happens along the width."""
        raise NotImplementedError

    def _banded(self, name: str, transposed: bool, like: Tensor) -> Banded:
        """The matrix `name` or its transpose in the precision and on the device of like, kept."""
        kept: dict[object, Banded] = self.__dict__.setdefault("_bands", {})
        key = (name, transposed, like.dtype, like.device)
        if key not in kept:
            matrix: Tensor = getattr(self, name)
            kept[key] = Banded(matrix.mT if transposed else matrix, like)
        return kept[key]

    def __call__(self, x: Tensor) -> Tensor:
        left, right = self._banded("left", False, x), self._banded("right", False, x)
        return right.columns(left.rows(x))

    def adjoint(self, y: Tensor) -> Tensor:
        left, right = self._banded("left", True, y), self._banded("right", True, y)
        return right.columns(left.rows(y))

    def cosine_power(self, variance: Tensor) -> Tensor:
        def both() -> tuple[Tensor, Tensor]:
            return mode_power(self.left).to(variance), mode_power(self.right).mT.to(variance)

        left, right = self._once("cosine gains", variance, both)
        return left @ variance @ right

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        (h, height), (w, width) = self.left.shape, self.right.shape
        check_image(type(self).__name__, (height, width), x_shape)
        return (*x_shape[:-2], h, w)

    @cached_property
    def _left_svd(self) -> tuple[Tensor, Tensor, Tensor]:
        return full_svd(self.left)

    @cached_property
    def _right_svd(self) -> tuple[Tensor, Tensor, Tensor]:
        return self._left_svd if torch.equal(self.left, self.right) else full_svd(self.right)

    @property
    def left_u(self) -> Tensor:
        """(h, k) with orthonormal columns, k = min(h, H)."""
        return self._left_svd[0]

    @property
    def left_v(self) -> Tensor:
        """(H, H), orthonormal."""
        return self._left_svd[2]

    @property
    def right_u(self) -> Tensor:
        """(w, k) with orthonormal columns, k = min(w, W)."""
        return self._right_svd[0]

    @property
    def right_v(self) -> Tensor:
        """(W, W), orthonormal."""
        return self._right_svd[2]

    @cached_property
    def s(self) -> Tensor:
        """Singular values, shape (H, W), float64."""
        (_, s_left, v_left), (_, s_right, v_right) = self._left_svd, self._right_svd
        s_left = F.pad(s_left, (0, len(v_left) - len(s_left)))
        s_right = F.pad(s_right, (0, len(v_right) - len(s_right)))
        return s_left[:, None] * s_right[None, :]

    def V(self, c: Tensor) -> Tensor:
        return times(times(self._as("left_v", c), c), self._as("right_v", c).mT)

    def Vt(self, x: Tensor) -> Tensor:
        return times(times(self._as("left_v", x).mT, x), self._as("right_v", x))

    def seen(self, c: Tensor) -> Tensor:
        return c[..., : self.left_u.shape[1], : self.right_u.shape[1]]

    @cached_property
    def left_seen(self) -> Tensor:
        """The first k columns of left_v, (H, k)."""
        return self.left_v[:, : self.left_u.shape[1]]

    @cached_property
    def right_seen(self) -> Tensor:
        """The first k columns of right_v, (W, k)."""
        return self.right_v[:, : self.right_u.shape[1]]

    def V_seen(self, c: Tensor) -> Tensor:
        return times(times(self._as("left_seen", c), c), self._as("right_seen", c).mT)

    def Vt_seen(self, x: Tensor) -> Tensor:
        return times(times(self._as("left_seen", x).mT, x), self._as("right_seen", x))

    def solve(self, b: Tensor, shift: float) -> Tensor:
        gain = 1 / (self.seen(self._as("s", b)) ** 2 + shift) - 1 / shift
        return b / shift + self.V_seen(gain * self.Vt_seen(b))

    def _Ut_seen(self, y: Tensor) -> Tensor:
        """seen(Ut(y))."""
        return times(times(self._as("left_u", y).mT, y), self._as("right_u", y))

    def ridge(self, y: Tensor, shift: float) -> Tensor:
        s = self.seen(self._as("s", y))
        return self.V_seen(s / (s**2 + shift) * self._Ut_seen(y))

    def pinv(self, y: Tensor) -> Tensor:
        return self.V_seen(self.seen(self.inverse_spectrum(y)) * self._Ut_seen(y))

    def U(self, c: Tensor) -> Tensor:
        return times(times(self._as("left_u", c), self.seen(c)), self._as("right_u", c).mT)

    def Ut(self, y: Tensor) -> Tensor:
        left, right = self._as("left_u", y), self._as("right_u", y)
        height, width = self.s.shape
        pad = (0, width - right.shape[1], 0, height - left.shape[1])
        return F.pad(times(times(left.mT, y), right), pad)
