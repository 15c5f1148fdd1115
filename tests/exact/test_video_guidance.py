"""Reconstruction guidance of video diffusion models (Ho et al. 2022): second version, moments,
costs, and the traps of the method that its sources leave open.

The second version is written with log-SNRs and with explicit projections onto known and unknown
coordinates; the library's code has neither.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from dense import (
    PRIOR,
    VP_SCHEDULE,
    D,
    Task,
    assert_agrees,
    compare,
    on_matrices,
    on_schedules,
    transcription,
)
from scalar import (
    GAINS,
    ROUNDING,
    SIGMA_Y,
    Moments,
    assert_follows,
    each_gain,
    each_schedule,
    final,
    pairs,
)

from helpers import Recorder, exploding, seeded, seeds, states
from invdiff.core.schedules import VE, VP
from invdiff.noise import GaussianNoise, Poisson
from invdiff.operators import AveragePool, Frames, Identity
from invdiff.priors.base import Denoiser
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem
from invdiff.sampling.needs import Need, missing
from invdiff.sampling.run import solve
from invdiff.sampling.stream import finish, stream
from invdiff.solvers.unconditional import Unconditional
from invdiff.solvers.video_guidance import VideoGuidance


@transcription("vdm")
def vdm(
    t: Task,
    weight=2.0,
    gamma=0.0,
    delta=0.0,
    replace_known=False,
    noise_aware=False,
    clip=False,
):
    """With replace_known the state is split into x^a = A^+ A x, known from y, and x^b, the rest:
    the gradient acts on D^b only, and x^a is drawn from q(x_s^a | x^a) anew after every update."""
    A, known = t.A, np.linalg.pinv(t.A) @ t.A
    xa, free = np.linalg.pinv(t.A) @ t.y, np.eye(D) - known

    def guided(x, a, s):
        gradient = -2 * PRIOR.J(a, s).T @ A.T @ (t.y - A @ PRIOR.D(x, a, s))  # of |y - A D|^2
        if noise_aware:
            v2 = (s / a) ** 2
            gradient = gradient / ((v2 + t.sigma_y**2) / v2)
        step = -(weight * a / 2) * gradient
        x0 = PRIOR.D(x, a, s) + (free @ step if replace_known else step)
        return np.clip(x0, -1, 1) if clip else x0

    def redrawn(x, b, r, z):
        return free @ x + b * xa + r * known @ z if replace_known else x

    a0, s0 = t.levels[0]
    x = redrawn(t.start(), a0, s0, t.z(-1, "init"))
    for i, a, s, b, r in t.moves:
        x0 = guided(x, a, s)
        if r == 0:
            return redrawn(b * x0, b, r, np.zeros(D))
        log_snr, log_snr_next = np.log(a**2 / s**2), np.log(b**2 / r**2)
        ratio = np.exp(log_snr - log_snr_next)
        k = 1 - ratio
        mean = ratio * (b / a) * x + k * b * x0
        variance = (k * r**2) ** (1 - gamma) * (k * s**2) ** gamma
        x = mean + np.sqrt(variance) * t.z(i, "step")
        x = redrawn(x, b, r, t.z(i, "known"))
        if delta:
            eps = (x - b * guided(x, b, r)) / r
            x = x - delta / 2 * r * eps + np.sqrt(delta) * r * t.z(i + 1, "corrector")
            x = redrawn(x, b, r, t.z(i + 1, "known, corrected"))
    return x


@on_schedules
@on_matrices
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"weight": 1.0, "gamma": 0.3},
        {"weight": 0.7, "gamma": 1.0, "delta": 0.1},
        {"weight": 1.0, "delta": 0.2, "noise_aware": True},
        {"weight": 0.0, "delta": 0.1},
    ],
    ids=str,
)
def test_it_is_the_second_version(schedule, matrix, knobs):
    assert_agrees("vdm", knobs, matrix, 0.1, schedule)


@on_schedules
@pytest.mark.parametrize("matrix", ["benign", "tall"])
@pytest.mark.parametrize(
    "knobs", [{}, {"delta": 0.1, "gamma": 0.2}, {"noise_aware": True, "delta": 0.3}], ids=str
)
def test_with_replacement_it_is_the_second_version(schedule, matrix, knobs):
    """The gradient may act on all of x: what it does to the known part is overwritten."""
    sigma_y = 0.1 if "noise_aware" in knobs else 0.0
    assert_agrees("vdm", {"replace_known": True, **knobs}, matrix, sigma_y, schedule)


@pytest.mark.parametrize("knobs", [{"clip": True}, {"clip": True, "delta": 0.1}], ids=str)
def test_clipped_it_is_the_second_version(knobs):
    assert_agrees("vdm", knobs, "benign", 0.1, VP_SCHEDULE)


@pytest.mark.parametrize(
    ("knobs", "wrong"),
    [
        ({}, {"weight": 2.001}),
        ({"gamma": 0.3}, {"gamma": 0.301}),
        ({"delta": 0.1}, {"delta": 0.101}),
        ({"delta": 0.1}, {"delta": 0.0}),
        ({"replace_known": True}, {"replace_known": False}),
        ({"noise_aware": True}, {"noise_aware": False}),
        ({"clip": True}, {"clip": False}),
    ],
    ids=str,
)
def test_a_knob_off_by_a_little_is_seen(knobs, wrong):
    """Negative twin of the tests above."""
    got, want = compare("vdm", knobs | wrong, "benign", 0.1, VP_SCHEDULE, library_knobs=knobs)
    assert np.abs(got - want).max() > 1e-6


# ---- mean and variance on a scalar normal prior

TABLE = {
    1.0: ((1.0000, 0.0000), (0.3203, 0.4500), (0.0151, 0.8959), (0, 0.9216)),
    2.0: ((1.0000, 0.0015), (0.5442, 0.2155), (0.0300, 0.8708), (0, 0.9216)),
}


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("weight", TABLE)
def test_mean_and_variance_are_the_printed_ones(weight, gain):
    """100 ancestral steps on the table indices 0, 10, ..., 990, without regard for the noise."""
    found = final(VideoGuidance(weight=weight, schedule=VP(100)), gain)
    mean, variance = TABLE[weight][GAINS.index(gain)]
    assert found.mean == pytest.approx(mean, abs=ROUNDING)
    assert found.variance == pytest.approx(variance, abs=ROUNDING)


def test_the_grid_is_part_of_the_method():
    """The same steps on 9, 19, ..., 999 end elsewhere, far outside of what rounding hides."""
    found = final(VideoGuidance(weight=1.0, schedule=VP(100, spacing="trailing")), 0.25)
    assert found.mean == pytest.approx(0.2808, abs=ROUNDING)
    assert found.variance == pytest.approx(0.5038, abs=ROUNDING)
    assert abs(found.mean - TABLE[1.0][1][0]) > 100 * ROUNDING


def recursion(schedule, gain, sigma_y=SIGMA_Y, **knobs):
    """x0 = d x + w a d s (y - s d x) / (1 + sigma_y^2 / v^2), d = a / (a^2 + s^2); the mean of
    q(x_s | x_t, x0) by Bayes' rule; then the corrector and the redrawn known part (s > 0)."""
    k = {"weight": 2.0, "gamma": 0.0, "delta": 0.0, "replace_known": False, "noise_aware": False}
    k |= knobs

    def x0(level):
        """Coefficients of (x0 on x, x0 on y/s)."""
        d = level.a / (level.a**2 + level.s**2)
        v2 = (level.s / level.a) ** 2
        pull = k["weight"] * level.a * d * gain / (1 + sigma_y**2 / v2 * k["noise_aware"])
        return d - pull * gain * d, pull * (gain or 1.0)

    top = schedule.levels()[0]
    seen = bool(gain) and k["replace_known"]
    m, V = (top.a if seen else 0.0), top.s**2
    for i, (t, u) in enumerate(pairs(schedule)):
        own, data = x0(t)
        if k["delta"] and i > 0:
            keep = 1 - k["delta"] / 2 * (1 - t.a * own)
            m = keep * m + k["delta"] / 2 * t.a * data
            V = keep**2 * V + k["delta"] * t.s**2
            m, V = (t.a, t.s**2) if seen else (m, V)
        r = t.a / u.a
        bridge = t.s**2 - r**2 * u.s**2  # of x_t given x_u
        on_x0, on_x = u.a * bridge / t.s**2, r * u.s**2 / t.s**2
        kk = 1 - (u.s * t.a / (u.a * t.s)) ** 2
        fresh = (kk * u.s**2) ** (1 - k["gamma"]) * (kk * t.s**2) ** k["gamma"] if u.s else 0.0
        m = (on_x0 * own + on_x) * m + on_x0 * data
        V = (on_x0 * own + on_x) ** 2 * V + fresh
        m, V = (u.a, u.s**2) if seen else (m, V)
        yield Moments(m, V)


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"weight": 1.0, "gamma": 0.4},
        {"weight": 1.0, "delta": 0.2},
        {"weight": 3.0, "noise_aware": True},
        {"replace_known": True, "delta": 0.1},
    ],
    ids=str,
)
@each_gain
@each_schedule
def test_it_follows_its_recursion(schedule, gain, knobs):
    assert_follows(
        VideoGuidance(**knobs, schedule=schedule), gain, SIGMA_Y, recursion(schedule, gain, **knobs)
    )


