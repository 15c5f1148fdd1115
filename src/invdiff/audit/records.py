"""The committed record of the audit: how far every solver is from posteriors that are known.

`benchmarks/posterior.py` writes docs/posterior.json; an installed package has a copy.
"""

from __future__ import annotations

import json
import statistics
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from invdiff.core import InvdiffError

RECORD = "posterior.json"


@lru_cache(maxsize=1)
def record() -> dict[str, Any]:
    """The record by the name of a row; `exact` is that of exact samples.

    Raises InvdiffError where it is neither in the package nor beside its sources.
    """
    places = (
        Path(str(resources.files("invdiff"))) / "audit" / RECORD,
        Path(__file__).parents[3] / "docs" / RECORD,
    )
    for path in places:
        if path.is_file():
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return found
    raise InvdiffError(f"The audit's {RECORD} is in neither of {places[0]} and {places[1]}.")


def cells() -> dict[str, str]:
    """The sizes of problems, each in words."""
    found = record()["exact"]["cells"]
    pairs = {key: key.split(",") for key in found}
    return {key: f"{d} unknowns, {m} measurements" for key, (d, m) in pairs.items()}


def rows(cell: str, figure: str) -> list[dict[str, Any]]:
    """solver, steps, figure (its median over the problems of a size) and kind, best first.

    figure: distance, modes or residual. Rows that lack it are left out.
    """
    found = []
    for name, row in record().items():
        values = row["cells"].get(cell, {}).get(figure, [])
        if values:
            kind = "exact samples" if name == "exact" else "configured" if "," in name else "paper"
            median = round(statistics.median(values), 4)
            found.append({"solver": name, "steps": row["steps"], "figure": median, "kind": kind})
    return sorted(found, key=lambda row: row["figure"])
