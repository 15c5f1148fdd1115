"""What public nouns are given, as what they ask for: one sentence where it is something else.

The annotations of a class or function say what it asks for. Arrays are tensors, NumPy arrays or
nested lists of numbers; tuples may come as any sequence or array with one axis; numbers are finite,
but in fields whose metadata says `infinite`. Operators, noises, solvers, schedules and problems
admit what they are made of, and the functions that run them what they are called with.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import math
import numbers
import reprlib
import types
import typing
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from invdiff.core.errors import InvdiffError

P = ParamSpec("P")
T = TypeVar("T")
DTYPES = frozenset(
    getattr(torch, name)
    for name in ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16")
    + ("float32", "float64", "complex64", "complex128")
)
"""Numbers that torch can reckon with everywhere."""
KEPT = (np.float16, np.float32, np.complex64)
"""NumPy's types of numbers that are not widened."""

DONE = "_admitted"
"""In an object while its `__post_init__` runs, after its fields were looked at."""
LONGEST = 60
"""Characters of a wrong value that a message shows."""


def admit(given: Any) -> None:
    """Replace the fields of a frozen dataclass by what its annotations ask for.

    A default is taken as its author wrote it. Fields whose metadata says `infinite` may be so.
    Raises InvdiffError, naming the field, for a value that is nothing of that kind, and for numbers
    that are NaN or infinite.
    """
    if torch.compiler.is_compiling() or DONE in vars(given):  # a step gives what it was given
        return
    hints = _hints(given.__class__)
    for field in dataclasses.fields(given):
        value = getattr(given, field.name)
        if field.init and field.name in hints and value is not field.default:
            what = f"{type(given).__name__}: {field.name}"
            endless = bool(field.metadata.get("infinite"))
            admitted = admitted_as(hints[field.name], value, what, endless)
            if admitted is not value:
                object.__setattr__(given, field.name, admitted)


def admitting(cls: type) -> None:
    """Let `__post_init__` of a subclass find fields that are what they are annotated as.

    For `__init_subclass__` of a base whose own `__post_init__` admits.
    """
    own = cls.__dict__.get("__post_init__")
    if own is None:
        return

    @functools.wraps(own)
    def first(self: Any) -> None:
        if DONE in vars(self):  # called by the `__post_init__` of a subclass
            return own(self)
        error = None
        try:
            admit(self)
        except InvdiffError as found:
            error = found
        vars(self)[DONE] = True
        try:
            if error is not None:
                raise narrower(error, lambda: own(self)) from None
            own(self)
        finally:
            del vars(self)[DONE]

    cls.__post_init__ = first  # type: ignore[attr-defined]


def narrower(error: InvdiffError, check: Callable[[], None]) -> InvdiffError:
    """The sentence that a class's own check has for the same values, which says more; else error.

    That check was not written for values of any type, so whatever it meets is no answer.
    """
    try:
        check()
    except InvdiffError as found:
        return found if len(str(found)) < 5 * LONGEST and "\n" not in str(found) else error
    except Exception:
        pass
    return error


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which raises InvdiffError for arguments that are not what it is annotated for.

    Wrong names and wrong counts of arguments stay Python's TypeError.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        hints, bound = _hints(function), signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            plain = signature.parameters[name].kind is not inspect.Parameter.VAR_POSITIONAL
            if name in hints and plain:
                what = f"{function.__qualname__}: {name}"
                bound.arguments[name] = admitted_as(hints[name], value, what)
        return function(*bound.args, **bound.kwargs)

    return call


def admitted_as(hint: Any, value: Any, what: str, infinite: bool = False) -> Any:
    """value as the type `hint`; `what` names it in the InvdiffError that says what was found.

    infinite: numbers may be infinite, and arrays may hold NaN too.
    """
    kind, inside = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return value
    if kind in (typing.Union, types.UnionType):
        return _one_of(inside, value, what, infinite)
    if kind is typing.Literal:
        if not (isinstance(value, tuple(map(type, inside))) and value in inside):
            *first, last = map(str, inside)
            raise _refused(what, f"{', '.join(first)} or {last}" if first else last, value)
        return value
    if kind in (tuple, collections.abc.Sequence):
        return _tuple(inside, value, what)
    if kind is collections.abc.Mapping:
        if not isinstance(value, collections.abc.Mapping):
            raise _refused(what, "a mapping of names", value)
        return {key: admitted_as(inside[1], v, f"{what}[{key}]") for key, v in value.items()}
    if hint is Tensor:
        return _tensor(value, what, infinite)
    if hint in (int, float, bool):
        return _number(hint, value, what, infinite)
    expected = kind or hint
    if not isinstance(value, expected):
        raise _refused(what, _called(expected, value), value)
    return value


