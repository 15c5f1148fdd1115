"""Several solvers on one measurement at equal cost, a step of each in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.base import Counted, Denoiser, Prior
from invdiff.restoration.job import Job
from invdiff.sampling.checks import comparable, misfit
from invdiff.sampling.run import row_seed
from invdiff.sampling.solver import Solver
from invdiff.sampling.state import State
from invdiff.sampling.stream import check_posed, finish, stream
from invdiff.tasks.auto import configured, in_steps
from invdiff.tasks.base import Task

PULL = 2
"""Cost of a gradient through the prior, in evaluations: it goes back through the network for its
input, which takes about twice the arithmetic of going forth."""
MOST = 4
"""Solvers that race together."""


@dataclass(frozen=True, eq=False)
class Lap:
    """Where one solver stands after a step.

    cost: evaluations + PULL * gradients. misfit: rms of (y - A x) / sigma of its clean estimate, 1
    for the truth; None where the noise has no level. values: that estimate, (C, H, W), in the units
    of the file.
    """

    solver: str
    step: int
    steps: int
    evaluations: int
    gradients: int
    misfit: float | None
    values: Tensor

    @property
    def cost(self) -> int:
        """What it has spent."""
        return self.evaluations + PULL * self.gradients


def race(job: Job, task: Task, solvers: Sequence[str], cost: int) -> Iterator[Lap]:
    """Run two to four solvers on the measurement of a job, with its prior and seed.

    Each gets its preset for the task, and the number of steps that spends `cost` at most. The one
    that has spent least takes the next step. Raises InvdiffError before the first step where one
    cannot, or where a single step costs more.
    """
    names = list(dict.fromkeys(solvers))
    if not 2 <= len(names) <= MOST:
        raise InvdiffError(f"A race is between 2 and {MOST} solvers, found {len(names)}.")
    if job.problem.batch > 1:
        raise InvdiffError(
            f"A race is on one image, found {job.problem.batch} slices; choose one of them."
        )
    if cost < 1:
        raise InvdiffError(f"The cost is at least 1 evaluation, found {cost}.")
    runners = [_Runner(job, _fitted(job, task, name, cost)) for name in names]
    while going := [r for r in runners if not r.done]:
        yield min(going, key=lambda r: r.cost).step()


class _Runner:
    """One solver under way."""

    def __init__(self, job: Job, solver: Solver) -> None:
        check_posed(job.posed, job.prior, solver)
        self.job, self.solver, self.prior = job, solver, Counted(job.prior)
        self.seeds = [row_seed(job.seed, 0, 0)]
        self.states = stream(job.problem, self.prior, solver, self.seeds, portable=job.portable)
        self.done = False
        next(self.states)  # before the first step

    @property
    def cost(self) -> int:
        return self.prior.nfe + PULL * self.prior.vjps

    def step(self) -> Lap:
        state = next(self.states)
        self.done = state.step >= self.solver.num_steps
        x = self._finished(state) if self.done else self._image(state.x0)
        problem = self.job.problem
        told = float(misfit(problem, x)[0]) if comparable(problem) else None
        return Lap(
            self.solver.name, state.step, self.solver.num_steps, self.prior.nfe, self.prior.vjps,
            told, self.job.view.values(x.cpu())[0],
        )  # fmt: skip

    def _finished(self, state: State) -> Tensor:
        """The sample itself."""
        job = self.job
        x = finish(state, job.problem, self.prior, self.solver, self.seeds, job.portable)
        return self._image(x)

    def _image(self, x: Tensor) -> Tensor:
        """Of latents the image that they decode to."""
        with torch.no_grad():
            autoencoder = self.job.prior.autoencoder
            return x if autoencoder is None else autoencoder.decoder(x)


def _fitted(job: Job, task: Task, name: str, cost: int) -> Solver:
    """A solver with as many steps as the cost allows, by what two short runs on a toy spend."""
    solver = configured(task, name, job.posed.problem)
    check_posed(job.posed, job.prior, solver)
    few, more = (spent(task, name, n, job.prior) for n in (4, 8))
    each = max((more - few) / 4, 1e-9)
    steps = int((cost - few) / each + 4 + 1e-6)
    if steps < 1:
        raise InvdiffError(
            f"A step of {name} costs {each:.0f} evaluations, but {cost} were allowed; allow more."
        )
    return in_steps(solver, steps)


def spent(task: Task, name: str, steps: int, prior: Prior) -> int:
    """What a solver spends on a small problem of the task, with a prior that costs nothing.

    It has its preset for that problem: a schedule that begins at the noise of another does not fit.
    """
    cheap = Denoiser(lambda x, sigma: x / (1 + sigma**2))
    cheap.spectrum, cheap.learned_variance = prior.spectrum, prior.learned_variance
    counted, problem = Counted(cheap), task.toy()
    solver = configured(task, name, problem).with_steps(steps)
    *_, last = stream(problem, counted, solver, [0])
    finish(last, problem, counted, solver, [0])
    return counted.nfe + PULL * counted.vjps
