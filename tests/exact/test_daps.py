"""DAPS: Zhang et al. 2025, both inner steps, and its biased moments on a normal prior."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense import (
    LIBRARY_PRIOR,
    MATRICES,
    PRIOR,
    SHAPE,
    VP_SCHEDULE,
    D,
    Task,
    assert_agrees,
    cg,
    compare,
    on_matrices,
    on_schedules,
    transcription,
)
from scalar import GAINS, ROUNDING, SIGMA_Y, Moments, assert_follows, each_gain, final, pairs

from helpers import Bulk, Dense, seeded, states
from invdiff.core import InvdiffError
from invdiff.core.schedules import VE, Karras
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.operators import AveragePool, Fourier, Identity, PhaseRetrieval
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.needs import IncompatibleError, Need
from invdiff.sampling.run import solve
from invdiff.solvers.daps import DAPS, OFFICIAL, OFFICIAL_TAU
from invdiff.solvers.moments import normal_draw


def poly(first: float, last: float, count: int) -> np.ndarray:
    """count levels, equidistant in their seventh root."""
    return np.linspace(first ** (1 / 7), last ** (1 / 7), count) ** 7


def krylov_root(V, z, iterations):
    """V^1/2 z, V seen from the space of z, V z, ... alone."""
    powers = [z / np.linalg.norm(z)]
    for _ in range(iterations - 1):
        powers.append(V @ powers[-1] / np.linalg.norm(V @ powers[-1]))
    Q = np.linalg.qr(np.array(powers).T)[0]
    e, U = np.linalg.eigh(Q.T @ V @ Q)
    return Q @ U @ np.diag(np.sqrt(np.maximum(e, 0))) @ U.T @ Q.T @ z


@transcription("daps")
def daps(
    t: Task,
    inner="exact",
    centre="flow",
    tau="sigma_y",
    flow_steps=5,
    data_std=1.0,
    langevin_steps=100,
    lr=1e-4,
    iterations=3,
):
    """Algorithm 1, the normal law of x0 by its precision matrix."""
    A, x = t.A, t.start()
    noise = 0.01 / np.sqrt(2) if tau == "official" else t.sigma_y
    for i, a, s, b, r in t.moves:
        sigma, x0 = s / a, x / a
        if centre == "flow":
            grid = poly(sigma, min(0.01, sigma / 10), flow_steps + 1)
            for u, v in zip(grid[:-1], grid[1:], strict=True):
                x0 = x0 + (u - v) * u * PRIOR.score(x0, 1.0, u)  # dx = -sigma score dsigma
            r2 = sigma**2
        else:
            x0, r2 = PRIOR.D(x, a, s), sigma**2 * data_std**2 / (sigma**2 + data_std**2)
        mean = x0
        if centre == "moments":
            V = PRIOR.cov(a, s)
            x0 = x0 + krylov_root(V, t.z(i, "x0"), iterations)
            told = t.y + noise * t.z(i, "measurement", (len(A),)) - A @ x0
            x0 = x0 + V @ A.T @ cg(noise**2 * np.eye(len(A)) + A @ V @ A.T, told, iterations)
        elif inner == "exact":
            n, xi = t.z(i, "measurement", (len(A),)), t.z(i, "x0")
            if noise:
                precision = A.T @ A / noise**2 + np.eye(D) / r2
                b_ = A.T @ (t.y + noise * n) / noise**2 + (mean + np.sqrt(r2) * xi) / r2
                x0 = np.linalg.solve(precision, b_)
            else:
                P = np.linalg.pinv(A) @ A
                x0 = np.linalg.pinv(A) @ t.y + (np.eye(D) - P) @ (mean + np.sqrt(r2) * xi)
        else:
            h = lr * (1 - 0.99 * i / (len(t.moves) + 1))
            for k in range(langevin_steps):
                slope = (mean - x0) / r2 + A.T @ (t.y - A @ x0) / noise**2
                x0 = x0 + h * slope + np.sqrt(2 * h) * t.z(i, f"langevin {k}")
        x = b * x0 + r * t.z(i, "step")
    return x


@on_schedules
@on_matrices
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"tau": "official", "flow_steps": 2},
        {"centre": "tweedie", "data_std": 0.7},
        {"centre": "moments"},
        {"centre": "moments", "iterations": 1, "tau": "official"},
        {"inner": "langevin", "langevin_steps": 4, "lr": 1e-3},
        {"inner": "langevin", "langevin_steps": 3, "lr": 1e-5, "tau": "official"},
    ],
    ids=str,
)
def test_transcription(schedule, matrix, knobs):
    assert_agrees("daps", knobs, matrix, 0.1, schedule)


@on_schedules
def test_transcription_without_noise(schedule):
    assert_agrees("daps", {}, "tall", 0.0, schedule)


@pytest.mark.parametrize(
    ("knobs", "wrong"),
    [
        ({}, {"flow_steps": 6}),
        ({}, {"centre": "tweedie"}),
        ({"tau": "official"}, {}),
        ({"centre": "tweedie"}, {"centre": "tweedie", "data_std": 1.001}),
        ({"centre": "moments"}, {"centre": "moments", "iterations": 4}),
        ({"inner": "langevin", "lr": 1e-3}, {"inner": "langevin", "lr": 1.001e-3}),
    ],
    ids=str,
)
def test_a_knob_off_by_a_little_is_seen(knobs, wrong):
    got, want = compare("daps", wrong, "benign", 0.1, VP_SCHEDULE, library_knobs=knobs)
    assert np.abs(got - want).max() > 1e-6


# ---- mean and variance on a scalar normal prior

PRINTED = {
    "official": ((1.0000, 0.0000), (0.9995, 0.0008), (0.9882, 0.0197), (0, 1.6625)),
    "sigma_y": ((0.9941, 0.0099), (0.9122, 0.1452), (0.3033, 1.1617), (0, 1.6625)),
    "tweedie": ((0.9901, 0.0099), (0.8621, 0.1379), (0.2000, 0.8000), (0, 1.0000)),
}
"""Independent recursions, 200 levels; tweedie is the exact posterior, rounded as the others."""
OFFICIAL_SCHEDULE = Karras(200, 100.0, float(poly(100.0, 0.1, 201)[-2]))
"""The official grid: 201 levels from 100 to 0.1, the last of which is replaced by 0."""


def printed(column: str, **knobs) -> DAPS:
    how = {"centre": "tweedie"} if column == "tweedie" else {"tau": column}
    return DAPS(**how, **knobs)


@each_gain
@pytest.mark.parametrize("column", PRINTED)
def test_mean_and_variance_are_the_printed_ones(column, gain):
    """The default schedule rounds the last level of the official one, 0.10604, which changes no
    digit
    but the fourth."""
    mean, variance = PRINTED[column][GAINS.index(gain)]
    found = final(printed(column, schedule=OFFICIAL_SCHEDULE), gain)
    assert found.mean == pytest.approx(mean, abs=ROUNDING)
    assert found.variance == pytest.approx(variance, abs=ROUNDING)
    rounded = final(printed(column), gain)
    assert rounded == pytest.approx((mean, variance), abs=3 * ROUNDING)


def test_the_printed_moments_see_another_flow():
    """Negative twin: a sixth evaluation a level shows in the second digit."""
    assert abs(final(DAPS(flow_steps=6), 0.0).variance - 1.6625) > 100 * ROUNDING


def test_the_printed_exactness_is_that_of_the_right_variance():
    """Negative twin of the column tweedie: images of another deviation than is said."""
    found = final(DAPS(centre="tweedie", data_std=0.5), 0.25)
    assert abs(found.mean - 0.8621) > 100 * ROUNDING


def recursion(schedule, gain, inner, steps, lr, tau):
    """x0 = c u around which x0 is drawn; u = x / a, in plain floats."""
    top = schedule.levels()[0]
    m, V, n = 0.0, top.sigma**2, schedule.steps
    for i, (t, u) in enumerate(pairs(schedule)):
        c, grid = 1.0, poly(t.sigma, min(0.01, t.sigma / 10), 6)
        for v, w in zip(grid[:-1], grid[1:], strict=True):
            c *= 1 + (w - v) * v / (1 + v**2)
        pull = (gain / tau) ** 2
        own, of_y, noise = c, 0.0, 0.0
        if inner == "exact":
            P = 1 / (pull + 1 / t.sigma**2)
            own, of_y, noise = P * c / t.sigma**2, P * pull, P
        else:
            h = lr * (1 - 0.99 * i / (n + 1))
            keep = 1 - h * (pull + 1 / t.sigma**2)
            for _ in range(steps):
                own = keep * own + h * c / t.sigma**2
                of_y, noise = keep * of_y + h * pull, keep**2 * noise + 2 * h
        m, V = own * m + of_y, own**2 * V + noise + u.sigma**2
        yield Moments(u.a * m, u.a**2 * V)


@each_gain
@pytest.mark.parametrize("schedule", [Karras(30, 50.0, 0.1), VE(30, 30.0, 0.01)], ids=str)
@pytest.mark.parametrize("inner", ["exact", "langevin"])
def test_it_follows_its_recursion(schedule, gain, inner):
    knobs = {"langevin_steps": 5, "lr": 1e-5}
    solver = DAPS(inner, **knobs, schedule=schedule)
    assert_follows(solver, gain, SIGMA_Y, recursion(schedule, gain, inner, 5, 1e-5, SIGMA_Y))


def test_many_small_langevin_steps_are_the_exact_draw():
    """The two inner steps have one law; a step h makes its variance P too large by about h / 2."""
    schedule = Karras(12, 10.0, 0.1)
    *_, exact = recursion(schedule, 1.0, "exact", 0, 0.0, SIGMA_Y)
    *_, chain = recursion(schedule, 1.0, "langevin", 4000, 1e-4, SIGMA_Y)
    *_, short = recursion(schedule, 1.0, "langevin", 4, 1e-4, SIGMA_Y)
    assert chain.mean == pytest.approx(exact.mean, abs=1e-3)
    assert chain.variance == pytest.approx(exact.variance, abs=1e-4)
    assert abs(short.variance - exact.variance) > 1e-3  # negative twin


# ---- the prior's own covariance


def whitened_moments(knobs, n=4000):
    """Mean and covariance of n samples of a correlated normal law, in the frame of the exact ones,
    in which they are 0 and 1."""
    A, noise = MATRICES["benign"], 0.1
    y = A @ (PRIOR.mu + 0.5)
    cov = np.linalg.inv(np.linalg.inv(PRIOR.Sigma) + A.T @ A / noise**2)
    mean = PRIOR.mu + cov @ A.T @ (y - A @ PRIOR.mu) / noise**2
    rows = torch.tensor(y).expand(n, -1)
    problem = Problem(rows, Dense(torch.tensor(A), SHAPE), GaussianNoise(noise), SHAPE)
    solver = DAPS(**knobs, schedule=Karras(8, 300.0, 0.05))
    x = states(solver, problem, LIBRARY_PRIOR, Bulk(tuple(range(n))))[-1].x.flatten(1).numpy()
    w = np.linalg.solve(np.linalg.cholesky(cov), (x - mean).T)
    return w.mean(1), np.cov(w)


def test_moments_are_exact_for_correlated_images_at_eight_steps():
    """Within 5 standard errors in all 16 directions and 136 covariances; white ones are not."""
    mean, cov = whitened_moments({"centre": "moments", "iterations": D})
    error = 1 / np.sqrt(4000)
    assert np.abs(mean).max() < 5 * error
    assert np.abs(cov - np.eye(D)).max() < 5 * np.sqrt(2) * error
    wrong = whitened_moments({"centre": "tweedie"})[1]
    assert np.abs(wrong - np.eye(D)).max() > 1


@pytest.mark.parametrize("gain", [1.0, 0.25])
def test_moments_are_told_no_deviation_of_images(gain):
    """White images need one iteration; the exact posterior at any number of steps."""
    exact = 1 / (1 + (SIGMA_Y / gain) ** 2)
    found = final(DAPS(centre="moments", iterations=1, schedule=Karras(3, 3000.0, 0.1)), gain)
    assert found == pytest.approx((exact, 1 - exact), abs=1e-6)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_a_draw_has_the_right_trace_and_direction(iterations):
    """z^T V z of the square, at any number of iterations; V^1/2 z once they are all directions."""
    V, z = torch.tensor(PRIOR.Sigma), seeded(4, D)
    e = normal_draw(z, lambda w: w @ V, iterations)
    torch.testing.assert_close(e.square().sum(1), ((z @ V) * z).sum(1), rtol=1e-12, atol=0)
    values, U = torch.linalg.eigh((V + V.mT) / 2)
    root = z @ (U * values.sqrt()) @ U.mT
    whole = normal_draw(z, lambda w: w @ V, D)
    torch.testing.assert_close(whole, root, rtol=1e-9, atol=1e-9)
    assert float((e - root).abs().max()) > 1e-4  # negative twin
    assert torch.equal(normal_draw(0 * z, lambda w: w @ V, iterations), 0 * z)


def test_a_jacobian_that_is_not_symmetric_gives_finite_draws():
    z = seeded(3, 1, 4, 4)
    for V in (lambda w: -w, lambda w: w.roll(1, -1), lambda w: 0 * w):
        assert torch.isfinite(normal_draw(z, V, 5)).all()
    assert torch.equal(normal_draw(z, lambda w: -w, 5), 0 * z)


def test_moments_draw_exactly_or_not_at_all():
    with pytest.raises(InvdiffError, match="leave inner exact"):
        DAPS("langevin", centre="moments")
    assert DAPS(centre="moments").requires()[0] == {Need.PRIOR_VJP, Need.LINEAR, Need.GAUSSIAN}


# ---- what it costs and asks for


def shrinking(x, sigma):
    return x / (1 + sigma**2)


def test_costs():
    """1000 evaluations by default, no gradient of the network; 200 with Tweedie's formula."""
    problem = Problem(seeded(1, 1, 4, 4), Identity(), GaussianNoise(0.1), (1, 4, 4))
    for solver, nfe in ((DAPS(), 1000), (DAPS(centre="tweedie"), 200), (DAPS(flow_steps=2), 400)):
        result = solve(problem, Denoiser(shrinking), solver)
        assert (result.nfe, result.vjps) == (nfe, 0)


