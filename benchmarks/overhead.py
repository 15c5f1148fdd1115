"""What the framework costs: sampler time over bare network time, and time per step without one.

    python benchmarks/overhead.py [--prior photo] [--steps 10] [--out docs/overhead.md]

The first figure is one run of a solver in which the time inside the network (evaluations and
vector-Jacobian products) is clocked: total / inside, at 256 x 256. The second replaces the network
by a multiplication and divides the processor time of a run by its steps, for 4 x 3 x 64 x 64 on one
thread; the third divides it by the calls of the network, of which some solvers make several a step.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from invdiff.core import Level
from invdiff.noise import NOISELESS, Gaussian
from invdiff.operators import Bicubic
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.problem import Problem
from invdiff.sampling.needs import Need, missing
from invdiff.sampling.run import solve
from invdiff.solvers import registry

KNOBS = {"score-prior": {"family": "gaussian"}}
"""Instead of defaults that such large images do not allow (a RealNVP is for small ones)."""


class Clocked(Prior):
    """A prior that clocks the time inside its network."""

    def __init__(self, prior: Prior) -> None:
        self.prior, self.seconds = prior, 0.0
        self.name, self.shape = prior.name, prior.shape

    def x0(self, xt: Tensor, level: Level) -> Tensor:
        began = time.perf_counter()
        x0 = self.prior.x0(xt, level)
        self.seconds += time.perf_counter() - began
        return x0

    def x0_vjp(self, xt: Tensor, level: Level) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        began = time.perf_counter()
        x0, pull = self.prior.x0_vjp(xt, level)
        self.seconds += time.perf_counter() - began

        def clocked(v: Tensor) -> Tensor:
            began = time.perf_counter()
            g = pull(v)
            self.seconds += time.perf_counter() - began
            return g

        return x0, clocked


class Free(Prior):
    """The denoiser of white unit images: one multiplication."""

    name = "free"

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return x / (1 + sigma**2)


def problem(rows: int, side: int, noisy: bool) -> Problem:
    """Super-resolution x4 of `rows` images of side x side."""
    A = Bicubic(4, (side, side))
    y = torch.randn(rows, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(0))
    return Problem(0.3 * y, A, Gaussian(0.05) if noisy else NOISELESS, (3, side, side))


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


def main() -> int:
    """Print the table; exit code 1 when a bar (1.05, 1 ms) is missed."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--prior", default="photo")
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--out", type=Path, default=None)
    p.add_argument("--free-only", action="store_true")
    args = p.parse_args()
    head = ["solver", "total / network", "ms per step without a network", "ms per network call"]
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---|"]
    missed = False
    threads = torch.get_num_threads()
    for name, solver in registry().items():
        if Need.AUTOENCODER in solver.needs:
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
