"""Dataclass fields as arguments: of the command line, of YAML files, and of calls in Python.

Types of fields are bool, int, float, str, Path, a Literal, a value class, or one of these or None.
A value class has `parse(text)`, `__str__`, and may have `of(value)` for other Python values; its
InvdiffError is the sentence that users read. `None` is the only value that means "not told".
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from invdiff.core import InvdiffError, nearest
from invdiff.core.option import flag

T = TypeVar("T")
PLAIN = (bool, int, float, str, Path)
SCALE = {int: "a whole number", float: "a number", bool: "true or false"}
LARGE = 2.0**63
"""Numbers from here on are no sizes, counts or levels of anything."""


def options(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """The fields of a dataclass that users set, by name: those with help, what is needed first."""
    found = [f for f in dataclasses.fields(cls) if f.init and "help" in f.metadata]
    own = set(cls.__dict__.get("__annotations__", ()))
    found.sort(key=lambda f: (f.default is not dataclasses.MISSING, f.name not in own))
    return {f.name: f for f in found}


def hints(cls: type) -> dict[str, Any]:
    """Name of a field to its type, without `| None`, and no other union."""
    found = typing.get_type_hints(cls)
    return {name: kind(found[name]) for name in options(cls)}


def kind(hint: Any) -> Any:
    """A type without `| None`. Raises TypeError for another union."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    left = [h for h in get_args(hint) if h is not type(None)]
    if len(left) != 1:
        raise TypeError(f"{hint} is a union of several types; write a value class.")
    return left[0]


def convert(hint: Any, value: Any, name: str) -> Any:
    """A value, or its text, as a field of that type. Raises InvdiffError where it is none."""
    hint = kind(hint)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # of numpy or torch
        value = value.item()
    if get_origin(hint) is Literal:
        return _one_of(get_args(hint), value, name)
    if hint in PLAIN:
        return _plain(hint, value, name)
    if isinstance(value, hint):
        return value
    if isinstance(value, str | Path):
        if not str(value).strip():
            raise InvdiffError(f"{flag(name)} needs a value, found {str(value)!r}.")
        return hint.parse(str(value))
    if isinstance(value, bool | Mapping) or not hasattr(hint, "of"):
        raise InvdiffError(f"{flag(name)} is a {hint.__name__}, found {seen(value)}.")
    try:
        return hint.of(value)
    except InvdiffError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvdiffError(
            f"{flag(name)} cannot be made of {seen(value)}; give {hint.metavar} as the command "
            "line has it, or an array."
        ) from error


def seen(value: Any) -> str:
    """A value in a sentence: in quotes where it is blank, and short."""
    text = " ".join(str(value).split())
    if not isinstance(value, str):
        return f"{type(value).__name__} {text[:40]}{'...' * (len(text) > 40)}"
    return repr(value) if not text or text != value else text


def _one_of(choices: tuple[Any, ...], value: Any, name: str) -> Any:
    for choice in choices:
        if str(choice) == str(value):
            return choice
    *first, last = names = list(map(str, choices))
    close = difflib.get_close_matches(str(value).lower(), names, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]}?" if close else "."
    listed = f"{', '.join(first)} or {last}" if first else last
    raise InvdiffError(f"{flag(name)} is {listed}, found {seen(value)}{hint}")


def _plain(hint: Any, value: Any, name: str) -> Any:
    shown = value if isinstance(value, bool | int | float) else seen(value)
    wrong = InvdiffError(f"{flag(name)} expects {SCALE.get(hint, 'text')}, found {shown}.")
    if hint is bool:
        found = {"true": True, "false": False}.get(str(value).lower())
        if found is None:
            raise wrong
        return found
    if isinstance(value, bool):
        raise wrong
    if hint in (str, Path):
        if not isinstance(value, str | Path | int | float):
            raise wrong
        if hint is Path and not str(value).strip():
            raise InvdiffError(f"{flag(name)} needs a value, found {str(value)!r}.")
        return hint(str(value))
    try:
        number = hint(value)
    except (TypeError, ValueError, OverflowError):
        raise wrong from None
    if abs(number) >= LARGE and not name.startswith("solver."):  # a knob may be infinite
        raise InvdiffError(f"{flag(name)} is too large a number, found {shown}.")
    if number != number or (hint is int and not isinstance(value, str) and number != value):
        raise wrong
    return number


def build(cls: type[T], given: Mapping[str, Any], who: str) -> T:
    """An object of a dataclass from options by name, as text or as values, with _ or with -.

    who: what takes the options, in messages. Options of None are left out. Raises InvdiffError for
    an option that it has not, one that is missing, and a value that does not fit.
    """
    known, kinds, values = options(cls), hints(cls), {}
    for key, value in given.items():
        name = key.replace("-", "_")
        if name not in known:
            takes = ", ".join(map(flag, known)) or "no options"
            raise InvdiffError(f"{flag(name)} does not belong to {who}, which takes {takes}.")
        if value is not None:
            values[name] = convert(kinds[name], value, name)
    for name, field in known.items():
        if name not in values and field.default is dataclasses.MISSING:
            raise InvdiffError(f"{who} needs {flag(name)}: {field.metadata['help']}.")
    return cls(**values)


def changed(value: Any) -> dict[str, str]:
    """The options of a dataclass that differ from their defaults, as the command line has them."""
    found = {}
    for name, field in options(type(value)).items():
        here = getattr(value, name)
        if here is not None and here != field.default:
            found[flag(name)] = str(here)
    return found


def unknown(name: str, known: typing.Iterable[str]) -> InvdiffError:
    """The error for an option that is not there."""
    return nearest(name, known, "option")
