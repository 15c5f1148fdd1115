"""Exact laws: identities in float64, sampling by z-tests, and twins that must fail.

z-tests allow 5 standard errors, which are estimated from the samples: P < 6e-7 for each number.
"""

import math
from dataclasses import dataclass

import pytest
import torch
from torch.distributions import MultivariateNormal

from invdiff.core import InvdiffError, Level, Problem
from invdiff.noise import NOISELESS, Poisson
from invdiff.noise import Gaussian as GaussianNoise
from invdiff.operators.base import Affine, Linear, Operator
from invdiff.priors.gaussian import Gaussian, GaussianMixture
from invdiff.priors.posterior import matrix, real_rows
from invdiff.rng import Rng

F64 = torch.float64
SHAPE = (1, 2, 3)
N, K = 6, 3
EPS = 2.0**-52
SAMPLES = 40_000


def noise(*shape, role="z", seed=0):
    return Rng.of(seed).normal(torch.empty(1, *shape, dtype=F64), role)[0]


def spd(k: int = 1, seed: int = 0) -> torch.Tensor:
    """k covariances of N pixels with eigenvalues from about 0.1 to 3."""
    root = noise(k, N, N, role="spd", seed=seed)
    return root @ root.mT / N + 0.1 * torch.eye(N, dtype=F64)


@dataclass(frozen=True, eq=False)
class Dense(Linear):
    """y = M x + 0 for flattened images; Re and Im rows when complex."""

    M: torch.Tensor

    def __call__(self, x):
        M = self.M if self.M.is_complex() else self.M.to(x.dtype)
        return x.flatten(1).to(M.dtype) @ M.mT

    def adjoint(self, y):
        x = (y @ self.M.conj()).reshape(-1, *SHAPE)
        return x.real if x.is_complex() else x


class Squared(Operator):
    def __call__(self, x):
        return x**2


MIXTURES = {
    "one variance": GaussianMixture([1, 2, 3], 2 * noise(K, *SHAPE), 0.5),
    "a variance each": GaussianMixture([1, 2, 3], 2 * noise(K, *SHAPE), torch.tensor([0.1, 1, 2])),
    "pixel variances": GaussianMixture(
        [1, 2, 3], 2 * noise(K, *SHAPE), noise(K, *SHAPE, role="v").exp()
    ),
    "shared dense": GaussianMixture([1, 2, 3], 2 * noise(K, *SHAPE), spd()),
    "dense": GaussianMixture([1, 2, 3], 2 * noise(K, *SHAPE), spd(K)),
    "dense, one weight 0": GaussianMixture([0.7, 0, 0.3], 2 * noise(K, *SHAPE), spd(K)),
    "gaussian": Gaussian(noise(*SHAPE), spd()[0]),
    "gaussian, one variance": Gaussian(noise(*SHAPE), 0.3),
    "gaussian, pixel variances": Gaussian(noise(*SHAPE), noise(*SHAPE, role="v").exp()),
}
MATRIX = noise(4, N, role="M")
OPERATORS = {
    "wide": Dense(MATRIX),
    "tall": Dense(noise(9, N, role="M")),
    "masked": Dense(torch.diag(torch.tensor([1.0, 0, 1, 0, 0, 1], dtype=F64))),
    "complex": Dense(torch.complex(noise(2, N, role="re"), noise(2, N, role="im"))),
    "affine": Affine(Dense(MATRIX), noise(4, role="b")),
}
all_mixtures = pytest.mark.parametrize("prior", MIXTURES.values(), ids=MIXTURES.keys())
all_operators = pytest.mark.parametrize("A", OPERATORS.values(), ids=OPERATORS.keys())


def measured(prior, A, sigma=0.3, seed=1, dtype=F64):
    x = prior.sample(1, Rng.of([seed])).to(dtype)
    law = GaussianNoise(sigma)
    return Problem(law.sample(A(x), Rng.of([seed])), A, law, SHAPE)


def worst_z(x: torch.Tensor, mean: torch.Tensor, cov: torch.Tensor) -> float:
    """Largest deviation of sample means and of sample covariances, in standard errors."""
    r = x.double().flatten(1) - mean.flatten()
    products = (r[:, :, None] * r[:, None, :]).flatten(1) - cov.flatten()
    every = torch.cat([r, products], dim=1)
    return float((every.mean(0).abs() / every.std(0)).max()) * math.sqrt(len(x))


