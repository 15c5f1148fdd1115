"""Song et al. 2022: second versions in numpy, closed forms, and the paper's mixing by T^-1."""

from __future__ import annotations

import dataclasses

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
    ancestral,
    assert_agrees,
    compare,
    on_schedules,
    random_matrix,
    transcription,
)
from scalar import Moments, assert_follows, each_gain, each_schedule, pairs, shrink
from scalar import ancestral as bridge

from helpers import Dense, seeded, states
from invdiff.core import Level, batch_norm
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, VP
from invdiff.noise import GaussianNoise
from invdiff.operators import Identity, Inpaint
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.run import solve
from invdiff.solvers.score_medical import OFFICIAL, ScoreMedical, ScoreMedicalBaseline
from invdiff.solvers.unconditional import Unconditional


def corrector(x, score, snr, a, b, z):
    """Song et al. 2021, Algorithms 4 and 5."""
    alpha = 1.0 if a == 1 else (a / b) ** 2
    size = 2 * alpha * (snr * np.linalg.norm(z) / np.linalg.norm(score)) ** 2
    return x + size * score + np.sqrt(2 * size) * z


@transcription("score-medical")
def score_medical(t: Task, lam=1.0, snr=0.517, corrector_steps=1, final="clean"):
    """Song et al. 2022: mix at the level of x, correct; mix, predict; y itself at the end."""
    pinv = np.linalg.pinv(t.A)

    def mix(x, a, s, z, lam):
        y_t = a * t.y + s * t.A @ z
        return x - lam * pinv @ t.A @ x + lam * pinv @ y_t

    x = t.start()
    for i, a, s, b, r in t.moves:
        for m in range(corrector_steps):
            x = mix(x, a, s, t.z(i, f"known {m}"), lam)
            x = corrector(x, PRIOR.score(x, a, s), snr, a, b, t.z(i, f"corrector {m}"))
        x = mix(x, a, s, t.z(i, "known"), lam)
        x = ancestral(x, PRIOR.D(x, a, s), a, s, b, r, t.z(i, "step"))
    return mix(x, 1.0, 0.0, 0 * x, 1.0) if final == "clean" else x


@transcription("score-medical-baseline")
def score_medical_baseline(t: Task, kappa=1.231, snr=0.608, corrector_steps=1):
    """s + grad -|A x - y_t|^2 / (2 (kappa s)^2) wherever the score of the prior stands."""

    def score(x, a, s, z):
        gap = t.A @ x - (a * t.y + s * t.A @ z)
        return PRIOR.score(x, a, s) - t.A.T @ gap / (kappa * s) ** 2

    x = t.start()
    for i, a, s, b, r in t.moves:
        for m in range(corrector_steps):
            x = corrector(
                x, score(x, a, s, t.z(i, f"known {m}")), snr, a, b, t.z(i, f"corrector {m}")
            )
        x0 = (x + s**2 * score(x, a, s, t.z(i, "known"))) / a
        x = ancestral(x, x0, a, s, b, r, t.z(i, "step"))
    return x


@on_schedules
@pytest.mark.parametrize("matrix", ["tall", "benign"])
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"corrector_steps": 0, "lam": 0.355},
        {"corrector_steps": 2, "snr": 0.1, "lam": 0.7, "final": "none"},
    ],
    ids=str,
)
def test_score_medical(schedule, matrix, knobs):
    assert_agrees("score-medical", knobs, matrix, 0.1, schedule)


@on_schedules
@pytest.mark.parametrize("matrix", ["tall", "benign"])
@pytest.mark.parametrize(
    "knobs", [{}, {"corrector_steps": 0}, {"corrector_steps": 2, "kappa": 2.0, "snr": 0.2}], ids=str
)
def test_score_medical_baseline(schedule, matrix, knobs):
    assert_agrees("score-medical-baseline", knobs, matrix, 0.1, schedule)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("score-medical", {"lam": 0.999}),
        ("score-medical", {"snr": 0.518}),
        ("score-medical", {"final": "none"}),
        ("score-medical-baseline", {"kappa": 1.232}),
        ("score-medical-baseline", {"snr": 0.609}),
    ],
)
def test_a_knob_off_by_a_little_is_seen(name, wrong):
    """Negative twin."""
    got, want = compare(name, wrong, "benign", 0.1, VP_SCHEDULE, library_knobs={})
    assert np.abs(got - want).max() > 1e-6


