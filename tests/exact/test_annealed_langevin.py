"""Annealed Langevin dynamics: Xun, Gupta, Price 2025, Algorithm 1."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from dense import (
    PRIOR,
    SHAPE,
    STEPS,
    VP_SCHEDULE,
    Task,
    assert_agrees,
    compare,
    ddim,
    on_matrices,
    transcription,
)

from helpers import Dense
from invdiff.core import InvdiffError, Level
from invdiff.core.schedules import VE, Karras
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra.krylov import inverse_squared_norm
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.sampling.solver import Solver
from invdiff.solvers.annealed_langevin import AnnealedLangevin
from invdiff.solvers.mmps import MMPS

SMALL = {"start": 0.5, "rounds": 2, "sigma": 0.3, "c": 0.3, "final": "none"}


@transcription("annealed-langevin")
def annealed_langevin(t: Task, levels, rounds=10, first=1.0, sigma=0.1, c=0.5, final="denoised"):
    """levels: (a, s) of the prior's own sampler, where x starts."""
    A, x, count = t.A, levels[0][1] * t.z(-1, "init"), len(levels) - 1
    for i, (a, s) in enumerate(levels[:-1]):
        b, r = levels[i + 1]
        x = ddim(x, PRIOR.D(x, a, s), a, s, b, r, t.z(i, "step"), 1.0)
    norm2 = 1 / float(
        inverse_squared_norm(Dense(torch.tensor(A), SHAPE), torch.zeros(1, *SHAPE).double())
    )
    assert 0.99 < norm2 / np.linalg.norm(A, 2) ** 2 < 1.0001
    left = len(t.moves) - count
    rounds = min(rounds, left)
    top = max(first * norm2**0.5, t.sigma_y)
    etas = np.geomspace(top, t.sigma_y, rounds) if rounds > 1 else np.array([t.sigma_y])
    y, last = t.y, -1
    for k in range(left):
        i = k * rounds // left
        if i != last:
            z, noise = t.z(count + k, "measurement", (len(A),)), t.sigma_y**2
            if i == 0:
                y = t.y + np.sqrt(etas[0] ** 2 - noise) * z
            else:
                far, near = etas[i - 1] ** 2 - noise, etas[i] ** 2 - noise
                share = near / far if far > 0 else 0.0
                y = t.y + share * (y - t.y) + np.sqrt(share * (far - near)) * z
            last = i
        score = (PRIOR.D(x, 1.0, sigma) - x) / sigma**2 + A.T @ (y - A @ x) / etas[i] ** 2
        b = c / (1 / sigma**2 + norm2 / etas[i] ** 2)
        x = x + b * score + np.sqrt(2 * b) * t.z(count + k, "step")
    return x if final == "none" else PRIOR.D(x, 1.0, sigma)


def both(schedule, knobs):
    """Knobs of the transcription and of the library; the base takes half of the steps."""
    base = dataclasses.replace(schedule, steps=round(SMALL["start"] * STEPS))
    own = {k: v for k, v in knobs.items() if k != "start"}
    return own | {"levels": [(level.a, level.s) for level in base.levels()]}, knobs


@pytest.mark.parametrize("schedule", [VP_SCHEDULE, VE(STEPS, 20.0, 0.02)], ids=["vp", "ve"])
@on_matrices
@pytest.mark.parametrize(
    "more", [{}, {"rounds": 9, "c": 0.1}, {"rounds": 1}, {"first": 0.01, "rounds": 3}], ids=str
)
def test_transcription(schedule, matrix, more):
    own, library = both(schedule, SMALL | more)
    assert_agrees("annealed-langevin", own, matrix, 0.5, schedule, library_knobs=library)


@pytest.mark.parametrize("wrong", [{"first": 1.001}, {"c": 0.301}, {"sigma": 0.301}], ids=str)
def test_a_knob_off_by_a_little_is_seen(wrong):
    own, library = both(VP_SCHEDULE, SMALL | wrong)
    del own["levels"]
    own, _ = both(VP_SCHEDULE, SMALL)
    got, want = compare("annealed-langevin", own, "wide", 0.5, VP_SCHEDULE, library_knobs=library)
    assert np.abs(got - want).max() > 1e-6


def law(solver: Solver) -> tuple[torch.Tensor, torch.Tensor]:
    """Covariance and mean of 2000 samples, (2, 3), and those of the posterior of images with the
    noise that Langevin steps have, for two pixels of which a sum is measured."""
    shape, A = (1, 1, 2), torch.tensor([[1.0, 0.6]], dtype=torch.float64)
    mean, sigma = torch.full(shape, 0.3, dtype=torch.float64), getattr(solver, "sigma", 0.0)
    y = torch.tensor([[1.5]], dtype=torch.float64)
    problem = Problem(y, Dense(A, shape), GaussianNoise(0.3), shape)
    x = solve(problem, GaussianPrior(mean, 0.81), solver, samples=2000).samples.reshape(2000, 2)
    exact = GaussianPrior(mean, 0.81 + sigma**2).posterior(problem)
    found = torch.cat([x.T.cov(), x.mean(0)[:, None]], 1)
    return found, torch.cat([exact.covs[0], exact.means[0].reshape(2, 1)], 1)


LONG = {"sigma": 0.3, "c": 0.1, "final": "none", "schedule": Karras(900, 10.0, 0.02)}


def test_it_ends_at_the_posterior_of_a_normal_law():
    """Mean and covariance in closed form, within three standard errors of 2000 samples."""
    found, exact = law(AnnealedLangevin(start=0.03, rounds=5, **LONG))
    assert (found - exact).abs().max() < 3 * exact[:, :2].diagonal().max() * (2 / 2000) ** 0.5


def test_it_mends_what_its_base_has_wrong():
    """Moment matching of 4 steps has too little variance; Langevin steps after it do not."""
    before, exact = law(MMPS(schedule=Karras(4, 10.0, 0.02)))
    assert before.trace() < 0.6 * exact.trace()
    found, exact = law(AnnealedLangevin(MMPS(), start=0.003, rounds=1, **LONG))
    assert (found - exact).abs().max() < 3 * exact[:, :2].diagonal().max() * (2 / 2000) ** 0.5


def test_a_base_with_weights_is_refused():
    with pytest.raises(InvdiffError, match="without weights"):
        AnnealedLangevin(base=MMPS(weights=True))


def test_the_last_noise_is_taken_off():
    shape = (1, 1, 2)
    prior = GaussianPrior(torch.full(shape, 0.3, dtype=torch.float64), 0.81)
    problem = Problem(
        torch.tensor([[1.5]]).double(),
        Dense(torch.ones(1, 2).double(), shape),
        GaussianNoise(0.3),
        shape,
    )
    noisy, clean = (
        solve(problem, prior, AnnealedLangevin(final=final), samples=2).samples
        for final in ("none", "denoised")
    )
    torch.testing.assert_close(clean, prior.x0(noisy[0], Level(1.0, 0.1))[None])
