"""From command lines and YAML files to options, and from wrong ones to one sentence.

argparse finds the flags and writes the help; `fields` turns what follows them into values.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

import yaml  # type: ignore[import-untyped]

from invdiff import fields
from invdiff.core import InvdiffError
from invdiff.core.option import flag, span
from invdiff.files.arrays import check_file
from invdiff.restoration.knobs import knob_types
from invdiff.sampling.solver import Solver
from invdiff.solvers import registry
from invdiff.tasks import TASKS
from invdiff.tasks.base import Simulation, Task

WIDTH, COLUMN = 100, 26
"""Characters of a line of help, and where the meaning of an option begins."""
NO_NUMBERS = ("-inf", "-nan")
"""What else begins as an option and is a value, if a wrong one."""
LONGEST, DEEPEST = 1_000_000, 20
"""Bytes of a YAML file of options at most, and its levels."""
BEFORE = {"sigma": "noise", "photo": "file"}
"""Entries of YAML files of before, and what they are called now."""
METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


class Help(argparse.HelpFormatter):
    """Help of one width everywhere, in its paragraphs."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=COLUMN, width=WIDTH)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        parts = text.split("\n\n")
        return "\n\n".join(p if p.startswith("  ") else fill(p, width, indent) for p in parts)


class Parser(argparse.ArgumentParser):
    """A parser whose options are those of dataclasses; its failures are InvdiffErrors."""

    def __init__(self, command: str, usage: str, about: str) -> None:
        super().__init__(
            prog=f"invdiff {command}",
            usage=f"invdiff {command} {usage}".rstrip(),
            description=about,
            formatter_class=Help,
            add_help=False,
            allow_abbrev=False,
            exit_on_error=False,
            argument_default=argparse.SUPPRESS,
        )
        self.owners: list[type] = []

    def add(self, cls: type, title: str, without: Iterable[str] = ()) -> None:
        """The options of a dataclass, under a title; those of `without` have a meaning of their
        own there."""
        group = self.add_argument_group(title)
        self.owners.append(cls)
        kinds = fields.hints(cls)
        for name, f in fields.options(cls).items():
            if name not in without:
                metavar = metavar_of(kinds[name], len(flag(name)))
                text = f.metadata["help"] + _choices(kinds[name], metavar, f) + _default(f)
                if kinds[name] is bool:
                    group.add_argument(flag(name), dest=name, action="store_true", help=text)
                else:
                    group.add_argument(flag(name), dest=name, metavar=metavar, help=text)

    def error(self, message: str) -> NoReturn:
        raise InvdiffError(f"{message}.")

    def flags(self) -> list[str]:
        """All options that there are."""
        return sorted(self._option_string_actions)

    def read(self, args: Sequence[str]) -> Given:
        """What was given, as text: options by name, knobs of a solver, other words, in order.

        Raises InvdiffError for an option that is not there, or lacks its value.
        """
        try:
            known, rest = self.parse_known_args(_joined(args))
        except argparse.ArgumentError as error:
            name, nargs = str(error.argument_name), None
            for action in self._actions:
                nargs = action.nargs if name in action.option_strings else nargs
            if nargs == 0:
                raise InvdiffError(f"{name} takes no value.") from None
            raise InvdiffError(f"{name} needs a value.") from None
        given = Given(dict(vars(known)))
        rest = [a for a in rest if a != "--"]
        while rest:
            word = rest.pop(0)
            if not word.startswith("-") or word == "-":
                given.words.append(word)
                continue
            name, equals, value = word.partition("=")
            if not name.startswith("--solver."):
                raise self._unknown(name)
            if not equals and not rest:
                raise InvdiffError(f"{name} needs a value.")
            given.knobs[_knob(name.removeprefix("--solver."))] = value if equals else rest.pop(0)
        return given

    def _unknown(self, name: str) -> InvdiffError:
        """The error for an option that is not there, or of another task."""
        field = name.removeprefix("--").replace("-", "_")
        here = next((cls for cls in self.owners if issubclass(cls, Task | Simulation)), None)
        if here is not None and any(field in fields.options(cls) for cls in TASKS.values()):
            takes = ", ".join(map(flag, fields.options(here))) or "no options"
            who = self.prog.removeprefix("invdiff ") if issubclass(here, Simulation) else here.name
            return InvdiffError(f"{name} does not belong to {who}, which takes {takes}.")
        return fields.unknown(name, self.flags())

    def of(self, cls: type, given: Given) -> dict[str, Any]:
        """The given options that belong to a dataclass."""
        return {k: v for k, v in given.options.items() if k in fields.options(cls)}


