"""RED-diff: a second version in numpy, torch's own Adam as an oracle, and its known defects.

Adam is not affine in (y, noise), so the impulse method of scalar.py does not apply: on the scalar
normal prior, its states are compared with a recursion in plain Python on given draws, and the
stationary point of the expected objective, which is closed-form, is a fixed point.
"""

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
    Task,
    assert_agrees,
    compare,
    on_matrices,
    on_schedules,
    transcription,
)
from scalar import GAINS, SIGMA_Y, each_gain, each_schedule, measured
from scalar import PRIOR as SCALAR_PRIOR

from helpers import Dense, Given, Levels, exploding, noise_names, seeded, states
from invdiff.core import InvdiffError, Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP
from invdiff.noise import GaussianNoise, Poisson
from invdiff.operators import HDR, Identity, Inpaint, NonlinearBlur, PhaseRetrieval
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.needs import IncompatibleError, Need, missing
from invdiff.sampling.run import solve
from invdiff.sampling.state import State
from invdiff.sampling.stream import DivergedError, stream
from invdiff.solvers.reddiff import OFFICIAL, WEIGHTS, REDDiff, first_fit, kept

W = {
    "linear": lambda v: v,
    "sqrt": lambda v: v**0.5,
    "square": lambda v: v * v,
    "log": lambda v: np.log(1 + v),
    "clip": lambda v: np.clip(v, 0, 1),
    "two-thirds": lambda v: np.cbrt(v) ** 2,
    "const": lambda v: 1,
}


@transcription("reddiff")
def reddiff(
    t: Task,
    lam=30.0,
    lr=0.1,
    weight="linear",
    scaling="likelihood",
    obs_weight=1.0,
    sigma_floor=0.01,
    sigma0=0.0,
    init_from="adjoint",
):
    """Mardani et al. 2023, Algorithm 1; Kingma and Ba 2015, Algorithm 1."""
    A, (a0, s0) = t.A, t.levels[0]
    g = A.T @ t.y
    mu = {
        "adjoint": lambda: g * (g @ g) / (A @ g @ A @ g),
        "pinv": lambda: np.linalg.pinv(A) @ t.y,
        "zeros": lambda: 0 * g,
        "prior": lambda: PRIOR.D(s0 * t.z(-1, "init"), a0, s0),
    }[init_from]()
    data_scale = obs_weight / max(t.sigma_y, sigma_floor) ** 2
    prior_scale = lam
    if scaling == "official":
        data_scale, prior_scale = obs_weight / len(t.y), lam / len(mu)
    m, v = 0 * mu, 0 * mu
    for i, a, s, _, _ in t.moves:
        x0 = mu + (sigma0 * t.z(i, "spread") if sigma0 else 0)
        eps = t.z(i, "step")
        predicted = -s * PRIOR.score(a * x0 + s * eps, a, s)
        g = data_scale * A.T @ (A @ x0 - t.y) + prior_scale * W[weight](s / a) * (predicted - eps)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        m_hat, v_hat = m / (1 - 0.9 ** (i + 1)), v / (1 - 0.99 ** (i + 1))
        mu = mu - lr * m_hat / (np.sqrt(v_hat) + 1e-8)
    return mu


@on_schedules
@on_matrices
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"lam": 3.0, "lr": 0.02, "sigma0": 0.2},
        {"scaling": "official", "obs_weight": 2.0, "lr": 0.5},
        {"init_from": "pinv", "sigma_floor": 0.5},
        {"init_from": "prior", "obs_weight": 0.3},
        {"init_from": "zeros", "lam": 0.0},
    ],
    ids=str,
)
def test_reddiff(schedule, matrix, knobs):
    assert_agrees("reddiff", knobs, matrix, 0.1, schedule)


@pytest.mark.parametrize("weight", W)
def test_weights(weight):
    assert_agrees("reddiff", {"weight": weight, "lam": 2.0}, "benign", 0.1, VP_SCHEDULE)
    assert set(W) == set(WEIGHTS)


@pytest.mark.parametrize(
    ("knob", "wrong"),
    [("lam", 30.1), ("lr", 0.1001), ("obs_weight", 1.01), ("sigma0", 1e-3), ("weight", "log")],
)
def test_a_knob_off_by_a_little_is_seen(knob, wrong):
    got, want = compare("reddiff", {knob: wrong}, "benign", 0.1, VP_SCHEDULE, library_knobs={})
    assert np.abs(got - want).max() > 1e-6


# ---- torch's Adam and automatic differentiation, on the loss as the paper writes it


def setting(sigma_y=0.1, dtype=torch.float64):
    A = Dense(torch.tensor(MATRICES["benign"]), SHAPE)
    return Problem(seeded(ROWS, 6, dtype=dtype), A, GaussianNoise(sigma_y), SHAPE)


