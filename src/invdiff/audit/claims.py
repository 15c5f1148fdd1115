"""What the words `exact` and `asymptotic` of a solver rest on, in the lines of an audit.

`asymptotic` rests on one mode (the part budget). What several modes and a learned prior add
(`approaches`) is told beside it: there a budget that anyone runs may not suffice.
"""

from __future__ import annotations

from typing import Any

from invdiff.audit.lines import Line
from invdiff.audit.parts import SIZE
from invdiff.audit.verdict import flagged, of_cells

FALL, ROUND_OFF = 0.6, 1e-6


def falls(values: dict[str, Any]) -> bool:
    """Whether the error falls as the budget grows, or is what exact samples show."""
    low, high = max(values["0.25"]), max(values["1"])
    within = all(e <= n for e, n in zip(values["1"], values["null_99"], strict=True))
    return within or high <= FALL * low


def approaches(values: dict[str, Any]) -> bool:
    """Whether samples approach a reference posterior as particles are added (`growth`): every
    figure falls so, or is what exact samples show, and one falls."""
    counts = sorted((k for k in values if k != "null"), key=int)
    few, many = values[counts[0]], values[counts[-1]]
    low = {k: abs(many[k]) <= FALL * abs(few[k]) for k in few}
    within = {k: abs(many[k]) <= values["null"][k][1] for k in few}
    return any(low.values()) and all(low[k] or within[k] for k in few)


def unsupported(name: str, claim: str, found: list[Line]) -> str:
    """Why the lines do not support a claim, in words; empty where they do, and for `heuristic`."""
    if claim == "heuristic":
        return ""
    own = [x for x in found if x["row"] == name and x["values"] is not None]
    parts = ("budget", "gaussian", "mixture")
    lines = {part: [x["values"] for x in own if x["part"] == part] for part in parts}
    if claim == "asymptotic":
        if not lines["budget"]:
            return f"{name}: no line of the part budget"
        return "" if falls(lines["budget"][0]) else f"{name}: its error does not fall"
    if not lines["gaussian"] or not lines["mixture"]:
        return f"{name}: no lines of the parts gaussian and mixture"
    values = lines["gaussian"][0]
    bound = values.get("null_99", [ROUND_OFF] * len(values["error"]))
    if any(e > b for e, b in zip(values["error"], bound, strict=True)):
        return f"{name}: it is not exact on a normal law"
    bad = flagged(of_cells(lines["mixture"], SIZE))
    return f"{name}: flagged on the mixture by {', '.join(bad)}" if bad else ""
