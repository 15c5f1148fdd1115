"""Every task of photographs by many solvers, beside a classical answer: what `auto` knows.

    python benchmarks/photographs.py [--tasks NAME ...] [--solvers NAME ...]
    python benchmarks/photographs.py --page          docs/photographs.md again, from the .json

Four photographs that the prior was not trained on, cut to 128 x 128 pixels. What is measured anew
replaces its rows in docs/photographs.json, and the page is written at the end. Solvers run with
their presets of `invdiff.tasks`, the others with at most --steps steps of their paper's schedule.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import restoration
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import NOISELESS, GaussianNoise, Noise, Poisson
from invdiff.operators.algebra import Linear, Operator
from invdiff.operators.bayer import Bayer
from invdiff.operators.blur_kernels import gaussian_kernel
from invdiff.operators.hdr import HDR
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.jpeg import JPEG
from invdiff.operators.phase import CodedDiffraction
from invdiff.operators.sensing import WalshHadamard
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.problem import Case, Problem
from invdiff.problem.metrics import align, best_by_residual, psnr, ssim
from invdiff.sampling.needs import Need, missing
from invdiff.sampling.run import row_seed, solve
from invdiff.solvers import registry
from invdiff.tasks import TASKS
from invdiff.tasks.auto import choose
from medical import LEFT_OUT, configured

PAGE = restoration.DOCS / "photographs.md"
RECORD = PAGE.with_suffix(".json")
SIZE = (128, 128)
PEAK = 30.0


def photographs() -> Tensor:
    """The middles of four of the benchmark's photographs, (4, 3, 128, 128) on [-1, 1]."""
    return restoration.photographs()[::3, :, 64:192, 64:192].contiguous()


# ------------------------------------------------------------------------------- classical answers


def unfolded(case: Case) -> Tensor:
    """The measurement itself, or the image that the pseudo-inverse makes of it."""
    A, y = case.problem.A, case.problem.y
    return A.pinv(y) if isinstance(A, Linear) else y


def bilinear(case: Case) -> Tensor:
    """Every colour of a mosaic by the mean of its nearest known pixels."""
    A, y = case.problem.A, case.problem.y
    assert isinstance(A, Bayer)
    x, weight = A.adjoint(y), A.adjoint(torch.ones_like(y))
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    kernel = kernel.expand(x.shape[1], 1, 3, 3)
    near = [F.conv2d(t, kernel, padding=1, groups=x.shape[1]) for t in (x, weight)]
    return torch.where(weight > 0, x, near[0] / near[1])


def unclipped(case: Case) -> Tensor:
    """y / gain: right where nothing was clipped."""
    A = case.problem.A
    assert isinstance(A, HDR)
    return case.problem.y / A.gain


def stabilised(case: Case) -> Tensor:
    """Non-local means of the counts after Anscombe's transform, inverted algebraically."""
    noise = case.problem.noise
    assert isinstance(noise, Poisson)
    z = 2 * (noise.rate(case.problem.y) + 0.375).sqrt()
    level = Problem(z, case.problem.A, GaussianNoise(1.0), case.problem.x_shape)

    def counts(x: Tensor) -> Tensor:
        return ((x / 2).square() - 0.375).clamp_min(0) / noise.gain + noise.black

    answers = restoration.nlm_answers(Case(level, case.truth))
    return restoration.best(case, [counts(x) for x in answers])


def nothing(case: Case) -> Tensor:
    """Middle grey: magnitudes alone show no image."""
    return torch.zeros_like(case.truth)


# --------------------------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Row:
    """A measurement of the photographs and its classical answer. sigma is on [0, 1]."""

    task: str
    title: str
    operator: Callable[[], Operator]
    classical: str
    baseline: Callable[[Case], Tensor]
    sigma: float = 0.0
    noise: Noise | None = None

    def case(self, truth: Tensor) -> Case:
        """The measurement; its noise is always the same."""
        A = self.operator()
        noise = self.noise or GaussianNoise.on_unit_range(self.sigma)
        y = noise.sample(A(truth), Rng.of([row_seed(2026, i, 0) for i in range(len(truth))]))
        return Case(Problem(A.restrict(y), A, noise, tuple(truth.shape[1:])), truth)


