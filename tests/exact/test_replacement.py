"""ScoreSDE's replacement: Song et al. 2021, every predictor, corrector and schedule."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from dense import PRIOR, SCHEDULES, STEPS, Task, ancestral, assert_agrees, compare, transcription
from scalar import ROUNDING, SIGMA_Y, Moments, assert_follows, each_gain, final, pairs, shrink
from scalar import ancestral as bridge

from helpers import Dense, seeded, seeds, states
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, VP, VPSDE, Karras, Schedule, SubVP
from invdiff.noise import NOISELESS
from invdiff.operators import Grayscale
from invdiff.priors.base import Denoiser
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.solvers.replacement import Replacement
from invdiff.tasks import TASKS
from invdiff.tasks.auto import configured

PREDICTORS = ("ancestral", "reverse-diffusion", "euler-maruyama", "probability-flow")
EVERY = SCHEDULES | {"vp-sde": VPSDE(STEPS), "sub-vp": SubVP(STEPS)}
on_every_schedule = pytest.mark.parametrize("schedule", EVERY.values(), ids=EVERY.keys())


# ---- the algorithm, as printed


def predict(kind, x, x0, a, s, b, r, z):
    """One step of the reverse SDE (Song et al. 2021, appendices D to F)."""
    score = (a * x0 - x) / s**2
    if kind == "ancestral":
        if a == b == 1 or abs(a**2 + s**2 - 1) < 1e-12:
            return ancestral(x, x0, a, s, b, r, z)
        # any other process: Bayes' rule for x_t = rho x_u + N(0, g2), x_u ~ N(b x0, r^2)
        rho, g2 = a / b, s**2 - (a / b * r) ** 2
        precision = 1 / r**2 + rho**2 / g2
        return (b * x0 / r**2 + rho * x / g2) / precision + z / np.sqrt(precision)
    if kind == "euler-maruyama":  # dx = x d ln a - g^2 score dt, g^2 dt = d s^2 - 2 s^2 d ln a
        dlna, ds2 = np.log(a) - np.log(b), s**2 - r**2
        g2 = ds2 - 2 * s**2 * dlna
        return x - (dlna * x - g2 * score) + np.sqrt(g2) * z
    if a == b == 1:
        drift, g2 = 0.0 * x, s**2 - r**2
    elif abs(a**2 + s**2 - 1) < 1e-12:
        beta = 1 - a**2 / b**2
        drift, g2 = (np.sqrt(1 - beta) - 1) * x, beta
    else:
        drift, g2 = (a / b - 1) * x, s**2 - (a / b * r) ** 2
    if kind == "reverse-diffusion":
        return x - drift + g2 * score + np.sqrt(g2) * z
    return x - drift + g2 * score / 2


@transcription("replacement")
def replacement(
    t: Task,
    snr=0.16,
    corrector_steps=1,
    lam=1.0,
    known_level="next",
    predictor="ancestral",
    corrector="langevin",
    start="noised",
):
    """Algorithms 2 to 5, with the overwrite x <- x + A^+ (a y + s A z - A x)."""
    pinv = np.linalg.pinv(t.A)

    def overwrite(x, a, s, z):
        return x + lam * pinv @ (a * t.y + s * t.A @ z - t.A @ x)

    known = t.levels[0] if start == "noised" else (1.0, 0.0)
    x = overwrite(t.start(), *known, t.z(-1, "known"))
    for i, a, s, b, r in t.moves:
        alpha = 1.0 if a == 1 else (a / b) ** 2  # 1 - beta
        for m in range(corrector_steps):
            z = t.z(i, f"corrector {m}")
            g = PRIOR.score(x, a, s)
            norms = np.linalg.norm(z) / np.linalg.norm(g)
            step = 2 * alpha * (snr * (norms if corrector == "langevin" else s)) ** 2
            x = x + step * g + np.sqrt(2 * step) * z
            x = overwrite(x, a, s, t.z(i, f"known {m}"))
        x0 = PRIOR.D(x, a, s)
        x = predict(predictor, x, x0, a, s, b, r, t.z(i, "step")) if r > 0 else x0
        known = (b, r) if known_level == "next" or r == 0 else (a, s)
        x = overwrite(x, *known, t.z(i, "known"))
    return x


@on_every_schedule
@pytest.mark.parametrize("matrix", ["wide", "tall", "benign"])
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"corrector_steps": 0, "start": "clean"},
        {"corrector_steps": 3, "snr": 0.1, "lam": 0.7, "corrector": "annealed"},
        {"known_level": "current"},
        {"lam": 0.0},
    ],
    ids=str,
)
def test_transcription(schedule, matrix, knobs):
    assert_agrees("replacement", knobs, matrix, 0.0, schedule)


@on_every_schedule
@pytest.mark.parametrize("predictor", PREDICTORS[1:])
def test_transcription_of_predictors(schedule, predictor):
    assert_agrees("replacement", {"predictor": predictor}, "wide", 0.0, schedule)


@pytest.mark.parametrize(
    ("knobs", "wrong"),
    [
        ({}, {"snr": 0.161}),
        ({}, {"start": "clean"}),
        ({"corrector": "annealed"}, {"corrector": "annealed", "snr": 0.161}),
        ({"predictor": "reverse-diffusion"}, {"predictor": "euler-maruyama"}),
    ],
    ids=str,
)
def test_a_knob_off_by_a_little_is_seen(knobs, wrong):
    got, want = compare("replacement", wrong, "benign", 0.0, VP(STEPS), library_knobs=knobs)
    assert np.abs(got - want).max() > 1e-6


# ---- mean and variance on a scalar normal prior


def recursion(schedule: Schedule, gain, lam, known_level, predictor, snr, start):
    """Moments of x with overwrites x <- (1 - lam) x + lam (a y/s + s z) where the gain is not 0.

    snr > 0: one annealed corrector step of size 2 alpha (snr s)^2 before each predictor.
    """

    def overwrite(m, V, a, s):
        if not gain:
            return m, V
        return (1 - lam) * m + lam * a, (1 - lam) ** 2 * V + (lam * s) ** 2

    top = schedule.levels()[0]
    m, V = overwrite(0.0, top.s**2, *((top.a, top.s) if start == "noised" else (1.0, 0.0)))
    for t, u in pairs(schedule):
        total = t.a**2 + t.s**2  # the score is -x / total
        if snr:
            h = 2 * (t.a / u.a) ** 2 * (snr * t.s) ** 2
            m, V = (1 - h / total) * m, (1 - h / total) ** 2 * V + 2 * h
            m, V = overwrite(m, V, t.a, t.s)
        r = t.a / u.a
        g2 = t.s**2 - r**2 * u.s**2
        if predictor == "ancestral" or u.s == 0:
            p, q, std = bridge(t, u)
            own = p * shrink(t) + q
        elif predictor == "euler-maruyama":
            g2 = t.s**2 - u.s**2 + 2 * t.s**2 * (math.log(u.a) - math.log(t.a))
            own, std = 1 + math.log(u.a / t.a) - g2 / total, math.sqrt(g2)
        elif predictor == "reverse-diffusion":
            own, std = 2 - r - g2 / total, math.sqrt(g2)
        else:
            own, std = 2 - r - g2 / (2 * total), 0.0
        m, V = own * m, own**2 * V + std**2
        known = u if known_level == "next" or u.s == 0 else t
        m, V = overwrite(m, V, known.a, known.s)
        yield Moments(m, V)


SCALAR_SCHEDULES = [VP(30), VE(30, 30.0, 0.01), SubVP(30)]


@each_gain
@pytest.mark.parametrize("schedule", SCALAR_SCHEDULES, ids=["vp", "ve", "sub-vp"])
@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize(
    ("lam", "known_level", "snr", "start"),
    [(1.0, "next", 0.16, "noised"), (0.4, "current", 0.3, "clean"), (0.7, "next", 0.0, "noised")],
)
def test_moments(schedule, gain, predictor, lam, known_level, snr, start):
    """With the annealed corrector: the other's step depends on norms of the noise and score."""
    solver = Replacement(
        snr=snr,
        corrector_steps=int(snr > 0),
        corrector="annealed",
        predictor=predictor,
        lam=lam,
        known_level=known_level,
        start=start,
        schedule=schedule,
    )
    expected = recursion(schedule, gain, lam, known_level, predictor, snr, start)
    assert_follows(solver, gain, SIGMA_Y, expected)


