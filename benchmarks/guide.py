"""Writes docs/which-solver.md and docs/gallery.md from what was recorded, no figure by hand.

    python benchmarks/guide.py           rewrites both
    python benchmarks/guide.py --check   exits 1 when one of them differs, and says which

Records: src/invdiff/calibration.json (benchmarks/calibration.py), docs/audit.jsonl and
docs/full/audit.jsonl (`invdiff audit`), docs/particles.json (benchmarks/particles.py). Pictures:
those of docs/images. What programs read of the full audit goes into src/invdiff/audit/record.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from invdiff.audit import learned
from invdiff.audit import records as audited
from invdiff.audit.cells import by_row, mean_and_error, ratio_and_error, table
from invdiff.audit.claims import unsupported
from invdiff.audit.coverage import interval_expected
from invdiff.audit.distance import CONFIGURED, COSTLY
from invdiff.audit.lines import read
from invdiff.audit.parts import SIZE
from invdiff.audit.transfer import SNR
from invdiff.audit.verdict import flagged, of_cells
from invdiff.sampling.checks import MISFIT
from invdiff.sampling.needs import Need
from invdiff.solvers import Solver, registry, solver_class
from invdiff.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
DOCS, README = ROOT / "docs", ROOT / "README.md"
REFERENCES = ("exact", "prior", "unconditional")
FIRST = 6
"""Rows that a table of the nearest shows."""

KINDS: dict[str, tuple[str, Callable[[Solver], bool]]] = {
    "No gradients: a network that is only called": (
        "The prior is evaluated and nothing else; the operator is linear.",
        lambda s: not {Need.PRIOR_VJP, Need.OPERATOR_VJP} & every(s),
    ),
    "Gradients through the prior, a linear operator": (
        "Vector-Jacobian products of the network, which [solvers.md](solvers.md) counts.",
        lambda s: Need.PRIOR_VJP in every(s) and bool(LINEAR & every(s)),
    ),
    "An operator that is not linear, but has a gradient": (
        "These ask for no inverse, no adjoint and no singular value decomposition.",
        lambda s: not {*LINEAR, Need.AUTOENCODER} & every(s) and Need.OPERATOR_VJP in every(s),
    ),
}
"""What a problem offers: a sentence, and which solvers are content with it."""
LINEAR = {
    Need.LINEAR, Need.IMAGE_LINEAR, Need.PINV, Need.GENERALISED_INVERSE, Need.SVD, Need.ISOMETRY,
    Need.CELLS,
}  # fmt: skip


def every(solver: Solver) -> set[Need]:
    """What a solver needs at the least, in the first of its ways."""
    return set(solver.requires()[0])


def needed(solver: Solver) -> str:
    """What a solver declares, in words."""
    return ", ".join(need.value for need in Need if need in every(solver)) or "nothing"


def records() -> tuple[list[dict[str, Any]], list[Any], list[Any], dict[str, Any]]:
    """Coverage by task, lines of the full and of the quick audit, distances of particles."""
    return (
        json.loads((ROOT / "src/invdiff/calibration.json").read_text(encoding="utf-8")),
        read(DOCS / "full/audit.jsonl")[1],
        read(DOCS / "audit.jsonl")[1],
        own(json.loads((DOCS / "particles.json").read_text(encoding="utf-8"))["cells"]),
    )


# ---------------------------------------------------------------------------------------- by task


def by_task(calibration: list[dict[str, Any]]) -> list[str]:
    """The table of what `auto` takes at each measurement, and what it is worth."""
    rows = []
    for r in sorted(calibration, key=lambda r: list(TASKS).index(r["task"])):
        if not r["default"] or r["side"] != 128:
            continue
        best = f"`{r['estimator']}`, {r['estimate']:.2f} dB" if "estimator" in r else "none"
        gain = f"{r['estimate'] - r['one']:+.2f}" if "estimator" in r else ""
        rows.append(
            [f"{r['task']}: {r['title']}", best, f"`{r['solver']}`, {r['one']:.2f} dB", gain,
             f"{r['coverage90']:.2f} ± {r['coverage90_error']:.2f}",
             f"{(r['coverage90'] - 0.9) / r['coverage90_error']:+.1f}", str(r["nfe"])]
        )  # fmt: skip
    head = ["measurement", "best picture", "one sample", "difference, dB", "coverage of 90 %",
            "from 0.90, in errors", "evaluations of a sample"]  # fmt: skip
    return table(head, rows)


# -------------------------------------------------------------------------------------- by problem


@cache
def solver_of(name: str) -> Solver:
    """The solver of a row of the audit."""
    named = {**CONFIGURED, **COSTLY}
    return named[name] if name in named else solver_class(name)()


def nearest(full: list[Any], fits: Callable[[Solver], bool]) -> Iterator[list[str]]:
    """The rows of the FIRST solvers that fit, nearest to the exact posterior first."""
    known = audited.summary(full)
    far = {n: d for n in known if (d := audited.distance(n, known)) is not None}
    some = [n for n in far if n not in REFERENCES and fits(solver_of(n))]
    seen, spread = by_row(full, "mixture"), by_row(full, "gaussian")
    for name in sorted(some, key=lambda n: far[n])[:FIRST]:
        cells = [line["values"] for line in seen[name]]
        mean, error = far[name]
        yield [f"`{name}`", str(known[name]["steps"]), f"{mean:.2f} ± {error:.2f}",
               f"{mean / far['exact'][0]:.1f}", variance(spread.get(name)),
               ", ".join(flagged(of_cells(cells, SIZE))) or "nothing",
               needed(solver_of(name))]  # fmt: skip


def variance(each: list[Any] | None) -> str:
    """Of a normal law, of samples over the exact one, where y says as much as the prior."""
    if not each or each[0]["values"]["noiseless"]:
        return ""
    values, at = each[0]["values"], SNR.index(1.0)
    return f"{values['variance'][at] / values['exact_variance'][at]:.2f}"


def by_problem(full: list[Any]) -> list[str]:
    """A table for each of KINDS."""
    head = ["solver", "steps", "distance", "over exact samples", "variance", "flagged by",
            "needs"]  # fmt: skip
    text = []
    for title, (told, fits) in KINDS.items():
        text += [f"### {title}", "", told, "", *table(head, list(nearest(full, fits)))]
    return text


def own(cells: dict[str, Any]) -> dict[str, Any]:
    """The rows that are not of another library."""
    return {name: row for name, row in cells.items() if not name.startswith("azula")}


def by_particles(cells: dict[str, Any]) -> list[str]:
    """What particles reach in nine cells, in words of their record."""
    floor, rows = cells["exact"]["cells"], []
    for name, row in cells.items():
        each = [(v["distance"], floor[c]["distance"]) for c, v in row["cells"].items()]
        pairs = [pair for values, exact in each for pair in zip(values, exact, strict=False)]
        value, error = ratio_and_error(pairs)
        rows.append([name, str(len(pairs) // len(each)), f"{value:.2f} ± {error:.2f}"])
    rows.sort(key=lambda row: float(row[-1].split()[0]))
    return table(["solver", "problems of each size", "mean distance, over exact samples"], rows)


def claims(audit: list[Any]) -> list[str]:
    """What every claim above `heuristic` rests on."""
    rows = []
    for name, kind in registry().items():
        solver = kind()
        if solver.claim != "heuristic":
            why = unsupported(name, solver.claim, audit)
            rows.append(
                [
                    f"`{name}`",
                    solver.claim,
                    f"not measured: {why}" if ": no line" in why else why or "supported",
                ]
            )
    return table(["solver", "claims", "the audit"], rows)


WHICH = """# Which solver when

