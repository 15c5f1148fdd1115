"""MRI and CT of held-out slices from few samples: every solver that can, beside total variation.

    python benchmarks/medical.py mri --data brain128.tar [--out docs/mri.md]
    python benchmarks/medical.py ct --data chestct256_hu.npz [--out docs/ct.md]
    python benchmarks/medical.py coils --data brain128.tar [--bart]
    python benchmarks/medical.py ct --data PATH --slices 1 --scans 0 --picture FILE.webp

The data are what the prior was trained on; the slices that its recipe held out are measured here.
MRI is simulated with lines of a 128 x 128 k-space, for one coil and for eight, with a random smooth
phase; CT with parallel rays. Total variation is sigpy's, with its weight chosen with the truth in
hand. `coils` is a simulated head in measured coils (measured_coils.py), beside total variation and
L1-wavelets of sigpy, converged, and with --bart of BART. PSNR and SSIM are of magnitudes on [0, 1]
(MRI) and of -1024..1500 HU (CT). Solvers run with their presets of `invdiff.tasks`, the others with
at most --steps steps of their paper's schedule.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.files.figures import overview
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Linear
from invdiff.operators.coils import ring_maps
from invdiff.operators.mri import Fourier, Sense
from invdiff.operators.radon import Radon, sparse_view
from invdiff.operators.sampling import acceleration, gaussian_lines
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.problem import Case, Problem
from invdiff.problem.metrics import psnr, ssim
from invdiff.sampling.needs import missing
from invdiff.sampling.run import row_seed, solve
from invdiff.sampling.solver import Solver
from invdiff.solvers import registry
from invdiff.tasks import TASKS, auto
from invdiff.train.data import centre_crops
from invdiff.train.files import read
from invdiff.train.recipes import recipe
from measured_coils import table
from tv import total_variation

LEFT_OUT = {
    "unconditional": "it ignores y",
    "score-prior": "it fits a law to each measurement, for images of 28 x 28",
    "pyramid": "it needs a prior of several scales",
    "ccdf": "it is a later start of another solver",
}


@dataclass(frozen=True, eq=False)
class Scan:
    """A simulated measurement, and what is compared: magnitudes or attenuation on [0, 1]."""

    title: str
    case: Case
    complex: bool

    def shown(self, x: Tensor) -> Tensor:
        """The part of an image that is scored, (n, 1, H, W) on [0, 1]."""
        x = x.square().sum(1, keepdim=True).sqrt() if self.complex else (x + 1) / 2
        return x.clamp(0, 1)

    def score(self, x: Tensor) -> tuple[float, float]:
        """Mean PSNR in dB and SSIM."""
        a, b = self.shown(x), self.shown(self.case.truth)
        return float(psnr(a, b, (0, 1)).mean()), float(ssim(a, b, (0, 1)).mean())

    def misfit(self, x: Tensor) -> float:
        """Mean square of the residual of what was measured, over the variance of the noise."""
        p = self.case.problem
        r, seen = p.residual(x), p.A.restrict(torch.ones_like(p.y))
        r = torch.view_as_real(r) if r.is_complex() else r
        count = float(seen.abs().sum()) * (2 if p.y.is_complex() else 1)
        return float(r.square().sum()) / count / p.sigma_y**2


def measured(A: Linear, truth: Tensor, sigma: float) -> Case:
    """The measurement of each slice; the noise of a slice is always the same."""
    noise = GaussianNoise(sigma)
    y = noise.sample(A(truth), Rng.of([row_seed(2026, i, 0) for i in range(len(truth))]))
    return Case(Problem(y, A, noise, tuple(truth.shape[1:])), truth)


def mri(truth: Tensor, sigma: float) -> Iterator[Scan]:
    """One coil and eight, R = 4 and 8, 8 % and 4 % of the lines being in the middle."""
    size = (int(truth.shape[-2]), int(truth.shape[-1]))
    for coils in (1, 8):
        for R in (4, 8):
            mask = gaussian_lines(size, R, seed=0)
            A: Linear = Fourier(mask)
            if coils > 1:
                A = Sense(ring_maps(coils, size), mask, cg_iterations=10)
            title = (
                f"{'one coil' if coils == 1 else f'{coils} coils'}, R = {acceleration(mask)[0]:.2f}"
            )
            yield Scan(title, measured(A, truth, sigma), True)


def ct(truth: Tensor, sigma: float) -> Iterator[Scan]:
    """23 and 60 views over half a turn, the operator scaled to a norm of 1."""
    size = (int(truth.shape[-2]), int(truth.shape[-1]))
    for views in (23, 60):
        pixel = 1 / Radon(sparse_view(views), size).norm()
        A = Radon(sparse_view(views), size, pixel=pixel, cg_iterations=20)
        yield Scan(f"{views} views", measured(A, truth, sigma), False)


# -------------------------------------------------------------------------------- classical answers


def first_guess(scan: Scan) -> tuple[str, Tensor]:
    """What the measurement gives without a prior."""
    p = scan.case.problem
    if not scan.complex:
        from invdiff.operators.tomography import fbp

        assert isinstance(p.A, Radon)
        return "filtered back-projection", fbp(p.y, p.A)
    if isinstance(p.A, Sense):
        return "SENSE (least squares)", p.linear.pinv(p.y)
    return "zero-filled", p.linear.pinv(p.y)


def best_total_variation(scan: Scan) -> Tensor:
    """sigpy's total variation, every slice by itself, the weight of the best mean PSNR."""
    best, found = -np.inf, None
    for weight in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2):
        x = total_variation(scan.case.problem, weight)
        if scan.score(x)[0] > best:
            best, found = scan.score(x)[0], x
    assert found is not None
    return found


