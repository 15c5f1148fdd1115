"""Steps that torch compiles whole: with their noise given, nothing in them leaves the graph.

Of a compiled step every launch on a GPU can be replayed at once. The middle step of each solver, on
the problem that stands for its needs, is traced with `fullgraph=True`, and gives the same bits as
without. What cannot is listed with its reason, and must fail.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_solvers import MEASUREMENTS, PRIOR, VARIANTS, home, setting
from torch import Tensor
from torch._dynamo import config, reset

from helpers import seeds
from invdiff.core.rng import Rng
from invdiff.core.tensors import constant
from invdiff.priors.base import Prior
from invdiff.priors.spectrum import isotropic
from invdiff.sampling.pose import pose
from invdiff.sampling.solver import Solver
from invdiff.sampling.state import State
from invdiff.sampling.stream import states
from invdiff.solvers import registry

REASONS = {
    "ddsmc": "which rows are a cloud is read from the state",
    "mcgdiff": "which rows are a cloud is read from the state",
    "tds": "which rows are a cloud is read from the state",
    "score-prior": "which rows share a law is read from the state",
    "eps": "the level of its call depends on the largest singular value",
    "pocs": "the planes of a file are found by a QR decomposition of their weights",
    "spectral-jpeg": "the planes of a file are found by a QR decomposition of their weights",
}


class Network(Prior):
    """What stands for a network: a convolution and a nonlinearity."""

    def __init__(self) -> None:
        self.shape, self.spectrum = PRIOR.shape, isotropic()
        self.weight = torch.randn(3, 3, 3, 3, generator=torch.Generator().manual_seed(0)) / 20

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        weight = self.weight[: x.shape[1], : x.shape[1]]
        return (x + 0.1 * torch.nn.functional.conv2d(x, weight, padding=1).tanh()) / (1 + sigma**2)


class Noted:
    """An Rng that keeps what was drawn."""

    def __init__(self, rng: Rng) -> None:
        self.rng, self.kept = rng, dict[str, Tensor]()

    def normal(self, like: Tensor, role: str) -> Tensor:
        self.kept[role] = self.rng.normal(like, role)
        return self.kept[role]

    def uniform(self, like: Tensor, role: str) -> Tensor:
        self.kept[role] = self.rng.uniform(like, role)
        return self.kept[role]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rng, name)


class Given:
    """The same noise, without drawing it."""

    def __init__(self, kept: dict[str, Tensor]) -> None:
        self.kept = kept

    def normal(self, like: Tensor, role: str) -> Tensor:
        return self.kept[role]

    uniform = normal


Parts = tuple[Tensor, Tensor, dict[str, Tensor]]
Step = Callable[[Tensor, Tensor, dict[str, Tensor]], Parts]


def middle(solver: Solver, problem: Any) -> tuple[State, State, Step]:
    """A state halfway, the one after it, and the step between with its noise given."""
    prior, posed = Network(), pose(problem, Network()).problem
    run = states(posed, prior, solver, seeds(MEASUREMENTS), None, False)
    state = next(s for s in run if s.step == solver.num_steps // 2)
    noted: Any = Noted(Rng.of(seeds(MEASUREMENTS)).at(state.step))
    with torch.no_grad():
        after = solver.step(state, posed, prior, noted)
    given: Any = Given(noted.kept)

    def step(x: Tensor, x0: Tensor, extra: dict[str, Tensor]) -> Parts:
        new = solver.step(State(state.step, x, x0, extra), posed, prior, given)
        return new.x, new.x0, new.extra

    return state, after, step


def of(name: str) -> tuple[Solver, Any]:
    """A solver, with few iterations to unroll, and its problem."""
    solver, problem = setting(name, home(VARIANTS[name], "pool"), dtype=torch.float32)
    few = [f.name for f in dataclasses.fields(solver) if f.name == "iterations"]
    return dataclasses.replace(solver, **{f: 4 for f in few}), problem


def compiled(step: Step, state: State, backend: str) -> Parts:
    reset()
    with torch.no_grad(), config.patch(trace_autograd_ops=True, specialize_float=True):
        whole = torch.compile(step, fullgraph=True, backend=backend)
        return whole(state.x, state.x0, dict(state.extra))


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("name", [n for n in registry() if n not in REASONS])
def test_a_step_is_one_graph(name: str) -> None:
    state, after, step = middle(*of(name))
    x, x0, extra = compiled(step, state, "eager")
    assert torch.equal(x, after.x) and torch.equal(x0, after.x0)
    assert all(torch.equal(extra[k], after.extra[k]) for k in after.extra)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("name", REASONS)
def test_what_is_no_graph_is_known(name: str) -> None:
    """Where one becomes possible, its reason goes."""
    state, _, step = middle(*of(name))
    with pytest.raises(Exception, match="(?i)data-dependent|dynamo|unsupported|trac"):
        compiled(step, state, "eager")


def test_the_mark_of_a_constant_is_that_of_torch() -> None:
    def mine() -> float:
        return 1.0

    def theirs() -> float:
        return 1.0

    assert vars(constant(mine)) == vars(torch.compiler.assume_constant_result(theirs)) != {}


@pytest.mark.skipif(shutil.which("g++") is None, reason="a compiler of C++ is needed")
def test_the_compiler_of_the_cpu_takes_one() -> None:
    """DDRM by torch's own compiler: the same to round-off, with the network in the graph."""
    state, after, step = middle(*of("ddrm"))
    x, x0, _ = compiled(step, state, "inductor")
    torch.testing.assert_close(x, after.x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(x0, after.x0, atol=1e-5, rtol=1e-5)
