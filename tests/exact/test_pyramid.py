"""Pyramidal diffusion (Ryu, Ye 2022): second version over several scales, moments, costs, schedule.

The setting of dense.py has one size; here an image of 7 x 6 pixels, which 2 and 4 do not divide, is
made small and large by matrices that are filled in loops. The prior is N(mu, Sigma) on the image,
and on small images what it implies for block means: an exact prior for all scales.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from dense import ddim, random_matrix, transcription
from scalar import PRIOR as SCALAR_PRIOR
from scalar import Moments, assert_follows, each_gain
from torch import Tensor

from helpers import Dense, Given, noise_names, seeded, seeds, states
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, VP, Schedule
from invdiff.noise import GaussianNoise
from invdiff.operators import AveragePool, Identity, Inpaint, Operator
from invdiff.priors.base import Denoiser, Prior
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem
from invdiff.sampling.needs import Need
from invdiff.sampling.run import solve
from invdiff.sampling.stream import stream
from invdiff.solvers.pyramid import Pyramid
from invdiff.solvers.unconditional import Unconditional

H, W, D, ROWS = 7, 6, 42, 2
SHAPE = (1, H, W)


# ---- the setting, in plain matrices


def sides(factor: int) -> tuple[int, int]:
    return math.ceil(H / factor), math.ceil(W / factor)


def repeat(factor: int) -> np.ndarray:
    """42 x pixels: every small pixel is repeated over its block."""
    h, w = sides(factor)
    R = np.zeros((D, h * w))
    for i in range(H):
        for j in range(W):
            R[i * W + j, (i // factor) * w + j // factor] = 1
    return R


def shrink(factor: int) -> np.ndarray:
    """pixels x 42: the mean of every block, of what there is of it."""
    R = repeat(factor).T
    return R / R.sum(1, keepdims=True)


def cubic(t: float) -> float:
    """Keys 1981, a = -1/2."""
    t = abs(t)
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    return near if t < 1 else -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


def interpolate(small: tuple[int, int], large: tuple[int, int]) -> np.ndarray:
    """Twice as many pixels per side: pixel i of the large image lies at i/2 - 1/4 of the small."""

    def axis(n: int, m: int) -> np.ndarray:
        K = np.zeros((m, n))
        for i in range(m):
            for p in range(-3, n + 3):
                mirrored = p % (2 * n)
                mirrored = mirrored if mirrored < n else 2 * n - 1 - mirrored
                K[i, mirrored] += cubic(p - (i / 2 - 0.25))
        return K

    return np.kron(axis(small[0], large[0]), axis(small[1], large[1]))


def law() -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance; neighbouring pixels look alike."""
    place = np.array([(i, j) for i in range(H) for j in range(W)])
    distance = np.abs(place[:, None] - place[None]).sum(-1)
    return random_matrix(1, D, 11)[0] / 2, np.exp(-distance / 3) + 0.1 * np.eye(D)


MU, SIGMA = law()


class Scales(Prior):
    """The law of block means, whatever their size."""

    def __init__(self) -> None:
        self.laws = {}
        for factor in (1, 2, 4):
            P = shrink(factor)
            cov = torch.tensor(P @ SIGMA @ P.T)
            mean = torch.tensor(P @ MU).reshape(1, *sides(factor))
            self.laws[sides(factor)] = GaussianPrior(mean, (cov + cov.mT) / 2)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return self.laws[tuple(x.shape[-2:])].denoise(x, sigma)


@dataclass(frozen=True)
class Picture:
    """One measurement y = A x0, its noise draws, the chain of n steps, and how many there are."""

    A: np.ndarray
    y: np.ndarray
    z: Callable[[int, str, int], np.ndarray]
    chain: Callable[[int], list[tuple[float, float]]]
    steps: int