# ---------------------------------------------------------------------------------------- the table


def configured(task: str, name: str, problem: Problem, steps: int) -> Solver:
    """The preset of a solver for a task, else its paper's schedule with at most `steps` steps."""
    solver = auto.configured(TASKS[task], name, problem)
    preset = any(p.solver == solver.name for p in TASKS[task].presets)
    if preset or solver.num_steps <= steps:
        return solver
    return solver.with_steps(steps)


def rows(task: str, scan: Scan, prior: Prior, args: argparse.Namespace) -> Iterator[dict]:
    """A record for each answer to one measurement; what it shows of the first slice is in it."""

    def record(name: str, cost: str, x: Tensor, began: float) -> dict:
        quality, structure = scan.score(x)
        found = {
            "scan": scan.title, "solver": name, "cost": cost, "psnr": quality, "ssim": structure,
            "misfit": scan.misfit(x), "seconds": time.perf_counter() - began,
        }  # fmt: skip
        print(json.dumps(found), file=sys.stderr, flush=True)
        return found | {"shown": scan.shown(x)[0]}

    began = time.perf_counter()
    name, x = first_guess(scan)
    yield record(name, "-", x, began)
    began = time.perf_counter()
    yield record("total variation", "-", best_total_variation(scan), began)
    for name in registry():
        if name in LEFT_OUT or (args.solvers and name not in args.solvers):
            continue
        solver = configured(task, name, scan.case.problem, args.steps)
        if missing(solver, scan.case.problem, prior):
            continue
        began = time.perf_counter()
        try:
            result = solve(scan.case.problem, prior, solver, args.samples, seed=0)
        except InvdiffError as error:
            print(f"{scan.title}, {name}: {error}", file=sys.stderr, flush=True)
            yield {"scan": scan.title, "solver": name, "cost": "-", "failed": str(error)}
            continue
        cost = f"{result.nfe}" + (f" + {result.vjps} VJP" if result.vjps else "")
        yield record(name, cost, result.mean, began)


HEADS = {
    "mri": """# MRI from few samples

Magnitudes of {slices} slices of heads that the prior `brain` was not trained on, 128 x 128, with a
random smooth phase, from lines of k-space (8 or 4 % of them in the middle). R is the true
acceleration.""",
    "ct": """# CT from few views

{slices} slices of 256 x 256 that the prior `ct` was not trained on, on -1024 to 1500 HU, from
parallel rays over half a turn.""",
}
READING = """\
Cells are PSNR in dB / SSIM / misfit, of the mean of {samples} samples. The misfit is the mean
square of the residual over the variance of the noise: near 1 for an image that explains the
measurement and no more, far above 1 where an answer has not arrived at the data, near 0 where the
noise was copied; the mean of samples leaves less than a sample does. The weight of total variation
(sigpy, converged) is the best of five, chosen with the truth in hand; nothing of the solvers is.
Solvers have the few knobs that `invdiff.tasks` presets for the task, and at most {steps} steps
where it has none: what needs the 1000 steps and more of its paper would do better with them. Cost
is evaluations of the network, and vector-Jacobian products through it."""


