"""The noise of several coils, from what no image explains."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise, noise_from_kspace
from invdiff.operators import Sense, ring_maps
from invdiff.operators.sampling import poisson_disc
from invdiff.scans import KSpace, noise_from_coils
from invdiff.scans.kspace_problem import mri_problem

SIZE = (48, 40)
SIGMA = 0.05


def image() -> Tensor:
    """Blocks of noise: their k-space reaches the rim with more power than the noise."""
    g = torch.Generator().manual_seed(0)
    return torch.randn(1, 2, *SIZE, generator=g).sign() * 0.3


def scanned(coils: int, accel: float | None, sigma: float = SIGMA) -> tuple[KSpace, Tensor]:
    mask = torch.ones(1, 1, *SIZE, dtype=torch.bool)
    if accel:
        mask = poisson_disc(SIZE, accel, 0).bool()
    maps = ring_maps(coils, SIZE, 1.5).to(torch.complex64)
    A = Sense(maps, mask)
    y = A.restrict(GaussianNoise(sigma).sample(A(image()), Rng.of(5)))
    return KSpace(y[0], mask[0, 0]), maps[0]


@pytest.mark.parametrize("accel", [None, 2.0, 3.0])
def test_signal_at_the_rim_is_not_taken_for_noise(accel: float | None) -> None:
    k, maps = scanned(8, accel)
    found = noise_from_coils(k, maps)
    assert abs(found.sigma / SIGMA - 1) < 5 * found.error < 0.25
    assert noise_from_kspace(k.data).sigma > 1.5 * SIGMA
    m = mri_problem(k, maps)
    assert m.sigma == found.sigma and "no image explains" in m.how


def test_its_error_is_as_stated() -> None:
    """Twelve measurements of pure noise: their scatter is the stated error, within its own."""
    k, maps = scanned(6, 2.0)
    ratios = []
    for seed in range(12):
        n = torch.zeros_like(k.y)
        y = GaussianNoise(SIGMA).sample(n, Rng.of(100 + seed))[0] * k.mask
        found = noise_from_coils(KSpace(y, k.mask), maps)
        ratios.append(found.sigma / SIGMA - 1)
    spread = math.sqrt(sum(r**2 for r in ratios) / len(ratios))
    assert spread < found.error * 1.8


def test_wrong_maps_leave_the_level_of_the_rim() -> None:
    """What maps get wrong counts as noise; the smaller bound is taken."""
    k, maps = scanned(8, None)
    wrong = maps.flip(0)
    assert noise_from_coils(k, wrong).sigma > noise_from_kspace(k.data).sigma
    assert mri_problem(k, wrong).sigma == noise_from_kspace(k.data).sigma


def test_too_few_coils_are_no_help() -> None:
    k, maps = scanned(2, 4.0)
    with pytest.raises(InvdiffError, match="2 coils at an acceleration of .* too little"):
        noise_from_coils(k, maps)
    m = mri_problem(k, maps)
    assert m.sigma == noise_from_kspace(k.data).sigma and "outermost samples" in m.how
    with pytest.raises(InvdiffError, match=r"share in \(0, 1\]"):
        noise_from_coils(k, maps, 0.0)
    assert mri_problem(k, maps, sigma=0.1).how == "as given"
