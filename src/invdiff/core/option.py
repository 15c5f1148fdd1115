"""Options: dataclass fields with help and a range, from which flags, forms and tables are made."""

from __future__ import annotations

import dataclasses
from typing import Any

from invdiff.core import InvdiffError


def option(
    help: str,
    default: Any = dataclasses.MISSING,
    min: float | None = None,
    max: float | None = None,
) -> Any:
    """A field that users set, in words, and its range; without a default it must be told."""
    return dataclasses.field(default=default, metadata={"help": help, "min": min, "max": max})


def flag(name: str) -> str:
    """A field as the command line calls it."""
    return f"--{name.replace('_', '-')}"


def check_ranges(value: Any, who: str = "") -> None:
    """Raise InvdiffError when a field of a dataclass lies outside its range; None is no value."""
    for f in dataclasses.fields(value):
        low, high, found = f.metadata.get("min"), f.metadata.get("max"), getattr(value, f.name)
        if found is None or (low is None and high is None):
            continue
        if (low is not None and not found >= low) or (high is not None and not found <= high):
            name = f"{who}: {f.name}" if who else flag(f.name)
            raise InvdiffError(f"{name} is {span(low, high)}, found {found}.")


def span(low: float | None, high: float | None) -> str:
    """A range in words; "" for none."""
    if low is not None and high is not None:
        return f"from {low:g} to {high:g}"
    return f"at least {low:g}" if low is not None else "" if high is None else f"at most {high:g}"
