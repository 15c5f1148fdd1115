"""Frozen dataclasses to JSON and back; their tensors go beside it, by name."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from torch import Tensor

from invdiff.core import InvdiffError


def encode(value: Any, tensors: dict[str, Tensor], where: str = "") -> Any:
    """JSON form of value: plain values, tuples, tensors and dataclasses of this package, nested.

    Tensors are put into `tensors` under the dotted name of the field that held them.
    Raises InvdiffError for anything else.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        tensors[where] = value.detach().cpu().contiguous()
        return {"tensor": where}
    if isinstance(value, tuple | list):
        return [encode(v, tensors, f"{where}.{i}") for i, v in enumerate(value)]
    if isinstance(value, dict):
        return {"dict": {k: encode(v, tensors, f"{where}.{k}") for k, v in value.items()}}
    cls = type(value)
    if dataclasses.is_dataclass(value) and cls.__module__.startswith("invdiff."):
        fields = {
            f.name: encode(getattr(value, f.name), tensors, f"{where}.{f.name}".lstrip("."))
            for f in dataclasses.fields(value)
            if f.init
        }
        return {"type": f"{cls.__module__}:{cls.__qualname__}", "fields": fields}
    raise InvdiffError(
        f"{cls.__qualname__} at {where or 'the top'} cannot be written to a file; "
        "use an operator, noise or solver that invdiff provides, or save the samples alone."
    )


def decode(form: Any, tensors: dict[str, Tensor]) -> Any:
    """The value of a JSON form made by encode. Raises InvdiffError when the form is not one."""
    if isinstance(form, list):
        return tuple(decode(v, tensors) for v in form)
    if not isinstance(form, dict):
        return form
    if "tensor" in form:
        return tensors[form["tensor"]]
    if "dict" in form:
        return {k: decode(v, tensors) for k, v in form["dict"].items()}
    module, _, name = str(form.get("type", "")).partition(":")
    if not module.startswith("invdiff."):
        raise InvdiffError(f"The file names {module or 'no type'}, which is not part of invdiff.")
    cls = getattr(importlib.import_module(module), name, None)
    if cls is None or not dataclasses.is_dataclass(cls):
        raise InvdiffError(
            f"This version of invdiff has no {name}; use the one that wrote the file."
        )
    return cls(**{k: decode(v, tensors) for k, v in form["fields"].items()})
