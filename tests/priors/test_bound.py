"""The denoising bound b(x), against its closed form and against log p."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import seeded, seeds
from invdiff.core import Level
from invdiff.core.rng import Rng
from invdiff.priors.base import Counted, Denoiser, Prior
from invdiff.priors.bound import Bound, denoising_error
from invdiff.priors.gaussian import GaussianMixture, GaussianPrior
from invdiff.priors.likelihood import Window

SHAPE = (1, 2, 2)
MIXTURE = GaussianMixture([0.3, 0.7], seeded(2, *SHAPE, seed=3), torch.tensor([0.2, 0.5]))


def normal(variance: float) -> GaussianPrior:
    return GaussianPrior(torch.zeros(SHAPE, dtype=torch.float64), variance)


def closed_form(x: np.ndarray, lam: float, w: Window) -> float:
    """b(x) for data N(0, lam I), by a fine sum over ln sigma and exact means over the noise.

    D - x = (sigma lam eps - sigma^2 x) / (lam + sigma^2).
    """
    n, size = x.size, float((x**2).sum())

    def f(s):
        return (n * lam**2 + s**2 * size) / (lam + s**2) ** 2

    t = np.linspace(math.log(w.sigma_min), math.log(w.sigma_max), 20001)
    values = f(np.exp(t))
    integral = ((values[1:] + values[:-1]) / 2 * np.diff(t)).sum()
    kl = 0.5 * (n * w.sigma_max**2 + size) / w.top_variance - n / 2
    kl += n / 2 * math.log(w.top_variance / w.sigma_max**2)
    reconstruction = n / 2 * math.log(2 * math.pi * w.sigma_min**2) + 0.5 * f(w.sigma_min)
    return -kl - integral - reconstruction


def repeated(x: Tensor, n: int) -> Tensor:
    return x.expand(n, *SHAPE)


@pytest.mark.parametrize(("lam", "tilt"), [(1.0, 0.0), (0.2, 0.0), (0.2, 0.7)])
def test_estimates_are_unbiased(lam, tilt):
    """Mean of 200 estimates, value and gradient, within 4.5 standard errors of the closed form."""
    x, window, n = seeded(1, *SHAPE, seed=4) * math.sqrt(lam), Window(0.02, 30.0), 200
    value, grad = Bound(window, tilt).elbo(normal(lam), repeated(x, n), Rng.of(range(n)), times=2)
    want = closed_form(x.numpy(), lam, window)
    error = float(value.std()) / math.sqrt(n)
    assert abs(float(value.mean()) - want) < 4.5 * error
    assert abs(float(value.mean()) - want - 10 * error) > 4.5 * error
    h = 1e-4
    for i in range(4):
        step = np.zeros(4)
        step[i] = h
        ends = [closed_form(x.numpy().ravel() + d, lam, window) for d in (step, -step)]
        found = grad.flatten(1)[:, i]
        slope = (ends[0] - ends[1]) / (2 * h)
        assert abs(float(found.mean()) - slope) < 4.5 * float(found.std()) / math.sqrt(n)


def test_the_bound_is_tight_for_normal_data():
    """log p - b is at least 0 on average over the data and falls to 0 with sigma_min, 1/sigma_max.

    Averaged over x ~ N(0, lam) the gap is two Kullback-Leibler divergences: of the decoder
    N(D, s0^2) from the true conditional, and of the two laws at sigma_max; both in closed form.
    """
    lam = 0.2

    def kl(p: float, q: float) -> float:
        return 0.5 * (p / q - 1 - math.log(p / q))

    for low, top, std in ((0.1, 3.0, 1.0), (0.01, 3.0, 1.0), (0.01, 100.0, 0.0)):
        w = Window(low, top, std)
        x = np.full(1, math.sqrt(lam))  # b is quadratic in x, so E b(x) is b at E x^2
        log_p = -0.5 - 0.5 * math.log(2 * math.pi * lam)
        gap = log_p - closed_form(x, lam, w)
        want = kl(lam * low**2 / (lam + low**2), low**2) + kl(lam + top**2, w.top_variance)
        assert gap == pytest.approx(want, abs=1e-6) and gap > 0
    assert gap < 1e-6


def test_the_bound_is_below_log_p_of_a_mixture():
    """On average over the data, and close to it; a denoiser that is wrong falls far below."""
    n, levels, bound = 400, 60, Bound(Window(0.01, 200.0))
    x = MIXTURE.sample(n, 8).double()

    def gaps(prior: Prior) -> Tensor:
        values = [
            bound.estimate(prior, x, (j + 0.5) / levels, seeded(*x.shape, seed=j))[0]
            for j in range(levels)
        ]
        return MIXTURE.log_prob(x) - torch.stack(values).mean(0)

    gap = gaps(MIXTURE)
    error = float(gap.std()) / math.sqrt(n)
    assert -4 * error < float(gap.mean()) < 4 * error + 0.01
    worse = gaps(Denoiser(lambda x, sigma: 0.9 * MIXTURE.denoise(x, sigma)))
    assert float(worse.mean()) > 10 * error + 0.01


def test_gradient_by_differences_with_common_noise():
    """Of one estimate, at several quantiles; the factor 1.01 would be seen."""
    bound, x, eps, v = Bound(Window(0.05, 40.0)), *(seeded(3, *SHAPE, seed=i) for i in (1, 2, 3))
    for quantile in (0.01, 0.2, 0.5, 0.9):
        _, grad = bound.estimate(MIXTURE, x, quantile, eps)
        ends = [bound.estimate(MIXTURE, x + h * v, quantile, eps)[0] for h in (1e-5, -1e-5)]
        slope = (grad * v).flatten(1).sum(1)
        numeric = (ends[0] - ends[1]) / 2e-5
        torch.testing.assert_close(numeric, slope, rtol=1e-6, atol=1e-6)
        assert (numeric - 1.01 * slope).abs().max() > 1e-4


def test_importance_sampling_is_the_papers():
    """p(t) ~ g^2 / s^2 on the VP schedule, whose integral is 2 ln(sigma_max / sigma_min)."""
    t = np.linspace(1e-3, 1, 200001)
    log_a = -0.5 * (0.1 * t + 0.5 * t**2 * 19.9)
    a2 = np.exp(2 * log_a)
    density = (0.1 + 19.9 * t) / (1 - a2)
    sigma = np.sqrt((1 - a2) / a2)
    mass = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(t))])
    window = Window(float(sigma[0]), float(sigma[-1]))
    assert mass[-1] == pytest.approx(2 * window.span, rel=1e-6)
    bound = Bound(window)
    for share in (0.1, 0.5, 0.8):
        there = float(np.interp(share, mass / mass[-1], sigma))
        quantile = (0.5 + share * window.span) / (window.span + 0.5)
        assert bound.sigma(quantile) == pytest.approx(there, rel=1e-4)
    assert bound.sigma(0.0) == bound.sigma(0.4 / (window.span + 0.5)) == window.sigma_min


@pytest.mark.parametrize("tilt", [0.0, 0.5, 1.0])
def test_noise_levels_follow_their_density(tilt):
    """By a sum over quantiles: weight times share is the same for every tilt, 1 for ln sigma."""
    bound = Bound(Window(0.05, 20.0), tilt)
    n = 200_000
    sigma = np.array([bound.sigma((i + 0.5) / n) for i in range(n)])
    weight = bound.mass * (sigma / 0.05) ** tilt
    assert (weight * (sigma == 0.05)).mean() == pytest.approx(0.5, abs=1e-3)
    for low, high in ((0.06, 0.1), (0.1, 1.0), (1.0, 19.0)):
        share = (weight * ((sigma > low) & (sigma < high))).mean()
        assert share == pytest.approx(math.log(high / low), rel=2e-3)
    assert sigma.max() == pytest.approx(20.0, rel=1e-2)


def test_the_bound_knows_no_frame():
    """The paper's VP integrand, (g^2/2) |score - grad log p(x_t | x)|^2 dt, is f dln sigma."""
    x, eps = seeded(2, *SHAPE, seed=1), seeded(2, *SHAPE, seed=2)
    level = Level(0.6, 0.8)
    xt = level.a * x + level.s * eps
    apart = MIXTURE.score(xt, level) + eps / level.s
    g2_dt = 2 * level.s**2  # for dln sigma = 1
    found, _ = denoising_error(MIXTURE, x, level.sigma, eps)
    torch.testing.assert_close(g2_dt / 2 * apart.flatten(1).square().sum(1), found)


def test_one_evaluation_and_one_product_for_each_level():
    counted = Counted(MIXTURE)
    Bound().estimate(counted, seeded(5, *SHAPE), 0.3, seeded(5, *SHAPE))
    assert (counted.nfe, counted.vjps) == (1, 1)
    Bound().elbo(counted, seeded(5, *SHAPE), Rng.of(range(5)), times=3)
    assert (counted.nfe, counted.vjps) == (16, 16)


def test_samples_do_not_see_each_other():
    x, keys = seeded(4, *SHAPE, dtype=torch.float32), seeds(4)
    prior = Denoiser(lambda x, sigma: torch.tanh(x) / (1 + sigma**2))
    value, grad = Bound().elbo(prior, x, Rng.of(keys), times=2)
    assert value.dtype == grad.dtype == torch.float32
    for i in range(4):
        row = slice(i, i + 1)
        own = Bound().elbo(prior, x[row], Rng.of(keys[row]), times=2)
        assert torch.equal(own[0], value[row]) and torch.equal(own[1], grad[row])
    assert not torch.equal(Bound().elbo(prior, x, Rng.of(range(4)), times=2)[0], value)