Made by `python benchmarks/guide.py` from recorded figures; none is written by hand. What is
measured is told by [calibration.md](calibration.md), [audit.md](audit.md),
[full/audit.md](full/audit.md) and [particles.md](particles.md).

In short: take what `auto` takes. It makes the best single picture (`--want estimate`) and samples
of a sampler that was calibrated on your task (`--want samples`), and says why. Read on for a
problem of your own, or when a solver is to be named.

## A task of the package

What `auto` takes, on images of 128 x 128 with a truth. PSNR in dB; one sample is lower than the
best picture, as a draw has to be. coverage: share of the true pixels in the 90 % intervals of the
samples. From 0.90, in errors: how many standard errors the coverage is away from that of exact
samples.
"""

PROBLEM = r"""## A problem of your own

The nearest to a posterior that is known exactly, among the solvers that are content with what the
problem offers: mean of the sliced Wasserstein-2 distances of nine sizes of the mixture
([full/audit.md](full/audit.md)), with the defaults of each class. Rows whose distances differ by
less than their errors are not told apart. "over exact samples" is the ratio to what exact samples
get. variance: of samples of a normal law, where y says of it as much as the prior, over the exact
one. flagged by: measurements that exact samples would not show; "nothing" is no proof.
Figures of this mixture say nothing of pictures: there the table above and
[photographs.md](photographs.md) speak. The distance of samples $X$ to exact ones $X'$, over
directions $\theta$ of length 1, is

