"""Sampling by the prior's error spectrum: second versions, and normal laws that it meets exactly.

The second versions build V as a matrix, by numpy and SciPy: cosines by their formula, tables by
`np.interp`, local factors by `scipy.ndimage`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from dense import (
    LIBRARY_PRIOR,
    PRIOR,
    D,
    Task,
    assert_agrees,
    compare,
    on_matrices,
    on_schedules,
    transcription,
)
from scipy.ndimage import gaussian_filter
from scipy.stats import truncnorm

import invdiff.operators as ops
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, VP, Karras
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.operators.dct import dct2, dct_matrix
from invdiff.operators.jpeg_cells import nearest, planes
from invdiff.priors.base import Denoiser, Prior
from invdiff.priors.modes import Covariance
from invdiff.priors.spectrum import CONTRASTS, EDGES, SIGMAS, ErrorSpectrum, isotropic
from invdiff.problem import Problem
from invdiff.sampling.run import estimate, solve
from invdiff.solvers.hqs import HQS
from invdiff.solvers.normal import ROUNDED, truncated_normal
from invdiff.solvers.one_call import OneCall
from invdiff.solvers.pocs import POCS
from invdiff.solvers.spectral_ancestral import SpectralAncestral
from invdiff.solvers.spectral_jpeg import SpectralJPEG


def some_spectrum() -> ErrorSpectrum:
    """A table with nothing regular in it."""
    g = np.random.default_rng(8)
    bands = g.uniform(0.02, 0.9, (len(SIGMAS), 1, len(EDGES) - 1))
    factors, share = g.uniform(0.3, 2, (14, 12)), g.uniform(0.1, 0.5, 14)
    return ErrorSpectrum(*map(torch.tensor, (bands, factors, share)))


SPECTRUM = some_spectrum()
FLAT = isotropic()


@pytest.fixture(params=["measured", "isotropic"])
def spectrum(request, monkeypatch):
    """What the library's prior knows of its errors: a table, or nothing."""
    known = SPECTRUM if request.param == "measured" else None
    monkeypatch.setattr(LIBRARY_PRIOR, "spectrum", known)
    return known


# ---- the second versions


def table_at(table: np.ndarray, sigma: float) -> np.ndarray:
    """Rows of a table, interpolated in the logarithms."""
    logs = np.log(SIGMAS)
    return np.exp([np.interp(np.log(sigma), logs, np.log(column)) for column in table.T])


def cosines(n: int) -> np.ndarray:
    k, i = np.arange(n)[:, None], np.arange(n)[None]
    C = np.cos(np.pi * k * (2 * i + 1) / (2 * n)) * np.sqrt(2 / n)
    C[0] /= np.sqrt(2)
    return C


def matrix_V(sigma: float, x0: np.ndarray, kind: str) -> np.ndarray:
    """V of (D, D) about the denoised image x0."""
    known = LIBRARY_PRIOR.spectrum or FLAT
    bands, factors = known.bands[:, 0].numpy(), known.local.numpy()
    middles = [np.sqrt(max(a, 0.5) * b) for a, b in zip(EDGES[:-1], EDGES[1:], strict=True)]
    k, l_ = np.arange(4)[:, None] / 4, np.arange(4)[None] / 4
    rho = np.maximum(128 * np.hypot(k, l_), 1e-6)
    L = np.exp(np.interp(np.log(rho), np.log(middles), np.log(table_at(bands, sigma))))
    T, L = np.kron(cosines(4), cosines(4)), np.minimum(L, 1)
    share = table_at(known.share.numpy()[:, None], sigma)[0]
    whole = np.minimum(L * share / L.mean(), 1)
    bare = kind in ("local", "bare")  # without S, but made for it
    V = T.T @ np.diag(sigma**2 * (L if bare else whole).ravel()) @ T
    if kind == "isotropic":
        return np.trace(V) / D * np.eye(D)
    if kind != "local":
        return V
    x = x0.reshape(4, 4)

    def smooth(t, width):
        return gaussian_filter(t, width, mode="nearest", truncate=3)

    contrast = np.sqrt(np.maximum(smooth(x * x, 1) - smooth(x, 1) ** 2, 0)).clip(1e-6)
    S = np.interp(np.log(contrast), np.log(CONTRASTS), table_at(factors, sigma))
    root = np.sqrt(smooth(S, 2).ravel())
    return root[:, None] * V * root[None]


