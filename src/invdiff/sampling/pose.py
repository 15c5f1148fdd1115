"""The problem as solvers see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from invdiff.priors.base import Prior
from invdiff.priors.latent import in_latent_space
from invdiff.problem import Problem
from invdiff.problem.whiten import centre, whiten


@dataclass(frozen=True, eq=False)
class Posed:
    """A problem as it was given, and as solvers see it: made once a run, by `pose`.

    asked: as given. white: centred, its Gaussian noise white. problem: that, of latents where the
    prior is of latents.
    """

    asked: Problem
    white: Problem
    problem: Problem

    def rows(self, index: Tensor) -> Self:
        """The rows `index` of a batch."""
        return type(self)(*(p.rows(index) for p in (self.asked, self.white, self.problem)))

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return type(self)(*(p.to(device) for p in (self.asked, self.white, self.problem)))


def pose(problem: Problem, prior: Prior) -> Posed:
    """The problem as given and as solvers see it."""
    white = whiten(centre(problem))
    return Posed(problem, white, in_latent_space(white, prior))