@transcription("pyramid")
def pyramid(t, scales=3, t0=0.25, data="gradient", rho=2.0, eta_ddim=1.0, smallest=8):
    """Ryu and Ye 2022 with the start of Chung, Sim and Ye 2022 at every finer scale."""
    finer = min(scales, t.steps) - 1
    share = 1  # the most steps that are at most t0 of the coarsest scale's
    while share + 1 <= t0 * (t.steps - finer * (share + 1)):
        share += 1
    chain = t.chain(t.steps - finer * share)
    factors = []
    for k in range(finer, -1, -1):
        allowed = [2**j for j in range(k + 1) if j == 0 or min(sides(2**j)) >= smallest]
        factors.append(max(allowed))
    i, x = 0, None
    for scale, factor in enumerate(factors):
        P, A = shrink(factor), t.A @ repeat(factor)
        mu, Sigma, n = P @ MU, P @ SIGMA @ P.T, len(P)
        run = chain if scale == 0 else chain[len(chain) - 1 - share :]
        a, s = run[0]
        if scale == 0:
            x = s * t.z(-1, "init", n)
        else:
            if factors[scale - 1] > factor:
                x = interpolate(sides(factors[scale - 1]), sides(factor)) @ x
            x = a * x + s * t.z(i, "jump", n)
        for (a, s), (b, r) in zip(run[:-1], run[1:], strict=True):
            gain = a * Sigma @ np.linalg.inv(a**2 * Sigma + s**2 * np.eye(n))  # also dD/dx_t
            x0 = mu + gain @ (x - a * mu)
            new = ddim(x, x0, a, s, b, r, t.z(i, "step", n), eta_ddim)
            if data == "gradient":
                rest = t.y - A @ x0
                x = new - rho * (-gain.T @ A.T @ rest / np.linalg.norm(rest))
            else:
                noised = b * t.y + r * A @ t.z(i, "known", n)
                x = new - np.linalg.pinv(A) @ A @ new + np.linalg.pinv(A) @ noised
            i += 1
    return x


def orthogonal(rows: int) -> np.ndarray:
    """Rows of unequal lengths, at right angles."""
    _, _, vt = np.linalg.svd(random_matrix(rows, D, 12), full_matrices=False)
    return np.diag(np.linspace(1.4, 0.6, rows)) @ vt


KEPT = torch.tensor([i % 3 != 1 for i in range(D)]).reshape(1, 1, H, W)
MATRICES: dict[str, tuple[np.ndarray, Operator]] = {
    "dense": (orthogonal(9), Dense(torch.tensor(orthogonal(9)), SHAPE)),
    "pool": (shrink(2), AveragePool(2, (H, W))),
    "mask": (np.diag(KEPT.flatten().double().numpy()), Inpaint(KEPT)),
}


def compare(knobs, matrix, schedule: Schedule, library_knobs=None):
    """(library's samples, second version's), both (ROWS, 42), on the same noise."""
    A, operator = MATRICES[matrix]
    y = (MU + random_matrix(ROWS, D, 13) @ np.linalg.cholesky(SIGMA).T) @ A.T
    shape = operator.y_shape(SHAPE)
    problem = Problem(torch.tensor(y).reshape(ROWS, *shape), operator, GaussianNoise(0.0), SHAPE)
    solver = Pyramid(**(knobs if library_knobs is None else library_knobs), schedule=schedule)
    keys = seeds(ROWS)
    got = states(solver, problem, Scales(), Rng.of(keys))[-1].x.flatten(1).numpy()

    def one(row):
        def z(step, role, n):
            like = torch.empty(1, n, dtype=torch.float64)
            return Rng.of(keys[row]).at(step).normal(like, role).numpy().ravel()

        def chain(n):
            return [(v.a, v.s) for v in dataclasses.replace(schedule, steps=n).levels()]

        return pyramid(Picture(A, y[row], z, chain, schedule.steps), **knobs)

    return got, np.stack([one(row) for row in range(ROWS)])


def assert_agrees(knobs, matrix, schedule):
    got, want = compare(knobs, matrix, schedule)
    assert np.isfinite(want).all() and np.abs(want).max() < 1e4
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8)


SCHEDULES = {"vp": VP(12), "vp-trailing": VP(15, spacing="trailing"), "ve": VE(11, 20.0, 0.02)}
on_schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
on_matrices = pytest.mark.parametrize("matrix", MATRICES)


