"""LATINO: a second version in numpy, and its proximal step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense import SCHEDULES, SHAPE, VP_SCHEDULE, D, transcription
from latents import LatentTask, assert_agrees, compare, latent_prior

from helpers import seeded, seeds, states
from invdiff.core.rng import Rng
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.operators import Identity
from invdiff.priors.latent import LatentPrior, in_latent_space
from invdiff.problem import Problem
from invdiff.sampling.needs import IncompatibleError
from invdiff.sampling.run import solve
from invdiff.solvers.latino import LATINO


@transcription("latino")
def latino(t: LatentTask, delta=1.0, clip=False):
    """The proximal step is the stationary point of its two quadratic terms."""
    z = t.start()
    for i, a, s, b, r in t.moves:
        x = t.decode(t.z0(z, a, s))
        x = np.clip(x, -1, 1) if clip else x
        v = delta * (1 - a**2 / (a**2 + s**2))
        H = t.A.T @ t.A / t.sigma_y**2 + np.eye(D) / v
        x = np.linalg.solve(H, t.A.T @ t.y / t.sigma_y**2 + x / v)
        x = np.clip(x, -1, 1) if clip else x
        z = b * t.encode(x) + (r * t.z(i, "step") if r else 0)
    return z


@pytest.mark.parametrize("straight", [True, False], ids=["linear", "tanh"])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("knobs", [{}, {"delta": 0.1, "clip": True}], ids=str)
def test_transcription(schedule, knobs, straight):
    for matrix in ("wide", "tall", "benign"):
        assert_agrees("latino", knobs, matrix, 0.1, schedule, straight)


@pytest.mark.parametrize("wrong", [{"delta": 1.01}, {"clip": True}], ids=str)
def test_a_wrong_knob_is_seen(wrong):
    got, want = compare("latino", {}, "wide", 0.1, VP_SCHEDULE, False, library_knobs=wrong)
    assert np.abs(got - want).max() > 1e-5


def test_steps_are_the_official_ones():
    """999, 874, ..., 124 of a table of 1000, and the clean image."""
    assert LATINO().schedule.indices() == list(range(999, 0, -125))


def test_delta_0_ignores_y_and_a_large_one_meets_it():
    prior, A = latent_prior(straight=True), Identity()
    lossless = LatentPrior(prior.prior, Identity(), Identity())
    y = seeded(2, 1, 3, 3)
    problem = in_latent_space(Problem(y, A, GaussianNoise(0.1), (1, 3, 3)), lossless)
    other = Problem(2 * y, problem.A, problem.noise, problem.x_shape)
    rng = Rng.of(seeds(2))
    blind = [states(LATINO(delta=0.0), p, lossless, rng)[-1].x for p in (problem, other)]
    assert torch.equal(*blind)
    close = states(LATINO(delta=1e12), problem, lossless, rng)[-1].x
    torch.testing.assert_close(close, y, rtol=1e-9, atol=1e-9)


def test_it_needs_noise():
    """Without noise the weight of the misfit is infinite."""
    problem = Problem(seeded(1, *SHAPE), Identity(), NOISELESS, SHAPE)
    with pytest.raises(IncompatibleError, match="latino .* a noise level above 0"):
        solve(problem, latent_prior(True), LATINO())
