"""CSGM: annealed Langevin dynamics against a second version, its recursion, and the posterior."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from dense import PRIOR, STEPS, Task, assert_agrees, compare, transcription
from dense import SCHEDULES as DENSE_SCHEDULES
from scalar import (
    GAINS,
    SIGMA_Y,
    Moments,
    assert_follows,
    each_gain,
    each_schedule,
    final,
    pairs,
    shrink,
)

from helpers import seeded, states
from invdiff.core import Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, Stairs
from invdiff.noise import GaussianNoise
from invdiff.operators import Identity
from invdiff.operators.mri import Fourier
from invdiff.priors.base import Counted, Denoiser
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.solvers.csgm import CSGM


@transcription("csgm")
def csgm(t: Task, c=0.1, weight=1.0, gamma=1.0, likelihood="score"):
    """Jalal et al. 2021, eq. 4, on u = x_t / a with the noise level s / a."""
    u = t.levels[0][1] / t.levels[0][0] * t.z(-1, "init")
    for i, a, s, _, _ in t.moves:
        sigma = s / a
        f = PRIOR.score(u, 1.0, sigma)
        g = t.A.T @ (t.y - t.A @ u)
        if likelihood == "matched":
            g = g * np.linalg.norm(f) / np.linalg.norm(g)
        else:
            g = g / ((gamma * sigma) ** 2 + t.sigma_y**2)
        b = c * sigma**2
        u = u + b * (f + weight * g) + np.sqrt(2 * b) * t.z(i, "step")
    return u


SCHEDULES = [
    *DENSE_SCHEDULES.values(),
    Stairs(STEPS, 2.0, 0.1, hold=2, late_hold=3, late_sigma=0.5),
]
KNOBS = [
    {},
    {"c": 0.3, "gamma": 2.0},
    {"weight": 0.4},
    {"likelihood": "matched", "weight": 5.0, "c": 0.2},
    {"weight": 0.0},
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=[*DENSE_SCHEDULES, "stairs"])
@pytest.mark.parametrize("matrix", ["wide", "tall"])
@pytest.mark.parametrize("knobs", KNOBS, ids=str)
def test_csgm(schedule, matrix, knobs):
    assert_agrees("csgm", knobs, matrix, 0.1, schedule)


@pytest.mark.parametrize(
    ("knobs", "wrong"),
    [
        ({}, {"c": 0.1001}),
        ({}, {"gamma": 1.001}),
        ({"likelihood": "matched"}, {"likelihood": "matched", "weight": 1.001}),
        ({}, {"likelihood": "matched"}),
    ],
)
def test_a_knob_off_by_a_little_is_seen(knobs, wrong):
    schedule = VE(STEPS, 2.0, 0.1)
    got, want = compare("csgm", wrong, "benign", 0.1, schedule, library_knobs=knobs)
    assert np.abs(got - want).max() > 1e-6


# ---- the scalar oracle


def recursion(schedule, gain, c, weight=1.0, gamma=1.0, sigma_y=SIGMA_Y):
    """u' = u + b ((D - u) / v^2 + w s (y - s u) / (gamma^2 v^2 + sigma_y^2)) + sqrt(2 b) z."""
    m, V = 0.0, schedule.levels()[0].sigma ** 2
    for t, _ in pairs(schedule):
        b = c * t.sigma**2
        pull = weight / ((gamma * t.sigma) ** 2 + sigma_y**2)
        own = 1 + b * ((shrink(Level(1.0, t.sigma)) - 1) / t.sigma**2 - pull * gain**2)
        m, V = own * m + b * pull * gain * (gain or 1.0), own**2 * V + 2 * b
        yield Moments(m, V)


@each_gain
@each_schedule
def test_csgm_follows_its_recursion(schedule, gain):
    """The likelihood form: the matched one divides by norms, and is not affine in (y, noise)."""
    for c, weight, gamma in ((0.1, 1.0, 1.0), (0.4, 0.5, 2.0)):
        solver = CSGM(c=c, weight=weight, gamma=gamma, schedule=schedule)
        assert_follows(solver, gain, SIGMA_Y, recursion(schedule, gain, c, weight, gamma))