@pytest.mark.parametrize("gain", [1.0, 0.25, 0.05])
def test_replacement_ends_at_the_data(gain):
    found = final(VideoGuidance(replace_known=True, delta=0.1, schedule=VP(20)), gain)
    assert found == pytest.approx((1.0, 0.0), abs=1e-12)


@pytest.mark.parametrize("gain", GAINS)
def test_moments_do_not_depend_on_the_frame(gain):
    """gamma = 0: on the same levels s / a the two frames agree, with the corrector too."""
    solver = VideoGuidance(delta=0.1, schedule=VP(20))
    other = dataclasses.replace(solver, schedule=exploding(solver.schedule))
    assert final(other, gain) == pytest.approx(final(solver, gain), rel=1e-10, abs=1e-12)


def test_gamma_does_depend_on_the_frame():
    """Negative twin, and why gamma belongs to variance-preserving schedules."""
    solver = VideoGuidance(gamma=0.5, schedule=VP(20))
    other = dataclasses.replace(solver, schedule=exploding(solver.schedule))
    assert abs(final(other, 0.25).variance - final(solver, 0.25).variance) > 1e-2


def test_noise_aware_weighs_noisy_data_down():
    """The mean given y comes down from y to less than half as far from the posterior's own,
    1 / (1 + sigma_y^2), and below it: Var[x0 | x_t] is at most 1, not v^2."""
    schedule, sigma_y, exact, means = VP(100), 0.8, 1 / (1 + 0.8**2), []
    for aware in (False, True):
        steps = list(recursion(schedule, 1.0, sigma_y, weight=1.0, noise_aware=aware))
        solver = VideoGuidance(weight=1.0, noise_aware=aware, schedule=schedule)
        assert_follows(solver, 1.0, sigma_y, steps)
        means.append(steps[-1].mean)
    assert means[0] > 0.999 and (1 - exact) / 2 > exact - means[1] > 0


