"""CCDF: Chung, Sim and Ye 2022: the jump, the tail of another solver, and their contraction."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from dense import (
    LIBRARY_PRIOR,
    MATRICES,
    PRIOR,
    VP_SCHEDULE,
    D,
    Task,
    ancestral,
    assert_agrees,
    compare,
    on_matrices,
    on_schedules,
    transcription,
)  # fmt: skip
from scalar import Moments, assert_follows, each_gain, pairs, shrink
from scalar import ancestral as bridge

from helpers import Dense, exploding, seeded, seeds, states
from invdiff.core import InvdiffError
from invdiff.core.encode import decode, encode
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, VP, Karras
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.operators import Bicubic, Inpaint
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.needs import IncompatibleError, Need, missing
from invdiff.sampling.run import again, solve
from invdiff.sampling.state import State
from invdiff.solvers import registry
from invdiff.solvers.ccdf import CCDF, SCHEDULE
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.dps import DPS
from invdiff.solvers.ilvr import ILVR
from invdiff.solvers.pigdm import PiGDM
from invdiff.solvers.replacement import Replacement
from invdiff.solvers.snips import SNIPS
from invdiff.solvers.unconditional import Unconditional

ELEMENTWISE = Denoiser(lambda x, sigma: x / (1 + sigma**2) + 0.1 * torch.tanh(x))
PLAIN = Replacement(corrector_steps=0)

# ---- the algorithm, as printed


@transcription("ccdf")
def ccdf(t: Task, start=0.2, base="replacement", guess="pinv", sigma=0.0):
    """One forward jump of x_init, then reverse steps with x <- (I - A^+ A) x' + b (or without)."""
    betas = np.linspace(1e-4, 0.02, 1000)
    bar = np.prod(1 - betas[: round(1000 * start)])
    target = np.log(sigma if sigma else np.sqrt((1 - bar) / bar))
    gaps = [abs(np.log(s / a) - target) for a, s in t.levels[:-1]]
    skip = int(np.argmin(gaps))
    x_init = np.linalg.pinv(t.A) @ t.y
    if guess == "transpose":
        x_init = t.A.T @ t.y / np.linalg.norm(t.A, 2) ** 2
    a, s = t.levels[skip]
    x = a * x_init + s * t.z(-1, "jump")
    project = np.eye(D) - np.linalg.pinv(t.A) @ t.A
    for k in range(len(t.levels) - 1 - skip):
        (a, s), (b, r) = t.levels[skip + k : skip + k + 2]
        x0 = PRIOR.D(x, a, s)
        x = ancestral(x, x0, a, s, b, r, t.z(k, "step")) if r else x0
        if base == "replacement":
            known = b * t.y + r * t.A @ t.z(k, "known")
            x = project @ x + np.linalg.pinv(t.A) @ known
    return x


BASES = {"replacement": PLAIN, "unconditional": Unconditional()}


def library(knobs):
    return {**knobs, "base": BASES[knobs.get("base", "replacement")]}


@on_schedules
@on_matrices
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"start": 0.5, "base": "unconditional"},
        {"sigma": 1.3},
        {"start": 1.0},
    ],
    ids=str,
)
def test_transcription(schedule, matrix, knobs):
    assert_agrees("ccdf", knobs, matrix, 0.0, schedule, library_knobs=library(knobs))


def test_transcription_of_the_transposed_guess():
    """`wide`, whose norm the power iteration finds to round-off."""
    knobs = {"start": 0.6, "guess": "transpose"}
    assert_agrees("ccdf", knobs, "wide", 0.0, VP_SCHEDULE, library_knobs=library(knobs))


@pytest.mark.parametrize("wrong", [{"start": 0.9}, {"guess": "transpose"}, {"sigma": 9.0}])
def test_a_wrong_knob_is_seen(wrong):
    got, want = compare("ccdf", wrong, "wide", 0.0, VP_SCHEDULE, library_knobs=library({}))
    assert np.abs(got - want).max() > 1e-4


# ---- mean and variance on a scalar normal prior


def recursion(schedule, gain, start):
    """From a y/s + s z at level `start` of the schedule, ancestral steps with overwrites."""
    moves = pairs(schedule)[start:]
    top = moves[0][0]
    m, V = (top.a if gain else 0.0), top.s**2
    for t, u in moves:
        p, q, std = bridge(t, u)
        own = p * shrink(t) + q
        m, V = own * m, own**2 * V + std**2
        if gain:
            m, V = u.a, u.s**2
        yield Moments(m, V)


@each_gain
@pytest.mark.parametrize("base", [PLAIN, Unconditional()], ids=["replacement", "unconditional"])
def test_moments(gain, base):
    """SDEdit, which has no data step, forgets the guess slowly; the first state is the jump."""
    schedule = VP(50, spacing="trailing")
    solver = CCDF(base, start=0.4, schedule=schedule)
    assert solver.num_steps == 20
    if base is PLAIN:
        assert_follows(solver, gain, 0.0, recursion(schedule, gain, 30))
    else:
        blind = list(recursion(schedule, 0.0, 30))
        coefficient, expected = schedule.levels()[30].a, []
        for (t, u), moments in zip(pairs(schedule)[30:], blind, strict=True):
            p, q, _ = bridge(t, u)
            coefficient *= p * shrink(t) + q
            expected.append(Moments(coefficient if gain else 0.0, moments.variance))
        assert_follows(solver, gain, 0.0, expected)


