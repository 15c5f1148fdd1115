"""`invdiff degrade`: a measurement of a clean image, for trying and for benchmarks."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invdiff import __version__, fields
from invdiff.cli import OK
from invdiff.commands import asked
from invdiff.commands.common import say
from invdiff.commands.parser import Parser, wants_help
from invdiff.core.encode import encode
from invdiff.core.folders import check_apart, check_folder, listing, whole_folder
from invdiff.core.option import option
from invdiff.plugins import flags, load_installed
from invdiff.tasks import TASKS, simulation
from invdiff.tasks.base import Made, Simulation
from invdiff.tasks.clip_simulation import check_still
from invdiff.tasks.values import Kernel, Mask

MARKER = "degrade.json"
ABOUT = """Make a measurement of a clean image, as a task of `restore` undoes it. DIR receives the
measurement, the truth, what else restoring it takes (a mask, a kernel, coil maps), and degrade.json
with the command that restores it. For tasks of photographs these are measurement.png (what a user
would have), measurement.npy (the same without clipping and rounding) and truth.png. Of an animation
or a video all frames are damaged, each with its own noise, and of a TIFF all pages: DIR receives
two files of that kind, and the command restores and compares them; --frame takes one of them."""


@dataclass(frozen=True, kw_only=True)
class MakeOptions:
    """How a measurement is made."""

    out: Path = option("folder for the measurement")
    seed: int = option("of the noise and of what is random", 0)
    overwrite: bool = option("replace an earlier measurement", False)
    config: Path | None = option("YAML file with any of these options, and task and file", None)


def run(name: str, args: list[str]) -> int:
    """Degrade one image; the exit code."""
    if wants_help(args):
        print(help_on(name, args))
        return OK
    task, rest = asked.split(name, args)
    if task is None:
        bare = Parser(name, "--config FILE", ABOUT)
        bare.add(MakeOptions, "")
        task = asked.with_config(bare, bare.read(rest), None, _known)
    to = _parser(name, task)
    given = to.read(rest)
    asked.with_config(to, given, task, _known)
    file = asked.one_file(given, name, task, "a clean picture")
    cls = simulation(task)
    making: Any = fields.build(cls, to.of(cls, given), f"degrade {task}")
    how = fields.build(MakeOptions, to.of(MakeOptions, given), f"degrade {task}")
    out = how.out
    check_folder(out, how.overwrite, MARKER)
    values = [getattr(making, f) for f in fields.options(cls)]
    check_apart(out, str(file), *(v.spec for v in values if isinstance(v, Kernel | Mask)))
    if isinstance(making, Simulation):
        check_still(task, file)
    made = making.make(file, out, how.seed)
    command = _restores(made, out)
    about = {"invdiff": __version__, "task": task, "options": encode(making, {})}
    about |= {"seed": how.seed, "photo": str(file), "restore": shlex.join(command)}
    with whole_folder(out, how.overwrite, MARKER) as folder:
        made.write(folder)
        names = listing(folder)
        about |= {"files": sorted([*names, MARKER])}
        (folder / MARKER).write_text(json.dumps(about, indent=1) + "\n")
    say([("photo", f"{file} ({made.about})")])
    say([("", note) for note in made.notes])
    say([("damaged", f"{task}, {made.told}")])
    say([("results", f"{out}: {', '.join(names)}"), ("restore", shlex.join(command))])
    return OK


def _restores(made: Made, out: Path) -> list[str]:
    """The command that restores a measurement in the folder out, and compares a moving picture."""
    how = "batch" if made.truth else "restore"
    command = ["invdiff", how, made.task.name, str(out / made.measurement)]
    command += [part for pair in fields.changed(made.task).items() for part in pair]
    if made.truth:
        command += ["--truth", str(out / made.truth), "--out", f"{out}-restored"]
    return command + flags()


def _known(task: str) -> tuple[type, ...]:
    return simulation(task), MakeOptions


def _parser(name: str, task: str) -> Parser:
    cls = simulation(task)
    about = (cls.__doc__ or "").partition("\n")[0]
    to = Parser(name, f"{task} PHOTO --out DIR [options]", f"For trying `restore {task}`: {about}")
    to.add(cls, f"options of {task}")
    to.add(MakeOptions, "options of the measurement")
    return to


def help_on(name: str, args: Sequence[str]) -> str:
    """Help on the command, or on a task."""
    load_installed()
    task = next((a for a in args if a in TASKS), None)
    if task is not None:
        return _parser(name, task).format_help().rstrip()
    lines = [Parser(name, "TASK PHOTO --out DIR [options]", ABOUT).format_help().rstrip(), ""]
    able = [t for t, cls in TASKS.items() if cls.simulation() is not None]
    lines += ["tasks:", *(f"  {t:<20}{TASKS[t].summary()}" for t in able), ""]
    return "\n".join([*lines, f"`invdiff {name} TASK --help` tells the options of a task."])
