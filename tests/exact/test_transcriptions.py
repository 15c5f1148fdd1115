"""A second, independent version of each of the first solvers: see dense.py for the setting."""

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
    cg,
    compare,
    ddim,
    modes,
    on_matrices,
    on_schedules,
    transcription,
)

from helpers import Dense, seeded, states
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem
from invdiff.solvers import registry

# ---- the algorithms, as printed


@transcription("unconditional")
def unconditional(t: Task, eta_ddim=1.0):
    x = t.start()
    for i, a, s, b, r in t.moves:
        x = ddim(x, PRIOR.D(x, a, s), a, s, b, r, t.z(i, "step"), eta_ddim)
    return x


@transcription("dps")
def dps(t: Task, zeta=1.0, loss="l2", eta_ddim=1.0):
    """Chung et al. 2023, Algorithm 1; the gradient is written out for a linear denoiser."""
    x = t.start()
    for i, a, s, b, r in t.moves:
        x0 = PRIOR.D(x, a, s)
        new = ancestral(x, x0, a, s, b, r, t.z(i, "step"))
        if eta_ddim != 1:
            new = ddim(x, x0, a, s, b, r, t.z(i, "step"), eta_ddim)
        rest = t.y - t.A @ x0
        grad_sq = -2 * PRIOR.J(a, s).T @ t.A.T @ rest  # of |rest|^2
        norm = np.linalg.norm(rest)
        grad = {
            "l2": grad_sq / (2 * norm),  # of |rest|
            "l2sq": grad_sq / norm,  # zeta_i = zeta / |rest|
            "gaussian": grad_sq / (2 * t.sigma_y**2) if t.sigma_y else None,
        }[loss]
        x = new - zeta * grad
    return x


@transcription("pigdm")
def pigdm(t: Task, weight=1.0, eta_ddim=1.0, guidance="score", data_std=1.0, reach=1.0):
    """Song et al. 2023: Algorithm 1 with the a_s a_t weight, or the score of its likelihood.

    r_t^2 = v^2 / (1 + v^2) where data_std is 1. The score's E[x0 | x_t, y] is Tweedie's, with
    grad log N(y; A D, r_t^2 A A^T + sigma_y^2): J^T A^T (.)^-1 (y - A D).
    """
    A, (a0, s0) = t.A, t.levels[0]
    if guidance == "score":
        return pigdm_score(t, weight, eta_ddim, data_std, reach)
    x = a0 * np.linalg.pinv(A) @ t.y + s0 * t.z(-1, "init")
    for i, a, s, b, r in t.moves:
        x0, J = PRIOR.D(x, a, s), PRIOR.J(a, s)
        r2 = (s / a) ** 2 / (1 + (s / a) ** 2 / data_std**2)
        if t.sigma_y:
            inverse = np.linalg.inv(A @ A.T + t.sigma_y**2 / r2 * np.eye(len(A)))
            g = J.T @ A.T @ inverse @ (t.y - A @ x0)
        else:
            pinv = np.linalg.pinv(A)
            g = J.T @ (pinv @ t.y - pinv @ A @ x0)
        x = ddim(x, x0, a, s, b, r, t.z(i, "step"), eta_ddim) + weight * b * a * g
    return x


def pigdm_score(t: Task, weight, eta_ddim, data_std, reach):
    A, x = t.A, t.start()
    for i, a, s, b, r in t.moves:
        x0, V = PRIOR.D(x, a, s), PRIOR.cov(a, s)
        r2 = data_std**2 * s**2 / (s**2 + a**2 * data_std**2)
        gap = t.y - A @ x0
        if t.sigma_y:
            inverse = np.linalg.inv(r2 * A @ A.T + t.sigma_y**2 * np.eye(len(A)))
        else:
            inverse, gap = np.linalg.pinv(r2 * A @ A.T, 1e-12), A @ np.linalg.pinv(A) @ gap
        move = weight * V @ A.T @ inverse @ gap
        ratio = (r * a / (b * s)) ** 2
        if r > 0:
            along, whole = gap @ A @ move, gap @ gap
            if not t.sigma_y:
                back = np.linalg.pinv(A) @ gap
                along, whole = back @ move, back @ back
            move = move * min(1.0, reach * whole / (1 - ratio) / max(along, 1e-300))
        x = ddim(x, x0 + move, a, s, b, r, t.z(i, "step"), eta_ddim)
    return x