def error(gain, steps, sigma_min, weight=1.0):
    """Largest error of mean and variance, against the posterior of x0 ~ N(0, 1)."""
    *_, last = recursion(VE(steps, 1.232, sigma_min), gain, 0.1, weight)
    exact = gain**2 / (gain**2 + SIGMA_Y**2)
    return max(abs(last.mean - exact), abs(last.variance - (1 - exact)))


@pytest.mark.parametrize("gain", GAINS)
def test_it_approaches_the_posterior_as_the_budget_grows(gain):
    """More steps and a lower last level: the error more than halves from budget to budget."""
    errors = [error(gain, n, s) for n, s in ((150, 0.1), (1200, 0.03), (9600, 0.01))]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert CSGM().claim == "asymptotic" and CSGM(likelihood="matched").claim == "heuristic"


@pytest.mark.parametrize("gain", [1.0, 0.25])  # weaker ones have not settled by then
def test_another_likelihood_approaches_another_posterior(gain):
    """Negative twin: with the likelihood counted twice, the error stays."""
    exact = gain**2 / (gain**2 + SIGMA_Y**2)
    twice = 2 * gain**2 / (2 * gain**2 + SIGMA_Y**2)
    floor = abs(twice - exact)
    assert error(gain, 9600, 0.01, weight=2.0) > 0.7 * floor > error(gain, 9600, 0.01)


def test_the_recursion_of_the_budget_test_is_the_solvers_own():
    schedule = VE(60, 1.232, 0.03)
    *_, last = recursion(schedule, 0.25, 0.1)
    assert final(CSGM(schedule=schedule), 0.25) == pytest.approx(last, rel=1e-10)


# ---- the official configuration, and what it does


def test_the_official_schedule():
    """Levels after index 1155 of 2311, 3 or 4 steps at each: 3465 and 3975 evaluations."""
    grid = np.exp(np.linspace(np.log(232), np.log(0.0066), 2311))[1156:]
    assert grid[0] == pytest.approx(1.232, abs=5e-4)
    for late, total in ((3, 3465), (4, 3975)):
        solver = CSGM.official(late)
        held = [3] * (1800 - 1155) + [late] * (2310 - 1800)
        assert solver.num_steps == sum(held) == total
        found = [level.sigma for level in solver.levels[:-1]]
        np.testing.assert_allclose(found, np.repeat(grid, held), rtol=1e-12)
    assert round(solver.c, 3) == 1.148
    b = 5e-5 * (found[0] / found[-1]) ** 2  # lr (sigma_i / sigma_L)^2
    assert solver.c * found[0] ** 2 == pytest.approx(b)
    assert (solver.weight, solver.likelihood) == (5.0, "matched")


def spread(c):
    """Standard deviation of a long chain at sigma = 0.5, x0 = 0 for certain, over 200 x 200."""
    x_shape = (1, 200, 200)
    problem = Problem(torch.zeros(1, *x_shape), Identity(), GaussianNoise(0.1), x_shape)
    solver = CSGM(c=c, weight=0.0, schedule=Stairs(80, 0.5, 0.5, hold=80, late_hold=80))
    certain = Denoiser(lambda x, sigma: 0 * x)
    return float(states(solver, problem, certain, Rng.of([3]))[-1].x.std())


@pytest.mark.parametrize(("c", "factor"), [(1.148, 2.35), (0.1, 1.05)])
def test_how_much_too_wide_a_step_makes_a_normal_law(c, factor):
    """2 / (2 - c) times its variance: 2.35 in the official code, 5 % at the default."""
    expected = 0.5 * math.sqrt(2 / (2 - c))
    assert spread(c) == pytest.approx(expected, abs=5 * expected / math.sqrt(2 * 200 * 200))
    assert round(2 / (2 - c), 2) == factor


def small(sigma_y=0.1, scale=1.0):
    mask = seeded(1, 1, 6, 5, seed=3) > 0
    A = Fourier(mask.double()) if scale == 1 else Identity()
    truth = seeded(2, 2, 6, 5)
    return Problem(A(truth) * scale, A, GaussianNoise(sigma_y), (2, 6, 5))


PRIOR_ = Denoiser(lambda x, sigma: 0.3 * x / (0.3 + sigma**2))


