"""Real measurements, without a truth: how well answers explain the data, and data they never saw.

    python benchmarks/real.py mri [--out docs/real-data.md]      8-coil k-space of a head
    python benchmarks/real.py ct                                 the sinogram of a tooth
    python benchmarks/real.py page                               the page again, from real-data.json

The data are those of examples/. Each run measures, draws images/real-*.webp beside the page, and
writes the page again. sigpy is needed (the extra mri).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from invdiff import Prior, fbp, load_prior, solve
from invdiff.core import InvdiffError
from invdiff.files.figures import overview
from invdiff.operators.algebra.krylov import least_squares
from invdiff.operators.coils import root_sum_of_squares
from invdiff.operators.radon import Radon
from invdiff.problem.whiten import whiten
from invdiff.solvers import Solver
from invdiff.tasks import TASKS
from invdiff.tasks.auto import configured
from real_data import Real, brain, tooth
from real_page import page
from tv import total_variation

SOLVERS = {
    "mri": ("diffpir", "mmps", "score-mri", "score-medical", "dps", "csgm"),
    "ct": ("diffpir", "pigdm", "mmps", "score-medical", "mcg"),
}
BOUND = {"score-medical": 6, "mcg": 4}
"""Iterations of the pseudo-inverse of CT: more would put the noise into the result."""
CASES: dict[str, list[tuple[str, Callable[[], Real]]]] = {
    "mri": [("real-brain.webp", brain)],
    "ct": [
        ("real-tooth-181.webp", lambda: tooth(None, 4)),
        ("real-tooth-30.webp", lambda: tooth(30, 2)),
        ("", lambda: tooth(30, 2, corrected=False)),
    ],
}
"""What is measured: the name of its picture, "" for the first solver and no picture."""
MOST = 60
"""Views above which sigpy's total variation would take longer than all else."""
WHITE = 1.2
"""Magnitude of a head that is drawn white."""


def answer(real: Real, name: str, cost: str, seconds: float, samples: Tensor) -> dict:
    """A record: what samples (n, C, H, W) leave of the data, and of what they never saw."""
    mean, one = samples.mean(0, keepdim=True), samples[:1]
    found: dict = {"data": real.title, "answer": name, "cost": cost, "seconds": seconds}
    for key, f in (("chi2", real.chi2), ("told", real.told), ("held", real.held)):
        found[key] = [f(mean)] + ([f(one)] if len(samples) > 1 else [])
    for region in real.regions:
        found[region] = real.within(region, one)
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


def classical(real: Real, task: str) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Name and reconstruction, without a prior that was learnt."""
    p = real.problem
    if task == "mri":
        yield "zero-filled", lambda: p.linear.adjoint(p.y)
        yield "SENSE, ridge 0.02", lambda: p.linear.solve(p.linear.adjoint(p.y), 0.02)
        yield "total variation", lambda: by_discrepancy(real)
    else:
        assert isinstance(p.A, Radon)
        A = p.A
        air = torch.full((1, *p.x_shape), -1.0)
        yield "filtered back-projection", lambda: air + fbp(p.residual(air), A)
        yield "least squares, 12 steps of CGLS", lambda: early(real, air)
        if len(A.angles) <= MOST:
            yield "total variation", lambda: by_discrepancy(real)


def early(real: Real, air: Tensor, steps: int = 12) -> Tensor:
    """Least squares by CGLS from air, stopped early."""
    p = whiten(real.problem)
    return air + least_squares(p.linear, p.residual(air), steps)


def by_discrepancy(real: Real) -> Tensor:
    """Total variation with the largest of some weights that explains the data as told: chi2 < 1.

    Morozov's principle; where none does, the smallest weight.
    """
    white = whiten(real.problem)
    for step in range(8):
        x = total_variation(white, white.sigma_y * 3 * 0.5**step)
        if real.told(x) < 1:
            break
    return x


def measure(
    real: Real, task: str, prior: Prior, names: list[str], samples: int, plain: bool
) -> tuple[list[dict], dict]:
    """Records of all answers, and the pictures to be drawn. plain: those without a prior, too."""
    rows, pictures = [], {}
    for name, reconstruct in classical(real, task) if plain else ():
        began = time.perf_counter()
        x = reconstruct()
        rows.append(answer(real, name, "-", time.perf_counter() - began, x))
        pictures[name] = x[0]
    for name in names:
        p = real.problem
        if task == "ct" and name in BOUND:
            A = dataclasses.replace(p.A, cg_iterations=BOUND[name])  # type: ignore[type-var]
            p = dataclasses.replace(p, A=A)
        solver: Solver = configured(TASKS[task], name, p)
        try:
            r = solve(p, prior, solver, samples, seed=0)
        except InvdiffError as error:
            print(f"{real.title}, {name}: {error}", file=sys.stderr, flush=True)
            continue
        cost = f"{r.nfe}" + (f" + {r.vjps} VJP" if r.vjps else "")
        rows.append(answer(real, name, cost, r.seconds, r.samples[0]))
        pictures[name] = r.mean[0]
        if name == names[0] and samples > 1:
            pictures["std"] = r.samples[0].std(0)
    return rows, pictures


def draw(task: str, title: str, pictures: dict[str, Tensor], file: Path) -> None:
    """One sheet."""

    def shown(x: Tensor) -> Tensor:
        if task == "mri":
            return (root_sum_of_squares(x[None])[0] / WHITE).clamp(0, 1)
        return ((x + 1) / 2).clamp(0, 1)

    std = pictures.pop("std", None)
    sheet = file.with_suffix(".png")
    overview([(n, shown(x)) for n, x in pictures.items()], std, sheet, title)
    from PIL import Image

    with Image.open(sheet) as image:
        image.convert("RGB").save(file, quality=85, method=6)
    sheet.unlink()


def main() -> None:
    """Measure one kind of data, draw it, write the page."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("task", choices=("mri", "ct", "page"))
    p.add_argument("--samples", type=int, default=0, help="of each solver; 4 for mri, 2 for ct")
    p.add_argument("--precision", default="bfloat16", help="of the prior's network")
    p.add_argument("--out", type=Path, default=Path("docs/real-data.md"))
    p.add_argument("--cases", type=int, nargs="*", help="numbers of the cases to run; all of them")
    p.add_argument("--solvers", nargs="*", help="other solvers than those of the page")
    args = p.parse_args()
    torch.set_num_threads(1)
    store = args.out.with_suffix(".json")

    def kept() -> dict:
        return json.loads(store.read_text()) if store.is_file() else {}

    samples = args.samples or {"mri": 4, "ct": 2, "page": 0}[args.task]
    (args.out.parent / "images").mkdir(parents=True, exist_ok=True)
    for number, (file, case) in enumerate(CASES.get(args.task, [])):
        if args.cases is not None and number not in args.cases:
            continue
        real = case()
        prior = load_prior({"mri": "brain", "ct": "ct"}[args.task], precision=args.precision)
        names = args.solvers or list(SOLVERS[args.task][: None if file else 1])
        rows, pictures = measure(real, args.task, prior, names, samples, bool(file))
        done = {"title": real.title, "facts": real.facts, "samples": samples, "rows": rows}
        store.write_text(json.dumps(kept() | {f"{args.task} {number}": done}, indent=1) + "\n")
        if file:
            title = f"{real.title}: one sample"
            if samples > 1:
                title = f"{real.title}: means of {samples} samples, uncertainty of {names[0]}"
            draw(args.task, title, pictures, args.out.parent / "images" / file)
    args.out.write_text(page(kept()))


if __name__ == "__main__":
    main()
