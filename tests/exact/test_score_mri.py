"""score-MRI against a second version, its recursion, and the defects of the official code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dense import PRIOR, STEPS, Task, ancestral, assert_agrees, compare, on_schedules, transcription
from scalar import Moments, assert_follows, each_gain, each_schedule, pairs, shrink
from scalar import ancestral as bridge

import invdiff.operators as ops
from helpers import seeded, states
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE
from invdiff.noise import GaussianNoise
from invdiff.priors.base import Counted, Denoiser
from invdiff.priors.channels import PerChannel
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.solvers.score_mri import ScoreMRI
from invdiff.solvers.unconditional import Unconditional


@transcription("score-mri")
def score_mri(
    t: Task,
    snr=0.16,
    corrector_steps=1,
    lam=1.0,
    noised=False,
    final="denoised",
    hybrid_every=0,
    hybrid_end=0.2,
    predictor="ancestral",
):
    """Chung and Ye 2022: corrector, data, predictor, data, with data x + lam A^H (y - A x)."""

    def data(x, a, s, z):
        known = a * t.y + (s * t.A @ z if noised else 0)
        return x + lam * t.A.T @ (known - t.A @ x)

    x, n = data(t.start(), *t.levels[0], t.z(-1, "known")), len(t.moves)
    for i, a, s, b, r in t.moves:
        for m in range(corrector_steps):
            z, g = t.z(i, f"corrector {m}"), PRIOR.score(x, a, s)
            alpha = 1.0 if a == 1 else (a / b) ** 2
            step = 2 * alpha * (snr * np.linalg.norm(z) / np.linalg.norm(g)) ** 2
            x = data(x + step * g + np.sqrt(2 * step) * z, a, s, t.z(i, f"known {m}"))
        if predictor == "ancestral" or r == 0:
            x = ancestral(x, PRIOR.D(x, a, s), a, s, b, r, t.z(i, "step"))
        else:  # f = (a / b - 1) x, G^2 = s^2 - (a r / b)^2: x_i - f + G^2 score + G z
            g2 = s**2 - (a * r / b) ** 2
            x = x - (a / b - 1) * x + g2 * PRIOR.score(x, a, s) + np.sqrt(g2) * t.z(i, "step")
        if i == n - 1 and final == "noisy":  # reverse diffusion leaves the last level's noise
            z = t.z(i, "last")
            x = x + s / a * z
        x = data(x, b, r, t.z(i, "known"))
        if hybrid_every and (i + 1) % hybrid_every == 0:
            x = x + np.linspace(1, hybrid_end, n)[i] * t.A.T @ (t.y - t.A @ x)
    return x


KNOBS = [
    {},
    {"corrector_steps": 2, "lam": 0.6, "snr": 0.1},
    {"noised": True},
    {"predictor": "reverse-diffusion", "final": "noisy"},
    {"final": "noisy", "lam": 0.7},
    {"hybrid_every": 2},
    {"hybrid_every": 1, "hybrid_end": 0.5, "final": "noisy", "corrector_steps": 0},
]


@on_schedules
@pytest.mark.parametrize("knobs", KNOBS, ids=str)
def test_score_mri(schedule, knobs):
    """The singular values of this matrix are at most 1.4, so that the data step contracts."""
    assert_agrees("score-mri", knobs, "benign", 0.0, schedule)


@pytest.mark.parametrize(
    ("knobs", "wrong"),
    [
        ({}, {"snr": 0.1601}),
        ({}, {"lam": 0.9999}),
        ({}, {"noised": True}),
        ({}, {"final": "noisy"}),
        ({"hybrid_every": 2}, {"hybrid_every": 2, "hybrid_end": 0.201}),
        ({"hybrid_every": 2}, {"hybrid_every": 3}),
    ],
)
def test_a_knob_off_by_a_little_is_seen(knobs, wrong):
    got, want = compare(
        "score-mri", wrong, "benign", 0.0, VE(STEPS, 20.0, 0.02), library_knobs=knobs
    )
    assert np.abs(got - want).max() > 1e-6


# ---- complex images and coils, in explicit matrices

SIZE = (4, 3)
PIXELS = SIZE[0] * SIZE[1]
MASK = torch.tensor([1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 0, 1]).reshape(1, 1, *SIZE)
MAPS = ops.ring_maps(3, SIZE)
VARIANCES = torch.linspace(0.1, 1.0, 2 * PIXELS, dtype=torch.float64)
LAW = GaussianPrior(seeded(2, *SIZE), VARIANCES.reshape(2, *SIZE))


def dft(n):
    k = np.arange(n) - n // 2
    return np.exp(-2j * np.pi * np.outer(k, k) / n) / math.sqrt(n)


FT = np.kron(dft(SIZE[0]), dft(SIZE[1])) * MASK.numpy().reshape(-1, 1)  # of flattened images
COILS = np.concatenate([FT * MAPS[0, j].numpy().ravel() for j in range(3)])


def matrices_run(E, y, rng, snr, hybrid_every, hybrid_end, levels):
    """A second version on complex vectors: E the encoding matrix, y complex, one sample."""
    mean = LAW.means[0].numpy().reshape(2, -1)
    var = VARIANCES.numpy().reshape(2, -1)

    def z(step, role):
        like = torch.empty(1, 2, *SIZE, dtype=torch.float64)
        return rng.at(step).normal(like, role).numpy().reshape(2, -1)

    def data(x, weight=1.0):
        c = x[0] + 1j * x[1]
        c = c + weight * E.conj().T @ (y - E @ c)
        return np.stack([c.real, c.imag])

    x, n = data(levels[0] * z(-1, "init")), len(levels)
    for i, s in enumerate(levels):
        r = levels[i + 1] if i + 1 < n else 0.0
        g, noise = (mean - x) / (var + s**2), z(i, "corrector 0")
        step = 2 * (snr * np.linalg.norm(noise) / np.linalg.norm(g)) ** 2
        x = data(x + step * g + np.sqrt(2 * step) * noise)
        x0 = mean + var / (var + s**2) * (x - mean)
        x = x0 + (r / s) ** 2 * (x - x0) + np.sqrt(r**2 * (s**2 - r**2)) / s * z(i, "step")
        x = data(x)
        if hybrid_every and (i + 1) % hybrid_every == 0:
            x = data(x, 1 + (hybrid_end - 1) * i / (n - 1))
    return x


@pytest.mark.parametrize(("hybrid_every", "hybrid_end"), [(0, 0.2), (2, 0.2), (3, 0.7)])
@pytest.mark.parametrize("coils", [False, True], ids=["single", "multi"])
def test_complex_images_in_explicit_matrices(coils, hybrid_every, hybrid_end):
    """Also what the official hybrid step is not: the gradient of |y - A x|^2 / 2 of one image."""
    E = COILS if coils else FT
    A = ops.Sense(MAPS, MASK) if coils else ops.Fourier(MASK)
    y = A(seeded(1, 2, *SIZE, seed=4))
    rng = Rng.of([12])
    schedule = VE(7, 5.0, 0.05)
    solver = ScoreMRI(hybrid_every=hybrid_every, hybrid_end=hybrid_end, schedule=schedule)
    found = states(solver, Problem(y, A, GaussianNoise(0.0), (2, *SIZE)), LAW, rng)[-1].x
    levels = [level.s for level in schedule.levels()[:-1]]
    want = matrices_run(E, y.numpy().ravel(), rng, 0.16, hybrid_every, hybrid_end, levels)
    np.testing.assert_allclose(found[0].numpy().reshape(2, -1), want, rtol=1e-8, atol=1e-8)
    off = matrices_run(E, 1.0001 * y.numpy().ravel(), rng, 0.16, hybrid_every, hybrid_end, levels)
    assert np.abs(off - want).max() > 1e-6


# ---- the scalar oracle


def recursion(schedule, gain, lam, noised, final, every, end):
    """Without the corrector, whose step size depends on norms."""
    steps, top, hold = pairs(schedule), schedule.levels()[0], 1 - lam * gain**2
    m, V = lam * gain * (gain or 1.0) * top.a, (hold * top.s) ** 2
    V += (lam * gain**2 * top.s) ** 2 if noised else 0.0
    for i, (t, u) in enumerate(steps):
        p, q, std = bridge(t, u)
        own = p * shrink(t) + q
        m, V = own * m, own**2 * V + std**2
        if final == "noisy" and i == len(steps) - 1:
            V += t.sigma**2
        m, V = hold * m + lam * gain * (gain or 1.0) * u.a, hold**2 * V
        V += (lam * gain**2 * u.s) ** 2 if noised else 0.0
        if every and (i + 1) % every == 0:
            w = 1 + (end - 1) * i / (len(steps) - 1)
            m, V = (1 - w * gain**2) * m + w * gain * (gain or 1.0), (1 - w * gain**2) ** 2 * V
        yield Moments(m, V)


@pytest.mark.parametrize(
    "knobs",
    [
        (1.0, False, "denoised", 0, 0.2),
        (0.6, True, "denoised", 0, 0.2),
        (0.8, False, "noisy", 0, 0.2),
        (1.0, False, "denoised", 5, 0.3),
    ],
    ids=str,
)
@each_gain
@each_schedule
def test_score_mri_follows_its_recursion(schedule, gain, knobs):
    lam, noised, final, every, end = knobs
    solver = ScoreMRI(
        corrector_steps=0,
        lam=lam,
        noised=noised,
        final=final,
        hybrid_every=every,
        hybrid_end=end,
        schedule=schedule,
    )
    assert_follows(solver, gain, 0.0, recursion(schedule, gain, *knobs))


# ---- costs, and the weight that ignores y


def grey(x, sigma):
    return 0.5 * x / (0.5 + sigma**2)


@pytest.mark.parametrize("corrector_steps", [0, 1, 3])
def test_costs(corrector_steps):
    """N (M + 1) evaluations; a real prior on complex images evaluates twice as many rows."""
    rows = []

    def counting(x, sigma):
        rows.append(len(x))
        return grey(x, sigma)

    A = ops.Fourier(MASK)
    problem = Problem(A(seeded(1, 2, *SIZE)), A, GaussianNoise(0.0), (2, *SIZE))
    solver = ScoreMRI(corrector_steps=corrector_steps, schedule=VE(5, 5.0, 0.05))
    result = solve(problem, Counted(PerChannel(Denoiser(counting, shape=(1, None, None)))), solver)
    assert (result.nfe, result.vjps) == (5 * (corrector_steps + 1), 0)
    assert sum(rows) == 2 * 5 * (corrector_steps + 1)


def test_weight_0_is_the_plain_sampler():
    A = ops.Sense(MAPS, MASK)
    problem = Problem(A(seeded(2, 2, *SIZE)), A, GaussianNoise(0.0), (2, *SIZE))
    schedule = VE(6, 5.0, 0.05)
    ours = states(
        ScoreMRI(lam=0.0, corrector_steps=0, schedule=schedule), problem, LAW, Rng.of([1, 2])
    )
    plain = states(Unconditional(eta_ddim=1.0, schedule=schedule), problem, LAW, Rng.of([1, 2]))
    assert all(torch.equal(a.x, b.x) for a, b in zip(ours, plain, strict=True))


# ---- what is known of the official code

BIG = (64, 64)
LINES = ops.gaussian_lines(BIG, 4, seed=0)


def measured(size=BIG, mask=LINES):
    A = ops.Fourier(mask)
    return Problem(A(seeded(1, 2, *size)), A, GaussianNoise(0.0), (2, *size))


def nothing(x, sigma):
    return 0 * x


def test_y_is_pasted_as_it_is_unless_asked():
    """M1: no noise is added to y at any level; with `noised` it has the level's."""
    problem = measured()
    schedule = VE(4, 10.0, 0.1)
    seen = torch.view_as_real(problem.y)[LINES]
    for noised in (False, True):
        run = states(
            ScoreMRI(noised=noised, schedule=schedule), problem, Denoiser(nothing), Rng.of([0])
        )
        for state, level in list(zip(run, schedule.levels(), strict=True))[1:]:
            gap = torch.view_as_real(problem.A(state.x))[LINES] - seen
            spread = level.s if noised else 0.0
            n = gap.numel()
            assert abs(float(gap.std()) - spread) <= 5 * spread / math.sqrt(2 * n) + 1e-13


