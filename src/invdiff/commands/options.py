"""Command-line options: from tasks and solvers to flags, and from bad flags to one sentence."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

import yaml  # type: ignore[import-untyped]

from invdiff.core import InvdiffError, nearest
from invdiff.solvers import registry, solver_class
from invdiff.solvers.base import Solver
from invdiff.tasks import TASKS, Task, check_level, check_options, task

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

Given = dict[str, Any]
Level = float | Literal["estimate"]
Noise = float | str
"""A noise level: a number, a fraction such as 25/255, or a word of `WORDS`."""
WORDS = ("estimate", "correlated")
"""What may stand for a noise level."""
WHOLE = ("scale", "quality", "slice", "rows", "views", "side", "coils", "join", "block")
REAL = (
    *("gain", "peak", "readout", "oversample", "photons", "accel", "pixel", "water", "source"),
    "ratio",
)
TYPES: dict[str, Any] = {
    **dict.fromkeys((*WHOLE, "pattern-seed"), int),
    **dict.fromkeys(REAL, float),
    "sigma": Noise,
    "center": Level,
}
"""Types of the tasks' options; all others are text."""
FILES = ("mask", "kernel", "masks", "coil_maps", "angles")
"""Options that may name a file, as the parser calls them."""
BOOLEANS: dict[str, Any] = {"true": True, "false": False}


def parser(command: str, usage: str, description: str) -> ArgumentParser:
    """An empty parser for a command; usage is what follows its name."""
    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    class Help(DefaultHelpFormatter):  # type: ignore[misc]
        """Help as it is written, in its paragraphs, without types and defaults appended."""

        def _fill_text(self, text: str, width: int, indent: str) -> str:
            fill = super()._fill_text
            return "\n\n".join(fill(part, width, indent) for part in text.split("\n\n"))

        def _get_help_string(self, action: Any) -> str:
            return str(action.help)

    return ArgumentParser(
        formatter_class=Help,
        prog=f"invdiff {command}",
        usage=f"invdiff {command} {usage}",
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
        default_meta=False,
    )


def add_task_options(to: ArgumentParser, making: bool = False) -> None:
    """--task, and the options of every task as `tasks` lists them; making: those of `degrade`."""
    to.add_argument("--task", type=str, help=f"what to undo: {', '.join(TASKS)}")
    told: dict[str, list[str]] = {}
    for kind in TASKS.values():
        for name in kind.takes(making)[0]:
            told.setdefault(name, []).append(f"{kind.name}: {kind.told(name, making)}")
    for name, texts in told.items():
        to.add_argument(f"--{name}", type=TYPES.get(name, str), help=". ".join(texts))


def task_options(given: Given, making: bool = False) -> tuple[str, dict[str, Any]]:
    """The task and its options, checked; `sigma` is not among them. making: those of `degrade`.

    Raises InvdiffError when there is no such task, or an option is missing or of another task.
    """
    if given.get("task") is None:
        raise InvdiffError(f"--task is missing; it is one of {', '.join(TASKS)}.")
    kind = task(given["task"])
    names = {name for t in TASKS.values() for name in t.takes(making)[0]}
    found = {k.replace("_", "-"): v for k, v in given.items()}
    options = check_options(kind, {k: v for k, v in found.items() if k in names}, making)
    if "sigma" in kind.options and "sigma" not in options:
        raise InvdiffError(f"{kind.name} needs --sigma: {kind.told('sigma', making)}.")
    options.pop("sigma", None)
    return kind.name, options


def noise_told(kind: Task, given: Given) -> Any:
    """What was told of the noise of a task, by --sigma or --noise; None for nothing.

    Raises InvdiffError for --noise where it has no place, and for what is no noise level.
    """
    flag = "sigma" if "sigma" in kind.options else "noise"
    if flag == "sigma" and "noise" in given:
        raise InvdiffError(f"{kind.name} takes its noise level from --sigma; leave --noise out.")
    told = noise_level(given[flag], flag) if flag in given else None
    check_level(kind, told)
    if told == "correlated" and not kind.stationary:
        able = ", ".join(t.name for t in TASKS.values() if t.stationary)
        raise InvdiffError(f"{kind.name} takes no correlated noise; these do: {able}.")
    return told


