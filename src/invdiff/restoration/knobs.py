"""Knobs of solvers by name: which there are, and a solver with some of them set."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from invdiff import fields
from invdiff.sampling.solver import Solver
from invdiff.solvers import solver_class
from invdiff.tasks.auto import in_steps


def with_knobs(solver: Solver, knobs: Mapping[str, Any]) -> Solver:
    """The solver with knobs set; `schedule.NAME` is one of its schedule.

    Another solver inside this one is given by its name, has its paper's defaults and brings its
    schedule. Raises InvdiffError for a knob that there is not, and a value out of its range.
    """
    own = {k: v for k, v in knobs.items() if not k.startswith("schedule.")}
    kinds = knob_types(solver)
    for name in knobs:
        if name not in kinds:
            raise fields.unknown(f"--solver.{name}", [f"--solver.{k}" for k in kinds])
    values = {k: _knob(kinds[k], v, k) for k, v in own.items()}
    schedule = next((v.schedule for v in values.values() if isinstance(v, Solver)), solver.schedule)
    steps = {
        k.removeprefix("schedule."): _knob(kinds[k], v, k) for k, v in knobs.items() if k not in own
    }
    return dataclasses.replace(solver, **values, schedule=dataclasses.replace(schedule, **steps))


def as_asked(solver: Solver, knobs: Mapping[str, Any], steps: int | None) -> Solver:
    """A preset with knobs set, and with so many steps, if another number is asked for. Raises
    InvdiffError as `with_knobs` does."""
    if steps is not None:
        solver = in_steps(solver, steps)
    solver = with_knobs(solver, knobs) if knobs else solver  # what is told wins
    return solver if steps is None else solver.with_steps(steps)


def _knob(kind: Any, value: Any, name: str) -> Any:
    if kind is Solver:
        return solver_class(str(value))()
    return fields.convert(kind, value, f"solver.{name}")


def knob_types(solver: Solver) -> dict[str, Any]:
    """Name of a knob to its type; `schedule.NAME` are those of the schedule but steps (--steps)."""
    found: dict[str, Any] = {}
    inner = [getattr(solver, f.name) for f in dataclasses.fields(solver)]
    schedule = next((v.schedule for v in inner if isinstance(v, Solver)), solver.schedule)
    for before, owner in (("", solver), ("schedule.", schedule)):
        hints = typing.get_type_hints(type(owner))
        for f in dataclasses.fields(owner):
            if f.name not in ("schedule", "steps") and f.init:
                found[f"{before}{f.name}"] = fields.kind(hints[f.name])
    return found
