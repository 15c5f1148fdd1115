"""How far each solver is from the true posterior, where that is known: docs/posterior.md.

    python benchmarks/posterior.py [NAME ...]     measures all rows, or those named

Rows are solvers with the defaults of their papers, and those of `audit.distance.CONFIGURED`. The
figures are kept in docs/posterior.json, from which the page, the column of docs/solvers.md and the
bands of the tests are made. `--page` writes the page anew and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from invdiff.audit.calibration import spread
from invdiff.audit.cells import mean_and_error
from invdiff.audit.distance import (
    CELLS,
    MOST_STEPS,
    Found,
    floor,
    measured,
    nearer,
    rows,
)
from invdiff.sampling.solver import Solver

DOCS = Path(__file__).resolve().parents[1] / "docs"
PROBLEMS = 16
SLOW = 300
"""Steps beyond which a row has one cloud of each problem, not four."""


def row(solver: Solver | None) -> dict[str, Any]:
    """What is recorded of a solver (None: of exact samples)."""
    slow = solver is not None and solver.num_steps > SLOW
    clouds, began, cells = 1 if slow else 4, time.process_time(), {}
    for d, dy in CELLS:
        found: list[Found] = []
        for p in range(PROBLEMS):
            one = floor(d, dy, p) if solver is None else measured(solver, d, dy, p, clouds)
            found += [one] if one else []
        if len(found) == PROBLEMS:
            columns = zip(Found._fields, zip(*found, strict=True), strict=True)
            cells[f"{d},{dy}"] = {k: [round(v, 5) for v in values] for k, values in columns}
    check = None if solver is None else measured(solver, *CELLS[0], 0, clouds=1)
    return {
        "steps": solver.num_steps if solver else 0,
        "clouds": clouds,
        "cpu_seconds": round(time.process_time() - began, 1),
        "cells": cells,
        "spread": spread(solver, 200 if slow else 400),
        "check": check.distance if check else None,
    }


def everywhere(found: dict[str, Any], key: str) -> list[float]:
    """One figure in all problems of all cells; nothing where a cell is missing."""
    parts = [found["cells"].get(f"{d},{dy}", {}).get(key, []) for d, dy in CELLS]
    return sum(parts, []) if all(parts) else []


def places(record: dict[str, Any]) -> dict[str, int]:
    """1 + how many rows are significantly nearer, of every row but the exact one."""
    all_of = {n: everywhere(r, "distance") for n, r in record.items() if n != "exact"}
    some = {n: values for n, values in all_of.items() if values}
    return {n: 1 + sum(nearer(other, mine) for other in some.values()) for n, mine in some.items()}


def cells(name: str, record: dict[str, Any], place: dict[str, int]) -> list[str]:
    """A row of the page's table."""
    found, told = record[name], []
    for d, dy in CELLS:
        cell = found["cells"].get(f"{d},{dy}")
        mean, error = mean_and_error(cell["distance"]) if cell else (0.0, 0.0)
        told.append(f"{mean:.2f} ± {error:.2f}" if cell else "cannot")
    modes, residual = (everywhere(found, key) for key in ("modes", "residual"))
    exact = everywhere(record["exact"], "residual")
    told.append(f"{sum(modes) / len(modes):.2f}" if modes else "")
    seen, unseen = found["spread"] or (None, None)
    noisy = residual if seen is not None else []
    ratio = [r / e for r, e in zip(noisy, exact, strict=False)]
    told.append(f"{statistics.median(ratio):.2f}" if ratio else "")
    told.append("" if seen is None else f"{seen:.2f}")
    told.append("" if unseen is None else f"{unseen:.2f}")
    return [f"`{name}`", str(found["steps"] or ""), str(place.get(name, "")), *told]