def noise_level(value: float | str, flag: str) -> float | str:
    """A number, the value of a fraction, or one of `WORDS`. Raises InvdiffError for others."""
    if not isinstance(value, str) or value in WORDS:
        return value
    top, slash, bottom = value.partition("/")
    try:
        return float(top) / float(bottom) if slash else float(value)
    except (ValueError, ZeroDivisionError):
        raise InvdiffError(
            f"--{flag} expects a number, as 0.1 or 25/255, or "
            f"{' or '.join(f'`{word}`' for word in WORDS)}, found {value}."
        ) from None


def files(given: Given) -> list[str]:
    """What may be the path of an input, among the options that were given."""
    return [given[k] for k in ("photo", *FILES) if isinstance(given.get(k), str)]


def add_knobs(to: ArgumentParser, solver: Solver) -> None:
    """--solver.KNOB for every field of a solver, and --solver.path.KNOB for its path.

    A field that holds another solver takes that solver's name.
    """
    group = to.add_argument_group(f"knobs of {solver.name} ({solver.paper})")
    for prefix, owner in (("solver", solver), ("solver.path", solver.path)):
        hints = get_type_hints(type(owner))
        for field in dataclasses.fields(owner):
            if field.name not in ("path", "steps"):
                text = field.metadata.get("help", f"of the {type(owner).__name__} path")
                span = f", {_range(field)}" if _range(field) else ""
                hint, default = hints[field.name], getattr(owner, field.name)
                if hint is Solver:
                    span = f": one of {', '.join(n for n in registry() if n != solver.name)}"
                    hint, default = str, default.name
                group.add_argument(
                    f"--{prefix}.{field.name}",
                    type=hint,
                    default=default,
                    help=f"{text}{span}; default {default}",
                )


def _range(field: dataclasses.Field[Any]) -> str:
    """The range of a knob in words; empty where there is none."""
    low, high = field.metadata.get("min"), field.metadata.get("max")
    if low is not None and high is not None:
        return f"from {low:g} to {high:g}"
    return f"{low:g} or more" if low is not None else "" if high is None else f"at most {high:g}"


def with_knobs(solver: Solver, knobs: Given) -> Solver:
    """The solver with knobs set, as parsed; `path` holds those of its path, `name` is skipped.

    Another solver inside this one is given by its name, has its paper's defaults and brings its
    path. Raises InvdiffError for a value out of its range, and a name of no solver.
    """
    own = {k: v for k, v in knobs.items() if k not in ("name", "path")}
    hints = get_type_hints(type(solver))
    inner = {k: solver_class(v)() for k, v in own.items() if hints[k] is Solver}
    path = next((s.path for s in inner.values()), solver.path)
    path, own = dataclasses.replace(path, **knobs.get("path", {})), own | inner
    return dataclasses.replace(solver, **own, path=path)


def add_prior_options(to: ArgumentParser) -> None:
    """--prior, and what a prior may have to be told."""
    from invdiff.priors.published.base import Options

    names = ", ".join(f.name for f in dataclasses.fields(Options))
    add = to.add_argument
    add("--prior", type=str, help="photo, brain for mri, ct for ct; or a file of weights, a "
        "folder with a diffusers model, or its OWNER/NAME on the Hugging Face hub; see "
        "`invdiff priors`")  # fmt: skip
    add("--label", type=int, help="class from 0, of a class-conditional prior")
    add("--prompt", type=str, help="what the picture shows, for a prior that reads text")
    add("--guidance", type=float, help="weight of classifier-free guidance towards --label or "
        "--prompt; 1 is the conditional prior")  # fmt: skip
    add("--prior-options", type=str, help="what the weights leave open, as NAME=VALUE,... with "
        f"{names}")  # fmt: skip
    add("--no-check", action="store_true", help="take a prior even if it fails to denoise a small "
        "picture")  # fmt: skip


def prior_options(given: Given) -> dict[str, Any]:
    """label, prompt, guidance and --prior-options, as load_prior takes them."""
    found: dict[str, Any] = {k: given[k] for k in ("label", "prompt", "guidance") if k in given}
    for part in filter(None, str(given.get("prior_options", "")).split(",")):
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise InvdiffError(f"--prior-options takes NAME=VALUE,..., found {part!r}.")
        found[name.strip()] = BOOLEANS.get(value.strip(), _number(value))
    return found


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


