"""How many operators of torch a step takes, as upper bounds: what a change adds is seen.

The middle step of a few, on the problem that stands for the solver's needs, with a prior of a few
operators: what is counted is the solver's own, and each is a launch on a GPU.

    python tests/contract/test_kernels.py     writes kernels.json anew
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from test_solvers import MEASUREMENTS, PRIOR, VARIANTS, home, setting  # noqa: E402

from helpers import seeds  # noqa: E402
from invdiff.priors.base import Counted  # noqa: E402
from invdiff.sampling.pose import pose  # noqa: E402
from invdiff.sampling.stream import states  # noqa: E402
from invdiff.solvers import registry  # noqa: E402

TABLE = Path(__file__).with_name("kernels.json")


class Dispatched(TorchDispatchMode):
    """Counts the operators that run within it, but for views."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.count += not getattr(func, "is_view", False)
        return out


def kernels(name: str) -> int:
    """Operators of the middle step of a solver."""
    solver, problem = setting(name, home(VARIANTS[name], "pool"), dtype=torch.float32)
    posed = pose(problem, PRIOR)
    run = states(posed.problem, Counted(PRIOR), solver, seeds(MEASUREMENTS), None, False)
    for state in run:
        if state.step == solver.num_steps // 2:
            break
    with Dispatched() as counted:
        next(run)
    return counted.count


@pytest.mark.parametrize("name", registry())
def test_a_step_takes_no_more_operators_than_before(name: str) -> None:
    """Fewer are welcome: then the table is made anew."""
    assert kernels(name) <= json.loads(TABLE.read_text())[name]


def test_one_more_operator_is_seen() -> None:
    """The twin: the count knows of each."""
    x = torch.ones(2)
    with Dispatched() as one:
        x = x + 1
    with Dispatched() as two:
        _ = (x + 1).view(2) * 2
    assert (one.count, two.count) == (1, 2)


if __name__ == "__main__":
    TABLE.write_text(
        json.dumps({name: kernels(name) for name in sorted(registry())}, indent=1) + "\n"
    )
