"""`invdiff solvers`, `tasks` and `priors`: tables that are generated from the code."""

from __future__ import annotations

from collections.abc import Sequence

from invdiff import zoo
from invdiff.cli import OK
from invdiff.commands import options
from invdiff.needs import why_not
from invdiff.priors.formats import FORMATS
from invdiff.priors.load import BUILT_IN, SOURCES
from invdiff.solvers import aliases, registry, system
from invdiff.solvers.base import Solver


def run(name: str, args: list[str]) -> int:
    """Print one of the tables; the exit code."""
    to = options.parser(name, "[--task TASK]" if name == "solvers" else "", f"List {name}.")
    if name == "solvers":
        to.add_argument("--task", type=str, help="tell who can, and why others cannot")
    given = options.parse(to, args)
    if "task" in given:
        lines = one_task(given["task"])
    else:
        lines = {"solvers": solvers, "tasks": tasks, "priors": priors}[name]()
    print("\n".join(lines))
    return OK


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with columns of equal width."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def verdict(solver: Solver, task: str) -> str:
    """yes, no, or with which noise: noisy, noiseless; `ignores it` for the unconditional one."""
    if solver.ignores_y:
        return "ignores it"
    noisy, noiseless = (not why_not(solver, zoo.example(task, sigma=s)) for s in (0.05, 0.0))
    return {(True, True): "yes", (True, False): "noisy", (False, True): "noiseless"}.get(
        (noisy, noiseless), "no"
    )


def solvers() -> list[str]:
    """Every solver and what it can do."""
    rows = [["solver", "system", *zoo.TASKS, "samples are"]]
    for name, cls in registry().items():
        rows.append([name, system(name), *(verdict(cls(), t) for t in zoo.TASKS), cls.claim])
    other = ", ".join(f"{alias} ({name})" for alias, name in aliases().items())
    picks = ", ".join(f"{zoo.AUTO[t][0]} for {t}" for t in zoo.TASKS)
    return [
        *aligned(rows), "",
        f"Other names that --solver takes: {other}.",
        "noisy, noiseless: only with, only without noise in the photo (--noise).",
        f"auto takes {picks}.",
        "`invdiff solvers --task TASK` tells papers, and why others cannot; "
        "`invdiff restore --solver NAME --help` tells a solver's knobs.",
    ]  # fmt: skip


def one_task(task: str) -> list[str]:
    """Who can do a task, and why others cannot."""
    kind = zoo.task(task)
    can, cannot = [["solver", "with", "samples are", "steps", "paper"]], []
    for name, cls in registry().items():
        solver = zoo.preset(kind.name, name, zoo.TYPICAL)
        found = verdict(solver, kind.name)
        if found == "no":
            cannot.append([name, why_not(solver, zoo.example(kind.name))])
        else:
            noise = {"yes": "any noise", "noisy": "noise", "noiseless": "no noise"}
            row = [name, noise.get(found, "ignores it"), cls.claim]
            can.append([*row, str(solver.num_steps), cls.paper])
    name, reason = zoo.AUTO[kind.name]
    lines = [f"{kind.name}: {kind.summary}", f"auto takes {name}: {reason}", "", *aligned(can)]
    return [*lines, "", "cannot:", *aligned(cannot)] if cannot else lines


def tasks() -> list[str]:
    """Every task, its options and the solver that auto takes."""
    lines: list[str] = []
    for kind in zoo.TASKS.values():
        solver, reason = zoo.auto(kind.name, zoo.example(kind.name))
        rows = [[f"  --{name}", kind.told(name)] for name in kind.options]
        rows.append(["  auto", f"{solver.name}, {solver.num_steps} steps: {reason}"])
        lines += [f"{kind.name}: {kind.summary}", *aligned(rows), ""]
    return [
        *lines,
        "A mask of inpaint is white where pixels are to be restored and black where they are kept.",
    ]


def priors() -> list[str]:
    """Everything that --prior understands."""
    rows = [["prior", "what it is"], *([s.spec, s.summary] for s in SOURCES)]
    return [
        *aligned(rows), "",
        f"{', '.join(BUILT_IN)} come with invdiff; their cards are beside their weights.",
        "A prior of a fixed size restores pictures of that size only.", "",
        "Published weights, recognised by the names of their tensors:",
        *(line for f in FORMATS for line in ("", f.name, *aligned(f.rows()))), "",
        "--prior-options NAME=VALUE,... gives options, --label and --guidance choose a class.",
    ]  # fmt: skip
