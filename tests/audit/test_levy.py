"""Levy processes: Gibbs samplers against closed forms and enumeration, and published figures."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from invdiff.audit.gibbs import VARIANCE, ZERO, dense_chain, jumps_chain, wald
from invdiff.audit.levy import FLOOR, PUBLISHED, matrix, measured, noise_level
from invdiff.solvers.mmps import MMPS

F64 = torch.float64


def moments(chain, burn, kept):
    states = torch.stack([s for s, _ in zip(chain, range(burn + kept), strict=False)][burn:])
    return states.flatten(0, 1).mean(0), states.flatten(0, 1).var(0)


def test_operators_are_those_of_the_benchmark():
    assert [len(matrix(op)) for op in ("identity", "blur", "sampling", "fourier")] == [
        64,
        64,
        33,
        36,
    ]
    F = matrix("fourier")
    assert torch.allclose(F @ F.mT, torch.eye(36, dtype=F64), atol=1e-12)
    assert torch.allclose(matrix("blur").sum(1), torch.ones(64, dtype=F64))
    known = {("gauss", "identity"): 0.0148, ("laplace", "blur"): 0.106, ("bl", "fourier"): 0.0157}
    for key, value in known.items():
        assert noise_level(*key) ** 2 == pytest.approx(value, rel=0.05)


def test_chains_of_the_normal_law_have_its_closed_form():
    A, y, sigma = matrix("sampling")[:4, :8], torch.tensor([[0.3, -0.2, 0.5, 1.0]], dtype=F64), 0.3
    T = torch.ones(8, 8, dtype=F64).tril()
    prior = VARIANCE * T @ T.mT
    gain = prior @ A.mT @ torch.linalg.inv(A @ prior @ A.mT + sigma**2 * torch.eye(4))
    exact = (gain @ y[0], (prior - gain @ A @ prior).diagonal())
    chain = dense_chain("gauss", A, y.expand(500, 4), sigma, np.random.default_rng(0))
    mean, var = moments(chain, 2, 20)
    assert bool(((mean - exact[0]).abs() < 5 * (exact[1] / 10_000).sqrt()).all())
    assert torch.allclose(var, exact[1], rtol=5 * math.sqrt(2 / 10_000))


def test_inverse_normal_draws():
    """Mean m and variance m^3 of shape 1."""
    x = wald(torch.full((40_000,), 0.7, dtype=F64), np.random.default_rng(0))
    assert float(x.mean()) == pytest.approx(0.7, rel=0.02)
    assert float(x.var()) == pytest.approx(0.343, rel=0.08)


def test_jumps_have_the_posterior_of_enumeration():
    """Two increments, seen with noise: P(jump) by integrals on a grid, for weak and strong noise.

    The published code, in which a jump that was just made is removed again, has .036 at sigma^2 30
    where the prior's .1 is right.
    """
    grid = torch.linspace(-25, 25, 2001, dtype=F64)
    slab = torch.exp(-grid.abs()) / 2 * (grid[1] - grid[0])
    y = torch.tensor([0.8, 2.5], dtype=F64)
    for variance in (0.3, 30.0):
        mass = {}
        for a, b in itertools.product((0, 1), repeat=2):
            u, pu = (grid, slab) if a else (torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64))
            w, pw = (grid, slab) if b else (torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64))
            first = pu * torch.exp(-0.5 * (y[0] - u).square() / variance)
            second = torch.exp(-0.5 * (y[1] - u[:, None] - w).square() / variance) @ pw
            mass[a, b] = float(first @ second) * ZERO ** (2 - a - b) * (1 - ZERO) ** (a + b)
        total = sum(mass.values())
        exact = [sum(m for k, m in mass.items() if k[i]) / total for i in (0, 1)]
        chain = jumps_chain(
            torch.eye(2, dtype=F64), y.expand(400, 2), math.sqrt(variance), np.random.default_rng(3)
        )
        states = torch.stack([s for s, _ in zip(chain, range(80), strict=False)][20:])
        u = torch.stack([states[..., 0], states[..., 1] - states[..., 0]], -1)
        found = (u != 0).double().mean((0, 1)).tolist()
        assert found == pytest.approx(exact, abs=0.02)


def test_exact_draws_are_at_the_floor_and_the_prior_is_not():
    found = measured("exact", "gauss", "identity", 100, 200)
    gap = torch.tensor(found["gap"])
    assert abs(float(gap.mean()) - FLOOR) < 5 * float(gap.std()) / 10
    line = torch.tensor(measured("linear", "gauss", "identity", 100, 200)["gap"])
    assert float(line.abs().max()) < 0.2 and float(line.mean().abs()) < 0.02


def test_the_linear_estimate_has_its_published_gap():
    """In two of the cells whose gap is not far from zero; the paper's is of 1000 other signals."""
    for law in ("gauss", "laplace"):
        found = torch.tensor(measured("linear", law, "identity", 60, 400)["gap"])
        error = float(found.std()) / math.sqrt(60)
        known = PUBLISHED["linear", "identity"][law]
        assert abs(float(found.mean()) - known) < 3 * error + 0.02


def test_a_solver_with_the_denoiser_of_a_law_beats_the_linear_estimate():
    """Jumps: the best linear estimate is 8 dB above the posterior's mean, MMPS near it."""
    solver = MMPS().with_steps(20)
    found = {row: measured(row, "bl", "identity", 6, 200) for row in (solver, "linear")}
    gaps = {row: float(torch.tensor(v["gap"]).mean()) for row, v in found.items()}
    assert gaps[solver] + 3 < gaps["linear"]
