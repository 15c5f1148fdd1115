"""What benchmarks/forward_models.py draws with: its inputs, and how arrays become pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import invdiff
import invdiff.operators as ops

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SIDE, GAP = 96, 6
SIZE = (SIDE, SIDE)


# ------------------------------------------------------------------------------------------- inputs


@cache
def photo() -> Tensor:
    """A photograph, (1, 3, 96, 96) on [-1, 1]."""
    pixels = np.array(Image.open(EXAMPLES / "alpacas-small.png").convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].double() / 127.5 - 1


def square() -> Tensor:
    """A crop of it whose sides are powers of two, (1, 3, 64, 64)."""
    return photo()[..., 8:72, 16:80]


def small() -> Tensor:
    """Half its size, (1, 3, 48, 48)."""
    return F.avg_pool2d(photo(), 2)


@cache
def brain() -> Tensor:
    """A head, complex, (1, 2, 96, 96): eight measured coils joined, the largest magnitude 1."""
    file = np.load(EXAMPLES / "brain8coil.npz")
    shape = tuple(int(n) for n in file["shape"])
    known = np.unpackbits(file["mask"])[: math.prod(shape)].reshape(shape).astype(bool)
    k = np.zeros((len(file["samples"]), *shape), np.complex64)
    k[:, known] = file["samples"]
    coils = ops.ifft2c(torch.from_numpy(k)[None].to(torch.complex128))
    top = (shape[0] - shape[1]) // 2
    coils = coils[..., top : top + shape[1], :]
    x = coils.abs().square().sum(1, keepdim=True).sqrt() * torch.sgn(coils[:, :1])
    x = F.interpolate(torch.view_as_real(x[:, 0]).movedim(-1, 1), SIZE, mode="area")
    return x / x.square().sum(1).sqrt().max()


@cache
def chest() -> Tensor:
    """A CT slice, (1, 1, 96, 96) on [-1, 1]."""
    hu = torch.from_numpy(np.load(EXAMPLES / "chest-ct.npz")["hu"].astype(np.float64))
    return F.interpolate(invdiff.hu_to_x(hu[None, None]), SIZE, mode="area")


def clip() -> Tensor:
    """A clip of 4 frames that pans over the photograph, (1, 3, 4, 48, 48)."""
    return torch.stack([photo()[..., 8 : 8 + 48, 8 * t : 8 * t + 48] for t in range(4)], dim=2)


@cache
def sky() -> Tensor:
    """A bright crescent around a shadow, (1, 1, 96, 96), not negative, of sum 1."""
    at = torch.arange(float(SIDE)) - SIDE // 2
    q, p = torch.meshgrid(at, at, indexing="ij")
    ring = torch.exp(-0.5 * ((torch.hypot(q, p) - 18) / 4) ** 2)
    x = ring * (1 + 0.8 * torch.sin(torch.atan2(q, p)))
    return (x / x.sum())[None, None].double()


# --------------------------------------------------------------------------------- how arrays look


def display(t: Tensor) -> Tensor:
    """Images on [-1, 1] as they are: (B, C, H, W) or (B, C, T, H, W) to (3, H, W) on [0, 1]."""
    t = frames(t) if t.ndim == 5 else t
    return ((t[0] + 1) / 2).clamp(0, 1).expand(3, -1, -1)


def frames(t: Tensor) -> Tensor:
    """Frames side by side, two in a row."""
    rows = [torch.cat(list(t[:, :, i : i + 2].unbind(2)), -1) for i in range(0, t.shape[2], 2)]
    return torch.cat(rows, dim=-2)


def side_by_side(t: Tensor) -> Tensor:
    """(B, K, C, H, W), several measurements of an image, side by side."""
    return display(torch.cat(list(t.unbind(1)), dim=-1))


def spread(t: Tensor) -> Tensor:
    """Any real numbers, grey from the 1st to the 99th percentile, the channels' mean."""
    t = t[0].double()
    t = t.mean(0, keepdim=True) if t.ndim == 3 else t
    low, high = torch.quantile(t.flatten(), torch.tensor([0.01, 0.99], dtype=t.dtype))
    return ((t - low) / (high - low).clamp_min(1e-12)).clamp(0, 1).reshape(1, *t.shape[-2:])


