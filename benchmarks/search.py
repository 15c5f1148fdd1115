"""The best preset of every solver on the mixture of 25, at 20, 100 and 1000 evaluations.

    python benchmarks/search.py [SOLVER ...]     docs/search.json: what it lacks of these, or of all
    python benchmarks/search.py --page           docs/search.md and .png of the figures in it

The search, of each solver and budget, is by mean distance on problems 100 to 103 of two cells:
first the schedule (its own, and VP, geometric VE from 300 and Karras from 1000 of as many steps),
then one knob after the other in their order: each choice of a few, a half and the double of a
number, as often as that helps, four times at most. At 1000 evaluations the knobs are those of 100,
and only the schedule is searched, on half of the problems. What is found is measured on problems 0
to 19, which the search never saw, beside the defaults of the class (the paper's) and exact samples.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from invdiff.audit.distance import posed_for
from invdiff.audit.gmm25 import gmm25_problem
from invdiff.core import InvdiffError
from invdiff.core.schedules import VE, VP, Karras, Schedule
from invdiff.files.figures import new_figure
from invdiff.sampling.run import solve
from invdiff.sampling.solver import Solver
from invdiff.solvers import registry

FILE = Path(__file__).resolve().parents[1] / "docs" / "search.json"
BUDGETS = (20, 100, 1000)
CELLS = ((8, 4), (80, 2))
"""Dimension and number of measurements of the problems."""
SIZE, SLICES, MOST_STEPS = 50, 256, 1000
"""Samples in a cloud, directions in which clouds are compared, and steps of "paper" at most."""
SEARCHED, REPORTED = range(100, 104), range(20)
NAMED = 10
"""Solvers with a colour and a name in the plot."""
OFTEN, FEW = 4, 2
"""How often a number is halved or doubled; searched problems of each cell at most evaluations."""
LEFT_OUT = {
    "score-prior": "it trains a network for each problem",
    "hqs": "it makes one estimate",
    "one-call": "it makes one estimate",
}


def distance(solver: Solver | None, cell: tuple[int, int], number: int) -> float:
    """Sliced W2 of SIZE samples to as many exact ones; infinite where the solver fails. Exact
    samples for None."""
    found = gmm25_problem(*cell, number)
    problem = found.problem if solver is None else posed_for(solver, found.problem, found.prior)
    if problem is None:
        return math.inf
    posterior = found.prior.posterior(problem)
    if solver is None:
        x = posterior.sample(SIZE, 20_000)
    else:
        try:
            x = solve(problem, found.prior, solver, samples=SIZE).resampled()[0]
        except InvdiffError:
            return math.inf
    return found.distance(x, posterior.sample(SIZE, 10_000), SLICES, order=2)


def distances(
    solver: Solver | None, numbers: Sequence[int], below: float = math.inf
) -> list[float]:
    """Of problems of both cells; the first failure ends it. below: a mean that is to be beaten;
    infinity ends it where that cannot be."""
    found: list[float] = []
    for cell in CELLS:
        for number in numbers:
            found.append(distance(solver, cell, number))
            if sum(found) >= below * len(CELLS) * len(numbers):
                found.append(math.inf)
            if not math.isfinite(found[-1]):
                return found
    return found


def evaluations(solver: Solver) -> int:
    """Of one sample of a small problem. Raises InvdiffError where the solver cannot."""
    found = gmm25_problem(*CELLS[0], 0)
    problem = posed_for(solver, found.problem, found.prior)
    if problem is None:
        raise InvdiffError(f"{solver.name} cannot take the problem with these knobs.")
    return solve(problem, found.prior, solver, samples=2).nfe


def within(solver: Solver, budget: int) -> Solver | None:
    """The solver with as many steps as the budget allows; None where not even two do."""
    few, more = evaluations(solver.with_steps(4)), evaluations(solver.with_steps(8))
    each = max((more - few) / 4, 1e-9)
    steps = math.floor(4 + (budget - few) / each)
    return solver.with_steps(steps) if steps >= 2 else None


def on_schedules(solver: Solver) -> Iterator[Solver]:
    """The solver on its own schedule, and on the others."""
    yield solver
    n = solver.schedule.steps
    others: list[Schedule] = [VP(min(n, 1000)), VE(n, 300.0, 0.02), Karras(n, 1000.0, 0.02)]
    for schedule in others:
        try:
            yield dataclasses.replace(solver, schedule=schedule)
        except InvdiffError:
            continue


def neighbours(solver: Solver, name: str) -> list[Solver]:
    """The solver with other values of one knob: all choices, or the half and the double."""
    field = next(f for f in dataclasses.fields(solver) if f.name == name)
    value, kind = getattr(solver, name), get_type_hints(type(solver))[name]
    if get_origin(kind) is Literal:
        values = [v for v in get_args(kind) if v != value]
    elif isinstance(value, bool):
        values = [not value]
    elif isinstance(value, (int, float)):
        low, high = field.metadata.get("min"), field.metadata.get("max")
        both = (value // 2, value * 2) if isinstance(value, int) else (value / 2, value * 2)
        low, high = (-math.inf if low is None else low), (math.inf if high is None else high)
        values = [v for v in both if v != value and low <= v <= high]
    else:
        values = []
    found = []
    for v in values:
        try:
            found.append(dataclasses.replace(solver, **{name: v}))
        except InvdiffError:
            continue
    return found


class Search:
    """Keeps the best solver so far. budget: evaluations, which every candidate is cut to."""

    def __init__(self, start: Solver, budget: int) -> None:
        self.budget, self.best, self.tried = budget, start, 0
        self.numbers = SEARCHED[: FEW if budget == BUDGETS[-1] else None]
        self.value = math.inf
        self.value = self._value(start)

    def _value(self, solver: Solver) -> float:
        """The mean distance of a solver; infinite where it is no better than the best one."""
        cut = self._cut(solver)
        self.tried += 1
        if cut is None:
            return math.inf
        return statistics.mean(distances(cut, self.numbers, self.value))

    def _cut(self, solver: Solver) -> Solver | None:
        try:
            return within(solver, self.budget)
        except InvdiffError:
            return None

    def found(self) -> Solver | None:
        """The best one, cut to the budget."""
        return self._cut(self.best) if math.isfinite(self.value) else None

    def take_best(self, candidates: Sequence[Solver]) -> bool:
        """Whether one of the candidates is better; it is the best then."""
        before = self.value
        for solver in candidates:
            value = self._value(solver)
            if value < self.value:
                self.best, self.value = solver, value
                print(f"  {value:.3f} {changed(solver)}", flush=True)
        return self.value < before

    def schedules(self) -> None:
        """The first step of the search."""
        cut = self._cut(self.best) or self.best
        self.take_best(list(on_schedules(cut))[1:])

    def knobs(self) -> None:
        """The second step. A field that is no knob, as a schedule, is left as it is."""
        for name in (f.name for f in dataclasses.fields(self.best) if "help" in f.metadata):
            for _ in range(OFTEN):
                if not self.take_best(neighbours(self.best, name)):
                    break


def searched(cls: type[Solver]) -> Iterator[dict[str, Any]]:
    """The row of a solver, as it grows: the paper's defaults, and the best of each budget on both
    sets."""
    began = time.process_time()
    paper = cls()
    paper = paper.with_steps(min(paper.num_steps, MOST_STEPS))
    row: dict[str, Any] = {"paper": told(paper, None)}
    best = paper
    for budget in BUDGETS:
        print(f"{cls.name}: at {budget} evaluations", flush=True)
        search = Search(best if budget == BUDGETS[-1] else paper, budget)
        search.schedules()
        if budget != BUDGETS[-1]:
            search.knobs()
        solver = search.found()
        best = search.best if budget == 100 else best
        row[str(budget)] = None if solver is None else told(solver, search)
        row["cpu_seconds"] = round(time.process_time() - began, 1)
        yield row


def told(solver: Solver | None, search: Search | None) -> dict[str, Any]:
    """Its distances on the reported problems, its evaluations, and what was changed."""
    found: dict[str, Any] = {"distances": [round(v, 3) for v in distances(solver, REPORTED)]}
    if solver is not None:
        found |= {"nfe": evaluations(solver), "solver": changed(solver)}
    if search is not None:
        found |= {"searched": round(search.value, 3), "tried": search.tried}
    return found


def changed(thing: Any) -> str:
    """A solver or a schedule as its expression, without the defaults of its class."""
    told = []
    for f in dataclasses.fields(thing):
        value = getattr(thing, f.name)
        if f.name == "steps" or value != f.default:
            shown = changed(value) if dataclasses.is_dataclass(value) else value
            shown = f"{shown:.4g}" if isinstance(shown, float) else str(shown)
            told.append(f"{f.name}={shown}")
    return f"{type(thing).__name__}({', '.join(told)})"


def mean(values: Sequence[float]) -> str:
    """With the standard error over problems."""
    if not all(map(math.isfinite, values)):
        return "diverges"
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.2f} ± {error:.2f}"


def best_of(row: dict[str, Any]) -> float:
    """The least mean of a row, by which rows are ordered."""
    means = [statistics.mean(v["distances"]) for v in row.values() if isinstance(v, dict)]
    return min(means, default=math.inf)


TEXT = f"""# The best preset of every solver on the mixture

