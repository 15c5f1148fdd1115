"""The score network of Song et al. 2021 (arXiv 2011.13456, appendix H): DDPM++ and NCSN++.

Residual blocks as in BigGAN, which also change the size; skip connections rescaled by sqrt(1/2);
optionally anti-aliased resampling (FIR), and a pyramid of the input that joins the encoder. Karras
et al. 2022 (arXiv 2206.00364) train the same network. UNet2DModel has no residual pyramid and no
rescaled plain blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class SongConfig:
    """channels: of the image; widths: of each level, the finest first; attention: which have it.

    base: of the first convolution; embedding: of the time, once embedded. blocks: in the encoder,
    for each level. features: of the time, random Fourier ones if `fourier`.
    pyramid: how the input joins the encoder, "none", "skip" (1 x 1 convolutions, added) or
    "residual" (3 x 3, averaged). output_skip: each level adds an image to the output, upsampled.
    fir: taps of the resampling filter. centre: images on [0, 1] become 2 x - 1.
    """

    channels: int
    widths: tuple[int, ...]
    attention: tuple[bool, ...]
    blocks: int
    base: int
    features: int
    embedding: int
    fourier: bool = False
    pyramid: str = "none"
    output_skip: bool = False
    fir: tuple[int, ...] = (1, 1)
    centre: bool = False
    classes: int = 0


class Level(nn.Module):
    """What happens at one size; encoder and decoder each use a part of it."""

    down: Block
    up: Block
    join: nn.Conv2d
    blocks: nn.ModuleList
    norm: nn.GroupNorm
    out: nn.Conv2d


class SongUNet(nn.Module):
    """F(x, time) -> (B, C, H, W), with x (B, C, H, W), time (B,) and labels (B,) or None."""

    frequencies: Tensor

    def __init__(self, config: SongConfig) -> None:
        super().__init__()
        c = self.config = config
        widths, deepest, emb = c.widths, c.widths[-1], c.embedding
        if c.fourier:
            self.register_buffer("frequencies", torch.zeros(c.features // 2))
        self.time_0, self.time_1 = nn.Linear(c.features, emb), nn.Linear(emb, emb)
        self.classes = nn.Embedding(c.classes, c.features) if c.classes else None
        self.conv_in = nn.Conv2d(c.channels, c.base, 3, padding=1)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        skips = [c.base]
        for i, width in enumerate(widths):
            level, before = Level(), (widths[i - 1] if i else c.base)
            if i:
                level.down = Block(before, before, emb, "down", c.fir)
                below = c.channels if i == 1 or c.pyramid == "skip" else widths[i - 2]
                kernel = {"skip": 1, "residual": 3}.get(c.pyramid)
                if kernel:
                    level.join = nn.Conv2d(below, before, kernel)
                skips.append(before)
            sizes = [before, *[width] * c.blocks]
            level.blocks = nn.ModuleList(
                Block(a, b, emb, attention=c.attention[i]) for a, b in pairwise(sizes)
            )
            skips += sizes[1:]
            self.encoder.append(level)
        self.middle = nn.ModuleList(
            [Block(deepest, deepest, emb, attention=True), Block(deepest, deepest, emb)]
        )
        now = deepest
        for i, width in reversed(list(enumerate(widths))):
            level = Level()
            if i < len(widths) - 1:
                level.up = Block(now, now, emb, "up", c.fir)
            blocks = []
            for j in range(c.blocks + 1):
                final = c.attention[i] and j == c.blocks
                blocks.append(Block(now + skips.pop(), width, emb, attention=final))
                now = width
            level.blocks = nn.ModuleList(blocks)
            if c.output_skip or i == 0:
                level.norm, level.out = _norm(now), nn.Conv2d(now, c.channels, 3, padding=1)
            self.decoder.append(level)

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        c = self.config
        emb = self._features(time).to(x.dtype)
        if self.classes is not None:
            emb = emb + self.classes(labels)
        emb = F.silu(self.time_1(F.silu(self.time_0(emb))))
        x = 2 * x - 1 if c.centre else x
        h, pyramid = self.conv_in(x), x
        skips = [h]
        for i, level in enumerate(cast(Iterable[Level], self.encoder)):
            if i:
                h = level.down(h, emb)
                if c.pyramid == "skip":
                    pyramid = halve(pyramid, c.fir)
                    h = h + level.join(pyramid)
                elif c.pyramid == "residual":
                    h = pyramid = (h + self._join(level.join, pyramid)) * math.sqrt(0.5)
                skips.append(h)
            for block in level.blocks:
                h = block(h, emb)
                skips.append(h)
        for block in self.middle:
            h = block(h, emb)
        out: Tensor | None = None
        for i, level in enumerate(cast(Iterable[Level], self.decoder)):
            if i:
                h = level.up(h, emb)
            for block in level.blocks:
                h = block(torch.cat([h, skips.pop()], dim=1), emb)
            if c.output_skip or i == len(self.decoder) - 1:
                image = level.out(F.silu(level.norm(h)))
                out = image if out is None else double(out, c.fir) + image
        assert out is not None
        return out

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SongUNet:
        """Moves and casts of the weights; the frequencies keep their digits."""
        exact = self.frequencies if self.config.fourier else None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if exact is not None:
            self.frequencies = exact.to(self.frequencies.device)
        return self

    def _features(self, time: Tensor) -> Tensor:
        """Sines, then cosines, of the time; (B, features)."""
        if self.config.fourier:
            phase = 2 * math.pi * time[:, None] * self.frequencies.to(time.dtype)
        else:
            n = self.config.features // 2
            rates = torch.arange(n, dtype=time.dtype, device=time.device) / (n - 1)
            phase = time[:, None] * torch.exp(-math.log(10000) * rates)
        return torch.cat([phase.sin(), phase.cos()], dim=1)

    def _join(self, conv: nn.Conv2d, pyramid: Tensor) -> Tensor:
        """Filtered and convolved, and only then every second pixel: one zero padding for both."""
        fir = self.config.fir
        pad = (len(fir) - 1) // 2 + 1
        smooth = _filter(F.pad(pyramid, (pad,) * 4), fir, stride=1)
        return F.conv2d(smooth, conv.weight, conv.bias, stride=2)


class Block(nn.Module):
    """A residual block, and self-attention with one head after it; (B, C, H, W) to (B, D, ...)."""

    def __init__(
        self,
        width: int,
        out: int,
        emb: int,
        resample: str = "",
        fir: tuple[int, ...] = (1, 1),
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.resample, self.fir = resample, fir
        self.norm_0, self.conv_0 = _norm(width), nn.Conv2d(width, out, 3, padding=1)
        self.time = nn.Linear(emb, out)
        self.norm_1, self.conv_1 = _norm(out), nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(width, out, 1) if width != out or resample else nn.Identity()
        self.attention = Attention(out) if attention else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = F.silu(self.norm_0(x))
        if self.resample:
            resize = {"down": halve, "up": double}[self.resample]
            h, x = resize(h, self.fir), resize(x, self.fir)
        h = self.conv_0(h) + self.time(emb)[:, :, None, None]
        h = self.conv_1(F.silu(self.norm_1(h)))
        out: Tensor = self.attention((self.skip(x) + h) * math.sqrt(0.5))
        return out


class Attention(nn.Module):
    """Self-attention over pixels with one head; the residual is rescaled by sqrt(1/2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.proj = _norm(width), nn.Conv2d(width, width, 1)
        self.q, self.k, self.v = (nn.Conv2d(width, width, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (f(h).flatten(2).transpose(1, 2) for f in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return (x + self.proj(h)) * math.sqrt(0.5)


def halve(x: Tensor, fir: tuple[int, ...]) -> Tensor:
    """Filter and keep every second pixel; (1, 1) is the mean of 2 x 2."""
    pad = (len(fir) - 1) // 2
    return _filter(F.pad(x, (pad,) * 4), fir, stride=2)


def double(x: Tensor, fir: tuple[int, ...]) -> Tensor:
    """The transpose of `halve`, times 4; (1, 1) repeats pixels."""
    c, pad = x.shape[1], (len(fir) - 1) // 2
    return F.conv_transpose2d(x, 4 * _kernel(x, fir), stride=2, padding=pad, groups=c)


def _filter(x: Tensor, fir: tuple[int, ...], stride: int) -> Tensor:
    return F.conv2d(x, _kernel(x, fir), stride=stride, groups=x.shape[1])


def _kernel(x: Tensor, fir: tuple[int, ...]) -> Tensor:
    """fir times fir, of sum 1, for each channel of x."""
    taps = torch.tensor(fir, dtype=x.dtype, device=x.device)
    taps = taps / taps.sum()
    return torch.outer(taps, taps).expand(x.shape[1], 1, -1, -1)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(min(width // 4, 32), 1), width, eps=1e-6)
