"""What the framework costs: sampler time over bare network time, and time per step without one.

    python benchmarks/overhead.py [--prior photo] [--steps 10] [--out docs/overhead.md]
    python benchmarks/overhead.py --problems                 with MRI, CT and a motion blur

The first figure is one run of a solver in which the time inside the network (evaluations and
vector-Jacobian products) is clocked: total / inside, at 256 x 256. The second replaces the network
by a multiplication and divides the processor time of a run by its steps, for 4 x 3 x 64 x 64 on one
thread; the third divides it by the calls of the network, of which some solvers make several a step.

--problems: two samples of 128 x 128 where the data step is iterative, of an image drawn from the
prior (a crop of a photograph for the blur), by the preset of diffpir and by the task's own solver:
total / network and the error to the truth, beside the same run with data steps by plain conjugate
gradients down to round-off, in at most 200 iterations.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import restoration
from invdiff.audit.cost import Clocked, Free
from invdiff.core.rng import Rng
from invdiff.core.schedules import Karras
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.operators import (
    Bicubic,
    Blur,
    Identity,
    Linear,
    Radon,
    Sense,
    equispaced,
    motion_kernel,
    ring_maps,
    sparse_view,
)
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.problem import Problem
from invdiff.sampling.needs import Need, missing
from invdiff.sampling.run import solve
from invdiff.solvers import registry
from invdiff.solvers.spectral_ancestral import SpectralAncestral
from invdiff.solvers.unconditional import Unconditional
from invdiff.tasks import TASKS
from invdiff.tasks.auto import choose, configured

KNOBS = {"score-prior": {"family": "gaussian"}}
"""Instead of defaults that such large images do not allow (a RealNVP is for small ones)."""


def problem(rows: int, side: int, noisy: bool) -> Problem:
    """Super-resolution x4 of `rows` images of side x side."""
    A = Bicubic(4, (side, side))
    y = torch.randn(rows, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(0))
    return Problem(0.3 * y, A, GaussianNoise(0.05) if noisy else NOISELESS, (3, side, side))


def timed(
    prior: Prior, rows: int, side: int, steps: int, name: str, clock: Callable[[], float]
) -> tuple[float, int]:
    """Seconds of a clock that a solver takes for `steps` steps, after one step of warming up, and
    how often it called the network (evaluations and vector-Jacobian products)."""
    solver = registry()[name](**KNOBS.get(name, {})).with_steps(steps)
    p = problem(rows, side, noisy=True)
    if missing(solver, p):
        p = problem(rows, side, noisy=False)
    solve(p, prior, solver.with_steps(1))
    if isinstance(prior, Clocked):
        prior.seconds = 0.0
    began = clock()
    result = solve(p, prior, solver)
    return clock() - began, result.nfe + result.vjps


class _Plain:
    """Data steps by conjugate gradients to round-off, without what is known of the operator."""

    solve, ridge, preconditioner = Linear.solve, Linear.ridge, Linear.preconditioner

    def iterated(self: Any, b: Tensor, shift: float, enough: float = 0.0) -> Tensor:
        return Linear.iterated(self, b, shift)


class PlainBlur(_Plain, Blur):
    """Blur, so."""


class PlainSense(_Plain, Sense):
    """Sense, so."""


class PlainRadon(_Plain, Radon):
    """Radon, so."""


SIDE = 128
KERNEL = motion_kernel(15, 30)


def scanned() -> dict[str, tuple[str, str, Linear, Linear, float, int]]:
    """By name: task, prior, operator, the plain one, noise and steps of diffpir."""
    size = (SIDE, SIDE)
    maps, mask = ring_maps(8, size).to(torch.complex64), equispaced(size, 4)
    angles, pixel = sparse_view(60), 1 / SIDE
    usual, reflected = (
        (Blur(KERNEL, size, edge), PlainBlur(KERNEL, size, edge, cg_tol=0.0))
        for edge in ("unknown", "reflect")
    )
    rays = Radon(angles, size, pixel=pixel), PlainRadon(angles, size, pixel=pixel, cg_tol=0.0)
    coils = Sense(maps, mask), PlainSense(maps, mask, cg_tol=0.0)
    return {
        "MRI, 8 coils, R = 4": ("mri", "brain", *coils, 0.01, 20),
        "CT, 60 views": ("ct", "ct", *rays, 0.01, 10),
        "motion blur": ("deblur", "photo", *usual, 0.02, 10),
        "motion blur, reflected edges": ("deblur", "photo", *reflected, 0.02, 10),
    }


def truth_for(name: str, prior: Prior) -> Tensor:
    """An image drawn from the prior, or a crop of a photograph, (1, C, SIDE, SIDE)."""
    if name == "photo":
        off = (256 - SIDE) // 2
        return restoration.photographs(1)[..., off : off + SIDE, off : off + SIDE].contiguous()
    assert prior.shape is not None
    shape = (int(prior.shape[0] or 1), SIDE, SIDE)
    free = Problem(torch.zeros(1, *shape), Identity(), GaussianNoise(1.0), shape)
    path = Karras(25, 20.0, 0.01)
    return solve(free, prior, Unconditional(schedule=path), seed=5).samples[:, 0]


def problems() -> None:
    """Print the table of total / network with data steps as they are and as they were."""
    head = ["problem", "solver", "total / network", "plain", "error to truth", "plain"]
    print(f"| {' | '.join(head)} |\n|---|---|---|---|---|---|")
    for title, (task, name, A, plain, sigma, steps) in scanned().items():
        prior = load_prior(name)
        truth = truth_for(name, prior)
        y = GaussianNoise(sigma).sample(A(truth), Rng.of([3]))
        p = Problem(y, A, GaussianNoise(sigma), tuple(truth.shape[1:]))
        chosen = choose(TASKS[task], p)[0]
        solvers = [configured(TASKS[task], "diffpir", p).with_steps(steps), chosen]
        told = A.cosine_power(truth[0, 0]) is not None
        if isinstance(chosen, SpectralAncestral) and chosen.preconditioner != "modes" and told:
            solvers.append(replace(chosen, preconditioner="modes"))
        for solver in solvers:
            found = []
            for operator in (A, plain):
                clocked = Clocked(prior, time.process_time)
                began = time.process_time()
                result = solve(replace(p, A=operator), clocked, solver, 2, batch=2)
                ratio = (time.process_time() - began) / clocked.seconds
                error = float((result.samples - truth[:, None]).square().mean().sqrt())
                found.append((ratio, error))
            (now, e), (before, f) = found
            modes = isinstance(solver, SpectralAncestral) and solver.preconditioner == "modes"
            name = f"{solver.name}, modes" if modes else solver.name
            row = [title, name, f"{now:.2f}", f"{before:.2f}", f"{e:.5f}", f"{f:.5f}"]
            print(f"| {' | '.join(row)} |")


def main() -> int:
    """Print the table; exit code 1 when a bar (1.05, 1 ms) is missed."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--prior", default="photo")
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--out", type=Path, default=None)
    p.add_argument("--free-only", action="store_true")
    p.add_argument("--problems", action="store_true")
    args = p.parse_args()
    if args.problems:
        torch.set_num_threads(1)
        problems()
        return 0
    head = ["solver", "total / network", "ms per step without a network", "ms per network call"]
    lines = ["# What solvers cost beside the network", ""]
    lines += [f"| {' | '.join(head)} |", "|---|---|---|---|"]
    missed = False
    threads = torch.get_num_threads()
    for name, solver in registry().items():
        if solver.always_needs(Need.AUTOENCODER):
            continue  # of latents: their decoder is part of the operator
        ratio = float("nan")
        if not args.free_only:
            clocked = Clocked(load_prior(args.prior))
            ratio = timed(clocked, 1, 256, args.steps, name, time.perf_counter)[0] / clocked.seconds
        torch.set_num_threads(1)
        runs = [timed(Free(), 4, 64, 100, name, time.process_time) for _ in range(5)]
        torch.set_num_threads(threads)
        seconds, calls = min(runs)
        free = 1000 * seconds / 100
        missed |= ratio > 1.05 or free > 1.0
        lines.append(f"| {name} | {ratio:.3f} | {free:.2f} | {1000 * seconds / calls:.2f} |")
        print(lines[-1], flush=True)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
