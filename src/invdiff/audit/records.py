"""The committed record of the audit: how far every solver is from posteriors that are known.

`python benchmarks/guide.py` makes record.json of the lines of docs/full/audit.jsonl.
"""

from __future__ import annotations

import json
import statistics
from functools import lru_cache
from pathlib import Path
from typing import Any

from invdiff.audit.cells import by_row, mean_and_error
from invdiff.audit.lines import Line

RECORD = Path(__file__).with_name("record.json")
ALL = "all"
"""Of all cells of the mixture together; of rows that have each of them."""
RULERS = {"exact": "exact samples", "prior": "samples that ignore y"}
"""Rows that are no solver's, in words."""


def summary(found: list[Line]) -> dict[str, Any]:
    """What is kept of the lines, by row: of the mixture the steps and, by cell and by ALL, figures,
    each as mean, standard error and median over problems; of the learned prior the coverage of
    90 % intervals by case, as mean and standard error.

    distance: sliced Wasserstein-2. modes: wrong share of the modes. residual: |y - A x|^2 over that
    of exact samples, of noisy y.
    """
    lines = by_row(found, "mixture")
    sizes = {line["item"].split("/")[-1] for each in lines.values() for line in each}
    made = {}
    for name, each in lines.items():
        cells = {line["item"].split("/")[-1]: _figures(line["values"]) for line in each}
        if set(cells) == sizes:
            common = set.intersection(*map(set, cells.values()))
            cells[ALL] = {k: [v for c in cells.values() for v in c[k]] for k in sorted(common)}
        made[name] = {
            "steps": each[0].get("steps", 0),
            "cells": {c: {k: _told(v) for k, v in found.items()} for c, found in cells.items()},
        }
    for name, each in by_row(found, "learned").items():
        covered = {line["item"].split("/")[-1]: line["values"]["covered"] for line in each}
        row = made.setdefault(name, {"steps": each[0]["steps"], "cells": {}})
        row["covered"] = {case: _told(v)[:2] for case, v in covered.items()}
    return made


def _figures(values: dict[str, list[float]]) -> dict[str, list[float]]:
    found = {"distance": values["distance"], "modes": values["modes"]}
    pairs = zip(values.get("residual", []), values.get("residual_exact", []), strict=True)
    ratio = [r / e for r, e in pairs]
    return found | ({"residual": ratio} if ratio else {})


def _told(values: list[float]) -> list[float]:
    return [round(v, 4) for v in (*mean_and_error(values), statistics.median(values))]


@lru_cache(maxsize=1)
def record() -> dict[str, Any]:
    """The `summary` by the name of a row; `exact` is that of exact samples."""
    found: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return found


def cells() -> dict[str, str]:
    """The sizes of problems, each in words, and all of them."""
    sizes = [key for key in record()["exact"]["cells"] if key != ALL]
    pairs = {key: key.split(",") for key in sizes}
    each = {key: f"{d} unknowns, {m} measured" for key, (d, m) in pairs.items()}
    return {ALL: f"all {len(sizes)} sizes"} | each


def distance(name: str, known: dict[str, Any] | None = None) -> tuple[float, float] | None:
    """The mean distance of a row over all cells, and its standard error; None where it lacks one.

    known: a `summary`; the committed one by default.
    """
    row = (record() if known is None else known).get(name, {"cells": {}})
    if ALL not in row["cells"]:
        return None
    mean, error, _ = row["cells"][ALL]["distance"]
    return mean, error


def covered(name: str) -> dict[str, tuple[float, float]]:
    """By case of the learned prior, how much the 90 % intervals of a solver with the preset of a
    task hold, and its standard error; empty where it was not measured."""
    found = record().get(name, {}).get("covered", {})
    return {case: (mean, error) for case, (mean, error) in found.items()}


def rows(cell: str, figure: str) -> list[dict[str, Any]]:
    """solver, steps, figure (its median over the problems of a size) and kind, best first.

    figure: distance, modes or residual. Rows that lack it are left out.
    """
    found = []
    for name, row in record().items():
        values = row["cells"].get(cell, {}).get(figure)
        if values:
            kind = RULERS.get(name, "configured" if "," in name else "paper")
            found.append({"solver": name, "steps": row["steps"], "figure": values[2], "kind": kind})
    return sorted(found, key=lambda row: row["figure"])
