"""What a measurement leaves open: the directions in which samples differ most from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.restoration.restored import Restoration, stacked


@dataclass(frozen=True, eq=False)
class Directions:
    """Principal directions of the samples' covariance, the widest first.

    middle: the mean of the samples, (C, H, W), in the units of the file. axes: (D, C, H, W), of
    length 1 each, orthogonal. deviations: (D,), standard deviation of the samples along each.
    share: (D,), part of the whole variance that each explains.
    With K samples there are K - 1 at most, and those of few samples are those of these samples.
    """

    middle: Tensor
    axes: Tensor
    deviations: Tensor
    share: Tensor

    def at(self, coefficients: Sequence[float]) -> Tensor:
        """The picture so many standard deviations along each direction, (C, H, W)."""
        if len(coefficients) > len(self.axes):
            raise InvdiffError(
                f"There are {len(self.axes)} directions, but {len(coefficients)} were given."
            )
        x = self.middle.clone()
        for c, axis, deviation in zip(coefficients, self.axes, self.deviations, strict=False):
            x = x + c * deviation * axis
        return x


def directions(done: Restoration, most: int = 5) -> Directions:
    """The directions of a restoration's samples, by the singular values of what they differ by.

    Raises InvdiffError where there are no two samples, or their deviation means nothing.
    """
    if not done.spread:
        raise InvdiffError("There are no directions without two samples that differ; draw more.")
    values = done.view.values(stacked(done.result.resampled()))
    return _directions(values, most)


def _directions(values: Tensor, most: int) -> Directions:
    """Of values (K, C, H, W), real or complex; the eigenvectors of their small Gram matrix."""
    middle = values.mean(0)
    apart = (values - middle).flatten(1)
    apart = apart.to(torch.complex128 if apart.is_complex() else torch.float64)
    gram = apart @ apart.mH
    squares, vectors = torch.linalg.eigh(gram.real if apart.is_complex() else gram)
    squares, vectors = squares.flip(0).clamp_min(0), vectors.flip(1)
    count = min(most, len(values) - 1, int((squares > 1e-10 * squares[0].clamp_min(1e-300)).sum()))
    squares, vectors, whole = squares[:count], vectors[:, :count], squares.sum()
    axes = (vectors.mT.to(apart.dtype) @ apart) / squares.sqrt().clamp_min(1e-300)[:, None]
    deviations = (squares / (len(values) - 1)).sqrt()
    shaped = axes.to(values.dtype).reshape(count, *middle.shape)
    return Directions(middle, shaped, deviations.float(), (squares / whole).float())