@on_schedules
@on_matrices
@pytest.mark.parametrize(
    "knobs",
    [
        {"smallest": 1},
        {"smallest": 1, "t0": 1.0, "rho": 0.3, "eta_ddim": 0.4},
        {"smallest": 3, "t0": 0.5},
        {"smallest": 1, "scales": 2, "rho": 0.0},
        {},
    ],
    ids=str,
)
@pytest.mark.parametrize("data", ["gradient", "overwrite"])
def test_it_is_the_second_version(schedule, matrix, knobs, data):
    assert_agrees(knobs | {"data": data}, matrix, schedule)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_with_few_steps_it_is_the_second_version(steps):
    assert_agrees({"smallest": 1}, "dense", VP(steps))


@pytest.mark.parametrize(
    ("knobs", "wrong"),
    [
        ({"smallest": 1}, {"rho": 2.001}),
        ({"smallest": 1}, {"scales": 2}),
        ({"smallest": 1}, {"smallest": 4}),
        ({"smallest": 1}, {"t0": 0.5}),
        ({"smallest": 1}, {"eta_ddim": 0.999}),
        ({"smallest": 1}, {"data": "overwrite"}),
    ],
    ids=str,
)
def test_a_knob_off_by_a_little_is_seen(knobs, wrong):
    """Negative twin of the tests above."""
    got, want = compare(knobs | wrong, "dense", SCHEDULES["vp"], library_knobs=knobs)
    assert np.abs(got - want).max() > 1e-6


# ---- on one pixel, where every scale is the same size


def parts(schedule, scales, t0):
    """(level, next, whether a scale begins) of every step, from the published cost N (1 + sum t0),
    for budgets that it divides."""
    n = round(schedule.steps / (1 + (scales - 1) * t0))
    chain = dataclasses.replace(schedule, steps=n).levels()
    begin = round(n * t0)
    for scale in range(scales):
        run = chain if scale == 0 else chain[n - begin :]
        for k, (t, u) in enumerate(zip(run[:-1], run[1:], strict=True)):
            yield t, u, scale > 0 and k == 0


def bridge(t, u):
    """Mean and standard deviation of q(x_u | x_t, x0): on x0, on x_t, std (Bayes' rule)."""
    r = t.a / u.a
    step = t.s**2 - r**2 * u.s**2
    return u.a * step / t.s**2, r * u.s**2 / t.s**2, math.sqrt(step) * u.s / t.s


def recursion(schedule, gain, scales, t0):
    """Overwriting: x_u = a y/s + s z where s > 0; else the bridge; a jump is a x + s z."""
    m, V = 0.0, next(parts(schedule, scales, t0))[0].s ** 2
    for t, u, begins in parts(schedule, scales, t0):
        if begins:
            m, V = t.a * m, t.a**2 * V + t.s**2
        on_x0, on_x, std = bridge(t, u)
        own = on_x0 * t.a / (t.a**2 + t.s**2) + on_x
        m, V = own * m, own**2 * V + std**2
        yield (m := u.a if gain else m), (V := u.s**2 if gain else V)


@pytest.mark.parametrize(("steps", "scales", "t0"), [(30, 3, 0.25), (30, 2, 0.5), (20, 1, 0.3)])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@each_gain
def test_overwriting_follows_its_recursion(gain, spacing, steps, scales, t0):
    """The gradient of a norm is not linear in y and noise: see the next test."""
    schedule = VP(steps, spacing=spacing)
    solver = Pyramid(data="overwrite", scales=scales, t0=t0, schedule=schedule)
    expected = [Moments(*found) for found in recursion(schedule, gain, scales, t0)]
    assert_follows(solver, gain, 0.0, expected)