def _called(expected: type, value: Any) -> str:
    """A class in words, with what makes one of it where the class tells that (`made_by`)."""
    if expected is str:
        return "text"
    if expected.__name__ == "Callable":
        return "a function"
    name = expected.__name__
    article = "an" if name[0] in "AEIOU" else "a"
    if isinstance(value, type) and issubclass(value, expected):
        return f"{article} {name} and not the class; write {value.__name__}(...)"
    made_by = getattr(expected, "made_by", "")
    return f"{article} {name}" + (f" ({made_by} makes one)" if made_by else "")


@functools.cache
def _hints(of: Any) -> dict[str, Any]:
    """Name to type; none where the annotations of a user's own class cannot be read."""
    try:
        return typing.get_type_hints(of)
    except (NameError, TypeError, AttributeError):
        return {}


def _refused(what: str, expected: str, found: Any) -> InvdiffError:
    shown = " ".join(reprlib.repr(found).split())
    shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."
    if isinstance(found, Tensor | np.ndarray):
        shown = f"shape {tuple(found.shape)} of {found.dtype}"
    return InvdiffError(f"{what} must be {expected}, found {shown} ({type(found).__name__}).")


def _one_of(hints: tuple[Any, ...], value: Any, what: str, infinite: bool) -> Any:
    """value as the first of several types that takes it."""
    if value is None and type(None) in hints:
        return None
    rest = [hint for hint in hints if hint is not type(None)]
    for hint in rest[:-1]:
        try:
            return admitted_as(hint, value, what, infinite)
        except InvdiffError:
            continue
    plain = [h for h in rest if isinstance(h, type) and not issubclass(h, Tensor | int | float)]
    if len(plain) == len(rest) > 1 and not isinstance(value, tuple(plain)):
        raise _refused(what, " or ".join(_called(hint, value) for hint in plain), value)
    return admitted_as(rest[-1], value, what, infinite)


def _tuple(inside: tuple[Any, ...], value: Any, what: str) -> tuple[Any, ...]:
    dense = isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta
    if dense or isinstance(value, np.ndarray):
        value = value.tolist()
    listed = isinstance(value, collections.abc.Sequence) and not isinstance(value, str | bytes)
    if not listed:
        raise _refused(what, "a tuple or a list", value)
    if inside[-1] is Ellipsis or len(inside) == 1:
        inside = (inside[0],) * len(value)
    if len(value) != len(inside):
        raise _refused(what, f"a tuple of {len(inside)}", value)
    parts = tuple(admitted_as(inside[i], part, f"{what}[{i}]") for i, part in enumerate(value))
    same = isinstance(value, tuple) and all(a is b for a, b in zip(parts, value, strict=True))
    return value if same else parts


def _tensor(value: Any, what: str, infinite: bool) -> Tensor:
    expected = "an array of numbers (a tensor, a NumPy array or nested lists)"
    if not isinstance(value, Tensor):
        if not isinstance(value, np.ndarray | np.generic | list | tuple | numbers.Number):
            raise _refused(what, expected, value)
        try:
            array = np.array(value)
        except (ValueError, TypeError, OverflowError, RuntimeError):  # ragged, or tensors in lists
            raise _refused(what, expected, value) from None
        if array.dtype.kind not in "biufc":
            raise _refused(what, expected, value)
        if array.dtype.kind != "b" and array.dtype not in KEPT:
            wide = {"i": np.int64, "u": np.int64, "f": np.float64, "c": np.complex128}
            array = array.astype(wide[array.dtype.kind])
        value = torch.from_numpy(array)
    if value.layout is not torch.strided or value.dtype not in DTYPES:
        raise InvdiffError(
            f"{what} must be a dense tensor of plain numbers, found {value.dtype} in the layout "
            f"{value.layout}; convert it by to_dense() or to(torch.float32)."
        )
    if value.is_inference():  # no gradient could pass what was made of it
        with torch.inference_mode(False):
            value = value.clone()
    real = value.is_floating_point() or value.is_complex()
    looked_at = real and not infinite and not value.is_meta
    if looked_at and not bool(torch.isfinite(value.detach()).all()):
        raise InvdiffError(f"{what} holds NaN or infinite numbers; replace them.")
    return typing.cast(Tensor, value)


def _number(kind: type, value: Any, what: str, infinite: bool) -> Any:
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool | np.bool_):
        if kind is bool:
            return bool(value)
    elif kind is int and isinstance(value, numbers.Integral):
        if not -(2**63) <= int(value) < 2**63:
            raise _refused(what, "a whole number of at most 64 bits", value)
        return int(value)
    elif kind is float and isinstance(value, numbers.Real):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isnan(number) or (math.isinf(number) and not infinite):
            raise _refused(what, "a finite number", value)
        return number
    expected = {bool: "True or False", int: "a whole number", float: "a number"}[kind]
    raise _refused(what, expected, value)
