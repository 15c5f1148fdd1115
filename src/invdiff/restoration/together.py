"""Several small jobs run as one: measurements of one kind side by side, each as it is alone.

A row of a batch has the bits that it has alone where `core.alike` holds, which is on a CPU in
float32, and its noise comes from its own seed. So what is run together does not show in what comes
out. It pays where an evaluation of one small image leaves a processor waiting.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from invdiff.core import checksum
from invdiff.core.encode import encode
from invdiff.core.errors import InvdiffError
from invdiff.problem import Problem
from invdiff.restoration.job import Job
from invdiff.restoration.perform import finished
from invdiff.restoration.restored import Restoration
from invdiff.sampling.pose import pose
from invdiff.sampling.result import Result, describe
from invdiff.sampling.run import draw, one_picture, with_estimate
from invdiff.sampling.solver import Solver

PIXELS, ROWS = 96 * 96, 32
"""Pixels of an image up to which more rows are faster, and rows above which no more are."""


def room(job: Job, batch: int | None = None) -> int:
    """How many jobs of this kind are run together. batch: rows that were asked for at most."""
    x_shape, rows = job.problem.x_shape, ROWS if batch is None else min(ROWS, batch)
    alone = (
        job.problem.batch > 1
        or job.problem.y.device.type != "cpu"
        or job.problem.x_like.dtype != torch.float32
        or job.prior.autoencoder is not None
        or math.prod(x_shape[1:]) > PIXELS
        or any(s.coupled for s in _solvers(job))
    )
    return 1 if alone else max(1, rows // (job.samples if job.draws else 1))


def _solvers(job: Job) -> list[Solver]:
    """What makes the estimate, and the samples."""
    return [s for s in (job.estimator, job.solver if job.draws else None) if s is not None]


def kind(job: Job) -> str | None:
    """What jobs have in common that can be run together; None where it cannot be told."""
    tensors: dict[str, Tensor] = {}
    problem = job.problem
    try:
        told: dict[str, Any] = {
            "A": encode(problem.A, tensors, "A"),
            "noise": encode(problem.noise, tensors, "noise"),
            "solver": encode(job.solver, tensors, "solver"),
            "estimator": None if job.estimator is None else encode(job.estimator, tensors, "best"),
        }
    except InvdiffError:
        return None
    told["courses"] = [s.course(job.posed.problem, job.prior) for s in _solvers(job)]
    told |= {"y": [str(problem.y.dtype), *problem.y.shape], "x": problem.x_shape}
    told |= {"samples": job.samples, "want": job.want, "prior": job.prior.fingerprint}
    told |= {"portable": job.portable, "tensors": checksum.of_tensors(tensors)}
    return checksum.of_json(told)


def perform_together(jobs: Sequence[Job]) -> list[Restoration]:
    """Run jobs of one `kind` as one; what each gives, the same bits as `perform` gives it.

    Raises what one of them raises alone.
    """
    first, began = jobs[0], time.perf_counter()
    y = torch.cat([job.problem.y for job in jobs])
    problem = Problem(y, first.problem.A, first.problem.noise, first.problem.x_shape)
    posed, prior = pose(problem, first.prior), first.prior
    best = None if first.estimator is None else one_picture(posed, prior, first.estimator)
    drawn = None
    if first.draws:
        drawn = draw(
            posed, prior, first.solver, first.samples, portable=first.portable,
            seeds=[job.seed for job in jobs],
        )  # fmt: skip
    seconds = (time.perf_counter() - began) / len(jobs)
    found = []
    for m, job in enumerate(jobs):
        one = None if best is None else _of(best, m, job, seconds, 0)
        run = one if drawn is None else _of(drawn, m, job, seconds, job.seed)
        assert run is not None
        if one is not None and drawn is not None:
            run = with_estimate(run, one)
        found.append(finished(job, run, one))
    return found


def _of(result: Result, m: int, job: Job, seconds: float, seed: int) -> Result:
    """The part of a run that is measurement m, as if it had been run alone."""

    def row(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[m : m + 1].clone()

    tensors: dict[str, Tensor] = {}
    solver = job.solver if result.estimate is None else job.estimator
    assert solver is not None
    config = result.config | describe(job.problem, job.prior, solver, tensors)
    config |= {"seed": seed, "batch": result.samples.shape[1]}
    return replace(
        result, samples=result.samples[m : m + 1].clone(), seconds=seconds, config=config,
        tensors=tensors, log_weight=row(result.log_weight), estimate=row(result.estimate),
    )  # fmt: skip
