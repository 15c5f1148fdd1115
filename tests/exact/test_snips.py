"""SNIPS: Kawar et al. 2021, against its paper's rules and its own closed-form moments."""

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
    modes,
    on_schedules,
    transcription,
)
from scalar import GAINS, ROUNDING, SIGMA_Y, Moments, assert_follows, each_gain
from scalar import PRIOR as SCALAR_PRIOR
from torch import Tensor

from helpers import Dense, Given, Levels, seeded, seeds, states
from invdiff.core import CLEAN, Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, VP
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.operators import Identity, Inpaint
from invdiff.priors.base import Denoiser, Prior
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.sampling.state import State
from invdiff.solvers.snips import SNIPS
from invdiff.tasks import TASKS
from invdiff.tasks.auto import configured

# ---- the algorithm, as printed


@transcription("snips")
def snips(t: Task, c=0.033, K=1):
    """Kawar et al. 2021, Algorithm 1: x <- x + b score + sqrt(2 b) z, mode by mode, for x_t / a.

    With K > 1 steps per level, the levels are the geometric ones between the same ends.
    """
    U, s, V = modes(t.A)
    ubar = U.T @ t.y
    frames = [level for level in t.levels[:-1]]
    if K > 1:
        assert all(a == 1 for a, _ in frames)
        few = np.geomspace(frames[0][1], frames[-1][1], -(-len(frames) // K))
        frames = [(1.0, sigma) for sigma in few for _ in range(K)][: len(frames)]
    x = t.start() / frames[0][0]
    for i, (a, std) in enumerate(frames):
        sigma = std / a
        score = V.T @ ((PRIOR.D(a * x, a, std) - x) / sigma**2)
        xb, z = V.T @ x, V.T @ t.z(i, "step")
        for k in range(D):
            n = t.sigma_y / s[k] if s[k] > 0 else np.inf
            if s[k] == 0:
                b, drift = c * sigma**2, score[k]
            elif sigma > n:
                b, drift = c * (sigma**2 - n**2), (ubar[k] / s[k] - xb[k]) / (sigma**2 - n**2)
            else:
                b = c * sigma**2 * (1 - sigma**2 / n**2)
                drift = score[k] + s[k] * (ubar[k] - s[k] * xb[k]) / (
                    t.sigma_y**2 - s[k] ** 2 * sigma**2
                )
            xb[k] += b * drift + np.sqrt(2 * b) * z[k]
        x = V @ xb
    return x


@on_schedules
@pytest.mark.parametrize("c", [0.033, 0.4])
@pytest.mark.parametrize(
    ("matrix", "sigma_y"), [("wide", 0.1), ("wide", 0.5), ("tall", 0.1), ("tall", 0.0)]
)
def test_transcription(schedule, matrix, sigma_y, c):
    knobs = {"c": c, "K": 1}
    assert_agrees("snips", knobs, matrix, sigma_y, schedule)


@pytest.mark.parametrize(("steps", "K"), [(9, 3), (8, 4), (12, 2)])
def test_transcription_with_several_steps_at_a_level(steps, K):
    knobs = {"c": 0.3, "K": K}
    assert_agrees("snips", knobs, "wide", 0.1, VE(steps, 20.0, 0.02))


def test_a_knob_off_by_a_little_is_seen():
    schedule = VE(9, 20.0, 0.02)
    for knobs, wrong in (({"c": 0.3}, {"c": 0.3001}), ({"c": 0.3}, {"c": 0.3, "K": 3})):
        knobs = {"K": 1, **knobs}
        got, want = compare("snips", {"K": 1, **wrong}, "wide", 0.1, schedule, library_knobs=knobs)
        assert np.abs(got - want).max() > 1e-6


# ---- mean and variance on a scalar normal prior


def recursion(sigmas, gain, c, variance):
    """m and V of x from V = variance; D(x) = x / (1 + sigma^2), so that the score is -x / (...)."""
    m, V = 0.0, variance
    for sigma in sigmas:
        n = SIGMA_Y / gain if gain else math.inf
        of_y, own, b = 0.0, -1 / (1 + sigma**2), c * sigma**2
        if sigma > n:
            b = c * (sigma**2 - n**2)
            of_y, own = 1 / (sigma**2 - n**2), -1 / (sigma**2 - n**2)
        elif gain:
            b = c * sigma**2 * (1 - sigma**2 / n**2)
            of_y = 1 / (n**2 - sigma**2)
            own -= of_y
        m, V = (1 + b * own) * m + b * of_y, (1 + b * own) ** 2 * V + 2 * b
        yield Moments(m, V)


@each_gain
@pytest.mark.parametrize("c", [0.033, 0.4])
def test_moments(gain, c):
    """Read off a whole run by impulses in every draw."""
    solver = SNIPS(c=c, K=3, schedule=VE(60, 9.0, 0.02))
    sigmas = np.repeat(np.geomspace(9.0, 0.02, 20), 3)
    assert_follows(solver, gain, SIGMA_Y, recursion(sigmas, gain, c, 81.0))


@dataclasses.dataclass(frozen=True, eq=False)
class Gains(Identity):
    """Four pixels, each seen with a gain of GAINS."""

    @property
    def s(self) -> Tensor:
        return torch.tensor(GAINS, dtype=torch.float64).reshape(1, 1, 4)

    def __call__(self, x: Tensor) -> Tensor:
        return self.s * x

    adjoint = __call__
    solve = pinv = None  # type: ignore[assignment]


def long_run(
    solver: SNIPS, mean: float, variance: float, prior: Prior = SCALAR_PRIOR
) -> list[Moments]:
    """Moments of the last state for each gain, from given ones of the first.

    Every step is x' = p x + q y/s + r z in each pixel. p, q and r are what the solver's own step
    gives for unit inputs, one batch row for each; a row of everything shows that this is all.
    """
    f64 = torch.float64
    unit = torch.tensor([g or 1.0 for g in GAINS], dtype=f64)
    weights = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.3, -0.7, 1.9]], dtype=f64)
    x, y, z = (weights[:, i].reshape(4, 1, 1, 1).expand(4, 1, 1, 4) for i in range(3))
    problem = Problem(y * unit, Gains(), GaussianNoise(SIGMA_Y), (1, 1, 4))
    rng = Given((0,) * 4, table=lambda step, role: weights[:, 2])
    m, V = torch.full((4,), mean, dtype=f64), torch.full((4,), variance, dtype=f64)
    for step in range(solver.num_steps):
        state = State(step, x.clone(), x, {})
        new = solver.step(state, problem, prior, rng.at(step)).x.reshape(4, 4)
        p, q, r = new[:3]
        bound = 1e-12 * float(1 + r.abs().max())
        torch.testing.assert_close(new[3], 0.3 * p - 0.7 * q + 1.9 * r, rtol=0, atol=bound)
        m, V = p * m + q, p**2 * V + r**2
    return [Moments(*pair) for pair in zip(m.tolist(), V.tolist(), strict=True)]


