"""ReSample: a second version in numpy, and the law that resampling draws from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense import SCHEDULES, VP_SCHEDULE, ddim, transcription
from latents import LatentTask, assert_agrees, compare

from helpers import seeded
from invdiff.core import Level
from invdiff.operators import Fourier, Identity
from invdiff.sampling.needs import Need
from invdiff.solvers.resample import ReSample, fit


def adam(x, misfit, gradient, lr, iterations, tol):
    """Kingma and Ba 2015, Algorithm 1, stopped at a root mean square of tol."""
    m, v = np.zeros_like(x), np.zeros_like(x)
    for k in range(1, iterations + 1):
        if np.sqrt(np.mean(misfit(x) ** 2)) <= tol:
            break
        g = gradient(x)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - lr * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
    return x


@transcription("resample")
def resample(
    t: LatentTask, gamma=40.0, every=10, iterations=500, lr=5e-3, image_iterations=2000,
    image_lr=1e-2, zeta=0.0, eta_ddim=0.0,
):  # fmt: skip
    """Song et al. 2024: mean and variance of a product of two normal laws, by their precisions."""
    total, n, tol, z = len(t.moves), len(t.y), max(t.sigma_y, 1e-3), t.start()

    def of_latent(z):
        return t.A @ t.decode(z) - t.y

    def slope_of_latent(z):
        return 2 / n * t.decode_jacobian(z).T @ t.A.T @ of_latent(z)

    def of_image(x):
        return t.A @ x - t.y

    for i, a, s, b, r in t.moves:
        z0 = t.z0(z, a, s)
        bar, bar_next = a**2 / (a**2 + s**2), b**2 / (b**2 + r**2)
        rest = of_latent(z0)
        guide = t.gain(a, s).T @ t.decode_jacobian(z0).T @ t.A.T @ rest / np.linalg.norm(rest)
        z = ddim(z, z0, a, s, b, r, t.z(i, "step"), eta_ddim) - zeta * bar * guide
        index = total - 1 - i
        if index == 0:
            return adam(z, of_latent, slope_of_latent, lr, iterations, tol)
        if index > total - total // 3 or index % every:
            continue
        if index >= total // 3:
            slope = lambda x: 2 / n * t.A.T @ of_image(x)  # noqa: E731
            x = adam(t.decode(z0), of_image, slope, image_lr, image_iterations, tol)
            z0 = t.encode(x)
        else:
            z0 = adam(z0, of_latent, slope_of_latent, lr, iterations, tol)
        size = np.hypot(b, r)
        c = gamma * (1 - bar_next) / (1 - bar) * (1 - bar / bar_next)
        precision = 1 / c + 1 / (1 - bar_next)
        mean = (np.sqrt(bar_next) * z0 / (1 - bar_next) + z / size / c) / precision
        z = size * (mean + t.z(i, "resample") / np.sqrt(precision))


SHORT = {"every": 2, "iterations": 7, "image_iterations": 5, "lr": 0.05, "image_lr": 0.1}


@pytest.mark.parametrize("straight", [True, False], ids=["linear", "tanh"])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(
    "knobs",
    [SHORT, {**SHORT, "every": 1, "gamma": 3.0, "zeta": 0.4, "eta_ddim": 0.7}],
    ids=["short", "all"],
)
def test_transcription(schedule, knobs, straight):
    for matrix in ("wide", "benign"):
        assert_agrees("resample", knobs, matrix, 0.1, schedule, straight)


def test_transcription_where_fits_end_by_themselves():
    """Thousands of iterations at hand, a loose fit wanted: rows stop at different ones."""
    knobs = {**SHORT, "iterations": 500, "image_iterations": 500}
    assert_agrees("resample", knobs, "benign", 1.0, VP_SCHEDULE, False)


@pytest.mark.parametrize(
    "wrong", [{"gamma": 41.0}, {"every": 3}, {"lr": 0.051}, {"image_lr": 0.11}, {"zeta": 0.01}],
    ids=str,
)  # fmt: skip
def test_a_wrong_knob_is_seen(wrong):
    got, want = compare("resample", SHORT, "wide", 0.1, VP_SCHEDULE, False, {**SHORT, **wrong})
    assert np.abs(got - want).max() > 1e-6


def test_resampling_is_the_product_of_two_laws():
    """Much trust gives z0, noised to the level; none gives z' back."""
    z, z0, noise = (seeded(1, 1, 3, 3, seed=k) for k in range(3))
    level, to = Level(0.6, 0.8), Level(0.8, 0.6)
    free = ReSample(gamma=1e-6)._resampled(z, z0, level, to, noise)
    assert (free - z).abs().max() < 2e-3  # its noise has a standard deviation of 1e-3 sqrt(c)
    sure = ReSample(gamma=1e12)._resampled(z, z0, level, to, noise)
    torch.testing.assert_close(sure, 0.8 * z0 + 0.6 * noise)


def test_a_fit_stops_for_each_row_at_the_noise():
    y = torch.tensor([0.05, 3.0]).reshape(2, 1, 1, 1).double()
    found = fit(torch.zeros_like(y), Identity(), y, 0.01, 1000, 0.1)
    assert found[0] == 0 and 0.08 < float(y[1] - found[1]) <= 0.1
    few = fit(torch.zeros_like(y), Identity(), y, 0.01, 3, 0.1)
    assert float(few[1]) == pytest.approx(0.03, rel=1e-3)  # Adam's first steps are lr long


def test_needs():
    assert not ReSample().always_needs(Need.PRIOR_VJP)
    assert ReSample(zeta=0.5).always_needs(Need.PRIOR_VJP)


def test_a_complex_measurement_is_fitted_to_the_noise_of_its_parts():
    """From the truth nothing moves: its residual has sigma in each part, sqrt(2) sigma in all."""
    A, x = Fourier(torch.ones(1, 1, 8, 8)), seeded(1, 2, 8, 8)
    n = seeded(1, 1, 8, 8, 2, seed=1)
    sigma = float(n.square().mean().sqrt())
    y = A(x) + torch.view_as_complex(n)
    assert torch.equal(fit(x, A, y, 1e-2, 5, 1.001 * sigma), x)
    assert not torch.equal(fit(x, A, y, 1e-2, 5, 0.999 * sigma), x)