def recursion(schedule, gain, lam, final):
    """x <- (1 - lam) x + lam (a y/s + s z), then ancestral; y/s at the end if final is clean."""
    m, V = 0.0, schedule.levels()[0].s ** 2
    for t, u in pairs(schedule):
        if gain:
            m, V = (1 - lam) * m + lam * t.a, (1 - lam) ** 2 * V + (lam * t.s) ** 2
        p, q, std = bridge(t, u)
        own = p * shrink(t) + q
        m, V = own * m, own**2 * V + std**2
        if gain and u.s == 0 and final == "clean":
            m, V = 1.0, 0.0
        yield Moments(m, V)


@pytest.mark.parametrize("final", ["clean", "none"])
@pytest.mark.parametrize("lam", [1.0, 0.4])
@each_gain
@each_schedule
def test_score_medical_follows_its_recursion(schedule, gain, lam, final):
    """Without the corrector, whose step size depends on norms of the noise and of the score."""
    solver = ScoreMedical(corrector_steps=0, lam=lam, final=final, schedule=schedule)
    assert_follows(solver, gain, 0.0, recursion(schedule, gain, lam, final))


def recursion_baseline(schedule, gain, kappa):
    """x0 = d x + k (a y + s g z - g x), k = g / (kappa^2 a), then ancestral; for y = g (y/g)."""
    m, V = 0.0, schedule.levels()[0].s ** 2
    for t, u in pairs(schedule):
        p, q, std = bridge(t, u)
        k = gain / (kappa**2 * t.a)
        own = p * (shrink(t) - k * gain) + q
        m = own * m + p * k * t.a * (gain or 1.0)
        V = own**2 * V + (p * k * t.s * gain) ** 2 + std**2
        yield Moments(m, V)


@each_gain
@each_schedule
def test_baseline_follows_its_recursion(schedule, gain):
    solver = ScoreMedicalBaseline(kappa=1.231, corrector_steps=0, schedule=schedule)
    assert_follows(solver, gain, 0.0, recursion_baseline(schedule, gain, 1.231))


# ---- the paper's decomposition A = P(Lambda) T: T^-1 mixing is mixing by A^+ for orthonormal T


def fourier(side: int) -> np.ndarray:
    """The orthonormal 2-D DFT matrix of side x side images."""
    k = np.arange(side)
    one = np.exp(-2j * np.pi * np.outer(k, k) / side) / np.sqrt(side)
    return np.kron(one, one)


def real_pairs(M: np.ndarray) -> np.ndarray:
    """A complex matrix as it acts on (real part, imaginary part)."""
    return np.block([[M.real, -M.imag], [M.imag, M.real]])


def paper_mix(T, kept, x, y, a, s, z, lam):
    """T^-1 [(I - Lambda) T x + (1 - lam) Lambda T x + lam Lambda P^-1 y_t], as printed."""
    k = T @ x
    y_t = a * y + s * (T @ z)[kept]
    Lambda = kept.astype(float)
    filled = np.zeros_like(k)
    filled[kept] = y_t
    return np.linalg.inv(T) @ ((1 - Lambda) * k + (1 - lam) * Lambda * k + lam * Lambda * filled)


def library_mix(A, x, y, a, s, z, lam, shape):
    """The same by steps.replace."""
    problem = Problem(
        torch.tensor(y)[None], Dense(torch.tensor(A), shape), GaussianNoise(0.0), shape
    )
    images = (torch.tensor(v).reshape(1, *shape) for v in (x, z))
    x_t, noise = images
    return steps.replace(x_t, problem, Level(a, s), noise, lam).numpy().ravel()