@pytest.mark.parametrize("scaling", ["likelihood", "official"])
def test_it_is_adam_on_the_objective(scaling):
    """The official loss is one mean over a batch; for one image, it is a mean over its entries."""
    problem = setting().rows(torch.tensor([1]))
    solver = REDDiff(lam=0.7, lr=0.05, scaling=scaling, schedule=VP(30))
    rng = Rng.of(SEEDS[:1])
    found = states(solver, problem, LIBRARY_PRIOR, rng)
    mu = found[0].x.clone().requires_grad_()
    adam = torch.optim.Adam([mu], lr=0.05, betas=(0.9, 0.99))
    for k, level in enumerate(solver.levels[:-1]):
        eps = rng.at(k).normal(found[0].x, "step")
        with torch.no_grad():
            e = LIBRARY_PRIOR.eps(level.a * mu + level.s * eps, level)
        fit, prior = (problem.y - problem.A(mu)) ** 2 / 2, level.s / level.a * (e - eps) * mu
        if scaling == "official":
            loss = fit.mean() + 0.7 * prior.mean()
        else:
            loss = fit.sum() / 0.1**2 + 0.7 * prior.sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        torch.testing.assert_close(found[k + 1].x, mu.detach(), rtol=1e-9, atol=1e-9)


# ---- the scalar normal prior


def draws(step: int, role: str) -> torch.Tensor:
    return torch.tensor([math.cos(3.0 * step + len(role))], dtype=torch.float64)


