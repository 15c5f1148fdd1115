"""Running what `invdiff restore` was asked for: nothing that was computed is lost."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from invdiff.cli import INTERRUPTED, OK, explain
from invdiff.commands.common import RunOptions, say, tell, terminations_as_interrupts
from invdiff.core import InvdiffError
from invdiff.core.folders import check_apart
from invdiff.core.signals import as_interrupt
from invdiff.plugins import flags
from invdiff.priors.load import BUILT_IN
from invdiff.restoration import series
from invdiff.restoration.checkpoint import Checkpoints
from invdiff.restoration.forecast import forecast
from invdiff.restoration.job import Job
from invdiff.restoration.perform import perform
from invdiff.restoration.repeat import UNFIT, unfit
from invdiff.restoration.restored import MARKER, Restoration
from invdiff.tasks.base import Parts, Task


def execute(job: Job, kept: Checkpoints, command: list[str], how: RunOptions) -> int:
    """Run the job and write its results; the exit code.

    What ends it, an interrupt or a failure, leaves a checkpoint of all that was computed.
    """
    before = kept.progress
    done = None
    try:
        if kept.out != job.out:
            tell(
                f"invdiff: warning: another process restores into {job.out}; these results go to "
                f"{kept.out}"
            )
        lines = list(job.lines)
        if not kept.resumed:
            lines.append(("forecast", str(forecast(job))))
        say(lines)
        done = perform(
            job, before.samples, kept.watch, how.quiet, before.estimate, kept.watch_estimate
        )
        out = done.save(kept.out, how.overwrite)
    except (KeyboardInterrupt, Exception) as error:
        return _stopped(as_interrupt(error), job, kept, command, done is not None)
    kept.remove()
    if out != kept.out:
        tell(f"invdiff: warning: {kept.out} came into being meanwhile; the results are in {out}")
    say([("done", _cost(done)), *_written(done, out), *_compared(job, done)])
    for warning in (*done.warnings, *_differs(job, done)):
        tell(f"invdiff: warning: {warning}")
    return OK


def execute_parts(
    job_of: Callable[[Task, Path], Job], parts: Parts, out: Path, inputs: list[str],
    command: list[str], how: RunOptions,
) -> int:  # fmt: skip
    """Restore several images of a file one by one, and put them together; the exit code.

    What ends it leaves the images that were done, and --resume goes on after them.
    """
    check_apart(out, *inputs)
    done = series.begin(out, how.overwrite, how.resume)
    try:
        with terminations_as_interrupts():
            for k, (name, job) in enumerate(series.each(parts, out, done, job_of), 1):
                if job is None:
                    continue
                say(job.lines if k == 1 else [])
                say([("image", f"{name}, {k} of {len(parts.names)}")])
                perform(job, quiet=how.quiet).save(out / name, overwrite=True)
            images = tuple(Restoration.load(out / name) for name in parts.names)
            written = series.finish(out, parts, images)
    except (KeyboardInterrupt, Exception) as error:
        words = [word for word in command if word != "--overwrite"]
        words = words if "--resume" in words else [*words, "--resume"]
        said, code = ("interrupted", INTERRUPTED)
        if isinstance(error, Exception):
            if not done:
                series.abandon(out)
                raise
            said, code = explain(error)
        tell(f"invdiff: {said.rstrip('.')}; go on with: {shlex.join(words)}")
        return code
    say([("results", f"{out}: {', '.join(written)}, and a folder for each image")])
    for warning in dict.fromkeys(w for r in images for w in r.warnings):
        tell(f"invdiff: warning: {warning}")
    return OK


def _stopped(
    error: BaseException, job: Job, kept: Checkpoints, command: list[str], sampled: bool
) -> int:
    """Keep what was computed, and tell how to go on; the exit code."""
    last = kept.progress
    steps = 0 if last.samples is None else last.samples.steps_done
    began = last.samples is not None or (last.estimate is not None and not job.draws)
    if job.earlier is not None and not sampled and _unfit(error):
        kept.remove()
        raise unfit("The file of --from") from error
    if isinstance(error, InvdiffError) and not sampled:  # as of one that diverged: it would again
        kept.leave() if kept.resumed else kept.remove()
        raise error
    if not began and not (isinstance(error, KeyboardInterrupt) and last.estimate is not None):
        kept.leave()
        raise error
    out = kept.rescue()
    kept.leave()
    total = job.chunks * job.solver.num_steps
    if isinstance(error, KeyboardInterrupt):
        said, code = f"interrupted after {steps} of {total} steps", INTERRUPTED
    else:
        assert isinstance(error, Exception)
        said, code = explain(error)
        said = said.rstrip(".")
    where = "nothing could be kept" if out is None else f"go on with: {_resume(command, kept, out)}"
    tell(f"invdiff: {said}; {where}")
    if "--debug" in sys.argv:
        raise error
    return code


def _unfit(error: BaseException) -> bool:
    """Whether an error tells that the fields of a file contradict each other."""
    ours = isinstance(error, InvdiffError) or "memory" in str(error)
    return isinstance(error, UNFIT) and not ours


def _resume(command: list[str], kept: Checkpoints, out: Path) -> str:
    """The command that goes on."""
    words = list(command)
    if out != kept.job.out:
        while "--out" in words:
            at = words.index("--out")
            del words[at : at + 2]
        words = [w for w in words if not w.startswith("--out=")] + ["--out", str(out)]
    return shlex.join(words if "--resume" in words else [*words, "--resume"])


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
    lines += [("", done.unsolved)] if done.unsolved else []
    lines.append(("results", f"{out}: {', '.join(done.files)}"))
    if done.view.beside:
        lines.append(("", done.view.beside))
    one = done.drawn and done.want != "estimate" and done.result.samples.shape[1] == 1
    if one and done.view.spread:
        lines.append(("", "one sample shows no uncertainty; give --samples 2 or more"))
    again = ["invdiff", "restore", "--from", str(out / MARKER)]
    spec = str(done.result.config["prior_spec"])
    again += [] if spec in BUILT_IN else ["--prior", spec]
    return [*lines, ("again", shlex.join([*again, *flags()]))]


def _apart(job: Job, done: Restoration) -> float | None:
    """How far the numbers are from those of the run that was repeated; None without one."""
    if job.earlier is None:
        return None
    pairs = [(job.earlier.samples, done.result.samples)] if done.drawn else []
    if job.earlier.estimate is not None and done.result.estimate is not None:
        pairs.append((job.earlier.estimate, done.result.estimate))
    return max(float((a - b).abs().max()) for a, b in pairs)


def _compared(job: Job, done: Restoration) -> list[tuple[str, str]]:
    """The line that tells whether a repeated run gave the same numbers."""
    apart = _apart(job, done)
    if apart is None:
        return []
    same = "the same numbers as the run" if apart == 0 else f"up to {apart:.1e} from the run"
    return [("repeated", same)]


def _differs(job: Job, done: Restoration) -> list[str]:
    """The warning that a repeated run gave another picture than round-off explains."""
    apart, (low, high) = _apart(job, done), job.prior.image_range
    if apart is None or apart <= (high - low) / 255:
        return []
    return [
        f"these pictures are up to {apart:.2g} from those of the run that was repeated; its file "
        "was edited, or another device or version makes other numbers"
    ]
