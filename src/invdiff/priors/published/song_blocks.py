"""What the score network of Song et al. 2021 (arXiv 2011.13456, appendix H) is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Style:
    """What all blocks of a network share. emb: channels of the embedded time; fir: taps of the
    filter; gain: what the sum of a block and its skip connection is multiplied by; groups: of the
    norms, at most; least: channels of a group, at least."""

    emb: int
    fir: tuple[int, ...] = (1, 1)
    gain: float = math.sqrt(0.5)
    groups: int = 32
    least: int = 4

    def norm(self, width: int) -> nn.GroupNorm:
        return nn.GroupNorm(max(min(width // self.least, self.groups), 1), width, eps=1e-6)


class Block(nn.Module):
    """A residual block, and self-attention with one head after it; (B, C, H, W) to (B, D, ...)."""

    def __init__(
        self, width: int, out: int, style: Style, resample: str = "", attention: bool = False
    ) -> None:
        super().__init__()
        self.resample, self.fir, self.gain = resample, style.fir, style.gain
        self.norm_0, self.conv_0 = style.norm(width), nn.Conv2d(width, out, 3, padding=1)
        self.time = nn.Linear(style.emb, out)
        self.norm_1, self.conv_1 = style.norm(out), nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(width, out, 1) if width != out or resample else nn.Identity()
        self.attention = Attention(out, style) if attention else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = F.silu(self.norm_0(x))
        if self.resample:
            resize = {"down": halve, "up": double}[self.resample]
            h, x = resize(h, self.fir), resize(x, self.fir)
        h = self.conv_0(h) + self.time(emb)[:, :, None, None]
        h = self.conv_1(F.silu(self.norm_1(h)))
        out: Tensor = self.attention((self.skip(x) + h) * self.gain)
        return out


class Attention(nn.Module):
    """Self-attention over pixels with one head."""

    def __init__(self, width: int, style: Style) -> None:
        super().__init__()
        self.gain = style.gain
        self.norm, self.proj = style.norm(width), nn.Conv2d(width, width, 1)
        self.q, self.k, self.v = (nn.Conv2d(width, width, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (f(h).flatten(2).transpose(1, 2) for f in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return (x + self.proj(h)) * self.gain


class Resize(nn.Conv2d):
    """A 3 x 3 convolution that changes the side: to half, padded below and to the right, or to
    twice, after each pixel was repeated. The time is not used."""

    def __init__(self, width: int, resample: str) -> None:
        down = resample == "down"
        super().__init__(width, width, 3, stride=2 if down else 1, padding=0 if down else 1)
        self.down = down

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        if self.down:
            return super().forward(F.pad(x, (0, 1, 0, 1)))
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def halve(x: Tensor, fir: tuple[int, ...]) -> Tensor:
    """Filter and keep every second pixel; (1, 1) is the mean of 2 x 2."""
    pad = (len(fir) - 1) // 2
    return filtered(F.pad(x, (pad,) * 4), fir, stride=2)


def double(x: Tensor, fir: tuple[int, ...]) -> Tensor:
    """The transpose of `halve`, times 4; (1, 1) repeats pixels."""
    c, pad = x.shape[1], (len(fir) - 1) // 2
    return F.conv_transpose2d(x, 4 * _kernel(x, fir), stride=2, padding=pad, groups=c)


def filtered(x: Tensor, fir: tuple[int, ...], stride: int) -> Tensor:
    """Each channel convolved with the filter."""
    return F.conv2d(x, _kernel(x, fir), stride=stride, groups=x.shape[1])


def _kernel(x: Tensor, fir: tuple[int, ...]) -> Tensor:
    """fir times fir, of sum 1, for each channel of x."""
    taps = torch.tensor(fir, dtype=x.dtype, device=x.device)
    taps = taps / taps.sum()
    return torch.outer(taps, taps).expand(x.shape[1], 1, -1, -1)
