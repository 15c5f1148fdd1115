"""How much an audit measures, and the line that says so at the head of its file."""

from __future__ import annotations

import dataclasses
from typing import Any

from invdiff import __version__
from invdiff.audit.parts import QUICK, Budget


def budget_of(quick: bool, problems: int | None = None, truths: int | None = None) -> Budget:
    """The full audit or the quick one, with other numbers of problems and truths where given."""
    found = QUICK if quick else Budget()
    return dataclasses.replace(
        found,
        problems=found.problems if problems is None else problems,
        truths=found.truths if truths is None else truths,
    )


def settings(budget: Budget, quick: bool) -> dict[str, Any]:
    """What two audits have to share for their lines to stand in one file."""
    told = dataclasses.asdict(budget)
    told["cells"] = [list(cell) for cell in budget.cells]
    return {"invdiff": __version__, "quick": quick, **{
        k: list(v) if isinstance(v, tuple) else v for k, v in told.items()
    }}  # fmt: skip
