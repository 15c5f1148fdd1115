"""The denoiser of Levy processes: closed form, enumeration on a grid, and other Gibbs samplers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from invdiff.audit.gibbs import LAWS, VARIANCE, ZERO, dense_chain, increments, jumps_chain
from invdiff.audit.oracle import Oracle, filtered, jumped, smoothed
from invdiff.core import Level

F64 = torch.float64


def normal(q: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Gain H and covariance of s given x = s + noise, for increments N(0, q)."""
    T = np.tril(np.ones((len(q), len(q))))
    prior = T @ np.diag(q) @ T.T
    H = prior @ np.linalg.inv(prior + noise * np.eye(len(q)))
    return H, prior - H @ prior


@pytest.mark.parametrize("still", [False, True])
def test_filter_and_smoother_are_the_dense_formulas(still: bool) -> None:
    """Mean, variance and samples; also where increments are 0, the first ones too."""
    rng, noise = np.random.default_rng(0), 0.4
    q = rng.exponential(1.0, 6) * (np.array([0, 0, 1, 0, 1, 1]) if still else 1)
    x = rng.standard_normal((6, 1))
    H, cov = normal(q, noise)
    f = filtered(x, q[:, None], noise)
    np.testing.assert_allclose(smoothed(f), H @ x, atol=1e-12)
    count = 40_000
    f = filtered(x + np.zeros((6, count)), q[:, None] + np.zeros((6, count)), noise)
    s = smoothed(f, rng.standard_normal((6, count)))
    error = np.sqrt(cov.diagonal() / count)
    assert (np.abs(s.mean(1) - (H @ x)[:, 0]) <= 5 * error + 1e-12).all()
    np.testing.assert_allclose(np.cov(s), cov, atol=5 * cov.max() / np.sqrt(count))


def test_the_normal_law_has_its_closed_form() -> None:
    x, sigma = torch.randn(3, 1, 1, 64, dtype=F64, generator=torch.Generator().manual_seed(1)), 0.7
    H, _ = normal(np.full(64, VARIANCE), sigma**2)
    exact = (x.flatten(1) @ torch.from_numpy(H).mT).reshape(x.shape)
    level = Level(0.6, 0.6 * sigma)
    x0, pull = Oracle("gauss", 0, 2).x0_vjp(0.6 * x, level)
    torch.testing.assert_close(x0, exact, atol=1e-12, rtol=0)
    torch.testing.assert_close(pull(x), exact / 0.6, atol=1e-12, rtol=0)
    torch.testing.assert_close(Oracle("gauss", 0, 2).denoise(x, sigma), exact, atol=1e-12, rtol=0)


def test_whether_increments_jump_is_drawn_by_their_posterior() -> None:
    """Three increments with known variances: the laws of all eight choices, by normal densities."""
    noise, w = 0.5, np.array([2.0, 0.3, 1.5])
    x, T = np.array([0.2, 1.1, -0.4]), np.tril(np.ones((3, 3)))
    choices = list(itertools.product((0, 1), repeat=3))
    mass = []
    for v in choices:
        C = T @ np.diag(np.array(v) * w) @ T.T + noise * np.eye(3)
        fit = -0.5 * x @ np.linalg.solve(C, x) - 0.5 * np.linalg.slogdet(C)[1]
        mass.append(np.exp(fit) * ZERO ** (3 - sum(v)) * (1 - ZERO) ** sum(v))
    exact = np.array(mass) / sum(mass)
    count, rng = 20_000, np.random.default_rng(2)
    rows = [a[:, None] + np.zeros((3, count)) for a in (x, w)]
    v = np.ones((3, count))
    for _ in range(30):
        v = jumped(rows[0], v, rows[1], noise, rng)
    seen = np.array([(v.T == c).all(1).mean() for c in choices])
    assert (np.abs(seen - exact) < 5 * np.sqrt(exact * (1 - exact) / count) + 1e-4).all()


@pytest.mark.parametrize("law", [law for law in LAWS if law != "gauss"])
@pytest.mark.parametrize("sigma", [0.3, 3.0])
def test_mean_and_covariance_are_those_of_dense_chains(law: str, sigma: float) -> None:
    """Eight increments, many chains of the other samplers; errors in the posterior's deviations."""
    length, chains = 8, 400
    signal = increments(law, 1, length, np.random.default_rng(3)).cumsum(1)
    x = signal + sigma * torch.randn(
        1, length, dtype=F64, generator=torch.Generator().manual_seed(4)
    )
    A, many, rng = torch.eye(length, dtype=F64), x.expand(chains, length), np.random.default_rng(5)
    chain = (
        jumps_chain(A, many, sigma, rng) if law == "bl" else dense_chain(law, A, many, sigma, rng)
    )
    states = torch.stack(list(itertools.islice(chain, 20, 120))).flatten(0, 1)
    cov = states.mT.cov()
    deviation = cov.diagonal().sqrt()
    oracle = Oracle(law, 20, 100)
    x0, pull = oracle.x0_vjp(many[:, None, None].contiguous(), Level(1.0, sigma))
    gap = (x0.flatten(1).mean(0) - states.mean(0)).abs() / deviation
    assert float(gap.max()) < 0.05
    columns = [pull(e.expand_as(many)[:, None, None]).flatten(1).mean(0) for e in A]
    own = torch.stack(columns) * sigma**2 / deviation / deviation[:, None]
    torch.testing.assert_close(own, own.mT, atol=1e-10, rtol=0)
    assert float((own - cov / deviation / deviation[:, None]).abs().max()) < 0.1


def test_draws_are_a_function_of_sigma_and_row() -> None:
    x = torch.randn(3, 1, 1, 64, dtype=torch.float32, generator=torch.Generator().manual_seed(6))
    oracle = Oracle("student1", 2, 4)
    first = oracle.denoise(x, 1.0)
    assert first.dtype == torch.float32 and torch.equal(first, oracle.denoise(x, 1.0))
    assert not torch.equal(first[0], oracle.denoise(x[[1, 0, 2]], 1.0)[1])
