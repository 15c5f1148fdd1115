"""DDS: Chung, Lee and Ye 2024: a few conjugate gradients from the clean estimate, in both forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dense import (
    MATRICES,
    PRIOR,
    VP_SCHEDULE,
    D,
    Task,
    assert_agrees,
    compare,
    on_matrices,
    on_schedules,
    transcription,
)
from scalar import SIGMA_Y, Moments, assert_follows, each_gain, each_schedule, pairs, shrink

from helpers import Dense, seeded, seeds, states
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.solvers.dds import DDS
from invdiff.solvers.unconditional import Unconditional


def conjugate_gradients(matrix, b, x, iterations):
    """Hestenes and Stiefel 1952, from x."""
    r = b - matrix @ x
    p = r
    for _ in range(iterations):
        if r @ r < 1e-28 * (b @ b):
            break
        step = (r @ r) / (p @ matrix @ p)
        x, new = x + step * p, r - step * matrix @ p
        p, r = new + (new @ new) / (r @ r) * p, new
    return x


@transcription("dds")
def dds(t: Task, gamma=1.0, iterations=5, eta_prop=0.85):
    x, A = t.start(), t.A
    for i, a, s, b, r in t.moves:
        x0 = PRIOR.D(x, a, s)
        eps = (x - a * x0) / s
        if t.sigma_y:
            matrix, right = np.eye(D) + gamma * A.T @ A, x0 + gamma * A.T @ t.y
        else:
            matrix, right = A.T @ A, A.T @ t.y
        X = conjugate_gradients(matrix, right, x0, iterations)
        x = b * X + r * (eta_prop * t.z(i, "step") + np.sqrt(1 - eta_prop**2) * eps)
    return x


@on_schedules
@on_matrices
@pytest.mark.parametrize("sigma_y", [0.1, 0.0])
@pytest.mark.parametrize(
    "knobs", [{}, {"gamma": 30.0, "iterations": 2}, {"iterations": 1, "eta_prop": 0.3}], ids=str
)
def test_transcription(schedule, matrix, sigma_y, knobs):
    assert_agrees("dds", knobs, matrix, sigma_y, schedule)


@pytest.mark.parametrize("wrong", [{"gamma": 1.001}, {"iterations": 4}, {"eta_prop": 0.851}])
def test_a_knob_off_by_a_little_is_seen(wrong):
    got, want = compare("dds", wrong, "wide", 0.1, VP_SCHEDULE, library_knobs={})
    assert np.abs(got - want).max() > 1e-6


def recursion(schedule, gain, sigma_y, gamma, eta):
    """One pixel is solved by one iteration: X = (x0 + gamma s y) / (1 + gamma s^2), or y / s."""
    m, V = 0.0, schedule.levels()[0].s ** 2
    for t, u in pairs(schedule):
        d = shrink(t)
        keep = 1 / (1 + gamma * gain**2) if sigma_y else float(gain == 0)
        of_y = (1 - keep) if gain else 0.0
        e = (1 - t.a * d) / t.s
        own = u.a * keep * d + u.s * math.sqrt(1 - eta**2) * e
        m, V = own * m + u.a * of_y, own**2 * V + (eta * u.s) ** 2
        yield Moments(m, V)


@each_gain
@each_schedule
@pytest.mark.parametrize(("sigma_y", "gamma"), [(SIGMA_Y, 1.0), (SIGMA_Y, 100.0), (0.0, 1.0)])
def test_it_follows_its_recursion(schedule, gain, sigma_y, gamma):
    solver = DDS(gamma=gamma, schedule=schedule)
    assert_follows(solver, gain, sigma_y, recursion(schedule, gain, sigma_y, gamma, 0.85))


def test_many_iterations_are_the_data_step_of_ddnm():
    """Without noise, conjugate gradients from x0 end at x0 + A^+ (y - A x0)."""
    A = Dense(torch.tensor(MATRICES["benign"]), (1, 4, 4))
    problem = Problem(seeded(2, 6), A, NOISELESS, (1, 4, 4))
    x0 = seeded(2, 1, 4, 4, seed=1)
    found = {n: DDS(iterations=n)._towards(x0, problem) for n in (2, 6)}
    exact = x0 + A.pinv(problem.residual(x0))
    torch.testing.assert_close(found[6], exact, rtol=0, atol=1e-9)
    assert (found[2] - exact).abs().max() > 1e-2


def test_cost_and_the_plain_sampler():
    """One evaluation a step; with gamma 0 and noise, y is ignored, bit for bit."""
    A = Dense(torch.tensor(MATRICES["wide"]), (1, 4, 4))
    prior = Denoiser(lambda x, sigma: x / (1 + sigma**2))
    problem = Problem(seeded(2, 7), A, GaussianNoise(0.1), (1, 4, 4))
    result = solve(problem, prior, DDS())
    assert (result.nfe, result.vjps) == (50, 0)
    plain, blind = (
        Unconditional(eta_ddim=0.0, schedule=VP(6)),
        DDS(gamma=0.0, eta_prop=0.0, schedule=VP(6)),
    )
    rng = Rng.of(seeds(2))
    runs = (states(s, problem, prior, rng) for s in (plain, blind))
    assert all(torch.equal(a.x, b.x) for a, b in zip(*runs, strict=True))
