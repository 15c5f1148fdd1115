"""deepinv itself, where it is installed: its conventions, and the law of its samples."""

from __future__ import annotations

import dataclasses
import math
import warnings

import pytest
import torch

from invdiff.bench import grid, peers
from invdiff.bench.peers import deepinv as adapter
from invdiff.bench.suites import SUITES
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.operators.algebra import Identity, Spectral
from invdiff.operators.blur import blur
from invdiff.operators.downsample import Bicubic
from invdiff.operators.hdr import HDR
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.mri import Fourier
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("deepinv", exc_type=ImportError)

pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = [name for name in peers.PEERS if name.startswith("deepinv:")]
LINES = torch.zeros(1, 1, 8, 8)
LINES[..., ::2] = 1
OPERATORS = {
    "bicubic": (Bicubic(2, (8, 8)), 3),
    "inpaint": (Inpaint.box((8, 8), 2, 2, 4, 4), 3),
    "blur": (blur(torch.tensor([[0.2, 0.5, 0.3]]), (8, 8), "mirror"), 3),
    "mri": (Fourier(LINES), 2),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_the_physics_is_that_of_images_on_0_to_1(name):
    A, channels = OPERATORS[name]
    shape = (channels, 8, 8)
    u, other = torch.rand(2, 1, *shape)
    problem = Problem(A(2 * u - 1), A, GaussianNoise(0.2), shape)
    physics, y = adapter.physics(problem)
    close = {"rtol": 1e-4, "atol": 1e-5}  # of float32
    torch.testing.assert_close(physics.A(u), y, **close)
    assert float(physics.noise_model.sigma) == pytest.approx(0.1)
    v = physics.A(other)
    torch.testing.assert_close(physics.A_adjoint(v), A.adjoint(v), **close)
    if isinstance(A, Spectral):
        torch.testing.assert_close(physics.A_dagger(v), A.pinv(v), **close)
    gamma = 3.0  # argmin of gamma / 2 |A z - y|^2 + 1 / 2 |z - other|^2
    z = physics.prox_l2(other, y, gamma)
    left = gamma * A.adjoint(A(z) - y) + z - other
    assert float(left.abs().max()) < 1e-3


def test_one_that_is_not_linear_keeps_its_measurement():
    A = HDR(2.0)
    problem = Problem(A(torch.rand(1, 3, 8, 8)), A, GaussianNoise(0.2), (3, 8, 8))
    physics, y = adapter.physics(problem)
    u = torch.rand(1, 3, 8, 8)
    assert torch.equal(physics.A(u), A(2 * u - 1)) and y is problem.y
    assert float(physics.noise_model.sigma) == pytest.approx(0.2)


def test_the_denoiser_is_on_0_to_1():
    """Of N(m, v) on [0, 1]: (s^2 m + v u) / (s^2 + v)."""
    m, v, s = 0.3, 0.04, 0.5
    prior = GaussianPrior(torch.full((1, 4, 4), 2 * m - 1).double(), 4 * v)
    u = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    for sigma in (s, torch.tensor([s, s]).reshape(2, 1, 1, 1)):
        found = adapter.denoiser(prior)(u, sigma)
        torch.testing.assert_close(found, (s**2 * m + v * u) / (s**2 + v))
    assert torch.equal(adapter.denoiser(prior)(u, 0.0), u)
    whole = adapter.denoiser(prior, unit=False)(u, s)
    torch.testing.assert_close(whole, prior.denoise(u, s))


def near(samples: torch.Tensor, mean: float, variance: float) -> bool:
    """Within five standard errors of Monte Carlo, of pixels on [0, 1]."""
    values = (samples.double().flatten() + 1) / 2
    n = values.numel()
    wide = 5 * math.sqrt(variance / n), 5 * variance * math.sqrt(2 / n)
    return (
        abs(float(values.mean()) - mean) < wide[0] and abs(float(values.var()) - variance) < wide[1]
    )


def travelled(m: float, v: float, steps: int) -> tuple[float, float]:
    """Mean and variance of N(m, v) after the steps of deepinv's DDPM solver, on [-1, 1].

    VP of beta from 0.1 to 20: sigma(t)^2 = exp(0.1 t + 9.95 t^2) - 1; z = x / scale goes to
    r^2 z + (1 - r^2) E[x0 | z] + sigma_1 (1 - r^2)^(1/2) eps, r = sigma_1 / sigma_0.
    """
    times = [1 - k / (steps - 1) for k in range(steps)]
    sigmas = [math.sqrt(max(0.0, math.expm1(0.1 * t + 9.95 * t * t))) for t in times]
    mean, variance = 0.0, sigmas[0] ** 2
    for s, to in zip(sigmas[:-1], sigmas[1:], strict=True):
        r2, keep = (to / s) ** 2, v / (v + s * s)
        slope = r2 + (1 - r2) * keep
        mean = slope * (mean - m) + m
        variance = slope**2 * variance + to * to * (1 - r2)
    return mean, variance


@pytest.mark.parametrize("name", ["deepinv:pigdm", "deepinv:mmps"])
def test_the_law_of_guided_samples_is_that_of_the_formula(name):
    """PiGDM is exact where the prior has variance 1 on [0, 1], moment matching anyway."""
    m, v, y, sigma = 0.3, 1.0, -0.6, 0.8  # on [0, 1]
    shape = (1, 16, 16)
    prior = GaussianPrior(torch.full(shape, 2 * m - 1), 4 * v)
    given = torch.full((1, *shape), 2 * y - 1)
    problem = Problem(given, Identity(), GaussianNoise(2 * sigma), shape)
    found, spent = peers.sample(peers.PEERS[name], problem, prior, 16, 0, 30)

    def after(v_y: float) -> tuple[float, float]:
        variance = 1 / (1 / v + 1 / v_y)
        mean, spread = travelled(2 * variance * (m / v + y / v_y) - 1, 4 * variance, 30)
        return (mean + 1) / 2, spread / 4

    assert spent == 29 and near(found, *after(sigma**2))
    assert not near(found, *after((2 * sigma) ** 2)) and not near(found, *after(1e9))


def ddrm(m: float, v: float, y: float, sigma: float, steps: int) -> tuple[float, float]:
    """Mean and variance after deepinv's DDRM of A = 1 on [0, 1], eta = 0.85, etab = 1.

    Its noise is divided by the root of 2. c = (1 - eta^2)^(1/2); x is what was denoised.
    """
    eta, level = 0.85, [1 - k / (steps - 1) for k in range(steps)]
    c = math.sqrt(1 - eta**2)
    mean = spread = 0.0  # of what was denoised
    for s in level:
        if s < sigma:  # x + c s (y - x) / sigma, and noise eta s
            a = 1 - c * s / sigma
            mean, spread = a * mean + (1 - a) * y, a * a * spread + (eta * s) ** 2 / 2
        else:
            mean, spread = y, (s * s - sigma**2) / 2
        keep = v / (v + s * s)
        mean, spread = m + keep * (mean - m), keep**2 * spread
    return mean, spread


@pytest.mark.parametrize("sigma", [0.25, 0.55])
def test_the_law_of_ddrm_is_that_of_the_formula(sigma):
    m, v, y, steps = 0.3, 0.2, 0.7, 11
    shape = (1, 16, 16)
    prior = GaussianPrior(torch.full(shape, 2 * m - 1), 4 * v)
    given = torch.full((1, *shape), 2 * y - 1)
    problem = Problem(given, Identity(), GaussianNoise(2 * sigma), shape)
    found, spent = peers.sample(peers.PEERS["deepinv:ddrm"], problem, prior, 16, 0, steps)
    assert spent == steps - 1  # at level 0 there is nothing to denoise
    assert near(found, *ddrm(m, v, y, sigma, steps))
    assert not near(found, *ddrm(m, v, y, 2 * sigma, steps))
    assert not near(found, *ddrm(m, 4 * v, y, sigma, steps))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", SUITES["small"].cases, ids=lambda case: case.name)
def test_it_measures_what_a_bench_measures(name, case):
    truth = torch.linspace(-0.9, 0.9, 3 * 16 * 16).reshape(1, 3, 16, 16)
    problem = grid.measurement(case, truth, 1)
    prior = GaussianPrior(torch.zeros(3, 16, 16), 0.3)
    found, spent = peers.sample(peers.PEERS[name], problem, prior, 2, 0, 40)
    again, _ = peers.sample(peers.PEERS[name], problem, prior, 2, 0, 40)
    assert torch.equal(found, again) and found.dtype == problem.y.dtype and spent in (39, 40)
    away = dataclasses.replace(problem, y=-problem.y)
    other, _ = peers.sample(peers.PEERS[name], away, prior, 2, 0, 40)
    assert float((problem.A(found[0] - other[0]) * problem.y).sum()) > 0  # it sees y


def test_ddrm_does_without_noise():
    A = Inpaint.box((16, 16), 4, 4, 8, 8)
    truth = torch.linspace(-0.9, 0.9, 256).reshape(1, 1, 16, 16)
    problem = Problem(A(truth), A, NOISELESS, (1, 16, 16))
    prior = GaussianPrior(torch.zeros(1, 16, 16), 0.3)
    found, _ = peers.sample(peers.PEERS["deepinv:ddrm"], problem, prior, 1, 0, 10)
    assert float((problem.y - A(found[0])).abs().max()) < 1e-4
