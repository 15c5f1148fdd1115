"""Score-based priors: against a second version in numpy, optima in closed form, and known defects.

The solver is not affine in (y, noise): Adam divides by the size of the gradient. So the oracle on a
scalar normal prior is not a recursion but the optimum, which is known: where the mean gradient
must vanish, and where a run must settle.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

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
    D,
    random_matrix,
    transcription,
)
from scalar import GAINS, measured
from torch import Tensor

import invdiff.operators as ops
from helpers import Dense, seeded, seeds, states
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, VP, Karras, Schedule
from invdiff.noise import NOISELESS, GaussianNoise, Poisson
from invdiff.priors.base import Counted, Denoiser
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem
from invdiff.sampling.needs import IncompatibleError
from invdiff.sampling.run import solve
from invdiff.sampling.state import State
from invdiff.sampling.stream import finish, stream
from invdiff.solvers.families import RealNVP
from invdiff.solvers.score_prior import ScorePrior

STEPS = 5
SCHEDULE = VE(STEPS, 50.0, 0.02)


# ---- the second version: dense matrices, a diagonal normal q, gradients in closed form


@dataclass(frozen=True)
class Task:
    """One measurement, and draws by (step, role) and shape."""

    A: np.ndarray
    y: np.ndarray
    sigma_y: float
    normal: Callable[..., np.ndarray]
    uniform: Callable[[int, str], float]
    low: float
    high: float


def bound_gradient(x, low, high, quantile, eps, tilt):
    """Gradient in x of one estimate of b(x), for the prior N(mu, Sigma).

    f = |D(x + s e) - x|^2 / s^2 with D = mu + K (x + s e - mu): a quadratic in x.
    """
    mass = 0.5 + ((1 - (low / high) ** tilt) / tilt if tilt else math.log(high / low))
    rest = max(quantile * mass - 0.5, 0)
    s = low * ((1 - tilt * rest) ** (-1 / tilt) if tilt else math.exp(rest))
    mass *= (s / low) ** tilt
    K = PRIOR.Sigma @ np.linalg.inv(PRIOR.Sigma + s**2 * np.eye(D))
    residual = PRIOR.mu + K @ (x + s * eps - PRIOR.mu) - x
    return -x / (high**2 + 1) - mass * 2 * (K - np.eye(D)).T @ residual / s**2


def flow_gradient(x, low, high, steps):
    """Gradient of log p by Runge-Kutta steps: for a normal prior each step is an affine map of u,
    and the trace does not depend on u."""
    h = math.log(high / low) / steps

    def rhs(t):
        a = 1 / math.sqrt(1 + math.exp(2 * t))
        J = PRIOR.J(a, math.exp(t) * a)  # of D in u
        return a**2 * np.eye(D) - a * J, a * (a * J @ PRIOR.mu - PRIOR.mu)

    M, c = np.eye(D), np.zeros(D)
    for i in range(steps):
        t = math.log(low) + i * h
        stages = []
        for offset, weight in ((0, 0), (h / 2, h / 2), (h / 2, h / 2), (h, h)):
            B, b = rhs(t + offset)
            S, q = stages[-1] if stages else (np.zeros((D, D)), np.zeros(D))
            stages.append((B @ (np.eye(D) + weight * S), B @ (weight * q) + b))
        step, shift = np.eye(D), np.zeros(D)
        for share, (S, q) in zip((1, 2, 2, 1), stages, strict=True):
            step, shift = step + h / 6 * share * S, shift + h / 6 * share * q
        M, c = step @ M, step @ c + shift
    a0, a1 = 1 / math.hypot(1, low), 1 / math.hypot(1, high)
    return -a0 * M.T @ (M @ (a0 * x) + c) / (a1**2 * (high**2 + 1))


@transcription("score-prior")
def score_prior(
    t, steps, draws=16, times=4, lr=2e-3, warmup=0.25, prior_term="elbo", ode_steps=30,
    data_weight=1.0, clip=1.0, cooldown=0.0, tilt=0.0
):  # fmt: skip
    """Feng and Bouman 2024 with q = N(mean, std^2), reparametrised; Adam; clipped gradients."""
    start = t.normal(-1, "weights", 2 * D)
    mean, std = 0.05 * start[:D], np.ones(D)
    m, v = np.zeros(2 * D), np.zeros(2 * D)
    groups = np.array_split(np.arange(draws), times)
    for k in range(steps):
        z = t.normal(k, "draws", draws, *SHAPE).reshape(draws, D)
        g_mean, g_std = np.zeros(D), np.zeros(D)
        for i in range(draws):
            x = mean + abs(std) * z[i]
            if prior_term == "elbo":
                eps = t.normal(k, "eps", draws, *SHAPE).reshape(draws, D)[i]
                j = next(j for j, group in enumerate(groups) if i in group)
                quantile = (t.uniform(k, "time") + j / times) % 1
                up = bound_gradient(x, t.low, t.high, quantile, eps, tilt)
            else:
                up = flow_gradient(x, t.low, t.high, ode_steps)
            up = up + data_weight * t.A.T @ (t.y - t.A @ x) / t.sigma_y**2
            g_mean -= up / draws
            g_std -= np.sign(std) * up * z[i] / draws
        g = np.concatenate([g_mean, g_std - 1 / std])
        g *= min(clip / np.linalg.norm(g), 1)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        rate = lr * min(1, (k + 1) / max(warmup * steps, 1))
        rate = min(rate, lr * (steps - k) / max(cooldown * steps, 1))
        hat_m, hat_v = m / (1 - 0.9 ** (k + 1)), v / (1 - 0.999 ** (k + 1))
        change = rate * hat_m / (np.sqrt(hat_v) + 1e-8)
        mean, std = mean - change[:D], std - change[D:]
    return mean + abs(std) * t.normal(-1, "sample", *SHAPE).ravel()


def compare(knobs, matrix="wide", schedule: Schedule = SCHEDULE, library=None):
    """(library's samples, transcription's), (ROWS, D), on the same noise."""
    A, sigma_y = MATRICES[matrix], 0.3
    y = random_matrix(ROWS, len(A), 7)
    problem = Problem(torch.tensor(y), Dense(torch.tensor(A), SHAPE), GaussianNoise(sigma_y), SHAPE)
    knobs = {"lr": 0.05, **knobs}
    solver = ScorePrior(
        family="gaussian", probes=0, schedule=schedule, **{**knobs, **(library or {})}
    )
    rng = Rng.of(SEEDS)
    got = states(solver, problem, LIBRARY_PRIOR, rng)[-1].x.flatten(1).numpy()
    levels = schedule.levels()

    def one(row):
        def normal(step, role, *shape):
            like = torch.empty(1, *shape, dtype=torch.float64)
            return rng.rows([row]).at(step).normal(like, role)[0].numpy()

        def uniform(step, role):
            return float(rng.rows([row]).at(step).uniform(torch.empty(1, 1).double(), role))

        low, high = levels[-2].sigma, levels[0].sigma
        task = Task(A, y[row], sigma_y, normal, uniform, low, high)
        return score_prior(task, len(levels) - 1, **knobs)

    return got, np.stack([one(row) for row in range(ROWS)])


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"draws": 5, "times": 3, "warmup": 0.9, "clip": 40.0, "tilt": 0.6},
        {"draws": 2, "times": 2, "data_weight": 0.3, "warmup": 0.0, "cooldown": 0.7},
        {"draws": 2, "prior_term": "exact", "ode_steps": 3, "warmup": 1.0},
    ],
    ids=str,
)
def test_the_second_version_agrees(knobs):
    knobs.setdefault("times", min(4, knobs.get("draws", 16)))
    schedule = VE(2, 50.0, 0.02) if "prior_term" in knobs else SCHEDULE
    got, want = compare(knobs, schedule=schedule)
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("schedule", [VP(STEPS), Karras(STEPS)], ids=["vp", "karras"])
def test_the_path_gives_the_noise_levels(schedule):
    got, want = compare({"draws": 3, "times": 3}, "tall", schedule)
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "other",
    [
        {"lr": 0.0501},
        {"data_weight": 0.99},
        {"clip": 2.0},
        {"tilt": 0.01},
        {"cooldown": 0.5},
        {"warmup": 0.5},
        {"times": 3},
        {"draws": 5},
    ],
    ids=str,
)
def test_another_knob_is_seen(other):
    got, want = compare({"draws": 4, "times": 4}, library=other)
    assert np.abs(got - want).max() > 1e-6


# ---- optima in closed form


def standard(x: Tensor, sigma: float) -> Tensor:
    return x / (1 + sigma**2)


def quadratic(problem: Problem, low: float) -> float:
    """Precision of the best normal q for a scalar: that of b(x), and of the likelihood.

    For N(0, 1) data and the law N(0, sigma_max^2 + 1) at the top, E b(x) is a quadratic whose
    curvature is (1 + 2 s^2) / (1 + s^2)^2 at s = sigma_min, whatever sigma_max: within s^4 of 1.
    """
    gain = float(problem.A(torch.ones(1, 1, 1, 1, dtype=torch.float64)))
    return (1 + 2 * low**2) / (1 + low**2) ** 2 + gain**2 / problem.sigma_y**2


@pytest.mark.parametrize("gain", [max(GAINS), sorted(GAINS)[1]])
def test_the_mean_gradient_vanishes_at_the_optimum(gain):
    """150 steps with noise of their own from one state: the mean of each gradient is 0 within 4.5
    standard errors; 20 % of a deviation beside the best mean or deviation it is not."""
    sigma_y, low = 0.4, 0.05
    problem = measured(gain, torch.tensor([0.7 * gain], dtype=torch.float64), sigma_y)
    precision = quadratic(problem, low)
    best = torch.tensor([[gain * 0.7 * gain / sigma_y**2 / precision, precision**-0.5]])
    solver = ScorePrior(family="gaussian", draws=128, times=2, clip=1e9, schedule=VE(10, 50.0, low))
    rng = Rng.of((3,))
    start = solver.init(problem, Denoiser(standard), rng.at(-1))

    def z(weights: Tensor) -> Tensor:
        extra = {**start.extra, "weights": weights.double()}
        found = []
        for k in range(150):
            state = State(0, start.x, start.x0, extra)
            new = solver.step(state, problem, Denoiser(standard), rng.at(k))
            found.append(new.extra["m"][0] / 0.1)
        g = torch.stack(found)
        return g.mean(0) / (g.std(0) / math.sqrt(len(g)))

    assert z(best).abs().max() < 4.5
    beside = 0.2 * best[0, 1] * torch.eye(2)
    assert all(z(best + d[None]).abs()[i] > 4.5 for i, d in enumerate(beside))


MU = seeded(1, 2, 3, seed=1) / 3
VARIANCE = torch.tensor([[[0.1, 0.3, 0.5], [0.7, 0.2, 0.4]]], dtype=torch.float64)
SIX = Denoiser(lambda x, s: MU + VARIANCE / (VARIANCE + s**2) * (x - MU))
EXACT = GaussianPrior(MU, VARIANCE)
MASK = torch.tensor([[1.0, 0, 1], [1, 1, 0]]).reshape(1, 1, 2, 3)


def six(sigma_y: float = 0.3) -> Problem:
    return Problem(
        seeded(1, 1, 2, 3, seed=5) / 2, ops.Inpaint(MASK), GaussianNoise(sigma_y), (1, 2, 3)
    )


def test_a_run_settles_at_the_posterior():
    """A diagonal problem has a diagonal posterior, so q can be exact: mean and deviation, averaged
    over the last part of the run, within 5 standard errors. These come from the run: 10 blocks."""
    posterior = EXACT.posterior(six())
    solver = ScorePrior(family="gaussian", lr=0.01, times=8, schedule=VE(1000, 100.0, 0.01))
    weights = torch.stack(
        [s.extra["weights"][0] for s in stream(six(), SIX, solver, (1,)) if s.step > 400]
    )
    blocks = weights.reshape(10, -1, 12).mean(1)
    error = blocks.std(0) / math.sqrt(10)
    best = torch.cat([posterior.mean.flatten(), posterior.cov.diag().sqrt()])
    assert ((blocks.mean(0) - best).abs() / error).max() < 5
    prior = torch.cat([MU.flatten(), VARIANCE.flatten().sqrt()])
    assert ((blocks.mean(0) - prior).abs() / error).max() > 20
    assert error.max() < 0.02


def correlated() -> Problem:
    A = Dense(seeded(2, 4, seed=8), (1, 2, 2))
    return Problem(seeded(1, 2, seed=9), A, GaussianNoise(0.4), (1, 2, 2))


def test_a_flow_fits_a_correlated_posterior():
    """100 samples: every mean and covariance within 4.5 standard errors; those of the prior are
    not. The evidence is a lower bound of log p(y), and near it."""
    unit = GaussianPrior(torch.zeros(1, 2, 2, dtype=torch.float64), 1.0)
    problem, n = correlated(), 100
    posterior = unit.posterior(problem)
    solver = ScorePrior(lr=0.01, flow_steps=3, width=4.0, times=4, schedule=VE(400, 100.0, 0.01))
    found = list(stream(problem, Denoiser(standard), solver, (1,)))
    q = RealNVP((1, 2, 2), 3, 16)
    x = q.push(found[-1].extra["weights"][0], seeded(n, 1, 2, 2, seed=2))[0].flatten(1)

    def worst(law: GaussianPrior) -> float:
        mean, cov = law.mean.flatten(), law.cov
        z = (x.mean(0) - mean) / (cov.diag() / n).sqrt()
        r = x - mean
        spread = (torch.outer(cov.diag(), cov.diag()) + cov**2) / n
        return float(torch.cat([z, ((r.T @ r / n - cov) / spread.sqrt()).flatten()]).abs().max())

    assert worst(posterior) < 4.5 < worst(unit)
    matrix = problem.A.matrix
    S = matrix @ matrix.T + 0.16 * torch.eye(2, dtype=torch.float64)
    y = problem.y[0]
    log_y = -0.5 * float(y @ torch.linalg.solve(S, y)) - 0.5 * float(torch.logdet(2 * math.pi * S))
    last = [float(s.extra["evidence"]) for s in found[-150:]]
    error = np.std(last) / math.sqrt(len(last))
    assert log_y - 0.1 - 4 * error < np.mean(last) < log_y + 4 * error


def test_the_gradient_of_a_flow_by_differences():
    """All of -log p(y | x) - b(x) - log |det| in the weights of a RealNVP, on common noise."""
    solver = ScorePrior(flow_steps=2, draws=6, times=3, clip=1e9, schedule=VE(4, 20.0, 0.05))
    problem, rng = six(), Rng.of((4,))
    start = solver.init(problem, SIX, rng.at(-1))
    weights = start.extra["weights"] + 0.2 * seeded(*start.extra["weights"].shape, seed=3)

    def after(w: Tensor) -> State:
        return solver.step(
            State(0, start.x, start.x0, {**start.extra, "weights": w}), problem, SIX, rng.at(0)
        )

    found = after(weights).extra["m"] / 0.1
    v, h = seeded(*weights.shape, seed=6), 1e-5
    ends = [float(after(weights + d * v).extra["evidence"]) for d in (h, -h)]
    assert -float((found * v).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5)
    assert -1.001 * float((found * v).sum()) != pytest.approx(
        (ends[0] - ends[1]) / (2 * h), rel=1e-5
    )


# ---- what the solver promises beyond the contract


@pytest.mark.parametrize(
    ("knobs", "nfe", "vjps"),
    [({}, 4, 4), ({"draws": 3}, 3, 3), ({"times": 1}, 1, 1)],
    ids=str,
)
def test_costs_are_as_specified(knobs, nfe, vjps):
    """One evaluation and one product for each noise level, whatever the number of samples."""
    solver = ScorePrior(family="gaussian", schedule=VE(3), **knobs)
    for samples in (1, 5):
        result = solve(six(), SIX, solver, samples=samples)
        assert (result.nfe, result.vjps) == (3 * nfe, 3 * vjps)


@pytest.mark.parametrize("family", ["gaussian", "realnvp"])
def test_samples_share_a_law_and_keep_their_seeds(family):
    """Sample k is the same with more samples and beside another measurement, to round-off."""
    solver = ScorePrior(family=family, flow_steps=2, lr=0.05, draws=4, schedule=VE(4))
    two = Problem(seeded(2, 1, 2, 3, seed=5), ops.Inpaint(MASK), GaussianNoise(0.3), (1, 2, 3))
    many = solve(two, SIX, solver, samples=4, seed=3).samples
    one = solve(two, SIX, solver, samples=1, seed=3).samples
    alone = solve(two.rows(torch.tensor([0])), SIX, solver, samples=2, seed=3).samples
    torch.testing.assert_close(one, many[:, :1], rtol=0, atol=1e-12)
    torch.testing.assert_close(alone, many[:1, :2], rtol=0, atol=1e-12)
    assert (many[:, 0] - many[:, 1]).abs().max() > 0.1


def test_rows_are_of_one_measurement_when_y_and_the_operator_are_the_same():
    masks = torch.stack([MASK[0], 1 - MASK[0], MASK[0]])
    y = torch.zeros(3, 1, 2, 3, dtype=torch.float64)
    solver = ScorePrior(family="gaussian", schedule=VE(2))

    def laws(y: Tensor, masks: Tensor) -> list[int]:
        problem = Problem(y, ops.Inpaint(masks), GaussianNoise(0.3), (1, 2, 3))
        state = solver.init(problem, SIX, Rng.of(seeds(3)).at(-1))
        assert len(state.extra["weights"]) == 1 + int(state.extra["law"].max())
        return [int(i) for i in state.extra["law"]]

    assert laws(y, MASK) == [0, 0, 0]
    assert laws(y, masks) == [0, 1, 0]
    other = y.clone()
    other[2, 0, 0, 0] = 0.1
    assert laws(other, MASK) == [0, 0, 1]


def test_the_data_have_weight_1_throughout():
    """The official code multiplies the data by a sigmoid of the step, even when told not to: at the
    end of its own 10000 steps their weight is 0.018. Here that is a knob."""
    problem, rng = six(), Rng.of((4,))
    plain = ScorePrior(family="gaussian", schedule=VE(20000))
    late = plain.init(problem, SIX, rng.at(-1))

    def moved(solver: ScorePrior, k: int) -> Tensor:
        state = State(k, late.x, late.x0, late.extra)
        return solver.step(state, problem, SIX, rng.at(k)).extra["m"]

    for k in (0, 10000, 19999):
        assert torch.equal(moved(plain, k), moved(dataclasses.replace(plain, data_weight=1.0), k))
        assert plain._annealing(k) == 1.0
    annealed = dataclasses.replace(plain, anneal=True)
    weight = 1 / (1 + math.exp(4))
    assert weight == pytest.approx(0.018, abs=5e-4)
    same = dataclasses.replace(plain, data_weight=weight)
    torch.testing.assert_close(moved(annealed, 10000), moved(same, 10000), rtol=1e-12, atol=1e-15)
    assert (moved(annealed, 10000) - moved(plain, 10000)).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["gaussian", "realnvp"])
def test_weight_0_ignores_the_measurement(family):
    solver = ScorePrior(family=family, flow_steps=2, data_weight=0.0, schedule=VE(3))
    other = Problem(six().y + 1, six().A, GaussianNoise(0.1), (1, 2, 3))
    one, two = (list(stream(p, SIX, solver, (1,))) for p in (six(), other))
    assert all(torch.equal(a.x, b.x) for a, b in zip(one, two, strict=True))
    seen = dataclasses.replace(solver, data_weight=1.0)
    assert not torch.equal(list(stream(other, SIX, seen, (1,)))[-1].x, two[-1].x)


def test_photon_counts_and_visibilities():
    """Any noise with a density will do; complex data too (the official driver has no way to them).

    The misfit of the fitted law's centre is far below that of where it began.
    """
    A = ops.Interferometry(ops.grid_uv(torch.ones(2, 3)), (2, 3))
    truth = EXACT.sample(1, 4).double()
    counts = Poisson(200.0, -3.0, 3.0)
    problems = [
        Problem(A(truth), A, GaussianNoise(0.05), (1, 2, 3)),
        Problem(counts.sample(truth, Rng.of((1,))), ops.Identity(), counts, (1, 2, 3)),
    ]
    for problem in problems:
        solver = ScorePrior(family="gaussian", lr=0.05, schedule=VE(150))
        found = list(stream(problem, SIX, solver, (1,)))
        before, after = (
            float((s.x0 - truth).square().mean().sqrt()) for s in (found[0], found[-1])
        )
        assert after < before / 3
        assert finish(found[-1], problem, SIX, solver, (1,)).shape == (1, 1, 2, 3)


def test_it_refuses_a_measurement_without_a_density():
    problem = Problem(six().y, six().A, NOISELESS, (1, 2, 3))
    with pytest.raises(IncompatibleError, match="noise that has a density"):
        solve(problem, SIX, ScorePrior())


def test_a_single_pixel_has_a_flow():
    """No half is given then: the layers only scale and shift."""
    problem = measured(1.0, torch.tensor([0.5], dtype=torch.float64), 0.4)
    counted = Counted(Denoiser(standard))
    assert torch.isfinite(solve(problem, counted, ScorePrior(schedule=VE(3))).samples).all()