# ---- contraction


@pytest.mark.parametrize("base", ["replacement", "unconditional", "ilvr"])
@pytest.mark.parametrize("start", [0.3, 0.7])
def test_two_guesses_approach_each_other_by_the_affine_recursion(base, start):
    """The same noise, two guesses: their difference e obeys e' = (I - A^+ A) M e, M the linear part
    of an ancestral step with a normal prior, from e = a (x_init - x_init'); |e| <= prod |M| |e|."""
    A, schedule = MATRICES["wide"], VP(40, spacing="trailing")
    operator = Dense(torch.tensor(A), (1, 4, 4))
    problem = Problem(seeded(2, 7, seed=3), operator, NOISELESS, (1, 4, 4))
    solvers = [
        CCDF(ILVR() if base == "ilvr" else BASES[base], start=start, guess=guess, schedule=schedule)
        for guess in ("pinv", "transpose")
    ]
    runs = [states(s, problem, LIBRARY_PRIOR, Rng.of(seeds(2))) for s in solvers]
    norm2 = np.linalg.norm(A, 2) ** 2
    phi = {"replacement": np.linalg.pinv(A) @ A, "ilvr": A.T @ A / norm2}.get(base, 0 * np.eye(D))
    assert np.linalg.norm(np.eye(D) - phi, 2) <= 1 + 1e-12  # what the paper asks of the data step
    levels = solvers[0].levels
    e = levels[0].a * (np.linalg.pinv(A) - A.T / norm2) @ problem.y.numpy().T
    bound = np.linalg.norm(e, axis=0)
    for k, (t, u) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
        p, q, _ = bridge(t, u)
        M = p * PRIOR.J(t.a, t.s) + q * np.eye(D)
        e = (np.eye(D) - phi) @ M @ e
        bound = np.linalg.norm(M, 2) * bound
        got = (runs[0][k + 1].x - runs[1][k + 1].x).flatten(1).numpy().T
        np.testing.assert_allclose(got, e, rtol=0, atol=1e-10 * np.abs(bound).max())
        assert (np.linalg.norm(got, axis=0) <= bound * (1 + 1e-9)).all()


# ---- where it starts


@pytest.mark.parametrize(
    ("t0", "a", "s"), [(0.02, 0.997, 0.076), (0.1, 0.947, 0.321), (0.2, 0.812, 0.584),
                       (0.5, 0.280, 0.960)]
)  # fmt: skip
def test_levels_of_the_schedule(t0, a, s):
    solver = CCDF(start=t0)
    assert solver.num_steps == round(1000 * t0)
    assert solver.levels[0].a == pytest.approx(a, abs=5e-4)
    assert solver.levels[0].s == pytest.approx(s, abs=5e-4)
    assert solver.levels == SCHEDULE.levels()[-solver.num_steps - 1 :]


def test_a_fraction_means_the_same_noise_on_every_path():
    """It is a fraction of the variance-preserving schedule, wherever the base travels."""
    target = CCDF(start=0.2).levels[0].sigma
    for schedule in (VE(200, 348.0, 0.01), Karras(200), exploding(VP(200)), VP(200)):
        levels = [level.sigma for level in schedule.levels()[:-1]]
        top = CCDF(PLAIN, start=0.2, schedule=schedule).levels[0].sigma
        assert abs(np.log(top / target)) == min(abs(np.log(v / target)) for v in levels)
    assert CCDF(PLAIN, sigma=1.0, schedule=VE(200)).levels[0].sigma == pytest.approx(1.0, rel=0.03)


def test_the_base_keeps_its_path_unless_one_is_given():
    own, other = Karras(30, 5.0, 0.02), VP(40)
    assert CCDF(DDRM(schedule=own)).schedule == CCDF(DDRM(schedule=own)).base.schedule == own
    assert CCDF(DDRM(schedule=own), schedule=other).base.schedule == other
    assert CCDF().schedule == SCHEDULE and CCDF().num_steps == 200


@pytest.mark.parametrize("schedule", [VP(100), VP(100, spacing="trailing"), VE(50), Karras(50)])
@pytest.mark.parametrize("start", [0.1, 0.2, 0.9])
def test_with_steps_refines_the_path(schedule, start):
    solver = CCDF(PLAIN, start=start, schedule=schedule)
    for n in (1, 2, 9, 33):
        more = solver.with_steps(n)
        assert more.num_steps == n and more.base == dataclasses.replace(
            PLAIN, schedule=more.schedule
        )
        assert dataclasses.replace(more, schedule=schedule) == solver


def test_too_many_steps_are_refused():
    with pytest.raises(InvdiffError, match="at most 1000"):
        CCDF(start=0.1).with_steps(101)