@transcription("ddrm")
def ddrm(t: Task, eta_prop=0.85, eta_b=1.0):
    """Kawar et al. 2022, eq. 7 and 8, mode by mode, in coordinates x_t / a_t."""
    U, s, V = modes(t.A)
    ubar = U.T @ t.y
    sigma = [level[1] / level[0] for level in t.levels]

    def draw(step, role):
        return V.T @ t.z(step, role)

    x = np.empty(D)
    z = draw(-1, "init")
    for k in range(D):
        if s[k] > 0 and sigma[0] > t.sigma_y / s[k]:
            x[k] = ubar[k] / s[k] + np.sqrt(sigma[0] ** 2 - (t.sigma_y / s[k]) ** 2) * z[k]
        else:
            x[k] = sigma[0] * z[k]
    for i, a, sd, _, _ in t.moves:
        now, new = sigma[i], sigma[i + 1]
        theta = V.T @ PRIOR.D(a * V @ x, a, sd)
        z = draw(i, "step")
        for k in range(D):
            root = np.sqrt(1 - eta_prop**2)
            if s[k] == 0:
                x[k] = theta[k] + root * new * (x[k] - theta[k]) / now + eta_prop * new * z[k]
                continue
            ybar, noise = ubar[k] / s[k], t.sigma_y / s[k]
            if new < noise:
                pull = root * new * (ybar - theta[k]) / noise
                x[k] = theta[k] + pull + eta_prop * new * z[k]
            else:
                sd_k = np.sqrt(new**2 - noise**2 * eta_b**2)
                x[k] = (1 - eta_b) * theta[k] + eta_b * ybar + sd_k * z[k]
    return V @ x


@transcription("ddnm")
def ddnm(t: Task, eta_prop=0.85):
    """Wang et al. 2023, Algorithm 1: x0 <- A^+ y + (I - A^+ A) x0."""
    pinv = np.linalg.pinv(t.A)
    x = t.start()
    for i, a, s, b, r in t.moves:
        x0 = PRIOR.D(x, a, s)
        eps = (x - a * x0) / s
        fixed = pinv @ t.y + (np.eye(D) - pinv @ t.A) @ x0
        x = b * fixed + r * (eta_prop * t.z(i, "step") + np.sqrt(1 - eta_prop**2) * eps)
    return x


@transcription("ddnm+")
def ddnm_plus(t: Task, eta_prop=0.85):
    """Wang et al. 2023, DDNM+ in its SVD form: matrices Sigma_t = V diag(lam) V^T and
    Phi_t = V diag(d^2) V^T, chosen so that every mode of x_{t-1} has noise of variance r^2."""
    U, s, V = modes(t.A)
    x = t.start()
    for i, a, sd, b, r in t.moves:
        x0 = PRIOR.D(x, a, sd)
        eps = (x - a * x0) / sd
        lam, fresh, old = np.zeros(D), np.zeros(D), np.zeros(D)
        for k in range(D):
            root = np.sqrt(1 - eta_prop**2)
            if s[k] == 0:
                fresh[k], old[k] = eta_prop * r, root * r
            elif r >= b * t.sigma_y / s[k]:
                lam[k], fresh[k] = 1, np.sqrt(r**2 - (b * t.sigma_y / s[k]) ** 2)
            else:
                lam[k], fresh[k] = s[k] * r * root / (b * t.sigma_y), eta_prop * r
        inverse = np.divide(1, s, out=np.zeros(D), where=s > 0)
        correction = V @ np.diag(lam) @ np.diag(inverse) @ U.T @ (t.y - t.A @ x0)
        noise = V @ np.diag(fresh) @ V.T @ t.z(i, "step") + V @ np.diag(old) @ V.T @ eps
        x = b * (x0 + correction) + noise
    return x


