"""Exact laws: identities in float64, sampling by z-tests, and twins that must fail.

z-tests allow 5 standard errors, which are estimated from the samples: P < 6e-7 for each number.
"""

import math

import pytest
import torch
from laws import (
    EPS,
    F64,
    MIXTURES,
    SAMPLES,
    SHAPE,
    Dense,
    K,
    N,
    all_mixtures,
    noise,
    spd,
    worst_z,
)
from torch.distributions import MultivariateNormal

from invdiff.core import InvdiffError, Level
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise
from invdiff.priors.gaussian import GaussianMixture, GaussianPrior
from invdiff.problem import Problem


@all_mixtures
@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_log_prob_is_the_density(prior, sigma):
    x = 3 * noise(5, *SHAPE, role="x")
    eye = sigma**2 * torch.eye(N, dtype=F64)
    parts = MultivariateNormal(prior.means.flatten(1), prior.covs + eye)
    logs = prior.weights.log() + parts.log_prob(x.flatten(1)[:, None])
    found = prior.log_prob(x, sigma)
    torch.testing.assert_close(found, torch.logsumexp(logs, 1), rtol=1e-10, atol=1e-10)


@all_mixtures
@pytest.mark.parametrize("sigma", [0.05, 1.0, 30.0])
def test_denoiser_is_tweedies(prior, sigma):
    """D(x) = x + sigma^2 grad log p_sigma(x), and with another sigma it is not."""
    x = (prior.mean + (1 + sigma) * noise(5, *SHAPE, role="x")).requires_grad_()
    (score,) = torch.autograd.grad(prior.log_prob(x, sigma).sum(), x)
    x0 = prior.denoise(x, sigma)
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(x0, x + sigma**2 * score, **close)
    torch.testing.assert_close(prior.score(x, Level(1.0, sigma)), score, **close)
    assert not torch.allclose(prior.denoise(x, 1.1 * sigma), x + sigma**2 * score, **close)


@pytest.mark.parametrize("sigma", [0.05, 1.0])
def test_jacobian_is_the_posterior_covariance(sigma):
    """For a normal law, sigma^2 dD/dx = C - C (C + sigma^2)^-1 C; pull is its transpose."""
    prior, x = MIXTURES["gaussian"], noise(2, *SHAPE, role="x")
    _, pull = prior.x0_vjp(x, Level(1.0, sigma))
    C, eye = prior.cov, torch.eye(N, dtype=F64)
    expected = C - C @ torch.linalg.solve(C + sigma**2 * eye, C)
    for i in range(N):
        v = eye[i].reshape(1, *SHAPE).expand_as(x)
        row = sigma**2 * pull(v).flatten(1)
        torch.testing.assert_close(row, expected[i].expand(2, N), rtol=1e-10, atol=1e-10)


@all_mixtures
def test_denoising_a_measurement_of_everything_is_its_posterior_mean(prior):
    """Two routes to E[x0 | x0 + 0.6 n]: the denoiser and conditioning on A = identity."""
    x = noise(1, *SHAPE, role="x")
    problem = Problem(x.flatten(1), Dense(torch.eye(N, dtype=F64)), GaussianNoise(0.6), SHAPE)
    posterior = prior.posterior(problem)
    torch.testing.assert_close(posterior.mean, prior.denoise(x, 0.6)[0], rtol=1e-10, atol=1e-10)


@all_mixtures
def test_every_frame_gives_the_same_image(prior):
    x, level = noise(3, *SHAPE, role="x"), Level(0.6, 0.8)
    expected = prior.denoise(x / 0.6, level.sigma)
    torch.testing.assert_close(prior.x0(x, level), expected, rtol=1e-12, atol=1e-12)


