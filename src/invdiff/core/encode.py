"""Frozen dataclasses to JSON and back, tensors beside it by name."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invdiff.core import InvdiffError

UPGRADES: dict[str, dict[str, Any]] = {
    "Blur": {"cg_tol": 0.0},
    "NonCartesian": {"cg_tol": 0.0},
    "PiGDM": {"guidance": "paper"},
    "Radon": {"cg_tol": 0.0},
    "Sense": {"cg_tol": 0.0},
}
"""By class, fields that older files lack, where the default has changed: what it was."""

NAMES = {"Gaussian": "GaussianNoise"}
"""Classes of older files that have another name now."""

RENAMED: dict[str, dict[str, str]] = {
    "Frames": {"T": "length"},
    "Solver": {"path": "schedule"},
    "TemporalPool": {"T": "length"},
    "VP": {"schedule": "betas"},
}
"""By class or a base of it, fields of older files that have another name now."""


def renamed(cls: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a form of that class, by the names that they have now."""
    now: dict[str, str] = {}
    for base in cls.__mro__:
        now |= RENAMED.get(base.__name__, {})
    return {now.get(name, name): value for name, value in fields.items()}


REGISTERED: dict[str, type] = {}
"""Classes of others by their names, which `invdiff.register` fills: files may name them too."""


def encode(value: Any, tensors: dict[str, Tensor], where: str = "") -> Any:
    """JSON form of value: plain values, tuples, tensors, paths and dataclasses of this package.

    A dataclass is written by its name, which is unique in the package: files outlive modules.
    Tensors are put into `tensors` under the dotted name of the field that held them; complex ones
    as pairs of real numbers.
    Raises InvdiffError for anything else.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        if value.is_complex():
            tensors[where] = torch.view_as_real(value.resolve_conj()).contiguous()
            return {"complex": where}
        tensors[where] = value.contiguous()
        return {"tensor": where}
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, tuple | list):
        return [encode(v, tensors, f"{where}.{i}") for i, v in enumerate(value)]
    if isinstance(value, dict):
        return {"dict": {k: encode(v, tensors, f"{where}.{k}") for k, v in value.items()}}
    cls = type(value)
    known = cls.__module__.startswith("invdiff.") or REGISTERED.get(cls.__qualname__) is cls
    if dataclasses.is_dataclass(value) and known:
        fields = {
            f.name: encode(getattr(value, f.name), tensors, f"{where}.{f.name}".lstrip("."))
            for f in dataclasses.fields(value)
            if f.init
        }
        return {"type": cls.__qualname__, "fields": fields}
    raise InvdiffError(
        f"{cls.__qualname__} at {where or 'the top'} cannot be written to a file; "
        "use what invdiff provides, or `invdiff.register` the class, or save the samples alone."
    )


class UnknownClassError(InvdiffError):
    """A file names a class that is not here."""


def decode(form: Any, tensors: dict[str, Tensor]) -> Any:
    """The value of a JSON form made by encode. Raises InvdiffError when the form is not one."""
    try:
        return _decoded(form, tensors)
    except InvdiffError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise _unfit(form, error) from error
    except (RuntimeError, AssertionError) as error:  # of torch; and RecursionError
        if "memory" in str(error):
            raise
        raise _unfit(form, error) from error


def _unfit(form: Any, error: Exception) -> InvdiffError:
    kind = form.get("type", "value") if isinstance(form, dict) else "value"
    text = " ".join(str(error).split())[:120] or type(error).__name__
    return InvdiffError(
        f"The file holds no {str(kind)[:60]} as it was written ({text}); make it anew."
    )


def _decoded(form: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(form, list):
        return tuple(_decoded(v, tensors) for v in form)
    if not isinstance(form, dict):
        return form
    if "tensor" in form:
        return tensors[form["tensor"]]
    if "complex" in form:
        return torch.complex(*tensors[form["complex"]].unbind(-1))
    if "dict" in form:
        return {k: _decoded(v, tensors) for k, v in form["dict"].items()}
    if "path" in form:
        return Path(form["path"])
    cls = stored_class(str(form.get("type", "")))
    fields = UPGRADES.get(cls.__name__, {}) | renamed(cls, form["fields"])
    return cls(**{k: _decoded(v, tensors) for k, v in fields.items()})


def stored_class(kind: str) -> Any:
    """The dataclass of this package that a file names: `Name`, or `invdiff.module:Name` of old.

    It is looked for in the modules that were imported, then among the public names of invdiff; a
    file imports nothing else.
    """
    module, _, name = kind.rpartition(":")
    name = NAMES.get(name, name)
    if (":" in kind and not module.startswith("invdiff.")) or not name:
        module = module[:60] or "no type"
        raise InvdiffError(f"The file names {module}, which is not part of invdiff.")
    if ":" not in kind and name in REGISTERED:
        return REGISTERED[name]
    return _own(name)


@functools.cache
def _own(name: str) -> Any:
    """The dataclass of this package of that name; where none is found, it is looked for again."""
    loaded = sorted(at for at in tuple(sys.modules) if at.startswith("invdiff."))
    found = [vars(sys.modules[at]).get(name) for at in loaded]
    found.append(getattr(sys.modules.get("invdiff"), name, None))
    for cls in found:
        own = isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__name__ == name
        if own and cls.__module__.startswith("invdiff."):
            return cls
    raise UnknownClassError(
        f"This version of invdiff has no {name[:60]}; use the one that wrote the file, or give the "
        "--plugin that brought it."
    )