def test_each_inner_step_needs_what_it_uses():
    A = PhaseRetrieval()
    phase = Problem(A(seeded(1, 1, 4, 4)), A, GaussianNoise(0.1), (1, 4, 4))
    with pytest.raises(IncompatibleError, match="daps cannot solve PhaseRetrieval"):
        solve(phase, Denoiser(shrinking), DAPS().with_steps(3))
    solver = DAPS("langevin", lr=1e-6, langevin_steps=3).with_steps(3)
    assert torch.isfinite(solve(phase, Denoiser(shrinking), solver).samples).all()
    noiseless = Problem(phase.y, A, NOISELESS, (1, 4, 4))
    with pytest.raises(IncompatibleError, match="a noise level above 0"):
        solve(noiseless, Denoiser(shrinking), solver)
    official = DAPS.official("phase-retrieval").with_steps(3)
    assert torch.isfinite(solve(noiseless, Denoiser(shrinking), official).samples).all()


def test_noiseless_data_are_kept():
    A = AveragePool(2, (4, 4))
    problem = Problem(A(seeded(2, 1, 4, 4)), A, NOISELESS, (1, 4, 4))
    for knobs in ({}, {"centre": "moments"}):
        solver = DAPS(**knobs).with_steps(5)
        found = solve(problem, Denoiser(shrinking), solver).samples[:, 0]
        torch.testing.assert_close(A(found), problem.y, rtol=0, atol=1e-12)


def test_complex_measurements_scatter_in_both_parts():
    """Unseen pixels aside, x0 given y has variance tau^2 / 2 a part when k-space is full."""
    A = Fourier(torch.ones(1, 1, 4, 4))
    y = A(0 * seeded(400, 2, 4, 4))
    problem = Problem(y, A, GaussianNoise(0.1), (2, 4, 4))
    x = solve(problem, Denoiser(shrinking), DAPS().with_steps(3)).samples
    # r2 is at least 0.106^2 at the last level: posterior variance between 1/(1/.01 + 1/.0112), .01
    assert 0.0052 * 0.97 < float(x.var()) < 0.01 * 1.03


def test_the_official_settings():
    assert DAPS().num_steps == 200 and DAPS.official("hdr").lr == 2e-5
    assert DAPS().levels[-2].s == pytest.approx(0.10604, abs=5e-6)
    assert DAPS.official("nonlinear-blur").langevin_steps == 200
    assert OFFICIAL_TAU**2 == pytest.approx(0.01**2 / 2)
    for task in OFFICIAL:
        assert DAPS.official(task).tau == "official" and DAPS.official(task).inner == "langevin"
    with pytest.raises(InvdiffError, match="did you mean deblur"):
        DAPS.official("deblurr")
