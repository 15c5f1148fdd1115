"""DDRM-JPEG, and the forms of PiGDM and DDNM for measurements through which no gradient passes.

The second versions take h and h^+ as functions of numpy vectors: a matrix and its pseudo-inverse,
rounding to bins by a formula, and the JPEG codec called by hand.
"""

from __future__ import annotations

import dataclasses
import io
import math

import numpy as np
import pytest
import torch
from dense import (
    LIBRARY_PRIOR,
    PRIOR,
    ROWS,
    SEEDS,
    SHAPE,
    STEPS,
    VP_SCHEDULE,
    D,
    Task,
    assert_agrees,
    compare,
    ddim,
    on_matrices,
    on_schedules,
    random_matrix,
    transcription,
)
from PIL import Image
from scalar import Moments, assert_follows, each_gain, each_schedule, moments, pairs, shrink

import invdiff.operators as ops
from helpers import exploding, seeded, seeds, states
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, VP
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.solvers import registry
from invdiff.solvers.ddrm_jpeg import DDRMJPEG
from invdiff.solvers.pigdm import PiGDM

# ---- the algorithms, for any h and h^+


def ddrm_jpeg_of(t: Task, h, pinv, eta_prop=1.0, eta_b=0.4, mix="variance"):
    """Kawar et al. 2022: x_T = a h^+(y) + s z; X = D - h^+(h(D)) + h^+(y);
    X' = eta_b X + (1 - eta_b) D; x_s = a_s X' + s_s (eta z + sqrt(1 - eta^2) e)."""
    (a0, s0) = t.levels[0]
    x = a0 * pinv(t.y) + s0 * t.z(-1, "init")
    for i, a, s, b, r in t.moves:
        x0 = PRIOR.D(x, a, s)
        eps = (x - a * x0) / s
        X = x0 - pinv(h(x0)) + pinv(t.y)
        mixed = eta_b * X + (1 - eta_b) * x0
        old = 1 - eta_prop if mix == "linear" else math.sqrt(1 - eta_prop**2)
        x = b * mixed + r * (eta_prop * t.z(i, "step") + old * eps)
    return x


def pigdm_of(t: Task, h, pinv, weight=1.0, eta_ddim=1.0, guidance="score"):
    """Song et al. 2023: g = J^T (h^+(y) - h^+(h(D))), nothing differentiated but D; or D moves by
    Cov[x0 | x_t] of that over r^2, and no step goes beyond (h^+(y) - h^+(h(D)))."""
    a0, s0 = t.levels[0]
    start = a0 * pinv(t.y) if guidance == "paper" else 0.0
    x = start + s0 * t.z(-1, "init")
    for i, a, s, b, r in t.moves:
        x0 = PRIOR.D(x, a, s)
        gap = pinv(t.y) - pinv(h(x0))
        if guidance == "score":
            move = weight * (a**2 + s**2) / s**2 * PRIOR.cov(a, s) @ gap
            share = 1 - (r * a / (b * s)) ** 2
            if r > 0 and share * gap @ move > gap @ gap:
                move = move * (gap @ gap) / (share * gap @ move)
            x = ddim(x, x0 + move, a, s, b, r, t.z(i, "step"), eta_ddim)
            continue
        g = PRIOR.J(a, s).T @ gap
        x = ddim(x, x0, a, s, b, r, t.z(i, "step"), eta_ddim) + weight * b * a * g
    return x


def ddnm_of(t: Task, h, pinv, eta_prop=0.85):
    x = t.start()
    for i, a, s, b, r in t.moves:
        x0 = PRIOR.D(x, a, s)
        eps = (x - a * x0) / s
        X = x0 - pinv(h(x0)) + pinv(t.y)
        x = b * X + r * (eta_prop * t.z(i, "step") + math.sqrt(1 - eta_prop**2) * eps)
    return x


@transcription("ddrm-jpeg")
def ddrm_jpeg(t: Task, **knobs):
    pinv = np.linalg.pinv(t.A)
    return ddrm_jpeg_of(t, lambda x: t.A @ x, lambda y: pinv @ y, **knobs)


OF = {"ddrm-jpeg": ddrm_jpeg_of, "pigdm": pigdm_of, "ddnm": ddnm_of}


