"""What the flat field left: drift and rings are found, and the object stays."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.operators import Radon
from invdiff.scans import Sinogram, excess, without_drift, without_rings
from invdiff.scans.drift import air

VIEWS, BINS, SIGMA = 90, 96, 0.004


def clean() -> Tensor:
    """Line integrals (views, bins) of two off-centre discs, about 1.6 at most."""
    A = Radon(tuple(2.0 * k for k in range(VIEWS)), (48, 48), BINS)
    y, x = torch.meshgrid(torch.arange(48) - 23.5, torch.arange(48) - 23.5, indexing="ij")
    image = 0.03 * ((x - 3).square() + y.square() < 18**2).float()
    image += 0.03 * ((x + 6).square() + (y - 5).square() < 36).float()
    return A(image[None, None])[0, 0]


def measured(extra: Tensor | float = 0.0, sigma: float = SIGMA) -> Sinogram:
    z = clean()
    z = z + sigma * Rng.of([3]).normal(z[None], "photons")[0] + extra
    angles = tuple(2.0 * k for k in range(VIEWS))
    variance = torch.full_like(z, sigma**2)
    return Sinogram(z, angles, variance, torch.ones_like(z, dtype=torch.bool))


def rms(t: Tensor) -> float:
    return float(t.double().square().mean().sqrt())


def test_air_is_what_no_view_darkens() -> None:
    left, right = air(measured())
    hit = (clean() > 0.05).any(0).nonzero().flatten()
    assert 8 < left < int(hit[0]) and 8 < right < BINS - 1 - int(hit[-1])


def test_drift_of_the_beam_is_removed_to_its_own_noise() -> None:
    """An offset and a slope in every view; what is left is the noise of a line through the air."""
    t = torch.linspace(0, 7, VIEWS)[:, None]
    line = 0.02 * t.sin() + 0.01 * t.cos() * torch.linspace(-1, 1, BINS)
    clear = dataclasses.replace(measured(line), integrals=clean() + line)
    assert rms(without_drift(clear).integrals - clean()) < 1e-6
    s = measured(line)
    found = without_drift(s)
    left = found.integrals - measured().integrals
    # two parameters of about 40 bins, extrapolated nowhere: below sigma / 2 everywhere
    assert rms(left) < 0.5 * SIGMA < rms(line) / 4
    assert "beam drift" in found.facts[-1] and torch.equal(s.integrals, measured(line).integrals)


def test_untrusted_air_does_not_move_the_line() -> None:
    s = measured()
    s.integrals[:, 2] = 50.0
    s.trusted[:, 2] = False
    assert rms((without_drift(s).integrals - clean())[:, 5:]) < 1.5 * SIGMA


def test_rings_are_removed_and_the_object_is_not() -> None:
    rings = 0.01 * torch.randn(BINS, generator=torch.Generator().manual_seed(1))
    before, after = measured(rings), without_rings(measured(rings))
    offset = (before.integrals - after.integrals)[0]
    assert torch.allclose(before.integrals - after.integrals, offset.expand(VIEWS, BINS), atol=1e-6)
    # a parabola through 7 values keeps 1/3 of the middle one: 2/3 of the variance of white rings go
    assert rms(offset - rings) < 0.75 * rms(rings)
    # discs that stand near the axis have edges that are rings themselves, but hardly more
    quiet = without_rings(dataclasses.replace(measured(), integrals=clean()))
    assert rms(quiet.integrals - clean()) < 0.004


def test_smooth_and_moving_parts_are_no_rings() -> None:
    """A parabola along the detector, of another height in each view."""
    height = torch.linspace(0.5, 2, VIEWS)[:, None]
    z = height * (1 - torch.linspace(-1, 1, BINS) ** 2)
    inner = slice(3, -3)
    s = dataclasses.replace(measured(), integrals=z)
    assert rms((without_rings(s).integrals - z)[:, inner]) < 1e-6
    z[:30, 50] += 0.5  # in a third of the views: an edge that passes
    assert rms((without_rings(s).integrals - z)[:, inner]) < 1e-6


def test_the_excess_is_what_photons_do_not_explain() -> None:
    """A pattern that changes in every view, of 0.006 beside a noise of 0.004."""
    z = clean()
    extra = 0.006 * Rng.of([9]).normal(z[None], "pattern")[0]
    n = sum(air(measured(extra))) * VIEWS
    total = SIGMA**2 + 0.006**2
    error = 5 * total * math.sqrt(2 / n)
    assert abs(excess(measured(extra)) ** 2 - 0.006**2) < error
    assert excess(measured()) ** 2 < 5 * SIGMA**2 * math.sqrt(2 / n)


def test_what_cannot_be_corrected_is_said() -> None:
    full = dataclasses.replace(measured(), integrals=1 + clean())
    with pytest.raises(InvdiffError, match="air on both sides.*found 0 and 0"):
        without_drift(full)
    with pytest.raises(InvdiffError, match="found 3 and 20"):
        without_drift(measured(), 3, 20)
    with pytest.raises(InvdiffError, match="odd number of bins, from 5 to 96, found 8"):
        without_rings(measured(), 8)
    with pytest.raises(InvdiffError, match="without counts"):
        excess(dataclasses.replace(measured(), variance=None))
    with pytest.raises(InvdiffError, match="nothing that attenuates"):
        air(dataclasses.replace(measured(), integrals=torch.full((VIEWS, BINS), -0.1)))
