"""What the flat field left in a sinogram: a beam that changed since the white fields.

Neither is noise: the first is the same along a view, the second the same in all views, and both may
exceed the noise of the photons. Nothing here is applied unless it is asked for.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.sizes import whole
from invdiff.scans.sinogram import Sinogram

FEWEST = 8
"""Bins of air on each side below which no line through them is drawn."""


def air(s: Sinogram, share: float = 0.03) -> tuple[int, int]:
    """How many bins at the left and at the right end see nothing but air in all views.

    A bin does where no view exceeds `share` of the 99th percentile of all line integrals. A
    quarter of those, next to the object, is not counted, for the object's edge may reach there.
    """
    if not 0 < share < 1:
        raise InvdiffError(f"A share lies between 0 and 1, found {share}.")
    z = torch.where(s.trusted, s.integrals, 0.0)
    top = float(z.flatten().sort().values[int(0.99 * (z.numel() - 1))])
    hit = (z > share * top).any(0)
    found = hit.nonzero().flatten()
    if not len(found):
        raise InvdiffError("The sinogram shows nothing that attenuates; check its kind.")
    left, right = int(found[0]), hit.numel() - 1 - int(found[-1])
    return left - left // 4, right - right // 4


def without_drift(s: Sinogram, left: int | None = None, right: int | None = None) -> Sinogram:
    """Every view less the straight line through its air, whose line integrals are 0.

    For a beam whose intensity, or whose slope along the detector, drifts from view to view. left,
    right: bins at the ends that see air in all views; None finds them (`air`). The line is the
    least-squares one; its own noise is not added to the variance, for it is that of many bins.
    Raises InvdiffError where an end has fewer than 8 such bins.
    """
    weight = (_ends(s, left, right) & s.trusted).double()
    bins = s.integrals.shape[1]
    at = torch.linspace(-1, 1, bins, dtype=torch.float64)
    terms = torch.stack([torch.ones_like(at), at])
    normal = torch.einsum("vb,ib,jb->vij", weight, terms, terms)
    right_side = torch.einsum("vb,ib,vb->vi", weight, terms, s.integrals.double())
    if float(weight.sum(1).min()) < FEWEST:
        raise InvdiffError(f"A view has fewer than {FEWEST} trusted bins of air.")
    line = torch.linalg.solve(normal, right_side) @ terms
    told = f"beam drift of {float(line.std()):.2g} removed, by a line through the air of each view"
    z = (s.integrals - line).to(s.integrals.dtype)
    return dataclasses.replace(s, integrals=z, facts=(*s.facts, told))


def without_rings(s: Sinogram, width: int = 7) -> Sinogram:
    """The sinogram less what each bin adds in all views, which draws rings around the axis.

    A bin's offset is the median over the views of its distance from a parabola through the `width`
    bins around it (an odd number, at least 5; Savitzky and Golay 1964), for what belongs to the
    object moves along the detector, and most of it is smooth. Offsets that are smooth along the
    detector are not found, and of white ones about a third stays. A wider parabola leaves less of
    them, and takes more of the object. After the idea of Boin and Haibel 2006, "Compensation of
    ring artefacts in synchrotron tomographic images", Optics Express 14, 12071.
    """
    bins = s.integrals.shape[1]
    if not whole(width) or width % 2 == 0 or not 5 <= width <= bins:
        raise InvdiffError(f"A width is an odd number of bins, from 5 to {bins}, found {width}.")
    z = s.integrals.double()
    rings = (z - _parabola(z, width)).median(0).values
    told = f"rings of {float(rings.std()):.2g} removed, by what each bin adds in all views"
    z = (z - rings).to(s.integrals.dtype)
    return dataclasses.replace(s, integrals=z, facts=(*s.facts, told))


def excess(s: Sinogram, left: int | None = None, right: int | None = None) -> float:
    """Standard deviation of the line integrals of air beyond that of their photons; 0 if none.

    What changed of the beam's pattern from view to view, and no correction took away: a model error
    that is there in every ray. left, right: as in `without_drift`, which should come first.
    Raises InvdiffError where the sinogram has no variance.
    """
    if s.variance is None:
        raise InvdiffError("A sinogram without counts has no photon noise to compare with.")
    here = s.trusted & _ends(s, left, right)
    beyond = float((s.integrals[here].square() - s.variance[here]).mean())
    return math.sqrt(max(beyond, 0.0))


def _ends(s: Sinogram, left: int | None, right: int | None) -> Tensor:
    """(bins,), True for the air at both ends."""
    found, bins = air(s), s.integrals.shape[1]
    left, right = (
        n if told is None else told for n, told in zip(found, (left, right), strict=True)
    )
    if min(left, right) < FEWEST or left + right > bins:
        raise InvdiffError(
            f"The drift of the beam is found in air on both sides of the object, at least "
            f"{FEWEST} of {bins} bins each; found {left} and {right}. Keep the drift, or in "
            "Python give left and right."
        )
    seen = torch.ones(bins, dtype=torch.bool)
    seen[left : bins - right] = False
    return seen


def _parabola(z: Tensor, width: int) -> Tensor:
    """The value at each bin of the parabola that fits its `width` neighbours, in each view."""
    half = width // 2
    at = torch.arange(-half, half + 1, dtype=z.dtype)
    weights = torch.linalg.pinv(torch.stack([at**k for k in range(3)], 1))[0]
    padded = F.pad(z[:, None], (half, half), mode="replicate")
    return F.conv1d(padded, weights[None, None])[:, 0]
