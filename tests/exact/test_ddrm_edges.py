"""Edge rules of DDRM, and what the official code does in their place."""

from __future__ import annotations

import pytest
import torch
from scalar import PRIOR

from helpers import seeded, seeds, states
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP
from invdiff.noise import GaussianNoise
from invdiff.operators import AveragePool, CircularBlur
from invdiff.problem import Problem
from invdiff.solvers.ddrm import DDRM

RNG = Rng.of(seeds(2))
POOL = AveragePool(2, (6, 4))


def run(A, sigma_y: float, last: str, y=None):
    y = A(seeded(2, 1, *A.size)) if y is None else y
    problem = Problem(y, A, GaussianNoise(sigma_y), (1, *A.size))
    return problem, states(DDRM(last=last, schedule=VP(5)), problem, PRIOR, RNG)


def test_the_last_step_keeps_noiseless_data():
    """At the last level n = w = 0, a tie: the paper's n <= w keeps y, the official strict one does
    not, and returns the plain denoiser's estimate, which does not fit y."""
    problem, ours = run(POOL, 0.0, "consistent")
    torch.testing.assert_close(POOL(ours[-1].x), problem.y, rtol=0, atol=1e-12)
    _, official = run(POOL, 0.0, "denoise")
    assert all(torch.equal(a.x, b.x) for a, b in zip(ours[:-1], official[:-1], strict=True))
    level = DDRM(schedule=VP(5)).levels[-2]
    assert torch.equal(official[-1].x, PRIOR.x0(official[-2].x, level))
    assert (POOL(official[-1].x) - problem.y).abs().max() > 1e-5


def test_with_noise_the_last_step_returns_the_denoisers_estimate_anyway():
    _, ours = run(POOL, 0.1, "consistent")
    _, official = run(POOL, 0.1, "denoise")
    torch.testing.assert_close(ours[-1].x, official[-1].x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma_y", [0.0, 0.1])
def test_modes_with_a_singular_value_of_0_never_see_y(sigma_y):
    """Official: a mode stored with s = 0 gets U^T y / sigma_y. Here, what y holds outside of the
    range of A changes nothing: a 2 x 2 mean loses the highest frequencies of even sizes."""
    A = CircularBlur(torch.ones(2, 2) / 4, (6, 4))
    clean = A(seeded(2, 1, 6, 4))
    lost = A.spectrum(clean).expand(1, 1, 6, 4) == 0
    assert lost.any()
    outside = A.U(torch.where(lost, 1.0, 0.0).double())  # U turns these modes as well
    assert float(A.adjoint(outside).abs().max()) < 1e-12 < float(outside.abs().max())
    plain, disturbed = (run(A, sigma_y, "consistent", y)[1] for y in (clean, clean + outside))
    torch.testing.assert_close(plain[-1].x, disturbed[-1].x, rtol=0, atol=1e-12)