@each_gain
@each_schedule
def test_reddiff_follows_its_recursion(schedule, gain):
    """In plain Python floats; D(x_t) = a x_t / (a^2 + s^2), and e - eps = (mu - D) / v."""
    solver = REDDiff(lam=30.0, lr=0.03, init_from="zeros", schedule=schedule)
    y = 0.8 * (gain or 1.0)
    problem = measured(gain, torch.tensor([y], dtype=torch.float64), SIGMA_Y)
    mu, m, v = 0.0, 0.0, 0.0
    rng = Given((0,), table=draws)
    for k, state in enumerate(states(solver, problem, SCALAR_PRIOR, rng)[1:]):
        level = solver.levels[k]
        xt = level.a * mu + level.s * float(draws(k, "step"))
        D = level.a * xt / (level.a**2 + level.s**2)
        g = gain * (gain * mu - y) / SIGMA_Y**2 + 30.0 * (mu - D)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        root = math.sqrt(v / (1 - 0.99 ** (k + 1)))
        mu -= 0.03 * m / (1 - 0.9 ** (k + 1)) / (root + 1e-8)
        assert float(state.x) == pytest.approx(mu, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("weight", ["linear", "square", "const"])
@each_gain
def test_the_stationary_point_of_the_expected_objective(gain, weight):
    """At one level: (s^2 / sigma_y^2 + lam w(v) c) mu = s y / sigma_y^2, c = v / (1 + v^2).

    c mu = E[e - eps]. There the gradient with eps = 0 is 0, so the state stays; beside it, Adam's
    first step is lr towards it.
    """
    v, y = 0.7, 0.4
    level = Level(1.0, v)
    schedule = Levels(2, given=(level, level, Level(1.0, 0.0)))
    solver = REDDiff(lam=5.0, lr=0.01, weight=weight, schedule=schedule)
    problem = measured(gain, torch.tensor([y], dtype=torch.float64), SIGMA_Y)
    precision = gain**2 / SIGMA_Y**2
    fixed = gain * y / SIGMA_Y**2 / (precision + 5.0 * W[weight](v) * v / (1 + v**2))
    rng = Given((0,), table=lambda step, role: torch.zeros(1, dtype=torch.float64))
    for start, move in ((fixed, 0.0), (fixed + 0.1, -0.01), (fixed - 0.1, 0.01)):
        x = torch.full((1, 1, 1, 1), start, dtype=torch.float64)
        state = State(0, x, x, {"m": 0 * x, "v": 0 * x})
        after = solver.step(state, problem, SCALAR_PRIOR, rng.at(0))
        # g is 0 up to a round-off of 1e-13, of which Adam's division by 1e-8 leaves 1e-5 lr
        assert float(after.x - x) == pytest.approx(move, abs=1e-6)


# ---- the start


@pytest.mark.parametrize("gain", GAINS[:-1])
def test_the_first_fit_is_exact_for_a_multiple_of_the_identity(gain):
    problem = measured(gain, torch.tensor([0.3, -0.2], dtype=torch.float64), 0.0)
    torch.testing.assert_close(first_fit(problem), problem.y / gain, rtol=1e-13, atol=0)


def test_the_first_fit_of_a_saturated_measurement_is_its_official_start():
    """HDR: y / gain, which is the official A^+."""
    y = HDR()(seeded(2, 3, 5, 4))
    found = first_fit(Problem(y, HDR(), GaussianNoise(0.1), (3, 5, 4)))
    torch.testing.assert_close(found, y / 2, rtol=1e-10, atol=1e-10)


def test_the_first_fit_is_0_where_the_operator_has_no_gradient():
    problem = Problem(seeded(1, 1, 12, 12).abs(), PhaseRetrieval(), GaussianNoise(0.1), (1, 8, 8))
    assert not first_fit(problem).any()


def test_the_first_fit_lowers_the_misfit_of_a_nonlinear_blur():
    ramp = torch.linspace(-0.8, 0.8, 12, dtype=torch.float64)
    A, x = NonlinearBlur(radius=2), (ramp[:, None] * ramp.flip(0)).expand(1, 3, 12, 12)
    problem = Problem(A(x), A, GaussianNoise(0.1), (3, 12, 12))
    at_zero = problem.residual(0 * x).norm()
    assert problem.residual(first_fit(problem)).norm() < 0.9 * at_zero


# ---- what the official code does not do, or does otherwise


def final(solver, problem, prior=LIBRARY_PRIOR):
    return states(solver, problem, prior, Rng.of(SEEDS[: problem.batch]))[-1].x


def test_the_noise_level_enters():
    likelihood, official = (
        REDDiff(schedule=VP_SCHEDULE),
        REDDiff(scaling="official", schedule=VP_SCHEDULE),
    )
    one, two = setting(0.1), setting(0.2)
    assert (final(likelihood, one) - final(likelihood, two)).abs().max() > 1e-3
    assert torch.equal(final(official, one), final(official, two))


def test_lam_means_the_same_for_every_operator():
    """Rows of zeros measure nothing. With means, they halve the weight of the data."""
    matrix = torch.tensor(MATRICES["benign"])
    problem = setting()
    wider = Dense(torch.cat([matrix, 0 * matrix]), SHAPE)
    y = torch.nn.functional.pad(problem.y, (0, 6))
    padded = Problem(y, wider, problem.noise, SHAPE)
    for scaling, same in (("likelihood", True), ("official", False)):
        solver = REDDiff(lam=20.0, scaling=scaling, schedule=VP_SCHEDULE)
        gap = (final(solver, problem) - final(solver, padded)).abs().max()
        assert (gap < 1e-9) == same and (same or gap > 1e-3)


def test_a_run_does_not_depend_on_the_frame():
    """e - eps = (mu - D) / v: only v = s / a enters, and mu is an image in any frame."""
    one, two = (
        REDDiff(lam=3.0, schedule=schedule) for schedule in (VP_SCHEDULE, exploding(VP_SCHEDULE))
    )
    torch.testing.assert_close(final(one, setting()), final(two, setting()), rtol=1e-9, atol=1e-9)


def test_the_last_update_is_returned():
    problem, solver = setting(), REDDiff(schedule=VP_SCHEDULE)
    found = states(solver, problem, LIBRARY_PRIOR, Rng.of(SEEDS))
    last = solver.finish(found[-1], problem, LIBRARY_PRIOR, Rng.of(SEEDS))
    assert torch.equal(last, found[-1].x) and not torch.equal(last, found[-2].x)


def test_a_noiseless_measurement_has_the_noise_of_the_floor():
    solver = REDDiff(sigma_floor=0.03, schedule=VP_SCHEDULE)
    assert torch.equal(final(solver, setting(0.0)), final(solver, setting(0.03)))
    assert not torch.equal(final(solver, setting(0.0)), final(solver, setting(0.04)))


def test_without_weight_the_data_are_ignored_bit_for_bit():
    solver = REDDiff(obs_weight=0.0, init_from="zeros", schedule=VP_SCHEDULE)
    one = setting()
    two = Problem(3 * one.y + 1, one.A, one.noise, SHAPE)
    assert torch.equal(final(solver, one), final(solver, two))
    assert not torch.equal(
        final(REDDiff(schedule=VP_SCHEDULE), one), final(REDDiff(schedule=VP_SCHEDULE), two)
    )


def test_samples_differ_by_the_noise_of_the_steps_alone():
    """Mode seeking: the start is the same for all seeds, unless it is asked of the prior."""
    problem = setting()
    fixed, drawn = REDDiff(schedule=VP(3)), REDDiff(init_from="prior", schedule=VP(3))
    steps = [(k, "step") for k in range(3)]
    assert noise_names(fixed, problem, LIBRARY_PRIOR) == steps
    assert noise_names(drawn, problem, LIBRARY_PRIOR) == [(-1, "init"), *steps]
    assert REDDiff.claim == "heuristic"


def test_needs_follow_the_knobs():
    assert REDDiff().requires()[0] == {Need.OPERATOR_VJP, Need.GAUSSIAN}
    assert REDDiff(scaling="official").requires()[0] == {Need.OPERATOR_VJP}
    assert REDDiff(init_from="pinv").requires()[0] == {Need.OPERATOR_VJP, Need.GAUSSIAN, Need.PINV}
    y = torch.zeros(1, 1, 4, 4)
    counted = Problem(y, Identity(), Poisson(10.0), (1, 4, 4))
    assert missing(REDDiff(), counted) == [Need.GAUSSIAN]
    assert missing(REDDiff(scaling="official"), counted) == []
    with pytest.raises(IncompatibleError, match="a pseudo-inverse and HDR offers none"):
        solve(
            Problem(y, HDR(), GaussianNoise(0.1), (1, 4, 4)),
            SCALAR_PRIOR,
            REDDiff(init_from="pinv"),
        )


def test_the_official_constants_are_at_hand():
    assert REDDiff.official("super-resolution") == REDDiff(
        lam=0.25,
        lr=0.1,
        scaling="official",
        init_from="guess",
        schedule=VP(50, spacing="strided"),
    )
    assert REDDiff.official("inpaint").sigma0 == 1e-4
    for task in OFFICIAL:
        assert REDDiff.official(task).lam == (1.0 if task == "inpaint-noisy" else 0.25)
    assert Need.PINV not in REDDiff.official("hdr").requires()[0]
    with pytest.raises(InvdiffError, match="did you mean inpaint"):
        REDDiff.official("inpant")


# ---- divergence


@pytest.mark.parametrize("A", [PhaseRetrieval(), Identity()], ids=["phase", "identity"])
def test_an_overflow_is_reported(A):
    """In float32 the second moment overflows first: Adam then stands still, far from anything."""
    problem = Problem(A(seeded(1, 1, 8, 8, dtype=torch.float32)), A, GaussianNoise(0.1), (1, 8, 8))
    solver = REDDiff(lr=1e25, schedule=VP(10))
    prior = Denoiser(lambda x, sigma: x / (1 + sigma**2))
    with pytest.raises(DivergedError, match=r"reddiff .* at step \d+ of 10; try a smaller lr"):
        list(stream(problem, prior, solver, [0]))


def test_final_data_keeps_to_what_was_measured():
    """Pixels that saturate where y does not come back, rows within the noise stay, and a mask's
    hole is left alone."""
    g = torch.Generator().manual_seed(0)
    truth = 0.8 * (2 * torch.rand(2, 1, 8, 8, generator=g) - 1)
    noise, A = GaussianNoise(0.01), HDR(2.0)
    y = torch.cat([A(truth[:1]), noise.sample(A(truth[1:]), Rng.of([1]))])
    problem = Problem(y, A, noise, (1, 8, 8))
    far = torch.stack([truth[0], truth[1] + 0.05])
    far[1, :, :, :4] = 0.7 * truth[1, :, :, :4].sign()
    near = kept(problem, far)
    assert torch.equal(near[0], far[0])
    rms = (problem.y - A(near)).square().flatten(1).mean(1).sqrt()
    assert float(rms[1]) == pytest.approx(0.01, rel=0.1)
    saturated = (2 * truth[1]).abs() > 1.1
    assert torch.equal(near[1].abs()[saturated] >= 0.49, torch.ones_like(near[1][saturated]) > 0)
    mask = (torch.rand(1, 1, 8, 8, generator=g) < 0.5).float()
    hole = Problem(noise.sample(mask * truth, Rng.of([0, 1])), Inpaint(mask), noise, (1, 8, 8))
    moved = kept(hole, torch.zeros_like(truth))
    assert torch.equal(moved * (1 - mask), torch.zeros_like(truth)) and bool(moved.any())


def test_final_data_changes_the_last_step_alone():
    truth = torch.full((1, 1, 4, 4), 0.3)
    problem = Problem(HDR(2.0)(truth), HDR(2.0), GaussianNoise(0.001), (1, 4, 4))
    plain = REDDiff(sigma_floor=0.5, schedule=VP(5))
    as_it_is, moved = (
        states(solver, problem, Denoiser(lambda x, sigma: 0.9 * x), Rng.of([0]))
        for solver in (plain, dataclasses.replace(plain, final="data"))
    )
    assert all(torch.equal(a.x, b.x) for a, b in zip(as_it_is[:-1], moved[:-1], strict=True))
    assert torch.equal(kept(problem, as_it_is[-1].x), moved[-1].x)
    assert not torch.equal(as_it_is[-1].x, moved[-1].x)
