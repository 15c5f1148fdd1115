"""What was measured of samples: coverage by task and prior, made by benchmarks/calibration.py."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any

from invdiff.sampling.solver import Solver

RECORD = "calibration.json"


@lru_cache(maxsize=1)
def record() -> tuple[dict[str, Any], ...]:
    """The rows of the record; none where there is no file."""
    path = resources.files("invdiff") / RECORD
    return tuple(json.loads(path.read_text())) if path.is_file() else ()


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