$$ \mathrm{SW}_2(X, X')^2 = \mathbb{E}_\theta\, W_2(\theta^\top X, \theta^\top X')^2. $$
"""

PARTICLES = """## Few measurements, and the true posterior is wanted

Particles weigh samples, and approach the posterior as clouds grow. Means over nine sizes of the
mixture ([particles.md](particles.md)). What presets that were searched for it reach, at 20, 100 and
1000 evaluations, is in [search.md](search.md). Weights cost nothing beside the samples:
`MMPS(weights=True, schedule=Karras(100, 1000.0, 0.02))` and `PiGDM(weights=True, ...)` weigh what
they draw. `Result.mean` and `Result.std` are then weighted, `resampled()` gives samples of equal
weight, `log_evidence` estimates log p(y), and `ess` is the number of samples that count. On a
learned prior, whose posterior nobody knows, `ess` is the audit: where it is near 1, all samples
together are worth one. It falls quickly as y holds more numbers, so that weights are for few
measurements, and for checks.
"""

CLAIMS = """## Which claims are measured

`asymptotic`: the error falls as the budget grows. `exact`: exact samples cannot be told from them.
All other solvers are `heuristic`: [solvers.md](solvers.md) says what they need and cost.
"""


def which() -> str:
    """docs/which-solver.md."""
    calibration, full, audit, nine = records()
    lines = [WHICH, *by_task(calibration), PROBLEM, *by_problem(full)]
    lines += [PARTICLES, *by_particles(nine), CLAIMS, *claims(audit)]
    return "\n".join(lines).rstrip() + "\n"


# ----------------------------------------------------------------------------------------- gallery

TASK_PICTURES = {
    "inpaint": "operators/inpaint.png",
    "super-resolution": "overview.png",
    "deblur": "operators/circularblur.png",
    "denoise": "operators/identity.png",
    "colorize": "operators/grayscale.png",
    "demosaic": "operators/bayer.png",
    "jpeg": "operators/jpeg.png",
    "enlarge-jpeg": "operators/jpeg-bicubic.png",
    "hdr": "operators/hdr.png",
    "low-light": "operators/photons.png",
    "phase-retrieval": "operators/phaseretrieval.png",
    "compressed-sensing": "operators/walshhadamard.png",
    "mri": "real-brain.webp",
    "ct": "real-tooth-30.webp",
    "low-dose-ct": "low-dose-ct.webp",
}
"""A picture of every task, within docs/images; "" where there is none."""
SOLVERS = """## Solvers

