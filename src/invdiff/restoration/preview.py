"""What is seen of a restoration while it runs: where it stands, the time left, and its pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from invdiff.restoration.job import Job
from invdiff.restoration.perform import Progress
from invdiff.sampling.needs import Need
from invdiff.sampling.run import Snapshot
from invdiff.sampling.solver import Solver

Part = Literal["estimate", "samples"]
WITH_GRADIENT = 3.0
"""Time of an evaluation with its gradient over one without, until it is measured."""


@dataclass(frozen=True, eq=False)
class Preview:
    """A restoration after a step.

    part: what is being made. steps_done, steps: of this part, all of its batches together.
    evaluations: of the prior, in this part. seconds: spent on this part. left: seconds that the
    whole rest will take at the pace so far; None before the first step. progress: what
    `restore(start=...)` takes to go on from here.
    """

    job: Job = field(repr=False)
    part: Part
    steps_done: int
    steps: int
    evaluations: int
    seconds: float
    left: float | None
    progress: Progress = field(repr=False)

    def values(self, most: int = 4) -> Tensor:
        """The clean estimates of at most so many samples that are under way, (K, C, H, W), in the
        units of the file; of a stack of slices those of the first slice that is under way."""
        snapshot = self.progress.estimate if self.part == "estimate" else self.progress.samples
        assert snapshot is not None
        samples = self.job.samples if self.part == "samples" else 1
        slice_, before = divmod(sum(map(len, snapshot.done)), samples)  # rows are slice by slice
        x0 = snapshot.state.x0[: min(most, samples - before)]
        autoencoder = self.job.prior.autoencoder
        if autoencoder is not None:
            with torch.no_grad():
                x0 = autoencoder.decoder(x0)
        return self.job.view.alone(slice_).values(x0.detach().float().cpu())

    def images(self, most: int = 4) -> np.ndarray:
        """The same as an array, (K, H, W[, C])."""
        return self.job.view.array(self.values(most))


Tell = Callable[[Preview], None]


class Following:
    """The watches of a job that tell previews of it. start: where the job goes on."""

    def __init__(self, job: Job, tell: Tell, start: Progress | None = None) -> None:
        self.job, self.tell, self.progress = job, tell, start or Progress()
        self._part: Part | None = None
        self._began, self._first = 0.0, 0

    def watch_estimate(self, snapshot: Snapshot) -> None:
        """After every step of the estimate."""
        self._told("estimate", snapshot, Progress(snapshot, self.progress.samples))

    def watch(self, snapshot: Snapshot) -> None:
        """After every step of the samples."""
        self._told("samples", snapshot, Progress(self.progress.estimate, snapshot))

    def _told(self, part: Part, snapshot: Snapshot, progress: Progress) -> None:
        done, now = snapshot.steps_done, time.perf_counter()
        if part != self._part:  # its pace is its own
            self._part, self._began, self._first = part, now, done
        self.progress = progress
        steps = snapshot.chunks * snapshot.steps
        pace = (now - self._began) / (done - self._first) if done > self._first else None
        left = None if pace is None else pace * (steps - done) + self._later(part, pace)
        seen = Preview(self.job, part, done, steps, snapshot.nfe, snapshot.seconds, left, progress)
        self.tell(seen)

    def _later(self, part: Part, pace: float) -> float:
        """Seconds of the samples, guessed while the estimate is made; pace: of one of its steps."""
        job = self.job
        if part == "samples" or job.estimator is None or not job.draws:
            return 0.0
        known = self.progress.samples
        begun = 0.0 if known is None else known.steps_done / (known.steps * known.chunks)
        each = pace * _weight(job.solver) / _weight(job.estimator)
        return each * job.solver.num_steps * job.samples * (1 - begun)


def _weight(solver: Solver) -> float:
    """Time of a step of one picture, over that of one evaluation."""
    return WITH_GRADIENT if solver.always_needs(Need.PRIOR_VJP) else 1.0
