"""What a visitor asks for, as plain data that a worker process is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from invdiff import fields
from invdiff.core import InvdiffError, nearest
from invdiff.core.option import option
from invdiff.priors.load import BUILT_IN
from invdiff.priors.precision import AskedPrecision
from invdiff.restoration.job import Job, prepare
from invdiff.restoration.knobs import as_asked, with_knobs
from invdiff.restoration.repeat import repeated
from invdiff.sampling.result import Result
from invdiff.solvers import solver_class
from invdiff.tasks import task_class
from invdiff.tasks.base import Task

STEPS = 100_000
"""Of a solver, at most."""


@dataclass(frozen=True, kw_only=True)
class HowOptions:
    """How a restoration is run: the options that the page offers for every task."""

    want: Literal["estimate", "samples", "both"] = option(
        "estimate (one best picture), samples (which show what is uncertain), or both", "both"
    )
    samples: int = option("how many samples to draw", 4)
    seed: int = option("of all samples", 0)
    steps: int | None = option("from noise to image; the solver's own number without it", None)
    solver: str = option("auto takes what was measured to be sure of itself, where it is", "auto")
    prior: str | None = option("what images look like; without it the task's own", None)
    precision: AskedPrecision = option("of the network", "auto")

    def __post_init__(self) -> None:
        if self.steps is not None and not 1 <= self.steps <= STEPS:
            raise InvdiffError(f"--steps is from 1 to {STEPS}, found {self.steps}.")
        if self.solver != "auto":
            solver_class(self.solver)
        if self.prior is not None and self.prior not in BUILT_IN:
            raise nearest(self.prior, BUILT_IN, "prior of the package")


@dataclass(frozen=True)
class AskedJob:
    """A restoration of an uploaded file. options: of the task, as text. knobs: of the solver.

    out: the folder of the results. resume: whether it goes on from where it was stopped.
    """

    task: str
    file: str
    out: str
    options: Mapping[str, Any] = field(default_factory=dict)
    how: HowOptions = field(default_factory=HowOptions)
    knobs: Mapping[str, str] = field(default_factory=dict)
    resume: bool = False

    def built(self) -> Task:
        """The task. Raises InvdiffError for what does not fit."""
        found: Task = fields.build(task_class(self.task), self.options, self.task)
        if self.knobs and self.how.solver == "auto":
            raise InvdiffError("Knobs belong to a solver; choose one by its name first.")
        if self.knobs:
            with_knobs(solver_class(self.how.solver)(), self.knobs)
        return found

    def job(self, device: str) -> Job:
        """The job, with its files read."""
        how = self.how
        return prepare(
            self.built(), self.file, prior=how.prior, precision=how.precision, solver=how.solver,
            configure=lambda s: as_asked(s, self.knobs, how.steps), samples=how.samples,
            seed=how.seed, want=how.want, device=device, out=Path(self.out),
        )  # fmt: skip


@dataclass(frozen=True)
class AskedAgain:
    """A run that is repeated from its folder; out and resume as above."""

    folder: str
    out: str
    resume: bool = False

    def job(self, device: str) -> Job:
        """The job. Raises InvdiffError for a prior that is not in the package."""
        spec = Result.load(self.folder).config.get("prior_spec")
        if spec not in BUILT_IN:
            raise InvdiffError(
                f"The run used the prior {spec}, and the page has those of the package alone; "
                "repeat it with invdiff restore --from."
            )
        kind = device.split(":")[0]
        return repeated(Path(self.folder), None, device if kind == "cuda" else None, Path(self.out))


@dataclass(frozen=True)
class AskedRace:
    """Solvers that race on the measurement of a restoration. cost: of each, in evaluations."""

    of: AskedJob
    solvers: tuple[str, ...]
    cost: int