def page(record: dict[str, Any]) -> str:
    """docs/posterior.md: the text, and the table in the order of places."""
    head = ["solver", "steps", "place", *(f"d = {d}, {dy} measurements" for d, dy in CELLS)]
    head += ["modes", "residual", "variance, seen", "unseen"]
    place = places(record)
    names = sorted(record, key=lambda n: (n != "exact", place.get(n, 999), n))
    weighted = [n for n in names if min(everywhere(record[n], "ess"), default=1.0) < 1]
    ess = ", ".join(
        f"`{n}` {sum(v := everywhere(record[n], 'ess')) / len(v):.0%}" for n in weighted
    )
    waiting = ", ".join(f"`{n}`" for n in rows() if n not in record)
    lines = [
        *TEXT,
        *([f"- Not measured yet: {waiting}."] if waiting else []),
        "",
        *WEIGHTS,
        f"{ess}.",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(cells(name, record, place))} |" for name in names),
    ]
    return "\n".join(lines) + "\n"


TEXT = f"""# Distance to the true posterior

Measured by `OMP_NUM_THREADS=1 nice -n 10 python benchmarks/posterior.py`, on the CPU, about 45
minutes of one core. Every solver has the defaults of its class, but at most {MOST_STEPS} steps;
they were not tuned for these problems. Names with a comma are other configurations, listed in
`invdiff.audit.distance.CONFIGURED`. The denoiser is exact.

- The problems are those of GMM-25, a mixture of 25 normal laws (Cardoso et al. 2024, arXiv
  2308.07983), {PROBLEMS} of each size. Distances are sliced Wasserstein-2 between clouds of 50
  samples of a solver and of the exact posterior: 4 clouds of each problem, or 1 of solvers with
  more than {SLOW} steps. After ± is the standard error of the mean over problems. `exact` is the
  distance of two exact clouds, `unconditional` that of a sampler that ignores y.
- place: 1 + how many rows are nearer by more than 3 standard errors of the difference, problem by
  problem, over all {2 * PROBLEMS}. Rows of one place stand in alphabetical order: these problems
  do not tell them apart.
- modes: total variation of the modes' shares, from 0 to 1, mean over all problems. It tells a wrong
  mode from a right mode of the wrong width.
- residual: |y - A x|² over what it is for exact samples, median over all problems. Below 1 the
  samples fit the noise of y.
- variance: of the samples over the exact one, for a standard normal law in 8 dimensions, of which 2
  are seen through noise (`audit/calibration.py`); 1 is calibrated. Standard errors are 0.05 and
  0.03, of solvers with more than {SLOW} steps 0.07 and 0.04.
- Solvers for noiseless data get noiseless measurements, are compared with the posterior of these,
  and have no residual. `cannot`: the solver asks for another kind of problem.
- `spectral-ancestral` and `hqs` take the prior's error spectrum, which is measured of a network and
  unknown of these laws: that of photographs stands in, and fits neither their scale nor their
  modes.
""".splitlines()


WEIGHTS = """
What to do about it. `MMPS(draw=True)` has the right variance at few steps, and the same modes.
`MMPS(weights=True, schedule=Karras(100, 1000.0, 0.02))` and `PiGDM(weights=True, ...)` weigh their
samples at no further cost: `Result.mean` and `Result.std` are then weighted, `resampled()` gives
samples of equal weight, `log_evidence` estimates log p(y), and `ess` is the number of samples that
count. On a learned prior, whose posterior nobody knows, `ess` is the audit: where it is near 1, all
samples together are worth one. It falls quickly as y holds more numbers, so that weights are for
few measurements, and for checks. Of 200 samples of the weighted rows count, in the mean over
problems:
""".strip().splitlines()


def main() -> int:
    """Measure and write both files."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("names", nargs="*", help="rows; all when none is named")
    p.add_argument("--page", action="store_true", help="write the page from the figures kept")
    args = p.parse_args()
    torch.set_num_threads(1)
    file = DOCS / "posterior.json"
    record = json.loads(file.read_text()) if file.is_file() else {}
    solvers: dict[str, Solver | None] = {"exact": None, **rows()}
    for name in tqdm([] if args.page else args.names or solvers, unit="row"):
        record[name] = row(solvers[name])
        record = {n: record[n] for n in solvers if n in record}
        lines = ",\n".join(f'"{n}": {json.dumps(r)}' for n, r in record.items())
        file.write_text(f"{{\n{lines}\n}}\n")
    (DOCS / "posterior.md").write_text(page(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
