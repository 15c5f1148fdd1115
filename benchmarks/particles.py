"""What particles buy: distance to the posterior of GMM-25, in nine cells and as clouds grow.

    python benchmarks/particles.py cells [NAME ...]     docs/particles.json, rows of nine cells
    python benchmarks/particles.py others [NAME ...]    the same of azula and deepinv, if there
    python benchmarks/particles.py growth [NAME ...]    the same file, clouds of 100 to 10 000
    python benchmarks/particles.py page                 docs/particles.md of these figures
    python benchmarks/particles.py cells --problems 60 NAME ...     of more problems than 20

All distances are sliced Wasserstein-2, as in docs/audit.md, of clouds of equal size; beside
each stands the floor: that of two exact clouds of that size, on the same problems.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import others
from invdiff.audit.cells import ratio_and_error
from invdiff.audit.distance import WIDE, drawn
from invdiff.audit.gmm25 import GMM25, gmm25_problem
from invdiff.core.schedules import VE
from invdiff.sampling.solver import Solver
from invdiff.solvers.ddsmc import DDSMC
from invdiff.solvers.mcgdiff import MCGDiff
from invdiff.solvers.mmps import MMPS
from invdiff.solvers.pigdm import PiGDM
from invdiff.solvers.tds import TDS

FILE = Path(__file__).resolve().parents[1] / "docs" / "particles.json"
NINE = tuple((d, dy) for d in (8, 80, 800) for dy in (1, 2, 4))
SMALL = ((8, 2), (80, 2))
FALLING = VE(100, 150.0, 0.02)
SIZES = (100, 1000, 10_000)
PROBLEMS, GROWN, SAMPLES, SLICES = 20, 6, 320, 500
Measured = Solver | others.Row | None
"""A solver, one of another library, or exact samples."""
MOMENTS = TDS(twist="moments", kernel="analytic", schedule=WIDE)
CELL_ROWS: dict[str, Measured] = {
    "exact": None,
    "tds, moments, 16 particles": MOMENTS,
    "tds, moments, 16 particles, 30 steps": MOMENTS.with_steps(30),
    "tds, moments, 16 particles, DDPM's kernel": TDS(twist="moments", schedule=WIDE),
    "tds, moments, 4 particles": dataclasses.replace(MOMENTS, particles=4),
    "tds, frozen, 16 particles": dataclasses.replace(MOMENTS, twist="frozen", iterations=4),
    "tds, isotropic, 16 particles": dataclasses.replace(MOMENTS, twist="isotropic"),
    "mmps, weights": MMPS(4, weights=True, schedule=WIDE),
    "mmps, weights, 200 steps": MMPS(4, weights=True, schedule=WIDE).with_steps(200),
    "mmps, white, weights": MMPS(4, covariance="white", weights=True, schedule=WIDE),
    "mmps": MMPS(4, schedule=WIDE),
    "pigdm": PiGDM(schedule=WIDE),
    "ddsmc, 16 particles": DDSMC(schedule=FALLING),
    "ddsmc, 16 particles, share 0.15": DDSMC(share=0.15, schedule=VE(100, 300.0, 0.02)),
    "ddsmc, all particles in one cloud": DDSMC(10_000, schedule=VE(100, 300.0, 0.02)),
}
GROWING: dict[str, Solver | None] = {
    "exact": None,
    "mcgdiff": MCGDiff(schedule=WIDE),
    "ddsmc": DDSMC(schedule=VE(100, 300.0, 0.02)),
    "tds, isotropic": dataclasses.replace(MOMENTS, twist="isotropic"),
    "tds, moments": MOMENTS,
}


def samples(solver: Measured, cell: GMM25, size: int, seed: int = 20_000) -> Tensor:
    """Of a solver, of another library, or exact ones."""
    if solver is None:
        return cell.posterior().sample(size, seed)
    if isinstance(solver, Solver):
        return drawn(solver, cell.problem, cell.prior, size)[0]
    return solver(cell, size)


def distance(solver: Measured, d: int, dy: int, number: int, size: int) -> tuple[float, float]:
    """Sliced W2 to as many exact samples, and total variation of the shares of modes."""
    cell = gmm25_problem(d, dy, number)
    x, posterior = samples(solver, cell, size), cell.posterior()
    nearest = torch.cdist(x.double().flatten(1), cell.prior.means.flatten(1)).argmin(1)
    share = torch.bincount(nearest, minlength=25) / size
    modes = 0.5 * float((share - posterior.weights).abs().sum())
    return cell.distance(x, posterior.sample(size, 10_000), SLICES, order=2), modes


def measured(
    solver: Measured, cells: Sequence[tuple[int, int]], problems: int, size: int
) -> dict[str, Any]:
    """Both figures by cell, one number a problem."""
    began, found = time.process_time(), {}
    for d, dy in cells:
        pairs = [distance(solver, d, dy, p, size) for p in range(problems)]
        figures = [[round(v, 4) for v in values] for values in zip(*pairs, strict=True)]
        found[f"{d},{dy}"] = {"distance": figures[0], "modes": figures[1]}
    return {"cells": found, "cpu_seconds": round(time.process_time() - began, 1)}


def everywhere(row: dict[str, Any], key: str) -> list[float]:
    """A figure of all problems of all cells."""
    return [v for cell in row["cells"].values() for v in cell[key]]


def problems_of(row: dict[str, Any]) -> int:
    """How many problems of each cell a row has."""
    return min(len(cell["distance"]) for cell in row["cells"].values())


def over_floor(row: dict[str, Any], exact: dict[str, Any]) -> tuple[float, float]:
    """The mean distance over that of exact samples on the same problems, and its standard error."""
    each = [(v["distance"], exact["cells"][c]["distance"]) for c, v in row["cells"].items()]
    return ratio_and_error([p for values, e in each for p in zip(values, e, strict=False)])


def nine(record: dict[str, Any]) -> list[str]:
    """The table of nine cells: means over problems, and the ratio of the means over all."""
    cells = [f"{d},{dy}" for d, dy in NINE]
    lines = [
        f"| solver | problems | {' | '.join(c.replace(',', ' / ') for c in cells)} "
        "| mean | of the floor | modes |",
        "|---" * (len(cells) + 5) + "|",
    ]
    names = [*CELL_ROWS, *(n for n in record if n not in CELL_ROWS)]
    for name in (n for n in names if n in record):
        row = record[name]
        each = [statistics.mean(row["cells"][c]["distance"]) for c in cells]
        values = everywhere(row, "distance")
        error = statistics.stdev(values) / math.sqrt(len(values))
        told = [f"{v:.2f}" for v in each] + [f"{statistics.mean(values):.2f} ± {error:.2f}"]
        told += ["{:.2f} ± {:.2f}".format(*over_floor(row, record["exact"]))]
        told += [f"{statistics.mean(everywhere(row, 'modes')):.3f}"]
        lines.append(f"| {name} | {problems_of(row)} | {' | '.join(told)} |")
    return lines


def slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Of log value against log size, by least squares."""
    x, y = [math.log(n) for n in sizes], [math.log(v) for v in values]
    mx, my = statistics.mean(x), statistics.mean(y)
    top = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return top / sum((a - mx) ** 2 for a in x)