# ---- measurements by hand


def same(y):
    return y


def rounded(x):
    """To the centres of 6 bins of [-1, 1]."""
    return -1 + (2 * np.clip(np.floor(3 * (x + 1)), 0, 5) + 1) / 6


def halves(x):
    """Means over blocks of 2 x 2 pixels of a 4 x 4 image."""
    return x.reshape(2, 2, 2, 2).mean((1, 3)).ravel()


def doubled(y):
    return y.reshape(2, 2).repeat(2, 0).repeat(2, 1).ravel()


def codec(x):
    buffer = io.BytesIO()
    array = np.rint(127.5 * (np.clip(x, -1, 1) + 1)).astype(np.uint8).reshape(4, 4)
    Image.fromarray(array).save(buffer, "JPEG", quality=30)
    return np.asarray(Image.open(buffer)).ravel() / 127.5 - 1


POOL = ops.AveragePool(2, (4, 4))
MEASURED = {
    "quantize": (ops.Quantize(6), rounded, same),
    "quantize-pool": (ops.Quantize(6) @ POOL, lambda x: rounded(halves(x)), doubled),
    "jpeg": (ops.JPEG(30), codec, same),
}
measured = pytest.mark.parametrize("name", MEASURED)


def compare_measured(solver_name, name, schedule, knobs, library_knobs=None):
    """(library's samples, transcription's samples), both (ROWS, D), for a nonlinear measurement."""
    A, h, pinv = MEASURED[name]
    truth = PRIOR.mu + random_matrix(ROWS, D, 6) @ np.linalg.cholesky(PRIOR.Sigma).T
    y = np.stack([h(x) for x in truth])
    shape = A.y_shape(SHAPE)
    problem = Problem(torch.tensor(y).reshape(ROWS, *shape), A, NOISELESS, SHAPE)
    torch.testing.assert_close(A(torch.tensor(truth).reshape(ROWS, *SHAPE)), problem.y)
    solver = registry()[solver_name](**(library_knobs or knobs), schedule=schedule)
    rng = Rng.of(SEEDS)
    got = states(solver, problem, LIBRARY_PRIOR, rng)[-1].x.flatten(1).numpy()

    def one(row):
        def z(step, role):
            like = torch.empty(1, *SHAPE, dtype=torch.float64)
            return rng.rows([row]).at(step).normal(like, role).numpy().ravel()

        levels = [(level.a, level.s) for level in schedule.levels()]
        return OF[solver_name](Task(np.eye(D), y[row], 0.0, z, levels), h, pinv, **knobs)

    return got, np.stack([one(row) for row in range(ROWS)])


KNOBS = [
    ("ddrm-jpeg", {}),
    ("ddrm-jpeg", {"eta_prop": 0.6, "eta_b": 0.8}),
    ("ddrm-jpeg", {"eta_prop": 0.6, "mix": "linear"}),
    ("pigdm", {}),
    ("pigdm", {"weight": 0.6, "eta_ddim": 0.3}),
    ("pigdm", {"guidance": "paper"}),
    ("pigdm", {"guidance": "paper", "weight": 0.6, "eta_ddim": 0.3}),
    ("ddnm", {}),
]


@on_schedules
@measured
@pytest.mark.parametrize(("solver", "knobs"), KNOBS, ids=str)
def test_with_measurements_that_are_not_linear(solver, knobs, name, schedule):
    got, want = compare_measured(solver, name, schedule, knobs)
    assert np.isfinite(want).all() and np.abs(want).max() < 1e4
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("solver", "knobs", "wrong"),
    [
        ("ddrm-jpeg", {}, {"eta_b": 0.401}),
        ("ddrm-jpeg", {"eta_prop": 0.6}, {"eta_prop": 0.601}),
        ("ddrm-jpeg", {"eta_prop": 0.6}, {"eta_prop": 0.6, "mix": "linear"}),
        ("pigdm", {"guidance": "paper"}, {"guidance": "paper", "weight": 1.001}),
        ("pigdm", {"guidance": "score"}, {"weight": 1.001}),
        ("ddnm", {}, {"eta_prop": 0.851}),
    ],
    ids=str,
)
def test_a_knob_off_by_a_little_is_seen_there_too(solver, knobs, wrong):
    """Negative twin."""
    knobs = knobs or {f.name: f.default for f in dataclasses.fields(registry()[solver])
                      if f.name != "schedule"}  # fmt: skip
    got, want = compare_measured(solver, "jpeg", VP_SCHEDULE, wrong, library_knobs=knobs)
    assert np.abs(got - want).max() > 1e-6