# ---- predictors and schedules


@pytest.mark.parametrize("kind", [VPSDE, SubVP])
def test_euler_maruyama_has_the_official_coefficients_up_to_second_order(kind):
    """Official: f = -beta x / 2, g^2 = beta, times 1 - e^{-2 int beta} for sub-VP, at t, over 1/N.

    Ours take both as differences over the step. The gap is first order in the step, relative to
    them, so that it halves when the steps do.
    """

    def gap(n):
        levels = kind(n).levels()[:-1]
        t = np.linspace(1, 1e-3, n)[:-1]
        dt = (1 - 1e-3) / (n - 1)
        beta, integral = 0.1 + 19.9 * t, 0.1 * t + 19.9 * t**2 / 2
        g2 = beta * dt * (1 if kind is VPSDE else 1 - np.exp(-2 * integral))
        found = []
        for i in range(n - 1):
            a, s, b, r = levels[i].a, levels[i].s, levels[i + 1].a, levels[i + 1].s
            zero, one = np.zeros(1), np.ones(1)
            solver = Replacement(predictor="euler-maruyama")
            as_tensor = [torch.tensor(v) for v in (one, one / a, zero)]  # x0 = x / a: no score
            of_x = float(solver._predict(*as_tensor[:2], levels[i], levels[i + 1], as_tensor[2]))
            of_z = float(
                solver._predict(
                    torch.zeros(1), torch.zeros(1), levels[i], levels[i + 1], torch.ones(1)
                )
            )
            assert of_z**2 == pytest.approx(s**2 - r**2 - 2 * s**2 * math.log(a / b), rel=1e-5)
            found.append(((of_x - 1) / (beta[i] * dt / 2) - 1, of_z**2 / g2[i] - 1))
        return np.abs(np.array(found)[: int(0.9 * n)]).max(0)

    coarse, fine = gap(250), gap(500)
    assert (fine < 0.6 * coarse).all() and (fine > 0.4 * coarse).all()
    assert (fine < 0.05).all()


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("kind", [VPSDE, SubVP, VE])
def test_predictors_sample_the_prior_as_the_path_gets_finer(predictor, kind):
    """Without data (gain 0), the variance tends to that of N(0, 1) in first order: it halves."""
    errors = []
    for n in (400, 800):
        schedule = VE(n, 50.0, 0.01) if kind is VE else kind(n)
        *_, last = recursion(schedule, 0.0, 1.0, "next", predictor, 0.0, "noised")
        errors.append(abs(last.variance - 1))
    assert errors[1] < 0.55 * errors[0]


