"""Running a job: the estimate, the samples, and the check of both against the measurement."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tqdm.auto import tqdm

from invdiff.restoration.job import Job
from invdiff.restoration.restored import Restoration
from invdiff.sampling.checks import said_once
from invdiff.sampling.result import Result
from invdiff.sampling.run import Snapshot, draw, one_picture, with_estimate
from invdiff.sampling.solver import Solver

Watch = Callable[[Snapshot], None]


@dataclass(frozen=True)
class Progress:
    """Where a job stands: its estimate, and its samples; None where they have not begun."""

    estimate: Snapshot | None = None
    samples: Snapshot | None = None


def perform(
    job: Job,
    start: Snapshot | None = None,
    watch: Watch | None = None,
    quiet: bool = False,
    best_start: Snapshot | None = None,
    best_watch: Watch | None = None,
) -> Restoration:
    """Run the job, from a snapshot of its samples where there is one.

    watch(snapshot): called after every step of the samples. quiet: without a progress bar.
    best_start, best_watch: the same of the estimate.
    """
    best, result = None, None
    if job.estimator is not None:
        rows = job.problem.batch
        size = None if rows == 1 or job.estimator.coupled else job.batch
        steps = job.estimator.num_steps * (1 if size is None else -(-rows // size))
        with _bar(job.estimator, steps, best_start, quiet) as moved:
            best = one_picture(
                job.posed, job.prior, job.estimator, size, False, _both(best_watch, moved),
                best_start,
            )  # fmt: skip
        result = best
    if job.draws:
        with _bar(job.solver, job.chunks * job.solver.num_steps, start, quiet) as moved:
            result = draw(
                job.posed, job.prior, job.solver, job.samples, job.seed, job.batch,
                job.portable, _both(watch, moved), start,
                devices=job.devices if len(job.devices) > 1 else (),
            )  # fmt: skip
        result = result if best is None else with_estimate(result, best)
    assert result is not None
    return finished(job, result, best)


def finished(job: Job, result: Result, best: Result | None) -> Restoration:
    """What a job gives, with its checks, from the run of its samples and of its estimate."""
    config, tensors = result.config | job.facts, result.tensors | job.tensors
    config["estimate_seconds"] = 0.0 if best is None else best.seconds
    result = replace(result, config=config, tensors=tensors)
    checks = result.check(job.prior, job.posed)
    found = said_once(w for c in checks.values() for w in c.warnings)
    found += job.view.warnings(result.samples.flatten(0, 1)) if result.samples.shape[1] else []
    config["warnings"] = list(dict.fromkeys((*job.facts["photo"].get("warnings", ()), *found)))
    config["checks"] = {name: c.as_dict() for name, c in checks.items()}
    return Restoration(result, job.view)


def _both(watch: Watch | None, moved: Watch) -> Watch:
    """The bar moves last, so that what it meets (a closed terminal) finds the snapshot kept."""

    def both(snapshot: Snapshot) -> None:
        if watch is not None:
            watch(snapshot)
        moved(snapshot)

    return both


@contextlib.contextmanager
def _bar(solver: Solver, total: int, start: Snapshot | None, quiet: bool) -> Iterator[Any]:
    """A progress bar, in a terminal or a notebook, and what moves it."""
    done = start.steps_done if start else 0
    with tqdm(total=total, initial=done, unit="step", desc=solver.name, disable=quiet) as bar:

        def watch(snapshot: Snapshot) -> None:
            bar.set_postfix(evaluations=snapshot.nfe, refresh=False)
            bar.update(snapshot.steps_done - bar.n)

        yield watch