@transcription("diffpir")
def diffpir(t: Task, lam=1.75, zeta=0.3, final="proximal", sigma_floor=0.002):
    """Zhu et al. 2023, Algorithm 1, with the proximal problem solved by its normal equations."""
    x = t.start()
    for i, a, s, b, r in t.moves:
        x0 = PRIOR.D(x, a, s)
        if i == len(t.moves) - 1 and final == "denoised":
            return x0
        rho = lam * max(t.sigma_y, sigma_floor) ** 2 / (s / a) ** 2
        X = np.linalg.solve(t.A.T @ t.A + rho * np.eye(D), t.A.T @ t.y + rho * x0)
        eps = (x - a * X) / s
        x = b * X + r * (np.sqrt(1 - zeta) * eps + np.sqrt(zeta) * t.z(i, "step"))
    return x


@transcription("mmps")
def mmps(t: Task, iterations=None, eta_ddim=1.0, draw=False, data_std=1.0, covariance="denoiser"):
    """Rozet et al. 2024, Algorithm 3; the system is solved exactly when iterations is None.

    covariance "white": 1 / (1 / sigma^2 + 1 / data_std^2), as JFPS of azula has it.
    draw: about that mean as N(0, c) is about its own after y: Matheron's rule, e - K (A e + n).
    """
    A, x = t.A, t.start()
    for i, a, s, b, r in t.moves:
        x0, V = PRIOR.D(x, a, s), PRIOR.cov(a, s)
        if covariance == "white":
            V = np.linalg.inv(((a / s) ** 2 + 1 / data_std**2) * np.eye(D))
        C = t.sigma_y**2 * np.eye(len(A)) + A @ V @ A.T
        rest = t.y - A @ x0
        u = cg(C, rest, iterations) if iterations else np.linalg.solve(C, rest)
        X = x0 + V @ A.T @ u
        if draw:
            c = 1 / ((a / s) ** 2 + 1 / data_std**2)
            e, n = np.sqrt(c) * t.z(i, "x0"), t.sigma_y * t.z(i, "measurement", (len(A),))
            S = c * A @ A.T + t.sigma_y**2 * np.eye(len(A))
            X = X + e + c * A.T @ np.linalg.pinv(S, 1e-12) @ (n - A @ e)
        x = ddim(x, X, a, s, b, r, t.z(i, "step"), eta_ddim)
    return x


@on_schedules
@pytest.mark.parametrize("eta_ddim", [0.0, 0.5, 1.0])
def test_unconditional(schedule, eta_ddim):
    assert_agrees("unconditional", {"eta_ddim": eta_ddim}, "wide", 0.1, schedule)


@on_schedules
@on_matrices
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"loss": "l2sq", "zeta": 0.3},
        {"loss": "gaussian", "zeta": 0.002},
        {"loss": "l2", "zeta": 0.5, "eta_ddim": 0.4},
        {"zeta": 0.0},
    ],
    ids=str,
)
def test_dps(schedule, matrix, knobs):
    assert_agrees("dps", knobs, matrix, 0.1, schedule)


@on_schedules
@pytest.mark.parametrize("eta_ddim", [0.0, 1.0])
@pytest.mark.parametrize("guidance", ["paper", "score"])
@pytest.mark.parametrize(
    ("matrix", "sigma_y"), [("wide", 0.1), ("tall", 0.1), ("benign", 0.0), ("tall", 0.0)]
)
def test_pigdm(schedule, matrix, sigma_y, guidance, eta_ddim):
    assert_agrees("pigdm", {"eta_ddim": eta_ddim, "guidance": guidance}, matrix, sigma_y, schedule)


@pytest.mark.parametrize("guidance", ["paper", "score"])
@pytest.mark.parametrize(
    "knobs", [{"weight": 0.6}, {"data_std": 0.4}, {"weight": 3.0, "reach": math.inf}], ids=str
)
def test_pigdm_knobs(guidance, knobs):
    assert_agrees("pigdm", {"guidance": guidance, **knobs}, "wide", 0.1, VP_SCHEDULE)