CELEBA = ((0.9923, 0.0087), (0.8890, 0.1265), (0.2428, 0.8556), (0.0, 1.1263))


@pytest.mark.parametrize("variance", [1 / 12, 8100.0], ids=["uniform start", "our start"])
def test_the_default_has_the_printed_moments(variance):
    """90 -> 0.01, L = 500, K = 5, c = 0.033. From which noise it starts is forgotten on the way."""
    solver = SNIPS.official("celeba", value_range=(0.0, 1.0))
    for found, (mean, var) in zip(long_run(solver, 0.0, variance), CELEBA, strict=True):
        assert found.mean == pytest.approx(mean, abs=ROUNDING)
        assert found.variance == pytest.approx(var, abs=ROUNDING)


def test_the_printed_moments_see_a_wrong_step_size():
    solver = SNIPS.official("celeba", value_range=(0.0, 1.0))
    found = long_run(dataclasses.replace(solver, c=0.034), 0.0, 8100.0)
    assert abs(found[3].variance - CELEBA[3][1]) > 10 * ROUNDING


def distance(found: list[Moments]) -> float:
    """The largest error of a mean or variance against the posterior."""
    exact = [(g**2 / (g**2 + SIGMA_Y**2), SIGMA_Y**2 / (g**2 + SIGMA_Y**2)) for g in GAINS]
    pairs = zip(found, exact, strict=True)
    return max(abs(a - b) for f, e in pairs for a, b in zip(f, e, strict=True))


def test_the_error_falls_as_the_budget_grows():
    """What the claim `asymptotic` says: about as 1 / (c K L), here twice and four times it."""
    errors = [
        distance(long_run(SNIPS(c=0.3, K=2, schedule=VE(n, 3.0, 0.01)), 0.0, 9.0))
        for n in (200, 400, 800)
    ]
    assert errors[1] < 0.6 * errors[0] and errors[2] < 0.6 * errors[1]


def excess(solver: SNIPS) -> float:
    """Variance of the last state over that of its level, where x0 does not depend on the state."""
    point = Denoiser(lambda x, sigma: 0.0 * x)
    top, last = solver.levels[0].sigma, solver.levels[-2].sigma
    return long_run(solver, 0.0, top**2, point)[3].variance / last**2


def test_the_short_presets_excess_noise_is_near_the_papers():
    """In closed form it is 2 c / (rho - (1 - c)^2) with one step per level; the docstring's terms
    are the first of its series in c and (1 - rho) / c."""
    for c, n in ((0.02, 4000), (0.05, 2000)):
        rho = (0.02 / 3.0) ** (2 / (n - 1))
        found = excess(SNIPS(c=c, K=1, schedule=VE(n, 3.0, 0.02)))
        assert found == pytest.approx(2 * c / (rho - (1 - c) ** 2) * rho, rel=1e-6)
        assert found == pytest.approx(1 + c / 2 + (1 - rho) / (2 * c), rel=(c + (1 - rho) / c) ** 2)
    short = configured(TASKS["deblur"], "snips", TASKS["deblur"].toy(0.1))
    assert short == SNIPS(c=0.15, K=2, final="denoised", schedule=VE(400, 3.0, 0.02))
    assert excess(short) == pytest.approx(1.1457, abs=ROUNDING)
    assert excess(SNIPS()) == pytest.approx(1.1213, abs=ROUNDING)