def prior_mean(t: Task) -> np.ndarray:
    V = matrix_V(20.0, np.zeros(D), "spectral")  # no range, so that the middle is 0
    H = t.sigma_y**2 * np.eye(len(t.A)) + t.A @ V @ t.A.T
    return V @ t.A.T @ np.linalg.lstsq(H, t.y, rcond=1e-13)[0]


def size_of(V, plain, noise, sigma, spread):
    """The variance that the library divides by is the mean of S times that of L."""
    mean = np.mean(np.diag(V) / np.diag(plain)) * np.trace(plain) / D
    found = (sigma**2 - noise @ noise / D) / mean
    error = np.sqrt(2 / D) * sigma**2 / mean
    share = spread**2 / (spread**2 + error**2)
    return np.clip(1 + share * (found - 1), 0.25, 4)


def seen_size_of(r, Ae, sigma_y, spread):
    m = len(r)
    usual = Ae @ Ae / m
    error = np.sqrt(2 / m) * (sigma_y**2 + usual) / usual
    share = spread**2 / (spread**2 + error**2)
    return np.clip(1 + share * ((r @ r / m - sigma_y**2) / usual - 1), 1, 16)


def root_of(V: np.ndarray, plain: np.ndarray, size: float) -> np.ndarray:
    """The library's root of V: S^(1/2) T^T L^(1/2) T; plain is V without S."""
    w, U = np.linalg.eigh(plain)
    root = U @ np.diag(np.sqrt(w)) @ U.T  # symmetric, as T^T L^(1/2) T is
    return np.sqrt(size * np.diag(V) / np.diag(plain))[:, None] * root


@transcription("spectral-ancestral")
def spectral_ancestral(
    t: Task, covariance="local", own_scale=0.5, seen_scale=0.0, inflation=1.0, tol=0.0
):
    A = t.A
    (a0, s0) = t.levels[0]
    x = a0 * prior_mean(t) + s0 * t.z(-1, "init")
    for i, a, s, b, r in t.moves:
        sigma, x0 = s / a, PRIOR.D(x, a, s)
        V = matrix_V(sigma, x0, covariance)
        plain = matrix_V(sigma, x0, "bare") if covariance == "local" else V
        size = inflation * size_of(V, plain, x / a - x0, sigma, own_scale)
        if seen_scale:
            Ae = A @ root_of(V, plain, size) @ t.z(i, "size")
            size = size * seen_size_of(t.y - A @ x0, Ae, t.sigma_y, seen_scale)
        e = root_of(V, plain, size) @ t.z(i, "x0")
        V = size * V
        y = t.y + t.sigma_y * t.z(i, "measurement", (len(A),))
        H = t.sigma_y**2 * np.eye(len(A)) + A @ V @ A.T
        X = x0 + e + V @ A.T @ np.linalg.solve(H, y - A @ (x0 + e))
        if r == 0:
            return X
        k = (r / b) ** 2 / sigma**2
        x = b * (X + k * (x / a - X)) + r * np.sqrt(1 - k) * t.z(i, "step")
    return x


@transcription("hqs")
def hqs(t: Task, lam=0.23, final="denoised", sigma_floor=0.002):
    x0 = prior_mean(t)
    level = max(t.sigma_y, sigma_floor)

    def proximal(x, sigma):
        rho = lam * level**2 / sigma**2
        return np.linalg.solve(t.A.T @ t.A + rho * np.eye(D), t.A.T @ t.y + rho * x)

    for _, a, s, _, r in t.moves:
        x0 = PRIOR.D(proximal(x0, s / a), 1.0, s / a)
        if r == 0 and final == "data":
            x0 = proximal(x0, s / a)
    return x0


@transcription("one-call")
def one_call(t: Task, refills=0):
    return PRIOR.D(np.linalg.pinv(t.A) @ t.y, 1.0, t.levels[0][1] / t.levels[0][0])