def test_the_noise_of_the_last_level_is_left_only_when_asked():
    """M2: the official code returns it wherever nothing was sampled."""
    schedule = VE(4, 10.0, 0.1)
    free = ~LINES.expand(1, 1, *BIG)
    for final, spread in (("denoised", 0.0), ("noisy", 0.1)):
        x = states(
            ScoreMRI(final=final, schedule=schedule), measured(), Denoiser(nothing), Rng.of([0])
        )[-1]
        rest = torch.view_as_real(ops.fft2c(ops.as_complex(x.x)))[free]
        error = 5 * spread / math.sqrt(2 * rest.numel())
        assert abs(float(rest.std()) - spread) <= error + 1e-13


def test_the_last_hybrid_weight_is_the_one_that_was_asked_for():
    """M5: the official code divides by 2000 also where N is 500, and ends at 0.8."""
    solver = ScoreMRI(hybrid_every=50, schedule=VE(500, 378.0, 0.01))
    weights = [solver._hybrid_weight(k) for k in range(500)]
    assert weights[0] == 1 and weights[-1] == pytest.approx(0.2)
    np.testing.assert_allclose(weights, np.linspace(1, 0.2, 500), rtol=1e-12)
    assert 1 - 0.8 * 499 / 2000 > 0.8


def test_a_complex_chain_starts_from_complex_noise():
    """M6: the official code starts it from real noise. What was sampled holds y, here 0."""
    A = ops.Fourier(LINES)
    problem = Problem(A(torch.zeros(1, 2, *BIG)), A, GaussianNoise(0.0), (2, *BIG))
    x = ScoreMRI().init(problem, Denoiser(nothing), Rng.of([0]).at(-1)).x[0]
    free = 378 * math.sqrt(3 / 4)  # a quarter of the lines was sampled
    for channel in x:
        assert float(channel.std()) == pytest.approx(free, abs=5 * free / math.sqrt(2 * 48 * 64))


