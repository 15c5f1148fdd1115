"""What `asymptotic` means where there are two modes: their shares approach the posterior's.

Every pixel is -1 or 1 with equal chances, plus N(0, 0.09), and y is 0.35 everywhere, with noise of
0.7: a closed-form posterior with 0.77 of its mass in one mode, of which a picture holds one sample
a pixel. Nothing here is normal, so a sampler that is right on one mode may fail.
"""

from __future__ import annotations

import math

import pytest
import torch
from test_particles import GROWING

from helpers import states
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE
from invdiff.noise import GaussianNoise
from invdiff.operators import Identity
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.solvers import Solver, registry
from invdiff.solvers.csgm import CSGM
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.eps import EPS
from invdiff.solvers.snips import SNIPS

SIDE, Y, SIGMA_Y, VARIANCE = 120, 0.35, 0.7, 0.09
SHARE = 1 / (1 + math.exp(-2 * Y / (VARIANCE + SIGMA_Y**2)))
ERROR = math.sqrt(SHARE * (1 - SHARE)) / SIDE  # of a share, one standard error


def denoised(x: torch.Tensor, sigma: float) -> torch.Tensor:
    total = VARIANCE + sigma**2
    return (VARIANCE * x + sigma**2 * torch.tanh(x / total)) / total


def wrong_share(solver: Solver) -> float:
    """Of pixels above 0, against the mode's share: less than 1e-3 of the mass is across 0."""
    shape = (1, SIDE, SIDE)
    y = torch.full((1, *shape), Y, dtype=torch.float64)
    problem = Problem(y, Identity(), GaussianNoise(SIGMA_Y), shape)
    x = states(solver, problem, Denoiser(denoised), Rng.of([1]))[-1].x
    return abs(float((x > 0).double().mean()) - SHARE)


FALLS = {
    "csgm": (lambda n: CSGM(c=0.2, schedule=VE(n, 4.0, 0.05)), 0.8, (20, 80, 320)),
    "eps": (lambda n: EPS(schedule=VE(n, 4.0, 0.05)), 0.8, (3, 12, 80)),
    "snips": (lambda n: SNIPS(c=0.2, K=1, schedule=VE(n, 4.0, 0.05)), 0.5, (20, 80, 320)),
}


def test_every_claim_is_tested():
    """Those of particles, which grow with these, in `test_particles.py`."""
    growing = {made(1).name for made in GROWING.values()}
    claimed = {name for name, cls in registry().items() if cls().claim == "asymptotic"}
    assert set(FALLS) | growing == claimed and not set(FALLS) & growing


@pytest.mark.parametrize(("make", "factor", "budgets"), FALLS.values(), ids=FALLS)
def test_the_shares_of_two_modes_approach_the_posteriors(make, factor, budgets):
    """As steps grow, from 20 to 80 to 320 but for EPS; down to Monte Carlo error."""
    errors = [wrong_share(make(n)) for n in budgets]
    assert errors[0] > 20 * ERROR
    assert errors[1] < factor * errors[0]
    assert errors[2] < max(factor * errors[1], 4 * ERROR)


def test_what_only_claims_to_be_heuristic_does_not():
    """Negative twin: DDRM goes away from them, with more and more steps."""
    errors = [wrong_share(DDRM(schedule=VE(n, 4.0, 0.05))) for n in (20, 80, 320)]
    assert errors[2] > errors[1] > errors[0] and errors[2] > 20 * ERROR
