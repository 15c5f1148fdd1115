"""What was measured of samples: coverage by task and prior, and whether they agree with y.

The records are made by benchmarks/calibration.py and benchmarks/consistency.py.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from importlib import resources
from typing import Any

from invdiff.sampling.solver import Solver

RECORD, RESIDUALS = "calibration.json", "consistency.json"
ROUNDING = 2 / (255 * math.sqrt(12))
"""Standard deviation of rounding to 8 bits, on [-1, 1]."""
LEVELS = {
    "rounding to 8 bits": ROUNDING,
    "noise of 5/255": math.hypot(10 / 255, ROUNDING),
    "noise of 25/255": math.hypot(50 / 255, ROUNDING),
}
"""Noise at which the residual of samples was measured, on [-1, 1]."""
LOW, HIGH = 0.7, 1.3
"""Residuals of samples, in units of the noise, that still count as those of exact ones: 1."""


@lru_cache(maxsize=2)
def _read(name: str) -> Any:
    path = resources.files("invdiff") / name
    return json.loads(path.read_text()) if path.is_file() else []


def record() -> tuple[dict[str, Any], ...]:
    """The rows of the record of coverage; none where there is no file."""
    return tuple(_read(RECORD))


def disagreement(task: str, prior: str, solver: Solver, sigma: float) -> str:
    """How samples of the task's preset for a solver miss y at such a noise; one sentence.

    sigma: noise of y on [-1, 1]. What was measured at the nearest level counts. "" where samples
    agree with y, where nothing was measured (other priors than `photo`), and for a solver that
    draws nothing.
    """
    residuals = dict(_read(RESIDUALS)).get(solver.name, {}).get(task)
    if residuals is None or prior != "photo" or solver.estimates or sigma <= 0:
        return ""
    far = [abs(math.log(sigma / level)) for level in LEVELS.values()]
    nearest = far.index(min(far))
    found, level = residuals[nearest], list(LEVELS)[nearest]
    if found is None:
        return f"this preset diverged with {level} (docs/consistency.md)"
    if LOW <= found <= HIGH:
        return ""
    return (
        f"samples of this preset differ from y by {found:.2g} times its noise (exact samples: 1), "
        f"as measured with {level}; see docs/consistency.md"
    )


def rows(task: str, prior: str, solver: str) -> list[dict[str, Any]]:
    """The rows of a task, a prior by its name, and a solver."""
    want = (task, prior, solver)
    return [r for r in record() if (r["task"], r["prior"], r["solver"]) == want]


def words(task: str, prior: str, solver: Solver) -> str:
    """How far the intervals of such samples are to be trusted, as measured; one sentence.

    Says so where nothing was measured. "" for a solver that draws nothing.
    """
    if solver.estimates:
        return ""
    found = [r["coverage90"] for r in rows(task, prior, solver.name) if r["default"]]
    if not found:
        return f"their uncertainty was not measured for {task} with {solver.name} and this prior"
    low, high = (round(100 * v) for v in (min(found), max(found)))
    span = f"{low} %" if low == high else f"{low} to {high} %"
    return f"90 % intervals of such samples held the truth in {span} of the pixels measured"