@pytest.mark.parametrize("sigma_y", [0.0, 0.1])
def test_a_step_of_pigdm_that_overshoots_is_cut(sigma_y):
    """With the law taken for narrower than it is; without the cut the run is another one."""
    knobs = {"data_std": 0.1}
    assert_agrees("pigdm", knobs, "benign", sigma_y, VP_SCHEDULE)
    got, want = compare(
        "pigdm", {**knobs, "reach": math.inf}, "benign", sigma_y, VP_SCHEDULE, knobs
    )
    assert np.abs(got - want).max() > 1e-2


@on_schedules
@pytest.mark.parametrize("knobs", [{}, {"eta_b": 0.6, "eta_prop": 0.5}], ids=str)
@pytest.mark.parametrize(
    ("matrix", "sigma_y"), [("wide", 0.1), ("wide", 0.5), ("tall", 0.1), ("tall", 0.0)]
)
def test_ddrm(schedule, matrix, sigma_y, knobs):
    assert_agrees("ddrm", knobs, matrix, sigma_y, schedule)


@on_schedules
@pytest.mark.parametrize("matrix", ["wide", "tall"])
@pytest.mark.parametrize("eta_prop", [0.0, 0.85, 1.0])
def test_ddnm(schedule, matrix, eta_prop):
    assert_agrees("ddnm", {"eta_prop": eta_prop}, matrix, 0.0, schedule)


@on_schedules
@pytest.mark.parametrize("eta_prop", [0.5, 0.85])
@pytest.mark.parametrize(
    ("matrix", "sigma_y"), [("wide", 0.1), ("wide", 0.5), ("tall", 0.1), ("tall", 0.0)]
)
def test_ddnm_plus(schedule, matrix, sigma_y, eta_prop):
    assert_agrees("ddnm+", {"eta_prop": eta_prop}, matrix, sigma_y, schedule)


@on_schedules
@pytest.mark.parametrize("final", ["proximal", "denoised"])
@pytest.mark.parametrize(("matrix", "sigma_y"), [("wide", 0.1), ("tall", 0.1), ("benign", 0.0)])
def test_diffpir(schedule, matrix, sigma_y, final):
    assert_agrees("diffpir", {"final": final}, matrix, sigma_y, schedule)
    assert_agrees("diffpir", {"final": final, "lam": 5.0, "zeta": 0.9}, matrix, sigma_y, schedule)


@on_schedules
@on_matrices
@pytest.mark.parametrize("eta_ddim", [0.0, 1.0])
def test_mmps(schedule, matrix, eta_ddim):
    """The exact solution, which conjugate gradients reach in as many steps as there are modes."""
    knobs = {"eta_ddim": eta_ddim}
    assert_agrees("mmps", knobs, matrix, 0.1, schedule, library_knobs={**knobs, "iterations": 40})


@on_schedules
@pytest.mark.parametrize("knobs", [{"eta_ddim": 0.3}, {"data_std": 0.4}], ids=str)
@pytest.mark.parametrize(("matrix", "sigma_y"), [("wide", 0.1), ("tall", 0.1), ("benign", 0.0)])
def test_mmps_with_a_drawn_x0(schedule, matrix, sigma_y, knobs):
    knobs = {"draw": True, **knobs}
    library = {**knobs, "iterations": 40}
    assert_agrees("mmps", knobs, matrix, sigma_y, schedule, library_knobs=library)


@on_schedules
@on_matrices
@pytest.mark.parametrize("iterations", [1, 3])
def test_mmps_truncated(schedule, matrix, iterations):
    """Conjugate gradients that stop early are part of the published method."""
    assert_agrees("mmps", {"iterations": iterations}, matrix, 0.1, schedule)


@on_schedules
@on_matrices
@pytest.mark.parametrize(
    "knobs", [{}, {"data_std": 0.4, "eta_ddim": 0.3, "iterations": 2}], ids=str
)
def test_mmps_without_a_gradient(schedule, matrix, knobs):
    knobs = {"covariance": "white", **knobs}
    library = {"iterations": 40, **knobs}
    assert_agrees("mmps", knobs, matrix, 0.1, schedule, library_knobs=library)


