"""Do samples approach a posterior as particles are added? Of the mixture, and of a learned one."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from invdiff.audit import reference
from invdiff.audit.distance import WIDE, drawn
from invdiff.audit.reference import GROWN, MANY, SCHEDULE
from invdiff.audit.trial import null, quantities, trial
from invdiff.sampling.particles import ParticleFilter

PARTICLES = {"mixture": (1, 16, 256), "x4": (1, 4, 16)}
"""Of a cloud, by where: problems of CELL, and a case of `reference`. One is a guided chain that is
not weighed."""
HELD = MANY
"""Exact samples of the learned posterior that GROWN ones are held against: particles of a cloud
depend on each other."""
CELL, PROBLEMS = (8, 2), 8


def grown(solver: ParticleFilter, case: str) -> dict[str, Any]:
    """Figures of GROWN samples in clouds of so many PARTICLES, and their null: of each the median
    and a high value of exact samples. On the schedule of the reference, or a wide one."""
    on = _mixture if case == "mixture" else _learned
    clouds = {n: dataclasses.replace(solver, particles=n) for n in PARTICLES[case]}
    exact = mixture_null() if case == "mixture" else reference.record()["cases"][case]["null"]
    found: dict[str, Any] = {"null": exact if case == "mixture" else exact[str(HELD)]}
    return found | {str(n): on(one, case) for n, one in clouds.items()}


def _learned(solver: ParticleFilter, case: str) -> dict[str, float] | None:
    found = reference.drawn(dataclasses.replace(solver, schedule=SCHEDULE), case, GROWN)
    return None if found is None else reference.figures(found[0], reference.law(case))


def _mixture(solver: ParticleFilter, case: str) -> dict[str, float]:
    """Distance and modes as in `trial.quantities`: means over PROBLEMS problems."""
    each = []
    for number in range(PROBLEMS):
        t = trial(*CELL, number)
        x: Tensor = drawn(dataclasses.replace(solver, schedule=WIDE), t.problem, t.prior, GROWN)[0]
        each.append(quantities(t, x, number))
    return {k: round(sum(one[k] for one in each) / PROBLEMS, 4) for k in ("distance", "modes")}


def mixture_null() -> dict[str, list[float]]:
    """Of exact clouds: the median of the means over problems, and the largest of 19."""
    each = [null(trial(*CELL, number), GROWN, number) for number in range(PROBLEMS)]
    found = {}
    for k in ("distance", "modes"):
        means = sorted(sum(v) / PROBLEMS for v in zip(*(one[k] for one in each), strict=True))
        found[k] = [round(means[len(means) // 2], 4), round(means[-1], 4)]
    return found
