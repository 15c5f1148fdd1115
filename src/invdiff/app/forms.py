"""Forms of tasks and solvers, made from their fields: a new one appears without a line here."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from invdiff import fields
from invdiff.core import InvdiffError
from invdiff.core.option import flag, span
from invdiff.restoration.knobs import knob_types
from invdiff.sampling.needs import why_not
from invdiff.sampling.solver import Solver
from invdiff.solvers import registry, solver_class
from invdiff.tasks import task_class
from invdiff.tasks.auto import configured
from invdiff.tasks.base import Task
from invdiff.tasks.values import Mask

UNSAID = ""
"""The choice that tells nothing."""


@dataclass(frozen=True)
class Entry:
    """One field of a form. kind: its type. needed: whether it has no default. files: whether a
    file may be uploaded for it; painted: whether it may be painted."""

    name: str
    kind: Any
    help: str
    default: Any
    needed: bool

    @property
    def label(self) -> str:
        """Its name, as people read it."""
        return self.name.replace("_", " ").replace(".", " ") + (" (needed)" if self.needed else "")

    @property
    def files(self) -> bool:
        return self.kind is Path or bool(getattr(self.kind, "from_file", False))

    @property
    def counted(self) -> bool:
        """Whether it always has a whole number: a field of numbers cannot be left empty."""
        return self.kind is int and self.default is not None

    @property
    def painted(self) -> bool:
        return self.kind is Mask


def entries(cls: type) -> list[Entry]:
    """The options of a dataclass."""
    kinds, found = fields.hints(cls), []
    for name, f in fields.options(cls).items():
        needed = f.default is dataclasses.MISSING
        hint = span(f.metadata.get("min"), f.metadata.get("max"))
        text = f.metadata["help"] + (f"; {hint}" if hint and hint not in f.metadata["help"] else "")
        found.append(Entry(name, kinds[name], text, None if needed else f.default, needed))
    return found


def knobs(task: str, solver: str) -> list[Entry]:
    """The knobs of a solver, with the values of its preset for a task."""
    cls = task_class(task)
    made = configured(cls, solver, cls.toy())
    found = []
    for name, kind in knob_types(made).items():
        owner: Any = made.schedule if name.startswith("schedule.") else made
        f = next(f for f in dataclasses.fields(owner) if f.name == name.removeprefix("schedule."))
        text = str(f.metadata.get("help", f"of the {type(owner).__name__} schedule"))
        hint, default = span(f.metadata.get("min"), f.metadata.get("max")), getattr(owner, f.name)
        if kind is Solver:
            kind, default = Literal[tuple(n for n in registry() if n != solver)], default.name
        found.append(Entry(name, kind, f"{text}; {hint}" if hint else text, default, False))
    return found


def component(entry: Entry, where: str) -> Any:
    """What a visitor fills in for an entry, without its file. where: prefix of the element's id."""
    import gradio as gr

    told: dict[str, Any] = {
        "label": entry.label, "info": entry.help, "interactive": True,
        "elem_id": f"{where}-{entry.name.replace('.', '-')}",
    }  # fmt: skip
    if entry.kind is bool:
        return gr.Checkbox(value=bool(entry.default), **told)
    if get_origin(entry.kind) is Literal:
        choices = [(str(c), str(c)) for c in get_args(entry.kind)]
        if entry.default is None:
            choices.insert(0, ("not told", UNSAID))
        value = UNSAID if entry.default is None else str(entry.default)
        return gr.Dropdown(choices, value=value, **told)
    if entry.counted:
        return gr.Number(value=entry.default, precision=0, **told)
    value = "" if entry.default is None else str(entry.default)
    return gr.Textbox(value=value, placeholder=_metavar(entry.kind), max_lines=1, **told)


def _metavar(kind: Any) -> str:
    named = {int: "a whole number", float: "a number", str: "text"}
    return named.get(kind) or str(getattr(kind, "metavar", ""))


def file_component(entry: Entry, where: str) -> Any:
    """Where the file of an entry is dropped."""
    import gradio as gr

    return gr.File(
        label=f"a file for {entry.label}", height=130, elem_id=f"{where}-{entry.name}-file",
        elem_classes="iv-dropped",
    )  # fmt: skip


def seen(entry: Entry, text: str | None) -> Any:
    """What the component of an entry holds for a text; the default for None."""
    typed = entry.kind is bool or entry.counted
    if text is None and typed:
        return entry.default
    if text is None:
        return "" if entry.default is None else str(entry.default)
    return fields.convert(entry.kind, text, entry.name) if typed else text


def changed(entry: Entry, value: Any) -> str | None:
    """What a visitor filled in, as the command line has it; None where it is the default."""
    if entry.kind is bool:
        return None if bool(value) == bool(entry.default) else str(bool(value)).lower()
    text = "" if value is None else str(value).strip()
    if text in ("", "" if entry.default is None else str(entry.default)):
        return None
    return text


def without_paths(entry: Entry, text: str) -> str:
    """The text of an entry. Raises InvdiffError where it names a file: only uploads are read."""
    file = entry.files and (
        re.search(r"[/\\]|\.[A-Za-z]\w*$|^~", text) is not None or Path(text).exists()
    )
    if file or entry.kind is Path:
        raise InvdiffError(f"The page reads no path; upload the file for {flag(entry.name)}.")
    return text


def told(cls: type[Task], values: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, str]:
    """The options that a form tells. files: uploads by the entry that they are for."""
    found = {}
    for entry in entries(cls):
        if entry.name in files:
            found[entry.name] = files[entry.name]
            continue
        text = changed(entry, values.get(entry.name))
        if text is not None:
            found[entry.name] = without_paths(entry, text)
    return found


def check_known(cls: type, names: Sequence[str], who: str) -> None:
    """Raise InvdiffError for the name of an option that there is not."""
    known = fields.options(cls)
    for name in names:
        if name not in known:
            raise fields.unknown(flag(name), map(flag, known))


def solvers_for(task: str) -> list[str]:
    """auto, and the solvers that can do a task."""
    cls, able = task_class(task), ["auto"]
    for name, kind in registry().items():
        toys = (cls.toy(0.05), cls.toy(0.0))
        if not kind.ignores_y and any(not why_not(solver_class(name)(), toy) for toy in toys):
            able.append(name)
    return able
