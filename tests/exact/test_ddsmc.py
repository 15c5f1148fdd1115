"""DDSMC: Ekstrom Kelvinius, Zhao, Lindsten 2025, particle by particle."""

from __future__ import annotations

import numpy as np
import pytest
from dense import (
    PRIOR,
    Cloud,
    D,
    assert_clouds_agree,
    compare_clouds,
    log_normal,
    of_clouds,
    on_schedules,
)

from invdiff.core.schedules import VE


@of_clouds("ddsmc")
def ddsmc(t: Cloud, eta=1.0, share=0.5, threshold=0.5, weights=False):
    """Every covariance as a matrix; the draw of x0 is conditioned as in Matheron's rule."""
    A, eye = t.A, np.eye(D)
    u, lw, logZ = t.start() / t.levels[0][0], np.zeros(t.n), 0.0
    for i, a, s, b, r in t.moves:
        sig, nxt = s / a, r / b
        rho2 = min(share * sig**2, 0.9 * nxt**2) if r else share * sig**2
        G = t.sigma_y**2 * np.eye(len(A)) + rho2 * A @ A.T
        K = rho2 * A.T @ np.linalg.inv(G)
        X0 = np.array([PRIOR.D(a * row, a, s) for row in u])
        psi = np.array([log_normal(t.y - A @ x0, G) for x0 in X0])
        index, lw, logZ = t.resampled(lw + psi, logZ, threshold, i)
        u, X0, psi = u[index], X0[index], psi[index]
        z, new = t.z(i, "step"), np.zeros_like(u)
        if r:  # only then are these drawn
            z1, z2 = t.z(i, "x0"), t.z(i, "measurement", (len(A),))
        for k in range(t.n):
            if r == 0:
                new[k] = X0[k] + sig * z[k]
                lw[k] += log_normal(t.y - A @ new[k], t.sigma_y**2) - psi[k]
                continue
            beta = 1 - nxt**2 / sig**2
            c = beta / (beta + eta * (1 - beta))
            w = beta * nxt**2 / (beta + eta * (1 - beta))
            e = np.sqrt(rho2) * z1[k]
            e = e + K @ (t.sigma_y * z2[k] - A @ e)
            mean = X0[k] + K @ (t.y - A @ X0[k])
            keep = (1 - c) * u[k]
            new[k] = c * mean + keep + np.sqrt(w - c**2 * rho2) * z[k] + c * e
            after = rho2 * eye - K @ A * rho2  # Cov[x0 | y]
            q = log_normal(new[k] - c * mean - keep, (w - c**2 * rho2) * eye + c**2 * after)
            lw[k] += log_normal(new[k] - c * X0[k] - keep, w) - q - psi[k]
        u = new
    return t.ended(u, lw, logZ, weights, i)


KNOBS = [
    {"weights": True},
    {"eta": 0.4, "threshold": 0.9},
    {"eta": 0.0, "share": 0.05, "weights": True, "threshold": 1.0},
]


@on_schedules
@pytest.mark.parametrize("knobs", KNOBS, ids=str)
def test_transcription(schedule, knobs):
    assert_clouds_agree("ddsmc", knobs, "wide", 0.3, schedule)


@pytest.mark.parametrize(
    ("knobs", "wrong"),
    [({}, {"eta": 0.999}), ({"share": 0.1}, {"share": 0.1001})],
    ids=str,
)
def test_a_knob_off_by_a_little_is_seen(knobs, wrong):
    schedule = VE(9, 20.0, 0.02)
    (x, _), (want, _) = compare_clouds("ddsmc", wrong, "wide", 0.3, schedule, library_knobs=knobs)
    assert np.abs(x - want).max() > 1e-6
