"""Where an image lies in the scanner: sizes of its pixels, and an affine matrix for NIfTI."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Placement:
    """voxel: mm along rows (H), columns (W) and the normal, 0 where it is not told. directions:
    unit vectors of patient coordinates (left, posterior, head) along these three; centre: of the
    pixel (H // 2, W // 2) in mm; None where a file tells no position."""

    voxel: Vector
    directions: tuple[Vector, Vector, Vector] | None = None
    centre: Vector | None = None

    def affine(self, size: tuple[int, int]) -> Tensor:
        """(4, 4) float64, from indices (row, column, slice) to mm as NIfTI counts them (right,
        anterior, head); without a position the image is centred on 0."""
        voxel = [mm if mm > 0 else 1.0 for mm in self.voxel]
        eye = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
        columns = np.array(self.directions or eye).T * voxel
        centre = np.array(self.centre or (0.0, 0.0, 0.0))
        if self.directions is not None:  # from left and posterior to right and anterior
            flip = np.diag([-1.0, -1.0, 1.0])
            columns, centre = flip @ columns, flip @ centre
        matrix = np.eye(4)
        matrix[:3, :3] = columns
        matrix[:3, 3] = centre - columns @ [size[0] // 2, size[1] // 2, 0]
        return torch.from_numpy(matrix)

    def coarser(self, rows: float, columns: float) -> Placement:
        """Of pixels that are larger by these factors, over the same field of view."""
        h, w, normal = self.voxel
        return replace(self, voxel=(h * rows, w * columns, normal))


def of_head(head: Any, voxel: Vector, deep: int | None = None) -> Placement | None:
    """Of the head of a readout of raw data; None where no pixel size is told.

    voxel: along readout, phase encoding and slice. deep: of three dimensions, the position along
    the readout from the middle: the image's rows are then phase encodings, its columns partitions.
    """
    vectors = [np.asarray(head[f"{name}_dir"], float) for name in ("read", "phase", "slice")]
    middle = np.asarray(head["position"], float)
    if not all(math.isfinite(mm) and mm >= 0 for mm in voxel) or max(voxel) <= 0:
        return None
    known = np.isfinite(np.stack([*vectors, middle])).all()
    gram = np.stack(vectors) @ np.stack(vectors).T
    known = bool(known and np.allclose(gram, np.eye(3), atol=0.01))
    if deep is not None:
        middle = middle + vectors[0] * deep * voxel[0]
        vectors, voxel = [vectors[1], vectors[2], vectors[0]], (voxel[1], voxel[2], voxel[0])
    if not known:
        return Placement(voxel)
    return Placement(
        voxel, (_three(vectors[0]), _three(vectors[1]), _three(vectors[2])), _three(middle)
    )


def _three(values: np.ndarray) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])
