"""`invdiff audit`: how far solvers are from posteriors that are known, and at what price."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from invdiff import fields
from invdiff.cli import OK
from invdiff.commands.common import say, tell, terminations_as_interrupts
from invdiff.commands.parser import Parser, wants_help
from invdiff.core import InvdiffError, nearest, printable
from invdiff.core.option import check_ranges, option

if TYPE_CHECKING:
    from invdiff.audit.lines import Lines
    from invdiff.audit.parts import Item

ABOUT = """Measure how far the samples of solvers are from posteriors that are known, each figure
beside what exact samples give. SOLVER is a name of `invdiff solvers`; all when none is named. The
folder holds audit.jsonl, which grows line by line, audit.md with the tables, and plots.

With --problem, a run.json of your own, where no truth is known: what can be said without one."""
MORE = """  invdiff audit --quick
  invdiff audit mmps pigdm --only gaussian,mixture --out my-audit
  invdiff audit --out my-audit --resume         goes on where it was stopped
  invdiff audit --problem restored-photo/run.json

docs/audit.md holds the figures of all solvers, and tells what each of them means."""
WITH_PROBLEM = {"problem", "prior", "calibration", "truths", "quiet"}
"""Options that --problem takes."""
PARTS = "controls, gaussian, mixture, levy, bipsda, learned, reference, cost, budget, growth"


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """What is measured, and where it goes."""

    only: str | None = option(f"parts, with commas between: {PARTS}", None)
    quick: bool = option("few problems, and at most 50 steps: minutes on two cores", False)
    problems: int | None = option("problems of each size of the mixture", None, min=2, max=1000)
    truths: int | None = option("signals and images that are drawn", None, min=8, max=1000)
    out: Path = option("folder for the results", Path("audit"))
    workers: int | None = option("processes; as many as there are cores by default", None, min=1)
    resume: bool = option("go on with the audit in the folder", False)
    page: bool = option("write the tables and plots of what is there, and measure nothing", False)
    problem: Path | None = option("run.json of a restoration, to audit without a truth", None)
    prior: str | None = option("with --problem: where the weights of its prior are now", None)
    calibration: Path | None = option(
        "with --problem: images like those of the run, by which its intervals are widened", None
    )
    quiet: bool = option("no progress", False)

    def __post_init__(self) -> None:
        check_ranges(self)


def run(name: str, args: list[str]) -> int:
    """Measure, or go on measuring; the exit code."""
    to = Parser(name, "[SOLVER ...] [options]", ABOUT)
    to.add(AuditOptions, "options")
    if wants_help(args):
        print(f"{to.format_help().rstrip()}\n\n{MORE}")
        return OK
    given = to.read(args)
    how = fields.build(AuditOptions, to.of(AuditOptions, given), name)
    if given.knobs:
        raise InvdiffError("`invdiff audit` measures solvers with their defaults, and no knobs.")
    with terminations_as_interrupts():
        if how.problem is not None:
            if given.words:
                raise InvdiffError("--problem audits the solver of the run; name no other.")
            for option in (o for o in to.of(AuditOptions, given) if o not in WITH_PROBLEM):
                raise InvdiffError(
                    f"--{option} belongs to the audit of known posteriors; leave it out with "
                    "--problem."
                )
            return _without_truth(how)
        if how.prior is not None or how.calibration is not None:
            raise InvdiffError("--prior and --calibration belong to --problem RUN.JSON.")
        return _measure(given.words, how)


def _without_truth(how: AuditOptions) -> int:
    """Print what can be said of a run."""
    from invdiff.audit.untold import TRUTHS, report

    assert how.problem is not None
    for line in report(how.problem, how.prior, how.truths or TRUTHS, how.calibration):
        print(printable(line), flush=True)
    return OK


def _measure(names: list[str], how: AuditOptions) -> int:
    from invdiff.audit import lines, many, report
    from invdiff.audit.parts import PARTS as KNOWN
    from invdiff.audit.parts import QUICK_PARTS, items
    from invdiff.audit.settings import budget_of, settings
    from invdiff.solvers import solver_class

    names = [solver_class(word).name for word in names]
    only = [part.strip() for part in (how.only or "").split(",") if part.strip()]
    if how.only is not None and not only:
        raise InvdiffError(f"--only takes parts with commas between ({PARTS}), found {how.only!r}.")
    only = only or list(QUICK_PARTS if how.quick else KNOWN)
    for part in only:
        if part not in KNOWN:
            raise nearest(part, KNOWN, "part of the audit")
    if not how.page:
        budget = budget_of(how.quick, how.problems, how.truths)
        kept = lines.Lines(how.out, settings(budget, how.quick), how.resume)
        known = items(names, only, budget)
        _tell_without(names, only, known)
        waiting = [i for i in known if i.name not in kept.done]
        _items(waiting, kept, how.workers or many.cores(), how.quiet, bool(names))
    written = report.write(how.out)
    say([("results", str(how.out)), *(("", file.name) for file in written)])
    return OK


def _tell_without(names: list[str], only: list[str], known: list[Item]) -> None:
    """Say which of the solvers that were named have nothing to be measured in a part."""
    from invdiff.audit.parts import WHOM

    there = {(item.part, item.solver.name) for item in known if item.solver is not None}
    for name in names:
        for part in (p for p in only if p in WHOM):
            if (part, name) not in there:
                tell(f"invdiff: {part} has nothing for {name}: it is of {WHOM[part]}.")


def _items(waiting: list[Item], kept: Lines, workers: int, quiet: bool, named: bool) -> None:
    """Measure what is left, telling the time that it will take.

    named: whether the user named the solvers, and is told what they do not take.
    """
    from tqdm import tqdm

    from invdiff.audit.many import lines

    with tqdm(total=len(waiting), unit="item", disable=quiet, file=sys.stderr) as bar:
        for item, line in lines(waiting, workers):
            kept.add(line)
            bar.set_description(item.name)
            bar.update()
            if "error" in line:
                tell(f"invdiff: {item.name}: {line['error']}")
            elif line["values"] is None and named and item.part != "controls":
                tell(f"invdiff: {item.name}: the problem lacks what the solver needs.")