# ---- a wrapper


def problem_for(solver):
    A = Inpaint.box((4, 4), 1, 1, 2, 2)
    noise = NOISELESS if solver.always_needs(Need.NOISELESS) else GaussianNoise(0.1)
    return Problem(A(seeded(2, 1, 4, 4)), A, noise, (1, 4, 4))


SOLVERS = {name: cls() for name, cls in registry().items() if name not in ("ccdf", "one-call")}
SOLVERS["snips-denoised"] = SNIPS(final="denoised")  # `finish` is more than the last state


@pytest.mark.parametrize("name", SOLVERS)
def test_the_steps_are_those_of_the_base(name):
    """Of every solver: bit for bit what it does from the same state at the same level."""
    base = SOLVERS[name].with_steps(12)
    solver, problem = CCDF(base, sigma=base.levels[7].sigma), problem_for(base)
    if missing(solver, problem, ELEMENTWISE):
        pytest.skip("it cannot solve this problem")
    keys = seeds(2)
    skip = len(base.levels) - len(solver.levels)
    assert 0 < skip < 12
    with torch.no_grad():
        state = solver.init(problem, ELEMENTWISE, Rng.of(keys).at(-1))
        twin = State(skip, state.x, state.x0, state.extra)
        for k in range(solver.num_steps):
            state = solver.step(state, problem, ELEMENTWISE, Rng.of(keys).at(k))
            twin = base.step(twin, problem, ELEMENTWISE, Rng.of(keys).at(k))
            assert state.step == k + 1 and twin.step == skip + k + 1
            assert torch.equal(state.x, twin.x) and torch.equal(state.x0, twin.x0)
        ours, theirs = (
            s.finish(v, problem, ELEMENTWISE, Rng.of(keys).at(9))
            for s, v in ((solver, state), (base, twin))
        )
    assert torch.equal(ours, theirs)


def test_it_passes_on_what_the_base_is():
    assert CCDF(DPS()).requires()[0] == DPS().requires()[0] | {Need.PINV}
    assert CCDF(PiGDM()).requires() == tuple(n | {Need.PINV} for n in PiGDM().requires())
    assert len(PiGDM().requires()) == 2
    assert CCDF(DPS()).when_it_diverges == DPS().when_it_diverges
    y, A = torch.zeros(1, 1, 2, 2), Bicubic(2, (4, 4))
    noiseless = Problem(y, A, NOISELESS, (1, 4, 4))
    with pytest.raises(IncompatibleError, match="a noise level above 0"):
        solve(noiseless, ELEMENTWISE, CCDF(DPS(loss="gaussian", schedule=VP(5))))


@pytest.mark.parametrize(
    "base", [DDRM(schedule=Karras(20)), SNIPS(schedule=VE(30)), ILVR(up="pinv")]
)
def test_a_saved_run_is_repeated(base):
    """run.json holds the base and its knobs."""
    solver = CCDF(base, start=0.3, guess="transpose").with_steps(4)
    tensors: dict[str, torch.Tensor] = {}
    assert decode(encode(solver, tensors), tensors) == solver and not tensors
    problem = problem_for(base)
    result = solve(problem, ELEMENTWISE, solver, samples=2, seed=3)
    repeated = again(result, ELEMENTWISE)
    assert torch.equal(result.samples, repeated.samples) and repeated.config == result.config


def test_cost():
    """t0 N steps of the base, and none for the jump."""
    for base, each, vjps in ((PLAIN, 1, 0), (Replacement(), 2, 0), (DPS(), 1, 1)):
        solver = CCDF(base, start=0.2, schedule=VP(100, spacing="trailing"))
        result = solve(problem_for(base), ELEMENTWISE, solver)
        assert (result.nfe, result.vjps) == (20 * each, 20 * vjps)


def test_a_better_guess_needs_a_shorter_way():
    """What the wrapper is for. With the truth as guess and exact data steps, the error after a
    short way is below that after a long one; from a bad guess it is the other way round."""
    A = Dense(torch.tensor(MATRICES["benign"]), (1, 4, 4))
    truth = LIBRARY_PRIOR.sample(300, Rng.of(range(300)))
    problem = Problem(A(truth), A, NOISELESS, (1, 4, 4))
    keys = Rng.of(range(1000, 1300))
    errors = {}
    for quality, guess in (("truth", truth), ("bad", truth + 3.0)):
        for start in (0.1, 1.0):

            class Guessing(CCDF):
                def _guess(self, problem, like, guess=guess):
                    return guess

            solver = Guessing(PLAIN, start=start, schedule=VP(50, spacing="trailing"))
            x = states(solver, problem, LIBRARY_PRIOR, keys)[-1].x
            errors[quality, start] = (x - truth).flatten(1).square().mean(1)

    def assert_below(a, b):
        gap = errors[b] - errors[a]
        assert float(gap.mean()) > 5 * float(gap.std()) / len(gap) ** 0.5

    assert_below(("truth", 0.1), ("truth", 1.0))
    assert_below(("bad", 1.0), ("bad", 0.1))