def magnitude(t: Tensor) -> Tensor:
    """A complex image of two real channels, or k-space: its magnitude."""
    size = ops.as_complex(t).abs() if not t.is_complex() else t.abs()
    return (size[0, :1] / size.max()).expand(3, -1, -1)


def logarithm(t: Tensor) -> Tensor:
    """Magnitudes over 3 decades, of the first channel."""
    size = t.abs()[0]
    size = size.reshape(-1, *size.shape[-2:])[:1]
    return (1 + (size / size.max()).clamp_min(1e-3).log10() / 3).expand(3, -1, -1)


def column(t: Tensor) -> Tensor:
    """A list of numbers (B, C, m) as a square of grey pixels, row by row; 0 where it ends."""
    t = t[0].mean(0).flatten()
    side = math.ceil(len(t) ** 0.5)
    t = F.pad(t, (0, side**2 - len(t)))
    top = torch.quantile(t.abs(), 0.98)
    return ((t / top + 1) / 2).clamp(0, 1).reshape(1, side, side).expand(3, -1, -1)


def plane(uv: Tensor) -> Callable[[Tensor], Tensor]:
    """Visibilities at their place in the plane of frequencies, and at the opposite one."""

    def draw(y: Tensor) -> Tensor:
        size = 1 + (y.abs()[0, 0] / y.abs().max()).clamp_min(1e-3).log10() / 3
        canvas = torch.zeros(3, SIDE, SIDE, dtype=torch.float64)
        scale = 0.47 * SIDE / uv.abs().max()
        for sign in (1, -1):
            i, j = ((sign * scale * uv[0, :, a]).round().long() + SIDE // 2 for a in (1, 0))
            canvas[:, i, j] = 0.15 + 0.85 * size
        return canvas

    return draw


def angles(y: Tensor) -> Tensor:
    """Phasors by their angle, red for 0 and cyan for 180 degrees, row by row."""
    angle = y[0, 0].angle()
    side = math.ceil(len(angle) ** 0.5)
    thirds = torch.tensor([0.0, 2.0, -2.0], dtype=angle.dtype)[:, None] * math.pi / 3
    colour = 0.5 + 0.5 * torch.cos(angle - thirds)
    return F.pad(colour, (0, side**2 - len(angle)), value=1.0).reshape(3, side, side)


@cache
def array() -> ops.TelescopeArray:
    return ops.earth_rotation(8, 24, 8.0)


def metal() -> Tensor:
    """A piece of metal in the chest slice."""
    mask = torch.zeros(1, 1, *SIZE)
    mask[..., 60:66, 44:50] = 1
    return mask


# ------------------------------------------------------------------------------------------- sheets


def fitted(t: Tensor) -> Tensor:
    """(1 or 3, h, w) enlarged by a whole factor, or averaged, to height SIDE at most."""
    t = t.expand(3, -1, -1)
    if t.shape[-2] > SIDE or t.shape[-1] > 3 * SIDE:
        shrink = max(t.shape[-2] / SIDE, t.shape[-1] / (3 * SIDE))
        size = [max(1, round(n / shrink)) for n in t.shape[-2:]]
        return F.interpolate(t[None], size, mode="area")[0]
    factor = max(1, SIDE // max(t.shape[-2:]))
    return t.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def write_sheet(found: list[Tensor], path: Path) -> None:
    """Write the panels side by side, enlarged twice, in 128 colours."""
    found = [fitted(p) for p in found]
    width = sum(p.shape[-1] for p in found) + GAP * (len(found) - 1)
    sheet = torch.ones(3, SIDE, width, dtype=torch.float64)
    left = 0
    for p in found:
        top = (SIDE - p.shape[-2]) // 2
        sheet[:, top : top + p.shape[-2], left : left + p.shape[-1]] = p
        left += p.shape[-1] + GAP
    pixels = (255 * sheet).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels).quantize(128, dither=Image.Dither.NONE)
    image = image.resize((2 * width, 2 * SIDE), Image.Resampling.NEAREST)
    image.save(path, optimize=True)
