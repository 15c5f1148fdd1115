"""azula itself, where it is installed: its conventions, and the law of its samples."""

from __future__ import annotations

import dataclasses
import math
import warnings

import pytest
import torch

from invdiff.bench import grid, peers
from invdiff.bench.peers import azula as adapter
from invdiff.bench.suites import SUITES
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Identity
from invdiff.operators.downsample import AveragePool
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.radon import Radon
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("azula", exc_type=ImportError)

pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = [name for name in peers.PEERS if name.startswith("azula:")]


def test_the_denoiser_is_that_of_azula():
    """Its own Gaussian denoiser, whose scale and sign are azula's."""
    from azula.denoise import GaussianDenoiser
    from azula.linalg.covariance import IsotropicCovariance
    from azula.noise import VESchedule, VPSchedule

    mean = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(1, 4, 4)
    prior = GaussianPrior(mean, 0.3)
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    for schedule in (VPSchedule(), VESchedule()):
        ours = adapter.denoiser(prior, schedule)
        theirs = GaussianDenoiser(mean, IsotropicCovariance(0.3), schedule)
        for t in (0.0, 0.3, 0.7):
            time = torch.tensor(t, dtype=torch.float64)
            torch.testing.assert_close(ours(x, time).mean, theirs(x, time).mean)


def expected(m: float, v: float, steps: int) -> tuple[float, float]:
    """Mean and variance of a pixel of N(m, v) after azula's DDPM steps, in plain numbers.

    VPSchedule: a = 0.001^(t^2), s^2 = 1 - a^2 + 1e-6; the first state has variance a^2 + s^2.
    """

    def level(t: float) -> tuple[float, float]:
        a = 0.001 ** (t * t)
        return a, math.sqrt(1 - a * a + 1e-6)

    a, s = level(1.0)
    mean, variance = 0.0, a * a + s * s
    for k in range(steps, 0, -1):
        (a, s), (b, u) = level(k / steps), level((k - 1) / steps)
        keep = a * v / (a * a * v + s * s)  # of E[x0 | x_t] = m + keep (x_t - a m)
        tau = 1 - (a / b * u / s) ** 2
        r = u * math.sqrt(1 - tau) / s
        slope = b * keep + r * (1 - a * keep)
        mean = slope * (mean - a * m) + (b - r * a) * m + r * a * m
        variance = slope**2 * variance + u * u * tau
    return mean, variance


def law(samples: torch.Tensor) -> tuple[float, float, int]:
    values = samples.double().flatten()
    return float(values.mean()), float(values.var()), values.numel()


def near(found: tuple[float, float, int], mean: float, variance: float) -> bool:
    """Within five standard errors of Monte Carlo."""
    m, v, n = found
    wide = 5 * math.sqrt(variance / n), 5 * variance * math.sqrt(2 / n)
    return abs(m - mean) < wide[0] and abs(v - variance) < wide[1]


@pytest.mark.parametrize("name", ["azula:mmps", "azula:tmpd"])
def test_the_law_of_its_samples_is_that_of_the_formula(name):
    """Moments are matched exactly where prior and operator are multiples of the identity."""
    m, v, y, sigma = 0.2, 0.5, -0.6, 0.4
    shape = (1, 16, 16)
    prior = GaussianPrior(torch.full(shape, m), v)
    problem = Problem(torch.full((1, *shape), y), Identity(), GaussianNoise(sigma), shape)
    drawn, spent = peers.sample(peers.PEERS[name], problem, prior, 16, 0, 24)
    variance = 1 / (1 / v + 1 / sigma**2)
    mean = variance * (m / v + y / sigma**2)
    found = law(drawn)
    assert spent == 24 and near(found, *expected(mean, variance, 24))
    assert not near(found, *expected(m, v, 24))  # of samples that do not see y
    double = 1 / (1 / v + 1 / (2 * sigma) ** 2)
    assert not near(found, *expected(double * (m / v + y / (2 * sigma) ** 2), double, 24))


@pytest.mark.parametrize("A", [AveragePool(2, (4, 4)), Inpaint.box((4, 4), 1, 1, 2, 2)])
@pytest.mark.parametrize("data_std", [1.0, math.inf])
def test_the_twist_is_a_normal_law(A, data_std):
    """Against a dense matrix, in float64."""
    x = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(1, 1, 4, 4).requires_grad_()
    y = A(x.detach()) + A(torch.ones_like(x)) * torch.linspace(0.1, 0.9, 4).mean()
    problem = Problem(A.restrict(y), A, GaussianNoise(0.3), (1, 4, 4))
    M = A(torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)).flatten(1).mT
    for sigma in (0.1, 2.0):
        c = 1 / (1 / sigma**2 + 1 / data_std**2)
        S = 0.09 * torch.eye(len(M), dtype=torch.float64) + c * M @ M.mT
        e = (problem.y - A(x)).flatten()
        value = -0.5 * e @ torch.linalg.solve(S, e)
        wanted = torch.autograd.grad(value, x)[0]
        found = adapter.log_twist(problem, data_std)(x, torch.tensor(sigma, dtype=torch.float64))
        torch.testing.assert_close(found, value[None], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            torch.autograd.grad(found.sum(), x)[0], wanted, rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", SUITES["small"].cases, ids=lambda case: case.name)
def test_it_measures_what_a_bench_measures(name, case):
    truth = torch.linspace(-0.9, 0.9, 3 * 16 * 16).reshape(1, 3, 16, 16)
    problem = grid.measurement(case, truth, 1)
    prior = GaussianPrior(torch.zeros(3, 16, 16), 0.3)
    found, spent = peers.sample(peers.PEERS[name], problem, prior, 2, 0, 20)
    again, _ = peers.sample(peers.PEERS[name], problem, prior, 2, 0, 20)
    assert torch.equal(found, again) and found.dtype == problem.y.dtype and spent == 20
    away = dataclasses.replace(problem, y=-problem.y)
    other, _ = peers.sample(peers.PEERS[name], away, prior, 2, 0, 20)
    assert float((problem.A(found[0] - other[0]) * problem.y).sum()) > 0  # it sees y


def test_projections_have_derivatives_in_both_directions():
    A = Radon(tuple(range(0, 180, 20)), (16, 16))
    x, v = torch.randn(2, 1, 1, 16, 16)
    A(x)  # the matrix is made
    y, moved = torch.func.jvp(A, (x,), (v,))
    assert torch.equal(y, A(x)) and torch.equal(moved, A(v))
