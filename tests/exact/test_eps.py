"""EPS: arXiv 2606.17048, Theorem 1, for isometries; an exact denoiser of the posterior."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense import (
    LIBRARY_PRIOR,
    PRIOR,
    ROWS,
    SCHEDULES,
    SEEDS,
    SHAPE,
    D,
    Task,
    ddim,
    random_matrix,
    transcription,
)
from scalar import Moments, assert_follows, pairs

from helpers import Dense, seeded, states
from invdiff.core import Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, Karras
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.operators import AveragePool, Grayscale, Identity, RealFourier
from invdiff.operators.algebra.scaling import ScaledSpectral
from invdiff.priors.base import Denoiser
from invdiff.priors.gaussian import GaussianMixture
from invdiff.problem import Problem
from invdiff.sampling.needs import IncompatibleError, Need, offers
from invdiff.sampling.run import solve
from invdiff.solvers.eps import EPS

ISOMETRY = 1.7 * np.linalg.qr(random_matrix(D, D, 8))[0]


@transcription("eps")
def eps(t: Task, eta_ddim=1.0):
    """E[x0 | x_t, y] of the normal prior by its joint precision, not by a denoiser."""
    A, x = t.A, t.start()
    for i, a, s, b, r in t.moves:
        precision = np.linalg.inv(PRIOR.Sigma) + (a / s) ** 2 * np.eye(D) + A.T @ A / t.sigma_y**2
        right = np.linalg.solve(PRIOR.Sigma, PRIOR.mu) + a * x / s**2 + A.T @ t.y / t.sigma_y**2
        x = ddim(x, np.linalg.solve(precision, right), a, s, b, r, t.z(i, "step"), eta_ddim)
    return x


def compared(knobs, own, schedule, sigma_y=0.4):
    """The library's samples and the transcription's."""
    y = random_matrix(ROWS, D, 7)
    problem = Problem(
        torch.tensor(y), Dense(torch.tensor(ISOMETRY), SHAPE), GaussianNoise(sigma_y), SHAPE
    )
    rng = Rng.of(SEEDS)
    got = (
        states(EPS(**own, schedule=schedule), problem, LIBRARY_PRIOR, rng)[-1].x.flatten(1).numpy()
    )
    levels = [(u.a, u.s) for u in schedule.levels()]

    def one(row):
        def z(step, role):
            like = torch.empty(1, *SHAPE, dtype=torch.float64)
            return rng.rows([row]).at(step).normal(like, role).numpy().ravel()

        return eps(Task(ISOMETRY, y[row], sigma_y, z, levels), **knobs)

    return got, np.stack([one(row) for row in range(ROWS)])


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
@pytest.mark.parametrize("knobs", [{}, {"eta_ddim": 0.3}], ids=str)
def test_transcription(schedule, knobs):
    got, want = compared(knobs, knobs, schedule)
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8)
    assert np.abs(got - compared({"eta_ddim": 0.99}, knobs, schedule)[1]).max() > 1e-6


def test_its_estimate_is_the_posterior_mean_of_a_mixture():
    """Of x0 given x_t and y at once, by conditioning the mixture on both: to round-off."""
    shape = (1, 2, 2)
    means = 2 * seeded(3, *shape, seed=1)
    prior = GaussianMixture([0.5, 0.3, 0.2], means, 0.4)
    A = Dense(1.3 * torch.linalg.qr(seeded(4, 4, seed=2))[0], shape)
    y, x = seeded(1, 4, seed=3), seeded(1, *shape, seed=4)
    problem, sigma = Problem(y, A, GaussianNoise(0.6), shape), 0.8
    state = states(EPS(schedule=VE(1, sigma, sigma)), problem, prior, Fixed(x / sigma))[-1]
    both = torch.cat([A.matrix / 0.6, torch.eye(4, dtype=torch.float64) / sigma])
    seen = torch.cat([y / 0.6, x.flatten(1) / sigma], dim=1)
    law = prior.posterior(Problem(seen, Dense(both, shape), GaussianNoise(1.0), shape))
    want = (law.weights[:, None] * law.means.flatten(1)).sum(0)
    torch.testing.assert_close(state.x.flatten(), want, rtol=0, atol=1e-12)
    own = prior.x0(x, Level(1.0, sigma)).flatten()  # negative twin: without y
    assert float((own - want).abs().max()) > 0.1


class Fixed(Rng):
    """Draws x, whatever is asked."""

    def __init__(self, x):
        super().__init__((0,))
        object.__setattr__(self, "x", x)

    def at(self, step):
        return self

    def normal(self, like, role):
        return self.x.clone()


@pytest.mark.parametrize("gain", [1.0, 0.25])
def test_its_moments_approach_the_posteriors(gain):
    """On a scalar normal law: each state follows the recursion of the joint law's denoiser, and
    the last one the posterior, nearer with more steps."""

    def recursion(schedule, sigma_y=0.1):
        m, V = 0.0, schedule.levels()[0].s ** 2
        for t, u in pairs(schedule):
            total = 1 + 1 / t.sigma**2 + gain**2 / sigma_y**2
            own, of_y = 1 / t.sigma**2 / total, gain**2 / sigma_y**2 / total
            k = (u.sigma / t.sigma) ** 2
            m = (1 - k) * (own * m + of_y) + k * m
            V = ((1 - k) * own + k) ** 2 * V + u.sigma**2 * (1 - k)
            yield Moments(m, V)

    exact = gain**2 / (gain**2 + 0.1**2), 0.1**2 / (gain**2 + 0.1**2)
    errors = []
    for steps in (10, 40, 160):
        schedule = Karras(steps, 40.0, 0.005)
        assert_follows(EPS(schedule=schedule), gain, 0.1, recursion(schedule))
        *_, last = recursion(schedule)
        assert last.mean == pytest.approx(exact[0], abs=1e-4)
        errors.append(abs(last.variance / exact[1] - 1))
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 0.1


def test_only_isometries_are_taken():
    shape = (3, 4, 4)
    x = seeded(1, *shape)
    taken = [Identity(), ScaledSpectral(Identity(), 3.0), RealFourier(torch.ones(1, 1, 4, 4))]
    for A in taken:
        problem = Problem(A(x), A, GaussianNoise(0.1), shape)
        assert Need.ISOMETRY in offers(problem)
        prior = Denoiser(lambda x, sigma: x / (1 + sigma**2))
        assert torch.isfinite(solve(problem, prior, EPS().with_steps(3)).samples).all()
    for A in (Grayscale(), AveragePool(2, (4, 4)), RealFourier(seeded(1, 1, 4, 4) > 0)):
        problem = Problem(A(x), A, GaussianNoise(0.1), shape)
        with pytest.raises(IncompatibleError, match="A.T A a multiple of the identity"):
            solve(problem, Denoiser(lambda x, sigma: x), EPS())
    with pytest.raises(IncompatibleError, match="a noise level above 0"):
        solve(Problem(x, Identity(), NOISELESS, shape), Denoiser(lambda x, sigma: x), EPS())