Measured by `python benchmarks/search.py` on the mixture of 25 normal laws of
[full/audit.md](full/audit.md), cells {" and ".join(f"d = {d}, {dy} measured" for d, dy in CELLS)}:
sliced Wasserstein-2 of {SIZE} samples to as many exact ones, mean over {len(REPORTED)} problems of
each cell, and its standard error. `exact` is the floor. Presets were searched on
{len(SEARCHED)} other problems of each cell: first the schedule (the solver's own, VP, geometric VE
from 300, Karras from 1000), then one knob after the other, by halves and doubles. At 1000
evaluations the knobs are those of 100, and the schedule was searched on {FEW} of these problems.
A gradient is not counted as an evaluation. A field is empty where no preset that was tried fits
so few evaluations and stays within bounds. "paper" are the defaults of the class, with at most
{MOST_STEPS} steps, at the evaluations that stand beside. These presets are for this mixture and its
exact denoiser: photographs want others.

""".splitlines()


def page(record: dict[str, Any]) -> list[str]:
    """The table, best first, and the presets that were found."""
    heads = [f"best at {b:,}" for b in BUDGETS]
    lines = [f"| solver | paper | evaluations | {' | '.join(heads)} |", "|---" * 6 + "|"]
    order = sorted((n for n in record if n != "exact"), key=lambda n: best_of(record[n]))
    lines.append(f"| exact | {mean(record['exact']['paper']['distances'])} | 0 |  |  |  |")
    presets = [
        "",
        "## What was found",
        "",
        "| solver | evaluations | preset | tried |",
        "|---" * 4 + "|",
    ]
    for name in order:
        row = record[name]
        cells = [mean(row["paper"]["distances"]), str(row["paper"]["nfe"])]
        for b in map(str, BUDGETS):
            found = row.get(b)
            nothing = "" if b in row else "not searched"
            cells.append(mean(found["distances"]) if found else nothing)
            if found:
                presets.append(
                    f"| `{name}` | {found['nfe']} | `{found['solver']}` | {found['tried']} |"
                )
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    left = [f"`{n}` is left out: {why}." for n, why in LEFT_OUT.items()]
    missing = [n for n in registry() if n not in record and n not in LEFT_OUT]
    for told, able in (("Of other problems", False), ("Not searched", True)):
        some = [f"`{n}`" for n in missing if fits(registry()[n]) is able]
        left += [f"{told}: {', '.join(some)}."] if some else []
    names = f"The grey lines are the solvers below the first {NAMED}."
    plot = ["", "![search.png](search.png)", "", names]
    return [*TEXT, *lines, "", " ".join(left), *plot, *presets]


def fits(cls: type[Solver]) -> bool:
    """Whether a solver can take these problems."""
    found = gmm25_problem(*CELLS[0], 0)
    return posed_for(cls(), found.problem, found.prior) is not None


def draw(record: dict[str, Any], path: Path) -> None:
    """Quality against cost: the best preset of each budget, a line for each solver."""
    figure = new_figure(7, 4.5)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    names = sorted((n for n in record if n != "exact"), key=lambda n: best_of(record[n]))
    for i, name in enumerate(names):
        found = [record[name][str(b)] for b in BUDGETS if record[name].get(str(b))]
        points = [(v["nfe"], statistics.mean(v["distances"])) for v in found]
        points = [p for p in points if math.isfinite(p[1])]
        style: dict[str, Any] = {"lw": 1.4, "label": name}
        if i >= NAMED:
            style = {"lw": 0.6, "color": "silver"}
        axes.plot(*zip(*points, strict=True), marker="o", ms=3, zorder=-i, **style)
    floor = statistics.mean(record["exact"]["paper"]["distances"])
    axes.axhline(floor, color="grey", ls="--", lw=0.8, label="exact samples")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("evaluations of the denoiser", fontsize=8)
    axes.set_ylabel("sliced Wasserstein-2 to the posterior", fontsize=8)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path)


def main() -> int:
    """Search what is asked for, or write the page."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("names", nargs="*", help="solvers; all when none is named")
    p.add_argument("--page", action="store_true", help="write docs/search.md and search nothing")
    args = p.parse_args()
    torch.set_num_threads(1)
    record = json.loads(FILE.read_text()) if FILE.is_file() else {}
    if args.page:
        draw(record, FILE.with_suffix(".png"))
        FILE.with_suffix(".md").write_text("\n".join(page(record)) + "\n")
        return 0
    record.setdefault("exact", {"paper": told(None, None)})
    for name, cls in registry().items():
        wanted = name in args.names if args.names else name not in record
        if not wanted or name in LEFT_OUT:
            continue
        if not fits(cls):
            continue
        for row in searched(cls):
            record[name] = row
            FILE.write_text(json.dumps(record).replace('}}, "', '}},\n"') + "\n")
        print(name, f"{best_of(record[name]):.2f}", record[name]["cpu_seconds"], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