@pytest.mark.parametrize("scales", [1, 3])
def test_the_gradient_is_a_sign_on_one_pixel(scales):
    """x' - rho d|y - x0|/dx_t = x' + rho d sign(y - x0), in plain numbers, with given noise."""
    schedule, rho, y = VP(30), 0.3, 0.8
    solver = Pyramid(scales=scales, rho=rho, schedule=schedule)
    problem = Problem(
        torch.full((1, 1, 1, 1), y).double(), Identity(), GaussianNoise(0.0), (1, 1, 1)
    )
    names = noise_names(solver, problem, SCALAR_PRIOR)
    draws = dict(zip(names, np.random.default_rng(2).standard_normal(len(names)), strict=True))
    table = Given((0,), table=lambda step, role: torch.tensor([draws[step, role]]))
    found = states(solver, problem, SCALAR_PRIOR, table)
    x = next(parts(schedule, scales, 0.25))[0].s * draws[-1, "init"]
    signs = set()
    for i, (t, u, begins) in enumerate(parts(schedule, scales, 0.25)):
        if begins:
            x = t.a * x + t.s * draws[i, "jump"]
        d = t.a / (t.a**2 + t.s**2)
        on_x0, on_x, std = bridge(t, u)
        sign = math.copysign(1.0, y - d * x)
        x = on_x0 * d * x + on_x * x + std * draws[i, "step"] + rho * d * sign
        signs.add(sign)
        assert float(found[i + 1].x) == pytest.approx(x, rel=1e-10, abs=1e-10)
    assert signs == {1.0, -1.0} and len(found) == i + 2


# ---- schedule, shapes, costs


def test_the_budget_is_shared_as_published():
    """N (1 + sum t0) evaluations: 200 + 50 + 50; finer scales run the end of the same chain."""
    solver = Pyramid(t0=0.25, schedule=VP(300))
    scales = [move.scale for move in solver.moves]
    assert [scales.count(k) for k in (2, 1, 0)] == [200, 50, 50] and scales == sorted(scales)[::-1]
    chain = VP(200).levels()
    assert [move.level for move in solver.moves] == chain[:-1] + 2 * chain[-51:-1]
    assert [move.to for move in solver.moves] == chain[1:] + 2 * chain[-50:]
    for steps in range(1, 40):
        moves = solver.with_steps(steps).moves
        assert len(moves) == steps and moves[-1].scale == 0 and moves[0].scale == min(2, steps - 1)


