"""ILVR: Choi et al. 2021, and the facts about its low-pass filter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dense import (
    MATRICES,
    PRIOR,
    VP_SCHEDULE,
    Task,
    ancestral,
    assert_agrees,
    compare,
    on_schedules,
    transcription,
)
from scalar import SIGMA_Y, Moments, assert_follows, each_gain, each_schedule, pairs, shrink
from scalar import ancestral as bridge

from helpers import Dense, seeded, seeds, states
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP
from invdiff.noise import NOISELESS
from invdiff.operators import AveragePool, Bicubic, Linear
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.needs import Need
from invdiff.sampling.run import solve
from invdiff.solvers.ilvr import ILVR
from invdiff.solvers.replacement import Replacement
from invdiff.solvers.unconditional import Unconditional

ELEMENTWISE = Denoiser(lambda x, sigma: x / (1 + sigma**2) + 0.1 * torch.tanh(x))


def keys(t: float) -> float:
    """Keys' cubic with a = -1/2."""
    t = abs(t)
    if t < 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


def resized(n: int, m: int, stretch: float) -> np.ndarray:
    """The resizer's matrix from n to m samples, its kernel stretched, mirrored, rows of sum 1."""
    out = np.zeros((m, n))
    for p in range(m):
        centre = (p + 0.5) * n / m - 0.5
        for q in range(math.ceil(centre - 2 * stretch), math.floor(centre + 2 * stretch) + 1):
            mirrored = q % (2 * n)
            mirrored = mirrored if mirrored < n else 2 * n - 1 - mirrored
            out[p, mirrored] += keys((q - centre) / stretch)
    return out / out.sum(1, keepdims=True)


MATRICES["cubic"] = np.kron(resized(4, 2, 2.0), resized(4, 2, 2.0))


# ---- the algorithm, as printed


@transcription("ilvr")
def ilvr(t: Task, range_t=0, up="transpose", known_level="next"):
    """Choi et al. 2021, Algorithm 1, phi(x) = up down x; up is the interpolation in two axes."""
    back = t.A.T / np.linalg.eigvalsh(t.A @ t.A.T).max()
    if up == "pinv":
        back = t.A.T @ np.linalg.inv(t.A @ t.A.T)
    elif t.A is MATRICES["cubic"]:
        back = np.kron(resized(2, 4, 1.0), resized(2, 4, 1.0))
    phi, x = back @ t.A, t.start()
    for i, a, s, b, r in t.moves:
        new = ancestral(x, PRIOR.D(x, a, s), a, s, b, r, t.z(i, "step")) if r else PRIOR.D(x, a, s)
        remaining = len(t.moves) - i
        if remaining > range_t:
            level, std = (b, r) if known_level == "next" or r == 0 else (a, s)
            reference = level * back @ t.y + std * phi @ t.z(i, "known")
            new = new - phi @ new + reference
        x = new
    return x


@on_schedules
@pytest.mark.parametrize("matrix", ["cubic", "wide"])
@pytest.mark.parametrize(
    "knobs", [{}, {"up": "pinv"}, {"range_t": 4}, {"known_level": "current"}], ids=str
)
def test_transcription(schedule, matrix, knobs):
    """The scale of `wide` is by power iteration: (1.1 / 2)^2 to the 60th is below round-off."""
    assert_agrees("ilvr", knobs, matrix, 0.0, schedule)


@pytest.mark.parametrize("wrong", [{"range_t": 1}, {"up": "pinv"}, {"known_level": "current"}])
def test_a_wrong_knob_is_seen(wrong):
    got, want = compare("ilvr", wrong, "cubic", 0.0, VP_SCHEDULE, library_knobs={})
    assert np.abs(got - want).max() > 1e-3


# ---- mean and variance on a scalar normal prior


