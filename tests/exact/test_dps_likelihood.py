"""DPS on noise of other laws, and noise models in the other solver that takes any density."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense import LIBRARY_PRIOR, MATRICES, PRIOR, ROWS, SEEDS, SHAPE, VP_SCHEDULE, D
from scipy import stats
from test_dps import dps

from helpers import Dense, seeded, states
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, VP
from invdiff.noise import (
    NOISELESS,
    CorrelatedGaussian,
    DiagonalGaussian,
    GaussianNoise,
    Laplace,
    Noise,
    Poisson,
    PoissonGaussian,
    Rician,
    StudentT,
)
from invdiff.operators import AveragePool, Identity
from invdiff.priors.base import Denoiser
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem
from invdiff.sampling.needs import IncompatibleError, Need, missing
from invdiff.sampling.run import solve
from invdiff.sampling.stream import stream
from invdiff.solvers import solver_class
from invdiff.solvers.dps import DPS

NOISES: dict[str, Noise] = {
    "laplace": Laplace(0.4),
    "student": StudentT(0.5, 3.0),
    "rician": Rician(0.6),
    "poisson-gaussian": PoissonGaussian(40.0, black=-6.0, white=6.0, read_sigma=1.5),
}
each = pytest.mark.parametrize("name", NOISES)


def minus_log_density(name):
    """-log p(y | z) by SciPy, for arrays (m,)."""
    gain = 40.0 / 12.0

    def read(y, z):
        rate = np.maximum(gain * (z + 6.0), 0.0)
        return stats.norm(rate, np.sqrt(rate + 1.5**2)).logpdf(gain * (y + 6.0))

    laws = {
        "laplace": lambda y, z: stats.laplace(z, 0.4).logpdf(y),
        "student": lambda y, z: stats.t(3.0, z, 0.5).logpdf(y),
        "rician": lambda y, z: stats.rice(np.abs(z) / 0.6, 0, 0.6).logpdf(y),
        "poisson-gaussian": read,
    }
    return lambda y, z: -laws[name](y, z).sum()


@each
def test_the_step_follows_the_log_density(name):
    """Central differences of SciPy's density, of step 1e-5; nine steps may amplify their error."""
    noise, A, zeta = NOISES[name], MATRICES["benign"], 0.02
    truth = PRIOR.mu + np.random.default_rng(6).standard_normal((ROWS, D)) / 2
    y = noise.sample(torch.tensor(truth @ A.T), Rng.of(SEEDS))
    problem = Problem(y, Dense(torch.tensor(A), SHAPE), noise, SHAPE)
    rng, levels = Rng.of(SEEDS), [(level.a, level.s) for level in VP_SCHEDULE.levels()]
    solver = DPS(zeta=zeta, loss="likelihood", schedule=VP_SCHEDULE)
    got = states(solver, problem, LIBRARY_PRIOR, rng)[-1].x.flatten(1).numpy()
    for row in range(ROWS):

        def z(step, role, row=row):
            like = torch.empty(1, *SHAPE, dtype=torch.float64)
            return rng.rows([row]).at(step).normal(like, role).numpy().ravel()

        loss = minus_log_density(name)
        want, other = (
            dps(y[row].numpy(), A, levels, z, loss, c, "off") for c in (zeta, 1.05 * zeta)
        )
        np.testing.assert_allclose(got[row], want, rtol=1e-5, atol=1e-5)
        assert np.abs(got[row] - other).max() > 1e-4


def test_of_gaussian_noise_it_is_the_gaussian_loss():
    problem = Problem(seeded(2, 1, 2, 2), AveragePool(2, (4, 4)), GaussianNoise(0.3), (1, 4, 4))
    prior = Denoiser(lambda x, sigma: 0.3 * x / (0.3 + sigma**2))
    ends = [
        list(stream(problem, prior, DPS(loss=loss, zeta=0.01, schedule=VP(5)), (1, 2)))[-1].x
        for loss in ("gaussian", "likelihood")
    ]
    assert torch.equal(*ends)


