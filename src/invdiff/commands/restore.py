"""`invdiff restore`: the best picture, and samples of what a measured image may have been."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from invdiff import fields
from invdiff.cli import INTERRUPTED, OK
from invdiff.commands import asked
from invdiff.commands.common import (
    FileOptions,
    PriorOptions,
    RunOptions,
    say,
    terminations_as_interrupts,
)
from invdiff.commands.parser import Parser, add_knobs, wants_help
from invdiff.core import InvdiffError
from invdiff.core.folders import check_apart, check_folder
from invdiff.core.option import flag
from invdiff.plugins import flags, load_installed
from invdiff.restoration import checkpoint
from invdiff.restoration.job import Job, prepare, repeated
from invdiff.restoration.knobs import with_knobs
from invdiff.restoration.perform import perform
from invdiff.restoration.restored import MARKER, Restoration
from invdiff.sampling.run import Snapshot
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
        job, how, inputs = want.job(), want.how, want.inputs()
    check_folder(job.out, how.overwrite, MARKER)
    check_apart(job.out, *inputs)
    if how.resume:
        start: Snapshot | None = checkpoint.load_checkpoint(job)
    else:
        checkpoint.check_checkpoint(job.out, how.overwrite)
        checkpoint.remove_checkpoint(job.out)
        start = None
    say(job.lines)
    return _execute(job, start, command, how)


@dataclass(frozen=True)
class Wanted:
    """What a command line asks for."""

    task: Task
    file: Path
    how: RunOptions
    prior: PriorOptions
    knobs: Mapping[str, str]
    print_config: bool = False

    def job(self) -> Job:
        """The job. Raises InvdiffError for whatever does not fit."""
        how, knobs = self.how, self.knobs
        if how.solver == "auto" and knobs:
            name = next(iter(knobs))
            raise InvdiffError(
                f"--solver.{name} is a knob of a solver; name it too, with --solver NAME."
            )
        if how.solver != "auto":  # before anything is read
            with_knobs(solver_class(how.solver)(), knobs)

        def configure(solver: Solver) -> Solver:
            solver = with_knobs(solver, knobs) if knobs else solver
            return solver if how.steps is None else solver.with_steps(how.steps)

        return prepare(
            self.task,
            self.file,
            prior=self.prior.prior,
            prior_options=self.prior.told(),
            check_prior=not self.prior.no_check,
            precision=how.precision,
            solver=how.solver,
            configure=configure,
            samples=how.samples,
            seed=how.seed,
            batch=how.batch,
            want=how.want,
            device=how.device,
            out=how.out,
        )

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
    """The solver, with the one inside it that arguments name: its path has knobs of its own."""
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


def _execute(job: Job, start: Snapshot | None, command: list[str], how: RunOptions) -> int:
    """Run the job and write its results, or a checkpoint when interrupted."""
    last = start

    def remember(snapshot: Snapshot) -> None:
        nonlocal last
        last = snapshot

    try:
        with terminations_as_interrupts():
            done = perform(job, start, remember, how.quiet)
            done.save(job.out, how.overwrite)
    except KeyboardInterrupt:
        if last is None:
            raise
        checkpoint.save_checkpoint(last, job)
        resume = command if "--resume" in command else [*command, "--resume"]
        total = job.chunks * job.solver.num_steps
        print(
            f"invdiff: interrupted after {last.steps_done} of {total} steps; go on with: "
            f"{shlex.join(resume)}",
            file=sys.stderr,
        )
        return INTERRUPTED
    checkpoint.remove_checkpoint(job.out)
    say([("done", _cost(done)), *_written(done, job.out)])
    for warning in done.warnings:
        print(f"invdiff: warning: {warning}", file=sys.stderr)
    return OK


def _cost(done: Restoration) -> str:
    """What was spent, in words."""
    result, c = done.result, done.result.config
    each = f"{result.nfe} evaluations" + (f" and {result.vjps} gradients" if result.vjps else "")
    if result.estimate is None:
        return f"{result.seconds:.1f} s, {each} for each sample"
    if not done.drawn:
        return f"{result.seconds:.1f} s, {each}"
    first = f"{c['estimate_seconds']:.1f} s and {c['estimate_nfe']} evaluations for the estimate"
    return f"{first}; {result.seconds:.1f} s, {each} for each sample"


def _written(done: Restoration, out: Path) -> list[tuple[str, str]]:
    """(label, text) lines on what was written."""
    lines = [("check", done.agreement)] if done.agreement else []
    lines.append(("results", f"{out}: {', '.join(done.files)}"))
    if done.view.beside:
        lines.append(("", done.view.beside))
    one = done.drawn and done.want != "estimate" and done.result.samples.shape[1] == 1
    if one and done.view.spread:
        lines.append(("", "one sample shows no uncertainty; give --samples 2 or more"))
    return [
        *lines,
        ("again", shlex.join(["invdiff", "restore", "--from", str(out / MARKER), *flags()])),
    ]