# ---- costs, needs, weight 0


SHAPE = (1, 4, 3, 5)
PRIOR_OF_CLIPS = Denoiser(lambda x, sigma: x / (1 + sigma**2) + 0.1 * x.mean(2, keepdim=True))


def clips(A=None, sigma=0.1, batch=2):
    A = A or Frames((0, 1), 4)
    y = A(seeded(batch, *SHAPE))
    return Problem(y, A, GaussianNoise(sigma), SHAPE)


@pytest.mark.parametrize(("delta", "evaluations"), [(0.0, 6), (0.1, 11)])
def test_costs(delta, evaluations):
    """One evaluation and one product a step; the corrector has its own between any two steps."""
    result = solve(clips(), PRIOR_OF_CLIPS, VideoGuidance(delta=delta, schedule=VP(6)), samples=2)
    assert (result.nfe, result.vjps) == (evaluations, evaluations)


def test_knobs_that_need_more_say_so():
    plain = {Need.PRIOR_VJP, Need.OPERATOR_VJP}
    assert VideoGuidance().requires()[0] == plain
    assert VideoGuidance(replace_known=True).requires()[0] == plain | {Need.PINV}
    assert VideoGuidance(noise_aware=True).requires()[0] == plain | {Need.GAUSSIAN}
    counts = Problem(seeded(1, *SHAPE).abs(), Identity(), Poisson(10.0), SHAPE)
    assert not missing(VideoGuidance(), counts)
    assert missing(VideoGuidance(noise_aware=True), counts) == [Need.GAUSSIAN]
    both = VideoGuidance(replace_known=True)
    assert dataclasses.replace(both, replace_known=False).requires()[0] == plain