def test_the_short_preset():
    """120 evaluations: a normal law loses 9 % of its variance, without the corrector 11 %.

    The 2000 evaluations of CIFAR-10's configuration gain 3e-4. Annealed, to stay affine.
    """
    preset = configured(
        TASKS["inpaint"], "replacement", TASKS["inpaint"].toy(0.02)
    )  # the schedule ends at the noise of y
    assert preset == Replacement(schedule=Karras(60, 20.0, 0.02))
    for schedule, M, variance in (
        (preset.schedule, 1, 0.9084),
        (preset.schedule, 0, 0.8866),
        (Replacement().schedule, 1, 1.0003),
    ):
        *_, last = recursion(schedule, 0.0, 1.0, "next", "ancestral", 0.16 * M, "noised")
        assert last.variance == pytest.approx(variance, abs=ROUNDING)
        if schedule is preset.schedule:
            solver = dataclasses.replace(preset, corrector="annealed", corrector_steps=M)
            assert final(solver, 0.0).variance == pytest.approx(variance, abs=ROUNDING)


def test_the_paths_of_the_sde():
    """Against a numerical integral of beta; the table of 1000 betas is their discretisation."""
    n = 400
    t = np.linspace(1, 1e-3, n)
    for i in (0, 17, 200, 398):
        u = np.linspace(0, t[i], 20001)
        beta = 0.1 + 19.9 * u
        integral = ((beta[1:] + beta[:-1]) / 2 * np.diff(u)).sum()
        vp, sub = VPSDE(n).levels()[i], SubVP(n).levels()[i]
        assert vp.a == sub.a == pytest.approx(math.exp(-integral / 2), rel=1e-9)
        assert vp.s == pytest.approx(math.sqrt(1 - math.exp(-integral)), rel=1e-9)
        assert sub.s == pytest.approx(1 - math.exp(-integral), rel=1e-9)
        assert sub.a**2 + sub.s**2 < 1
    discrete, continuous = VP(1000, spacing="trailing").levels(), VPSDE(1000).levels()
    for i in (0, 500, 900):
        assert discrete[i].a == pytest.approx(continuous[i].a, rel=0.04)