def random_kept(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(n) < 0.4


@pytest.mark.parametrize("lam", [1.0, 0.355])
@pytest.mark.parametrize(("a", "s"), [(1.0, 3.0), (0.6, 0.8), (1.0, 0.0)])
def test_mixing_is_the_papers_for_complex_images(a, s, lam):
    """MRI of complex images, two real channels: T = real_pairs(F) is orthonormal, any mask."""
    T = real_pairs(fourier(6))
    kept = np.tile(random_kept(36, 1), 2)
    x, z = (random_matrix(1, 72, k)[0] for k in (2, 3))
    y = random_matrix(1, int(kept.sum()), 4)[0]
    np.testing.assert_allclose(T @ T.T, np.eye(72), atol=1e-14)
    want = paper_mix(T, kept, x, y, a, s, z, lam)
    got = library_mix(T[kept], x, y, a, s, z, lam, (2, 6, 6))
    np.testing.assert_allclose(got, want, atol=1e-12)
    off = library_mix(T[kept], x, y, a, s, z, 0.99 * lam, (2, 6, 6))
    assert np.abs(off - want).max() > 1e-3


def symmetric(kept: np.ndarray) -> np.ndarray:
    """The frequencies k for which k or -k is kept, of a (side, side) mask."""
    return kept | np.roll(kept[::-1, ::-1], (1, 1), (0, 1))


def test_mixing_is_the_papers_for_real_images_and_symmetric_masks():
    """The official code then takes the real part after T^-1; z and x are real, so is y's image."""
    F, kept = fourier(6), symmetric(random_kept(36, 5).reshape(6, 6)).ravel()
    truth, x, z = (random_matrix(1, 36, k)[0] for k in (2, 3, 4))
    y = (F @ truth)[kept]
    A = np.concatenate([F[kept].real, F[kept].imag])
    want = paper_mix(F, kept, x, y, 0.8, 0.6, z, 0.7)
    assert np.abs(want.imag).max() < 1e-14
    got = library_mix(A, x, np.concatenate([y.real, y.imag]), 0.8, 0.6, z, 0.7, (1, 6, 6))
    np.testing.assert_allclose(got, want.real, atol=1e-12)


def test_a_mask_that_is_not_symmetric_moves_real_images_half_of_the_way():
    """A frequency kept without its mirror: the official real part reaches half of y; A^+ all."""
    F, kept = fourier(6), np.zeros((6, 6), bool)
    kept[1, 2] = kept[0, 0] = True
    kept = kept.ravel()
    truth, x = (random_matrix(1, 36, k)[0] for k in (2, 3))
    y = (F @ truth)[kept]
    A = np.concatenate([F[kept].real, F[kept].imag])
    official = paper_mix(F, kept, x, y, 1.0, 0.0, 0 * x, 1.0).real
    ours = library_mix(A, x, np.concatenate([y.real, y.imag]), 1.0, 0.0, 0 * x, 1.0, (1, 6, 6))
    gap = (F @ x)[kept] - y
    np.testing.assert_allclose((F @ official)[kept] - y, gap * [0.0, 0.5], atol=1e-13)
    np.testing.assert_allclose((F @ ours)[kept] - y, 0, atol=1e-13)


def test_for_another_invertible_T_the_two_agree_on_the_data_only():
    """T^-1 P^T is a right inverse of A = P T, as A^+ is, but it also moves the null space."""
    T = random_matrix(16, 16, 7) + 4 * np.eye(16)
    kept = random_kept(16, 8)
    A, (x, z) = T[kept], random_matrix(2, 16, 9)
    y = random_matrix(1, int(kept.sum()), 10)[0]
    theirs = paper_mix(T, kept, x, y, 0.8, 0.6, z, 0.7)
    ours = library_mix(A, x, y, 0.8, 0.6, z, 0.7, SHAPE)
    np.testing.assert_allclose(A @ ours, A @ theirs, atol=1e-12)
    null = np.eye(16) - np.linalg.pinv(A) @ A
    np.testing.assert_allclose(null @ ours, null @ x, atol=1e-12)
    assert np.abs(null @ (theirs - x)).max() > 1e-2


# ---- what the docstring says, and defects of the official code


def test_the_data_comes_before_the_update_and_at_its_level():
    """Each denoiser call of a run with lam = 1 sees known pixels that scatter by s around a y."""
    seen = []

    def watched(x, sigma):
        seen.append((x[..., 0], sigma))
        return x / (1 + sigma**2)

    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 0] = 1
    A, n = Inpaint(mask), 500
    problem = Problem(A(torch.full((n, 1, 4, 4), 2.0).double()), A, GaussianNoise(0.0), SHAPE)
    solver = ScoreMedical(corrector_steps=0, schedule=VE(4, 10.0, 0.1))
    states(solver, problem, Denoiser(watched), Rng.of(range(n)))
    assert [sigma for _, sigma in seen] == [level.s for level in solver.levels[:-1]]
    for known, sigma in seen:
        draws = (known - 2.0) / sigma
        assert abs(draws.mean()) < 5 / draws.numel() ** 0.5
        assert abs(draws.var() - 1) < 5 * (2 / draws.numel()) ** 0.5


def test_a_partial_mix_lowers_the_noise_of_known_entries():
    """lam < 1 averages two independent noises: variance (1 - lam)^2 + lam^2 of s^2, as published.

    Standard error of a variance of n draws: sqrt(2 / n) of it."""
    n, lam, level = 40000, 0.4, Level(1.0, 2.0)
    zero = torch.zeros(1, 1, 200, 200).double()
    problem = Problem(zero, Identity(), GaussianNoise(0.0), (1, 200, 200))
    x, z = level.s * seeded(*zero.shape, seed=1), seeded(*zero.shape, seed=2)
    found = float(steps.replace(x, problem, level, z, lam).var()) / level.s**2
    assert abs(found / ((1 - lam) ** 2 + lam**2) - 1) < 5 * (2 / n) ** 0.5


