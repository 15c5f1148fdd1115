"""Where a solver stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from invdiff.core import brief


@dataclass(frozen=True)
class State:
    """Where a solver stands: everything that its next step needs, and nothing else.

    step: steps done, 0 to solver.num_steps. x: the chain's variable, shape (B, C, ...).
    x0: the current clean estimate, same shape as an image, in the prior's range: the preview.
    extra: further tensors that the solver carries from step to step. A State is a checkpoint.
    """

    step: int
    x: Tensor
    x0: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        return brief(self)