@on_schedules
@on_matrices
@pytest.mark.parametrize("covariance", ["local", "spectral", "isotropic"])
def test_spectral_ancestral_is_its_transcription(schedule, matrix, covariance, spectrum):
    assert_agrees(
        "spectral-ancestral", {"covariance": covariance, "tol": 0.0}, matrix, 0.1, schedule
    )


@on_schedules
@pytest.mark.parametrize("covariance", ["local", "spectral", "isotropic"])
def test_a_size_seen_in_y_is_its_transcription(schedule, covariance, spectrum):
    knobs = {"covariance": covariance, "seen_scale": 4.0, "tol": 0.0}
    assert_agrees("spectral-ancestral", knobs, "benign", 0.1, schedule)


@pytest.mark.parametrize(
    ("knobs", "wrong"),
    [
        ({}, {"covariance": "spectral"}),
        ({"covariance": "spectral"}, {"covariance": "isotropic"}),
        ({}, {"own_scale": 0.6}),
        ({}, {"inflation": 1.001}),
        ({"seen_scale": 1.0}, {"seen_scale": 1.1}),
        ({"seen_scale": 1.0}, {"seen_scale": 0.0}),
        ({}, {"tol": 0.5}),
    ],
    ids=str,
)
def test_a_knob_off_by_a_little_is_seen(knobs, wrong, monkeypatch):
    monkeypatch.setattr(LIBRARY_PRIOR, "spectrum", SPECTRUM)
    schedule = VE(9, 20.0, 0.02)
    got, want = compare(
        "spectral-ancestral", {"tol": 0.0} | wrong, "benign", 0.1, schedule, {"tol": 0.0} | knobs
        if wrong.get("tol") is None else {"tol": 0.5},
    )  # fmt: skip
    assert np.abs(got - want).max() > 1e-6


@on_schedules
@on_matrices
@pytest.mark.parametrize("final", ["denoised", "data"])
def test_hqs_is_its_transcription(schedule, matrix, final, monkeypatch):
    # the start is found by conjugate gradients up to a tenth of the noise: here to round-off
    monkeypatch.setattr("invdiff.solvers.hqs.START", 0.0)
    assert_agrees("hqs", {"final": final}, matrix, 0.1, schedule)


@on_matrices
def test_one_call_is_its_transcription(matrix):
    assert_agrees("one-call", {}, matrix, 0.1, VE(1, 0.3, 0.3))


# ---- a normal law of the spectrum: exact at any number of steps

SIZE = (6, 6)
N = 36


class SpectralLaw(Prior):
    """N(0, T^T diag(power) T) on (1, 6, 6), its exact denoiser and the spectrum of its errors."""

    shape = (1, *SIZE)
    value_range = (-math.inf, math.inf)

    def __init__(self, power: torch.Tensor) -> None:
        self.power, self.spectrum = power, self  # type: ignore[assignment]

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        gain = self.power / (self.power + sigma**2)
        return Covariance(gain[None, None])(x)

    def at(self, sigma: float, x0: torch.Tensor, local: bool = True) -> Covariance:
        return Covariance((self.power * sigma**2 / (self.power + sigma**2))[None, None].to(x0))

    @property
    def fingerprint(self) -> str:
        return "law"


def law() -> SpectralLaw:
    k = torch.arange(6.0, dtype=torch.float64)
    return SpectralLaw(4.0 / (1 + k[:, None] ** 2 + k[None] ** 2))


OPERATORS = {
    "identity": ops.Identity(),
    "mask": ops.Inpaint.random(SIZE, 0.5, seed=2),
    "means": ops.AveragePool(3, SIZE),
}
CHAINS = 3000


def posterior(A, prior: SpectralLaw, sigma: float, y: torch.Tensor):
    """(mean, covariance) in closed form."""
    T = torch.kron(dct_matrix(6), dct_matrix(6))
    C = T.mT @ torch.diag(prior.power.flatten()) @ T
    M = A(torch.eye(N, dtype=torch.float64).reshape(N, 1, *SIZE)).flatten(1).mT
    seen = M.abs().sum(1) > 0
    M, y = M[seen], y.flatten()[seen]
    K = C @ M.mT @ torch.linalg.inv(M @ C @ M.mT + sigma**2 * torch.eye(len(M)).double())
    return K @ y, C - K @ M @ C