@pytest.mark.parametrize("noise", [*NOISES.values(), Poisson(40.0)])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_weight_0_is_the_plain_sampler(noise, eta):
    x = seeded(2, 1, 4, 4)
    problem = Problem(noise.sample(x.abs(), Rng.of([1, 2])), Identity(), noise, (1, 4, 4))
    prior = Denoiser(lambda x, sigma: 0.3 * x / (0.3 + sigma**2))
    solver = DPS(zeta=0.0, loss="likelihood", eta_ddim=eta, schedule=VP(5))
    plain = solver_class("unconditional")(eta_ddim=eta, schedule=VP(5))
    ours, theirs = (list(stream(problem, prior, s, (1, 2))) for s in (solver, plain))
    assert all(torch.equal(a.x, b.x) for a, b in zip(ours, theirs, strict=True))
    pulled = DPS(zeta=0.02, loss="likelihood", eta_ddim=eta, schedule=VP(5))
    assert not torch.equal(list(stream(problem, prior, pulled, (1, 2)))[-1].x, ours[-1].x)


@pytest.mark.parametrize("noise", [*NOISES.values(), Poisson(40.0), GaussianNoise(0.1)])
def test_who_offers_what(noise):
    """A density is enough for DPS and score-prior; a sigma has Gaussian noise alone."""
    problem = Problem(torch.zeros(1, 1, 4, 4), Identity(), noise, (1, 4, 4))
    assert not missing(DPS(loss="likelihood"), problem)
    assert not missing(solver_class("score-prior")(), problem)
    white = isinstance(noise, GaussianNoise)
    assert missing(DPS(loss="gaussian"), problem) == ([] if white else [Need.GAUSSIAN, Need.NOISY])
    assert (missing(solver_class("ddrm")(), problem) == []) == white


def test_noiseless_data_has_no_likelihood():
    problem = Problem(torch.zeros(1, 1, 4, 4), Identity(), NOISELESS, (1, 4, 4))
    prior = Denoiser(lambda x, sigma: x)
    with pytest.raises(IncompatibleError, match="noise that has a density"):
        solve(problem, prior, DPS(loss="likelihood", schedule=VP(2)))


def test_an_outlier_moves_a_gaussian_likelihood_and_not_students():
    """One entry of y is off by 40 sigma: the guided samples of the same noise are compared."""
    clean = 0.3 * torch.ones(1, 1, 4, 4, dtype=torch.float64)
    spoilt = clean.clone()
    spoilt[0, 0, 1, 1] += 4.0
    prior = GaussianPrior(torch.zeros(1, 4, 4).double(), 0.3)
    moved = {}
    for noise in (GaussianNoise(0.1), StudentT(0.1, 1.0)):
        solver = DPS(loss="likelihood", zeta=0.005, schedule=VP(60))
        runs = [
            solve(Problem(y, Identity(), noise, (1, 4, 4)), prior, solver).samples[0, 0, 0, 1, 1]
            for y in (clean, spoilt)
        ]
        moved[type(noise)] = float((runs[1] - runs[0]).abs())
    assert moved[GaussianNoise] > 1 and moved[StudentT] < 0.5


@pytest.mark.parametrize(
    "noise",
    [
        *NOISES.values(),
        DiagonalGaussian(0.1 + seeded(1, 1, 4, 4).abs()),
        CorrelatedGaussian(torch.eye(4) + 0.3, axis=3),
    ],
)
def test_score_prior_takes_any_density(noise):
    """Two steps run, and the law that is fitted depends on y."""
    prior = GaussianPrior(torch.zeros(1, 4, 4).double(), 0.3)
    solver = solver_class("score-prior")(family="gaussian", draws=4, schedule=VE(2, 100.0, 0.01))
    y = noise.sample(seeded(1, 1, 4, 4).abs(), Rng.of(3)).abs()
    found = [
        solve(Problem(v, Identity(), noise, (1, 4, 4)), prior, solver).samples for v in (y, 2 * y)
    ]
    assert torch.isfinite(found[0]).all() and not torch.equal(*found)
