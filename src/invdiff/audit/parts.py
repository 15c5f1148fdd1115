"""What an audit measures, as items that are done one by one: each gives one line of the record."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from invdiff.audit import bipsda, controls, cost, growth, learned, levy, reference
from invdiff.audit.distance import CONFIGURED, COSTLY, drawn, posed_for
from invdiff.audit.transfer import Transfer, apart, null_errors, transfer
from invdiff.audit.trial import Trial, examined, trial
from invdiff.core import InvdiffError
from invdiff.core.schedules import VP
from invdiff.sampling.needs import Need, missing
from invdiff.sampling.particles import ParticleFilter
from invdiff.sampling.solver import Solver
from invdiff.solvers import registry

PARTS = (
    "controls", "gaussian", "mixture", "levy", "bipsda", "learned", "reference", "cost", "budget",
    "growth",
)  # fmt: skip
QUICK_PARTS = PARTS[:-3]
WHOM = {
    "learned": "solvers that draw samples",
    "reference": "solvers that draw samples",
    "budget": "solvers that claim to be exact or asymptotic",
    "growth": "solvers of particles",
}
"""Of parts that do not measure every solver: which they do."""
CELLS = tuple((d, dy) for d in (8, 80, 800) for dy in (1, 2, 4))
SIZE = 50
"""Samples of each problem of the mixture."""
EXACT = ("exact", "prior")
"""Rulers of every part: exact samples, and those of the prior."""


@dataclass(frozen=True)
class Budget:
    """How much is measured. steps: of a solver, at most. problems: of each cell of the mixture.

    truths: of the learned prior and of Levy processes; oracles: of those whose denoiser is a Gibbs
    sampler, for solvers; networks: of those whose denoiser is a network. chain: sweeps kept of a
    Gibbs sampler.
    ten: cases in ten dimensions, and observations: of each.
    """

    cells: tuple[tuple[int, int], ...] = CELLS
    problems: int = 20
    steps: int = 1000
    controls: int = controls.PROBLEMS
    truths: int = 96
    oracles: int = 16
    networks: int = 32
    chain: int = 2000
    operators: tuple[str, ...] = ("identity", "blur", "sampling", "fourier")
    cases: tuple[str, ...] = tuple(learned.CASES)
    laws: tuple[str, ...] = ("gauss", "laplace", "bl", "student1", "student2", "student3")
    ten: tuple[str, ...] = bipsda.CASES
    observations: int = 20


QUICK = Budget(
    cells=((8, 4), (80, 2)), problems=4, steps=50, truths=24, oracles=0, networks=0, chain=200,
    operators=("identity",), cases=("half",), laws=("gauss", "laplace"), ten=("high", "phase"),
    observations=2,
)  # fmt: skip
"""Of `--quick`: all parts but costs and budgets, in minutes."""


@dataclass(frozen=True)
class Item:
    """One thing to be measured. run: its values, None where the solver cannot."""

    name: str
    run: Callable[[], dict[str, Any] | None]
    solver: Solver | None = None

    @property
    def part(self) -> str:
        """The part of the audit that it belongs to."""
        return self.name.split("/")[0]

    def measured(self) -> dict[str, Any]:
        """Its line: item, part, row, values (None where the solver cannot), and CPU seconds.

        Where the solver fails, `error` says why.
        """
        row = self.name.split("/")[1]
        line: dict[str, Any] = {"item": self.name, "part": self.part, "row": row}
        if self.solver is not None:
            line |= {"steps": self.solver.num_steps, "claim": self.solver.claim}
        began = time.process_time()
        try:
            line["values"] = self.run()
        except InvdiffError as error:
            line |= {"values": None, "error": str(error)}
        return line | {"cpu_seconds": round(time.process_time() - began, 1)}


def rows(names: Sequence[str], most: int) -> dict[str, Solver]:
    """Solvers by name, with at most so many steps; all, and `CONFIGURED`, where none is named."""
    found: dict[str, Solver] = {
        n: cls() for n, cls in registry().items() if not names or n in names
    }
    found |= {n: s for n, s in CONFIGURED.items() if not names or s.name in names}
    return {n: s.with_steps(most) if s.num_steps > most else s for n, s in found.items()}


def items(names: Sequence[str], only: Sequence[str], how: Budget) -> list[Item]:
    """All items, in the order in which they are measured."""
    solvers = rows(names, how.steps)
    makers = {
        "controls": lambda: _controls(solvers, how),
        "gaussian": lambda: [
            Item(f"gaussian/{n}", partial(gaussian, s), s) for n, s in solvers.items()
        ],
        "mixture": lambda: _mixture(solvers, how),
        "levy": lambda: _levy(solvers, how),
        "bipsda": lambda: [
            Item(f"bipsda/{n}/{case}", partial(bipsda.measured, s, case, how.observations), s)
            for case in how.ten
            for n, s in {"prior": None, **solvers}.items()
        ],
        "learned": lambda: [
            Item(f"learned/{n}/{case}", partial(learned.measured, s, case, how.truths), s)
            for case in how.cases
            for n, s in learned.rows(names, len(how.cases) == 1).items()
        ],
        "reference": lambda: _reference(names, len(how.cases) == 1),
        "cost": lambda: [
            Item(f"cost/{n}", partial(cost.measured, s), s) for n, s in solvers.items()
        ],
        "budget": lambda: [
            Item(f"budget/{n}", partial(budget, s), s)
            for n, s in rows(names, 10**6).items()
            if s.claim != "heuristic"
        ],
        "growth": lambda: [
            Item(f"growth/{n}/{case}", partial(growth.grown, s, case), s)
            for case in growth.PARTICLES
            for n, s in rows(names, 10**6).items()
            if isinstance(s, ParticleFilter) and "," not in n
        ],
    }
    return [item for part in PARTS if part in only for item in makers[part]()]


def _levy(solvers: dict[str, Solver], how: Budget) -> list[Item]:
    """Rulers and solvers for every law and operator; these on few truths, where the denoiser is a
    Gibbs sampler, and once more with a network in its place."""
    found = []
    for law, op in itertools.product(how.laws, how.operators):
        measured = partial(levy.measured, law=law, operator=op, kept=how.chain)
        found += [
            Item(f"levy/{n}/{law},{op}", partial(measured, n, count=how.truths))
            for n in levy.RULERS
        ]
        count = how.truths if law == "gauss" else how.oracles
        if count:
            found += [
                Item(f"levy/{n}/{law},{op}", partial(measured, s, count=count), s)
                for n, s in solvers.items()
            ]
        if how.networks:
            run = partial(measured, count=how.networks, network=True)
            found += [
                Item(f"levy/{n}{levy.NETWORK}/{law},{op}", partial(run, s), s)
                for n, s in solvers.items()
            ]
    return found


def _reference(names: Sequence[str], quick: bool) -> list[Item]:
    """Solvers with the presets of the tasks: short ones, or those named, as in `learned`."""
    found, samples = [], reference.FEW if quick else reference.MANY
    for case in reference.CASES:
        for name in registry():
            solver = reference.preset(name, case)
            short = name in reference.QUICK if quick else solver.num_steps <= learned.MOST
            if not solver.estimates and (name in names if names else short):
                run = partial(reference.measured, solver, case, samples)
                found.append(Item(f"reference/{name}/{case}", run, solver))
    return found


def _lists(each: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {k: [one[k] for one in each] for k in each[0]}


def _controls(solvers: dict[str, Solver], how: Budget) -> list[Item]:
    numbers = range(how.controls)
    found = [
        Item(f"controls/{n}", partial(controls.examine, c.sampler, numbers))
        for n, c in controls.CONTROLS.items()
    ]
    t = controls.BatchNorm(schedule=VP(20))
    alone = {"batch norm": t, **{n: s for n, s in solvers.items() if "," not in n}}
    return found + [Item(f"controls/{n}/batch", partial(beside, s), s) for n, s in alone.items()]


def beside(solver: Solver) -> dict[str, Any] | None:
    """Whether a sample depends on those beside it; of 20 steps, which suffice."""
    if solver.coupled:
        return None
    solver = solver.with_steps(min(20, solver.num_steps))
    for noiseless in (False, True):
        t = trial(*controls.CELL, 3, noiseless)
        if not missing(solver, t.problem, t.prior):
            return {"moved": controls.mixed(solver, t.problem, t.prior, 4)}
    return None


def told(found: Transfer) -> dict[str, Any]:
    """A transfer as JSON values, with the null of its error where it has one."""
    exact = found.exact
    values: dict[str, Any] = {"closed": found.closed, "noiseless": found.noiseless}
    parts = {"coefficient": found.coefficient, "variance": found.variance, "error": found.error,
             "exact_coefficient": exact[0], "exact_variance": exact[1]}  # fmt: skip
    if not found.closed:
        parts["coefficient_se"], parts["variance_se"] = found.standard_errors
        null = null_errors(found.draws, noiseless=found.noiseless, s=found.s)
        parts["null_median"], parts["null_99"] = null.median(0).values, null.quantile(0.99, 0)
    return values | {name: [round(v, 6) for v in t.tolist()] for name, t in parts.items()}


def gaussian(solver: Solver) -> dict[str, Any] | None:
    """Mean and variance per singular value: in closed form where there is one, which a simulation
    checks; `apart` is their largest difference in standard errors."""
    found = transfer(solver)
    if found is None:
        return None
    drawn = transfer(solver, simulate=True) if found.closed else None
    return told(found) | ({} if drawn is None else {"apart": round(apart(found, drawn), 2)})


def posed(solver: Solver, cell: tuple[int, int], number: int) -> Trial | None:
    """A trial that the solver can take: with noise where it can."""
    for noiseless in (False, True):
        t = trial(*cell, number, noiseless)
        if solver.always_needs(Need.AUTOENCODER) or not missing(solver, t.problem, t.prior):
            return t
    return None


def _mixture(solvers: dict[str, Solver], how: Budget) -> list[Item]:
    found = []
    full = {n: s for n, s in COSTLY.items() if s.name in solvers and how.cells == CELLS}
    for cell in how.cells:
        for name, s in {**{r: None for r in EXACT}, **solvers, **full}.items():
            run = partial(mixture, s, name, cell, how.problems)
            found.append(Item(f"mixture/{name}/{cell[0]},{cell[1]}", run, s))
    return found


def mixture(
    solver: Solver | None, name: str, cell: tuple[int, int], problems: int
) -> dict[str, Any] | None:
    """Lists with an entry for each problem of a cell, as `trial.examined` makes them."""
    each = []
    for number in range(problems):
        t = trial(*cell, number) if solver is None else posed(solver, cell, number)
        if t is None:
            return None
        x, ess = _cloud(solver, name, t, number)
        each.append(examined(t, x, number, SIZE) | {"ess": round(ess, 4)})
    return _lists(each)


def _cloud(solver: Solver | None, name: str, t: Trial, number: int) -> tuple[Tensor, float]:
    if solver is not None:
        problem = posed_for(solver, t.problem, t.prior)
        assert problem is not None
        return drawn(solver, problem, t.prior, SIZE)
    law = t.posterior if name == "exact" else t.prior
    return law.sample(SIZE, 40_000 + number), 1.0


def scaled(solver: Solver, factor: float) -> Solver:
    """The same solver with a larger budget: of its particles where it has some, else of steps."""
    if isinstance(solver, ParticleFilter):
        return dataclasses.replace(solver, particles=max(2, round(solver.particles * factor)))
    return solver.with_steps(max(1, round(solver.schedule.steps * factor)))


def budget(solver: Solver) -> dict[str, Any] | None:
    """The error of `transfer` at a quarter of the budget and at the budget, by simulation.

    Samples of a cloud of particles depend on each other. A cloud is resampled where less than half
    of it counts, and once more at the end: they count as a quarter of as many exact samples.
    """
    found, share = {}, 4 if solver.coupled else 1
    for factor in (0.25, 1.0):
        one = transfer(scaled(solver, factor), simulate=True)
        if one is None:
            return None
        found[f"{factor:g}"] = [round(v, 5) for v in one.error.tolist()]
        null = null_errors(one.draws // share, noiseless=one.noiseless, s=one.s)
    return found | {"null_99": [round(v, 5) for v in null.quantile(0.99, 0).tolist()]}
