"""What lies beyond the edge of an image, and how far a kernel reads there."""

from __future__ import annotations

import torch
from torch import Tensor

from invdiff.core import InvdiffError


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


def check_boundary(boundary: str, known: tuple[str, ...]) -> None:
    """Raise InvdiffError unless boundary is one of the known ones."""
    if boundary not in known:
        raise InvdiffError(f"There is no boundary {boundary!r} here; known are {', '.join(known)}.")


def margins(kernel: Tensor, boundary: str = "unknown") -> tuple[tuple[int, int], tuple[int, int]]:
    """((above, below), (left, right)): how many pixels at each edge are not measured.

    kernel: (..., h, w); what any of several kernels reads counts. With the boundary "unknown" these
    are the pixels that it reads around a pixel, with "valid" those of its size, and else none.
    """
    size = kernel.detach().double().abs().reshape(-1, *kernel.shape[-2:]).amax(0)
    return cut(size.amax(1), boundary), cut(size.amax(0), boundary)
