"""`invdiff solvers`, `tasks` and `priors`: tables that are generated from the code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from invdiff import measured, plugins
from invdiff.cli import COMMANDS, OK
from invdiff.commands.common import PriorOptions
from invdiff.commands.parser import Parser, wants_help
from invdiff.core import InvdiffError
from invdiff.core.option import flag, option
from invdiff.fields import build, options
from invdiff.priors.formats import FORMATS
from invdiff.priors.load import BUILT_IN, SOURCES
from invdiff.sampling.needs import why_not
from invdiff.sampling.solver import Solver
from invdiff.solvers import aliases, registry, system
from invdiff.tasks import TASKS, task_class
from invdiff.tasks.auto import choose, configured, estimator


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """What a table is about."""

    task: str | None = option("tell who can, and why others cannot", None)


def run(name: str, args: list[str]) -> int:
    """Print one of the tables; the exit code."""
    if name == "priors" and args[:1] == ["measure"]:
        return measure(name, args[1:])
    about = f"List {name}: {COMMANDS[name][1]}."
    if name == "priors":
        about += "\n\n`invdiff priors measure --help` tells how the errors of one are measured."
    to = Parser(name, "[--task TASK]" if name == "solvers" else "", about)
    if name == "solvers":
        to.add(TableOptions, "options")
    if wants_help(args):
        print(to.format_help().rstrip())
        return OK
    given = to.read(args)
    if given.words or given.knobs:
        word = (given.words or [f"--solver.{next(iter(given.knobs))}"])[0]
        raise InvdiffError(f"`invdiff {name}` takes no {word!r}; see invdiff {name} --help.")
    print("\n".join(table(name, given.options.get("task"))))
    return OK


def table(name: str, task: str | None = None) -> list[str]:
    """The lines of a table, with those of plugins."""
    plugins.load_installed()
    if task is not None:
        return one_task(task)
    found = {"solvers": solvers, "tasks": tasks, "priors": priors}[name]()
    failed = [f"  plugin {name}: {reason}" for name, reason in plugins.FAILED.items()]
    return [*found, *(["", "These could not be imported:", *failed] if failed else [])]


MEASURE = """Measure how wrong a prior is, by noise level, frequency and contrast.

Calibrated samples need it: the covariance of x0 given x. SPEC is a prior as --prior takes it.
Images are those that the recipe of its name holds out, or all of DATA for other priors. The numbers
are written beside the weights, where they are found by themselves, or to --out."""


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """What the errors of a prior are measured on."""

    data: Path = option("folder, tar or array of images")
    recipe: str = option("that says how files become images, by its name", "")
    count: int | None = option("patches that are measured", None)
    without: Path | None = option("folder of files to leave out, by their names", None)
    out: Path | None = option("file for the numbers", None)


def measure(name: str, args: list[str]) -> int:
    """`invdiff priors measure SPEC --data PATH`; the exit code."""
    from invdiff.priors import spectrum
    from invdiff.priors.load import load_prior
    from invdiff.train.spectrum import PATCHES, images, recipe_of
    from invdiff.train.spectrum import measured as found

    to = Parser(f"{name} measure", "SPEC --data PATH", MEASURE)
    to.add(MeasureOptions, "options")
    to.add(PriorOptions, "the prior", without=("prior",))
    if wants_help(args):
        print(to.format_help().rstrip())
        return OK
    given = to.read(args)
    if len(given.words) != 1:
        raise InvdiffError("SPEC is missing, or more than one: a name, a file or a folder.")
    spec = given.words[0]
    how = build(MeasureOptions, to.of(MeasureOptions, given), "priors measure")
    options = build(PriorOptions, to.of(PriorOptions, given), "priors measure")
    prior = load_prior(spec, **options.told())
    recipe = recipe_of(prior, how.recipe)
    x = images(prior, recipe, how.data, how.count or PATCHES, how.without)
    path = how.out or _beside(spec)
    result = found(prior, x)
    spectrum.save(result, path)
    rows = [["noise level", "rms error of the denoiser, in noise levels"]]
    for sigma, share in zip(result.sigmas, result.share.sqrt().tolist(), strict=True):
        rows.append([f"{sigma:g}", f"{share:.3f}"])
    print(
        "\n".join(
            [f"{len(x)} images of {tuple(x.shape[1:])}", *aligned(rows), f"written to {path}"]
        )
    )
    return OK


def _beside(spec: str) -> Path:
    """Where the spectrum of a prior belongs."""
    from invdiff.priors.spectrum import beside

    if spec in BUILT_IN:
        return Path(f"{spec}.spectrum.json")
    if not Path(spec).exists():
        raise InvdiffError(f"There is no file or folder {spec} to write beside; give --out FILE.")
    return beside(Path(spec))


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
    noisy, noiseless = (not why_not(solver, task_class(task).toy(s)) for s in (0.05, 0.0))
    return {(True, True): "yes", (True, False): "noisy", (False, True): "noiseless"}.get(
        (noisy, noiseless), "no"
    )


def solvers() -> list[str]:
    """Every solver and what it can do."""
    rows = [["solver", "system", *TASKS, "samples are"]]
    for name, cls in registry().items():
        rows.append([name, system(name), *(verdict(cls(), t) for t in TASKS), cls.claim])
    other = ", ".join(f"{alias} ({name})" for alias, name in aliases().items())
    picks = ", ".join(f"{TASKS[t].auto.solver} for {t}" for t in TASKS)
    return [
        *aligned(rows), "",
        f"Other names that --solver takes: {other}.",
        "noisy, noiseless: only with, only without noise in the photo (--noise).",
        f"auto takes {picks}.",
        "`invdiff solvers --task TASK` tells papers, and why others cannot; "
        "`invdiff restore TASK --solver NAME --help` tells a solver's knobs.",
    ]  # fmt: skip


def one_task(task: str) -> list[str]:
    """Who can do a task, and why others cannot."""
    kind = task_class(task)
    can, cannot = [["solver", "with", "samples are", "steps", "paper"]], []
    for name, cls in registry().items():
        solver = configured(kind, name, kind.toy())
        found = verdict(solver, task)
        if found == "no":
            cannot.append([name, why_not(solver, kind.toy())])
        else:
            noise = {"yes": "any noise", "noisy": "noise", "noiseless": "no noise"}
            row = [name, noise.get(found, "ignores it"), cls.claim]
            can.append([*row, str(solver.num_steps), cls.paper])
    auto = f"auto takes {kind.auto.solver}: {kind.auto.reason}"
    lines = [f"{task}: {kind.summary()}", auto, "", *aligned(can)]
    return [*lines, "", "cannot:", *aligned(cannot)] if cannot else lines


NO_ESTIMATOR = "the mean of the samples"


def tasks() -> list[str]:
    """Every task, its options, the solvers that auto takes, and what was measured of them."""
    lines: list[str] = []
    for name, kind in TASKS.items():
        toy = kind.toy()
        solver, reason = choose(kind, toy)
        rows = [[f"  {flag(n)}", f.metadata["help"]] for n, f in options(kind).items()]
        rows.append(["  samples", f"{solver.name}, {solver.num_steps} steps: {reason}"])
        best = estimator(kind, toy)
        made = f"{best[0].name}, {best[0].num_steps} steps: {best[1]}" if best else NO_ESTIMATOR
        rows.append(["  estimate", made])
        rows.append(["  measured", measured.words(name, kind.prior, solver)])
        lines += [f"{name}: {kind.summary()}", *aligned(rows), ""]
    return [*lines, "`invdiff restore TASK --help` tells the other options."]


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