@all_mixtures
def test_limits_of_sigma(prior):
    """With r the longest x - mean_k, and eigenvalues from low to high:
    |D - x| = sigma^2 |score| <= sigma^2 r / low, since the score is a mean of C_k^-1 (x - mean_k);
    |D - mean| <= high r / sigma^2 + (change of weights, r |m| / sigma^2 in the exponent) |m|."""
    x = noise(3, *SHAPE, role="x")
    eigenvalues = torch.linalg.eigvalsh(prior.covs)
    low, high, m = float(eigenvalues.min()), float(eigenvalues.max()), float(prior.means.norm())
    assert torch.equal(prior.denoise(x, 0.0), x)
    assert torch.equal(prior.denoise(x, 1e-200), x)
    near = prior.denoise(x, 1e-6) - x
    assert float(near.norm()) <= 1e-12 * 3 * (float(x.norm()) + m) / low
    far = prior.denoise(1e8 * x, 1e8) - prior.mean
    assert float(far.norm()) <= 1e-8 * 3 * float(x.norm()) * (high + 2 * m**2)
    assert torch.isfinite(prior.denoise(1e100 * x, 1e100)).all()
    assert torch.isfinite(prior.denoise(1e4 * x, 1e-3)).all()


SHARED = {
    "one variance": torch.tensor(0.5, dtype=F64),
    "pixel variances": noise(1, *SHAPE, role="v").exp(),
    "dense": spd(),
    "singular": torch.ones(1, N, N, dtype=F64),
}


@pytest.mark.parametrize("sigma", [1e-2, 1.0, 1e2])
@pytest.mark.parametrize("covs", SHARED.values(), ids=SHARED.keys())
def test_a_shared_covariance_is_one_for_each_component(covs, sigma):
    """Matrix products against components one by one: denoiser and Jacobian, to round-off.

    Exponents are of size s = (|x| + |m|)^2 / (sigma^2 + the smallest variance), and their
    round-off, N eps s, times the means' distances is the denoiser's; a gradient divides it by
    sigma at most.
    """
    means = 2 * noise(K, *SHAPE) + 5.0
    each = covs.reshape(1, -1).expand(K, -1) if covs.ndim else covs.expand(K)
    each = covs.expand(K, N, N) if covs.shape[1:] == (N, N) else each.reshape(K, *covs.shape[1:])
    shared, apart = GaussianMixture([1, 2, 3], means, covs), GaussianMixture([1, 2, 3], means, each)
    assert len(shared._eigenvalues) == 1 and len(apart._eigenvalues) == K
    level, v = Level(1.0, sigma), noise(4, *SHAPE, role="pull")
    x = means[[0, 1, 2, 0]] + (1 + sigma) * noise(4, *SHAPE, role="x")
    size = (float(x.norm()) + float(means.norm())) ** 2
    bound = 10 * N * EPS * size / (sigma**2 + float(shared._eigenvalues.min())) * size**0.5
    (a, pull_a), (b, pull_b) = shared.x0_vjp(x, level), apart.x0_vjp(x, level)
    torch.testing.assert_close(a, b, rtol=0, atol=bound)
    torch.testing.assert_close(pull_a(v), pull_b(v), rtol=0, atol=bound / min(sigma, 1.0))
    other = GaussianMixture([1, 2, 3], 1.0001 * means, covs).denoise(x, sigma)
    assert float((other - b).abs().max()) > 10 * bound


@all_mixtures
@pytest.mark.parametrize("sigma", [1e-3, 1.0, 1e3])
def test_float32_input_loses_only_its_own_round_off(prior, sigma):
    x = noise(3, *SHAPE, role="x").float()
    assert prior.denoise(x, sigma).dtype == torch.float32
    assert torch.equal(prior.denoise(x, sigma), prior.denoise(x.double(), sigma).float())


@all_mixtures
def test_samples_do_not_see_each_other(prior):
    x = noise(4, *SHAPE, role="x")
    x[3] = 1e6
    alone = torch.cat([prior.denoise(row[None], 0.5) for row in x])
    torch.testing.assert_close(prior.denoise(x, 0.5), alone, rtol=1e-13, atol=1e-13)


