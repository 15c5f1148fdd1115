"""A fully convolutional, noise-conditioned denoiser for images of any size.

A U-Net behind a pixel-unshuffle: full-resolution work is where a denoiser's time goes,
and the first level here runs at half resolution with four times the channels. There is no
normalisation and no attention, so an output pixel depends on the pixels within `reach` only: it is
the same whatever lies, or is padded, beyond.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class PhotoNetConfig:
    """widths: channels at 1/2, 1/4, 1/8 ... resolution. blocks: residual blocks on the way down per
    level; up_blocks: on the way up (the last level has none). embedding: width of the noise code.
    sigma_data: root mean square of clean images, for the EDM preconditioning.
    located: whether the input is followed by the four channels of `coordinates`."""

    channels: int = 3
    widths: tuple[int, ...] = (64, 128, 256)
    blocks: tuple[int, ...] = (3, 3, 3)
    up_blocks: tuple[int, ...] = (3, 2)
    embedding: int = 128
    sigma_data: float = 0.5
    located: bool = False

    def as_dict(self) -> dict[str, object]:
        """Plain values, for a file's metadata; `located` only where it is true."""
        return {k: v for k, v in asdict(self).items() if k != "located" or v}


def coordinates(h: int, w: int) -> Tensor:
    """cos(pi v), sin(pi v), cos(pi u), sin(pi u) of the pixels of an image, (1, 4, h, w).

    (v, u) is the pixel's centre, downwards and to the right, where the whole image is [0, 1]^2: the
    same place has the same coordinates at every resolution.
    """
    v, u = (math.pi * (torch.arange(n, dtype=torch.float32) + 0.5) / n for n in (h, w))
    rows, cols = v[:, None].expand(h, w), u[None].expand(h, w)
    return torch.stack([rows.cos(), rows.sin(), cols.cos(), cols.sin()])[None]


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def channels_last(net: PhotoNet) -> PhotoNet:
    """The network with weights in the memory order that convolutions like best."""
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


ROUNDED = {(48, 4): -math.inf, (64, 3): math.inf}
"""(count, index) of the frequencies that are not the nearest float32 number, but the one beside it
on this side: with them the embedded weights were trained."""


def frequencies(count: int) -> Tensor:
    """pi exp(t) for count numbers t from log 1/4 to log 16, float32, (count,).

    A fingerprint is a hash of them too, so they are made in double precision and rounded:
    `torch.linspace` and `torch.exp` differ in the last bit from one processor to another.
    """
    low, high = (float(np.float32(math.log(x))) for x in (0.25, 16.0))
    step = float(np.float32(np.float32(high - low) / np.float32(max(1, count - 1))))
    up, down = range(count // 2), range(count - 1 - count // 2, -1, -1)
    t = np.array([low + step * i for i in up] + [high - step * i for i in down], np.float32)
    exp = np.array([math.exp(x) for x in t.tolist()], np.float32)
    for (n, i), side in ROUNDED.items():
        if n == count:
            exp[i] = np.nextafter(exp[i], np.float32(side))
    return torch.from_numpy(exp * np.float32(math.pi))


class NoiseCode(nn.Module):
    """c_noise, shape (B,), to a code of shape (B, width): fixed Fourier features and a layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", frequencies(width // 2))
        self.layer = nn.Linear(width, width)

    def forward(self, c_noise: Tensor) -> Tensor:
        angle = c_noise[:, None] * self.frequencies
        return F.silu(self.layer(torch.cat([angle.cos(), angle.sin()], dim=1)))


class Block(nn.Module):
    """x + conv(silu(conv(x) (1 + gain) + bias)), gain and bias from the noise code.

    When the whole batch has one noise level, the gain is folded into the first convolution's
    weights, which saves a pass over the activations. low: convolutions in bfloat16, the sum not.
    """

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        _zero(self.modulation)
        _zero(self.second)

    def forward(self, x: Tensor, code: Tensor, low: bool = False) -> Tensor:
        gain, bias = self.modulation(code).chunk(2, dim=1)
        gain = gain + 1
        if code.shape[0] == 1:
            weight = self.first.weight * gain[0, :, None, None, None]
            h = _conv(x, weight, self.first.bias * gain[0] + bias[0], low)
        else:
            h = _conv(x, self.first.weight, self.first.bias, low)
            h = h * gain[:, :, None, None] + bias[:, :, None, None]
        h = F.silu(h, inplace=not torch.is_grad_enabled())
        return x + _conv(h, self.second.weight, self.second.bias, low)


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, low: bool) -> Tensor:
    """A convolution of 3 x 3, in bfloat16 or as it is given."""
    if low:
        x, weight = x.to(torch.bfloat16), weight.to(torch.bfloat16)
        bias = None if bias is None else bias.to(torch.bfloat16)
    return F.conv2d(x, weight, bias, padding=1)


class Blocks(nn.ModuleList):
    """Residual blocks, one after the other."""

    def __init__(self, count: int, width: int, embedding: int) -> None:
        super().__init__(Block(width, embedding) for _ in range(count))

    def forward(self, x: Tensor, code: Tensor, low: bool = False) -> Tensor:
        for block in self:
            x = block(x, code, low)
        return x


class PhotoNet(nn.Module):
    """F of the EDM preconditioning: (B, C, H, W), c_noise (B,) or (1,) to (B, C, H, W).

    A `located` network takes (B, C + 4, H, W): the image and its coordinates. H and W must be
    multiples of `stride`; c_noise of shape (1,) is shared by the batch. low: the convolutions of
    blocks in bfloat16, all else as it is.
    """

    def __init__(self, config: PhotoNetConfig) -> None:
        super().__init__()
        self.config = config
        w, e = config.widths, config.embedding
        self.code = NoiseCode(e)
        inputs = config.channels + 4 * config.located
        self.head = nn.Conv2d(4 * inputs, w[0], 3, padding=1)
        self.down = nn.ModuleList(Blocks(n, w[i], e) for i, n in enumerate(config.blocks))
        self.shrink = nn.ModuleList(
            nn.Conv2d(a, b, 2, stride=2) for a, b in zip(w[:-1], w[1:], strict=True)
        )
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in zip(w[:-1], w[1:], strict=True)
        )
        self.up = nn.ModuleList(Blocks(n, w[i], e) for i, n in enumerate(config.up_blocks))
        self.tail = nn.Conv2d(w[0], 4 * config.channels, 3, padding=1)
        _zero(self.tail)

    @property
    def stride(self) -> int:
        """Sides of the input must be multiples of this."""
        return int(2 ** len(self.config.widths))

    @property
    def reach(self) -> int:
        """Distance beyond which the input cannot change an output pixel, a multiple of stride."""
        per_block, c = 2, self.config
        reach = 2 * 2  # head and tail, at half resolution
        for i, n in enumerate(c.blocks):
            ups = c.up_blocks[i] if i < len(c.up_blocks) else 0
            reach += per_block * (n + ups) * 2 ** (i + 1)
        return (reach // self.stride + 2) * self.stride

    def forward(self, x: Tensor, c_noise: Tensor, low: bool = False) -> Tensor:
        code = self.code(c_noise)
        h = self.head(F.pixel_unshuffle(x, 2))
        skips: list[Tensor] = []
        for i, blocks in enumerate(self.down):
            h = blocks(h, code, low)
            if i < len(self.shrink):
                skips.append(h)
                h = self.shrink[i](h)
        for i in reversed(range(len(self.grow))):
            h = skips.pop() + self.grow[i](h)
            h = self.up[i](h, code, low)
        return F.pixel_shuffle(self.tail(h), 2)