def recursion(schedule, gain, range_t, known_level):
    """An ancestral step, then x <- a y/s + s z; phi is 1 for any gain but 0, where it is 0."""
    m, V, moves = 0.0, schedule.levels()[0].s ** 2, pairs(schedule)
    for i, (t, u) in enumerate(moves):
        p, q, std = bridge(t, u)
        own = p * shrink(t) + q
        m, V = own * m, own**2 * V + std**2
        if gain and len(moves) - i > range_t:
            known = u if known_level == "next" or u.s == 0 else t
            m, V = known.a, known.s**2
        yield Moments(m, V)


@each_gain
@each_schedule
@pytest.mark.parametrize(("range_t", "known_level"), [(0, "next"), (10, "next"), (10, "current")])
def test_moments(schedule, gain, range_t, known_level):
    solver = ILVR(range_t=range_t, known_level=known_level, schedule=schedule)
    assert_follows(solver, gain, SIGMA_Y, recursion(schedule, gain, range_t, known_level))


# ---- the low-pass filter


@pytest.mark.parametrize(("N", "smallest"), [(4, 0.486), (8, 0.488), (16, 0.497), (32, 0.528)])
def test_the_filter_of_one_axis(N, smallest):
    """256 samples: up = N down^T, and phi = up down has these eigenvalues; it is no projector."""
    down, up = resized(256, 256 // N, float(N)), resized(256 // N, 256, 1.0)
    np.testing.assert_allclose(Bicubic(N, (256, 256)).left, down, rtol=0, atol=1e-14)
    np.testing.assert_allclose(up, N * down.T, rtol=0, atol=1e-13)
    phi = up @ down
    np.testing.assert_allclose(phi, phi.T, rtol=0, atol=1e-14)
    values = np.linalg.eigvalsh(phi)
    seen = values[values > 1e-10]
    assert len(seen) == 256 // N and values.min() > -1e-12
    assert seen.min() == pytest.approx(smallest, abs=5e-4)
    assert seen.max() == pytest.approx(1, abs=1e-12)
    assert np.linalg.norm(phi @ phi - phi, 2) == pytest.approx(0.25, abs=1e-3)
    assert np.linalg.norm(down, 2) == pytest.approx(N**-0.5, rel=1e-12)


def test_the_filter_of_images():
    """up is N^2 A^T, the library's scale is N^2, and I - phi does not expand; A's condition."""
    A, N = Bicubic(4, (16, 16)), 4
    up = resized(4, 16, 1.0)
    y = seeded(2, 1, 4, 4)
    enlarged = np.einsum("ap,bcpq,dq->bcad", up, y.numpy(), up)
    np.testing.assert_allclose(N**2 * A.adjoint(y), enlarged, rtol=0, atol=1e-13)
    problem = Problem(y, A, NOISELESS, (1, 16, 16))
    state = ILVR(schedule=VP(3)).init(problem, ELEMENTWISE, Rng.of(seeds(2)).at(-1))
    torch.testing.assert_close(
        state.extra["scale"].flatten(), torch.full((2,), 16.0).double(), rtol=1e-12, atol=0
    )
    down = A.left.numpy()
    one = up @ down
    values = np.linalg.eigvalsh(np.kron(one, one))
    assert np.abs(1 - values).max() == pytest.approx(1, abs=1e-12)
    large = np.linalg.svd(Bicubic(4, (256, 256)).left.numpy())[1]
    assert (large.max() / large.min()) ** 2 == pytest.approx(2.06, abs=5e-3)  # of 2-D A


def run(knobs, A: Linear, y, prior=ELEMENTWISE, steps=8):
    problem = Problem(y, A, NOISELESS, (1, *A.size))
    return states(ILVR(**knobs, schedule=VP(steps)), problem, prior, Rng.of(seeds(len(y))))


def test_only_the_pseudo_inverse_is_exactly_consistent():
    """After the last step A x = y with "pinv"; with the paper's filter, a mixture is left."""
    A, y = Bicubic(4, (16, 16)), seeded(2, 1, 4, 4)
    exact, filtered = (run({"up": up}, A, y)[-1].x for up in ("pinv", "transpose"))
    torch.testing.assert_close(A(exact), y, rtol=0, atol=1e-12)
    assert (A(filtered) - y).abs().max() > 1e-3
    before = run({"range_t": 1}, A, y)[-1].x  # the last step, left alone
    mixed = A(before) + 16 * A(A.adjoint(y - A(before)))
    torch.testing.assert_close(A(filtered), mixed, rtol=0, atol=1e-12)


def test_where_phi_projects_it_is_replacement():
    """Block means: N^2 A^T is the pseudo-inverse, and both run alike."""
    A, y = AveragePool(4, (16, 16)), seeded(2, 1, 4, 4)
    ours = run({}, A, y)
    problem = Problem(y, A, NOISELESS, (1, 16, 16))
    solver = Replacement(corrector_steps=0, start="noised", schedule=VP(8))
    first = run({}, A, y)[0]
    rng = Rng.of(seeds(2))
    x = first
    for state in ours[1:]:
        x = solver.step(x, problem, ELEMENTWISE, rng.at(x.step))
        torch.testing.assert_close(x.x, state.x, rtol=1e-12, atol=1e-12)


# ---- which steps are conditioned


@pytest.mark.parametrize(("range_t", "conditioned"), [(0, 100), (20, 80), (21, 79)])
def test_range_t_counts_free_steps_of_the_respaced_grid(range_t, conditioned):
    """Official: `i > range_t`, so that range_t = 20 of 100 steps conditions 79, and 0 only 99."""
    A = AveragePool(2, (2, 2))
    problem = Problem(torch.ones(1, 1, 1, 1).double(), A, NOISELESS, (1, 2, 2))
    other = Problem(-problem.y, A, NOISELESS, (1, 2, 2))
    solver, rng = ILVR(range_t=range_t), Rng.of(5)
    state = solver.init(problem, ELEMENTWISE, rng.at(-1))
    seen = 0
    for k in range(solver.num_steps):
        state = type(state)(k, state.x, state.x0, state.extra)
        a, b = (solver.step(state, p, ELEMENTWISE, rng.at(k)).x for p in (problem, other))
        seen += not torch.equal(a, b)
    assert seen == conditioned


def test_without_conditioned_steps_it_is_the_plain_sampler():
    """Bit for bit, in every state."""
    A, y = Bicubic(2, (8, 8)), seeded(2, 1, 4, 4)
    problem = Problem(y, A, NOISELESS, (1, 8, 8))
    ours = run({"range_t": 8}, A, y)
    theirs = states(Unconditional(schedule=VP(8)), problem, ELEMENTWISE, Rng.of(seeds(2)))
    assert all(torch.equal(a.x, b.x) for a, b in zip(ours, theirs, strict=True))


# ---- needs and cost


def test_needs_and_cost():
    """One evaluation per step, no gradient; the paper's form needs no pseudo-inverse."""
    assert ILVR().requires()[0] == {Need.LINEAR}
    assert ILVR(up="pinv").requires()[0] == {Need.LINEAR, Need.PINV}
    problem = Problem(seeded(1, 1, 2, 2), Bicubic(2, (4, 4)), NOISELESS, (1, 4, 4))
    result = solve(problem, ELEMENTWISE, ILVR(schedule=VP(7)))
    assert (result.nfe, result.vjps) == (7, 0)


def test_a_filter_by_power_iteration_does_not_expand_much():
    """Operators without a constant eigenvector: the scale is at most slightly too large."""
    A = Dense(seeded(7, 16, seed=5), (1, 4, 4))
    problem = Problem(seeded(1, 7), A, NOISELESS, (1, 4, 4))
    scale = ILVR(schedule=VP(3)).init(problem, ELEMENTWISE, Rng.of(1).at(-1)).extra["scale"]
    largest = float(torch.linalg.svdvals(A.matrix)[0]) ** 2
    assert 1 - 1e-12 <= float(scale) * largest < 1.01
