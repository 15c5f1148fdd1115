"""What a JSON form of `encode` must look like: by the annotations of the class that it names.

Nothing is made of a form here, so that a file can be refused whole before anything happens.
"""

from __future__ import annotations

import dataclasses
import functools
import reprlib
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from torch import Tensor

from invdiff.core.encode import UPGRADES, renamed, stored_class
from invdiff.core.errors import InvdiffError

DEEPEST = 60
"""Levels of lists and classes within each other."""
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def check_form(
    form: Any, hint: Any, where: str, tensors: Collection[str], nan: bool = False, deep: int = 0
) -> None:
    """Raise InvdiffError, naming the field, unless a form is one of a value of the type `hint`.

    tensors: names of those that a form may refer to. nan: whether numbers may be NaN.
    Raises UnknownClassError for a class that is not here.
    """
    told = (tensors, nan, deep + 1)
    kind, inside = typing.get_origin(hint), typing.get_args(hint)
    if deep > DEEPEST:
        raise InvdiffError(f"{where.split('.')[0]} holds more than {DEEPEST} levels.")
    if isinstance(hint, TypeVar) or hint in (Any, object, typing.Callable):
        _check_any(form, where, told)
    elif kind in (Union, types.UnionType):
        _check_union(form, inside, where, told)
    elif hint in (None, type(None)):
        _expect(form is None, where, "null", form)
    elif kind is Literal:
        same = any(type(form) is type(choice) and form == choice for choice in inside)
        _expect(same, where, " or ".join(map(str, inside)), form)
    elif hint in WORDS:
        _check_plain(form, hint, where, nan)
    elif (kind or hint) in (tuple, list, Sequence):
        _check_list(form, inside, where, told)
    elif (kind or hint) in (dict, Mapping):
        _check_dict(form, inside[1] if len(inside) == 2 else Any, where, told)
    elif hint is Path:
        _expect(_is(form, "path") and isinstance(form["path"], str), where, "a path", form)
    elif hint is Tensor:
        _check_tensor(form, where, tensors)
    elif isinstance(hint, type):
        _check_object(form, hint, where, told)
    else:
        _check_any(form, where, told)


def shown(form: Any) -> str:
    """A wrong value in a sentence."""
    text = " ".join(reprlib.repr(form).split())
    return f"{text[:60]}{'...' * (len(text) > 60)} ({type(form).__name__})"


def _expect(fits: bool, where: str, what: str, form: Any) -> None:
    if not fits:
        raise InvdiffError(f"{where} must be {what}, found {shown(form)}.")


def _is(form: Any, *keys: str) -> bool:
    return isinstance(form, dict) and set(form) == set(keys)


def _check_plain(form: Any, hint: type, where: str, nan: bool) -> None:
    number = isinstance(form, int | float) and not isinstance(form, bool)
    fits = {
        bool: isinstance(form, bool),
        str: isinstance(form, str),
        int: isinstance(form, int) and number and abs(form) < 2**63,
        float: number and (isinstance(form, float) or abs(form) < 2**63),
    }[hint]
    _expect(fits, where, WORDS[hint], form)
    _expect(nan or form == form, where, WORDS[hint], form)


def _check_union(form: Any, hints: tuple[Any, ...], where: str, told: Any) -> None:
    if form is None and type(None) in hints:
        return
    left = [hint for hint in hints if hint is not type(None)]
    for hint in left[:-1]:
        try:
            return check_form(form, hint, where, *told)
        except InvdiffError:
            continue
    check_form(form, left[-1], where, *told)


def _check_list(form: Any, inside: tuple[Any, ...], where: str, told: Any) -> None:
    _expect(isinstance(form, list), where, "a list", form)
    many = len(inside) < 2 or inside[-1] is Ellipsis
    if not many:
        _expect(len(form) == len(inside), where, f"a list of {len(inside)}", form)
    for i, part in enumerate(form):
        hint = (inside[0] if inside else Any) if many else inside[i]
        check_form(part, hint, f"{where}[{i}]", *told)


def _check_dict(form: Any, hint: Any, where: str, told: Any) -> None:
    _expect(_is(form, "dict") and isinstance(form["dict"], dict), where, "a mapping", form)
    for key, part in form["dict"].items():
        check_form(part, hint, f"{where}.{key}", *told)


def _check_tensor(form: Any, where: str, tensors: Collection[str]) -> None:
    name = form.get("tensor", form.get("complex")) if isinstance(form, dict) else None
    fits = (_is(form, "tensor") or _is(form, "complex")) and isinstance(name, str)
    _expect(fits, where, "a tensor", form)
    if name not in tensors:
        raise InvdiffError(f"{where} names a tensor {name!r}, which is not beside it.")


def _check_any(form: Any, where: str, told: Any) -> None:
    """Of a type that is not told: any form."""
    if isinstance(form, list):
        return _check_list(form, (Any, ...), where, told)
    if isinstance(form, float) or not isinstance(form, dict):
        return _expect(told[1] or form == form, where, "a number", form)
    if "tensor" in form or "complex" in form:
        return _check_tensor(form, where, told[0])
    if "dict" in form:
        return _check_dict(form, Any, where, told)
    if "path" in form:
        return check_form(form, Path, where, *told)
    return _check_object(form, object, where, told)


def _check_object(form: Any, hint: type, where: str, told: Any) -> None:
    """The form of a dataclass, of a class that is a `hint`."""
    fits = _is(form, "type", "fields") and isinstance(form["type"], str)
    article = "a class" if hint is object else f"a form of {hint.__name__}"
    _expect(fits and isinstance(form["fields"], dict), where, article, form)
    cls = stored_class(form["type"])
    if not issubclass(cls, hint):
        raise InvdiffError(f"{where} must be {article}, found one of {cls.__name__}.")
    given = renamed(cls, form["fields"])
    known = {f.name: f for f in dataclasses.fields(cls) if f.init}
    extra = next((name for name in given if name not in known), None)
    if extra is not None:
        raise InvdiffError(f"{where}.{extra} is no field of {cls.__name__}.")
    hints = _hints(cls)
    for name, field in known.items():
        if name in given:
            check_form(given[name], hints.get(name, Any), f"{where}.{name}", *told)
        elif _needed(field) and name not in UPGRADES.get(cls.__name__, {}):
            raise InvdiffError(f"{where}.{name} is missing.")


def _needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """Name to type; none where annotations cannot be read."""
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError, AttributeError):
        return {}
