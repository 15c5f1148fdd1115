"""MCGdiff: Cardoso et al. 2024, mode by mode and particle by particle."""

from __future__ import annotations

import numpy as np
import pytest
from dense import (
    PRIOR,
    VP_SCHEDULE,
    Cloud,
    assert_clouds_agree,
    compare_clouds,
    ddim,
    log_normal,
    modes,
    of_clouds,
    on_schedules,
)


@of_clouds("mcgdiff")
def mcgdiff(t: Cloud, kappa=0.5, eta_ddim=1.0, threshold=0.5, weights=False):
    """In u = x / a, the potentials of every level one by one; densities whole.

    y in the basis of U: a number for each mode, and the rest of it, which is noise alone.
    """
    U, S, V = modes(t.A)
    seen = [j for j in range(len(S)) if S[j] > 0]
    sig = [s / a for a, s in t.levels]
    n2 = {j: (t.sigma_y / S[j]) ** 2 for j in seen}
    target = {j: (U[:, j] @ t.y) / S[j] for j in seen}
    tau = {j: min(i for i, g in enumerate(sig) if g**2 <= (1 - kappa) * n2[j]) for j in seen}

    def width(i, j):
        return (sig[i] ** 2 - sig[tau[j]] ** 2) + (n2[j] - sig[tau[j]] ** 2)

    def drawn(m, std, i, noise):
        """N(m, std^2) times the potentials of level i: a draw, and the log of the integral."""
        x, total = m + std * noise, 0.0
        for j in seen:
            if i > tau[j]:
                continue
            v = width(i, j)
            K = std**2 / (std**2 + v)
            z = K * target[j] + (1 - K) * (V[:, j] @ m) + np.sqrt(v * K) * (V[:, j] @ noise)
            x = x + V[:, j] * (z - V[:, j] @ x)
            total += log_normal(np.array([V[:, j] @ m - target[j]]), std**2 + v)
        return x, total

    rest = t.y - sum(U[:, j] * (U[:, j] @ t.y) for j in seen)
    unexplained = -0.5 * rest @ rest / t.sigma_y**2
    unexplained -= 0.5 * (len(t.y) - len(seen)) * np.log(2 * np.pi * t.sigma_y**2)
    constant = unexplained - sum(np.log(S[j]) for j in seen)
    start = [drawn(0 * z, sig[0], 0, z) for z in t.z(-1, "init")]
    u, lw = np.array([row for row, _ in start]), np.array([g for _, g in start]) + constant
    logZ = 0.0
    for i, a, s, b, r in t.moves:
        z = t.z(i, "step")
        X0 = np.array([PRIOR.D(a * row, a, s) for row in u])
        left = np.array(
            [
                sum(
                    log_normal(np.array([V[:, j] @ row - target[j]]), width(i, j))
                    for j in seen
                    if tau[j] >= i + 1
                )
                for row in u
            ]
        )
        # DDIM in a frame where variance is preserved, and back; into the image N(D, sigma^2)
        if r == 0:
            m, std = X0, sig[i]
        else:
            pairs = zip(u, X0, strict=True)
            m = np.array([ddim(a * w, x0, a, s, b, r, 0, eta_ddim) for w, x0 in pairs]) / b
            std = float(ddim(0.0, 0.0, a, s, b, r, 1.0, eta_ddim)) / b
        ahead = np.array([drawn(row, std, i + 1, 0 * row)[1] for row in m])
        index, lw, logZ = t.resampled(lw + ahead - left, logZ, threshold, i)
        u = np.array([drawn(row, std, i + 1, n)[0] for row, n in zip(m[index], z, strict=True)])
    return t.ended(u, lw, logZ, weights, i)


KNOBS = [
    {"weights": True},
    {"kappa": 0.01, "eta_ddim": 0.85, "threshold": 1.0},
    {"kappa": 0.9, "eta_ddim": 0.5, "threshold": 0.9, "weights": True},
]


@on_schedules
@pytest.mark.parametrize("knobs", KNOBS, ids=str)
def test_transcription(schedule, knobs):
    assert_clouds_agree("mcgdiff", knobs, "wide", 0.3, schedule)


@pytest.mark.parametrize(
    ("knobs", "wrong"), [({}, {"kappa": 0.05}), ({}, {"eta_ddim": 0.999})], ids=str
)
def test_a_knob_off_by_a_little_is_seen(knobs, wrong):
    (x, _), (want, _) = compare_clouds(
        "mcgdiff", wrong, "wide", 0.3, VP_SCHEDULE, library_knobs=knobs
    )
    assert np.abs(x - want).max() > 1e-6
