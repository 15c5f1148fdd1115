"""Noise levels that are estimated: within 5 of the errors that they state, which are true."""

from __future__ import annotations

import math

import pytest
import torch

from helpers import seeded
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import (
    CorrelatedGaussian,
    GaussianNoise,
    Rician,
    noise_from_background,
    noise_from_detail,
    noise_from_kspace,
    noise_from_scan,
)
from invdiff.operators import fft2c

SIGMA = 0.2
BOX = (2, 3, 12, 16)
REPEATS = 200


def bright(height=32, width=40):
    """A picture whose right half is bright and whose left half is even."""
    x = torch.full((1, 1, height, width), 0.4, dtype=torch.float64)
    x[..., width // 2 :] += seeded(1, 1, height, width // 2).abs()
    return x


def noisy(x, seed=1):
    return GaussianNoise(SIGMA).sample(x, Rng.of(seed))


def estimators():
    """Each as a function of a seed, and the level that it should find."""
    zero = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    k = torch.zeros(1, 1, 24, 24, dtype=torch.complex128)
    return {
        "detail": lambda s: noise_from_detail(noisy(zero, s)[0]),
        "box": lambda s: noise_from_background(noisy(zero + 0.4, s), (2, 3, 10, 12)),
        "complex": lambda s: noise_from_background(noisy(k + 1j, s), (2, 3, 10, 12)),
        "magnitude": lambda s: noise_from_background(
            Rician(SIGMA).sample(zero, Rng.of(s)), (2, 3, 10, 12), magnitude=True
        ),
        "kspace": lambda s: noise_from_kspace(noisy(k, s), share=0.2),
    }


@pytest.mark.parametrize("name", estimators())
def test_the_error_that_is_stated_is_that_of_the_estimate(name):
    """200 repeats: the mean within 5 standard errors (and the bias O(error^2) of a root), the
    spread within 5 standard errors of a spread, 1 / sqrt(2 * 200)."""
    found = [estimators()[name](seed) for seed in range(REPEATS)]
    values = torch.tensor([e.sigma for e in found], dtype=torch.float64) / SIGMA
    error = found[0].error
    assert abs(float(values.mean()) - 1) < 5 * error / math.sqrt(REPEATS) + error**2
    assert abs(float(values.std()) / error - 1) < 5 / math.sqrt(2 * REPEATS)
    assert found[0].noise == GaussianNoise(found[0].sigma)


def test_a_region_that_is_not_even_is_no_background():
    y = noisy(bright())
    assert noise_from_background(y, BOX).sigma == pytest.approx(SIGMA, rel=0.25)
    assert noise_from_background(y, (2, 22, 12, 16)).sigma > 2 * SIGMA


def test_a_mask_is_as_good_as_a_box():
    y, mask = noisy(bright()), torch.zeros(32, 40, dtype=torch.bool)
    mask[2:14, 3:19] = True
    a, b = noise_from_background(y, BOX), noise_from_background(y, mask)
    assert a.sigma == b.sigma and "box" in a.how and "mask" in b.how


def test_each_picture_has_its_own_grey():
    """The mean is taken off each channel: levels that differ are no noise."""
    y = noisy(torch.tensor([0.0, 5.0, -3.0]).double().reshape(1, 3, 1, 1).expand(1, 3, 16, 16))
    assert noise_from_background(y, (0, 0, 16, 16)).sigma == pytest.approx(SIGMA, rel=0.15)


def test_air_of_magnitudes_is_not_even_noise():
    """Rayleigh's standard deviation is sqrt(2 - pi / 2) sigma = 0.655 sigma."""
    y = Rician(SIGMA).sample(torch.zeros(1, 1, 64, 64, dtype=torch.float64), Rng.of(1))
    right = noise_from_background(y, (0, 0, 64, 64), magnitude=True)
    wrong = noise_from_background(y, (0, 0, 64, 64))
    assert right.sigma == pytest.approx(SIGMA, rel=5 * right.error)
    assert wrong.sigma == pytest.approx(SIGMA * math.sqrt(2 - math.pi / 2), rel=5 * wrong.error)


def test_the_edge_of_kspace_is_noise_unless_detail_reaches_it():
    smooth = torch.ones(1, 1, 1, 1) * torch.hann_window(64).outer(torch.hann_window(48))
    k = fft2c(10 * smooth.double().to(torch.complex128))
    k = GaussianNoise(SIGMA).sample(k, Rng.of(1))
    edge = noise_from_kspace(k, share=0.3)
    assert edge.sigma == pytest.approx(SIGMA, rel=5 * edge.error)
    lines = k * (torch.arange(64) % 3 == 0)[:, None]
    some = noise_from_kspace(lines, share=0.3)
    assert some.error > 1.5 * edge.error and "30 %" in some.how
    assert some.sigma == pytest.approx(SIGMA, rel=5 * some.error)
    sharp = fft2c(seeded(1, 1, 64, 48).to(torch.complex128))  # detail reaches the edge
    assert noise_from_kspace(k + sharp, share=0.3).sigma > 2 * SIGMA


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
def test_a_noise_scan_gives_the_covariance(kind):
    L = torch.tensor([[0.5, 0, 0], [0.2, 0.4, 0], [-0.3, 0.1, 0.2]], dtype=kind)
    if kind.is_complex:
        L = L + 1j * torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0.2, -0.1, 0]])
    cov = L @ L.mH
    noise = CorrelatedGaussian(cov)
    scan = noise.sample(torch.zeros(1, 3, 4000, dtype=kind), Rng.of(1))
    found = noise_from_scan(scan, axis=1)
    # an entry has a standard error of at most sqrt(2) max(cov) / sqrt(samples)
    assert float((found.value - cov).abs().max()) < 5 * 1.5 * float(cov.abs().max()) / 4000**0.5
    assert torch.equal(found.noise.cov, found.value) and "3 coils over 4000" in found.how
    assert found.sigma == pytest.approx(float(cov.diagonal().real.mean().sqrt()), rel=0.1)
    swapped = noise_from_scan(scan[0].flip(0))
    assert float((swapped.value - cov).abs().max()) > 0.1


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda y: noise_from_background(y, (0, 0, 7, 9)), "holds 63 numbers"),
        (lambda y: noise_from_background(y, (20, 0, 20, 20)), "does not lie within"),
        (lambda y: noise_from_background(y, (-1, 0, 20, 20)), "does not lie within"),
        (lambda y: noise_from_background(y, torch.zeros(32, 40)), "holds 0 numbers"),
        (lambda y: noise_from_kspace(y), "complex k-space"),
        (lambda y: noise_from_kspace(y + 0j, share=0.0), "share in"),
        (lambda y: noise_from_kspace(0j * y), "0 samples lie"),
        (lambda y: noise_from_scan(y[0, 0, :, :20], axis=1), "ten for each"),
        (lambda y: noise_from_detail(y[0, :, :14, :16]), "too few known pixels"),
        (lambda y: noise_from_detail(y), r"real image \(C, H, W\)"),
        (lambda y: noise_from_detail(y[0] + 0j), "complex"),
        (lambda y: noise_from_detail(y[0], torch.ones(3, 3)), "as the image"),
        (lambda y: noise_from_background(y[0, 0, 0], (0, 0, 1, 1)), "a height and a width"),
        (lambda y: noise_from_background(y, torch.ones(5, 5)), "does not fit pictures"),
        (lambda y: noise_from_background(y.expand(64, -1, -1, -1), (0, 0, 1, 1)), "too few"),
        (lambda y: noise_from_background(y / 0 * 0, (0, 0, 20, 20)), "NaN"),
        (lambda y: noise_from_kspace(y[0, 0, 0] + 0j), r"\(\.\.\., H, W\)"),
        (lambda y: noise_from_scan(y, axis=7), "no axis 7"),
    ],
)
def test_too_little_to_estimate_from_is_a_sentence(call, word):
    with pytest.raises(InvdiffError, match=word):
        call(noisy(bright()))
