"""Separable operators: one small matrix along the height, one along the width."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.algebra import Spectral

LONGEST_SIDE = 1_000_000
"""Pixels of a side, and bins of a detector, at most."""


def whole(n: Any) -> bool:
    """Whether n is a whole number above 0."""
    return isinstance(n, numbers.Integral) and int(n) > 0


def checked_size(size: Any) -> tuple[int, int]:
    """size as (height, width); InvdiffError unless it is two whole numbers from 1 to a million."""
    size = tuple(size)
    if len(size) != 2 or not all(whole(n) and n <= LONGEST_SIDE for n in size):
        raise InvdiffError(
            f"An image size is (height, width) in whole pixels, 1 to 1000000, found {size}."
        )
    return int(size[0]), int(size[1])


def check_count(what: str, n: Any, most: int = 100_000) -> None:
    """Raise InvdiffError unless n, a number of `what`, is a whole number from 1 to `most`."""
    if not whole(n) or n > most:
        raise InvdiffError(f"A number of {what} is a whole number from 1 to {most}, found {n}.")


def check_iterations(n: int, tol: float) -> None:
    """Raise InvdiffError unless n bounds iterations, and tol is a relative residual below 1."""
    if not whole(n):
        raise InvdiffError(f"cg_iterations is a whole number above 0, found {n}.")
    if isinstance(tol, bool) or not isinstance(tol, int | float) or not 0 <= tol < 1:
        raise InvdiffError(f"cg_tol is a number from 0, for round-off, to below 1, found {tol}.")


def check_image(name: str, size: tuple[int, int], x_shape: tuple[int, ...]) -> None:
    """Raise InvdiffError unless images of shape x_shape (C, ..., H, W) are of the given size."""
    if len(x_shape) < 3 or tuple(x_shape[-2:]) != size:
        raise InvdiffError(
            f"{name} was made for images of {size[0]} x {size[1]} pixels, found images of shape "
            f"{tuple(x_shape)}; make the operator with the size of the images."
        )


def check_kernel(k: Tensor, ndim: int = 2) -> None:
    """Raise InvdiffError unless k is a real kernel with ndim axes, finite, whose sum is not 0.

    Negative taps, and odd or even sides, are allowed.
    """
    if k.ndim != ndim or k.numel() == 0 or k.is_complex():
        raise InvdiffError(
            f"A blur kernel is a real array of {ndim} axes with at least one tap, found shape "
            f"{tuple(k.shape)} of {k.dtype}."
        )
    k = k.detach().cpu().double()
    if not bool(torch.isfinite(k).all()):
        raise InvdiffError("The blur kernel holds NaN or infinite values; replace them.")
    if abs(float(k.sum())) <= torch.finfo(k.dtype).eps * k.numel() * float(k.abs().sum()):
        raise InvdiffError("The taps of the blur kernel sum to 0; a blur keeps constant images.")


def check_kernels(k: Tensor) -> None:
    """Raise InvdiffError unless k is one kernel (h, w), as `check_kernel` asks, or one for each
    channel, (C, h, w), or for each measurement, (M or 1, C or 1, h, w)."""
    if k.ndim not in (3, 4) or 0 in k.shape:
        check_kernel(k)
    for one in k.reshape(-1, *k.shape[-2:]):
        check_kernel(one)


def check_channels(name: str, k: Tensor, x_shape: tuple[int, ...]) -> None:
    """Raise InvdiffError unless kernels k fit images of x_shape; one kernel fits all."""
    if k.ndim == 2:
        return
    channels = k.shape[-3]
    one = k.ndim == 4 and channels == 1
    if len(x_shape) != 3 or not (one or channels == x_shape[0]):
        axes = "(channels, height, width)" if k.ndim == 3 else "(batch, channels, height, width)"
        raise InvdiffError(
            f"{name} has kernels of shape {tuple(k.shape)}, {axes}, found images of shape "
            f"{tuple(x_shape)}; give images with {'any number of' if one else channels} channels "
            "and two more axes, or one kernel (height, width) for all."
        )


def reflected(index: Tensor, n: int) -> Tensor:
    """Index into n samples of their half-sample symmetric extension d c b a | a b c d | d c b a."""
    index = index % (2 * n)
    return torch.where(index < n, index, 2 * n - 1 - index)


def mirrored(index: Tensor, n: int) -> Tensor:
    """Index into n samples of their whole-sample symmetric extension d c b | a b c d | c b a."""
    index = index % max(2 * n - 2, 1)
    return torch.where(index < n, index, 2 * n - 2 - index)


def repeated(index: Tensor, n: int) -> Tensor:
    """Index into n samples whose ends are repeated: a a a | a b c d | d d d."""
    return index.clamp(0, n - 1)


def full_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (m, k), s (k,), V (n, n) of a matrix (m, n) = U diag(s) V[:, :k]^T, k = min(m, n).

    The thin decomposition, then V completed by a QR factorisation: far cheaper than a full one.
    """
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    rest = torch.linalg.qr(vt.mT, mode="complete")[0][:, len(s) :]
    return u, s, torch.cat([vt.mT, rest], dim=1)