Made by `python benchmarks/solver_pictures.py`, each solver with its default settings. The truth is
a draw of the prior `faces64` itself, so that nothing but the solver is wrong; y is the picture
without the lower half of the face, with noise of 0.05 of half the range. Solvers that cannot take
it have another measurement of the same picture. From left to right: the truth, y, three samples,
the mean of four samples, and their standard deviation, white at half of half the range. A good
sampler keeps what was seen, and draws another mouth and chin each time. How far each is from the
posterior, in numbers: [audit.md](audit.md). Pictures of photographs:
[calibration.md](calibration.md), [paradigms.md](paradigms.md).""".split("\n")


def without(told: dict[str, Any] | None) -> str:
    """Why a solver has no picture."""
    if told is None:
        return "It was not drawn yet."
    return str(told["why"]) if "why" in told else f"It needs {' and '.join(told['lacks'])}."


def gallery() -> str:
    """docs/gallery.md."""
    lines = [
        "# Gallery",
        "",
        "Made by `python benchmarks/guide.py`: a picture of every task and solver that has one.",
        "",
        "## Tasks",
        "",
        "Pictures of operators show x, the measurement y, and what a pseudo-inverse or the",
        "adjoint makes of y ([forward-models.md](forward-models.md)); others show answers. That of",
        "low-dose-ct is the overview of",
        "`invdiff degrade low-dose-ct examples/chest-ct.npz --out d` and of the command",
        "that it prints.",
        "",
    ]
    for name, picture in TASK_PICTURES.items():
        title = " ".join((TASKS[name].__doc__ or "").split("\n\n")[0].split())
        lines += [f"### {name}", "", title, ""]
        lines += [f"![{name}](images/{picture})" if picture else "No picture yet.", ""]
    lines += [*SOLVERS, ""]
    about = json.loads((DOCS / "images/solvers/about.json").read_text())
    for name, solver in registry().items():
        lines += [f"### `{name}`", "", solver.paper or "Of this project.", ""]
        told = about.get(name)
        if told is None or "problem" not in told:
            lines += [f"No picture. {without(told)}", ""]
            continue
        count = f"{told['evaluations']} evaluations"
        count += f", {told['gradients']} gradients" if told["gradients"] else ""
        told_prior = f"; prior `{told['prior']}`" if "prior" in told else ""
        lines += [f"{told['problem'].capitalize()}; {count} for a sample{told_prior}.", ""]
        lines += [f"![{name}](images/solvers/{name}.webp)", ""]
    return "\n".join(lines).rstrip() + "\n"


# ------------------------------------------------------------------------------------------ README

MARKS = "<!-- learned -->\n", "<!-- /learned -->\n"
VERDICTS = {
    "hold what they say": lambda off: all(abs(k) <= SURE for k in off),
    "too narrow": lambda off: min(off) < -SURE and max(off) <= SURE,
    "too wide": lambda off: max(off) > SURE and min(off) >= -SURE,
    "one of each": lambda off: min(off) < -SURE and max(off) > SURE,
}
"""Of intervals, by how many standard errors the coverage is off in each case."""
SURE = 2.58
"""Standard errors that 99 % of exact samples stay within."""


def learned_rows(full: list[Any]) -> tuple[list[list[str]], float]:
    """Whose intervals hold what they say on a learned prior: coverage in both cases, and whether
    samples miss y, as `restore` warns of. Also the largest of the standard errors."""
    expected = interval_expected(0.9, learned.SAMPLES)
    found: dict[str, list[tuple[float, str]]] = {}
    largest = 0.0
    for name, each in by_row(full, "learned").items():
        shares = {x["item"].split("/")[-1]: x["values"]["covered"] for x in each}
        if set(shares) != set(learned.CASES) or any(len(v) < 2 for v in shares.values()):
            continue
        pairs = [mean_and_error(shares[case]) for case in learned.CASES]
        off = [(mean - expected) / error for mean, error in pairs]
        verdict = next(text for text, right in VERDICTS.items() if right(off))
        told = ", ".join(f"{mean:.2f}" for mean, _ in pairs)
        residuals = [mean_and_error(x["values"]["residual"])[0] for x in each]
        told += "; misses y" if max(residuals) > MISFIT**2 else ""
        largest = max(largest, *(error for _, error in pairs))
        far = max(abs(mean - expected) for mean, _ in pairs)
        found.setdefault(verdict, []).append((far, f"`{name}` ({told})"))
    kinds = [verdict for verdict in VERDICTS if verdict in found]
    rows = [[verdict, ", ".join(text for _, text in sorted(found[verdict]))] for verdict in kinds]
    return rows, largest


def readme() -> str:
    """README.md with its table of solvers on a learned prior."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    rows, error = learned_rows(records()[1])
    told = f"half of the image seen, block means of 4 x 4; standard errors at most {error:.3f}"
    made = "\n".join(table(["intervals of 90 %", f"solver ({told})"], rows))
    return f"{before}{MARKS[0]}{made}{MARKS[1]}{after}"


def record() -> str:
    """src/invdiff/audit/record.json: a line for each row."""
    rows = audited.summary(read(DOCS / "full/audit.jsonl")[1])
    return "{\n" + ",\n".join(f'"{n}": {json.dumps(r)}' for n, r in rows.items()) + "\n}\n"


PAGES: dict[Path, Callable[[], str]] = {
    audited.RECORD: record,
    DOCS / "which-solver.md": which,
    DOCS / "gallery.md": gallery,
    README: readme,
}


def main() -> int:
    """Writes the pages, or compares them."""
    p = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    p.add_argument("--check", action="store_true", help="write nothing; 1 where a page differs")
    check = p.parse_args().check
    stale = 0
    for file, made in PAGES.items():
        text = made()
        if not check:
            file.write_text(text, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            print(f"{file.relative_to(ROOT)} differs: run python benchmarks/guide.py")
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
