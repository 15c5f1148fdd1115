"""`invdiff restore`: samples of what a measured image may have looked like."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from invdiff import zoo
from invdiff.cli import INTERRUPTED, OK
from invdiff.commands import options
from invdiff.commands.options import Given
from invdiff.core import InvdiffError
from invdiff.restoration import checkpoint
from invdiff.restoration.job import Job, prepare, repeated
from invdiff.restoration.perform import perform
from invdiff.restoration.restored import MARKER, Restoration
from invdiff.run import Snapshot
from invdiff.serial import check_apart, check_folder
from invdiff.solvers import registry, solver_class
from invdiff.solvers.base import Solver

USAGE = "FILE --task TASK [options] | invdiff restore --from RUN.json"
ABOUT = """Restore an image from a measurement: draw samples of what it may have been.

FILE is a photo for most tasks: any picture that Pillow reads, or a .npy array (height, width) or
(height, width, 3) on [0, 1]. Size, orientation and transparency are kept. For jpeg it is the JPEG
file itself, for mri k-space, for ct a sinogram, for phase-retrieval magnitudes (.npy), for
compressed-sensing coefficients (.npz, .npy); `invdiff tasks` tells what each must be told.
`invdiff degrade` makes a measurement of any of these kinds.

A mask of inpaint is WHITE where pixels are to be restored and black where they are kept. Noise
levels are on the scale where black is 0 and white is 1, for mri and ct in the units of the data,
and for compressed-sensing those of a coefficient, or reading, of a picture on that scale. Results
appear in a folder when they are complete; Ctrl-C leaves a checkpoint."""


def run(name: str, args: list[str]) -> int:
    """Restore from one measurement; the exit code."""
    command = ["invdiff", name, *args]
    args = options.normalised(args)
    given = _parse(name, args)
    job = _repeated(given) if "from" in given else fresh(given)
    overwrite, resume = given.get("overwrite", False), given.get("resume", False)
    check_folder(job.out, overwrite, MARKER)
    check_apart(job.out, *options.files(given))
    if resume:
        start = checkpoint.load_checkpoint(job)
    else:
        checkpoint.check_checkpoint(job.out, overwrite)
        checkpoint.remove_checkpoint(job.out)
        start = None
    say(job.lines)
    return _execute(job, start, command, given)


def fresh(given: Given) -> Job:
    """The job that options ask for. Raises InvdiffError for whatever does not fit."""
    if "photo" not in given:
        raise InvdiffError("FILE is missing; give the photo, or other measurement, to restore.")
    name, values = options.task_options(given)
    noise = options.noise_told(zoo.task(name), given)
    knobs = given.get("solver", {})
    asked = knobs.get("name", "auto")
    if asked != "auto":  # before anything is read
        options.with_knobs(solver_class(asked)(), knobs)

    def configure(solver: Solver) -> Solver:
        solver = options.with_knobs(solver, knobs)
        return solver.with_steps(given["steps"]) if "steps" in given else solver

    same = ("prior", "precision", "samples", "seed", "batch", "want", "device")
    told = {key: given[key] for key in same if key in given}
    out = Path(given["out"]) if "out" in given else None
    return prepare(
        name,
        given["photo"],
        values,
        noise=noise,
        prior_options=options.prior_options(given),
        check_prior="no_check" not in given,
        solver=asked,
        configure=configure,
        out=out,
        **told,
    )


def _repeated(given: Given) -> Job:
    """The job of an earlier run. Raises InvdiffError for options that have no place there."""
    allowed = {"from", "out", "overwrite", "prior", "device", "quiet", "resume"}
    extra = sorted(set(given) - allowed)
    if extra:
        name = "FILE" if extra[0] == "photo" else f"--{extra[0]}"
        raise InvdiffError(f"--from repeats a run exactly as it was; leave {name} out.")
    out = Path(given["out"]) if "out" in given else None
    return repeated(given["from"], given.get("prior"), given.get("device"), out)


def say(lines: Any) -> None:
    """Print (label, text) lines, aligned."""
    for label, text in lines:
        print(f"{label:<9}{text}", flush=True)


def _execute(job: Job, start: Snapshot | None, command: list[str], given: Given) -> int:
    """Run the job and write its results, or a checkpoint when interrupted."""
    last = start

    def remember(snapshot: Snapshot) -> None:
        nonlocal last
        last = snapshot

    try:
        with terminations_as_interrupts():
            done = perform(job, start, remember, given.get("quiet", False))
            done.save(job.out, given.get("overwrite", False))
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
    return [*lines, ("again", f"invdiff restore --from {out / MARKER}")]


@contextlib.contextmanager
def terminations_as_interrupts() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as SIGINT does; only the main thread can arrange it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _shown_solver(args: list[str]) -> Solver | None:
    """The solver that the arguments name, as configured for their task."""
    name, task = options.peek(args, "solver.name"), options.peek(args, "task")
    if name is None or name == "auto":
        return None
    solver = zoo.preset(task or "", name, zoo.TYPICAL)
    base = options.peek(args, "solver.base")  # its path has knobs of its own
    known = {f.name for f in dataclasses.fields(solver)}
    return options.with_knobs(solver, {"base": base} if base and "base" in known else {})


def _parse(name: str, args: list[str]) -> Given:
    to, solver = options.parser(name, USAGE, ABOUT), _shown_solver(args)
    to.add_argument(
        "photo", nargs="?", type=str, help="FILE: the damaged picture, or another measurement"
    )
    options.add_task_options(to)
    known = ", ".join(registry())
    add = to.add_argument
    add("--noise", type=options.Noise, help="noise level on [0, 1], as 0.1 or 25/255, or "
        "`estimate`, or `correlated`; without it, "
        "what the file tells: its rounding, its flattest parts, its JPEG tables; see "
        "docs/noise.md. Of mri per real part of k-space, of ct that of "
        "line integrals; both are estimated without it")  # fmt: skip
    add("--solver.name", type=str, help=f"auto, or one of {known}; its knobs are set by "
        "--solver.KNOB, and told by `--solver NAME --help`")  # fmt: skip
    add("--steps", type=int, help="steps from noise to image; the solver's own number without it")
    want = "estimate: one best picture, at less cost; samples: draws that show what is "
    add("--want", type=Literal["estimate", "samples", "both"], help=f"{want}uncertain; or both")
    add("--samples", type=int, help="how many samples to draw, 4 by default")
    add("--seed", type=int, help="of all samples, 0 by default")
    options.add_prior_options(to)
    add("--precision", type=Literal["float32", "bfloat16"], help="of the network")
    add("--batch", type=int, help="samples that are restored together")
    add("--device", type=str, help="auto, cpu or cuda")
    add("--out", type=str, help="folder for the results, restored-NAME of the file by default")
    add("--overwrite", action="store_true", help="replace the results of an earlier run")
    add("--resume", action="store_true", help="go on from the checkpoint of this command")
    add("--from", type=str, help="run.json of an earlier run, to get the same pixels again")
    add("--quiet", action="store_true", help="no progress bar")
    add("--config", action="config", help="YAML file with any of these options")
    if solver is not None:
        options.add_knobs(to, solver)
    return options.parse(to, args)
