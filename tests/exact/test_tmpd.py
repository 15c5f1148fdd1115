"""TMPD: Boys et al. 2023, row sums in place of a matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense import (
    PRIOR,
    VP_SCHEDULE,
    Task,
    assert_agrees,
    compare,
    ddim,
    on_matrices,
    on_schedules,
    transcription,
)

from helpers import seeded
from invdiff.core.schedules import VE
from invdiff.noise import GaussianNoise
from invdiff.operators import Inpaint
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.solvers.mmps import MMPS
from invdiff.solvers.tmpd import TMPD


@transcription("tmpd")
def tmpd(t: Task, eta_ddim=1.0):
    A, x = t.A, t.start()
    for i, a, s, b, r in t.moves:
        x0, V = PRIOR.D(x, a, s), PRIOR.cov(a, s)
        total = np.maximum((A @ V @ A.T).sum(1), 0) + t.sigma_y**2
        x0 = x0 + V @ A.T @ ((t.y - A @ x0) / total)
        x = ddim(x, x0, a, s, b, r, t.z(i, "step"), eta_ddim)
    return x


@on_schedules
@on_matrices
@pytest.mark.parametrize("knobs", [{}, {"eta_ddim": 0.3}], ids=str)
def test_transcription(schedule, matrix, knobs):
    assert_agrees("tmpd", knobs, matrix, 0.5, schedule)


def test_a_knob_off_by_a_little_is_seen():
    got, want = compare("tmpd", {"eta_ddim": 0.99}, "wide", 0.5, VP_SCHEDULE, library_knobs={})
    assert np.abs(got - want).max() > 1e-6


def test_where_pixels_are_independent_it_is_moment_matching():
    """A V A^T is diagonal there, so its row sums are all of it; with neighbours they are not."""
    shape, schedule = (1, 4, 4), VE(8, 10.0, 0.1)
    A = Inpaint.box((4, 4), 0, 0, 2, 3)
    problem = Problem(A(seeded(1, *shape)), A, GaussianNoise(0.2), shape)
    apart = Denoiser(lambda x, sigma: torch.tanh(x / (1 + sigma**2)))
    mixed = Denoiser(lambda x, sigma: (x + x.roll(1, -1) + x.roll(-1, -1)) / 3 / (1 + sigma**2))
    for prior, same in ((apart, True), (mixed, False)):
        one, two = (
            solve(problem, prior, solver).samples
            for solver in (TMPD(schedule=schedule), MMPS(30, schedule=schedule))
        )
        assert bool((one - two).abs().max() < 1e-8) == same