@all_mixtures
def test_moments_are_those_of_the_samples(prior):
    x = prior.sample(SAMPLES, 3)
    assert worst_z(x, prior.mean, prior.cov) < 5
    assert worst_z(x, prior.mean, 1.2 * prior.cov) > 5
    assert worst_z(x, prior.mean + 0.1 * prior.cov.diagonal().sqrt().reshape(SHAPE), prior.cov) > 5


def test_a_component_without_weight_is_never_drawn():
    prior = GaussianMixture([0.5, 0.5, 0], torch.tensor([0.0, 1, 2]).reshape(3, 1), 0.0)
    assert set(prior.sample(1000, 0).flatten().tolist()) == {0.0, 1.0}


def test_sampling_is_keyed_by_seed():
    prior = MIXTURES["dense"]
    batch = prior.sample(3, Rng.of([4, 0, 9]))
    torch.testing.assert_close(batch[1:], prior.sample(2, Rng.of([0, 9])), rtol=0, atol=1e-14)
    assert torch.equal(prior.sample(3, 7), prior.sample(3, 7))
    assert not torch.equal(prior.sample(3, 7), prior.sample(3, 8))
    assert GaussianPrior(torch.zeros(2, 2), 1.0).sample(3, 0).dtype == torch.float32
    with pytest.raises(ValueError, match="as many seeds"):
        prior.sample(3, Rng.of([1, 2]))


def test_fingerprint_tells_laws_apart():
    base = MIXTURES["one variance"]
    same = GaussianMixture([2, 4, 6], base.means.clone(), 0.5)
    others = [
        GaussianMixture([1, 2, 4], base.means, 0.5),
        GaussianMixture([1, 2, 3], base.means + 1e-9, 0.5),
        GaussianMixture([1, 2, 3], base.means, 0.6),
    ]
    assert base.fingerprint == same.fingerprint
    assert len({p.fingerprint for p in [base, *others]}) == 4


def test_a_variance_given_as_a_number_keeps_its_digits():
    assert torch.equal(GaussianPrior(noise(*SHAPE), 0.3).cov, 0.3 * torch.eye(N, dtype=F64))
    assert torch.equal(
        GaussianPrior(noise(*SHAPE), torch.tensor(0.3)).covs[0].float(), 0.3 * torch.eye(N)
    )


@pytest.mark.parametrize(
    ("weights", "covs", "word"),
    [
        ([1, 1], 1.0, "weights"),
        ([1, -1, 1], 1.0, "weights"),
        ([0, 0, 0], 1.0, "weights"),
        ([1, math.nan, 1], 1.0, "weights"),
        ([1, 1, 1], -1.0, "at least 0"),
        ([1, 1, 1], math.nan, "at least 0"),
        ([1, 1, 1], torch.ones(4), "3 components of 6 pixels"),
        ([1, 1, 1], -torch.eye(N)[None], "at least 0"),
        ([1, 1, 1], torch.ones(1, N, N).triu(), "symmetric"),
    ],
)
def test_a_law_that_is_none_is_refused(weights, covs, word):
    with pytest.raises(InvdiffError, match=word):
        GaussianMixture(weights, noise(K, *SHAPE), covs)


def test_images_of_another_shape_are_refused():
    with pytest.raises(InvdiffError, match=r"\(1, 2, 3\).*\(1, 3, 2\)"):
        MIXTURES["gaussian"].denoise(noise(1, 1, 3, 2), 1.0)


def test_a_singular_law_has_no_density_until_noise_is_added():
    prior = GaussianPrior(noise(*SHAPE), torch.ones(N, N, dtype=F64))
    with pytest.raises(InvdiffError, match="no density"):
        prior.log_prob(noise(1, *SHAPE))
    assert torch.isfinite(prior.log_prob(noise(1, *SHAPE), 0.1)).all()
    x = prior.sample(5, 0) - prior.mean
    assert float(x.flatten(1).std(1).max()) < 1e-7 < float(x.std())
