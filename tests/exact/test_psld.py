"""PSLD: a second version in numpy, its limits, and what it is in the space of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense import MATRICES, SCHEDULES, SHAPE, VP_SCHEDULE, ddim, transcription
from latents import LatentTask, assert_agrees, compare, latent_prior

from helpers import Dense, seeded, seeds, states
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP
from invdiff.noise import GaussianNoise
from invdiff.priors.latent import in_latent_space
from invdiff.problem import Problem
from invdiff.sampling.needs import IncompatibleError
from invdiff.sampling.run import solve
from invdiff.solvers.dps import DPS
from invdiff.solvers.psld import PSLD


@transcription("psld")
def psld(t: LatentTask, omega=1.0, gamma=0.1, eta_ddim=0.0):
    """Rout et al. 2023, Algorithm 2 with norms: the gradient of each by the chain rule."""
    z = t.start()
    for i, a, s, b, r in t.moves:
        z0 = t.z0(z, a, s)
        x0, JD = t.decode(z0), t.decode_jacobian(z0)
        rest = t.A @ x0 - t.y
        misfit = JD.T @ t.A.T @ rest / np.linalg.norm(rest)
        project = np.eye(len(x0)) - t.A.T @ t.A
        known = t.A.T @ t.y + project @ x0
        gap = z0 - t.encode(known)
        d_gap = np.eye(len(z0)) - t.encode_jacobian(known) @ project @ JD
        glue = d_gap.T @ gap / np.linalg.norm(gap)
        new = ddim(z, z0, a, s, b, r, t.z(i, "step"), eta_ddim)
        z = new - t.gain(a, s).T @ (omega * misfit + gamma * glue)
    return z


@pytest.mark.parametrize("straight", [True, False], ids=["linear", "tanh"])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(
    "knobs", [{}, {"omega": 0.3, "gamma": 0.7, "eta_ddim": 1.0}, {"omega": 0.0}], ids=str
)
def test_transcription(schedule, knobs, straight):
    for matrix in ("wide", "benign"):
        assert_agrees("psld", knobs, matrix, 0.1, schedule, straight)


@pytest.mark.parametrize("wrong", [{"gamma": 0.11}, {"omega": 0.99}, {"eta_ddim": 0.01}], ids=str)
def test_a_wrong_knob_is_seen(wrong):
    got, want = compare("psld", {}, "wide", 0.1, VP_SCHEDULE, False, library_knobs=wrong)
    assert np.abs(got - want).max() > 1e-5


def problem(matrix: str = "benign") -> Problem:
    A = MATRICES[matrix]
    return Problem(seeded(3, len(A)), Dense(torch.tensor(A), SHAPE), GaussianNoise(0.1), SHAPE)


def test_without_glue_it_is_dps_on_latents():
    """The same up to round-off: the decoder's Jacobian is applied to A^T u, not to a scaled r."""
    prior, schedule = latent_prior(straight=False), VP(9)
    posed = in_latent_space(problem(), prior)
    rng = Rng.of(seeds(3))
    mine = states(PSLD(omega=0.5, gamma=0.0, schedule=schedule), posed, prior, rng)
    theirs = states(DPS(zeta=0.5, eta_ddim=0.0, schedule=schedule), posed, prior, rng)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=1e-12, atol=1e-12)


def test_a_measurement_that_is_met_has_no_misfit():
    """With y = A D(z0) the norm is 0, where its gradient is taken as 0; the glue is still there."""
    prior = latent_prior(straight=True)
    posed = in_latent_space(problem(), prior)
    solver = PSLD(schedule=VP(1))
    state = solver.init(posed, prior, Rng.of(seeds(3)).at(-1))
    z0 = prior.x0(state.x, solver.levels[0])
    x0 = posed.latent.inner(z0)
    fitting = Problem(posed.latent.outer(x0), posed.A, posed.noise, posed.x_shape)
    moved = solver.step(state, fitting, prior, Rng.of(seeds(3)).at(0))
    plain = PSLD(omega=0.0, schedule=VP(1)).step(state, fitting, prior, Rng.of(seeds(3)).at(0))
    torch.testing.assert_close(moved.x, plain.x)
    free = PSLD(omega=0.0, gamma=0.0, schedule=VP(1))
    free = free.step(state, fitting, prior, Rng.of(seeds(3)).at(0))
    assert moved.x.isfinite().all() and (moved.x - free.x).abs().max() > 1e-3


def test_what_it_needs():
    image_prior = latent_prior(True).prior
    with pytest.raises(
        IncompatibleError, match="psld cannot solve Dense: it needs an autoencoder "
    ):
        solve(problem(), image_prior, PSLD(schedule=VP(2)))
