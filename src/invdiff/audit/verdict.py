"""From places and ranks of many problems to p-values, and to what is flagged.

Of all measurements of a solver together, exact samples are flagged with a chance of at most LEVEL
(Holm), however many measurements there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from invdiff.audit.counts import holm, places_p
from invdiff.audit.coverage import covered
from invdiff.audit.ranks import uniform_p
from invdiff.audit.trial import LARGER_IS_WORSE, REPLICAS

LEVEL = 0.01
"""Chance of any false alarm, for each solver and part."""
Values = Mapping[str, Sequence[Any]]


def joined(lines: Sequence[Values]) -> dict[str, list[Any]]:
    """The lists of several lines, end to end, of what all of them have."""
    common = set.intersection(*(set(line) for line in lines)) if lines else set()
    return {k: [v for line in lines for v in line[k]] for k in lines[0] if k in common} \
        if lines else {}  # fmt: skip


def p_values(values: Values, samples: int) -> dict[str, float]:
    """By measurement, from lists with an entry for each problem, as `examined` makes them."""
    found = {}
    for name, given in values.items():
        kind = name.removesuffix("_place")
        if name.endswith("_place"):
            found[kind] = places_p(given, REPLICAS, kind not in LARGER_IS_WORSE)
        elif name.startswith("rank_"):
            found[name.replace("_", " ")] = uniform_p(torch.tensor(given), samples)
        elif name == "inside":
            found["coverage 90"] = covered(torch.tensor(given), 0.9, samples).p
    return found


def of_cells(lines: Sequence[Values], samples: int) -> dict[str, float]:
    """`p_values` of several cells together: the least of each measurement, times their number.

    Problem i has the same random numbers in every cell, so that the truth lies at nearly the same
    place among the exact samples of all of them: pooled, 20 problems would count as 180, and exact
    samples would be flagged. This bound holds however cells depend on each other (Bonferroni).
    """
    each = [p_values(line, samples) for line in lines]
    common = [k for k in each[0] if all(k in one for one in each)] if each else []
    return {k: min(1.0, len(each) * min(one[k] for one in each)) for k in common}


def flagged(found: Mapping[str, float], level: float = LEVEL) -> list[str]:
    """The measurements that exact samples would not show."""
    return [name for name, bad in holm(dict(found), level).items() if bad]
