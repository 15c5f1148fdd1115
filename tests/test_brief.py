"""Reprs tell shapes, not numbers: one line or two of a problem, whatever it holds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import invdiff
import invdiff.operators as ops
from invdiff.core import InvdiffError, brief, shown
from invdiff.core.schedules import VP
from invdiff.noise import (
    CorrelatedGaussian,
    DiagonalGaussian,
    GaussianNoise,
    Poisson,
    StationaryGaussian,
)
from invdiff.priors.base import Denoiser
from invdiff.problem import Case, Problem
from invdiff.sampling.needs import why_not
from invdiff.sampling.result import Result, describe
from invdiff.sampling.run import solve
from invdiff.sampling.state import State
from invdiff.solvers.ddnm import DDNM

SIZE = (1024, 1024)
X = torch.full((1, 1, *SIZE), 0.123456)
MASK = torch.ones(1, 1, *SIZE)
PROBLEM = Problem(X, ops.Inpaint(MASK), DiagonalGaussian(X), (1, *SIZE))


def test_a_problem_of_megabytes_is_one_line() -> None:
    assert repr(PROBLEM) == (
        "Problem(y=float32(1, 1, 1024, 1024), A=Inpaint(mask=float32(1, 1, 1024, 1024)), "
        f"noise=DiagonalGaussian(level={PROBLEM.noise.level!r}, sigmas=float32(1, 1, 1024, 1024)), "
        "x_shape=(1, 1024, 1024))"
    )


OPERATORS = [
    (ops.Radon(ops.sparse_view(180), (64, 64)), "Radon(angles=(0.0, ..., 179.0: 180 in all), "
     "size=(64, 64), detectors=91)"),
    (ops.Identity(), "Identity()"),
    (2 * ops.blur(torch.ones(3, 3), SIZE, "zero"), "ScaledSpectral(base=SeparableBlur("
     "kernel_rows=float64(3), kernel_cols=float64(3), size=(1024, 1024), boundary='zero'), "
     "scale=2.0)"),
    (ops.affine(ops.Identity(), 0.5, 0.25), "Affine(linear=ScaledSpectral(base=Identity(), "
     "scale=0.5), offset=0.25)"),
    (ops.Inpaint(MASK).T @ ops.JPEG(50), "ComposedPseudoInvertible(outer=TransposedSpectral("
     "base=Inpaint(mask=float32(1, 1, 1024, 1024))), inner=JPEG(quality=50))"),
    (ops.Operator.from_function(torch.tanh), "FromFunction()"),
]  # fmt: skip


@pytest.mark.parametrize(("A", "text"), OPERATORS)
def test_operators(A: ops.Operator, text: str) -> None:
    """Fields that are not the default, arrays by type and shape, functions not at all."""
    assert repr(A) == text


@dataclasses.dataclass(frozen=True, eq=False)
class Mine(ops.Operator):
    weights: torch.Tensor
    names: dict[str, torch.Tensor]
    label: str = "a"


@dataclasses.dataclass(frozen=True, eq=False)
class Named(Mine):
    def __repr__(self) -> str:
        return "my own"


def test_an_operator_of_ones_own() -> None:
    """It is told alike; a repr of its own stays."""
    given = torch.ones(3, 4, 5), {"a": X, "b": X}
    assert (
        repr(Mine(*given, "b" * 200))[:60]
        == "Mine(weights=float32(3, 4, 5), names={2 in all}, label='bbbb"
    )
    assert len(repr(Mine(*given, "b" * 200))) < 150
    assert repr(Mine(*given)) == "Mine(weights=float32(3, 4, 5), names={2 in all})"
    assert repr(Named(*given)) == "my own"


def test_noises_tell_all_their_numbers() -> None:
    assert repr(GaussianNoise(0.1)) == "GaussianNoise(sigma=0.1)"
    assert "peak=50.0" in repr(Poisson(50.0))
    assert "cov=float64(3, 3)" in repr(CorrelatedGaussian(torch.eye(3).double()))
    told = repr(StationaryGaussian(tuple(np.linspace(0.1, 0.5, 40)), (tuple(np.ones(40)),)))
    assert "40 in all" in told and len(told) < 200


def test_states_and_cases() -> None:
    state = State(3, X, X, {"v": X})
    assert repr(state) == (
        "State(step=3, x=float32(1, 1, 1024, 1024), x0=float32(1, 1, 1024, 1024), extra={1 in all})"
    )
    assert repr(Case(PROBLEM, X)).endswith("truth=float32(1, 1, 1024, 1024))")


def test_a_result_is_a_line() -> None:
    A = ops.Inpaint(torch.ones(1, 1, 4, 4))
    problem = Problem(torch.full((1, 1, 4, 4), 0.7071), A, GaussianNoise(0.0), (1, 4, 4))
    prior = Denoiser(lambda x, sigma: x / (1 + sigma**2), name="toy")
    result = solve(problem, prior, DDNM(schedule=VP(3)), samples=2, seed=7)
    told = repr(result)
    assert told.startswith("Result(samples=float32(1, 2, 1, 4, 4), nfe=")
    assert told.endswith("solver=DDNM, prior=toy, seed=7)") and len(told) < 160
    assert "0.7071" not in told and "\n" not in told
    bare = Result(torch.zeros(1, 1, 2), 1, 0, 0.5, {})
    assert repr(bare).startswith("Result(samples=float32(1, 1, 2), nfe=1")


def test_what_cannot_be_written_is_recorded_by_its_short_repr() -> None:
    A = Mine(torch.ones(3, 4), {})
    problem = Problem.__new__(Problem)  # the operator is recorded, and not applied
    for name, value in (("y", X), ("A", A), ("noise", GaussianNoise(0.1)), ("x_shape", (1, *SIZE))):
        object.__setattr__(problem, name, value)
    prior = Denoiser(lambda x, sigma: x, name="toy")
    written = describe(problem, prior, DDNM(), {})
    assert "Mine(weights=float32(3, 4), names={0 in all})" in written["problem"]["repr"]


def test_numbers_of_one_value_are_shown() -> None:
    assert shown(torch.tensor(2.5)) == "2.5" and shown(torch.ones(1)) == "float32(1)"
    assert shown((1, 2)) == "(1, 2)" and shown(()) == "()" and shown(None) == "None"
    assert shown(np.ones((2, 3))) == "float64(2, 3)"
    assert brief(VP(3)).startswith("VP(")


def test_messages_stay_short() -> None:
    """The sentence of a solver that cannot does not print arrays."""
    problem = Problem(X, ops.Inpaint(MASK), GaussianNoise(0.1), (1, *SIZE))
    with pytest.raises(InvdiffError) as error:
        invdiff.check(DDNM(), problem, Denoiser(lambda x, sigma: x))
    assert len(str(error.value)) < 300 and why_not(DDNM(), problem)
