"""`invdiff solvers`, `tasks` and `priors`: tables that are generated from the code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from invdiff import measured, zoo
from invdiff.cli import OK
from invdiff.commands import options
from invdiff.core import InvdiffError
from invdiff.needs import why_not
from invdiff.priors.formats import FORMATS
from invdiff.priors.load import BUILT_IN, SOURCES
from invdiff.solvers import aliases, registry, system
from invdiff.solvers.base import Solver


def run(name: str, args: list[str]) -> int:
    """Print one of the tables; the exit code."""
    if name == "priors" and args[:1] == ["measure"]:
        return measure(name, args[1:])
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


MEASURE = """Measure how wrong a prior is, by noise level, frequency and contrast.

Calibrated samples need it: the covariance of x0 given x. SPEC is a prior as --prior takes it.
Images are those that the recipe of its name holds out, or all of DATA for other priors. The numbers
are written beside the weights, where they are found by themselves, or to --out."""


def measure(name: str, args: list[str]) -> int:
    """`invdiff priors measure SPEC --data PATH`; the exit code."""
    from invdiff.priors import spectrum
    from invdiff.priors.load import load_prior
    from invdiff.train.spectrum import PATCHES, images, recipe_of
    from invdiff.train.spectrum import measured as found

    to = options.parser(f"{name} measure", "SPEC --data PATH", MEASURE)
    to.add_argument("spec", type=str, help="a prior: a name, a file or a folder of weights")
    to.add_argument("--data", type=str, required=True, help="folder, tar or array of images")
    to.add_argument("--recipe", type=str, help="that says how files become images, by its name")
    to.add_argument("--count", type=int, help=f"patches that are measured, {PATCHES} by default")
    to.add_argument("--without", type=str, help="folder of files to leave out, by their names")
    to.add_argument("--out", type=str, help="file for the numbers")
    options.add_prior_options(to)
    given = options.parse(to, args)
    prior = load_prior(given["spec"], **options.prior_options(given))
    recipe = recipe_of(prior, given.get("recipe", ""))
    without = Path(given["without"]) if "without" in given else None
    x = images(prior, recipe, Path(given["data"]), given.get("count", PATCHES), without)
    path = Path(given["out"]) if "out" in given else _beside(given["spec"])
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


NO_ESTIMATOR = "the mean of the samples"


def tasks() -> list[str]:
    """Every task, its options, the solvers that auto takes, and what was measured of them."""
    lines: list[str] = []
    for kind in zoo.TASKS.values():
        solver, reason = zoo.auto(kind.name, zoo.example(kind.name))
        rows = [[f"  --{name}", kind.told(name)] for name in kind.options]
        rows.append(["  samples", f"{solver.name}, {solver.num_steps} steps: {reason}"])
        best = zoo.estimator(kind.name, zoo.example(kind.name))
        made = f"{best[0].name}, {best[0].num_steps} steps: {best[1]}" if best else NO_ESTIMATOR
        rows.append(["  estimate", made])
        rows.append(["  measured", measured.words(kind.name, kind.prior, solver)])
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