def markdown(found: list[dict], args: argparse.Namespace, slices: int) -> str:
    """The page: a row for each answer, a column for each measurement."""
    scans = list(dict.fromkeys(f["scan"] for f in found))
    solvers = list(dict.fromkeys(f["solver"] for f in found))
    solvers.sort(key=lambda name: name in registry())  # first those without a prior
    lines = [
        HEADS[args.task].format(slices=slices)
        + f" Noise: {args.sigma:g} in each real number, with an operator of norm 1.",
        "",
        READING.format(samples=args.samples, steps=args.steps),
        "",
        f"Made by `python benchmarks/medical.py {args.task} --data PATH --slices {slices} "
        f"--samples {args.samples} --steps {args.steps} --precision {args.precision}`.",
        "",
        "| answer | cost | " + " | ".join(scans) + " |",
        "|---|---|" + "---|" * len(scans),
    ]
    for s in solvers:
        mine = {f["scan"]: f for f in found if f["solver"] == s}
        cells = [
            "-" if t not in mine else "diverged" if "failed" in mine[t]
            else f"{mine[t]['psnr']:.2f} / {mine[t]['ssim']:.3f} / {mine[t]['misfit']:.2f}"
            for t in scans
        ]  # fmt: skip
        cost = next(iter(mine.values()))["cost"]
        lines.append(f"| {s} | {cost} | " + " | ".join(cells) + " |")
    left = "; ".join(f"`{name}`: {why}" for name, why in LEFT_OUT.items())
    lines += ["", f"Left out: {left}."]
    if any(t not in {f["scan"] for f in found if f["solver"] == s} for s in solvers for t in scans):
        lines += ["`-`: the solver cannot (`invdiff solvers` says why), or it is another baseline."]
    picture = f"images/medical-{args.task}.webp"
    if args.out and (args.out.parent / picture).is_file():
        lines += ["", f"![one slice, by every answer]({picture})"]
    return "\n".join(lines) + "\n"


def draw(title: str, panels: list[tuple[str, Tensor]], file: Path) -> None:
    """One slice by every answer."""
    from PIL import Image

    sheet = file.with_suffix(".png")
    overview(panels, None, sheet, title)
    with Image.open(sheet) as image:
        image.convert("RGB").save(file, quality=80, method=6)
    sheet.unlink()


def main() -> None:
    """Measure and print the table."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("task", choices=("mri", "ct", "coils"))
    p.add_argument("--bart", action="store_true", help="of coils: BART's answers too")
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--slices", type=int, default=4)
    p.add_argument("--samples", type=int, default=4)
    p.add_argument("--steps", type=int, default=100, help="at most, where there is no preset")
    p.add_argument("--sigma", type=float, default=0.01, help="noise of a real number of y")
    p.add_argument("--solvers", nargs="*", default=None)
    p.add_argument("--scans", type=int, nargs="*", help="numbers of the measurements; all of them")
    p.add_argument("--precision", default="float32")
    p.add_argument("--picture", type=Path, help="draw the first slice of the last measurement")
    p.add_argument("--out", type=Path, default=None)
    args = p.parse_args()
    name = {"mri": "brain", "ct": "ct", "coils": "brain"}[args.task]
    truth = centre_crops(read(args.data, recipe(name))[1], recipe(name), args.slices)
    assert truth is not None, "no held-out slice is large enough"
    prior = load_prior(name, precision=args.precision)
    if args.task == "coils":
        text = table(truth[:1], prior, args.sigma, args.samples, args.bart)
        print(text)
        if args.out:
            args.out.write_text(text)
        return
    scans = list({"mri": mri, "ct": ct}[args.task](truth, args.sigma))
    scans = scans if args.scans is None else [scans[k] for k in args.scans]
    found = [row for scan in scans for row in rows(args.task, scan, prior, args)]
    if args.picture:
        last = scans[-1]
        panels = [(f["solver"], f["shown"]) for f in found if f["scan"] == last.title]
        first = [("truth", last.shown(last.case.truth)[0])]
        draw(f"{last.title}, means of {args.samples} samples", first + panels, args.picture)
    text = markdown(found, args, len(truth))
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