def test_real_images_are_updated_as_published():
    """x <- Re F^-1 [(1 - mask) F x + y]: the adjoint, a half step for pairs sampled once."""
    A = ops.RealFourier(MASK)
    y = A(seeded(1, 1, *SIZE))
    problem = Problem(y, A, GaussianNoise(0.0), (1, *SIZE))
    x, solver = seeded(1, 1, *SIZE, seed=2), ScoreMRI()
    k = ops.fft2c(x)
    expected = ops.ifft2c(torch.where(MASK > 0, y, k)).real
    found = solver._overwrite(x, problem, solver.levels[3], torch.zeros_like(x))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    assert not torch.allclose(expected, x + A.pinv(y - A(x)))


def test_sum_of_squares_takes_every_coil_by_itself():
    """Coils as measurements: each is reconstructed with its own noise, then they are joined."""
    maps = ops.ring_maps(3, SIZE)
    truth = seeded(1, 2, *SIZE)
    y = ops.Sense(maps, torch.ones(1, 1, *SIZE))(truth)
    problem = Problem(
        y.transpose(0, 1), ops.Fourier(torch.ones(1, 1, *SIZE)), GaussianNoise(0.0), (2, *SIZE)
    )
    found = solve(
        problem, PerChannel(Denoiser(grey)), ScoreMRI(schedule=VE(4, 5.0, 0.05)), samples=2
    )
    for sample in found.samples.transpose(0, 1):  # (coils, 2, H, W)
        together = ops.root_sum_of_squares(sample.flatten(0, 1)[None])
        torch.testing.assert_close(together, ops.root_sum_of_squares(truth), rtol=0, atol=1e-12)
