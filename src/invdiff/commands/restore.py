"""`invdiff restore`: the best picture, and samples of what a measured image may have been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from invdiff import fields
from invdiff.cli import OK
from invdiff.commands import asked
from invdiff.commands.common import (
    FileOptions,
    PriorOptions,
    RunOptions,
    terminations_as_interrupts,
)
from invdiff.commands.execute import execute, execute_parts
from invdiff.commands.parser import Parser, add_knobs, wants_help
from invdiff.core import InvdiffError
from invdiff.core.folders import check_apart, check_folder
from invdiff.core.option import flag
from invdiff.plugins import flags, load_installed
from invdiff.restoration import checkpoint
from invdiff.restoration.job import Job, prepare
from invdiff.restoration.knobs import as_asked, with_knobs
from invdiff.restoration.repeat import repeated
from invdiff.restoration.restored import MARKER
from invdiff.sampling.solver import Solver
from invdiff.solvers import solver_class
from invdiff.tasks import TASKS, task_class
from invdiff.tasks.auto import configured
from invdiff.tasks.base import Task
from invdiff.tasks.values import Kernel, Mask, Numbers

ABOUT = """Restore an image from one measurement: its best estimate, and samples of what it may
have been, which show what is uncertain. Results appear in a folder when they are complete; Ctrl-C
leaves a checkpoint, from which --resume goes on."""
COMMON = (RunOptions, PriorOptions, FileOptions)


def run(name: str, args: list[str]) -> int:
    """Restore from one measurement; the exit code."""
    if wants_help(args):
        print(help_on(name, args))
        return OK
    command = ["invdiff", name, *args, *flags()]
    if any(a.partition("=")[0] == "--from" for a in args):
        job, how = _repeated(name, args)
        inputs: list[str] = []
    else:
        want = _wanted(name, args)
        if want.print_config:
            print(want.yaml(), end="")
            return OK
        parts = want.task.parts(want.file)
        if parts is not None:
            return execute_parts(want.job, parts, want.place, want.inputs(), command, want.how)
        job, how, inputs = want.job(), want.how, want.inputs()
    check_folder(job.out, how.overwrite, MARKER)
    check_apart(job.out, *inputs)
    with terminations_as_interrupts():
        kept = checkpoint.begin(
            job, how.checkpoint_every, how.checkpoint_steps, how.resume, how.overwrite
        )
        return execute(job, kept, command, how)


@dataclass(frozen=True)
class Wanted:
    """What a command line asks for."""

    task: Task
    file: Path
    how: RunOptions
    prior: PriorOptions
    knobs: Mapping[str, str]
    print_config: bool = False

    def job(self, task: Task | None = None, out: Path | None = None) -> Job:
        """The job, of another task than that asked for, as one of its parts. Raises InvdiffError
        for whatever does not fit."""
        how, knobs = self.how, self.knobs
        if how.solver == "auto" and knobs:
            name = next(iter(knobs))
            raise InvdiffError(
                f"--solver.{name} is a knob of a solver; name it too, with --solver NAME."
            )
        if how.solver != "auto":  # before anything is read
            own = {k: v for k, v in knobs.items() if not k.startswith("schedule.")}
            with_knobs(solver_class(how.solver)(), own)  # the schedule is that of the preset

        return prepare(
            self.task if task is None else task,
            self.file,
            prior=self.prior.prior,
            prior_options=self.prior.told(),
            check_prior=not self.prior.no_check,
            precision=how.precision,
            solver=how.solver,
            configure=lambda s: as_asked(s, knobs, how.steps),
            samples=how.samples,
            seed=how.seed,
            batch=how.batch,
            want=how.want,
            device=how.device,
            out=out or how.out,
        )

    @property
    def place(self) -> Path:
        """The folder of the results."""
        return self.how.out or Path(f"restored-{self.file.stem}")

    def inputs(self) -> list[str]:
        """Files that are read."""
        values = [getattr(self.task, name) for name in fields.options(type(self.task))]
        specs = [v.spec for v in values if isinstance(v, Kernel | Mask)]
        specs += [v.path for v in values if isinstance(v, Numbers)]
        return [str(self.file), *specs]

    def yaml(self) -> str:
        """All options, as a file for --config."""
        found: dict[str, Any] = {"task": self.task.name, "file": str(self.file)}
        for part in (self.task, self.how, self.prior):
            for name in fields.options(type(part)):
                value = getattr(part, name)
                plain = value is None or isinstance(value, bool | int | float)
                found[name] = value if plain else str(value)
        if self.knobs:
            found["solver"] = {"name": self.how.solver, **self.knobs}
        for name in ("overwrite", "resume"):
            found.pop(name)
        return str(yaml.safe_dump(found, sort_keys=False))


def _parser(name: str, task: str) -> Parser:
    cls = task_class(task)
    to = Parser(name, f"{task} FILE [options]", f"{cls.summary()}.")
    to.add(cls, f"options of {task}")
    to.add(RunOptions, "options of the run")
    to.add(PriorOptions, "the prior")
    to.add(FileOptions, "files of options")
    return to


def _wanted(name: str, args: Sequence[str]) -> Wanted:
    """What a command line, with its YAML file, asks for."""
    task, rest = asked.split(name, args)
    if task is None:  # a YAML file tells it
        bare = Parser(name, "--config FILE", ABOUT)
        for cls in COMMON:
            bare.add(cls, "")
        task = asked.with_config(bare, bare.read(rest), None, lambda t: (task_class(t), *COMMON))
    to = _parser(name, task)
    given = to.read(rest)
    asked.with_config(to, given, task, lambda t: (task_class(t), *COMMON))
    file = asked.one_file(given, name, task, "the damaged picture or other measurement")
    return Wanted(
        fields.build(task_class(task), to.of(task_class(task), given), task),
        file,
        fields.build(RunOptions, to.of(RunOptions, given), name),
        fields.build(PriorOptions, to.of(PriorOptions, given), name),
        given.knobs,
        bool(given.options.get("print_config", False)),
    )


def _repeated(name: str, args: Sequence[str]) -> tuple[Job, RunOptions]:
    """The job of an earlier run. Raises InvdiffError for options that have no place there."""
    load_installed()
    for old in ("--task", "--sigma"):
        if any(a.partition("=")[0] == old for a in args):
            raise InvdiffError(f"--from repeats a run exactly as it was; leave {old} out.")
    to = Parser(name, "--from RUN", ABOUT)
    to.add_argument("--from", dest="source", metavar="RUN")
    for cls in COMMON:
        to.add(cls, "")
    for task in TASKS.values():  # known, so that they are told to have no place
        missing = {n for n in fields.options(task) if flag(n) not in to.flags()}
        to.add(task, "", without=set(fields.options(task)) - missing)
    given = to.read(args)
    allowed = {"source", "out", "overwrite", "prior", "device", "quiet", "resume"}
    extra = ["FILE"] if given.words else []
    extra += [flag(n) for n in sorted(given.options) if n not in allowed]
    extra += [f"--solver.{n}" for n in given.knobs]
    if extra:
        raise InvdiffError(f"--from repeats a run exactly as it was; leave {extra[0]} out.")
    how = fields.build(RunOptions, to.of(RunOptions, given), name)
    device = how.device if "device" in given.options else None
    return repeated(given.options["source"], given.options.get("prior"), device, how.out), how


def help_on(name: str, args: Sequence[str]) -> str:
    """Help on the command, or on a task, with the knobs of a solver where one is named."""
    rest = [a for a in args if a not in ("-h", "--help")]
    load_installed()
    task = next((a for a in rest if a in TASKS), None)
    if task is None:
        solver = _named(Parser(name, "", ""), rest)
        if solver is None or solver == "auto":
            return overview(name)
        to = Parser(name, "TASK FILE --solver NAME [options]", solver_class(solver).paper)
        add_knobs(to, _with_base(solver_class(solver)(), rest))
        return to.format_help().rstrip()
    to = _parser(name, task)
    solver = _named(to, [a for a in rest if a != task])
    if solver is not None and solver != "auto":
        cls = task_class(task)
        add_knobs(to, _with_base(configured(cls, solver, cls.toy()), rest))
    text = to.format_help().rstrip()
    return f"{text}\n\n  invdiff {name} {task} {task_class(task).example}"


def _with_base(solver: Solver, rest: Sequence[str]) -> Solver:
    """The solver, with the one inside it that arguments name: its schedule has knobs of its own."""
    to = Parser("restore", "", "")
    for cls in (*TASKS.values(), *COMMON):
        missing = {n for n in fields.options(cls) if flag(n) not in to.flags()}
        to.add(cls, "", without=set(fields.options(cls)) - missing)
    base = to.read(rest).knobs.get("base")
    return with_knobs(solver, {"base": base}) if base else solver


def _named(to: Parser, rest: Sequence[str]) -> str | None:
    """The solver that arguments name."""
    if "--solver" not in to.flags():
        to.add(RunOptions, "")
    found = to.read(rest).options.get("solver")
    return None if found is None else str(found)


def overview(name: str) -> str:
    """The tasks, a line and an example each."""
    to = Parser(name, "TASK FILE [options]\n       invdiff restore --from RUN [options]", ABOUT)
    lines = [to.format_help().rstrip(), "", "tasks:"]
    for task, cls in TASKS.items():
        lines += [f"  {task:<20}{cls.summary()}", f"{'':<22}invdiff {name} {task} {cls.example}"]
    return "\n".join(
        [
            *lines,
            "",
            f"`invdiff {name} TASK --help` tells the options of a task, `invdiff degrade` makes",
            "measurements for trying, `invdiff tasks` tells what was measured of each task.",
        ]
    )
