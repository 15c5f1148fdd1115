"""Every solver's own mean and variance on a scalar normal prior, where they are closed-form.

See scalar.py for the method. Printed tables: independent double-precision recursions made for this
project.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
from scalar import (
    GAINS,
    ROUNDING,
    SIGMA_Y,
    Moments,
    ancestral,
    assert_follows,
    each_gain,
    each_schedule,
    final,
    moments,
    pairs,
    shrink,
)

from helpers import exploding
from invdiff.core.schedules import VE, VP, Karras
from invdiff.solvers import Solver
from invdiff.solvers.ddnm import DDNM, DDNMPlus
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.diffpir import DiffPIR
from invdiff.solvers.dps import DPS
from invdiff.solvers.mmps import MMPS
from invdiff.solvers.pigdm import PiGDM
from invdiff.solvers.unconditional import Unconditional

TABLE: list[tuple[str, Solver, tuple[tuple[float, float], ...]]] = [
    (
        "ddrm-20",
        DDRM(schedule=VP(20)),
        ((0.9714, 0.0178), (0.8158, 0.0663), (0.3202, 0.2048), (0, 0.6342)),
    ),
    (
        "ddrm-100",
        DDRM(schedule=VP(100)),
        ((0.9883, 0.0042), (0.8845, 0.0351), (0.4796, 0.1619), (0, 0.7247)),
    ),
    (
        "pigdm-100",
        PiGDM(guidance="paper", schedule=VP(100)),
        ((1.0000, 0.0021), (0.9999, 0.0234), (0.5838, 0.3614), (0, 0.9216)),
    ),
    (
        "diffpir-100-denoised",
        DiffPIR(lam=1.75, zeta=0.3, final="denoised", schedule=VP(100, spacing="quad")),
        ((0.9833, 0.0140), (0.8067, 0.1796), (0.1803, 0.7553), (0, 0.8931)),
    ),
    (
        "diffpir-100-proximal",
        DiffPIR(lam=1.75, zeta=0.3, final="proximal", schedule=VP(100, spacing="quad")),
        ((0.9834, 0.0138), (0.8068, 0.1795), (0.1803, 0.7553), (0, 0.8931)),
    ),
    (
        "mmps-100",
        MMPS(iterations=1, schedule=VP(100)),
        ((0.9901, 0.0062), (0.8621, 0.1169), (0.2000, 0.7331), (0, 0.9216)),
    ),
    (
        "pigdm-score-100",
        PiGDM(schedule=VP(100)),
        ((0.9901, 0.0062), (0.8621, 0.1169), (0.2000, 0.7331), (0, 0.9216)),
    ),
    (
        "mmps-1000",
        MMPS(iterations=1, schedule=VP(1000)),
        ((0.9901, 0.0092), (0.8621, 0.1351), (0.2000, 0.7923), (0, 0.9911)),
    ),
    (
        "unconditional-100",
        Unconditional(schedule=VP(100)),
        ((0, 0.9216), (0, 0.9216), (0, 0.9216), (0, 0.9216)),
    ),
]


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize(("solver", "expected"), [t[1:] for t in TABLE], ids=[t[0] for t in TABLE])
def test_mean_and_variance_are_the_printed_ones(solver, expected, gain):
    """Settings: eta_prop 0.85 and eta_b 1; eta_ddim 1; the tables' grids are the schedules' own."""
    found = final(solver, gain)
    mean, variance = expected[GAINS.index(gain)]
    assert found.mean == pytest.approx(mean, abs=ROUNDING)
    assert found.variance == pytest.approx(variance, abs=ROUNDING)


@pytest.mark.parametrize("gain", GAINS)
def test_mmps_has_the_posteriors_own_mean_at_any_number_of_steps(gain):
    """With eta_ddim = 1 its only errors are the sampler's: its variance, and its start.

    The chain keeps V / sigma_max^2 of the mean with which it starts, V <= 1 the final variance,
    and it starts at 0 instead of at x0.
    """
    exact = gain**2 / (gain**2 + SIGMA_Y**2)
    for steps in (5, 20, 100):
        solver = MMPS(iterations=1, schedule=VE(steps, sigma_max=1e5, sigma_min=1e-3))
        assert final(solver, gain).mean == pytest.approx(exact, abs=1.01e-10)


def test_mmps_variance_falls_to_the_posteriors_as_the_path_gets_finer():
    for gain in GAINS:
        exact = SIGMA_Y**2 / (gain**2 + SIGMA_Y**2)
        errors = [
            abs(final(MMPS(iterations=1, schedule=VP(n)), gain).variance - exact)
            for n in (20, 60, 180)
        ]
        assert errors[0] > errors[1] > errors[2]


def recursion_dps(schedule, gain, zeta):
    """x_u = ancestral - zeta d/dx_t (y - s x0)^2 / (2 sigma_y^2); DPS Algorithm 1."""
    m, V = 0.0, schedule.levels()[0].s ** 2
    for t, u in pairs(schedule):
        p, q, std = ancestral(t, u)
        pull = zeta * shrink(t) * gain / SIGMA_Y**2
        own = p * shrink(t) + q - pull * gain * shrink(t)
        m, V = own * m + pull * (gain or 1.0), own**2 * V + std**2
        yield Moments(m, V)


def recursion_ddnm(schedule, gain, eta):
    """x_u = a X + s (eta z + sqrt(1 - eta^2) e), X = y/s where s > 0 and x0 elsewhere."""
    m, V = 0.0, schedule.levels()[0].s ** 2
    for t, u in pairs(schedule):
        d = shrink(t)
        e = (1 - t.a * d) / t.s
        own = u.s * math.sqrt(1 - eta**2) * e + (0.0 if gain else u.a * d)
        m, V = own * m + (u.a if gain else 0.0), own**2 * V + (eta * u.s) ** 2
        yield Moments(m, V)


def recursion_unconditional(schedule, eta):
    """DDIM with std eta sqrt(s_u^2 - (a_t s_u^2 / (a_u s_t))^2) of fresh noise (eq. 12 and 16)."""
    V = schedule.levels()[0].s ** 2
    for t, u in pairs(schedule):
        d = shrink(t)
        fresh2 = eta**2 * u.s**2 * (1 - (u.s * t.a / (u.a * t.s)) ** 2)
        own = u.a * d + math.sqrt(u.s**2 - fresh2) * (1 - t.a * d) / t.s
        V = own**2 * V + fresh2
        yield Moments(0.0, V)


def recursion_given_y(schedule, gain, eta, draw):
    """DDIM by X = E[x0 | x_t, y], or by a draw about it: x0 given x_t is N(d x_t, c)."""
    m, V = 0.0, schedule.levels()[0].s ** 2
    for t, u in pairs(schedule):
        d, c = shrink(t), t.s**2 / (t.a**2 + t.s**2)
        K = c * gain / (c * gain**2 + SIGMA_Y**2)
        fresh2 = eta**2 * u.s**2 * (1 - (u.s * t.a / (u.a * t.s)) ** 2)
        old = math.sqrt(u.s**2 - fresh2) / t.s  # of x_t; a_u - old a_t is of X
        own, share = (1 - K * gain) * d, u.a - old * t.a
        m = share * (own * m + K * (gain or 1.0)) + old * m
        V = (share * own + old) ** 2 * V + fresh2
        V += share**2 * c * (1 - K * gain) if draw else 0.0
        yield Moments(m, V)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@each_gain
@each_schedule
def test_pigdm_and_mmps_follow_theirs(schedule, gain, eta):
    """On a white normal prior r^2 is Cov[x0 | x_t]: the score of PiGDM is MMPS there."""
    plain, drawn = (list(recursion_given_y(schedule, gain, eta, draw)) for draw in (False, True))
    assert_follows(PiGDM(eta_ddim=eta, schedule=schedule), gain, SIGMA_Y, plain)
    assert_follows(MMPS(1, eta_ddim=eta, schedule=schedule), gain, SIGMA_Y, plain)
    assert_follows(MMPS(1, eta_ddim=eta, draw=True, schedule=schedule), gain, SIGMA_Y, drawn)


@pytest.mark.parametrize("steps", [10, 20])
@each_gain
def test_a_drawn_x0_has_the_posteriors_variance_at_few_steps(gain, steps):
    """Within .95 to 1.05 of the exact one; with the mean in its place it is below .85."""
    exact = SIGMA_Y**2 / (gain**2 + SIGMA_Y**2)
    schedule = Karras(steps, 80.0, 0.02)
    drawn, mean = (final(MMPS(1, draw=d, schedule=schedule), gain) for d in (True, False))
    assert 0.95 < drawn.variance / exact < 1.05
    assert drawn.mean == pytest.approx(mean.mean, abs=1e-3)
    assert mean.variance / exact < 0.85


@each_gain
@each_schedule
def test_dps_follows_its_recursion(schedule, gain):
    """The likelihood loss: the norm losses are not linear in a single residual (its sign)."""
    solver = DPS(zeta=0.004, loss="gaussian", schedule=schedule)
    assert_follows(solver, gain, SIGMA_Y, recursion_dps(schedule, gain, 0.004))


@pytest.mark.parametrize("eta", [0.0, 0.85, 1.0])
@each_gain
@each_schedule
def test_ddnm_follows_its_recursion(schedule, gain, eta):
    solver = DDNM(eta_prop=eta, schedule=schedule)
    assert_follows(solver, gain, 0.0, recursion_ddnm(schedule, gain, eta))


@pytest.mark.parametrize("gain", GAINS[:-1])
def test_ddnm_ends_at_the_data(gain):
    assert moments(DDNM(schedule=VP(20)), gain, 0.0)[-1] == pytest.approx((1.0, 0.0), abs=1e-14)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@each_schedule
def test_unconditional_follows_its_recursion(schedule, eta):
    assert_follows(
        Unconditional(eta_ddim=eta, schedule=schedule),
        1.0,
        SIGMA_Y,
        recursion_unconditional(schedule, eta),
    )


FRAMES = [(t[1], GAINS[(i + k) % len(GAINS)]) for i, t in enumerate(TABLE) for k in (0, 2)]
"""Every solver at two of the gains, every gain with several solvers."""


@pytest.mark.parametrize(("solver", "gain"), FRAMES)
def test_moments_do_not_depend_on_the_frame(solver, gain):
    """On the same levels s / a, the variance-exploding run is the variance-preserving one."""
    short = solver.with_steps(20)
    other = dataclasses.replace(short, schedule=exploding(short.schedule))
    assert final(other, gain) == pytest.approx(final(short, gain), rel=1e-10, abs=1e-12)


def test_the_impulse_method_sees_a_wrong_solver():
    """Negative twin: a DDRM with another share of fresh noise is not the printed one."""
    mean, variance = TABLE[0][2][1]
    found = final(DDRM(eta_prop=0.8, schedule=VP(20)), 0.25)
    assert abs(found.mean - mean) > 100 * ROUNDING
    assert abs(found.variance - variance) > 100 * ROUNDING


def test_ddnm_plus_is_ddrm_with_eta_b_1_except_for_its_start():
    """Where y is never more precise than the first level, the starts agree, and whole runs do."""
    for gain in (0.0, 0.0005):
        for sigma_y in (0.1, 0.3):
            a = moments(DDRM(schedule=VP(20)), gain, sigma_y)
            b = moments(DDNMPlus(schedule=VP(20)), gain, sigma_y)
            assert a == [pytest.approx(x, rel=1e-11, abs=1e-13) for x in b]
    assert final(DDNMPlus(schedule=VP(20)), 1.0) == pytest.approx(final(DDRM(), 1.0), abs=1e-2)
