"""How published networks were trained: from numbers that fit in JSON to a row of `precond.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np

from invdiff.core.limits import limited
from invdiff.core.schedules import MOST_STEPS, VP
from invdiff.priors import precond as table
from invdiff.priors.precond import Precond


def eps(
    schedule: str = "linear",
    steps: int = 1000,
    scale: float = 1.0,
    predicts: str = "epsilon",
    beta0: float = 0.1,
    beta1: float = 20.0,
) -> Precond:
    """A network on a table of betas: DDPM's linear one, scaled to `steps`, or the cosine one.

    scale: what the table's index is multiplied by before the network sees it. Linear betas run
    from beta0 / steps to beta1 / steps: 1e-4 to 0.02 at 1000.
    predicts: epsilon, sample (x0) or v_prediction.
    """
    return _rescaled(table.PREDICTS[predicts](bars(schedule, steps, beta0, beta1)), scale)


def bars(
    schedule: str, steps: int = 1000, beta0: float = 0.1, beta1: float = 20.0
) -> np.ndarray[Any, Any]:
    """The alpha_bars of a table, as `eps` has them."""
    kind: Literal["linear", "cosine"] = "cosine" if schedule == "cosine" else "linear"
    path = VP(1, kind, train_steps=steps, beta_min=beta0 / steps, beta_max=beta1 / steps)
    return path.alpha_bars()


def eps_sde(
    sub: bool = False, scale: float = 999.0, beta0: float = 0.1, beta1: float = 20.0
) -> Precond:
    """eps of the VP or sub-VP SDE; the network is given scale * t."""
    return _rescaled(table.predicts_eps_sde(sub, beta0, beta1), scale)


def score(sigma_min: float, sigma_max: float, times_sigma: bool = True) -> Precond:
    """sigma * score, at ln sigma: NCSN++ before its last division; the score if not times_sigma."""
    p = table.predicts_score(times_sigma)
    return replace(p, sigma_min=sigma_min, sigma_max=sigma_max)


def score_discrete(
    sigma_min: float, sigma_max: float, steps: int = 1000, times_sigma: bool = True
) -> Precond:
    """As `score`, at the index of sigma among `steps` geometric levels, the largest first."""
    p, low, high = (
        score(sigma_min, sigma_max, times_sigma),
        math.log(sigma_min),
        math.log(sigma_max),
    )

    return replace(p, c_noise=partial(_index, low=low, high=high, steps=steps))


def _index(sigma: float, low: float, high: float, steps: int) -> float:
    place = (high - math.log(sigma)) / (high - low)
    return (steps - 1) * min(max(place, 0.0), 1.0)


def edm(
    sigma_data: float, sigma_min: float = 0.002, sigma_max: float = 80.0, scale: float = 1.0
) -> Precond:
    """EDM, on the levels that its paper samples from; the network sees scale * ln(sigma) / 4."""
    p = replace(table.predicts_edm(sigma_data), sigma_min=sigma_min, sigma_max=sigma_max)
    return _rescaled(p, scale)


def iddpm(levels: int = 1000, c1: float = 0.001, c2: float = 0.008) -> Precond:
    """The iDDPM row of Karras et al. 2022, table 1 and appendix C.3.3: eps on a cosine table u_j.

    u_j falls from j = 0 to u_levels = 0; the network is given levels - 1 - j of the nearest u_j.
    """
    limited("iDDPM", levels, "levels", MOST_STEPS, 16)
    angles = np.sin(0.5 * math.pi * np.arange(levels + 1) / (levels * (c2 + 1))) ** 2
    u = np.zeros(levels + 1)
    for j in range(levels, 0, -1):
        ratio = max(angles[j - 1] / angles[j], c1)
        u[j - 1] = math.sqrt((u[j] ** 2 + 1) / ratio - 1)

    p = table.predicts_eps([0.5])  # c_in, c_skip and c_out; the times are those above
    time = partial(_level, u=u, levels=levels)
    return replace(p, c_noise=time, sigma_min=float(u[levels - 1]), sigma_max=float(u[0]))


def _level(sigma: float, u: np.ndarray[Any, Any], levels: int) -> float:
    return float(levels - 1 - np.abs(u - sigma).argmin())


def edm_ve(sigma_min: float = 0.02, sigma_max: float = 100.0) -> Precond:
    """The exploding row of Karras et al. 2022, table 1: sigma * score at ln(sigma / 2)."""
    p = score(sigma_min, sigma_max)
    return replace(p, c_noise=_log_half)


def _log_half(sigma: float) -> float:
    return math.log(0.5 * sigma)


def _rescaled(p: Precond, scale: float) -> Precond:
    if scale == 1:
        return p
    return replace(p, c_noise=partial(table.times, of=p.c_noise, factor=scale))


ROWS: dict[str, Callable[..., Precond]] = {
    "eps": eps, "eps_sde": eps_sde, "score": score, "score_discrete": score_discrete, "edm": edm,
    "edm_ve": edm_ve, "iddpm": iddpm,
}  # fmt: skip


def row(trained: dict[str, Any]) -> Precond:
    """The row called trained["row"], with its other numbers."""
    numbers = {k: v for k, v in trained.items() if k != "row"}
    return ROWS[trained["row"]](**numbers)
