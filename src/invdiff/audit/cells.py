"""What tables are made of: rows of the record, means with their error, Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from invdiff.audit.lines import Line
from invdiff.sampling.solver import registry


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and its standard error by the spread of the values."""
    v = torch.tensor(list(values), dtype=torch.float64)
    return float(v.mean()), float(v.std() / math.sqrt(len(v))) if len(v) > 1 else 0.0


def ratio_and_error(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The mean of the first over that of the second, and its standard error where both are of the
    same problems (that of a ratio estimator; Cochran 1977, "Sampling techniques", chapter 6)."""
    v, e = torch.tensor(list(pairs), dtype=torch.float64).unbind(1)
    ratio = v.mean() / e.mean()
    off = (v - ratio * e).std() / (math.sqrt(len(v)) * e.mean())
    return float(ratio), float(off)


def by_row(found: list[Line], part: str) -> dict[str, list[Line]]:
    """The lines of a part that hold values, by row; those of batches alone left out."""
    rows: dict[str, list[Line]] = {}
    for line in found:
        if line["part"] == part and line["values"] is not None and "moved" not in line["values"]:
            rows.setdefault(line["row"], []).append(line)
    return rows


def titled(name: str) -> str:
    """A row's name, as tables have it; that of an estimate says so, for it is no sampler."""
    cls = registry().get(name)
    return f"`{name}` (estimate)" if cls is not None and cls.estimates else f"`{name}`"


def lacking(found: list[Line]) -> list[str]:
    """Which rows have nothing of a part, or of some of its cases, since they lack what it needs."""
    cases: dict[tuple[str, str], list[str]] = {}
    whole: dict[tuple[str, str], bool] = {}
    for line in found:
        key, case = (line["part"], line["row"]), "/".join(line["item"].split("/")[2:])
        without = line["values"] is None and not line.get("error") and line["part"] != "controls"
        whole[key] = whole.get(key, True) and without
        if without:
            cases.setdefault(key, []).append(case)
    told: dict[str, list[str]] = {}
    for (part, row), own in cases.items():
        where = part if whole[part, row] else f"{part} {' and '.join(own)}"
        told.setdefault(where, []).append(titled(row))
    return [f"{where}: {', '.join(rows)}" for where, rows in told.items()]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head),
            *(f"| {' | '.join(row)} |" for row in rows), ""]  # fmt: skip


def pm(values: Sequence[float], digits: int = 2) -> str:
    """Mean and standard error, as printed."""
    mean, error = mean_and_error(values)
    return f"{mean:.{digits}f} ± {error:.{digits}f}"