class Anywhere(Prior):
    """Elementwise, so of any size; remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked = []

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        self.asked.append(tuple(x.shape[-2:]))
        return x / (1 + sigma**2)


@pytest.mark.parametrize(
    ("smallest", "ladder"),
    [
        (1, [(3, 4), (6, 8), (11, 16)]),
        (3, [(3, 4), (6, 8), (11, 16)]),
        (5, [(6, 8), (6, 8), (11, 16)]),
        (8, [(11, 16), (11, 16), (11, 16)]),
    ],
)
def test_every_scale_has_its_size(smallest, ladder):
    shape, prior = (2, 11, 16), Anywhere()
    problem = Problem(seeded(2, *shape), Identity(), GaussianNoise(0.1), shape)
    solver = Pyramid(smallest=smallest, t0=1.0, schedule=VP(9))
    found = states(solver, problem, prior, Rng.of(seeds(2)))
    assert prior.asked == [size for size in ladder for _ in range(3)]
    assert [tuple(s.x.shape[-2:]) for s in found] == [ladder[0], *prior.asked]
    assert all(s.x0.shape == (2, *shape) for s in found)


def test_videos_keep_their_frames():
    shape, prior = (1, 5, 16, 8), Anywhere()
    problem = Problem(seeded(1, 1, 5, 4, 2), AveragePool(4, (16, 8)), GaussianNoise(0.1), shape)
    found = states(Pyramid(smallest=2, schedule=VP(6)), problem, prior, Rng.of(seeds(1)))
    assert [tuple(s.x.shape[1:]) for s in found[4:]] == [(1, 5, 4, 2), (1, 5, 8, 4), shape]
    assert found[1].x0.shape == (1, *shape)


def test_a_preview_is_the_clean_estimate_enlarged():
    problem = Problem(seeded(1, *SHAPE), Identity(), GaussianNoise(0.1), SHAPE)
    found = states(
        Pyramid(smallest=1, rho=0.0, schedule=VP(6)), problem, Scales(), Rng.of(seeds(1))
    )
    before = found[1].x / VP(4).levels()[1].a
    small = Scales().denoise(before, VP(4).levels()[1].sigma)
    expected = repeat(4) @ small.flatten().numpy()
    np.testing.assert_allclose(found[2].x0.flatten().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("data", "vjps"), [("gradient", 9), ("overwrite", 0)])
def test_costs(data, vjps):
    """One evaluation a step at every scale; with the gradient, one product too."""
    problem = Problem(seeded(1, *SHAPE), Identity(), GaussianNoise(0.1), SHAPE)
    result = solve(problem, Scales(), Pyramid(data=data, smallest=1, schedule=VP(9)), samples=2)
    assert (result.nfe, result.vjps) == (9, vjps)


def test_needs_follow_the_data_term():
    gradient = {Need.PRIOR_VJP, Need.OPERATOR_VJP}
    overwrite = Pyramid(data="overwrite")
    assert Pyramid().requires() == (gradient,) and overwrite.requires() == ({Need.PINV},)
    assert dataclasses.replace(overwrite, data="gradient").requires() == (gradient,)


def test_a_prior_of_one_size_is_refused_before_it_is_called():
    def refuse(x: Tensor, sigma: float) -> Tensor:
        raise AssertionError("the prior was called")

    prior = Denoiser(refuse, shape=(1, 16, 16), name="stamp")
    problem = Problem(seeded(1, 1, 16, 16), Identity(), GaussianNoise(0.1), (1, 16, 16))
    with pytest.raises(InvdiffError, match="begins with 8 x 8 pixels, but the prior stamp"):
        solve(problem, prior, Pyramid(scales=2))
    for free in ((1, None, None), None):
        with pytest.raises(AssertionError, match="the prior was called"):
            solve(problem, Denoiser(refuse, shape=free), Pyramid(scales=2))


# ---- what y does


@pytest.mark.parametrize("schedule", [VP(6), VP(6, spacing="trailing"), VE(6, 50.0, 0.02)])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_at_one_scale_without_data_it_is_the_plain_sampler(eta, schedule):
    """Bit for bit, every state."""
    problem = Problem(seeded(2, *SHAPE), Identity(), GaussianNoise(0.1), SHAPE)
    solver = Pyramid(scales=1, rho=0.0, eta_ddim=eta, schedule=schedule)
    ours = list(stream(problem, Scales(), solver, seeds(2)))
    theirs = list(
        stream(problem, Scales(), Unconditional(eta_ddim=eta, schedule=schedule), seeds(2))
    )
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.x0, b.x0)


def test_rho_0_ignores_the_measurement_at_all_scales():
    runs = []
    for seed in (1, 2):
        problem = Problem(seeded(1, *SHAPE, seed=seed), Identity(), GaussianNoise(0.1), SHAPE)
        solver = Pyramid(rho=0.0, smallest=1, schedule=VP(9))
        runs.append(solve(problem, Scales(), solver, samples=2).samples)
    assert torch.equal(*runs)


@pytest.mark.parametrize("matrix", MATRICES)
def test_overwriting_ends_at_the_data(matrix):
    A, operator = MATRICES[matrix]
    y = torch.tensor(A @ MU).reshape(1, *operator.y_shape(SHAPE))
    solver = Pyramid(data="overwrite", smallest=1, schedule=VP(20))
    x = solve(Problem(y, operator, GaussianNoise(0.0), SHAPE), Scales(), solver).samples[0]
    torch.testing.assert_close(operator(x), y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [2, 4])
def test_in_super_resolution_the_coarse_scale_is_tied_to_y_itself(factor):
    """Block means of 4 x 4 on an image twice as small are block means of 2 x 2, and y itself where
    the scale has y's own size: the coarsest image then ends at y, pixel by pixel."""
    shape = (1, 8, 12)
    y = seeded(1, 1, 2, 3)
    problem = Problem(y, AveragePool(4, shape[1:]), GaussianNoise(0.0), shape)
    scales = 1 + int(math.log2(factor))
    solver = Pyramid(data="overwrite", scales=scales, smallest=1, t0=0.5, schedule=VP(12))
    coarse = [m.scale for m in solver.moves].count(scales - 1)
    x = states(solver, problem, Anywhere(), Rng.of(seeds(1)))[coarse].x
    expected = y if factor == 4 else AveragePool(2, (4, 6))(x)
    assert x.shape[-2:] == (8 // factor, 12 // factor)
    torch.testing.assert_close(x if factor == 4 else y, expected, rtol=0, atol=1e-12)