# ---------------------------------------------------------------- the law itself


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
    assert Gaussian(torch.zeros(2, 2), 1.0).sample(3, 0).dtype == torch.float32
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


# ---------------------------------------------------------------- its exact posterior


@all_operators
@all_mixtures
@pytest.mark.parametrize("sigma", [0.01, 0.3, 10.0])
def test_posterior_is_bayes_rule(prior, A, sigma):
    """log p(x) + log p(y | x) - log p(x | y) is the same number, log p(y), for every x."""
    problem = measured(prior, A, sigma)
    posterior = prior.posterior(problem)
    x = posterior.sample(20, 5)
    likelihood = problem.noise.log_prob(problem.y.expand(20, -1), A(x))
    evidence = prior.log_prob(x) + likelihood - posterior.log_prob(x)
    size = float((likelihood.abs() + prior.log_prob(x).abs()).max())
    widest = float(torch.linalg.eigvalsh(prior.covs).max())
    lost = EPS * (size + N * widest / float(torch.linalg.eigvalsh(posterior.covs).min()))
    assert float(evidence.max() - evidence.min()) < 100 * lost
    wrong = prior.log_prob(x) + 1.01 * likelihood - posterior.log_prob(x)
    assert float(wrong.max() - wrong.min()) > 1e-4


