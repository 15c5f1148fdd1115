"""A solver's own mean and variance on a scalar normal prior, read off its code exactly.

With x0 ~ N(0, 1), D(x, v) = x / (1 + v^2) and y = s x0 + 0.1 n, most solvers map (y, noise) to
their sample by an affine function. It is read off the code itself, in float64 and without any
sampling: one row of a batch gets y/s = 1 and no noise, every other row gets y = 0 and a unit
impulse in one draw. The first row's result is the coefficient of y/s; the sum of the others'
squares is the variance given y.

These numbers are biased: they are what the published algorithm does with a perfect denoiser, not
the posterior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from helpers import Given, exploding, noise_names, states
from invdiff.core import Level
from invdiff.core.schedules import VE, VP
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Identity, Spectral
from invdiff.operators.algebra.scaling import ScaledSpectral
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.solvers import Solver

SIGMA_Y = 0.1
GAINS = (1.0, 0.25, 0.05, 0.0)
ROUNDING = 0.5e-4 * (1 + 1e-9)  # of a number printed with 4 decimals
PRIOR = Denoiser(lambda x, sigma: x / (1 + sigma**2), name="standard normal")


@dataclass(frozen=True, eq=False)
class Blind(Identity):
    """y = 0 x: the singular value is 0, nothing is seen."""

    @property
    def s(self) -> Tensor:
        return torch.zeros(1, dtype=torch.float64)

    __call__ = Spectral.__call__
    adjoint = Spectral.adjoint


class Moments(NamedTuple):
    """Coefficient of y/s (of y where s = 0), and variance given y, of one state."""

    mean: float
    variance: float


def measured(gain: float, y: Tensor, sigma_y: float) -> Problem:
    A = ScaledSpectral(Identity(), gain) if gain else Blind()
    return Problem(y.reshape(-1, 1, 1, 1), A, GaussianNoise(sigma_y), (1, 1, 1))


def moments(solver: Solver, gain: float, sigma_y: float = SIGMA_Y) -> list[Moments]:
    """Of every state of a run, exactly. Fails when the run is not affine in (y, noise)."""
    f64 = torch.float64
    names = noise_names(solver, measured(gain, torch.zeros(1, dtype=f64), sigma_y), PRIOR)
    n = len(names)
    # rows: y alone; an impulse in each draw; then a row of everything, and a row of nothing
    everything = torch.linspace(-1.3, 1.7, n, dtype=f64).cos()
    draws = torch.cat([torch.zeros(1, n, dtype=f64), torch.eye(n, dtype=f64), everything[None]])
    draws = torch.cat([draws, torch.zeros(1, n, dtype=f64)])
    unit = gain or 1.0
    y = torch.zeros(n + 3, dtype=f64)
    y[0], y[n + 1] = unit, -0.7 * unit
    column = {name: draws[:, i] for i, name in enumerate(names)}
    rng = Given(tuple(range(n + 3)), table=lambda step, role: column[step, role])
    found = []
    for state in states(solver, measured(gain, y, sigma_y), PRIOR, rng):
        x = state.x.flatten()
        assert x.dtype == f64
        assert x[n + 2] == 0
        expected = -0.7 * x[0] + everything @ x[1 : n + 1]
        scale = float(x.abs().max() * n)
        torch.testing.assert_close(x[n + 1], expected, rtol=0, atol=1e-14 * scale * n)
        found.append(Moments(float(x[0]), float(x[1 : n + 1].square().sum())))
    return found


def final(solver: Solver, gain: float) -> Moments:
    return moments(solver, gain)[-1]


# Recursions of one solver each, in plain Python floats, written from its paper. A state is
# x = m y/s + ..., with variance V given y. Denoiser: x0 = d x, d = a / (a^2 + s^2).


def pairs(schedule: VP | VE) -> list[tuple[Level, Level]]:
    levels = schedule.levels()
    return list(zip(levels[:-1], levels[1:], strict=True))


def ancestral(t: Level, u: Level) -> tuple[float, float, float]:
    """x_u = p x0 + q x_t + std z, with the forward process's own bridge q(x_u | x_t, x0).

    Ho et al. 2020, eq. 6 and 7, for any (a, s): the product of N(x_u; a_u x0, s_u^2) and
    N(x_t; r x_u, s_t^2 - r^2 s_u^2), r = a_t / a_u.
    """
    r = t.a / u.a
    step = t.s**2 - r**2 * u.s**2
    return u.a * step / t.s**2, r * u.s**2 / t.s**2, math.sqrt(step) * u.s / t.s


def shrink(t: Level) -> float:
    return t.a / (t.a**2 + t.s**2)


def assert_follows(solver, gain, sigma_y, recursion):
    """Every state of the run, to 1e-8; the last step adds no noise in either."""
    found = moments(solver, gain, sigma_y)[1:]
    expected = list(recursion)
    assert len(found) == len(expected)
    for got, want in zip(found, expected, strict=True):
        assert got.mean == pytest.approx(want.mean, rel=1e-8, abs=1e-8)
        assert got.variance == pytest.approx(want.variance, rel=1e-8, abs=1e-8)


SCHEDULES = [VP(50), VP(50, spacing="trailing"), VE(50, 30.0, 0.01), exploding(VP(50))]
each_schedule = pytest.mark.parametrize(
    "schedule", SCHEDULES, ids=["leading", "trailing", "ve", "vp-as-ve"]
)
each_gain = pytest.mark.parametrize("gain", GAINS)
