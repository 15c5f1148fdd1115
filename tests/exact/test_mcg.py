"""MCG: a second version in numpy, a closed form, and the defects of the official code."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from dense import (
    LIBRARY_PRIOR,
    MATRICES,
    PRIOR,
    ROWS,
    SEEDS,
    SHAPE,
    VP_SCHEDULE,
    D,
    Task,
    ancestral,
    assert_agrees,
    compare,
    on_schedules,
    transcription,
)
from scalar import Moments, assert_follows, each_gain, each_schedule, pairs, shrink
from scalar import ancestral as bridge

from helpers import Dense, seeded, states
from invdiff.core import batch_norm
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, VP
from invdiff.noise import GaussianNoise
from invdiff.operators import Grayscale, Inpaint, Radon, sparse_view
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.run import solve
from invdiff.solvers.mcg import MCG
from invdiff.solvers.replacement import Replacement


@transcription("mcg")
def mcg(
    t: Task,
    rho=1.0,
    weight="identity",
    lam=1.0,
    lam_drop=0.0,
    known_level="next",
    final="clean",
):
    """Chung et al. 2022: the gradient of |W r| is written out from W^T W, for a linear denoiser."""
    pinv = np.linalg.pinv(t.A)
    W = pinv if weight == "pinv" else np.eye(len(t.A))
    off = np.eye(D) - pinv @ t.A
    x, last = t.start(), len(t.moves) - 1
    for i, a, s, b, r in t.moves:
        x0 = PRIOR.D(x, a, s)
        rest = t.y - t.A @ x0
        grad = -PRIOR.J(a, s).T @ t.A.T @ W.T @ W @ rest / np.sqrt(rest @ W.T @ W @ rest)
        new = ancestral(x, x0, a, s, b, r, t.z(i, "step")) - rho * off @ grad
        scale, noise = {"next": (b, r), "current": (a, s), "clean": (b, 0)}[known_level]
        if i == last and final == "clean":
            scale, noise = 1, 0
        given = scale * t.y + noise * t.A @ t.z(i, "known")
        x = new + (lam - lam_drop * i / last) * pinv @ (given - t.A @ new)
    return x


@on_schedules
@pytest.mark.parametrize("matrix", ["tall", "benign"])
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"weight": "pinv", "rho": 0.3},
        {"lam": 0.7, "known_level": "current", "final": "none"},
        {"lam_drop": 0.4, "known_level": "clean", "rho": 0.1},
        {"known_level": "current"},
    ],
    ids=str,
)
def test_mcg(schedule, matrix, knobs):
    assert_agrees("mcg", knobs, matrix, 0.1, schedule)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rho": 1.001},
        {"weight": "pinv"},
        {"lam": 0.999},
        {"lam_drop": 0.001},
        {"known_level": "current"},
        {"known_level": "clean"},
    ],
    ids=str,
)
def test_a_knob_off_by_a_little_is_seen(wrong):
    """Negative twin."""
    got, want = compare("mcg", wrong, "benign", 0.1, VP_SCHEDULE, library_knobs={})
    assert np.abs(got - want).max() > 1e-6


def recursion(schedule, gain, lam, lam_drop, known_level):
    """With rho = 0: x_u = ancestral, then x <- (1 - l) x + l (a y/s + s z), l from lam down."""
    m, V = 0.0, schedule.levels()[0].s ** 2
    steps = pairs(schedule)
    for i, (t, u) in enumerate(steps):
        p, q, std = bridge(t, u)
        own = p * shrink(t) + q
        m, V = own * m, own**2 * V + std**2
        if gain:
            part = lam - lam_drop * i / (len(steps) - 1)
            a, s = {"next": (u.a, u.s), "current": (t.a, t.s), "clean": (u.a, 0)}[known_level]
            m = (1 - part) * m + part * a
            V = (1 - part) ** 2 * V + (part * s) ** 2
        yield Moments(m, V)


@pytest.mark.parametrize(
    ("lam", "lam_drop", "known_level"), [(1.0, 0.4, "clean"), (0.6, 0.0, "current")]
)
@each_gain
@each_schedule
def test_mcg_follows_its_recursion(schedule, gain, lam, lam_drop, known_level):
    """At rho = 0: the gradient of a norm is not affine. One pixel is either measured, where the
    overwrite undoes the gradient, or it is not, and has none: the next test."""
    solver = MCG(
        0.0, lam=lam, lam_drop=lam_drop, known_level=known_level, final="none", schedule=schedule
    )
    assert_follows(solver, gain, 0.0, recursion(schedule, gain, lam, lam_drop, known_level))


@each_gain
def test_the_gradient_acts_off_the_data_only(gain):
    """A scalar is all data, or all unknown: rho changes nothing, to round-off."""
    schedule = VP(20)
    free = MCG(0.0, lam=0.5, final="none", schedule=schedule)
    solver = dataclasses.replace(free, rho=3.0)
    assert_follows(solver, gain, 0.0, recursion(schedule, gain, 0.5, 0.0, "next"))


# ---- the gradient: of the norm, to y itself, one row at a time


def one_step(solver, problem, prior, rho):
    """x after the first step from the same start and noise."""
    rng = Rng.of(SEEDS[: problem.batch])
    solver = dataclasses.replace(solver, rho=rho)
    state = solver.init(problem, prior, rng.at(-1))
    return state.x, solver.step(state, problem, prior, rng.at(0)).x


def coupled(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """A nonlinear denoiser of 1 x 4 x 4 images in which every pixel depends on all others."""
    mixed = x.flatten(1) @ (torch.eye(16).double() + 0.1 * seeded(16, 16, seed=3))
    return torch.tanh(mixed / (1 + sigma)).reshape(x.shape)


@pytest.mark.parametrize("weight", ["identity", "pinv"])
def test_the_step_is_the_finite_difference_of_the_norm(weight):
    """rho (I - A^+ A) grad |W (y - A x0)| by central differences of the norm, y not noised."""
    A, prior = Dense(torch.tensor(MATRICES["benign"]), SHAPE), Denoiser(coupled)
    problem = Problem(seeded(1, 6), A, GaussianNoise(0.0), SHAPE)
    solver = MCG(weight=weight, lam=0.0, schedule=VP(10))
    top, h = solver.levels[0], 1e-6

    def misfit(y, x):
        r = y - A(prior.x0(x, top))
        return batch_norm(A.pinv(r) if weight == "pinv" else r).flatten()

    def expected(y):
        bumps = h * torch.eye(16).double().reshape(16, *SHAPE)
        grad = (misfit(y, x + bumps) - misfit(y, x - bumps)) / (2 * h)
        grad = grad.reshape(1, *SHAPE)
        return grad - A.pinv(A(grad))

    x, plain = one_step(solver, problem, prior, 0.0)
    _, moved = one_step(solver, problem, prior, 1.0)
    torch.testing.assert_close(plain - moved, expected(problem.y), rtol=0, atol=1e-7)
    # a gradient to the noised target, as the official colourisation has it, would be another one
    noised = top.a * problem.y + top.s * A(seeded(1, *SHAPE, seed=5))
    assert (plain - moved - expected(noised)).abs().max() > 1e-2


@pytest.mark.parametrize("A", [Grayscale(), Inpaint.box((4, 4), 1, 1, 2, 2)])
def test_the_gradient_does_not_leak_into_known_channels(A):
    """The official colourisation mixes two bases, so that its gradient changes the known grey."""
    prior = Denoiser(lambda x, s: torch.tanh((x.flip(1, 3) + x.roll(1, 2)) / (1 + s)))
    problem = Problem(A(seeded(2, 3, 4, 4)), A, GaussianNoise(0.0), (3, 4, 4))
    solver = MCG(lam=0.0, schedule=VP(10))
    _, plain = one_step(solver, problem, prior, 0.0)
    _, moved = one_step(solver, problem, prior, 1.0)
    assert (moved - plain).abs().max() > 1e-3
    torch.testing.assert_close(A(moved), A(plain), rtol=0, atol=1e-14)


def test_a_row_has_a_norm_of_its_own():
    """One norm over the batch, as in the official code, would couple the rows."""
    A = Dense(torch.tensor(MATRICES["benign"]), SHAPE)
    y = torch.stack([seeded(6), 100 * seeded(6, seed=1), seeded(6, seed=2)])
    problem = Problem(y, A, GaussianNoise(0.0), SHAPE)
    together = states(MCG(schedule=VP_SCHEDULE), problem, LIBRARY_PRIOR, Rng.of(SEEDS))[-1].x
    for row in range(ROWS):
        alone = problem.rows(torch.tensor([row]))
        own = states(MCG(schedule=VP_SCHEDULE), alone, LIBRARY_PRIOR, Rng.of(SEEDS[row : row + 1]))[
            -1
        ].x
        torch.testing.assert_close(own[0], together[row], rtol=1e-12, atol=1e-12)


# ---- the overwrite: its level, and noise in y


MASK = Inpaint.box((4, 4), 1, 0, 2, 3)
KNOWN = MASK.mask.expand(200, 1, 4, 4)


def last(solver, sigma_y=0.0):
    """200 samples for y = 0.3 + sigma_y n on the known pixels of a 4 x 4 image."""
    prior = Denoiser(lambda x, s: 0.5 * (x + x.mean((2, 3), keepdim=True)) / (1 + s**2))
    y = MASK(torch.full((200, 1, 4, 4), 0.3).double() + sigma_y * seeded(200, 1, 4, 4))
    problem = Problem(y, MASK, GaussianNoise(sigma_y), SHAPE)
    return states(solver, problem, prior, Rng.of(range(200)))[-1].x - y


def test_the_result_holds_y_itself():
    for known_level in ("next", "current", "clean"):
        assert last(MCG(known_level=known_level, schedule=VP(30)))[KNOWN].abs().max() < 1e-15


def test_the_official_overwrite_leaves_its_noise_in_the_result():
    """Level 0 of the table has s = 0.01: known pixels of the result scatter by it, around a y.

    Standard errors: of a variance of n draws, sqrt(2 / n) of it; of a mean, s / sqrt(n)."""
    schedule = VP(30)
    found = last(MCG(known_level="current", final="none", schedule=schedule))[KNOWN]
    level, n = schedule.levels()[-2], found.numel()
    assert level.s == pytest.approx(0.01)
    assert abs(found.var() / level.s**2 - 1) < 5 * math.sqrt(2 / n)
    assert abs(found.mean() - (level.a - 1) * 0.3) < 5 * level.s / math.sqrt(n)


def test_noise_in_y_is_copied_into_the_result():
    """It is not denoised: why DPS followed. The known pixels of the result are y, noise and all."""
    assert last(MCG(schedule=VP(30)), sigma_y=0.2)[KNOWN].abs().max() < 1e-15


# ---- equal to others where it must be


@on_schedules
def test_without_gradient_it_is_replacement(schedule):
    A = Dense(torch.tensor(MATRICES["benign"]), SHAPE)
    problem = Problem(seeded(ROWS, 6), A, GaussianNoise(0.0), SHAPE)
    ours = MCG(rho=0.0, schedule=schedule)
    theirs = Replacement(corrector_steps=0, schedule=schedule)
    rng = Rng.of(SEEDS)
    start = ours.init(problem, LIBRARY_PRIOR, rng.at(-1))
    for k in range(ours.num_steps):
        a = ours.step(start, problem, LIBRARY_PRIOR, rng.at(k))
        start = dataclasses.replace(start, step=k)
        b = theirs.step(start, problem, LIBRARY_PRIOR, rng.at(k))
        assert torch.equal(a.x, b.x)
        start = a


def test_with_a_full_overwrite_the_projection_is_redundant():
    """x' - rho g overwritten is x' - rho (I - A^+ A) g overwritten: the docstring's claim."""
    A = Dense(torch.tensor(MATRICES["wide"]), SHAPE)
    g, x, z = (seeded(1, *SHAPE, seed=k) for k in range(3))
    problem = Problem(seeded(1, 7), A, GaussianNoise(0.0), SHAPE)
    level = VP_SCHEDULE.levels()[3]
    full = steps.replace(x - g, problem, level, z)
    projected = steps.replace(x - (g - A.pinv(A(g))), problem, level, z)
    torch.testing.assert_close(full, projected, rtol=0, atol=1e-12)
    part = steps.replace(x - g, problem, level, z, 0.5)
    assert (part - steps.replace(x - (g - A.pinv(A(g))), problem, level, z, 0.5)).abs().max() > 0.1


def test_costs():
    A = Radon(sparse_view(4), (8, 8), cg_iterations=3)
    problem = Problem(A(seeded(1, 1, 8, 8)), A, GaussianNoise(0.0), (1, 8, 8))
    for solver in (MCG(schedule=VP(4)), MCG(rho=0.1, weight="pinv", schedule=VE(4, 10.0))):
        result = solve(problem, Denoiser(lambda x, s: x / (1 + s**2)), solver)
        assert (result.nfe, result.vjps) == (4, 4)
