"""Which solver can do which task, and why others cannot: generated, never kept by hand."""

from __future__ import annotations

from invdiff.problem import Problem
from invdiff.problem.toys import TOYS
from invdiff.problem.whiten import whiten
from invdiff.sampling.needs import why_not
from invdiff.solvers import registry
from invdiff.tasks import TASKS


def example(name: str, sigma: float = 0.05) -> Problem:
    """A small problem of a task, or one of `TOYS`: its types decide which solver can.

    sigma: of Gaussian noise, where it has any.
    """
    return TOYS[name](sigma) if name in TOYS else TASKS[name].toy(sigma)


def columns() -> list[str]:
    """Every task, and every toy that is no task."""
    return list(dict.fromkeys((*TASKS, *TOYS)))


def table() -> list[tuple[str, dict[str, str]]]:
    """(solver, {task: "" or why not}) for every solver and task."""
    # a solver for noiseless data is judged on noiseless data
    problems = {t: [example(t, sigma=s) for s in (0.05, 0.0)] for t in columns()}
    white = {t: [whiten(p) for p in pair] for t, pair in problems.items()}
    rows = []
    for name, cls in registry().items():
        solver, cells = cls(), dict[str, str]()
        for t, pair in problems.items():
            options = [why_not(solver, p, white=w) for p, w in zip(pair, white[t], strict=True)]
            cells[t] = min(options, key=len)
        rows.append((name, cells))
    return rows