@dataclass
class Given:
    """What a command line gives: options and knobs by name, and words that are no options."""

    options: dict[str, Any]
    knobs: dict[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def merged(self, config: Mapping[str, Any], known: Iterable[str]) -> None:
        """Take what a YAML file gives, where the command line does not."""
        config = dict(config)
        solver = config.pop("solver", None)
        if isinstance(solver, Mapping):
            solver = dict(solver)
            named = solver.pop("name", None)
            for name, value in _flat(solver):
                self.knobs.setdefault(_knob(name), value)
            solver = named
        if solver is not None:
            self.options.setdefault("solver", solver)
        known = set(known)
        for key, value in config.items():
            name = str(key).replace("-", "_")
            if name in BEFORE:
                raise InvdiffError(f"`{name}:` of before is gone; write `{BEFORE[name]}:` now.")
            if name not in known:
                raise fields.unknown(flag(name), map(flag, sorted(known)))
            if value is not None:
                self.options.setdefault(name, value)


def _flat(knobs: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Nested knobs as NAME or schedule.NAME with their values."""
    found: list[tuple[str, str]] = []
    for key, value in knobs.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{before}{key}.")
        else:
            found.append((f"{before}{key}", str(value)))
    return found


def _knob(name: str) -> str:
    """A knob's name, also by the name that it had before: `path.NAME` stays for one release."""
    now = name.replace("path.", "schedule.", 1) if name.startswith("path.") else name
    return "schedule.betas" if now == "schedule.schedule" else now


def _joined(args: Sequence[str]) -> list[str]:
    """Options with - for _, and -90,90 and -1e3 joined to the option before them.

    argparse takes such numbers for flags.
    """
    done: list[str] = []
    for arg in args:
        if arg.startswith("--") and not arg.startswith("--solver."):
            name, equals, value = arg.partition("=")
            arg = f"{name.replace('_', '-')}{equals}{value}"
        number = arg[:1] == "-" and (arg[1:2] in tuple("0123456789.") or arg in NO_NUMBERS)
        if number and done and done[-1].startswith("--") and "=" not in done[-1]:
            done[-1] += f"={arg}"
        else:
            done.append(arg)
    return done


def metavar_of(kind: Any, beside: int) -> str:
    """What stands for the value of an option in help; beside: characters of the option."""
    if get_origin(kind) is Literal:
        text = "|".join(map(str, get_args(kind)))
        return text if len(text) + beside <= COLUMN - 5 else "NAME"
    return str(METAVARS.get(kind) or getattr(kind, "metavar", kind.__name__.upper()))


def _choices(kind: Any, metavar: str, f: dataclasses.Field[Any]) -> str:
    """The values of an option, in words, where nothing else names them."""
    values = list(map(str, get_args(kind))) if get_origin(kind) is Literal else []
    if metavar != "NAME" or all(v in f.metadata.get("help", "") for v in values):
        return ""
    return f": {', '.join(values[:-1])} or {values[-1]}"


def _default(f: dataclasses.Field[Any]) -> str:
    """The range and the default of an option, in words."""
    hint = span(f.metadata.get("min"), f.metadata.get("max"))
    said = f", {hint}" if hint and hint not in f.metadata["help"] else ""
    plain = f.default is None or isinstance(f.default, bool) or f.default == ""
    if f.default is dataclasses.MISSING:
        return f"{said} (needed)"
    return said if plain else f"{said}; {f.default} by default"


def wants_help(args: Sequence[str]) -> bool:
    """Whether help is asked for."""
    return bool({"-h", "--help"} & set(args))


def read_config(path: str) -> dict[str, Any]:
    """The options in a YAML file. Raises InvdiffError when it holds none."""
    file = Path(path)
    check_file(file)
    if file.stat().st_size > LONGEST:
        raise InvdiffError(f"{path} is longer than a file of options can be ({LONGEST} bytes).")
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Plain)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        if isinstance(error, InvdiffError):
            raise InvdiffError(f"{path} {error}") from None
        raise InvdiffError(f"{path} is not a YAML file of `name: value` lines.") from error
    if not isinstance(content, dict):
        raise InvdiffError(f"{path} holds no options; it is a YAML file of `name: value` lines.")
    return content


class _Plain(yaml.SafeLoader):  # type: ignore[misc]
    """YAML without aliases, of which a few lines can stand for more than memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise InvdiffError("refers to a part of itself (*NAME), which no options need.")
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > DEEPEST:
            raise InvdiffError(f"is nested more than {DEEPEST} levels deep, which no options are.")
        found = super().compose_node(parent, index)
        self.depth -= 1
        return found


def add_knobs(to: Parser, solver: Solver) -> None:
    """Help on --solver.KNOB for each field of a solver, --solver.schedule.KNOB for its schedule."""
    group = to.add_argument_group(f"knobs of {solver.name} ({solver.paper})")
    for name, kind in knob_types(solver).items():
        owner: Any = solver.schedule if name.startswith("schedule.") else solver
        f = next(f for f in dataclasses.fields(owner) if f.name == name.removeprefix("schedule."))
        text = f.metadata.get("help", f"of the {type(owner).__name__} schedule")
        hint, default = span(f.metadata.get("min"), f.metadata.get("max")), getattr(owner, f.name)
        metavar = "NAME" if kind is Solver else metavar_of(kind, len(name) + 9)
        text += _choices(kind, metavar, f)
        if kind is Solver:
            hint = f"one of {', '.join(n for n in registry() if n != solver.name)}"
            default = default.name
        group.add_argument(
            f"--solver.{name}",
            metavar=metavar,
            help=f"{text}{f', {hint}' if hint else ''}; {default} by default",
        )