@on_schedules
@on_matrices
@pytest.mark.parametrize(
    "knobs",
    [{}, {"eta_prop": 0.5, "eta_b": 1.0}, {"eta_prop": 0.5, "mix": "linear"}, {"eta_b": 0.0}],
    ids=str,
)
def test_ddrm_jpeg(schedule, matrix, knobs):
    assert_agrees("ddrm-jpeg", knobs, matrix, 0.0, schedule)


def test_a_knob_off_by_a_little_is_seen():
    for wrong in ({"eta_b": 0.401}, {"eta_prop": 0.999}):
        got, want = compare("ddrm-jpeg", wrong, "benign", 0.0, VP_SCHEDULE, library_knobs={})
        assert np.abs(got - want).max() > 1e-6


# ---- the closed form on a scalar normal prior


def recursion(schedule, gain, eta, eta_b, mix):
    """Mean coefficient of y / s, and variance: X' = eta_b y / s + (1 - eta_b) x0 where s > 0."""
    top = schedule.levels()[0]
    m, V = (top.a if gain else 0.0), top.s**2
    old = 1 - eta if mix == "linear" else math.sqrt(1 - eta**2)
    weight = eta_b if gain else 0.0
    for t, u in pairs(schedule):
        d = shrink(t)
        own = u.a * (1 - weight) * d + u.s * old * (1 - t.a * d) / t.s
        m, V = own * m + u.a * weight, own**2 * V + (eta * u.s) ** 2
        yield Moments(m, V)


@each_gain
@each_schedule
@pytest.mark.parametrize("mix", ["variance", "linear"])
@pytest.mark.parametrize(("eta", "eta_b"), [(1.0, 0.4), (0.6, 0.4), (0.0, 1.0), (0.6, 0.0)])
def test_it_follows_its_recursion(schedule, gain, eta, eta_b, mix):
    solver = DDRMJPEG(eta_prop=eta, eta_b=eta_b, mix=mix, schedule=schedule)
    assert_follows(solver, gain, 0.0, recursion(schedule, gain, eta, eta_b, mix))


@pytest.mark.parametrize("gain", [1.0, 0.0])
def test_moments_do_not_depend_on_the_frame(gain):
    schedule = VP(20, top=300)
    a, b = (
        moments(DDRMJPEG(eta_prop=0.6, schedule=p), gain, 0.0)[-1]
        for p in (schedule, exploding(schedule))
    )
    assert b == pytest.approx(a, rel=1e-10, abs=1e-12)


# ---- the noise mix of the official code


def noise_at(mix, eta):
    """Variance of x in an unseen mode at every level but the last, over that of its level.

    A denoiser that knows the truth, D = 0 for x0 = 0: what is left of x is noise alone.
    """
    schedule = VP(20, top=300)
    knows = Denoiser(lambda x, sigma: 0.0 * x)
    problem = Problem(
        torch.zeros(1, 1, 200, 200), ops.Identity(), GaussianNoise(0.0), (1, 200, 200)
    )
    solver = DDRMJPEG(eta_prop=eta, eta_b=0.0, mix=mix, schedule=schedule)
    found = states(solver, problem, knows, Rng.of([0]))[:-1]
    return [float(s.x.var()) / t.s**2 for s, t in zip(found, schedule.levels(), strict=False)]


def test_the_default_mix_keeps_the_variance_of_every_level():
    """40000 draws: a relative standard error of sqrt(2 / 40000) = 0.7 %, five of them."""
    for eta in (0.0, 0.5, 0.85, 1.0):
        assert noise_at("variance", eta) == pytest.approx([1.0] * 20, abs=0.036)