@pytest.mark.parametrize(
    ("name", "knobs", "wrong"),
    [
        ("dps", {}, {"zeta": 1.001}),
        ("pigdm", {}, {"weight": 1.001}),
        ("pigdm", {}, {"data_std": 1.001}),
        ("pigdm", {"guidance": "paper"}, {"guidance": "score"}),
        ("mmps", {"iterations": 16, "draw": True}, {"draw": True, "data_std": 1.001}),
        ("mmps", {"iterations": 16}, {"draw": True}),
        ("ddrm", {}, {"eta_prop": 0.851}),
        ("ddnm", {}, {"eta_prop": 0.851}),
        ("ddnm+", {}, {"eta_prop": 0.851}),
        ("diffpir", {}, {"lam": 1.751}),
        ("mmps", {"iterations": 3}, {"iterations": 2}),
        (
            "mmps",
            {"iterations": 16, "covariance": "white"},
            {"iterations": 16, "covariance": "white", "data_std": 1.001},
        ),
        ("mmps", {"iterations": 16, "covariance": "white"}, {"iterations": 16}),
        ("unconditional", {}, {"eta_ddim": 0.999}),
    ],
)
def test_a_knob_off_by_a_little_is_seen(name, knobs, wrong):
    """Negative twin of every test above: agreement is no accident of a lax tolerance."""
    sigma_y = 0.0 if name == "ddnm" else 0.1
    got, want = compare(name, wrong, "benign", sigma_y, VP_SCHEDULE, library_knobs=knobs)
    assert np.abs(got - want).max() > 1e-6


# ---- two names for one sampling step


@on_schedules
@pytest.mark.parametrize("sigma_y", [0.0, 0.1, 0.5])
def test_ddnm_plus_is_ddrm_with_eta_b_1_in_every_step(schedule, sigma_y):
    """From the same state with the same noise; their starts differ, and only these.

    At sigma_y = 0 the last step is a tie (y is exactly as precise as the next level): both keep y.
    """
    A = Dense(torch.tensor(MATRICES["wide"]), SHAPE)
    problem = Problem(seeded(ROWS, 7), A, GaussianNoise(sigma_y), SHAPE)
    rng = Rng.of(SEEDS)
    one = registry()["ddrm"](eta_b=1.0, schedule=schedule)
    two = registry()["ddnm+"](schedule=schedule)
    for state in states(one, problem, LIBRARY_PRIOR, rng)[:-1]:
        a = one.step(state, problem, LIBRARY_PRIOR, rng.at(state.step))
        b = two.step(state, problem, LIBRARY_PRIOR, rng.at(state.step))
        scale = max(1.0, float(a.x.abs().max()))
        torch.testing.assert_close(b.x, a.x, rtol=0, atol=1e-12 * scale)
        torch.testing.assert_close(b.x0, a.x0, rtol=0, atol=0)


@on_schedules
def test_mmps_without_a_jacobian_is_diffpirs_data_step(schedule):
    """Both are the mean of N(x0, V) after y: V = v^2 / lam for DiffPIR, the true V for MMPS.

    With an isotropic prior N(0, tau), V is isotropic too, and a lam can be chosen to match.
    """
    A = Dense(torch.tensor(MATRICES["wide"]), SHAPE)
    problem = Problem(seeded(ROWS, 7), A, GaussianNoise(0.1), SHAPE)
    prior = GaussianPrior(torch.zeros(SHAPE).double(), torch.tensor(0.7, dtype=torch.float64))
    rng = Rng.of(SEEDS)
    mmps_solver = registry()["mmps"](iterations=16, schedule=schedule)
    for state in states(mmps_solver, problem, prior, rng)[:-1]:
        v2 = mmps_solver.levels[state.step].sigma ** 2
        lam = v2 * (1 / 0.7 + 1 / v2)  # v^2 / V
        same = dataclasses.replace(registry()["diffpir"](schedule=schedule), lam=lam)
        a = mmps_solver.step(state, problem, prior, rng.at(state.step))
        b = same.step(state, problem, prior, rng.at(state.step))
        torch.testing.assert_close(b.x0, a.x0, rtol=1e-9, atol=1e-9)
