"""PnP-DM: Wu et al. 2024, round by round, and the law that its chains have at a fixed rho."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from dense import PRIOR, D, Task, assert_agrees, compare, ddim, on_matrices, transcription
from scalar import moments

from invdiff.core.schedules import VE
from invdiff.solvers.pnpdm import PnPDM

SCHEDULE = VE(11, 3.0, 0.2)


@transcription("pnp-dm")
def pnpdm(t: Task, inner=20, sigma_min=0.01, eta_ddim=1.0):
    """The draw of z by its precision; the prior's sampler on a grid written out."""
    A, step, steps = t.A, 0, len(t.levels) - 1
    first, last, rounds = t.levels[0][1], t.levels[-2][1], -(-steps // inner)
    x = t.start()
    for k, rho in enumerate(np.geomspace(first, last, rounds) if rounds > 1 else [first]):
        length = (k + 1) * steps // rounds - k * steps // rounds
        n, xi = t.z(step, "measurement", (len(A),)), t.z(step, "x0")
        if t.sigma_y:
            precision = A.T @ A / t.sigma_y**2 + np.eye(D) / rho**2
            right = A.T @ (t.y + t.sigma_y * n) / t.sigma_y**2 + (x + rho * xi) / rho**2
            x = np.linalg.solve(precision, right)
        else:
            seen = np.linalg.pinv(A) @ A
            x = np.linalg.pinv(A) @ t.y + (np.eye(D) - seen) @ (x + rho * xi)
        top, low = rho ** (1 / 7), min(sigma_min, rho) ** (1 / 7)
        grid = [*np.linspace(top, low, length) ** 7, 0.0]
        for s, r in zip(grid[:-1], grid[1:], strict=True):
            x = ddim(x, PRIOR.D(x, 1.0, s), 1.0, s, 1.0, r, t.z(step, "step"), eta_ddim)
            step += 1
    return x


@on_matrices
@pytest.mark.parametrize("sigma_y", [0.3, 0.0])
@pytest.mark.parametrize(
    "knobs", [{"inner": 3}, {"inner": 1}, {"inner": 4, "sigma_min": 0.05, "eta_ddim": 0.4}], ids=str
)
def test_transcription(matrix, knobs, sigma_y):
    assert_agrees("pnp-dm", knobs, matrix, sigma_y, SCHEDULE)


def test_a_knob_off_by_a_little_is_seen():
    for knobs, wrong in (
        ({"inner": 3}, {"inner": 2}),
        ({"sigma_min": 0.01}, {"sigma_min": 0.0101}),
    ):
        got, want = compare("pnp-dm", wrong, "wide", 0.3, SCHEDULE, library_knobs=knobs)
        assert np.abs(got - want).max() > 1e-6


@pytest.mark.parametrize("gain", [1.0, 0.25])
def test_at_a_fixed_rho_its_law_is_the_posterior_of_a_noisier_measurement(gain):
    """Of N(y; gain x, sigma_y^2 + rho^2 gain^2), on a scalar normal law, up to the discretisation
    of the prior's sampler: a variance nearer with more inner steps. Twin: not that of y itself."""
    rho, sigma_y, errors = 0.5, 0.1, []
    noise = sigma_y**2 / gain**2 + rho**2
    for inner in (5, 20, 80):
        solver = PnPDM(inner, 0.002, schedule=VE(16 * inner, rho, rho))
        found = moments(solver, gain, sigma_y)[-1]
        errors.append(
            max(abs(found.mean - 1 / (1 + noise)), abs(found.variance - noise / (1 + noise)))
        )
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 0.03
    own = sigma_y**2 / gain**2
    assert abs(found.variance - own / (1 + own)) > 0.1


def test_steps_are_rounds_of_inner_ones():
    assert PnPDM().num_steps == 1000 and sum(move.first > 0 for move in PnPDM().moves) == 50
    for n, lengths in ((1, [1]), (7, [7]), (47, [15, 16, 16])):
        moves = PnPDM().with_steps(n).moves
        starts = [i for i, move in enumerate(moves) if move.first] + [n]
        assert [b - a for a, b in pairwise(starts)] == lengths and len(moves) == n
