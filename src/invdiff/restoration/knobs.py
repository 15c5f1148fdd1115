"""Knobs of solvers by name: which there are, and a solver with some of them set."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from invdiff import fields
from invdiff.sampling.solver import Solver
from invdiff.solvers import solver_class


def with_knobs(solver: Solver, knobs: Mapping[str, Any]) -> Solver:
    """The solver with knobs set; `path.NAME` is one of its path.

    Another solver inside this one is given by its name, has its paper's defaults and brings its
    path. Raises InvdiffError for a knob that there is not, and a value out of its range.
    """
    own = {k: v for k, v in knobs.items() if not k.startswith("path.")}
    kinds = knob_types(solver)
    for name in knobs:
        if name not in kinds:
            raise fields.unknown(f"--solver.{name}", [f"--solver.{k}" for k in kinds])
    values = {k: _knob(kinds[k], v, k) for k, v in own.items()}
    path = next((v.path for v in values.values() if isinstance(v, Solver)), solver.path)
    steps = {
        k.removeprefix("path."): _knob(kinds[k], v, k) for k, v in knobs.items() if k not in own
    }
    return dataclasses.replace(solver, **values, path=dataclasses.replace(path, **steps))


def _knob(kind: Any, value: Any, name: str) -> Any:
    if kind is Solver:
        return solver_class(str(value))()
    return fields.convert(kind, value, f"solver.{name}")


def knob_types(solver: Solver) -> dict[str, Any]:
    """Name of a knob to its type; those of the path are `path.NAME`, its steps are --steps."""
    found: dict[str, Any] = {}
    inner = [getattr(solver, f.name) for f in dataclasses.fields(solver)]
    path = next((v.path for v in inner if isinstance(v, Solver)), solver.path)
    for before, owner in (("", solver), ("path.", path)):
        hints = typing.get_type_hints(type(owner))
        for f in dataclasses.fields(owner):
            if f.name not in ("path", "steps") and f.init:
                found[f"{before}{f.name}"] = fields.kind(hints[f.name])
    return found