@pytest.mark.parametrize("name", ["gaussian", "gaussian, pixel variances"])
def test_posterior_of_a_normal_law_is_the_precision_form(name):
    prior, sigma = MIXTURES[name], 0.3
    problem = measured(prior, OPERATORS["wide"], sigma)
    posterior = prior.posterior(problem)
    precision = torch.linalg.inv(prior.cov) + MATRIX.T @ MATRIX / sigma**2
    cov = torch.linalg.inv(precision)
    pulled = torch.linalg.solve(prior.cov, prior.mean.flatten()) + MATRIX.T @ problem.y[0] / 0.09
    assert isinstance(posterior, Gaussian)
    torch.testing.assert_close(posterior.cov, cov, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(posterior.mean.flatten(), cov @ pulled, rtol=1e-10, atol=1e-10)


@all_operators
def test_posterior_weights_are_the_evidence_of_each_component(A):
    prior, sigma = MIXTURES["dense"], 0.3
    problem = measured(prior, A, sigma)
    offset = A(torch.zeros(1, *SHAPE, dtype=F64))
    columns = A(torch.eye(N, dtype=F64).reshape(N, *SHAPE)) - offset
    y = problem.y - offset
    if y.is_complex():
        columns, y = (torch.cat([v.real, v.imag], dim=1) for v in (columns, y))
    M = columns.T
    S = M @ prior.covs @ M.T + sigma**2 * torch.eye(len(M), dtype=F64)
    log_w = prior.weights.log() + MultivariateNormal(prior.means.flatten(1) @ M.T, S).log_prob(y)
    torch.testing.assert_close(
        prior.posterior(problem).weights, torch.softmax(log_w, 0), rtol=1e-10, atol=1e-12
    )


@all_mixtures
def test_posterior_samples_have_its_moments(prior):
    posterior = prior.posterior(measured(prior, OPERATORS["wide"]))
    x = posterior.sample(SAMPLES, 3)
    assert worst_z(x, posterior.mean, posterior.cov) < 5
    assert worst_z(prior.sample(SAMPLES, 3), posterior.mean, posterior.cov) > 5


@all_mixtures
@pytest.mark.parametrize("name", ["wide", "masked", "complex", "affine"])
def test_noiseless_posterior_is_the_limit(prior, name):
    """With e the smallest eigenvalue of S = A C A^T that is not 0, and r = y - A mean_k:
    |C A^T ((S + sigma^2)^-1 - S^+) r| <= |C A^T| |r| sigma^2 / e^2, for the means;
    |r|^2 sigma^2 / e^2 + m sigma^2 / e, twice the change of log w_k, for the weights."""
    A, sigma = OPERATORS[name], 1e-5
    problem = measured(prior, A, 0.0)
    exact = prior.posterior(problem)
    near = prior.posterior(Problem(problem.y, A, GaussianNoise(sigma), SHAPE))
    M, b = matrix(A, SHAPE)
    spectrum = torch.linalg.eigvalsh(M @ prior.covs @ M.T)
    e = float(spectrum[spectrum > 1e-10].min())
    r = float((real_rows(problem.y) - b - prior.means.flatten(1) @ M.T).norm(dim=1).max())
    gain = float(torch.linalg.matrix_norm(prior.covs @ M.T, 2).max())
    allowed = gain * r * sigma**2 / e**2 + 1e-10
    assert float((near.means - exact.means).flatten(1).norm(dim=1).max()) <= allowed
    allowed = r**2 * sigma**2 / e**2 + len(M) * sigma**2 / e + 1e-10
    assert float((near.weights - exact.weights).abs().max()) <= allowed


@all_mixtures
@pytest.mark.parametrize("name", ["wide", "masked", "complex", "affine"])
def test_noiseless_posterior_samples_agree_with_the_measurement(prior, name):
    problem = measured(prior, OPERATORS[name], 0.0)
    posterior = prior.posterior(problem)
    x = posterior.sample(10, 1)
    y = problem.y.expand(10, -1)
    torch.testing.assert_close(problem.A(x), y, rtol=0, atol=1e-10)
    assert not torch.allclose(problem.A(prior.sample(10, 1)), y, rtol=0, atol=1e-3)
    assert float((x - x[0]).abs().max()) > 0.01
    with pytest.raises(InvdiffError, match="no density"):
        posterior.log_prob(x)


def test_posterior_takes_a_measurement_in_single_precision():
    """Of a full measurement the mean is A^+ y, so it moves by at most |A^+| |y| 2^-24."""
    prior, A = MIXTURES["dense"], OPERATORS["tall"]
    double = measured(prior, A, 0.0)
    single = Problem(double.y.float(), A, NOISELESS, SHAPE)
    moved = prior.posterior(single).mean - prior.posterior(double).mean
    reach = float(torch.linalg.matrix_norm(torch.linalg.pinv(A.M), 2) * double.y.norm())
    assert 0 < float(moved.norm()) <= reach * 2**-24 + 1e-10


def test_an_impossible_noiseless_measurement_is_refused():
    problem = measured(MIXTURES["dense"], OPERATORS["tall"], 0.0)
    impossible = Problem(problem.y + noise(9, role="off"), problem.A, NOISELESS, SHAPE)
    with pytest.raises(InvdiffError, match="No image of this prior"):
        MIXTURES["dense"].posterior(impossible)


def test_components_of_different_rank_need_noise():
    covs = torch.stack([spd()[0], torch.zeros(N, N, dtype=F64)])
    prior = GaussianMixture([1, 1], noise(2, *SHAPE), covs)
    with pytest.raises(InvdiffError, match="different rank"):
        prior.posterior(measured(prior, OPERATORS["wide"], 0.0))
    assert prior.posterior(measured(prior, OPERATORS["wide"], 0.1)).weights.sum() == 1


def test_posterior_refuses_what_it_cannot_do():
    prior, y = MIXTURES["dense"], torch.zeros(1, *SHAPE, dtype=F64)
    flat = torch.zeros(2, 4, dtype=F64)
    cases = {
        "linear": Problem(y, Squared(), GaussianNoise(0.1), SHAPE),
        "Poisson": Problem(flat[:1], OPERATORS["wide"], Poisson(10.0), SHAPE),
        "one measurement": Problem(flat, OPERATORS["wide"], GaussianNoise(0.1), SHAPE),
    }
    for word, problem in cases.items():
        with pytest.raises(InvdiffError, match=word):
            prior.posterior(problem)


# ---------------------------------------------------------------- what it refuses


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
    prior = Gaussian(noise(*SHAPE), torch.ones(N, N, dtype=F64))
    with pytest.raises(InvdiffError, match="no density"):
        prior.log_prob(noise(1, *SHAPE))
    assert torch.isfinite(prior.log_prob(noise(1, *SHAPE), 0.1)).all()
    x = prior.sample(5, 0) - prior.mean
    assert float(x.flatten(1).std(1).max()) < 1e-7 < float(x.std())