# ---- what the official code gets wrong

A = Dense(seeded(5, 16, seed=8), (1, 4, 4))
NOISY_PRIOR = Denoiser(lambda x, sigma: x / (1 + sigma**2) + 0.1 * torch.tanh(x))


def measured():
    y = A(seeded(2, 1, 4, 4, seed=9))
    return Problem(y, A, NOISELESS, (1, 4, 4))


@pytest.mark.parametrize("known_level", ["next", "current"])
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_nothing_noisy_is_returned(predictor, known_level):
    """The official code returns the state, noise and all, where nothing was measured (S1).

    Here the noise drawn by the last step reaches no pixel of it, and y is kept exactly. The step
    before does pass its noise on.
    """
    problem, rng = measured(), Rng.of(seeds(2))
    solver = Replacement(
        corrector_steps=0, predictor=predictor, known_level=known_level, schedule=VP(6)
    )
    found = states(solver, problem, NOISY_PRIOR, rng)
    for k, quiet in ((5, True), (4, False)):
        again = [
            solver.step(found[k], problem, NOISY_PRIOR, Rng.of(keys).at(k)).x
            for keys in (seeds(2), (3, 4))
        ]
        assert torch.equal(*again) == quiet
    torch.testing.assert_close(A(found[-1].x), problem.y, rtol=0, atol=1e-12)