def drawn(name: str, steps: int, sigma: float = 0.1, **knobs):
    A, prior = OPERATORS[name], law()
    truth = Covariance(prior.power[None, None]).root(
        torch.randn(1, 1, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    )
    y = GaussianNoise(sigma).sample(A(truth), Rng.of(5))
    problem = Problem(A.restrict(y), A, GaussianNoise(sigma), (1, *SIZE))
    solver = SpectralAncestral(
        **{"own_scale": 0.0, "tol": 1e-8, "schedule": Karras(steps, 100.0, 0.02), **knobs}
    )
    x = solve(problem, prior, solver, CHAINS, seed=1).samples[0].flatten(1)
    return x, *posterior(A, prior, sigma, problem.y)


def z_scores(x, mean, cov):
    """Of the mean along each principal axis, and of the variance over all of them.

    n w_i^2 / lambda_i is chi-squared; the sum over axes of variance / lambda has the mean d and the
    variance 2 d / (n - 1).
    """
    values, axes = torch.linalg.eigh(cov)
    kept = values > 1e-9 * values.max()
    w = (x - mean) @ axes[:, kept] / values[kept].sqrt()
    of_mean = w.mean(0) * math.sqrt(len(x))
    d = int(kept.sum())
    of_variance = (w.var(0).sum() - d) / math.sqrt(2 * d / (len(x) - 1))
    return of_mean, float(of_variance)


EXACT = [("mask", 3), ("mask", 20), *((name, 5 - 2 * (name == "means")) for name in OPERATORS)]
"""Every operator; three steps, where each weighs most, and more."""


@pytest.mark.parametrize(("name", "steps"), EXACT)
def test_samples_of_a_normal_law_of_the_spectrum_are_exact(name, steps):
    of_mean, of_variance = z_scores(*drawn(name, steps))
    assert of_mean.abs().max() < 4.5 and abs(of_variance) < 4.5


@pytest.mark.parametrize(
    "wrong", [{"inflation": 1.1}, {"covariance": "isotropic"}, {"inflation": 0.9}], ids=str
)
def test_another_covariance_is_seen(wrong):
    assert abs(z_scores(*drawn("mask", 3, **wrong))[1]) > 6


def test_a_noisy_image_is_a_state_of_the_chain():
    """Denoising from y alone: exact too, at 3 steps."""
    x, mean, cov = drawn("identity", 3, 0.5, data="start", schedule=Karras(3, 0.5, 0.1))
    of_mean, of_variance = z_scores(x, mean, cov)
    assert of_mean.abs().max() < 4.5 and abs(of_variance) < 4.5


def test_only_a_noisy_image_can_be_the_start():
    problem = Problem(
        torch.zeros(1, 1, 2, 2), ops.AveragePool(3, SIZE), GaussianNoise(0.5), (1, *SIZE)
    )
    solver = SpectralAncestral(data="start", schedule=Karras(3, 0.5, 0.1))
    with pytest.raises(InvdiffError, match="take data drawn"):
        solve(problem, law(), solver)
    noisy = Problem(torch.zeros(1, 1, *SIZE), ops.Identity(), GaussianNoise(0.3), (1, *SIZE))
    with pytest.raises(InvdiffError, match="begins at its noise, 0.3"):
        solve(noisy, law(), solver)


# ---- what was clipped


class Bright(Prior):
    """Every pixel is 0.95 or so: N(0.95, 0.02^2), on [-1, 1]."""

    shape = (1, None, None)

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        return 0.95 + 0.0004 / (0.0004 + sigma**2) * (x - 0.95)


def test_clipped_noise_is_drawn_beyond_white():
    """Of y cut off at white, the mean is lower; its draws beyond white take that back."""
    y = (0.95 + 0.2 * torch.randn(1, 1, 60, 60, generator=torch.Generator().manual_seed(0))).clamp(
        -1, 1
    )
    problem = Problem(y, ops.Identity(), GaussianNoise(0.2), (1, 60, 60))
    solver = SpectralAncestral(data="start", schedule=Karras(2, 0.2, 0.05))
    first = solver.init(problem, Bright(), Rng.of(0).at(-1)).x
    assert float(y.mean()) < 0.90 and abs(float(first.mean()) - 0.95) < 4 * 0.2 / 60
    assert abs(float(first.std()) - 0.2) < 4 * 0.2 / math.sqrt(2 * 3600)
    assert torch.equal(first[y < 1], y[y < 1]) and bool((first[y == 1] >= 1).all())
    kept = dataclasses.replace(solver, refills=0).init(problem, Bright(), Rng.of(0).at(-1)).x
    assert torch.equal(kept, y)
    best = estimate(problem, Bright(), OneCall(refills=2, schedule=VE(1, 0.2, 0.2))).estimate
    plain = estimate(problem, Bright(), OneCall(schedule=VE(1, 0.2, 0.2))).estimate
    assert best is not None and plain is not None
    assert abs(float(best.mean()) - 0.95) < abs(float(plain.mean()) - 0.95)


def test_values_beyond_the_range_were_not_clipped():
    y = torch.full((1, 1, 4, 4), 1.0)
    y[..., 0, 0] = 1.3
    problem = Problem(y, ops.Identity(), GaussianNoise(0.2), (1, 4, 4))
    solver = SpectralAncestral(data="start", schedule=Karras(2, 0.2, 0.05))
    assert torch.equal(solver.init(problem, Bright(), Rng.of(0).at(-1)).x, y)


# ---- JPEG

JPEG_SHAPE = (1, 8, 16)


class Grey(Prior):
    """N(0.1, 0.3^2) at every pixel."""

    shape = (1, None, None)

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        return 0.1 + 0.09 / (0.09 + sigma**2) * (x - 0.1)


C = cosines(8)


def blocks(x):
    """Coefficients of a plane of two blocks, (2, 8, 8)."""
    return np.stack([C @ b @ C.T for b in (127.5 * x - 0.5).reshape(8, 2, 8).swapaxes(0, 1)])


def moved(x, change):
    """The plane whose coefficients are changed."""
    change = np.stack([C.T @ c @ C for c in change]).swapaxes(0, 1).reshape(8, 16)
    return x + change / 127.5


@transcription("pocs")
def pocs(y, table, levels):
    """One grey plane of two blocks: the denoiser, and the coefficients cut to their cells."""
    index, x = np.round(blocks(y) / table), y
    for _, s in levels[:-1]:
        x = 0.1 + 0.09 / (0.09 + s**2) * (x - 0.1)
        cut = np.clip(blocks(x), (index - 0.5) * table, (index + 0.5) * table)
        x = moved(x, cut - blocks(x))
    return x


@transcription("spectral-jpeg")
def spectral_jpeg(y, table, levels, z, u):
    """One grey plane of two blocks; the uniform numbers u(step) and the normal ones z(step, role).

    V = r^2 I in the isotropic table, so that a coefficient has the deviation 127.5 r."""

    index = np.round(blocks(y) / table)
    x = levels[0][1] * z(-1, "init") + y
    for i, ((_, s), (_, r)) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
        x0 = 0.1 + 0.09 / (0.09 + s**2) * (x - 0.1)
        r2 = s**2 * min(table_at(FLAT.bands[:, 0, :1].numpy(), s)[0], 1)
        n = y.size
        found, error = (s**2 - ((x - x0) ** 2).sum() / n) / r2, np.sqrt(2 / n) * s**2 / r2
        share = 0.25 / (0.25 + error**2)
        sd = np.sqrt(r2 * np.clip(1 + share * (found - 1), 0.25, 4))
        X = x0 + sd * z(i, "x0")
        mean, std = blocks(x0), 127.5 * sd
        low, high = ((index + h) * table for h in (-0.5, 0.5))
        drawn = truncnorm.ppf(u(i), (low - mean) / std, (high - mean) / std, mean, std)
        X = moved(X, drawn - blocks(X))
        if r == 0:
            return X
        k = r**2 / s**2
        x = X + k * (x - X) + r * np.sqrt(1 - k) * z(i, "step")
    return x


def jpeg_problem(quality: int, shape=JPEG_SHAPE, sampling="4:4:4") -> tuple[Problem, torch.Tensor]:
    g = torch.Generator().manual_seed(4)
    smooth = torch.nn.functional.interpolate(torch.randn(1, shape[0], 4, 4, generator=g), shape[1:])
    truth = ((0.15 * smooth.double()).clamp(-0.5, 0.5) * 127.5 - 0.5).round() / 127.5 + 0.5 / 127.5
    A = ops.JPEG(quality, sampling)
    return Problem(A(truth), A, NOISELESS, shape), truth


def test_spectral_jpeg_is_its_transcription():
    problem, _ = jpeg_problem(30)
    solver, prior, rng = SpectralJPEG(schedule=Karras(4, 0.5, 0.05)), Grey(), Rng.of(11)
    got = solve_with(solver, problem, prior, rng)

    def z(step, role):
        like = torch.empty(1, *JPEG_SHAPE, dtype=torch.float64)
        return rng.at(step).normal(like, role).numpy().reshape(8, 16)

    def u(step):
        return rng.at(step).uniform(torch.empty(1, 1, 2, 8, 8), "plane 0").numpy()[0, 0]

    table = np.array(problem.A.steps()[0], float).reshape(8, 8)
    levels = [(level.a, level.s) for level in solver.levels]
    want = spectral_jpeg(problem.y.numpy()[0, 0], table, levels, z, u)
    np.testing.assert_allclose(got.numpy()[0, 0], want, atol=2e-6)  # uniform numbers are float32


def test_pocs_is_its_transcription():
    problem, _ = jpeg_problem(30)
    table = np.array(problem.A.steps()[0], float).reshape(8, 8)
    solver = POCS(schedule=VE(3, 0.5, 0.05))
    got = solve_with(solver, problem, Grey(), Rng.of(0)).numpy()[0, 0]
    y, levels = problem.y.numpy()[0, 0], [(level.a, level.s) for level in solver.levels]
    np.testing.assert_allclose(got, pocs(y, table, levels), atol=1e-9)
    assert np.abs(got - pocs(y, 1.1 * table, levels)).max() > 1e-3


def solve_with(solver, problem, prior, rng):
    state = solver.init(problem, prior, rng.at(-1))
    for i in range(solver.num_steps):
        state = solver.step(state, problem, prior, rng.at(i))
    return state.x


@pytest.mark.parametrize("solver", [SpectralJPEG(schedule=Karras(3, 0.5, 0.05)), POCS()])
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_answers_lie_in_the_cells_of_the_file_and_the_truth_does(sampling, solver):
    problem, truth = jpeg_problem(20, (3, 32, 48), sampling)
    A = problem.A
    for plane in planes(A, problem.y):
        outside = (plane.coefficients(truth) / plane.steps - plane.index).abs() - 0.5
        # both roundings to 8 bits move a coefficient by 0.29 levels rms, so that 4 is 10 of these
        assert float((outside * plane.steps).max()) < 4.0
        assert float((outside > 0).double().mean()) < 0.02
    x = solve(problem, GreyRGB(), solver, 2, seed=3).samples[0]
    torch.testing.assert_close(nearest(planes(A, problem.y), x), x)
    for plane in planes(A, problem.y):
        c = (plane.coefficients(x) / plane.steps - plane.index).abs()
        assert float(c.max()) < 0.5 + 1e-6


def test_only_blocks_that_the_picture_does_not_fill_may_be_left():
    """37 = 4 x 8 + 5: of the last column of blocks the file holds pixels that nobody sees."""
    problem, _ = jpeg_problem(20, (1, 24, 37))
    x = solve(problem, Grey(), SpectralJPEG(schedule=Karras(3, 0.5, 0.05)), 2, seed=3).samples[0]
    (plane,) = planes(problem.A, problem.y)
    c = (plane.coefficients(x) / plane.steps - plane.index).abs()[:, :, :4]
    assert c.shape[1:3] == (3, 4) and float(c.max()) < 0.5 + 1e-6


class GreyRGB(Grey):
    shape = (3, None, None)


def test_truncated_normals_have_the_moments_of_quadrature():
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    for low, high in (
        (-1.0, 2.0),
        (3.0, 3.5),
        (-9.0, -8.5),
        (20.0, 21.0),
        (-60.0, -50.0),
        (45, 46),
    ):
        one = torch.ones_like(u)
        x = truncated_normal(0 * one, one, low * one, high * one, u)
        assert bool(((x >= low) & (x <= high)).all())
        grid = torch.linspace(low, high, 400_001, dtype=torch.float64)
        weight = torch.exp(-(grid**2 - grid.abs().min() ** 2) / 2)
        mean = float((grid * weight).sum() / weight.sum())
        spread = float(((grid - mean) ** 2 * weight).sum() / weight.sum())
        assert abs(float(x.mean()) - mean) < 2e-3 * math.sqrt(spread)
        assert abs(float(x.var()) / spread - 1) < 2e-2 if abs(low) < 30 else 0.1


def test_the_fast_cosine_transform_is_the_matrix(monkeypatch):
    x = torch.randn(2, 3, 9, 14, dtype=torch.float64)
    want = dct2(x)
    monkeypatch.setattr("invdiff.operators.dct.LARGE", 1)
    from invdiff.operators.dct import idct2

    torch.testing.assert_close(dct2(x), want, rtol=0, atol=1e-12)
    torch.testing.assert_close(idct2(want), x, rtol=0, atol=1e-12)


def test_hqs_makes_an_estimate_and_a_sampler_does_not():
    problem = Problem(
        torch.zeros(1, 1, 2, 2).double(), ops.AveragePool(3, SIZE), GaussianNoise(0.1), (1, *SIZE)
    )
    found = estimate(problem, law(), HQS())
    assert found.estimate is not None and torch.equal(found.estimate, found.samples[:, 0])
    with pytest.raises(InvdiffError, match="draws samples and makes no estimate"):
        estimate(problem, law(), SpectralAncestral(schedule=VP(3)))


def test_hqs_makes_the_same_picture_from_a_start_in_modes(monkeypatch):
    """In fewer applications, to a fifth of the noise."""
    size = (24, 20)
    A = ops.Blur(ops.motion_kernel(5, 30.0).double(), size, cg_tol=1e-6)
    x = torch.linspace(-1, 1, 2 * 24 * 20, dtype=torch.float64).mul(40).sin().reshape(2, 1, *size)
    problem = Problem(A(x), A, GaussianNoise(0.01), (1, *size))
    prior = Denoiser(lambda x, sigma: x / (1 + sigma**2))
    calls, forward = [0], ops.Blur.__call__

    def counted(self, x):
        calls[0] += 1
        return forward(self, x)

    monkeypatch.setattr(ops.Blur, "__call__", counted)
    pictures, counts = [], []
    for way in ("none", "modes"):
        calls[0] = 0
        solver = HQS(final="data", preconditioner=way, schedule=VE(12, 0.4, 0.02))
        pictures.append(solve(problem, prior, solver, 1).samples)
        counts.append(calls[0])
    assert counts[0] > counts[1]
    assert float((pictures[1] - pictures[0]).square().mean().sqrt()) < 0.2 * 0.01


def test_a_measurement_that_tells_numbers_twice_is_met_without_noise():
    """k-space of a real image at f and -f: A V A^T is singular, and y has round-off alone."""
    mask = torch.zeros(1, 1, 1, 24, dtype=torch.bool)
    mask[..., [3, 4, 9, 11, 12, 13, 15, 20]] = True
    x = torch.linspace(-1, 1, 2 * 24 * 24).sin().reshape(2, 1, 24, 24)
    A = ops.RealFourier(mask)
    problem = Problem(A(x), A, NOISELESS, (1, 24, 24))
    solver = SpectralAncestral(schedule=Karras(6, 5.0, 0.01))
    prior = Denoiser(lambda x, sigma: x / (1 + sigma**2))
    samples = solve(problem, prior, solver, 2, seed=0).samples
    for k in range(2):
        r = (problem.y - A(samples[:, k])).abs().square().mean().sqrt()
        least = ROUNDED * torch.finfo(torch.float32).eps * problem.y.abs().square().mean().sqrt()
        assert r < least  # which is what is not followed