def test_the_official_mix_loses_variance_between_0_and_1():
    """v <- eta^2 + (1 - eta)^2 v falls to eta^2 / (1 - (1 - eta)^2) = 1/3 at eta = 1/2."""
    found = noise_at("linear", 0.5)
    assert found[0] == pytest.approx(1, abs=0.036)
    assert found[1] == pytest.approx(0.5, abs=0.02)
    assert found[-1] == pytest.approx(1 / 3, abs=0.013)
    for eta in (0.0, 1.0):
        assert noise_at("linear", eta) == noise_at("variance", eta)


# ---- what the paper and its code promise


def test_the_default_path_is_the_official_grid():
    solver = DDRMJPEG()
    assert solver.schedule.indices() == list(range(285, -1, -15))
    assert solver.num_steps == 20
    assert solver.levels[0].sigma == pytest.approx(1.149, abs=5e-4)
    assert solver.with_steps(10).schedule.indices() == list(range(270, -1, -30))


def test_eta_b_0_does_not_look_at_y_again():
    """y enters by the start alone: without guidance it is the plain sampler from there."""
    one, two = (
        Problem(v * seeded(2, *SHAPE), ops.Quantize(4), NOISELESS, SHAPE) for v in (1.0, -0.5)
    )
    rng = Rng.of(seeds(2))
    for mix in ("variance", "linear"):
        solver = DDRMJPEG(eta_b=0.0, eta_prop=0.7, mix=mix)
        for state in states(solver, one, LIBRARY_PRIOR, rng)[:-1]:
            a = solver.step(state, one, LIBRARY_PRIOR, rng.at(state.step))
            b = solver.step(state, two, LIBRARY_PRIOR, rng.at(state.step))
            assert torch.equal(a.x, b.x) and torch.equal(a.x0, b.x0)


def test_with_eta_prop_0_it_is_deterministic_ddim():
    """eta_b = 0 and no fresh noise: the plain sampler's steps at eta_ddim 0, bit for bit."""
    problem = Problem(0.5 * seeded(2, *SHAPE), ops.Quantize(4), NOISELESS, SHAPE)
    rng, schedule = Rng.of(seeds(2)), VP(20, top=300)
    ours = DDRMJPEG(eta_b=0.0, eta_prop=0.0, schedule=schedule)
    plain = registry()["unconditional"](eta_ddim=0.0, schedule=schedule)
    for state in states(ours, problem, LIBRARY_PRIOR, rng)[:-1]:
        a = ours.step(state, problem, LIBRARY_PRIOR, rng.at(state.step))
        b = plain.step(state, problem, LIBRARY_PRIOR, rng.at(state.step))
        assert torch.equal(a.x, b.x)


def test_quantised_data_are_kept_by_full_weight():
    """With eta_b = 1, X differs from D by what y says; where D quantises to y already, not at all,
    and such a D is returned as it is: the fixed point of the data step."""
    A = ops.Quantize(4)
    truth = 0.9 * torch.tanh(seeded(2, *SHAPE))
    problem = Problem(A(truth), A, NOISELESS, SHAPE)
    knows = Denoiser(lambda x, sigma: truth)
    for name in ("ddrm-jpeg", "ddnm"):
        samples = solve(problem, knows, registry()[name]().with_steps(5)).samples
        assert torch.equal(samples[:, 0], truth)


def test_pigdm_needs_no_gradient_of_a_noiseless_measurement():
    """JPEG.vjp would raise; and the noiseless linear form is the limit of the noisy one, which
    differs from it by a multiple of sigma_y^2."""
    A, schedule = ops.AveragePool(2, (4, 4)), VE(STEPS, 20.0, 0.02)
    y = A(seeded(2, *SHAPE))
    found = []
    for sigma in (0.0, 1e-4, 1e-3):
        solver = PiGDM(schedule=schedule)
        problem = Problem(y, A, GaussianNoise(sigma), SHAPE)
        found.append(states(solver, problem, LIBRARY_PRIOR, Rng.of(seeds(2)))[-1].x)
    near, far = (float((x - found[0]).abs().max()) for x in found[1:])
    assert 0 < near < far / 50 and far < 0.05
    problem = Problem(ops.JPEG(50)(seeded(2, *SHAPE) / 3), ops.JPEG(50), NOISELESS, SHAPE)
    result = solve(problem, LIBRARY_PRIOR, PiGDM(schedule=VP(5)))
    assert (result.nfe, result.vjps) == (5, 5) and result.samples.isfinite().all()
