"""TDS: Wu et al. 2023, and its twists, particle by particle; what it costs and when it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense import (
    PRIOR,
    VP_SCHEDULE,
    Cloud,
    ancestral,
    assert_agrees,
    assert_clouds_agree,
    cg,
    compare_clouds,
    log_normal,
    of_clouds,
    on_schedules,
)

from helpers import Dense, seeded
from invdiff.core import InvdiffError
from invdiff.core.schedules import VE
from invdiff.noise import GaussianNoise
from invdiff.operators import Identity, Inpaint, RealFourier
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.solvers.tds import TDS


@of_clouds("tds")
def tds(
    t: Cloud,
    twist="isotropic",
    threshold=0.5,
    weights=False,
    iterations=3,
    data_std=1.0,
    reach=1.0,
    kernel="ancestral",
):
    """Algorithm 1, every density whole: with all constants, and no look ahead of them."""
    A, eye = t.A, np.eye(len(t.A))
    x, lw, logZ = t.start(), np.zeros(t.n), 0.0
    for i, a, s, b, r in t.moves:
        c, V = 1 / ((a / s) ** 2 + 1 / data_std**2), PRIOR.cov(a, s)
        white = t.sigma_y**2 * eye + c * A @ A.T
        whole = t.sigma_y**2 * eye + A @ V @ A.T
        D = np.array([PRIOR.D(row, a, s) for row in x])
        R = t.y - D @ A.T
        psi = np.array([log_normal(res, whole if twist == "moments" else white) for res in R])
        if twist == "frozen":
            X = D + np.array([cg(whole, res, iterations) for res in R]) @ A @ V
        else:
            step = np.linalg.solve(whole if twist == "moments" else white, R.T).T @ A @ V
            for res, d in zip(R, step, strict=True):
                share = 1 - (r / b) ** 2 / (s / a) ** 2
                most = reach * (res @ res) / (share * res @ A @ d)
                if twist == "isotropic" and 0 < most < 1:
                    d *= most
            X = D + step
        index, lw, logZ = t.resampled(lw + psi, logZ, threshold, i)
        x, D, X, psi = x[index], D[index], X[index], psi[index]
        z, x_new = t.z(i, "step"), np.zeros_like(x)
        for k in range(t.n):
            if r == 0:
                x_new[k] = D[k] + s / a * z[k]
                lw[k] += log_normal(t.y - A @ x_new[k], t.sigma_y**2) - psi[k]
                continue
            var = float(ancestral(0.0, 0.0, a, s, b, r, 1.0)) ** 2
            plain, m, x_new[k] = (
                ancestral(x[k], mean, a, s, b, r, noise)
                for mean, noise in ((D[k], 0), (X[k], 0), (X[k], z[k]))
            )
            if kernel == "analytic":  # in x' / b: x0's own variance comes to that of the noise
                k2 = (r / b) ** 2 / (s / a) ** 2
                var = b**2 * ((r / b) ** 2 * (1 - k2) + (1 - k2) ** 2 * c)
                x_new[k] = m + np.sqrt(var) * z[k]
            lw[k] += log_normal(x_new[k] - plain, var) - log_normal(x_new[k] - m, var) - psi[k]
        x = x_new
    return t.ended(x, lw, logZ, weights, i)


KNOBS = [
    {},
    {"twist": "moments", "weights": True},
    {"twist": "frozen", "iterations": 2, "data_std": 0.7, "threshold": 0.9},
    {"data_std": 0.6, "threshold": 1.0, "weights": True, "reach": np.inf},
    {"threshold": 0.0, "weights": True, "reach": 0.2},
    {"twist": "moments", "kernel": "analytic", "data_std": 0.8, "weights": True},
    {"kernel": "analytic"},
]


@on_schedules
@pytest.mark.parametrize("knobs", KNOBS, ids=str)
def test_transcription(schedule, knobs):
    assert_clouds_agree("tds", knobs, "wide", 0.3, schedule)


@pytest.mark.parametrize("matrix", ["wide", "tall"])
def test_a_row_alone_is_a_cloud_of_one(matrix):
    assert_agrees("tds", {}, matrix, 0.2, VP_SCHEDULE)


@pytest.mark.parametrize(
    ("knobs", "wrong"),
    [
        ({"weights": True}, {"weights": True, "data_std": 1.001}),
        ({"threshold": 1.0}, {"threshold": 0.0}),
        ({"twist": "moments"}, {"twist": "frozen"}),
        ({"reach": 0.2}, {"reach": 0.201}),
        ({"kernel": "analytic"}, {"kernel": "ancestral"}),
    ],
    ids=str,
)
def test_a_knob_off_by_a_little_is_seen(knobs, wrong):
    (x, _), (want, _) = compare_clouds("tds", wrong, "wide", 0.3, VP_SCHEDULE, library_knobs=knobs)
    assert np.abs(x - want).max() > 1e-6


# ---- complex numbers, masks, refusals


def white(x, sigma):
    return x / (1 + sigma**2)


def test_moments_of_complex_numbers_and_masks_are_those_of_the_same_real_matrix():
    """k-space as pairs of real numbers, of which a mask leaves some; the same rows, as a matrix."""
    shape = (1, 4, 4)
    A = RealFourier(seeded(1, 1, 4, 4, seed=5) > 0)
    eye = torch.eye(16, dtype=torch.float64).reshape(16, *shape)
    M = torch.view_as_real(A(eye).resolve_conj()).flatten(1).mT
    kept = (M != 0).any(1)
    truth = seeded(1, *shape, seed=3)
    y = A(truth) + 0.1
    flat = torch.view_as_real(A.restrict(y).resolve_conj()).flatten(1)[:, kept]
    solver = TDS(twist="moments", weights=True, schedule=VE(6, 10.0, 0.1))
    one, two = (
        solve(p, Denoiser(white), solver, samples=6)
        for p in (
            Problem(y, A, GaussianNoise(0.3), shape),
            Problem(flat, Dense(M[kept], shape), GaussianNoise(0.3), shape),
        )
    )
    torch.testing.assert_close(one.samples, two.samples, rtol=0, atol=1e-9)
    gap = (one.log_weight - two.log_weight)[0]
    torch.testing.assert_close(gap, gap[:1].expand(6), rtol=0, atol=1e-8)


def test_too_many_numbers_are_refused_with_what_to_take():
    shape = (1, 20, 20)
    problem = Problem(seeded(1, *shape), Identity(), GaussianNoise(0.1), shape)
    with pytest.raises(InvdiffError, match="400 numbers of y.*at most 256.*take twist frozen"):
        solve(problem, Denoiser(white), TDS(twist="moments").with_steps(2))
    few = Problem(seeded(1, *shape), Inpaint.box((20, 20), 0, 0, 20, 18), GaussianNoise(0.1), shape)
    assert solve(few, Denoiser(white), TDS(twist="moments").with_steps(2)).vjps == 2 * 41


@pytest.mark.parametrize(("twist", "vjps"), [("isotropic", 1), ("frozen", 4), ("moments", 17)])
def test_costs(twist, vjps):
    problem = Problem(seeded(1, 1, 4, 4), Identity(), GaussianNoise(0.1), (1, 4, 4))
    prior = Denoiser(lambda x, sigma: torch.tanh(x / (1 + sigma**2)))
    result = solve(problem, prior, TDS(twist=twist).with_steps(5), samples=3)
    assert (result.nfe, result.vjps) == (5, 5 * vjps)