def test_the_first_state_holds_the_noised_y():
    """Official: the clean y, unscaled, beside noise of the first level (S2)."""
    problem, rng = measured(), Rng.of(seeds(2))
    noised, clean = Replacement(schedule=VP(6)), Replacement(schedule=VP(6), start="clean")
    top = noised.levels[0]
    z = rng.at(-1).normal(problem.x_like, "known")
    expected = top.a * problem.y + top.s * A(z)
    got = [s.init(problem, NOISY_PRIOR, rng.at(-1)).x for s in (noised, clean)]
    torch.testing.assert_close(A(got[0]), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(A(got[1]), problem.y, rtol=0, atol=1e-12)


def test_the_pasted_data_have_the_level_of_the_state():
    """Official: one level too noisy after the predictor (S5)."""
    problem, rng = measured(), Rng.of(seeds(2))
    for known_level in ("next", "current"):
        solver = Replacement(corrector_steps=0, known_level=known_level, schedule=VP(6))
        state = solver.init(problem, NOISY_PRIOR, rng.at(-1))
        x = solver.step(state, problem, NOISY_PRIOR, rng.at(0)).x
        level = solver.levels[1 if known_level == "next" else 0]
        z = rng.at(0).normal(x, "known")
        expected = level.a * problem.y + level.s * A(z)
        torch.testing.assert_close(A(x), expected, rtol=0, atol=1e-12)


def test_a_corrector_on_the_sub_vp_path_keeps_the_prior():
    """It raises an error in the official code (S3); here the transcriptions above include it.

    A Langevin step of size h on N(0, T) settles at T / (1 - h / 2T), and h / 2T <= snr^2 here.
    """
    snr, schedule = 0.16, SubVP(400)
    runs = [
        recursion(schedule, 0.0, 1.0, "next", "euler-maruyama", r, "noised") for r in (0.0, snr)
    ]
    plain, corrected = ([*run][-1].variance for run in runs)
    assert abs(corrected - 1) < snr**2 / (1 - snr**2) + abs(plain - 1)


# ---- colourisation


def test_grey_is_the_papers_rotation_of_colours():
    """The paper turns RGB by an orthonormal 3 x 3 matrix whose first column is (1, 1, 1) / sqrt 3,
    inpaints the other two channels, and turns back: the same run as with A = Grayscale()."""
    shape, schedule = (3, 2, 2), VPSDE(7)
    n = 12
    L = seeded(n, n, seed=3) / 4 + 0.5 * torch.eye(n).double()
    prior = GaussianPrior(torch.zeros(shape).double(), L @ L.T)
    grey = Grayscale()(prior.sample(2, Rng.of((1, 2))))
    problem = Problem(grey, Grayscale(), NOISELESS, shape)
    rng = Rng.of(seeds(2))
    solver = Replacement(predictor="euler-maruyama", corrector_steps=1, schedule=schedule)
    got = states(solver, problem, prior, rng)[-1].x

    rest = np.random.default_rng(0).standard_normal((3, 2))
    Q = np.linalg.qr(np.column_stack([np.ones(3), rest]))[0]
    Q *= np.sign(Q[0, 0])
    np.testing.assert_allclose(Q[:, 0], 3**-0.5, rtol=1e-12)

    def turn(M, x):
        return np.einsum("cd,bdhw->bchw", M, x)

    def draw(step, role):
        return rng.at(step).normal(problem.x_like, role).numpy()

    def known(x, a, s, z):
        r, noise = turn(Q.T, x), turn(Q.T, z)
        r[:, 0] = a * math.sqrt(3) * problem.y.numpy()[:, 0] + s * noise[:, 0]
        return turn(Q, r)

    levels = [(level.a, level.s) for level in schedule.levels()]
    x = known(levels[0][1] * draw(-1, "init"), *levels[0], draw(-1, "known"))
    for i, (a, s) in enumerate(levels[:-1]):
        b, r = levels[i + 1]

        def x0(x, i=i):
            return prior.x0(torch.tensor(x), schedule.levels()[i]).numpy()

        z, g = draw(i, "corrector 0"), (a * x0(x) - x) / s**2
        axes = (1, 2, 3)
        ratio = np.sqrt((z**2).sum(axes, keepdims=True) / (g**2).sum(axes, keepdims=True))
        h = 2 * (a / b) ** 2 * (0.16 * ratio) ** 2
        x = known(x + h * g + np.sqrt(2 * h) * z, a, s, draw(i, "known 0"))
        mean = x0(x)
        x = predict("euler-maruyama", x, mean, a, s, b, r, draw(i, "step")) if r else mean
        x = known(x, b, r, draw(i, "known"))
    np.testing.assert_allclose(got.numpy(), x, rtol=0, atol=1e-9)
    np.testing.assert_allclose(x.mean(1), problem.y.numpy()[:, 0], rtol=0, atol=1e-12)


# ---- cost


@pytest.mark.parametrize(("M", "each"), [(0, 1), (1, 2), (3, 4)])
def test_cost(M, each):
    """N (M + 1) evaluations, no gradient, whatever the predictor."""
    for predictor in PREDICTORS:
        solver = Replacement(corrector_steps=M, predictor=predictor, schedule=SubVP(5))
        result = solve(measured(), NOISY_PRIOR, solver)
        assert (result.nfe, result.vjps) == (5 * each, 0)


def test_a_weight_of_0_is_the_predictor_alone():
    """Whatever y is, bit for bit."""
    for predictor in PREDICTORS:
        solver = Replacement(corrector_steps=0, lam=0.0, predictor=predictor, schedule=VE(5))
        problem = measured()
        other = dataclasses.replace(problem, y=-problem.y)
        a, b = (solve(p, NOISY_PRIOR, solver).samples for p in (problem, other))
        assert torch.equal(a, b)
