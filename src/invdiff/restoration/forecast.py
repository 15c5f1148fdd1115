"""How long a job will take, and how much memory, from one evaluation of the prior that is measured.

The evaluations of a step are counted by two steps of the solver on one row, with a prior that costs
nothing. All of it is a function of its arguments, as every step is: no random number of the run
changes.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
from torch import Tensor

from invdiff.core import InvdiffError, Level
from invdiff.core.memory import available
from invdiff.core.rng import Rng
from invdiff.priors.base import Counted, Prior
from invdiff.priors.networked import as_it_is, recomputed
from invdiff.problem import Problem
from invdiff.restoration.job import Job
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import Solver

LARGEST = 256
"""Side of the part that is evaluated of a larger picture, where the prior takes any size."""
STATES = 12
"""Images that a step holds for each row, about: its state, the next one, and what is between."""
COPIES = 6
"""Images that each sample takes until the results are written, about."""
BRIEF = 0.1
"""Seconds below which an evaluation is measured twice: the first prepares what later ones use."""
GB = 1e9


@dataclass(frozen=True)
class Forecast:
    """What a job is expected to take.

    seconds: of all its steps. evaluation: of one row, in seconds; evaluations: of the prior, of all
    rows. fixed: bytes for the samples; row: for each row of a batch.
    """

    seconds: float
    evaluation: float
    evaluations: int
    fixed: float
    row: float
    rows: int

    @property
    def memory(self) -> float:
        """Bytes."""
        return self.fixed + self.rows * self.row

    def __str__(self) -> str:
        return (
            f"about {duration(self.seconds)} and {self.memory / GB:.2g} GB of memory: "
            f"{self.evaluations} evaluations; one took {self.evaluation:.2g} s"
        )


def forecast(job: Job) -> Forecast:
    """What a job will take. Raises InvdiffError, with advice, where the memory will not do."""
    problem = job.posed.problem
    solvers = [s for s in (job.estimator, job.solver if job.draws else None) if s is not None]
    pull = any(s.always_needs(Need.PRIOR_VJP) for s in solvers)
    level, free = solvers[-1].levels[0], available(problem.y.device)
    seconds_each, bytes_each = _evaluation(job.prior, problem, level, pull)
    total, evaluations = 0.0, 0
    for solver in solvers:
        rows = problem.batch * (job.samples if solver is job.solver else 1)
        spent, count = _steps(solver, problem, job.prior)
        total += rows * (spent + count * seconds_each)
        evaluations += rows * count
    image = 4.0 * math.prod(problem.x_shape)
    rows = job.samples if job.solver.coupled else min(job.batch, job.samples)
    found = Forecast(
        total, seconds_each, evaluations, COPIES * image * job.samples,
        bytes_each + STATES * image, problem.batch * (rows if job.draws else 1),
    )  # fmt: skip
    if pull and found.memory > free:  # then priors compute blocks again, if they may
        with recomputed(job.prior) as any_does:
            again = _evaluation(job.prior, problem, level, pull) if any_does else None
        if again is not None:
            more = evaluations * max(0.0, again[0] - seconds_each)
            found = replace(
                found, seconds=total + more, evaluation=again[0], row=again[1] + STATES * image
            )
    check_memory(found, free, job.solver.coupled)
    return found


def check_memory(needed: Forecast, free: float, coupled: bool = False) -> None:
    """Raise InvdiffError where more bytes are needed than are free, with what to give instead."""
    if needed.memory <= free:
        return
    fits = math.floor((free - needed.fixed) / needed.row)
    if fits >= 1 and not coupled:
        advice = f"give --batch {fits}"
    elif needed.fixed + needed.row > free and needed.row < free:
        advice = "give fewer --samples"
    elif coupled and needed.rows > 1:
        advice = "give fewer --samples, which this solver draws together"
    else:
        share = math.sqrt(free / (needed.fixed + needed.row))
        advice = f"give a picture, or tiles of it, of {share:.2f} times its sides, or less"
    raise InvdiffError(
        f"This takes about {needed.memory / GB:.2g} GB of memory, and {free / GB:.2g} GB are free; "
        f"{advice}."
    )


class _Free(Prior):
    """A denoiser that costs nothing, with the contract of another: it shrinks towards 0."""

    def __init__(self, like: Prior) -> None:
        self.name, self.shape, self.value_range = like.name, like.shape, like.value_range
        self.sigma_min, self.sigma_max = like.sigma_min, like.sigma_max
        self.differentiable, self.learned_variance = like.differentiable, like.learned_variance
        self.autoencoder, self.spectrum = like.autoencoder, like.spectrum

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return x / (1 + sigma**2)

    def denoise_v(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        return self.denoise(x, sigma), torch.zeros_like(x)


def _steps(solver: Solver, problem: Problem, prior: Prior) -> tuple[float, int]:
    """Seconds without the prior, and evaluations, of all steps of one row.

    The first step often does more than others; one in the middle stands for these.
    """
    one = problem.rows(torch.zeros(1, dtype=torch.long, device=problem.y.device))
    free, rng, steps = Counted(_Free(prior)), Rng.of((0,)), solver.num_steps
    spent, counts = [], []
    try:
        with torch.no_grad():
            began = time.perf_counter()
            state = solver.init(one, free, rng.at(-1))
            for step in (0, steps // 2):
                state = solver.step(replace(state, step=step), one, free, rng.at(step))
                spent.append(time.perf_counter() - began)
                counts.append(free.nfe)
                began, free.nfe = time.perf_counter(), 0
    except Exception:  # of numbers that only the true prior keeps in bounds
        return 0.0, steps
    return spent[0] + (steps - 1) * spent[1], max(counts[0] + (steps - 1) * counts[1], 1)


def _evaluation(prior: Prior, problem: Problem, level: Level, pull: bool) -> tuple[float, float]:
    """Seconds and bytes of one evaluation of one row. pull: with its gradient."""
    shape, free_size = list(problem.x_shape), prior.shape is not None and None in prior.shape[-2:]
    if free_size and problem.y.device.type == "cpu":
        shape[-2:] = [min(side, LARGEST) for side in shape[-2:]]
    x = torch.zeros((1, *shape), dtype=problem.x_like.dtype, device=problem.y.device)
    share = math.prod(problem.x_shape) / math.prod(shape)
    with as_it_is(prior):  # it would be compiled for this shape alone
        seconds, held = _measured(prior, x, level, pull)
        if seconds < BRIEF:
            seconds = min(seconds, _measured(prior, x, level, pull)[0])
    pixels = shape[-1] * shape[-2] * share
    largest = pixels if prior.tile is None else (prior.tile + 2 * prior.overlap) ** 2
    return seconds * share, held * max(1.0, share * min(1.0, largest / pixels))


def _measured(prior: Prior, x: Tensor, level: Level, pull: bool) -> tuple[float, float]:
    with _peak(x.device) as held:
        began = time.perf_counter()
        if pull:
            x0, back = prior.x0_vjp(x, level)
            float(back(x0).sum())
        else:
            with torch.no_grad():
                float(prior.x0(x, level).sum())
        seconds = time.perf_counter() - began
    return seconds, held[0]


@contextlib.contextmanager
def _peak(device: torch.device) -> Iterator[list[float]]:
    """Bytes that a block takes at most, beyond what was taken before; 0 where nothing tells."""
    found = [0.0]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield found
        found[0] = float(torch.cuda.max_memory_allocated(device) - before)
        return
    with contextlib.suppress(OSError):  # Linux: begin a new maximum
        Path("/proc/self/clear_refs").write_text("5")
    before = psutil.Process().memory_info().rss
    yield found
    with contextlib.suppress(OSError, IndexError, ValueError):
        status = Path("/proc/self/status").read_text()
        found[0] = max(0.0, 1024.0 * int(status.partition("VmHWM:")[2].split()[0]) - before)
        return
    if sys.platform != "win32":
        import resource

        scale = 1 if sys.platform == "darwin" else 1024
        found[0] = max(0.0, scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def duration(seconds: float) -> str:
    """Seconds as people tell them."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