def _of(name: str, **options: object) -> Callable[[], Operator]:
    return lambda: restoration.task(name, options).operator(SIZE)


ROWS = (
    Row("inpaint", "half of the pixels at random are missing",
        lambda: Inpaint.random(SIZE, 0.5, seed=0), "biharmonic", restoration.biharmonic),
    Row("super-resolution", "antialiased bicubic x4, noise 0.01",
        _of("super-resolution", scale=4), "bicubic", restoration.bicubic, 0.01),
    Row("deblur", "Gaussian blur of 2 pixels, noise 0.02",
        _of("deblur", kernel=gaussian_kernel(2.0), boundary="reflect"), "Wiener",
        restoration.best_wiener, 0.02),
    Row("denoise", "noise 0.1", _of("denoise", noise=0.1),
        "non-local means", restoration.best_nlm, 0.1),
    Row("colorize", "luma only, noise 0.01", _of("colorize"), "grey", unfolded, 0.01),
    Row("demosaic", "RGGB, noise 0.01", _of("demosaic", pattern="RGGB"), "bilinear", bilinear,
        0.01),
    Row("jpeg", "quality 10, 4:2:0", lambda: JPEG(10), "decoded", unfolded, noise=NOISELESS),
    Row("hdr", "contrast doubled, then clipped; noise 0.01", _of("hdr", gain=2.0), "y / gain",
        unclipped, 0.01),
    Row("low-light", f"{PEAK:g} photons in a white pixel", _of("low-light", peak=PEAK),
        "Anscombe, non-local means", stabilised, noise=Poisson(PEAK)),
    Row("phase-retrieval", "magnitudes behind 2 random masks, noise 0.01",
        lambda: CodedDiffraction.random(SIZE, 2, seed=0), "middle grey", nothing, 0.01),
    Row("compressed-sensing", "a quarter of the Walsh-Hadamard coefficients, noise 0.01",
        lambda: WalshHadamard(SIZE[0] * SIZE[1] // 4, SIZE, order="sequency"), "pseudo-inverse",
        unfolded, 0.01),
)  # fmt: skip


# --------------------------------------------------------------------------------------- the record


def quality(x: Tensor, case: Case) -> tuple[float, float]:
    """Mean PSNR in dB and SSIM, signs that A cannot tell being right."""
    x = align(x, case.truth, case.problem.A).clamp(-1, 1)
    return (float(psnr(x, case.truth, (-1, 1)).mean()), float(ssim(x, case.truth, (-1, 1)).mean()))


def misfit(x: Tensor, problem: Problem) -> float | None:
    """Mean square of the residual over the variance of the noise; None where that is no number."""
    if not isinstance(problem.noise, GaussianNoise) or not problem.sigma_y:
        return None
    seen = problem.A.restrict(torch.ones_like(problem.y)).abs().sum()
    return float(problem.residual(x).square().sum() / seen) / problem.sigma_y**2


def measure(row: Row, prior: Prior, args: argparse.Namespace) -> Iterator[dict]:
    """A record for each answer to one measurement."""
    case = row.case(photographs())
    p = case.problem
    chosen = choose(TASKS[row.task], p)[0].name

    def record(answer: str, estimate: Tensor, one: Tensor | None, cost: str) -> dict:
        found = {"task": row.task, "answer": answer, "mean": quality(estimate, case), "cost": cost,
                 "one": quality(estimate if one is None else one, case)[0],
                 "misfit": misfit(estimate if one is None else one, p),
                 "auto": answer == chosen}  # fmt: skip
        print(json.dumps(found), file=sys.stderr, flush=True)
        return found

    classical = row.baseline(case)
    yield record(row.classical, classical, None, "-")
    for name in registry():
        if name in LEFT_OUT or (args.solvers and name not in args.solvers):
            continue
        solver = configured(row.task, name, p, args.steps)
        if missing(solver, p, prior):
            continue
        try:
            result = solve(p, prior, solver, args.samples, seed=0)
        except InvdiffError as error:
            print(f"{row.task}, {name}: {error}", file=sys.stderr, flush=True)
            yield {"task": row.task, "answer": name, "failed": str(error), "auto": name == chosen}
            continue
        phase = row.task == "phase-retrieval"
        estimate = best_by_residual(result.samples, p) if phase else result.mean
        cost = f"{result.nfe}" + (f" + {result.vjps} VJP" if result.vjps else "")
        yield record(name, estimate, result.samples[:, 0], cost)


# ----------------------------------------------------------------------------------------- the page

HEAD = """\
# Photographs, by solver

Four photographs that the prior `photo` was not trained on, the middle 128 x 128 pixels. PSNR in dB
and SSIM of the mean of {samples} samples, and PSNR of one sample. The misfit is that of one sample:
the mean square of its residual over the variance of the noise, near 1 where it explains the
measurement and no more. Bold is what `auto` takes. Constants of classical answers are the best for
each table, chosen with the truth in hand. Knobs of solvers are those that `invdiff.tasks` presets
for the task, which were found by trials on photographs of this benchmark, these among them; where
there is no preset, they are the paper's, with at most {steps} steps: what needs its 1000 steps and
more would do better with them. Cost is evaluations of the network, and vector-Jacobian products
through it. The network runs in {precision}. The mean of more samples is better:
[restoration.md](restoration.md) takes 8. A solver without a row in a table cannot (`invdiff solvers
--task NAME` says why), or is named below. Made by

    python benchmarks/photographs.py --samples {samples} --steps {steps} --precision {precision} \\
        --solvers {solvers}
"""


def page(found: list[dict], facts: dict) -> str:
    """The page: a table for each task."""
    rows = {f["answer"] for f in found}
    measured = " ".join(n for n in registry() if n in rows)
    parts = [HEAD.format(solvers=measured, **facts)]
    for row in ROWS:
        mine = [f for f in found if f["task"] == row.task]
        if not mine:
            continue
        mine.sort(key=lambda f: (f["answer"] in registry(), f["answer"]))  # first without a prior
        estimate = "best of" if row.task == "phase-retrieval" else "mean of"
        parts += [f"\n## {row.task}\n", f"{row.title[0].upper()}{row.title[1:]}.\n",
                  f"| answer | cost | {estimate} {facts['samples']} | one | misfit |",
                  "|---|---|---|---|---|"]  # fmt: skip
        for f in mine:
            name = f"**{f['answer']}**" if f["auto"] else f["answer"]
            if "failed" in f:
                parts.append(f"| {name} | - | diverged | | |")
                continue
            seen = "-" if f["misfit"] is None else f"{f['misfit']:.2f}"
            one = "" if f["cost"] == "-" else f"{f['one']:.2f}"
            mean = f"{f['mean'][0]:.2f} / {f['mean'][1]:.3f}"
            parts.append(f"| {name} | {f['cost']} | {mean} | {one} | {seen} |")
    left = "; ".join(f"`{name}`: {why}" for name, why in LEFT_OUT.items())
    others = (n for n, cls in registry().items() if Need.AUTOENCODER not in cls.needs)
    absent = ", ".join(f"`{n}`" for n in others if n not in rows | set(LEFT_OUT))
    return "\n".join([*parts, "", f"Left out: {left}.", f"Not measured: {absent}."]) + "\n"


def main() -> None:
    """Measure what was asked for, and write the page."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--tasks", nargs="*", default=None)
    p.add_argument("--solvers", nargs="*", default=None)
    p.add_argument("--samples", type=int, default=2)
    p.add_argument("--steps", type=int, default=50, help="at most, where there is no preset")
    p.add_argument("--precision", default="bfloat16")
    p.add_argument("--page", action="store_true", help="measure nothing")
    args = p.parse_args()
    facts = {"samples": args.samples, "steps": args.steps, "precision": args.precision}
    kept = json.loads(RECORD.read_text()) if RECORD.is_file() else {"facts": facts, "rows": []}
    if not args.page and kept["facts"] != facts:
        kept["rows"] = []  # of other budgets
    facts = kept["facts"] if args.page else facts
    rows = {(f["task"], f["answer"]): f for f in kept["rows"]}
    prior = load_prior("photo", precision=args.precision)
    for row in () if args.page else ROWS:
        if args.tasks and row.task not in args.tasks:
            continue
        for f in measure(row, prior, args):
            rows[(f["task"], f["answer"])] = f
        RECORD.write_text(json.dumps({"facts": facts, "rows": list(rows.values())}, indent=1))
    PAGE.write_text(page(list(rows.values()), facts))


if __name__ == "__main__":
    main()