# ---- what the official code gets wrong


def test_a_full_rank_measurement_is_not_ignored():
    """Official: without null modes, the slice of the last 0 modes is all of them (a)."""
    truth = seeded(2, 1, 4, 4, seed=3)
    for A in (Identity(), Dense(seeded(16, 16, seed=4), (1, 4, 4))):
        problem = Problem(A(truth), A, NOISELESS, (1, 4, 4))
        solver = SNIPS(c=0.5, K=2, schedule=VE(120, 9.0, 0.01))
        x = states(solver, problem, LIBRARY_PRIOR, Rng.of(seeds(2)))[-1].x
        # noise of variance 2 c v / (1 - (1 - c)^2) = v 4 / 3 in each mode, |z| < 6.8
        assert float((x - truth).abs().max()) < 6.8 * 4 * 0.01 * math.sqrt(4 / 3)


def test_null_modes_are_found_from_s():
    """Wherever they stand, and however many: a mask has them in the middle."""
    A = Inpaint.box((4, 4), 1, 1, 2, 2)
    truth = seeded(2, 1, 4, 4, seed=3)
    solver = SNIPS(c=0.5, K=2, schedule=VE(120, 9.0, 0.01))
    ends = []
    for scale in (1.0, -1.0):
        problem = Problem(A(scale * truth), A, NOISELESS, (1, 4, 4))
        x = states(solver, problem, SCALAR_PRIOR, Rng.of(seeds(2)))[-1].x
        known = A.mask.expand(2, 1, 4, 4)
        assert float((x - scale * truth)[known].abs().max()) < 6.8 * 0.01 * math.sqrt(4 / 3)
        ends.append(x[~known])
    assert torch.equal(*ends)  # an elementwise prior: the hole never sees y


def test_a_tie_follows_y():
    """sigma = sigma_y / s exactly. Official: no branch, so a random walk at full step (b)."""
    problem = Problem(
        torch.full((1, 1, 2, 2), 0.4).double(), Identity(), GaussianNoise(0.5), (1, 2, 2)
    )
    solver = SNIPS(c=0.2, K=1, schedule=Levels(1, given=(Level(1.0, 0.5), CLEAN)))
    x = seeded(1, 1, 2, 2)
    new = solver.step(State(0, x, x), problem, SCALAR_PRIOR, Rng.of(7).at(0)).x
    torch.testing.assert_close(new, x + 0.2 * (problem.y - x), rtol=0, atol=1e-15)
    for side in (1 - 1e-9, 1 + 1e-9):  # and so it is on either side
        near = dataclasses.replace(
            solver, schedule=Levels(1, given=(Level(1.0, 0.5 * side), CLEAN))
        )
        other = near.step(State(0, x, x), problem, SCALAR_PRIOR, Rng.of(7).at(0)).x
        torch.testing.assert_close(other, new, rtol=0, atol=1e-3)


def test_the_last_noise_is_kept_or_denoised():
    """Official: the output keeps noise of std about 0.01, and no option removes it (c)."""
    A = Inpaint.box((4, 4), 1, 1, 2, 2)
    problem = Problem(A(seeded(2, 1, 4, 4)), A, GaussianNoise(0.1), (1, 4, 4))
    for schedule in (VE(8, 3.0, 0.2), VP(8)):
        noisy, clean = (
            SNIPS(K=1, schedule=schedule),
            SNIPS(K=1, final="denoised", schedule=schedule),
        )
        a, b = (solve(problem, SCALAR_PRIOR, s) for s in (noisy, clean))
        sigma = schedule.levels()[-2].sigma
        expected = a.samples / (1 + sigma**2)
        torch.testing.assert_close(b.samples, expected, rtol=1e-12, atol=0)
        assert (a.nfe, a.vjps, b.nfe) == (8, 0, 9)


# ---- levels


def test_k_steps_are_spent_at_each_level():
    solver = SNIPS()
    sigmas = [level.sigma for level in solver.levels]
    assert solver.num_steps == 2500 and sigmas[-1] == 0
    grid = np.repeat(np.geomspace(180, 0.02, 500), 5)  # twice the published, for [-1, 1]
    np.testing.assert_allclose(sigmas[:-1], grid, rtol=1e-12)
    few = SNIPS(K=5).with_steps(7)  # a remainder is spread
    assert few.num_steps == 7 and len({level.sigma for level in few.levels}) == 3
