"""What samplers of other libraries have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling.needs import Need

Draw = Callable[[Problem, Prior, int, int], Tensor]
"""(problem, prior, steps, count) to samples (count, *x_shape), on the range of the prior."""


@dataclass(frozen=True)
class Peer:
    """A sampler of another library. name: LIBRARY:METHOD. steps: its own number of them.

    needs: what a problem must offer. together: whether samples are particles that need each other.
    """

    name: str
    steps: int
    needs: frozenset[Need]
    draw: Draw
    together: bool = False

    @property
    def library(self) -> str:
        """The package that it is of."""
        return self.name.partition(":")[0]

    def requires(self) -> tuple[frozenset[Need], ...]:
        """As of a solver."""
        return (self.needs,)


def flat(y: Tensor) -> Tensor:
    """Measurements (B, ...) as rows of real numbers (B, N); complex ones as two each."""
    return (torch.view_as_real(y) if y.is_complex() else y).flatten(1)
