"""Which solver a task takes, with which configuration, and why."""

from __future__ import annotations

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


def choose(task: Task | type[Task], problem: Problem) -> tuple[Solver, str]:
    """The solver that measurements favour for a task, configured for it, and the reason."""
    choice = task.auto
    if Need.AUTOENCODER in offers(problem):
        choice = LATENT
    elif missing(solver_class(choice.solver)(), problem):
        choice = FALLBACK
    return configured(task, choice.solver, problem), choice.reason


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