def test_the_result_holds_y_unless_asked_otherwise():
    A = Dense(torch.tensor(MATRICES["benign"]), SHAPE)
    problem = Problem(seeded(ROWS, 6), A, GaussianNoise(0.0), SHAPE)
    ends = {
        final: states(
            ScoreMedical(lam=0.5, final=final, schedule=VP(5)),
            problem,
            LIBRARY_PRIOR,
            Rng.of(SEEDS),
        )[-1].x
        for final in ("clean", "none")
    }
    torch.testing.assert_close(A(ends["clean"]), problem.y, rtol=0, atol=1e-12)
    assert (A(ends["none"]) - problem.y).abs().max() > 0.01


@pytest.mark.parametrize("name", ["score-medical", "score-medical-baseline"])
def test_a_row_has_a_step_size_of_its_own(name):
    """The official corrector averages its step size over the batch."""
    A = Dense(torch.tensor(MATRICES["benign"]), SHAPE)
    y = torch.stack([seeded(6), 100 * seeded(6, seed=1), seeded(6, seed=2)])
    problem = Problem(y, A, GaussianNoise(0.0), SHAPE)
    cls = {"score-medical": ScoreMedical, "score-medical-baseline": ScoreMedicalBaseline}[name]
    solver = cls(schedule=VP(5))
    together = states(solver, problem, LIBRARY_PRIOR, Rng.of(SEEDS))[-1].x
    for row in range(ROWS):
        alone, rng = problem.rows(torch.tensor([row])), Rng.of(SEEDS[row : row + 1])
        own = states(solver, alone, LIBRARY_PRIOR, rng)[-1].x[0]
        assert batch_norm((own - together[row])[None]) < 1e-12 * (1 + together[row].norm())


@pytest.mark.parametrize("schedule", [VP(6), VE(6, 50.0, 0.02)])
def test_without_data_it_is_the_plain_sampler(schedule):
    A = Dense(torch.tensor(MATRICES["benign"]), SHAPE)
    problem = Problem(seeded(ROWS, 6), A, GaussianNoise(0.0), SHAPE)
    ours = ScoreMedical(lam=0.0, corrector_steps=0, final="none", schedule=schedule)
    a = states(ours, problem, LIBRARY_PRIOR, Rng.of(SEEDS))
    b = states(
        Unconditional(eta_ddim=1.0, schedule=schedule), problem, LIBRARY_PRIOR, Rng.of(SEEDS)
    )
    assert all(torch.equal(p.x, q.x) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("M", [0, 1, 3])
def test_costs(M):
    """N (M + 1) evaluations, no gradients."""
    problem = Problem(seeded(1, 1, 4, 4), Identity(), GaussianNoise(0.1), SHAPE)
    prior = Denoiser(lambda x, s: x / (1 + s**2))
    for cls in (ScoreMedical, ScoreMedicalBaseline):
        result = solve(problem, prior, cls(corrector_steps=M, schedule=VE(5, 10.0)))
        assert (result.nfe, result.vjps) == (5 * (M + 1), 0)


def test_official_settings_are_the_ones_of_the_configuration_files():
    """lambda, r (no corrector where it is 0), sigma_max; N = 1000."""
    table = {
        "mri-brats": (1.0, 0.517, 128),
        "ct-lidc": (0.841, 0.246, 128),
        "ct-ldct": (0.72, 0.40, 220),
        "ct-metal": (0.355, None, 128),
        "ct-metal-sparse": (0.865, 0.261, 128),
        "ct-metal-sparse-180": (0.27, None, 128),
    }
    assert set(ScoreMedical.configurations()) == set(table)
    for name, (lam, snr, top) in table.items():
        for value_range, width in (((0.0, 1.0), 1), ((-1.0, 1.0), 2)):
            found = ScoreMedical.official(name, value_range)
            assert found.lam == lam and (found.snr if found.corrector != "none" else None) == snr
            assert found.num_steps == 1000 and found.levels[0].s == pytest.approx(width * top)
            assert found.corrector_steps == 1  # y is mixed in twice with and without a corrector
        entry = dataclasses.replace(OFFICIAL[name], predictor="reverse-diffusion")
        assert entry == ScoreMedical.official(name, (0.0, 1.0))
    baseline = ScoreMedicalBaseline.official("mri-brats")
    assert (baseline.kappa, baseline.snr, baseline.num_steps) == (1.231, 0.608, 1000)
