"""All posterior samplers. A new one is a file in this folder: it is found by itself."""

from __future__ import annotations

import importlib
import pkgutil

from invdiff.core import nearest
from invdiff.solvers.base import Solver

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def _subclasses(cls: type[Solver]) -> list[type[Solver]]:
    return [s for c in cls.__subclasses__() for s in (c, *_subclasses(c))]


def registry() -> dict[str, type[Solver]]:
    """Name to class of every solver in this folder, in alphabetical order."""
    here = [c for c in _subclasses(Solver) if c.__module__.startswith(f"{__name__}.")]
    named = {c.name: c for c in here}
    return dict(sorted(named.items()))


def solver_class(name: str) -> type[Solver]:
    """The solver called name. Raises InvdiffError with the nearest names when there is none."""
    known = registry()
    if name not in known:
        raise nearest(name, known, "solver")
    return known[name]


__all__ = ["Solver", "registry", "solver_class"]
