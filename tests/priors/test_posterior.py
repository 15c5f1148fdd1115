"""The exact posterior: Bayes' rule, the precision form, evidence, limits, and what it refuses."""

import pytest
import torch
from laws import (
    EPS,
    F64,
    MATRIX,
    MIXTURES,
    OPERATORS,
    SAMPLES,
    SHAPE,
    N,
    Squared,
    all_mixtures,
    all_operators,
    measured,
    noise,
    spd,
    worst_z,
)
from torch.distributions import MultivariateNormal

from invdiff.core import InvdiffError
from invdiff.noise import NOISELESS, GaussianNoise, Poisson
from invdiff.priors.gaussian import GaussianMixture, GaussianPrior
from invdiff.priors.posterior import matrix, real_rows
from invdiff.problem import Problem


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
    assert isinstance(posterior, GaussianPrior)
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
    |r|^2 sigma^2 / e^2 + m sigma^2 / e, twice the change of log w_k, for the weights. Round-off
    moves an eigenvalue sigma^2 of a row without signal by eps |S|: log w_k by m eps |S| / sigma^2.
    """
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
    rounding = torch.finfo(spectrum.dtype).eps * float(spectrum.max()) / sigma**2
    allowed = r**2 * sigma**2 / e**2 + len(M) * (sigma**2 / e + rounding)
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
