"""The score network of Song et al. 2021 (arXiv 2011.13456, appendix H): DDPM++ and NCSN++.

Residual blocks as in BigGAN, which also change the size; skip connections rescaled by sqrt(1/2);
optionally anti-aliased resampling (FIR), and a pyramid of the input that joins the encoder. Karras
et al. 2022 (arXiv 2206.00364) train the same network. Song's version of DDPM's network is the same
but for blocks that are not rescaled. UNet2DModel has no residual pyramid and no
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

from invdiff.priors.published.song_blocks import Block, Resize, Style, double, filtered, halve


@dataclass(frozen=True)
class SongConfig:
    """channels: of the image; widths: of each level, the finest first; attention: which have it.

    base: of the first convolution; embedding: of the time, once embedded. blocks: in the encoder,
    for each level. features: of the time, random Fourier ones if `fourier`.
    pyramid: how the input joins the encoder, "none", "skip" (1 x 1 convolutions, added) or
    "residual" (3 x 3, averaged). output_skip: each level adds an image to the output, upsampled.
    fir: taps of the resampling filter. centre: images on [0, 1] become 2 x - 1. rescale: sums of a
    block and its skip connection are multiplied by sqrt(1/2). plain: the network of DDPM (Ho et al.
    2020) in Song's version: sides change by a convolution, and norms have 32 groups.
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
    rescale: bool = True
    plain: bool = False


class SongBlockLevel(nn.Module):
    """What happens at one size; encoder and decoder each use a part of it."""

    down: Block | Resize
    up: Block | Resize
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
        self.gain = math.sqrt(0.5) if c.rescale else 1.0
        style = Style(emb, c.fir, self.gain, least=1 if c.plain else 4)

        def resize(width: int, how: str) -> Block | Resize:
            return Resize(width, how) if c.plain else Block(width, width, style, how)

        if c.fourier:
            self.register_buffer("frequencies", torch.zeros(c.features // 2))
        self.time_0, self.time_1 = nn.Linear(c.features, emb), nn.Linear(emb, emb)
        self.classes = nn.Embedding(c.classes, c.features) if c.classes else None
        self.conv_in = nn.Conv2d(c.channels, c.base, 3, padding=1)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        skips = [c.base]
        for i, width in enumerate(widths):
            level, before = SongBlockLevel(), (widths[i - 1] if i else c.base)
            if i:
                level.down = resize(before, "down")
                below = c.channels if i == 1 or c.pyramid == "skip" else widths[i - 2]
                kernel = {"skip": 1, "residual": 3}.get(c.pyramid)
                if kernel:
                    level.join = nn.Conv2d(below, before, kernel)
                skips.append(before)
            sizes = [before, *[width] * c.blocks]
            level.blocks = nn.ModuleList(
                Block(a, b, style, attention=c.attention[i]) for a, b in pairwise(sizes)
            )
            skips += sizes[1:]
            self.encoder.append(level)
        self.middle = nn.ModuleList(
            [Block(deepest, deepest, style, attention=True), Block(deepest, deepest, style)]
        )
        now = deepest
        for i, width in reversed(list(enumerate(widths))):
            level = SongBlockLevel()
            if i < len(widths) - 1:
                level.up = resize(now, "up")
            blocks = []
            for j in range(c.blocks + 1):
                final = c.attention[i] and j == c.blocks
                blocks.append(Block(now + skips.pop(), width, style, attention=final))
                now = width
            level.blocks = nn.ModuleList(blocks)
            if c.output_skip or i == 0:
                level.norm, level.out = style.norm(now), nn.Conv2d(now, c.channels, 3, padding=1)
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
        for i, level in enumerate(cast(Iterable[SongBlockLevel], self.encoder)):
            if i:
                h = level.down(h, emb)
                if c.pyramid == "skip":
                    pyramid = halve(pyramid, c.fir)
                    h = h + level.join(pyramid)
                elif c.pyramid == "residual":
                    h = pyramid = (h + self._join(level.join, pyramid)) * self.gain
                skips.append(h)
            for block in level.blocks:
                h = block(h, emb)
                skips.append(h)
        for block in self.middle:
            h = block(h, emb)
        out: Tensor | None = None
        for i, level in enumerate(cast(Iterable[SongBlockLevel], self.decoder)):
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
        smooth = filtered(F.pad(pyramid, (pad,) * 4), fir, stride=1)
        return F.conv2d(smooth, conv.weight, conv.bias, stride=2)
