"""`invdiff restore`: samples of what a measured image may have looked like."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

from tqdm import tqdm

from invdiff import zoo
from invdiff.cli import INTERRUPTED, OK
from invdiff.commands import options, outputs
from invdiff.commands.job import Job, fresh, repeated
from invdiff.commands.options import Given
from invdiff.result import Result
from invdiff.run import Snapshot, estimate, solve, with_estimate
from invdiff.serial import check_apart, check_folder
from invdiff.solvers import registry
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
    job = repeated(given) if "from" in given else fresh(given)
    overwrite, resume = given.get("overwrite", False), given.get("resume", False)
    check_folder(job.out, overwrite, outputs.MARKER)
    check_apart(job.out, *options.files(given))
    if resume:
        start = outputs.load_checkpoint(job)
    else:
        outputs.check_checkpoint(job.out, overwrite)
        outputs.remove_checkpoint(job.out)
        start = None
    say(job.lines)
    return _execute(job, start, command, given)


def say(lines: Any) -> None:
    """Print (label, text) lines, aligned."""
    for label, text in lines:
        print(f"{label:<9}{text}", flush=True)


def _execute(job: Job, start: Snapshot | None, command: list[str], given: Given) -> int:
    """Run the job and write its results, or a checkpoint when interrupted."""
    last = start
    quiet, total = given.get("quiet", False), job.chunks * job.solver.num_steps

    def remember(snapshot: Snapshot) -> None:
        nonlocal last
        last = snapshot

    try:
        with terminations_as_interrupts():
            best, result = None, None
            if job.estimator is not None:
                with _bar(job.estimator, job.estimator.num_steps, None, quiet) as (_, watch):
                    best = estimate(job.problem, job.prior, job.estimator, None, False, watch)
                result = best
            if job.draws:
                with _bar(job.solver, total, start, quiet) as (bar, watch):

                    def both(snapshot: Snapshot) -> None:
                        remember(snapshot)
                        watch(snapshot)

                    result = solve(
                        job.problem, job.prior, job.solver, job.samples, job.seed, job.batch,
                        job.portable, both, start,
                    )  # fmt: skip
                    result = result if best is None else with_estimate(result, best)
            assert result is not None
            warnings = outputs.write(result, job, given.get("overwrite", False))
    except KeyboardInterrupt:
        if last is None:
            raise
        outputs.save_checkpoint(last, job)
        resume = command if "--resume" in command else [*command, "--resume"]
        print(
            f"invdiff: interrupted after {last.steps_done} of {total} steps; go on with: "
            f"{shlex.join(resume)}",
            file=sys.stderr,
        )
        return INTERRUPTED
    outputs.remove_checkpoint(job.out)
    say([("done", _cost(result, best)), *outputs.written(job)])
    for warning in warnings:
        print(f"invdiff: warning: {warning}", file=sys.stderr)
    return OK


def _cost(result: Result, best: Result | None) -> str:
    """What was spent, in words."""
    each = f"{result.nfe} evaluations" + (f" and {result.vjps} gradients" if result.vjps else "")
    if best is None:
        return f"{result.seconds:.1f} s, {each} for each sample"
    if result is best:
        return f"{result.seconds:.1f} s, {each}"
    seconds = f"{best.seconds:.1f} s and {best.nfe} evaluations for the estimate"
    return f"{seconds}; {result.seconds:.1f} s, {each} for each sample"


@contextlib.contextmanager
def _bar(
    solver: Solver, total: int, start: Snapshot | None, quiet: bool
) -> Iterator[tuple[Any, Callable[[Snapshot], None]]]:
    """A progress bar, and what moves it."""
    done = start.steps_done if start else 0
    with tqdm(total=total, initial=done, unit="step", desc=solver.name, disable=quiet) as bar:

        def watch(snapshot: Snapshot) -> None:
            bar.set_postfix(evaluations=snapshot.nfe, refresh=False)
            bar.update(snapshot.steps_done - bar.n)

        yield bar, watch


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
    want = "estimate: one best picture, at a tenth of the cost; samples: draws that show what is "
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
