"""Draws of pixels behind an operator that is linear in pieces, against their law on a grid."""

from __future__ import annotations

import pytest
import torch

from helpers import states
from invdiff.core.rng import Rng
from invdiff.core.schedules import Karras
from invdiff.noise import GaussianNoise
from invdiff.operators import HDR, Identity
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.solvers.daps import DAPS
from invdiff.solvers.pieces import log_mass, pixel_draw

DRAWS = 200_000


@pytest.mark.parametrize("y", [-1.0, -0.3, 0.9, 1.0, 1.2])
@pytest.mark.parametrize("tau", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("centre", [-2.0, 0.2, 0.6])
def test_draws_have_the_law_on_a_grid(y, tau, centre):
    """Mean, deviation and the mass of highlights, of N(centre, 0.3^2) and y = clip(2 x) + noise."""
    A, r2 = HDR(2.0), 0.09
    g = torch.Generator().manual_seed(0)
    choice, u = (torch.rand(DRAWS, generator=g) for _ in range(2))
    x = pixel_draw(A, torch.full((DRAWS,), y), tau, torch.full((DRAWS,), centre), r2, choice, u)
    grid = torch.linspace(-5, 5, 400_001, dtype=torch.float64)
    density = -0.5 * (grid - centre).square() / r2 - 0.5 * (y - A(grid)).square() / tau**2
    mass = density.softmax(0)
    mean = float((mass * grid).sum())
    std = float((mass * (grid - mean).square()).sum().sqrt())
    assert float(x.mean()) == pytest.approx(mean, abs=5 * std / DRAWS**0.5 + 1e-4)
    assert float(x.std()) == pytest.approx(std, rel=0.02)
    assert float((x > 0.5).float().mean()) == pytest.approx(float(mass[grid > 0.5].sum()), abs=0.01)


def test_pieces_are_the_operator():
    x = torch.linspace(-2, 2, 401, dtype=torch.float64)
    for A in (HDR(2.0), -0.5 * HDR(4.0)):
        for low, high, slope, offset in A.pieces:
            within = (x >= low) & (x <= high)
            assert bool(within.any())
            assert torch.allclose(A(x[within]), slope * x[within] + offset)
    assert Identity().pieces == ()


def test_a_mass_far_from_the_middle_is_no_zero():
    one = torch.ones(1, dtype=torch.float64)
    found = float(log_mass(0 * one, one, 40 * one, torch.inf * one))
    assert found == pytest.approx(-0.5 * 40**2 - 4.6, abs=0.1)
    assert float(log_mass(0 * one, one, -1 * one, 1 * one).exp()) == pytest.approx(0.6827, abs=1e-4)


def test_daps_keeps_what_was_seen_and_draws_what_was_clipped():
    """Of a white normal prior: pixels that were clipped lie beyond, with the mean of their tail."""
    truth = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    noise, A = GaussianNoise(0.001), HDR(2.0)
    problem = Problem(A(truth), A, noise, (1, 64, 64))
    solver = DAPS(centre="tweedie", schedule=Karras(20, 20.0, 0.01))
    prior = Denoiser(lambda x, sigma: x / (1 + sigma**2), (1, 64, 64))
    x = states(solver, problem, prior, Rng.of([0]))[-1].x
    seen, clipped = truth.abs() < 0.49, truth.abs() > 0.5
    assert float((x - truth)[seen].abs().max()) < 0.005
    assert bool((x[clipped] * truth[clipped] > 0).all())
    tail = truth[clipped].abs()
    assert float(x[clipped].abs().mean()) == pytest.approx(float(tail.mean()), abs=0.05)
    assert float(x[clipped].abs().std()) == pytest.approx(float(tail.std()), abs=0.05)