def times(a: Tensor, b: Tensor) -> Tensor:
    """a @ b over the last two axes, one of them being a matrix (m, k), the other a batch of planes.

    Plane by plane: where `@` makes one product of a whole batch, its rounding depends on the batch.
    """
    planes, batch = (a, a.shape[:-2]) if a.ndim > 2 else (b, b.shape[:-2])
    planes = planes.flatten(0, -3)
    left, right = (planes if t.ndim > 2 else t.expand(len(planes), *t.shape) for t in (a, b))
    return torch.bmm(left, right).reshape(*batch, a.shape[-2], b.shape[-1])


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
    def _s(self) -> Tensor:
        (_, s_left, v_left), (_, s_right, v_right) = self._left_svd, self._right_svd
        s_left = F.pad(s_left, (0, len(v_left) - len(s_left)))
        s_right = F.pad(s_right, (0, len(v_right) - len(s_right)))
        return s_left[:, None] * s_right[None, :]

    @property
    def s(self) -> Tensor:
        """Singular values, shape (H, W), float64."""
        return self._s

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


def reach(taps: Tensor) -> tuple[int, int]:
    """How many samples before and after a sample its convolution with taps (k,) reads.

    Both are at least 0. Taps at the ends that are below 1e-10 of the largest one read nothing.
    """
    size = taps.detach().cpu().double().abs()
    used = (size > 1e-10 * size.max()).nonzero().flatten() - len(taps) // 2
    return max(int(used[-1]), 0), max(-int(used[0]), 0)


def cut(taps: Tensor, boundary: str) -> tuple[int, int]:
    """How many samples at the start and at the end are not measured, since they read beyond it.

    With the boundary "unknown" as `reach` tells, with "valid" as the number of taps tells, and with
    any other none.
    """
    if boundary == "valid":
        return len(taps) - 1 - len(taps) // 2, len(taps) // 2
    return reach(taps) if boundary == "unknown" else (0, 0)


def check_reach(margins: tuple[tuple[int, int], ...], size: tuple[int, int], boundary: str) -> None:
    """Raise InvdiffError when no sample of size has all that it reads within the image."""
    if any(sum(margin) >= n for margin, n in zip(margins, size, strict=True)):
        raise InvdiffError(
            f"The kernel reads beyond the edge for every pixel of an image of {size[0]} x "
            f"{size[1]} pixels; with the boundary {boundary} nothing is measured then."
        )


def blur_matrix(taps: Tensor, n: int, boundary: str) -> Tensor:
    """Convolution of n samples with taps (k,), float64, shape (n, n).

    With the boundary "unknown" or "valid" there are rows only for samples that read nothing beyond
    the edge.
    """
    taps = taps.detach().cpu().double()
    before, after = cut(taps, boundary)
    at = torch.arange(before, n - after)
    index = at[:, None] - (torch.arange(len(taps)) - len(taps) // 2)[None, :]
    weight = taps.expand(len(at), -1)
    if boundary in ("zero", "unknown", "valid"):
        weight = torch.where((index >= 0) & (index < n), weight, 0.0)
    known = {"reflect": reflected, "mirror": mirrored, "replicate": repeated}
    how = known.get(boundary, torch.remainder)
    return torch.zeros(len(at), n, dtype=torch.float64).scatter_add_(1, how(index, n), weight)


def check_boundary(boundary: str, known: tuple[str, ...]) -> None:
    """Raise InvdiffError unless boundary is one of the known ones."""
    if boundary not in known:
        raise InvdiffError(f"There is no boundary {boundary!r} here; known are {', '.join(known)}.")


@dataclass(frozen=True, eq=False)
class SeparableBlur(Separable):
    """Convolution with the kernel outer(kernel_rows, kernel_cols).

    kernel_rows, kernel_cols: taps along the height and along the width, 1-D, of any length.
    size: (H, W) of the image. boundary: "reflect", "mirror", "replicate", "zero", "circular", or
    "unknown" and "valid", with which y holds the pixels only that read nothing beyond the edge.
    """

    kernel_rows: Tensor
    kernel_cols: Tensor
    size: tuple[int, int]
    boundary: str = "reflect"

    def __post_init__(self) -> None:
        check_kernel(self.kernel_rows, ndim=1)
        check_kernel(self.kernel_cols, ndim=1)
        known = ("reflect", "mirror", "zero", "circular", "unknown", "replicate", "valid")
        check_boundary(self.boundary, known)
        object.__setattr__(self, "size", checked_size(self.size))
        margins = tuple(cut(taps, self.boundary) for taps in (self.kernel_rows, self.kernel_cols))
        check_reach(margins, self.size, self.boundary)

    @cached_property
    def left(self) -> Tensor:
        return blur_matrix(self.kernel_rows, self.size[0], self.boundary)

    @cached_property
    def right(self) -> Tensor:
        return blur_matrix(self.kernel_cols, self.size[1], self.boundary)
