"""Whitening: the posterior stays what it is, entries without information go, rungs are kept."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from helpers import seeded
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP
from invdiff.noise import (
    Coloured,
    CorrelatedGaussian,
    DiagonalGaussian,
    GaussianNoise,
    Laplace,
    Noise,
    Poisson,
    StationaryGaussian,
)
from invdiff.operators import (
    JPEG,
    Affine,
    AveragePool,
    CircularBlur,
    Grayscale,
    Identity,
    Inpaint,
    Linear,
    Mixed,
    Operator,
    Sense,
    Weighted,
    affine,
    gaussian_kernel,
    ring_maps,
    scaled,
)
from invdiff.priors.base import Denoiser
from invdiff.priors.gaussian import GaussianMixture, GaussianPrior
from invdiff.priors.posterior import matrix, real_rows
from invdiff.problem import Problem
from invdiff.problem.whiten import centre, whiten
from invdiff.sampling.needs import IncompatibleError, Need, missing, offers, why_not
from invdiff.sampling.run import again, solve
from invdiff.sampling.stream import finish, stream
from invdiff.solvers import registry, solver_class
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.dps import DPS

X = (3, 4, 4)
N = math.prod(X)
LEVELS = 0.1 + seeded(1, 3, 4, 4).abs()
GONE = LEVELS.clone()
GONE[0, 0, 1:3] = math.inf
MIX = seeded(3, 3, seed=3) / 4 + torch.eye(3).double() / 2
MASK = seeded(1, 1, 4, 4, seed=2) > -0.3
CASES: dict[str, tuple[Operator, Coloured]] = {
    "identity": (Identity(), DiagonalGaussian(LEVELS)),
    "identity-gone": (Identity(), DiagonalGaussian(GONE)),
    "inpaint": (Inpaint(MASK), DiagonalGaussian(GONE)),
    "weighted": (Weighted(seeded(1, 3, 1, 1).abs()), DiagonalGaussian(LEVELS)),
    "blur": (CircularBlur(gaussian_kernel(0.6), (4, 4)), DiagonalGaussian(GONE)),
    "affine": (affine(AveragePool(2, (4, 4)), 0.5, 0.25), DiagonalGaussian(LEVELS[..., :2, :2])),
    "grey": (Grayscale(), DiagonalGaussian(LEVELS[:, :1])),
    "channels": (Identity(), CorrelatedGaussian(MIX @ MIX.mT)),
    "channels-inpaint": (Inpaint(MASK), CorrelatedGaussian(MIX @ MIX.mT)),
    "columns": (affine(Identity(), 0.5, 0.1), CorrelatedGaussian(torch.eye(4) + 0.4, axis=3)),
    "all": (
        Grayscale(),
        CorrelatedGaussian((seeded(16, 16) @ seeded(16, 16).mT) / 16 + torch.eye(16), axis=None),
    ),
}
FIELD = StationaryGaussian((0.1, 0.4), ((0.9, 0.2),))
COLOURS = StationaryGaussian((0.1, 0.4), ((0.9, 0.2), (0.5, 0.4)))
CASES |= {
    "field": (Identity(), FIELD),
    "field-colours": (Identity(), COLOURS),
    "field-blur": (CircularBlur(gaussian_kernel(0.6), (4, 4)), COLOURS),
    "field-pool": (affine(AveragePool(2, (4, 4)), 0.5, 0.25), FIELD),
}
each = pytest.mark.parametrize(("A", "noise"), CASES.values(), ids=CASES)


def problem_of(A: Operator, noise: Noise, x_shape: tuple[int, ...] = X) -> Problem:
    y = A(seeded(1, *x_shape, seed=7))
    return Problem(noise.sample(y, Rng.of(3)), A, noise, x_shape)


def covariance(problem: Problem) -> tuple[Tensor, Tensor]:
    """The dense covariance of the noise, and which real numbers of y were measured.

    Column by column from `colour`, which the samples are made by."""
    noise, y = problem.noise, problem.y
    real = torch.eye(2 * y[0].numel() if y.is_complex() else y[0].numel(), dtype=torch.float64)
    if y.is_complex():
        units = torch.view_as_complex(real.reshape(len(real), *y.shape[1:], 2))
    else:
        units = real.reshape(len(real), *y.shape[1:])
    L = real_rows(noise.colour(units)).mT
    ones = torch.full_like(y, 1 + 1j if y.is_complex() else 1.0)
    measured = real_rows(noise.admit(problem.A.restrict(ones)))[0] > 0
    return L @ L.mT, measured


def dense_posterior(problem: Problem, mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
    """N(mean, cov) given y, with the whole covariance of the noise, on what was measured."""
    M, b = matrix(problem.A, problem.x_shape)
    sigma, seen = covariance(problem)
    M, r, sigma = M[seen], (real_rows(problem.y)[0] - b)[seen], sigma[seen][:, seen]
    gain = torch.linalg.solve(M @ cov @ M.mT + sigma, M @ cov).mT
    return mean + gain @ (r - M @ mean), cov - gain @ M @ cov


def check_posterior(problem: Problem, through: Problem) -> None:
    n = math.prod(problem.x_shape)
    mean, root = 0.1 * seeded(n, seed=5), seeded(n, n, seed=6) / n**0.5
    cov = root @ root.mT + 0.1 * torch.eye(n)
    found = GaussianPrior(mean.reshape(problem.x_shape), cov).posterior(through)
    expected = dense_posterior(problem, mean, cov)
    torch.testing.assert_close(found.means[0].flatten(), expected[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.cov, expected[1], rtol=1e-9, atol=1e-9)


@each
def test_the_posterior_is_that_of_the_whole_covariance(A, noise):
    problem = problem_of(A, noise)
    check_posterior(problem, problem)
    check_posterior(problem, whiten(problem))
    flat = Problem(problem.y, A, GaussianNoise(noise.level), X)
    with pytest.raises(AssertionError):
        check_posterior(problem, flat)


@pytest.mark.parametrize("coils", ["real", "complex"])
def test_the_posterior_of_coils(coils):
    maps, mask = ring_maps(3, (4, 4)), seeded(1, 1, 4, 4, seed=2) > -0.5
    L = MIX + (1j * MIX.flip(0) / 3 if coils == "complex" else 0)
    problem = problem_of(Sense(maps, mask), CorrelatedGaussian(L @ L.mH), (2, 4, 4))
    assert problem.y.is_complex()
    check_posterior(problem, problem)
    flat = Problem(problem.y, problem.A, GaussianNoise(problem.noise.level), (2, 4, 4))
    with pytest.raises(AssertionError):
        check_posterior(problem, flat)


def test_weights_of_mixture_components_are_those_of_the_whole_covariance():
    problem = problem_of(*CASES["channels"])
    means = torch.stack([torch.full(X, -0.5), torch.full(X, 0.5)]).double()
    found = GaussianMixture([0.3, 0.7], means, 0.2).posterior(problem).weights
    sigma, _ = covariance(problem)
    law = [
        torch.distributions.MultivariateNormal(m.flatten(), sigma + 0.2 * torch.eye(N).double())
        for m in means
    ]
    log_w = torch.stack([p.log_prob(problem.y.flatten()) for p in law])
    expected = torch.softmax(log_w + torch.tensor([0.3, 0.7]).double().log(), 0)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@each
def test_the_density_changes_by_a_constant(A, noise):
    problem = problem_of(A, noise)
    white = whiten(problem)
    x = seeded(4, *X, seed=8)
    before, after = (
        p.noise.log_prob(p.y.expand(4, *p.y.shape[1:]), p.A(x)) for p in (problem, white)
    )
    torch.testing.assert_close(after - before, (after - before)[:1].expand(4), rtol=0, atol=1e-9)
    a, b = (p.A.vjp(x, p.noise.score(p.y.expand(4, *p.y.shape[1:]), p.A(x)))
            for p in (problem, white))  # fmt: skip
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("noise", [GaussianNoise(0.1), Laplace(0.1), Poisson(9.0)])
def test_other_noise_is_left_alone(noise):
    problem = Problem(torch.zeros(1, *X), Identity(), noise, X)
    assert whiten(problem) is problem


def test_white_noise_stays_what_it_is():
    """The level is kept, and with it what step sizes mean: nothing changes but the class of A."""
    problem = problem_of(
        Identity(), DiagonalGaussian(torch.full((1, 1, 1, 1), 0.2, dtype=torch.float64))
    )
    white = whiten(problem)
    assert white.sigma_y == pytest.approx(0.2, rel=1e-12)
    torch.testing.assert_close(white.y, problem.y, rtol=1e-12, atol=0)
    torch.testing.assert_close(white.A(problem.y), problem.y, rtol=1e-12, atol=0)


def test_a_row_is_whitened_alone_as_in_a_batch():
    noise = DiagonalGaussian(0.1 + seeded(3, 1, 4, 4, seed=9).abs())
    problem = Problem(seeded(3, *X), Inpaint(seeded(3, 1, 4, 4) > 0), noise, X)
    whole = whiten(problem)
    for k in range(3):
        one = whiten(problem.rows(torch.tensor([k])))
        assert torch.equal(one.y, whole.y[k : k + 1]) and one.sigma_y == whole.sigma_y
        x = seeded(1, *X, seed=4)
        assert torch.equal(one.A(x), whole.A.rows(torch.tensor([k]))(x))


def test_the_rungs():
    """Independent noise keeps a decomposition where V is the identity, stationary noise that of the
    identity itself; all else stays linear."""
    ladder = {Need.SVD, Need.PINV, Need.GENERALISED_INVERSE, Need.OPERATOR_VJP, Need.LINEAR}
    spectral = {"identity", "identity-gone", "inpaint", "weighted", "field", "field-colours"}
    for name, (A, noise) in CASES.items():
        offered = offers(problem_of(A, noise))
        assert {Need.GAUSSIAN, Need.NOISY, Need.DENSITY} <= offered, name
        assert (Need.SVD in offered) == (name in spectral), name
        assert Need.PINV in offered, name
    curved = Operator.from_function(torch.tanh)
    offered = offers(problem_of(curved, DiagonalGaussian(LEVELS)))
    assert offered & ladder == {Need.OPERATOR_VJP} and Need.GAUSSIAN in offered
    coded = offers(Problem(torch.zeros(1, *X), JPEG(50), DiagonalGaussian(LEVELS), X))
    assert coded & ladder == {Need.GENERALISED_INVERSE}


def test_the_sentence_names_the_noise_that_took_the_decomposition():
    problem = problem_of(*CASES["blur"])
    sentence = why_not(DDRM(), problem)
    assert "CircularBlur with DiagonalGaussian noise offers none" in sentence
    with pytest.raises(IncompatibleError, match="CircularBlur with DiagonalGaussian"):
        solve(problem, Denoiser(lambda x, s: x / (1 + s**2)), DDRM(schedule=VP(2)))


@pytest.mark.parametrize("noise", [CASES["channels"][1], CASES["all"][1]], ids=["axis", "all"])
def test_an_axis_that_was_measured_in_part_is_refused(noise):
    A = (
        Inpaint(torch.arange(3).reshape(1, 3, 1, 1).expand(1, 3, 4, 4) < 2)
        if noise.axis
        else Inpaint(MASK)
    )
    shape = X if noise.axis else (1, 4, 4)
    with pytest.raises(InvdiffError, match="all of the axis was measured or none"):
        whiten(Problem(torch.zeros(1, *shape), A, noise, shape))


def test_centred_takes_the_offset_of_additive_noise_only():
    A = affine(Identity(), 0.5, 0.25)
    y = seeded(1, *X)
    for noise in (GaussianNoise(0.1), Laplace(0.1), DiagonalGaussian(LEVELS)):
        found = centre(Problem(y, A, noise, X))
        assert isinstance(found.A, Linear) and torch.equal(found.y, y - 0.25)
    counts = Problem(y, A, Poisson(10.0), X)
    assert centre(counts) is counts and isinstance(counts.A, Affine)


PRIOR = Denoiser(lambda x, sigma: 0.3 * x / (0.3 + sigma**2))
"""The denoiser of N(0, 0.3)."""
STABLE = {"score-medical-baseline": {"kappa": 5.0}}
"""Knobs of solvers that diverge where the norm of A, here the largest weight, is above 1."""


@pytest.mark.parametrize("name", [n for n, c in registry().items() if not c.ignores_y])
def test_every_gaussian_solver_takes_it(name):
    """A solver runs on the problem exactly as on the whitened one, and on other noise otherwise."""
    solver = solver_class(name)(**STABLE.get(name, {})).with_steps(3)
    problem = problem_of(*CASES["inpaint"])
    if missing(solver, problem, PRIOR):
        pytest.skip("wants noiseless data or counts")
    seeds = (5,)
    runs = [list(stream(p, PRIOR, solver, seeds))[-1] for p in (problem, whiten(problem))]
    assert torch.equal(runs[0].x, runs[1].x)
    ends = [finish(runs[0], p, PRIOR, solver, seeds) for p in (problem, whiten(problem))]
    assert torch.equal(*ends)
    other = Problem(problem.y, problem.A, DiagonalGaussian(LEVELS.flip(1)), X)
    assert not torch.equal(list(stream(other, PRIOR, solver, seeds))[-1].x, runs[0].x)


def test_most_solvers_take_it():
    """Negative twin of the skip above."""
    problem = problem_of(*CASES["inpaint"])
    able = [n for n, c in registry().items() if not missing(c(), problem, PRIOR)]
    assert {"ddrm", "ddnm+", "diffpir", "dps", "mmps", "pigdm", "snips", "reddiff", "csgm"} <= {
        *able
    }


def test_an_exact_solver_draws_from_the_exact_posterior():
    """MMPS is exact on a normal prior: the mean of 64 samples, in standard errors."""
    problem = problem_of(*CASES["identity"])
    prior = GaussianPrior(torch.zeros(X).double(), 0.3)
    solver = solver_class("mmps")(iterations=48, schedule=VP(60))
    mean = solve(problem, prior, solver, samples=64).mean
    exact = prior.posterior(problem)
    error = (mean - exact.means[0]).flatten() / (exact.cov.diagonal() / 64).sqrt()
    assert float(error.square().mean()) < 1 + 5 * math.sqrt(2 / N)
    flat = prior.posterior(Problem(problem.y, problem.A, GaussianNoise(problem.noise.level), X))
    error = (mean - flat.means[0]).flatten() / (exact.cov.diagonal() / 64).sqrt()
    assert float(error.square().mean()) > 1 + 5 * math.sqrt(2 / N)


def test_a_whitened_problem_is_an_ordinary_one():
    """A whitened problem has nouns of this package alone: it can be solved and written again."""
    problem = whiten(problem_of(*CASES["channels"]))
    result = solve(problem, PRIOR, DPS(schedule=VP(3)))
    again = result.problem()
    assert torch.equal(again.y, problem.y) and again.sigma_y == problem.sigma_y
    assert isinstance(scaled(problem.A, 2.0), Linear)


def test_a_run_is_the_same_in_chunks_and_from_its_record():
    """Each measurement has sigmas of its own; the level is common to all of them."""
    noise = DiagonalGaussian(0.1 + seeded(3, 1, 4, 4, seed=9).abs())
    problem = Problem(seeded(3, *X), Inpaint(MASK), noise, X)
    solver = DDRM(schedule=VP(4))
    together = solve(problem, PRIOR, solver, samples=2)
    apart = solve(problem, PRIOR, solver, samples=2, batch=1)
    assert torch.equal(together.samples, apart.samples)
    assert torch.equal(again(together, PRIOR).samples, together.samples)


def test_an_axis_that_is_none_is_refused():
    for axis in (0, 4):
        with pytest.raises(InvdiffError, match=f"no axis {axis}"):
            Mixed(torch.eye(3), axis).y_shape(X)


def test_stationary_noise_keeps_the_decomposition_of_denoising():
    """And a measurement with gaps is refused."""
    assert Need.SVD in offers(problem_of(Identity(), COLOURS))
    with pytest.raises(InvdiffError, match="all of them were measured"):
        whiten(problem_of(Inpaint(MASK), FIELD))
