"""How far each solver is from the true posterior, where that is known: docs/posterior.md.

    python benchmarks/posterior.py [NAME ...]     measures all solvers, or those named

Each solver runs with the defaults of its paper. The figures are kept in docs/posterior.json, from
which the page, the column of docs/solvers.md and the bands of the tests are made.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from invdiff.audit.distance import CELLS, distances, floor, mean_and_error
from invdiff.solvers import registry

DOCS = Path(__file__).resolve().parents[1] / "docs"
PROBLEMS = 4


def measured(name: str) -> dict[str, Any]:
    """Distances in every cell, problem and cloud, and what they cost."""
    solver = registry()[name]()
    began, found = time.perf_counter(), {}
    for d, dy in CELLS:
        rows = [distances(solver, d, dy, p) for p in range(PROBLEMS)]
        if None not in rows:
            found[f"{d},{dy}"] = [[round(v, 5) for v in row] for row in rows if row]
    seconds = time.perf_counter() - began
    return {"steps": solver.num_steps, "seconds": round(seconds, 1), "distances": found}


def cells(found: dict[str, Any]) -> list[str]:
    """A row's cells: mean and standard error in each cell of the protocol."""
    told = []
    for d, dy in CELLS:
        rows = found["distances"].get(f"{d},{dy}")
        mean, error = mean_and_error(rows) if rows else (0.0, 0.0)
        told.append(f"{mean:.2f} ± {error:.2f}" if rows else "cannot")
    return told


def page(record: dict[str, Any]) -> str:
    """docs/posterior.md."""
    head = ["solver", "steps", *(f"d = {d}, {dy} measurements" for d, dy in CELLS)]
    lines = [
        "# Distance to the true posterior",
        "",
        "Measured by `python benchmarks/posterior.py`: sliced Wasserstein-1 distance between 50",
        "samples of a solver and 50 of the exact posterior of GMM-25 (a mixture of 25 normal laws;",
        f"Cardoso et al. 2024, arXiv 2308.07983), mean over {PROBLEMS} problems and 4 clouds each,",
        "with the standard error that the clouds' spread gives. Every solver has the defaults of",
        "its paper, which were not tuned for these problems; the denoiser is exact. The lower the",
        "better: `exact` is the distance of two clouds of the exact posterior, and",
        "`unconditional` that of a sampler that ignores the measurement. Solvers for noiseless",
        "data get noiseless measurements, and are compared with the posterior of these. `cannot`:",
        "the solver asks for another kind of problem.",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
    ]
    names = sorted(record, key=lambda n: (n != "exact", cells(record[n])[0], n))
    for name in names:
        lines.append(
            f"| `{name}` | {record[name]['steps'] or ''} | {' | '.join(cells(record[name]))} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and write both files."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("names", nargs="*", help="solvers; all when none is named")
    names = p.parse_args().names or ["exact", *registry()]
    torch.set_num_threads(1)
    file = DOCS / "posterior.json"
    record = json.loads(file.read_text()) if file.is_file() else {}
    for name in tqdm(names, unit="solver"):
        if name == "exact":
            rows = {f"{d},{dy}": [floor(d, dy, p) for p in range(PROBLEMS)] for d, dy in CELLS}
            record[name] = {"steps": 0, "seconds": 0.0, "distances": rows}
        else:
            record[name] = measured(name)
        file.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        (DOCS / "posterior.md").write_text(page(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
