"""Sequential Monte Carlo: rows of a measurement in clouds, weighed and resampled as they travel.

Every row carries a log weight. Where few rows of a cloud count, those that do take the places of
the rest (Doucet, Johansen 2011, "A tutorial on particle filtering and smoothing", section 3.5):
systematic resampling, which takes row i n W_i times, rounded up or down. The product of the mean
weights of a cloud is an estimate of p(y), by which clouds may be weighed against each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from invdiff.core.rng import Rng
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling import importance
from invdiff.sampling.solver import Claim, Solver, knob
from invdiff.sampling.state import State


def same_measurement(problem: Problem, z: Tensor) -> list[int]:
    """For every row, the first row with the same y and A; A is known by what it makes of z.

    z: one image, (1, *x_shape).
    """
    seen = problem.A(z.expand(problem.batch, *problem.x_shape)).flatten(1)
    y = problem.y.flatten(1)
    first = torch.full((problem.batch,), -1, device=y.device)
    while bool((first < 0).any()):
        i = int((first < 0).nonzero()[0])
        near = (seen - seen[i]).norm(dim=1) <= 1e-5 * seen[i].norm()
        own = (first < 0) & near & (y == y[i]).all(1)
        own[i] = True
        first[own] = i
    found: list[int] = first.tolist()
    return found


def clouds(first: list[int], particles: int) -> Tensor:
    """The number of the cloud of every row, (B,): rows of a measurement in the fewest clouds of at
    most `particles` rows, which are as equal in size as can be. first: of `same_measurement`."""
    found, count = torch.zeros(len(first), dtype=torch.int64), 0
    of = torch.tensor(first)
    for measurement in sorted(set(first)):
        for part in torch.tensor_split(
            rows := (of == measurement).nonzero()[:, 0], -(-len(rows) // particles)
        ):
            found[part] = count
            count += 1
    return found


def members(cloud: Tensor) -> list[Tensor]:
    """The rows of every cloud, (clouds, n), one tensor for each size n."""
    cloud = cloud.long()
    sizes = torch.bincount(cloud).tolist()
    parts = torch.split(cloud.argsort(stable=True), sizes)
    return [torch.stack([p for p in parts if len(p) == n]) for n in sorted(set(sizes))]


def resampled(
    extra: Mapping[str, Tensor],
    gained: Tensor | float,
    least: float,
    rng: Rng,
    role: str = "resample",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Which row takes the place of each, (B,), and what the rows carry then.

    extra: what they carry, as `ParticleFilter.init` made it. gained: by their log weights, (B,).
    least: share of a cloud's rows; below it its effective size makes it resample.
    """
    log_w = extra["log_w"] + gained
    evidence = extra["evidence"].clone()
    index = torch.arange(len(log_w), device=log_w.device)
    for rows in members(extra["cloud"]):
        low = importance.effective_size(log_w[rows]) < least * rows.shape[1]
        if not bool(low.any()):
            continue
        own = rows[low]
        w = log_w[own]
        u = rng.rows(own[:, 0].tolist()).uniform(w[:, 0], role)
        index[own] = own.gather(1, importance.systematic(w, u))
        evidence[own] += importance.log_evidence(w)[:, None]
        log_w[own] = 0.0
    return index, {"cloud": extra["cloud"], "log_w": log_w, "evidence": evidence}


@dataclass(frozen=True)
class ParticleFilter(Solver):
    """Base of samplers whose rows are particles: `coupled`, in clouds of at most `particles` rows.

    extra: "cloud", the number of a row's cloud; "log_w", its log weight since the cloud was last
    resampled, and "evidence", the log of what the cloud's mean weights came to before that, both
    float64. In the last step every cloud is resampled once more, and samples have equal weight.
    weights: in place of that, rows keep their weights times the evidence of their cloud: many small
    clouds then approach the posterior too, where clouds of equal weight keep an error of the order
    of 1 / particles.
    """

    coupled: ClassVar[bool] = True
    claim: ClassVar[Claim] = "asymptotic"

    particles: int = knob(16, "samples of a cloud, which are resampled among each other", 1)
    threshold: float = knob(
        0.5, "a cloud is resampled when a smaller share of its samples counts; 0: at the end", 0, 1
    )
    weights: bool = knob(False, "weigh the samples, clouds against each other too")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weighted", self.weights)

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        state = super().init(problem, prior, rng)
        return State(0, state.x, state.x0, self.start(problem, state.x))

    def start(self, problem: Problem, x: Tensor) -> dict[str, Tensor]:
        """What the rows of a run carry at its beginning."""
        cloud = clouds(same_measurement(problem, x[:1]), self.particles)
        zero = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        return {"cloud": cloud.to(x.device, x.dtype), "log_w": zero, "evidence": zero.clone()}

    def chosen(
        self, extra: Mapping[str, Tensor], gained: Tensor, rng: Rng, *parts: Tensor
    ) -> tuple[dict[str, Tensor], Any]:
        """What rows carry after they gained (B,) and their clouds were resampled where it was
        due; and parts, each (B, ...), of the rows that were chosen."""
        index, carried = resampled(extra, gained, self.threshold, rng)
        return carried, tuple(part[index] for part in parts)

    def ended(self, extra: Mapping[str, Tensor], x: Tensor, x0: Tensor, rng: Rng) -> State:
        """The last state, of samples of equal weight, or of weighted ones."""
        if self.weights:
            weight = extra["log_w"] + extra["evidence"]
            return State(self.num_steps, x, x0, {importance.KEY: weight})
        index, _ = resampled(extra, 0.0, math.inf, rng, "end")
        order = rng.uniform(extra["log_w"], "order")
        for rows in members(extra["cloud"]):  # copies of one row not in a row
            index[rows] = index[rows].gather(1, order[rows].argsort(1))
        return State(self.num_steps, x[index], x0[index])
