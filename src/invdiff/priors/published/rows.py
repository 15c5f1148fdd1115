"""How published networks were trained: from numbers that fit in JSON to a row of `precond.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from invdiff.paths import VP
from invdiff.priors import precond as table
from invdiff.priors.precond import Precond


def eps(schedule: str = "linear", steps: int = 1000, scale: float = 1.0) -> Precond:
    """eps on a table of betas: DDPM's linear one, scaled to `steps`, or the cosine one.

    scale: what the table's index is multiplied by before the network sees it. Linear betas run
    from 0.1 / steps to 20 / steps (improved-diffusion, guided-diffusion), 1e-4 to 0.02 at 1000.
    """
    kind: Literal["linear", "cosine"] = "cosine" if schedule == "cosine" else "linear"
    path = VP(1, kind, train_steps=steps, beta_min=0.1 / steps, beta_max=20 / steps)
    return _rescaled(table.predicts_eps(path.alpha_bars()), scale)


def eps_sde(
    sub: bool = False, scale: float = 999.0, beta0: float = 0.1, beta1: float = 20.0
) -> Precond:
    """eps of the VP or sub-VP SDE; the network is given scale * t."""
    return _rescaled(table.predicts_eps_sde(sub, beta0, beta1), scale)


def score(sigma_min: float, sigma_max: float) -> Precond:
    """sigma * score, at ln sigma: NCSN++ before its last division."""
    p = table.predicts_score(times_sigma=True)
    return replace(p, sigma_min=sigma_min, sigma_max=sigma_max)


def edm(sigma_data: float, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Precond:
    """EDM, on the levels that its paper samples from."""
    return replace(table.predicts_edm(sigma_data), sigma_min=sigma_min, sigma_max=sigma_max)


def edm_ve(sigma_min: float = 0.02, sigma_max: float = 100.0) -> Precond:
    """The exploding row of Karras et al. 2022, table 1: sigma * score at ln(sigma / 2)."""
    p = score(sigma_min, sigma_max)
    return replace(p, c_noise=lambda s: math.log(0.5 * s))


def _rescaled(p: Precond, scale: float) -> Precond:
    c_noise = p.c_noise
    return p if scale == 1 else replace(p, c_noise=lambda s: scale * c_noise(s))


ROWS: dict[str, Callable[..., Precond]] = {
    "eps": eps, "eps_sde": eps_sde, "score": score, "edm": edm, "edm_ve": edm_ve,
}  # fmt: skip


def row(trained: dict[str, Any]) -> Precond:
    """The row called trained["row"], with its other numbers."""
    numbers = {k: v for k, v in trained.items() if k != "row"}
    return ROWS[trained["row"]](**numbers)