def grown(record: dict[str, Any]) -> list[str]:
    """The table of growing clouds: means over the problems of both cells, and slopes."""
    head = " | ".join(f"distance, {n:,} | modes" for n in SIZES)
    lines = [f"| solver | {head} | slope of distance | of modes |", "|---" * 9 + "|"]
    for name in GROWING:
        rows = [record.get(f"{name}, {n}") for n in SIZES]
        if not all(rows):
            continue
        means = [
            [statistics.mean(everywhere(r, key)) for r in rows if r]
            for key in ("distance", "modes")
        ]
        told = [f"{d:.3f} | {m:.3f}" for d, m in zip(*means, strict=True)]
        told += [f"{slope(SIZES, values):.2f}" for values in means]
        lines.append(f"| {name} | {' | '.join(told)} |")
    return lines


TEXT = f"""# What particles buy

Measured by `python benchmarks/particles.py`, on the CPU, with the exact denoiser of GMM-25 (see
[audit.md](audit.md)). Distances are sliced Wasserstein-2 to as many exact samples; `exact`
is the floor: what as many exact samples get, on the same problems. modes: total variation of the
modes' shares.

## Nine cells

Unknowns / numbers measured; the first so many problems of each cell, {SAMPLES} samples of each
problem, 100 steps unless said otherwise. `tds` has the analytic kernel but where DDPM's is named.
After ± is the standard error over all problems. "of the floor": the mean over that of exact samples
on the same problems. `tds` and `mmps` travel from sigma 1000 to 0.02,
`ddsmc` geometrically, from 150 and from 300. `mmps` and `pigdm` are single chains; "weights": they
are resampled by their weights once, all 320 together; "white": no gradient is taken.
`azula` and `deepinv` are other libraries (`python benchmarks/particles.py others`), with their
defaults and the same exact denoiser, geometrically from 300; `benchmarks/others.py` tells more.
deepinv 0.5.0 ran with torch 2.14.1 and torchvision 0.29.1, all else with torch 2.13.0.

""".splitlines()
MORE = f"""
## Larger clouds

One cloud of so many particles, resampled to as many samples: means over {GROWN} problems of each of
the cells 8 / 2 and 80 / 2. A slope of -1/2 is that of Monte Carlo.

""".splitlines()


def main() -> int:
    """Measure what is asked for, and write the file or the page."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("what", choices=("cells", "others", "growth", "page"))
    p.add_argument("names", nargs="*", help="rows; all when none is named")
    p.add_argument("--problems", type=int, default=PROBLEMS, help="of each of the nine cells")
    args = p.parse_intermixed_args()
    torch.set_num_threads(1)
    record = json.loads(FILE.read_text()) if FILE.is_file() else {"cells": {}, "growth": {}}
    kinds: dict[str, dict[str, Any]] = {"cells": CELL_ROWS, "growth": GROWING, "page": {}}
    rows = others.rows() if args.what == "others" else kinds[args.what]
    for name in args.names or rows:
        solver = rows[name]
        for size in SIZES if args.what == "growth" else (SAMPLES,):
            record = json.loads(FILE.read_text()) if FILE.is_file() else record
            if args.what != "growth":
                record["cells"][name] = measured(solver, NINE, args.problems, size)
            else:
                one: Any = solver and dataclasses.replace(solver, particles=size)
                record["growth"][f"{name}, {size}"] = measured(one, SMALL, GROWN, size)
            FILE.write_text(json.dumps(record, indent=None).replace('}, "', '},\n"') + "\n")
            print(name, size, flush=True)
    larger = [*MORE, *grown(record["growth"])] if record["growth"] else []
    page = [*TEXT, *nine(record["cells"]), *larger]
    FILE.with_suffix(".md").write_text("\n".join(page) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
