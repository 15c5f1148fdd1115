"""Sampling of the planes of a JPEG file, and the codec plane by plane where Pillow cannot write."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from invdiff.core import InvdiffError

Factors = tuple[int, int]
"""Rows and columns of pixels that share a sample of a plane."""

NAMED: dict[str, Factors] = {
    "4:4:4": (1, 1),
    "4:2:2": (1, 2),
    "4:2:0": (2, 2),
    "4:4:0": (2, 1),
    "4:1:1": (1, 4),
    "4:1:0": (2, 4),
}
"""Those of both colour differences, where brightness is sampled at every pixel."""
INTERPOLATED: frozenset[Factors] = frozenset({(1, 2), (2, 1), (2, 2)})
"""Where libjpeg interpolates between samples (weights 3/4 and 1/4); elsewhere it repeats them."""


def factors_of(subsampling: str) -> tuple[Factors, Factors, Factors]:
    """Factors of the three planes, of a name as 4:2:0, or of sampling factors as 2x2,1x2,1x2 (of
    columns and rows, as JPEG has them, the largest at every pixel). Raises InvdiffError."""
    if subsampling in NAMED:
        return (1, 1), NAMED[subsampling], NAMED[subsampling]
    try:
        pairs = [tuple(map(int, part.split("x"))) for part in subsampling.split(",")]
        if len(pairs) != 3 or any(len(p) != 2 or not 1 <= min(p) <= max(p) <= 4 for p in pairs):
            raise ValueError
        columns, rows = (max(p[axis] for p in pairs) for axis in (0, 1))
        if any(columns % p[0] or rows % p[1] for p in pairs):
            raise ValueError
    except ValueError:
        names = ", ".join(NAMED)
        raise InvdiffError(
            f"A JPEG's subsampling is one of {names}, or sampling factors that divide the largest, "
            f"as 2x2,1x2,1x2, found {subsampling}."
        ) from None
    first, second, third = ((rows // p[1], columns // p[0]) for p in pairs)
    return first, second, third


def sampling_of(layers: Sequence[tuple[int, int]]) -> str:
    """The subsampling of sampling factors (columns, rows) of three planes: its name, else the
    factors. Raises InvdiffError where they do not divide the largest."""
    text = ",".join(f"{h}x{v}" for h, v in layers)
    found = factors_of(text)
    names = [n for n, f in NAMED.items() if found == ((1, 1), f, f)]
    return names[0] if names else text


def by_planes(planes: Tensor, factors: Sequence[Factors], tables: Sequence[list[int]]) -> Tensor:
    """Planes (C, H, W) uint8 through the codec, each as a grey JPEG of its own.

    The planes of a file are quantised apart from each other, so that this is what a file of any
    sampling does, but for the rounding of means.
    """
    height, width = planes.shape[1:]
    found = []
    for plane, (rows, columns), table in zip(planes, factors, tables, strict=True):
        pad = (0, -width % columns, 0, -height % rows)
        padded = F.pad(plane[None, None].float(), pad, mode="replicate")
        small = (F.avg_pool2d(padded, (rows, columns))[0, 0] + 0.5).floor()
        buffer = io.BytesIO()
        Image.fromarray(small.to(torch.uint8).numpy()).save(buffer, "JPEG", qtables=[table])
        with Image.open(buffer) as image:
            stored = torch.from_numpy(np.array(image)).float()
        found.append(enlarged(stored, (rows, columns))[:height, :width])
    return torch.stack(found).round().clamp(0, 255).to(torch.uint8)


def enlarged(plane: Tensor, factors: Factors) -> Tensor:
    """(H, W) at its full size, as libjpeg does it."""
    for axis, factor in enumerate(factors):
        if factors in INTERPOLATED and factor == 2:
            plane = _triangle(plane, axis)
        elif factor > 1:
            plane = plane.repeat_interleave(factor, axis)
    return plane


def _triangle(plane: Tensor, axis: int) -> Tensor:
    """Twice as many samples along an axis: 3/4 of the nearest and 1/4 of the next."""
    n = plane.shape[axis]
    index = torch.arange(n)
    before = plane.index_select(axis, (index - 1).clamp_min(0))
    after = plane.index_select(axis, (index + 1).clamp_max(n - 1))
    pair = torch.stack([0.75 * plane + 0.25 * before, 0.75 * plane + 0.25 * after], axis + 1)
    return pair.flatten(axis, axis + 1)