@pytest.mark.parametrize("schedule", [VP(6), VP(6, spacing="trailing"), VE(6, 50.0, 0.02)])
@pytest.mark.parametrize("A", [Frames((0, 3), 4), AveragePool(2, (3, 5))], ids=["frames", "pool"])
def test_weight_0_is_the_plain_sampler(A, schedule):
    """Bit for bit, every state; with the bridge's own variance and no corrector."""
    keys = seeds(2)
    ours = list(
        stream(clips(A), PRIOR_OF_CLIPS, VideoGuidance(weight=0.0, schedule=schedule), keys)
    )
    theirs = list(stream(clips(A), PRIOR_OF_CLIPS, Unconditional(schedule=schedule), keys))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.x0, b.x0)


# ---- on videos


def motion(frames=6, side=2):
    """A law of clips whose frames are correlated: exp(-|t - u| / 2), pixels independent."""
    t = torch.arange(frames, dtype=torch.float64)
    time = torch.exp(-(t[:, None] - t[None, :]).abs() / 2)
    shape = (1, frames, side, side)
    cov = torch.kron(time, torch.eye(side * side, dtype=torch.float64))
    return GaussianPrior(torch.zeros(shape, dtype=torch.float64), cov), time


def expectation(weight, replace_known):
    """Mean over samples of the six frames when the first three are 1.5: everything is linear, so
    it is the run without noise."""
    prior, _ = motion()
    y = torch.full((1, 1, 3, 2, 2), 1.5, dtype=torch.float64)
    problem = Problem(y, Frames((0, 1, 2), 6), GaussianNoise(0.0), (1, 6, 2, 2))
    solver = VideoGuidance(weight=weight, replace_known=replace_known, schedule=VP(100))
    return states(solver, problem, prior, Recorder((0,)))[-1].x[0, 0, :, 0, 0]


def test_guidance_makes_the_next_frames_follow_the_known_ones():
    """What the paper is for. Replacement alone leaves the next frames short of where the law wants
    them; every weight of guidance on top brings every frame closer (and w = 2 not all the way)."""
    _, time = motion()
    want = time[3:, :3] @ torch.linalg.solve(time[:3, :3], torch.full((3,), 1.5).double())
    for replace_known in (False, True):
        means = [expectation(w, replace_known) for w in (0.0, 0.5, 1.0, 2.0)]
        gaps = [want - mean[3:] for mean in means]
        assert all((a > b).all() for a, b in zip(gaps[:-1], gaps[1:], strict=True))
        assert (gaps[-1] > 0).all()
        if replace_known:
            assert all(torch.equal(mean[:3], 0 * mean[:3] + 1.5) for mean in means)
    assert torch.equal(expectation(0.0, False), torch.zeros(6).double())


def test_samples_have_the_shape_of_the_video():
    problem = clips(AveragePool(2, (3, 5)) @ Frames((1, 2), 4))
    solver = VideoGuidance(replace_known=True, noise_aware=True, delta=0.1, schedule=VP(4))
    found = list(stream(problem, PRIOR_OF_CLIPS, solver, seeds(2)))
    assert all(s.x.shape == s.x0.shape == (2, *SHAPE) for s in found)
    assert finish(found[-1], problem, PRIOR_OF_CLIPS, solver, seeds(2)).shape == (2, *SHAPE)
