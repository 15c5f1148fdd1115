"""The setting of the transcription tests: explicit matrices, numpy, one sample at a time.

A transcription is a second, independent version of a solver, written from its paper without the
library's mathematics: A is an (m, d) matrix, its decomposition is numpy's, the prior is
N(mu, Sigma) with the closed form of its denoiser, Jacobian and covariance. It is registered by
@transcription("name"). Fed with the same noise, the library's solver must agree with it to 1e-8
after a whole run (round-off is about 1e-13 a step; a wrong factor shows at once).

x_t = a x0 + s eps. A run goes over (a, s) -> (b, r), the next level; the last is (1, 0).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from helpers import Dense, exploding, seeds, states
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, VP, Schedule
from invdiff.noise import GaussianNoise
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem
from invdiff.solvers import registry

D, ROWS, STEPS = 16, 3, 9
SHAPE = (1, 4, 4)
SEEDS = seeds(ROWS)


# ---- the setting, in plain matrices


def random_matrix(rows: int, columns: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns))


def wide() -> np.ndarray:
    """7 x 16; singular values from 2 down to 0.03, so that every rule for a mode is met."""
    u, _, vt = np.linalg.svd(random_matrix(7, D, 1), full_matrices=False)
    return u @ np.diag([2.0, 1.1, 0.8, 0.5, 0.2, 0.08, 0.03]) @ vt


def tall() -> np.ndarray:
    """20 x 16 of rank 14: more measurements than pixels, and two of these unseen."""
    u, _, vt = np.linalg.svd(random_matrix(20, D, 2), full_matrices=False)
    return u @ np.diag([*np.linspace(1.5, 0.3, 14), 0, 0]) @ vt


def benign() -> np.ndarray:
    """6 x 16, well conditioned: for solvers that a small singular value would blow up."""
    u, _, vt = np.linalg.svd(random_matrix(6, D, 3), full_matrices=False)
    return u @ np.diag(np.linspace(1.4, 0.6, 6)) @ vt


MATRICES = {"wide": wide(), "tall": tall(), "benign": benign()}


@dataclass(frozen=True)
class Normal:
    """N(mu, Sigma) and what a denoiser knows of it, for x_t = a x0 + s eps."""

    mu: np.ndarray
    Sigma: np.ndarray

    def D(self, x, a, s):
        gain = a * self.Sigma @ np.linalg.inv(a**2 * self.Sigma + s**2 * np.eye(D))
        return self.mu + gain @ (x - a * self.mu)

    def J(self, a, s):
        """dD/dx_t."""
        return a * self.Sigma @ np.linalg.inv(a**2 * self.Sigma + s**2 * np.eye(D))

    def cov(self, a, s):
        """Cov[x0 | x_t], from the precisions."""
        return np.linalg.inv(np.linalg.inv(self.Sigma) + (a / s) ** 2 * np.eye(D))

    def score(self, x, a, s):
        """Gradient of log N(x_t; a mu, a^2 Sigma + s^2)."""
        return -np.linalg.solve(a**2 * self.Sigma + s**2 * np.eye(D), x - a * self.mu)


def normal() -> Normal:
    L = random_matrix(D, D, 4) / 4 + 0.4 * np.eye(D)
    return Normal(random_matrix(1, D, 5)[0] / 2, L @ L.T)


PRIOR = normal()
LIBRARY_PRIOR = GaussianPrior(
    torch.tensor(PRIOR.mu).reshape(SHAPE), torch.tensor((PRIOR.Sigma + PRIOR.Sigma.T) / 2)
)


@dataclass(frozen=True)
class Task:
    """One measurement y = A x0 + sigma_y n, its noise draws z(step, role), and its schedule.

    z takes a shape too, for draws that are not images."""

    A: np.ndarray
    y: np.ndarray
    sigma_y: float
    z: Callable[..., np.ndarray]
    levels: list[tuple[float, float]]

    @property
    def moves(self):
        """(step, a, s, b, r) of every step."""
        pairs = zip(self.levels[:-1], self.levels[1:], strict=True)
        return [(i, *t, *u) for i, (t, u) in enumerate(pairs)]

    def start(self):
        return self.levels[0][1] * self.z(-1, "init")


def ancestral(x, x0, a, s, b, r, z):
    """Ho et al. 2020, Algorithm 2 in the form of eq. 7 where a^2 + s^2 = 1; else Song et al. 2021,
    eq. 47 (ancestral sampling for the variance-exploding process)."""
    if a == 1:
        score = (x0 - x) / s**2
        return x + (s**2 - r**2) * score + np.sqrt(r**2 * (s**2 - r**2) / s**2) * z
    bar, bar_next = a**2, b**2
    alpha = bar / bar_next
    beta = 1 - alpha
    mean = np.sqrt(bar_next) * beta / (1 - bar) * x0
    mean = mean + np.sqrt(alpha) * (1 - bar_next) / (1 - bar) * x
    return mean + np.sqrt(beta * (1 - bar_next) / (1 - bar)) * z


def ddim(x, x0, a, s, b, r, z, eta):
    """Song, Meng and Ermon 2021, eq. 12 with sigma of eq. 16; abar = a^2 / (a^2 + s^2)."""
    bar, bar_next = a**2 / (a**2 + s**2), b**2 / (b**2 + r**2)
    sd = eta * np.sqrt((1 - bar_next) / (1 - bar)) * np.sqrt(1 - bar / bar_next)
    size = np.hypot(b, r)  # of the next frame, 1 when variance is preserved
    eps = (x - a * x0) / s
    mean = np.sqrt(bar_next) * x0 + np.sqrt(1 - bar_next - sd**2) * eps
    return size * (mean + sd * z)


def modes(A):
    """U (m, d), s (d,), V (d, d) with A = U diag(s) V^T; s is exactly 0 where rank ends."""
    U, s, Vt = np.linalg.svd(A, full_matrices=True)
    s = np.where(s > 1e-12 * s[0], s, 0.0)
    k = len(s)
    return np.pad(U[:, :k], ((0, 0), (0, D - k))), np.pad(s, (0, D - k)), Vt.T


def cg(matrix, b, iterations):
    """Hestenes and Stiefel 1952, from 0."""
    x, r = np.zeros_like(b), b
    p = r
    for _ in range(iterations):
        q = matrix @ p
        step = (r @ r) / (p @ q)
        x, new = x + step * p, r - step * q
        p = new + (new @ new) / (r @ r) * p
        r = new
    return x


TRANSCRIPTIONS: dict[str, Callable[..., np.ndarray]] = {}
"""Name of a solver to f(task, **knobs) -> x of the last step, (D,)."""


def transcription(name: str):
    """Register the second version of the solver called name."""

    def register(f):
        TRANSCRIPTIONS[name] = f
        return f

    return register


# ---- particles


@dataclass(frozen=True)
class Cloud:
    """As `Task`, for n rows of one measurement, which are particles of one cloud.

    z(step, role, shape) is (n, D), one draw a row; u(step, role) is one number of the cloud's first
    row, and order(step) one of each row.
    """

    n: int
    A: np.ndarray
    y: np.ndarray
    sigma_y: float
    z: Callable[..., np.ndarray]
    u: Callable[..., float]
    order: Callable[[int], np.ndarray]
    levels: list[tuple[float, float]]

    moves = Task.moves

    def start(self):
        return self.levels[0][1] * self.z(-1, "init")

    def resampled(self, lw, evidence, threshold, step):
        """Indices, log weights and log evidence after systematic resampling where it is due."""
        W = np.exp(lw - lw.max())
        W = W / W.sum()
        if 1 / (W**2).sum() >= threshold * self.n:
            return np.arange(self.n), lw, evidence
        new = evidence + lw.max() + np.log(np.exp(lw - lw.max()).mean())
        return self.systematic(W, self.u(step, "resample")), 0 * lw, new

    def systematic(self, W, u):
        """For every point (u + i) / n, the row in whose share of [0, 1] it lies."""
        found, edge, k = [], W[0], 0
        for i in range(self.n):
            while (u + i) / self.n >= edge and k < self.n - 1:
                k += 1
                edge = edge + W[k]
            found.append(k)
        return np.array(found)

    def ended(self, x, lw, evidence, weights, step):
        """Samples of equal weight, shuffled; or weighted ones, with their log weights."""
        if weights:
            return x, lw + evidence
        W = np.exp(lw - lw.max())
        index = self.systematic(W / W.sum(), self.u(step, "end"))
        return x[index[np.argsort(self.order(step))]], None


def log_normal(r, S):
    """log N(r; 0, S), S a matrix or a variance."""
    S = S * np.eye(len(r)) if np.ndim(S) == 0 else S
    return -0.5 * (r @ np.linalg.solve(S, r) + np.linalg.slogdet(2 * np.pi * S)[1])


CLOUDS: dict[str, Callable[..., tuple[np.ndarray, np.ndarray | None]]] = {}
"""Name of a particle solver to f(cloud, **knobs) -> its samples, and their log weights."""


def of_clouds(name: str):
    """Register the second version of a particle solver; one row is a cloud of one."""

    def register(f):
        def alone(t: Task, **knobs):
            def z(*args):
                return t.z(*args)[None]

            none = Cloud(1, t.A, t.y, t.sigma_y, z, lambda *_: 0.5, lambda _: np.zeros(1), t.levels)
            return f(none, **knobs)[0][0]

        CLOUDS[name], TRANSCRIPTIONS[name] = f, alone
        return f

    return register


def compare_clouds(name, knobs, matrix, sigma_y, schedule: Schedule, n=5, library_knobs=None):
    """(x, log weights) of the library's samples and of the transcription's: two clouds of n, of
    measurements whose rows take turns."""
    A = MATRICES[matrix]
    truth = PRIOR.mu + random_matrix(2, D, 6) @ np.linalg.cholesky(PRIOR.Sigma).T
    y = truth @ A.T + sigma_y * random_matrix(2, len(A), 7)
    operator = Dense(torch.tensor(A), SHAPE)
    problem = Problem(torch.tensor(np.tile(y, (n, 1))), operator, GaussianNoise(sigma_y), SHAPE)
    knobs = {"particles": n, **knobs}
    own = knobs if library_knobs is None else {"particles": n, **library_knobs}
    solver, rng = registry()[name](**own, schedule=schedule), Rng.of(seeds(2 * n))
    end = states(solver, problem, LIBRARY_PRIOR, rng)[-1]
    x, got = end.x.flatten(1).numpy(), end.extra.get("log_weight")
    weights, want, lw = np.zeros(2 * n) if got is None else got.numpy(), 0 * x, np.zeros(2 * n)
    levels = [(level.a, level.s) for level in schedule.levels()]
    for k in (0, 1):
        rows = range(k, 2 * n, 2)

        def z(step, role, shape=SHAPE, rows=rows):
            like = torch.empty(n, *shape, dtype=torch.float64)
            return rng.rows(rows).at(step).normal(like, role).numpy().reshape(n, -1)

        def u(step, role, row=k):
            return float(
                rng.rows([row]).at(step).uniform(torch.empty(1, dtype=torch.float64), role)
            )

        def order(step, rows=rows):
            like = torch.empty(n, dtype=torch.float64)
            return rng.rows(rows).at(step).uniform(like, "order").numpy()

        cloud = Cloud(n, A, y[k], sigma_y, z, u, order, levels)
        want[k::2], found = CLOUDS[name](
            cloud, **{a: b for a, b in knobs.items() if a != "particles"}
        )
        lw[k::2] = 0 if found is None else found
    return (x, weights), (want, lw)


def assert_clouds_agree(*args, **kwargs):
    (x, weights), (want, lw) = compare_clouds(*args, **kwargs)
    assert np.isfinite(want).all() and np.abs(want).max() < 1e4
    np.testing.assert_allclose(x, want, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(weights, lw, rtol=1e-7, atol=1e-6)


# ---- the comparison


def compare(name, knobs, matrix, sigma_y, schedule: Schedule, library_knobs=None):
    """(library's samples, transcription's samples), both (ROWS, D), on the same noise."""
    A = MATRICES[matrix]
    truth = PRIOR.mu + random_matrix(ROWS, D, 6) @ np.linalg.cholesky(PRIOR.Sigma).T
    y = truth @ A.T + sigma_y * random_matrix(ROWS, len(A), 7)
    operator = Dense(torch.tensor(A), SHAPE)
    problem = Problem(torch.tensor(y), operator, GaussianNoise(sigma_y), SHAPE)
    solver = registry()[name](
        **(knobs if library_knobs is None else library_knobs), schedule=schedule
    )
    rng = Rng.of(SEEDS)
    got = states(solver, problem, LIBRARY_PRIOR, rng)[-1].x.flatten(1).numpy()

    def one(row):
        def z(step, role, shape=SHAPE):
            like = torch.empty(1, *shape, dtype=torch.float64)
            return rng.rows([row]).at(step).normal(like, role).numpy().ravel()

        levels = [(level.a, level.s) for level in schedule.levels()]
        return TRANSCRIPTIONS[name](Task(A, y[row], sigma_y, z, levels), **knobs)

    return got, np.stack([one(row) for row in range(ROWS)])


def assert_agrees(*args, **kwargs):
    got, want = compare(*args, **kwargs)
    assert np.isfinite(want).all() and np.abs(want).max() < 1e4
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8)


VP_SCHEDULE = VP(STEPS)
SCHEDULES = {"vp": VP_SCHEDULE, "ve": VE(STEPS, 20.0, 0.02), "vp-as-ve": exploding(VP_SCHEDULE)}
on_schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
on_matrices = pytest.mark.parametrize("matrix", ["wide", "tall"])