def normalised(args: list[str]) -> list[str]:
    """Arguments in which --solver NAME is --solver.name NAME, on the line and in --config files."""
    done: list[str] = []
    config = False
    for arg in args:
        if config or arg.startswith("--config="):
            text = _config(Path(arg.removeprefix("--config=")))
            done.append(text if config else f"--config={text}")
            config = False
        else:
            config = arg == "--config"
            if re.match(r"-[\d.]", arg) and done:  # argparse takes -1e3 and -90,90 for flags
                done[-1] += f"={arg}"
            else:
                done.append(re.sub(r"^--solver(?=$|=)", "--solver.name", arg))
    return done


def _config(path: Path) -> str:
    """A YAML file as one line of JSON."""
    if not path.is_file():
        raise InvdiffError(f"There is no file {path}; --config takes a YAML file.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvdiffError(f"{path} is not a YAML file.") from error
    if not isinstance(content, dict):
        raise InvdiffError(f"{path} holds no options; it is a YAML file of `name: value` lines.")
    if isinstance(content.get("solver"), str):
        content["solver"] = {"name": content["solver"]}
    return json.dumps(content, default=str)


def peek(args: list[str], name: str) -> str | None:
    """The value of option --name in normalised arguments, before they are parsed."""
    found = None
    for i, arg in enumerate(args):
        key, equals, value = arg.partition("=")
        value = value if equals else args[i + 1] if i + 1 < len(args) else ""
        if key == f"--{name}":
            found = value
        elif key == "--config" and found is None and value.startswith("{"):
            content = json.loads(value)
            for part in name.split("."):
                content = content.get(part) if isinstance(content, dict) else None
            found = content if isinstance(content, str) else None
    return found


def parse(source: ArgumentParser, args: list[str]) -> Given:
    """The options that were given, and no defaults. --help prints and exits.

    Raises InvdiffError, in one sentence, for what is not understood.
    """
    if {"-h", "--help"} & set(args):
        print(source.format_help().replace("--solver.name NAME", "--solver NAME     "))
        raise SystemExit(0)
    try:
        given: Given = source.parse_args(args, defaults=False).as_dict()
    except Exception as error:
        raise sentence(str(error), source) from error
    for action in source._get_positional_actions():  # argparse loses those of a config file
        given[action.dest] = given.get(action.dest) or peek(args, action.dest)
    return {k: v for k, v in given.items() if v is not None and k != "config"}


def sentence(text: str, source: argparse.ArgumentParser) -> InvdiffError:
    """What a parser says over several lines, in one sentence."""
    flags = sorted(source._option_string_actions)
    known = [k if k != "--solver.name" else "--solver" for k in flags if k != "--print_config"]
    unknown = re.search(r"[Uu]nrecognized arguments: (\S+)|Option '(\S+)' is not accepted", text)
    if unknown:
        name = unknown[1] or f"--{unknown[2]}"
        if not name.startswith("-"):
            return InvdiffError(f"There is one {name!r} too many; quote names that hold spaces.")
        name = name.partition("=")[0]
        if name.startswith("--solver.") and not any(k.startswith("--solver.") for k in known):
            return InvdiffError(f"{name} is a knob of a solver; name it too, with --solver NAME.")
        return nearest(name, known, "option")
    value = re.search(r'Parser key "([^"]+)"(?s:.*)(?:Got|Given) value: (.*)', text)
    if value:
        expected = _expected(value[1], source)
        return InvdiffError(f"--{value[1]} expects {expected}, found {value[2]}.")
    missing = re.search(r"argument (--\S+?): expected", text)
    if missing:
        return InvdiffError(f"{missing[1]} needs a value.".replace("--solver.name", "--solver"))
    return InvdiffError(" ".join(text.split()))


def _expected(key: str, source: argparse.ArgumentParser) -> str:
    """What an option takes, in words."""
    action = source._option_string_actions.get(f"--{key}")
    typehint = getattr(action, "_typehint", None) or getattr(action, "type", None)
    words: dict[Any, str] = {int: "a whole number", float: "a number", str: "text"}
    if typehint == Level:
        return "a number or `estimate`"
    choices = getattr(typehint, "__args__", ())
    return words.get(typehint, "one of " + ", ".join(map(str, choices)))
