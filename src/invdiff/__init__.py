"""invdiff: recover images from measurements with a diffusion prior.

Public names are loaded when they are first used, so that `invdiff --help` need not load torch. The
stub `__init__.pyi` says where they live, for type checkers and for this file.
"""

from __future__ import annotations

import ast
import importlib
import pathlib
from typing import Any

__version__ = "0.1.0"


def _homes(stub: str) -> dict[str, tuple[str, str]]:
    """Public name to (module, name there), of the imports of a stub."""
    found: dict[str, tuple[str, str]] = {}
    for node in ast.parse(stub).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = (f"invdiff.{node.module}", alias.name)
    return found


_HOMES = _homes(pathlib.Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, own = _HOMES[name]
        return getattr(importlib.import_module(module), own)
    raise AttributeError(f"module 'invdiff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
