"""CBG: Geyfman et al. 2026, Eq. 20, with draws by the prior's own ancestral sampler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense import (
    PRIOR,
    VP_SCHEDULE,
    Task,
    ancestral,
    assert_agrees,
    compare,
    ddim,
    on_matrices,
    on_schedules,
    transcription,
)

from helpers import Dense, seeded
from invdiff.core import Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import Karras
from invdiff.noise import GaussianNoise, Laplace
from invdiff.operators import Operator
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem
from invdiff.solvers.cbg import CBG

SMALL = {"draws": 4, "inner": 3}


@transcription("cbg")
def cbg(t: Task, draws=16, inner=5, gamma=1.0, sigma_min=0.01, eta_ddim=1.0):
    """All draws side by side; of the inner sampler, the last step is the denoised image."""
    A, x = t.A, t.start()
    for i, a, s, b, r in t.moves:
        ramp = np.linspace((s / a) ** (1 / 7), min(sigma_min, s / a) ** (1 / 7), inner) ** 7
        images = []
        for k in range(draws):
            u = x / a
            for j, (one, two) in enumerate(zip(ramp, [*ramp[1:], 0.0], strict=True)):
                x0 = PRIOR.D(u, 1.0, one)
                u = ancestral(u, x0, 1.0, one, 1.0, two, t.z(i, f"draw {k}, {j}"))
            images.append(u)
        images = np.array(images)
        misfit = ((t.y - images @ A.T) ** 2).sum(1) / (2 * t.sigma_y**2)
        w = np.exp(-gamma * (misfit - misfit.min()))
        x = ddim(x, w @ images / w.sum(), a, s, b, r, t.z(i, "step"), eta_ddim)
    return x


@on_schedules
@on_matrices
@pytest.mark.parametrize(
    "knobs", [{}, {"gamma": 0.1, "eta_ddim": 0.3}, {"sigma_min": 0.2, "inner": 1}], ids=str
)
def test_transcription(schedule, matrix, knobs):
    assert_agrees("cbg", SMALL | knobs, matrix, 0.5, schedule)


@pytest.mark.parametrize("knobs", [{"gamma": 0.99}, {"sigma_min": 0.011}, {"eta_ddim": 0.99}])
def test_a_knob_off_by_a_little_is_seen(knobs):
    got, want = compare("cbg", SMALL | knobs, "wide", 0.5, VP_SCHEDULE, library_knobs=SMALL)
    assert np.abs(got - want).max() > 1e-6


def guided(problem: Problem, prior: GaussianPrior, sigma: float, x_t: torch.Tensor) -> torch.Tensor:
    """The mean of many draws, of many steps each."""
    solver = CBG(draws=600, inner=40, sigma_min=1e-3)
    return solver._mean(x_t, Level(1.0, sigma), problem, prior, Rng.of(range(len(x_t)), True))


def test_its_mean_is_the_exact_one_on_a_normal_law():
    """E[x0 | x_t, y] in closed form, within what 600 draws of 8 rows show."""
    shape, sigma, sigma_y = (1, 1, 2), 1.5, 0.7
    A = torch.tensor([[1.0, 0.6]], dtype=torch.float64)
    prior = GaussianPrior(torch.full(shape, 0.3, dtype=torch.float64), 0.81)
    x_t = seeded(1, *shape, seed=3).double().expand(8, *shape)
    y = torch.tensor([[0.8]], dtype=torch.float64).expand(8, 1)
    problem = Problem(y, Dense(A, shape), GaussianNoise(sigma_y), shape)
    precision = torch.eye(2) * (1 / 0.9**2 + 1 / sigma**2) + A.T @ A / sigma_y**2
    right = 0.3 / 0.9**2 + x_t[0].flatten() / sigma**2 + A[0] * 0.8 / sigma_y**2
    exact = torch.linalg.solve(precision, right)
    found = guided(problem, prior, sigma, x_t).flatten(1)
    error = found.std(0) / 8**0.5
    assert error.max() < 0.02
    assert ((found.mean(0) - exact).abs() < 4 * error).all()


def test_its_mean_is_the_exact_one_for_an_operator_and_a_noise_of_another_kind():
    """|x| with Laplace noise, one pixel: the mean by quadrature."""
    shape, sigma, scale = (1, 1, 1), 1.2, 0.5
    prior = GaussianPrior(torch.full(shape, 0.4, dtype=torch.float64), 0.64)
    x_t = torch.full((8, 1, 1, 1), -0.3, dtype=torch.float64)
    y = torch.full((8, 1, 1, 1), 0.7, dtype=torch.float64)
    problem = Problem(y, Operator.from_function(torch.abs), Laplace(scale), shape)
    grid = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    log_p = -((grid - 0.4) ** 2) / (2 * 0.8**2) - (grid + 0.3) ** 2 / (2 * sigma**2)
    p = (log_p - (grid.abs() - 0.7).abs() / scale).softmax(0)
    found = guided(problem, prior, sigma, x_t).flatten()
    error = found.std() / 8**0.5
    assert error < 0.02
    assert abs(found.mean() - (p * grid).sum()) < 4 * error


def test_rows_and_draws_do_not_depend_on_the_batch():
    """A row alone has the draws that it has beside others."""
    solver, shape = CBG(**SMALL, schedule=Karras(3, 10.0, 0.1)), (1, 1, 3)
    prior, A = GaussianPrior(torch.zeros(shape), 1.0), Dense(torch.eye(3), shape)
    problem = Problem(seeded(2, 3, dtype=torch.float32), A, GaussianNoise(0.3), shape)
    both = solver.step(solver.init(problem, prior, Rng.of([5, 6])), problem, prior, Rng.of([5, 6]))
    own = problem.rows(torch.tensor([1]))
    one = solver.step(solver.init(own, prior, Rng.of([6])), own, prior, Rng.of([6]))
    assert torch.equal(both.x[1:], one.x)