def test_norm_matching_is_no_likelihood():
    """It does not know how noisy y is; the likelihood does."""
    schedule = VE(10, 1.2, 0.1)
    for likelihood, same in (("matched", True), ("score", False)):
        solver = CSGM(likelihood=likelihood, schedule=schedule)
        a, b = (solve(small(s), PRIOR_, solver).samples for s in (0.05, 0.5))
        assert torch.equal(a, b) == same


def test_matched_steps_have_the_length_of_the_score():
    """In closed form: |data term| = weight |score|, for every sample by itself."""
    problem = small()
    x = seeded(2, 2, 6, 5, seed=8) * torch.tensor([1.0, 30.0]).reshape(2, 1, 1, 1)
    score = (PRIOR_.denoise(x, 0.7) - x) / 0.49
    g = problem.A.vjp(x, problem.residual(x))
    found = CSGM(likelihood="matched")._data_term(g, score, problem, 0.7)
    for row in range(2):
        assert float(found[row].norm()) == pytest.approx(float(score[row].norm()))
        torch.testing.assert_close(found[row] / found[row].norm(), g[row] / g[row].norm())
    zero = CSGM(likelihood="matched")._data_term(0 * g, score, problem, 0.7)
    assert not zero.any()


def test_weight_0_is_plain_annealed_langevin_dynamics():
    """Bit for bit; and y makes no difference."""
    solver = CSGM(weight=0.0, schedule=VE(6, 1.2, 0.1))
    problem, rng = small(), Rng.of([5, 6])
    x = 1.2 * rng.at(-1).normal(problem.x_like, "init")
    ours = states(solver, problem, PRIOR_, rng)
    for k, level in enumerate(solver.levels[:-1]):
        assert torch.equal(ours[k].x, x)
        score = (PRIOR_.denoise(x, level.sigma) - x) / level.sigma**2
        b = 0.1 * level.sigma**2
        x = x + b * (score + 0.0 * x) + math.sqrt(2 * b) * rng.at(k).normal(x, "step")
    assert torch.equal(ours[-1].x, x)
    other = dataclasses.replace(problem, y=2 * problem.y)
    assert torch.equal(states(solver, other, PRIOR_, rng)[-1].x, x)


def test_costs_and_the_last_denoising():
    for final_, evaluations in (("none", 6), ("denoised", 7)):
        counted = Counted(PRIOR_)
        solver = CSGM(final=final_, schedule=VE(6, 1.2, 0.1))
        result = solve(small(), counted, solver)
        assert (result.nfe, result.vjps) == (evaluations, 0)
    plain = solve(small(), PRIOR_, CSGM(schedule=VE(6, 1.2, 0.1))).samples
    torch.testing.assert_close(result.samples, PRIOR_.denoise(plain, 0.1))


def test_stairs_hold_every_level_and_fill_any_number_of_steps():
    for n in range(1, 40):
        schedule = Stairs(n, 10.0, 0.1, hold=2, late_hold=5, late_sigma=1.0)
        found = [level.sigma for level in schedule.levels()]
        assert len(found) == n + 1 and found[-1] == 0 and sorted(found, reverse=True) == found
        held = [found.count(s) for s in sorted(set(found[:-1]), reverse=True)]
        wanted = [5 if s < 1 else 2 for s in sorted(set(found[:-1]), reverse=True)]
        assert held[1:] == wanted[1:] and 1 <= held[0] <= wanted[0]
    assert [s.sigma for s in Stairs(3, 8.0, 1.0, hold=1, late_hold=1).levels()] == [
        s.sigma for s in VE(3, 8.0, 1.0).levels()
    ]


def test_samples_of_the_matched_form_do_not_interact():
    """The chain of one row is that row of a batch: the norms of the matched form are its own."""
    solver = CSGM(likelihood="matched", weight=5.0, schedule=VE(4, 1.2, 0.1))
    both = states(solver, small(), PRIOR_, Rng.of([5, 6]))[-1].x
    alone = states(solver, small().rows(torch.tensor([1])), PRIOR_, Rng.of([6]))[-1].x
    assert torch.equal(both[1:], alone)
