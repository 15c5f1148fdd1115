"""Preconditioners of operators that do nearly the same everywhere in an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from invdiff.operators.algebra.linear import Linear

FLOOR = 1e-2
"""Smallest gain of a frequency that is taken, as a share of the largest: what the edges of an image
make of frequencies that its middle does not pass. It was chosen by trials, which are not reported,
on the CT and blur problems of `benchmarks/overhead.py --problems`."""


def circulant(A: Linear, like: Tensor, shift: float) -> Callable[[Tensor], Tensor]:
    """r -> an approximation of (A^T A + shift)^-1 r for images (B, ..., H, W) like `like`.

    A^T A is replaced by the convolution with its response to an impulse in the middle of the
    image, whose Fourier transform divides (Chan and Ng 1996, SIAM Review 38, 427); zeros of a
    quarter of the image part opposite edges. Symmetric and positive definite. Channels are taken
    to be measured each by itself.
    """
    gain = A._once(f"circulant {tuple(like.shape[1:])}", like, lambda: _gain(A, like))
    height, width = like.shape[-2:]
    grid = _grid(like)

    def filtered(r: Tensor, gain: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(r, s=grid) / (gain + shift)
        return torch.fft.irfft2(spectrum, s=grid)[..., :height, :width]

    def precondition(r: Tensor) -> Tensor:
        if r.device.type != "cpu":
            return filtered(r, gain)
        # one by one: a transform of several rounds otherwise, and iterations enlarge it
        gains = torch.split(gain.expand(len(r), *gain.shape[1:]), 1)
        return torch.cat([filtered(*row) for row in zip(torch.split(r, 1), gains, strict=True)])

    return precondition


def _grid(like: Tensor) -> tuple[int, int]:
    height, width = like.shape[-2:]
    return height + height // 4, width + width // 4


def _gain(A: Linear, like: Tensor) -> Tensor:
    """What A^T A does to each frequency in the middle of the image: (rows of A, ..., grid)."""
    height, width = like.shape[-2:]
    rows, columns = _grid(like)
    impulse = like.new_zeros(A.batch_rows, *like.shape[1:])
    impulse[..., height // 2, width // 2] = 1
    with torch.no_grad():
        answer = A.adjoint(A(impulse))
    around = torch.nn.functional.pad(answer, (0, columns - width, 0, rows - height))
    around = torch.roll(around, (-(height // 2), -(width // 2)), (-2, -1))
    gain = torch.fft.rfft2(around).real
    return gain.clamp_min(FLOOR * float(gain.max()))
