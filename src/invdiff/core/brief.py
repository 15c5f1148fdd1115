"""Values in few characters, for the repr of dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

SHOWN = 60
"""Characters of a value of any other kind that `brief` shows."""


def brief(given: Any, defaults: bool = True) -> str:
    """The repr of a dataclass in which arrays are types and shapes: one line or two.

    defaults: whether fields that have their default are shown.
    """
    told = []
    for f in dataclasses.fields(given):
        value = getattr(given, f.name, dataclasses.MISSING)
        plain = isinstance(value, bool | int | float | str | tuple | None)
        same = value is f.default or (plain and value == f.default)
        if f.repr and value is not dataclasses.MISSING and (defaults or not same):
            told.append(f"{f.name}={shown(value)}")
    return f"{type(given).__name__}({', '.join(told)})"


def shown(value: Any) -> str:
    """A value in few characters: arrays by type and shape, long tuples by their ends."""
    if isinstance(value, Tensor | np.ndarray):
        one = value.ndim == 0 and value.device != torch.device("meta")
        kind = str(value.dtype).removeprefix("torch.")
        return f"{value.item()}" if one else f"{kind}({', '.join(map(str, value.shape))})"
    if isinstance(value, tuple | list):
        if len(value) > 6:
            return f"({shown(value[0])}, ..., {shown(value[-1])}: {len(value)} in all)"
        return f"({', '.join(map(shown, value))}{',' * (len(value) == 1)})"
    if isinstance(value, Mapping):
        return f"{{{len(value)} in all}}"
    text = repr(value)
    return text if dataclasses.is_dataclass(value) or len(text) <= SHOWN else f"{text[:SHOWN]}..."


def printable(text: str) -> str:
    """Text for a terminal: control characters, which it would obey, as \\x1b."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
