"""Networks as their papers define them, with the names that their published files use.

Written to be read beside the papers, not to be fast; nothing here is shared with the package. All
weights are random and none is zero.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def scrambled(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network with random weights of a size that keeps activations near 1, biases included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in net.named_parameters():
            fan_in = p[0].numel() if p.ndim > 1 else 1
            scale = 0.2 if p.ndim == 1 else 1 / math.sqrt(fan_in)
            p.copy_(scale * torch.randn(p.shape, generator=generator))
            if p.ndim == 1 and name.endswith("weight") and "freq" not in name:
                p.add_(1.0)  # the gain of a norm
    return net.eval().requires_grad_(False)


def sines(t: Tensor, width: int, last: bool) -> tuple[Tensor, Tensor]:
    """Sines and cosines of t at rates from 1 down to 1e-4, which is reached if `last`."""
    n = width // 2
    rates = torch.tensor([10000 ** (-k / (n - 1 if last else n)) for k in range(n)])
    return torch.sin(t[:, None] * rates), torch.cos(t[:, None] * rates)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """For (B, C, N): each of N places averages v by the softmax of q . k / sqrt(C)."""
    weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(q.shape[1]), dim=-1)
    return v @ weights.transpose(1, 2)


# guided-diffusion (Dhariwal and Nichol 2021)


class AdmBlock(nn.Module):
    def __init__(self, emb, a, b, shifts=True, resample=""):
        super().__init__()
        self.resample, self.shifts = resample, shifts
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, a), nn.SiLU(), nn.Conv2d(a, b, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, 2 * b if shifts else b))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, b), nn.SiLU(), nn.Dropout(), nn.Conv2d(b, b, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if a == b else nn.Conv2d(a, b, 1)

    def forward(self, x, emb):
        h = F.silu(self.in_layers[0](x))
        if self.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.resample == "up":
            h, x = (v.repeat_interleave(2, 2).repeat_interleave(2, 3) for v in (h, x))
        h, e = self.in_layers[2](h), self.emb_layers(emb)[:, :, None, None]
        norm, *rest = self.out_layers
        if self.shifts:
            scale, shift = e.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + e)
        for layer in rest:
            h = layer(h)
        return self.skip_connection(x) + h


class AdmAttention(nn.Module):
    def __init__(self, width, heads, order):
        super().__init__()
        self.heads, self.order = heads, order
        self.norm = nn.GroupNorm(32, width)
        self.qkv, self.proj_out = nn.Conv1d(width, 3 * width, 1), nn.Conv1d(width, width, 1)

    def forward(self, x):
        b, c, height, width = x.shape
        n = c // self.heads
        joint, out = self.qkv(self.norm(x).flatten(2)), []
        for i in range(self.heads):
            if self.order == "legacy":  # q, k, v of head 0, then those of head 1
                q, k, v = joint[:, 3 * n * i : 3 * n * (i + 1)].split(n, dim=1)
            else:  # q of all heads, then k of all heads
                q, k, v = (joint[:, j * c + n * i : j * c + n * (i + 1)] for j in range(3))
            out.append(softmax_attention(q, k, v))
        return x + self.proj_out(torch.cat(out, dim=1)).reshape(x.shape)


class Down(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x):
        return self.op(x)


class Up(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Adm(nn.Module):
    """heads: a number, or a function of the width. mult may start with 0.5, as at 512 x 512."""

    def __init__(
        self, base=32, mult=(1, 2), blocks=1, attention=(1,), heads=1, order="legacy",
        channels=3, out=6, classes=0, shifts=True, updown=True,
    ):  # fmt: skip
        super().__init__()
        emb, self.base, self.shifts = 4 * base, base, shifts
        count = heads if callable(heads) else lambda width: heads
        self.time_embed = nn.Sequential(nn.Linear(base, emb), nn.SiLU(), nn.Linear(emb, emb))
        if classes:
            self.label_emb = nn.Embedding(classes, emb)

        def res(a, b, **more):
            return AdmBlock(emb, a, b, shifts, **more)

        now = int(mult[0] * base)
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(channels, now, 3, padding=1)])])
        widths = [now]
        for level, m in enumerate(mult):
            for _ in range(blocks):
                layers = [res(now, int(m * base))]
                now = int(m * base)
                if level in attention:
                    layers.append(AdmAttention(now, count(now), order))
                self.input_blocks.append(nn.ModuleList(layers))
                widths.append(now)
            if level < len(mult) - 1:
                down = res(now, now, resample="down") if updown else Down(now)
                self.input_blocks.append(nn.ModuleList([down]))
                widths.append(now)
        self.middle_block = nn.ModuleList(
            [res(now, now), AdmAttention(now, count(now), order), res(now, now)]
        )
        self.output_blocks = nn.ModuleList()
        for level, m in reversed(list(enumerate(mult))):
            for j in range(blocks + 1):
                layers = [res(now + widths.pop(), int(m * base))]
                now = int(m * base)
                if level in attention:
                    layers.append(AdmAttention(now, count(now), order))
                if level and j == blocks:
                    layers.append(res(now, now, resample="up") if updown else Up(now))
                self.output_blocks.append(nn.ModuleList(layers))
        self.out = nn.Sequential(
            nn.GroupNorm(32, now), nn.SiLU(), nn.Conv2d(now, out, 3, padding=1)
        )

    def forward(self, x, t, label=None):
        sin, cos = sines(t, self.base, last=False)
        emb = self.time_embed(torch.cat([cos, sin], dim=1))
        if label is not None:
            emb = emb + self.label_emb(torch.full((len(x),), label))

        def run(layers, h):
            for layer in layers:
                h = layer(h, emb) if isinstance(layer, AdmBlock) else layer(h)
            return h

        saved = []
        for layers in self.input_blocks:
            x = run(layers, x)
            saved.append(x)
        x = run(self.middle_block, x)
        for layers in self.output_blocks:
            x = run(layers, torch.cat([x, saved.pop()], dim=1))
        return self.out(x)


# DDPM (Ho et al. 2020)


class DdpmBlock(nn.Module):
    def __init__(self, a, b, emb):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, a, eps=1e-6), nn.Conv2d(a, b, 3, padding=1)
        self.temb_proj = nn.Linear(emb, b)
        self.norm2, self.conv2 = nn.GroupNorm(32, b, eps=1e-6), nn.Conv2d(b, b, 3, padding=1)
        if a != b:
            self.nin_shortcut = nn.Conv2d(a, b, 1)

    def forward(self, x, emb):
        h = self.conv1(F.silu(self.norm1(x))) + self.temb_proj(F.silu(emb))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class DdpmAttention(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.norm = nn.GroupNorm(32, n, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(n, n, 1) for _ in range(4))

    def forward(self, x):
        h = self.norm(x)
        h = softmax_attention(*(f(h).flatten(2) for f in (self.q, self.k, self.v)))
        return x + self.proj_out(h.reshape(x.shape))


class Ddpm(nn.Module):
    def __init__(
        self, base=32, mult=(1, 2), blocks=1, attention=(1,), channels=3, pad=(0, 1, 0, 1)
    ):
        super().__init__()
        emb, self.base, self.pad = 4 * base, base, pad
        self.temb = nn.Module()
        self.temb.dense = nn.ModuleList([nn.Linear(base, emb), nn.Linear(emb, emb)])
        self.conv_in = nn.Conv2d(channels, base, 3, padding=1)
        self.down, self.up, now, widths = nn.ModuleList(), nn.ModuleList(), base, [base]
        for level, m in enumerate(mult):
            down = nn.Module()
            down.block, down.attn = nn.ModuleList(), nn.ModuleList()
            for _ in range(blocks):
                down.block.append(DdpmBlock(now, m * base, emb))
                now = m * base
                widths.append(now)
                if level in attention:
                    down.attn.append(DdpmAttention(now))
            if level < len(mult) - 1:
                down.downsample = nn.Module()
                down.downsample.conv = nn.Conv2d(now, now, 3, stride=2)
                widths.append(now)
            self.down.append(down)
        self.mid = nn.Module()
        self.mid.block_1, self.mid.attn_1 = DdpmBlock(now, now, emb), DdpmAttention(now)
        self.mid.block_2 = DdpmBlock(now, now, emb)
        for level, m in reversed(list(enumerate(mult))):
            up = nn.Module()
            up.block, up.attn = nn.ModuleList(), nn.ModuleList()
            for _ in range(blocks + 1):
                up.block.append(DdpmBlock(now + widths.pop(), m * base, emb))
                now = m * base
                if level in attention:
                    up.attn.append(DdpmAttention(now))
            if level:
                up.upsample = nn.Module()
                up.upsample.conv = nn.Conv2d(now, now, 3, padding=1)
            self.up.insert(0, up)
        self.norm_out = nn.GroupNorm(32, now, eps=1e-6)
        self.conv_out = nn.Conv2d(now, channels, 3, padding=1)

    def forward(self, x, t):
        emb = torch.cat(sines(t, self.base, last=True), dim=1)
        emb = self.temb.dense[1](F.silu(self.temb.dense[0](emb)))
        saved = [self.conv_in(x)]
        for down in self.down:
            for j, block in enumerate(down.block):
                h = block(saved[-1], emb)
                saved.append(down.attn[j](h) if len(down.attn) else h)
            if hasattr(down, "downsample"):
                saved.append(down.downsample.conv(F.pad(saved[-1], self.pad)))
        h = self.mid.block_2(self.mid.attn_1(self.mid.block_1(saved[-1], emb)), emb)
        for up in reversed(self.up):
            for j, block in enumerate(up.block):
                h = block(torch.cat([h, saved.pop()], dim=1), emb)
                h = up.attn[j](h) if len(up.attn) else h
            if hasattr(up, "upsample"):
                h = up.upsample.conv(F.interpolate(h, scale_factor=2, mode="nearest"))
        return self.conv_out(F.silu(self.norm_out(h)))


# score_sde (Song et al. 2021), EDM (Karras et al. 2022)


def fir_down(x, taps):
    """Rows, then columns: zeros outside, taps of sum 1, every second place."""
    taps = torch.tensor(taps, dtype=x.dtype) / sum(taps)
    for axis in (2, 3):
        n, p = x.shape[axis], (len(taps) - 1) // 2
        edge = list(x.shape)
        edge[axis] = p
        wide = torch.cat([x.new_zeros(edge), x, x.new_zeros(edge)], dim=axis)
        x = sum(w * wide.narrow(axis, k, n - 1) for k, w in enumerate(taps))
        x = x.index_select(axis, torch.arange(0, n - 1, 2))
    return x


def fir_up(x, taps):
    """Zeros between the pixels, then the filter with a gain of 2 along each axis."""
    taps = 2 * torch.tensor(taps, dtype=x.dtype) / sum(taps)
    for axis in (2, 3):
        n, t = x.shape[axis], len(taps)
        pieces = list(x.shape)
        pieces[axis] = 2 * n + t
        wide = x.new_zeros(pieces)
        for k, w in enumerate(taps):
            at = torch.arange(0, 2 * n, 2) + k
            wide.index_add_(axis, at, w * x)
        x = wide.narrow(axis, (t - 1) // 2, 2 * n)
    return x


def group_norm(n):
    return nn.GroupNorm(min(n // 4, 32), n, eps=1e-6)


class Nin(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.W, self.b = nn.Parameter(torch.zeros(a, b)), nn.Parameter(torch.zeros(b))

    def forward(self, x):
        return torch.einsum("bchw,cd->bdhw", x, self.W) + self.b[:, None, None]


class SdeAttention(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.GroupNorm_0 = group_norm(n)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (Nin(n, n) for _ in range(4))

    def forward(self, x):
        h = self.GroupNorm_0(x)
        h = softmax_attention(*(f(h).flatten(2) for f in (self.NIN_0, self.NIN_1, self.NIN_2)))
        return (x + self.NIN_3(h.reshape(x.shape))) / math.sqrt(2)


class SdeBlock(nn.Module):
    def __init__(self, a, b, emb, resample="", taps=(1, 1)):
        super().__init__()
        self.resample, self.taps = resample, taps
        self.GroupNorm_0, self.Conv_0 = group_norm(a), nn.Conv2d(a, b, 3, padding=1)
        self.Dense_0 = nn.Linear(emb, b)
        self.GroupNorm_1, self.Conv_1 = group_norm(b), nn.Conv2d(b, b, 3, padding=1)
        if a != b or resample:
            self.Conv_2 = nn.Conv2d(a, b, 1)

    def forward(self, x, emb):
        h = F.silu(self.GroupNorm_0(x))
        if self.resample:
            resize = fir_down if self.resample == "down" else fir_up
            h, x = resize(h, self.taps), resize(x, self.taps)
        h = self.Conv_0(h) + self.Dense_0(F.silu(emb))[:, :, None, None]
        h = self.Conv_1(F.silu(self.GroupNorm_1(h)))
        return (h + (self.Conv_2(x) if hasattr(self, "Conv_2") else x)) / math.sqrt(2)


class Frequencies(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.W = nn.Parameter(torch.randn(n), requires_grad=False)


class Nothing(nn.Module):
    """A layer without weights, which still takes a number in the list."""


class Joint(nn.Module):
    def __init__(self, name, conv):
        super().__init__()
        self.name = name
        self.add_module(name, conv)

    @property
    def conv(self):
        return getattr(self, self.name)


def fir_conv_down(x, conv, taps):
    """Filter with zeros outside on two pixels, then a 3 x 3 convolution of every second place."""
    t = torch.tensor(taps, dtype=x.dtype) / sum(taps)
    kernel = torch.outer(t, t).expand(x.shape[1], 1, -1, -1)
    h = F.conv2d(F.pad(x, (len(taps) // 2,) * 4), kernel, groups=x.shape[1])
    return F.conv2d(h, conv.weight, conv.bias, stride=2)


class Ncsnpp(nn.Module):
    """pyramid: none, residual (CIFAR-10) or skip (256 x 256, with output skips)."""

    def __init__(
        self, base=32, mult=(1, 2), blocks=1, attention=(1,), fourier=True, pyramid="residual",
        output_skip=False, taps=(1, 3, 3, 1), channels=3, centered=False, by_sigma=True,
        sigmas=(0.01, 50.0),
    ):  # fmt: skip
        super().__init__()
        emb = 4 * base
        self.base, self.mult, self.blocks, self.attention = base, mult, blocks, attention
        self.fourier, self.pyramid, self.output_skip = fourier, pyramid, output_skip
        self.taps, self.centered, self.by_sigma = taps, centered, by_sigma
        self.register_buffer("sigmas", torch.linspace(sigmas[1], sigmas[0], 10))
        m = [Frequencies(base)] if fourier else []
        m += [nn.Linear(2 * base if fourier else base, emb), nn.Linear(emb, emb)]
        m.append(nn.Conv2d(channels, base, 3, padding=1))
        widths, now, below = [base], base, channels
        for level, k in enumerate(mult):
            for _ in range(blocks):
                m.append(SdeBlock(now, k * base, emb))
                now = k * base
                widths.append(now)
                if level in attention:
                    m.append(SdeAttention(now))
            if level < len(mult) - 1:
                m.append(SdeBlock(now, now, emb, "down", taps))
                if pyramid == "residual":
                    m.append(Joint("Conv2d_0", nn.Conv2d(below, now, 3)))
                    below = now
                elif pyramid == "skip":
                    m += [Nothing(), Joint("Conv", nn.Conv2d(channels, now, 1))]
                widths.append(now)
        m += [SdeBlock(now, now, emb), SdeAttention(now), SdeBlock(now, now, emb)]
        for level, k in reversed(list(enumerate(mult))):
            for _ in range(blocks + 1):
                m.append(SdeBlock(now + widths.pop(), k * base, emb))
                now = k * base
            if level in attention:
                m.append(SdeAttention(now))
            if output_skip:
                m += [Nothing()] if level < len(mult) - 1 else []
                m += [group_norm(now), nn.Conv2d(now, channels, 3, padding=1)]
            if level:
                m.append(SdeBlock(now, now, emb, "up", taps))
        if not output_skip:
            m += [group_norm(now), nn.Conv2d(now, channels, 3, padding=1)]
        self.all_modules = nn.ModuleList(m)

    def forward(self, x, time):
        m = iter(self.all_modules)
        if self.fourier:
            phase = 2 * math.pi * torch.log(time)[:, None] * next(m).W
            emb = torch.cat([phase.sin(), phase.cos()], dim=1)
        else:
            emb = torch.cat(sines(time, self.base, last=True), dim=1)
        emb = next(m)(emb)
        emb = next(m)(F.silu(emb))
        x = x if self.centered else 2 * x - 1
        pyramid, saved = x, [next(m)(x)]
        for level in range(len(self.mult)):
            for _ in range(self.blocks):
                h = next(m)(saved[-1], emb)
                saved.append(next(m)(h) if level in self.attention else h)
            if level < len(self.mult) - 1:
                h = next(m)(saved[-1], emb)
                if self.pyramid == "residual":
                    pyramid = fir_conv_down(pyramid, next(m).conv, self.taps)
                    h = pyramid = (pyramid + h) / math.sqrt(2)
                elif self.pyramid == "skip":
                    next(m)
                    pyramid = fir_down(pyramid, self.taps)
                    h = next(m).conv(pyramid) + h
                saved.append(h)
        h = next(m)(saved[-1], emb)
        h = next(m)(h)
        h = next(m)(h, emb)
        image = None
        for level in reversed(range(len(self.mult))):
            for _ in range(self.blocks + 1):
                h = next(m)(torch.cat([h, saved.pop()], dim=1), emb)
            h = next(m)(h) if level in self.attention else h
            if self.output_skip:
                if image is None:
                    norm, conv = next(m), next(m)
                    image = conv(F.silu(norm(h)))
                else:
                    _, norm, conv = next(m), next(m), next(m)
                    image = fir_up(image, self.taps) + conv(F.silu(norm(h)))
            h = next(m)(h, emb) if level else h
        if not self.output_skip:
            norm, conv = next(m), next(m)
            image = conv(F.silu(norm(h)))
        assert next(m, None) is None
        return image / time[:, None, None, None] if self.by_sigma else image


class EdmConv(nn.Module):
    """A convolution with optional resampling before it; no kernel: resampling alone."""

    def __init__(self, a, b, kernel, resample="", taps=(1, 1)):
        super().__init__()
        self.resample, self.taps = resample, taps
        if kernel:
            self.weight = nn.Parameter(torch.zeros(b, a, kernel, kernel))
            self.bias = nn.Parameter(torch.zeros(b))
        if resample:
            t = torch.tensor(taps, dtype=torch.float32) / sum(taps)
            self.register_buffer("resample_filter", torch.outer(t, t)[None, None])

    def forward(self, x):
        if self.resample:
            x = (fir_down if self.resample == "down" else fir_up)(x, self.taps)
        if not hasattr(self, "weight"):
            return x
        return F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


class EdmBlock(nn.Module):
    def __init__(
        self, a, b, emb, resample="", taps=(1, 1), heads=0, song=True, eps=1e-6
    ):  # fmt: skip
        super().__init__()
        self.song, self.heads = song, heads

        def norm(n):
            return nn.GroupNorm(min(32, n // 4), n, eps=eps)

        self.norm0, self.conv0 = norm(a), EdmConv(a, b, 3, resample, taps)
        self.affine = nn.Linear(emb, b if song else 2 * b)
        self.norm1, self.conv1 = norm(b), EdmConv(b, b, 3)
        if a != b or resample:
            self.skip = EdmConv(a, b, 1 if song or a != b else 0, resample, taps)
        if heads:
            self.norm2, self.qkv, self.proj = norm(b), EdmConv(b, 3 * b, 1), EdmConv(b, b, 1)

    def forward(self, x, emb):
        rescale = math.sqrt(0.5) if self.song else 1.0
        h, e = self.conv0(F.silu(self.norm0(x))), self.affine(emb)[:, :, None, None]
        if self.song:
            h = self.norm1(h + e)
        else:
            scale, shift = e.chunk(2, dim=1)
            h = self.norm1(h) * (scale + 1) + shift
        x = (self.conv1(F.silu(h)) + (self.skip(x) if hasattr(self, "skip") else x)) * rescale
        if not self.heads:
            return x
        b, c = x.shape[:2]
        joint = self.qkv(self.norm2(x)).reshape(b, self.heads, c // self.heads, 3, -1)
        heads = [softmax_attention(*joint[:, i].unbind(2)) for i in range(self.heads)]
        return (self.proj(torch.cat(heads, dim=1).reshape(x.shape)) + x) * rescale


class MapNoise(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.register_buffer("freqs", torch.randn(n, generator=torch.Generator().manual_seed(3)))


class EdmSong(nn.Module):
    def __init__(
        self, size=32, base=32, mult=(2, 2), blocks=1, attention=(1,), fourier=False,
        encoder="standard", taps=(1, 1), classes=0, augment=9, channels=3,
    ):  # fmt: skip
        super().__init__()
        emb, features = 4 * base, 2 * base if fourier else base
        self.features, self.fourier, self.taps, self.mult = features, fourier, taps, mult
        self.map_noise = MapNoise(base) if fourier else nn.Module()
        if classes:
            self.map_label = nn.Linear(classes, features)
        if augment:
            self.map_augment = nn.Linear(augment, features, bias=False)
        self.map_layer0, self.map_layer1 = nn.Linear(features, emb), nn.Linear(emb, emb)
        self.enc, self.dec, now, below, widths = (
            nn.ModuleDict(),
            nn.ModuleDict(),
            base,
            channels,
            [],
        )
        for level, m in enumerate(mult):
            at = f"{size >> level}x{size >> level}"
            if level == 0:
                self.enc[f"{at}_conv"] = EdmConv(channels, now, 3)
            else:
                self.enc[f"{at}_down"] = EdmBlock(now, now, emb, "down", taps)
                if encoder == "skip":
                    self.enc[f"{at}_aux_down"] = EdmConv(0, 0, 0, "down", taps)
                    self.enc[f"{at}_aux_skip"] = EdmConv(channels, now, 1)
                elif encoder == "residual":
                    self.enc[f"{at}_aux_residual"] = EdmConv(below, now, 3, "down", taps)
                    below = now
            widths.append(now)
            for j in range(blocks):
                heads = int(level in attention)
                self.enc[f"{at}_block{j}"] = EdmBlock(now, m * base, emb, heads=heads)
                now = m * base
                widths.append(now)
        for level, m in reversed(list(enumerate(mult))):
            at = f"{size >> level}x{size >> level}"
            if level == len(mult) - 1:
                self.dec[f"{at}_in0"] = EdmBlock(now, now, emb, heads=1)
                self.dec[f"{at}_in1"] = EdmBlock(now, now, emb)
            else:
                self.dec[f"{at}_up"] = EdmBlock(now, now, emb, "up", taps)
            for j in range(blocks + 1):
                heads = int(level in attention and j == blocks)
                self.dec[f"{at}_block{j}"] = EdmBlock(
                    now + widths.pop(), m * base, emb, heads=heads
                )
                now = m * base
        self.dec[f"{size}x{size}_aux_norm"] = group_norm(now)
        self.dec[f"{size}x{size}_aux_conv"] = EdmConv(now, channels, 3)

    def forward(self, x, c_noise, label=None):
        if self.fourier:
            phase = 2 * math.pi * c_noise[:, None] * self.map_noise.freqs
            emb = torch.cat([phase.sin(), phase.cos()], dim=1)
        else:
            emb = torch.cat(sines(c_noise, self.features, last=True), dim=1)
        if hasattr(self, "map_label"):
            n = self.map_label.in_features
            hot = torch.zeros(len(x), n)
            if label is not None:
                hot[:, label] = math.sqrt(n)
            emb = emb + self.map_label(hot)
        emb = F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))
        saved, aux = [], x
        for name, layer in self.enc.items():
            if "aux_down" in name:
                aux = layer(aux)
            elif "aux_skip" in name:
                x = saved[-1] = x + layer(aux)
            elif "aux_residual" in name:
                x = saved[-1] = aux = (x + fir_conv_down(aux, layer, self.taps)) / math.sqrt(2)
            else:
                x = layer(x) if isinstance(layer, EdmConv) else layer(x, emb)
                saved.append(x)
        for name, layer in self.dec.items():
            if "aux_norm" in name:
                x = F.silu(layer(x))
            elif "aux_conv" in name:
                return layer(x)
            else:
                x = torch.cat([x, saved.pop()], dim=1) if "block" in name else x
                x = layer(x, emb)
        raise AssertionError("no output")


class EdmDhariwal(nn.Module):
    def __init__(
        self, size=32, base=64, mult=(1, 2), blocks=1, attention=(1,), classes=0, augment=0,
        channels=3,
    ):  # fmt: skip
        super().__init__()
        emb, self.base = 4 * base, base
        if augment:
            self.map_augment = nn.Linear(augment, base, bias=False)
        self.map_noise = nn.Module()
        self.map_layer0, self.map_layer1 = nn.Linear(base, emb), nn.Linear(emb, emb)
        if classes:
            self.map_label = nn.Linear(classes, emb, bias=False)

        def block(a, b, resample="", attention=False):
            heads = b // 64 if attention else 0
            return EdmBlock(a, b, emb, resample, heads=heads, song=False, eps=1e-5)

        self.enc, self.dec, now, widths = nn.ModuleDict(), nn.ModuleDict(), base * mult[0], []
        for level, m in enumerate(mult):
            at = f"{size >> level}x{size >> level}"
            first = EdmConv(channels, now, 3) if level == 0 else block(now, now, "down")
            self.enc[f"{at}_conv" if level == 0 else f"{at}_down"] = first
            widths.append(now)
            for j in range(blocks):
                self.enc[f"{at}_block{j}"] = block(now, m * base, attention=level in attention)
                now = m * base
                widths.append(now)
        for level, m in reversed(list(enumerate(mult))):
            at = f"{size >> level}x{size >> level}"
            if level == len(mult) - 1:
                self.dec[f"{at}_in0"] = block(now, now, attention=True)
                self.dec[f"{at}_in1"] = block(now, now)
            else:
                self.dec[f"{at}_up"] = block(now, now, "up")
            for j in range(blocks + 1):
                a = now + widths.pop()
                self.dec[f"{at}_block{j}"] = block(a, m * base, attention=level in attention)
                now = m * base
        self.out_norm = nn.GroupNorm(min(32, now // 4), now)
        self.out_conv = EdmConv(now, channels, 3)

    def forward(self, x, c_noise, label=None):
        sin, cos = sines(c_noise, self.base, last=False)
        emb = self.map_layer1(F.silu(self.map_layer0(torch.cat([cos, sin], dim=1))))
        if label is not None:
            emb = emb + self.map_label.weight[:, label]
        emb, saved = F.silu(emb), []
        for layer in self.enc.values():
            x = layer(x) if isinstance(layer, EdmConv) else layer(x, emb)
            saved.append(x)
        for name, layer in self.dec.items():
            x = torch.cat([x, saved.pop()], dim=1) if "block" in name else x
            x = layer(x, emb)
        return self.out_conv(F.silu(self.out_norm(x)))
