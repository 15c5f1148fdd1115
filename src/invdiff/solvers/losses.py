"""The losses that DPS follows, of r = y - A(x0): of each, minus the gradient in A(x0).

zeta of DPS multiplies it. Norms are those of one sample, over measured entries; where r is 0, the
gradient of a norm is taken as 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from invdiff.core import batch_norm
from invdiff.problem import Problem
from invdiff.sampling.needs import Need

Name = Literal[
    "l2", "l2sq", "gaussian", "likelihood", "poisson_diag", "poisson_norm", "poisson_official"
]
Loss = Callable[[Problem, Tensor, Tensor, float], Tensor]
"""loss(problem, x0, r, count_floor), shape of y."""


def l2(problem: Problem, x0: Tensor, r: Tensor, count_floor: float) -> Tensor:
    """|r|: the official code. Its length does not fall with r, so that noiseless data are never met
    exactly."""
    return r / _divisor(r)


def l2sq(problem: Problem, x0: Tensor, r: Tensor, count_floor: float) -> Tensor:
    """|r|^2 with the step divided by |r|: the paper's text, twice as large as l2."""
    return 2.0 * l2(problem, x0, r, count_floor)


def gaussian(problem: Problem, x0: Tensor, r: Tensor, count_floor: float) -> Tensor:
    """|r|^2 / (2 sigma_y^2): minus the log-likelihood of white noise."""
    return r / problem.sigma_y**2


def likelihood(problem: Problem, x0: Tensor, r: Tensor, count_floor: float) -> Tensor:
    """-log p(y | x0) of any noise that has a density; of Gaussian noise it is `gaussian`."""
    return problem.noise.score(problem.y, problem.A(x0))


def poisson_diag(problem: Problem, x0: Tensor, r: Tensor, count_floor: float) -> Tensor:
    """sum_j r_j^2 / (2 max(k_j, count_floor)), r in counts and k_j the counts of y: the paper's
    weighted norm, the Gaussian limit of the Poisson likelihood."""
    return _weight(problem, count_floor) * r


def poisson_norm(problem: Problem, x0: Tensor, r: Tensor, count_floor: float) -> Tensor:
    """(sum_j r_j^2 / max(k_j, count_floor))^(1/2), the root of it: it stands far larger steps."""
    weight = _weight(problem, count_floor)
    return weight * r / _divisor(weight.sqrt() * r)


def poisson_official(problem: Problem, x0: Tensor, r: Tensor, count_floor: float) -> Tensor:
    """|r| mean_j(1 / |y_j|): the official code. One number weighs the whole image, which depends on
    where 0 lies on the scale of y. The mean is over measured entries, and |y_j| at least half a
    count (on the code's own grid of 255 counts, no y_j is nearer to 0)."""
    unit = r / _divisor(r)
    least = 0.5 / problem.poisson.gain
    measured = problem.A.restrict(torch.ones_like(r))
    weight = (measured / problem.y.abs().clamp_min(least)).flatten(1).sum(1)
    weight = weight / measured.flatten(1).sum(1)
    return unit * weight.reshape(-1, *[1] * (r.ndim - 1))


LOSSES: dict[str, Loss] = {
    f.__name__: f
    for f in (l2, l2sq, gaussian, likelihood, poisson_diag, poisson_norm, poisson_official)
}
"""By the names that the knob takes."""
NEEDS: dict[str, frozenset[Need]] = {
    "gaussian": frozenset({Need.GAUSSIAN, Need.NOISY}),  # that of a noiseless y is no density
    "likelihood": frozenset({Need.DENSITY}),
    **dict.fromkeys(
        ("poisson_diag", "poisson_norm", "poisson_official"), frozenset({Need.POISSON})
    ),
}
"""What a loss asks of a problem."""


def _weight(problem: Problem, count_floor: float) -> Tensor:
    """1 / variance of each y_j, in the units of y."""
    noise = problem.poisson
    return noise.gain**2 / noise.rate(problem.y).clamp_min(count_floor)


def _divisor(r: Tensor) -> Tensor:
    """|r| of every sample, and 1 where r is 0."""
    norm = batch_norm(r)
    return torch.where(norm > 0, norm, 1.0)
