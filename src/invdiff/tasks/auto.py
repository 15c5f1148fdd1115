"""Which solver a task takes, with which configuration, and why."""

from __future__ import annotations

from dataclasses import replace

from invdiff.core.schedules import VE, Karras
from invdiff.problem import Problem
from invdiff.sampling.needs import Need, missing, offers
from invdiff.sampling.solver import Solver
from invdiff.solvers import solver_class
from invdiff.tasks.base import Choice, Task
from invdiff.tasks.validity import has_gaps

FALLBACK = Choice("dps", "it needs a gradient of the operator alone")
"""Where the task's own choice cannot, as where an operator is not linear."""
LATENT = Choice("psld", "the prior is of latents, and psld uses the encoder too; not measured")
"""For a prior of latents."""


def configured(task: Task | type[Task], solver: str, problem: Problem) -> Solver:
    """The preset of a solver for a task, at the noise and the size of a problem.

    Without a preset, the defaults of its paper. Raises InvdiffError for an unknown solver.
    """
    cls = solver_class(solver)
    for preset in task.presets:
        if preset.solver == cls.name:
            return preset.make(problem)
    return cls()


LAST = 0.2
"""Over the number of steps: the lowest last level of a run that is shorter than its preset. Steps
that end near 0 leave too few where the picture is made. Chosen among 0.2, 0.3 and 0.4 on four of
the twelve photographs of docs/few-steps.md."""


def in_steps(solver: Solver, steps: int) -> Solver:
    """A preset with another number of steps.

    Where these are fewer, the last level of a sampler is LAST / steps or more, at most a fifth of
    the first: fewer steps end earlier. Schedules of a training table keep their levels, and so do
    estimates, whose last step follows the noise of y.
    """
    found = solver.with_steps(steps)
    schedule = found.schedule
    shorter = steps < solver.num_steps and not solver.estimates
    if not shorter or not isinstance(schedule, VE | Karras):
        return found
    last = max(schedule.sigma_min, min(LAST / steps, schedule.sigma_max / 5))
    return replace(found, schedule=replace(schedule, sigma_min=last))


def choose(task: Task | type[Task], problem: Problem) -> tuple[Solver, str]:
    """The solver that measurements favour for a task, configured for it, and the reason."""
    choice = task.auto
    if Need.AUTOENCODER in offers(problem):
        choice = LATENT
    else:
        ways = (choice, choice.otherwise, FALLBACK)
        choice = next((w for w in ways if w and _can(w, problem)), FALLBACK)
    return configured(task, choice.solver, problem), choice.reason


def _can(choice: Choice, problem: Problem) -> bool:
    return not missing(solver_class(choice.solver)(), problem)


def estimator(task: Task | type[Task], problem: Problem) -> tuple[Solver, str] | None:
    """The deterministic method for the best single picture of a task, configured, and the reason.

    None where there is none: then the mean of samples, or what the task takes for it, stands.
    """
    if task.best is None or Need.AUTOENCODER in offers(problem):
        return None
    for best in (task.best, task.best.otherwise):
        if best is None or (best is task.best and best.otherwise and has_gaps(problem)):
            continue
        found = configured(task, best.solver, problem)
        if not missing(found, problem):
            return found, best.reason
    return None
