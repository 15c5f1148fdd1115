"""The nouns: what they refuse, what they derive, and that they stay as they are."""

import dataclasses
import math

import pytest
import torch

from invdiff.core import CLEAN, InvdiffError, Level, batch_dot, batch_norm, log_normal
from invdiff.core.rng import Rng
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.operators.algebra import Identity, Linear
from invdiff.problem import Problem
from invdiff.sampling.state import State


class Fourier(Linear):
    """The unitary 1-D transform along the last axis: a complex measurement."""

    def __call__(self, x):
        return torch.fft.fft(x, norm="ortho")

    def adjoint(self, y):
        return torch.fft.ifft(y, norm="ortho").real


class LeftHalf(Linear):
    """The left half was measured, the rest of y is unknown."""

    def __call__(self, x):
        return self.restrict(x)

    def restrict(self, y):
        return torch.where(torch.arange(y.shape[-1]) < y.shape[-1] // 2, y, 0.0)

    adjoint = __call__


def normal(*shape, seed=0, dtype=torch.float64):
    return Rng.of(seed).normal(torch.empty(1, *shape, dtype=dtype), "test")[0]


def test_level_is_the_same_noise_in_every_frame():
    for scale in (1e-3, 1.0, 50.0):
        level = Level(0.6 * scale, 0.8 * scale)
        assert level.sigma == pytest.approx(4 / 3, rel=1e-15)
        assert level.alpha_bar == pytest.approx(0.36, rel=1e-15)
    assert CLEAN.sigma == 0 and CLEAN.alpha_bar == 1


def test_nouns_are_frozen():
    problem = Problem(normal(1, 1, 4, 4), Identity(), NOISELESS, (1, 4, 4))
    state = State(0, problem.y, problem.y)
    for noun, name in ((CLEAN, "a"), (problem, "y"), (state, "x")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(noun, name, 1.0)


def test_problem_names_both_shapes_when_the_measurement_does_not_fit():
    with pytest.raises(InvdiffError, match=r"\(1, 4, 5\).*Identity.*\(1, 4, 4\)"):
        Problem(normal(1, 1, 4, 5), Identity(), NOISELESS, (1, 4, 4))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_problem_counts_bad_values(bad):
    y = normal(1, 1, 4, 4)
    y[0, 0, 1, :2] = bad
    with pytest.raises(InvdiffError, match="2 values"):
        Problem(y, Identity(), NOISELESS, (1, 4, 4))


def test_problem_sets_what_was_never_measured_to_zero_and_leaves_the_callers_tensor():
    y = normal(2, 1, 2, 4)
    before = y.clone()
    problem = Problem(y, LeftHalf(), NOISELESS, (1, 2, 4))
    assert torch.equal(y, before)
    assert torch.equal(problem.y[..., :2], y[..., :2]) and not problem.y[..., 2:].any()
    assert not problem.residual(before).any()


def test_problem_ignores_bad_values_where_nothing_was_measured():
    y = normal(1, 1, 2, 4)
    y[..., 3] = math.nan
    assert torch.isfinite(Problem(y, LeftHalf(), NOISELESS, (1, 2, 4)).y).all()


def test_problem_rows_may_repeat():
    y = normal(3, 1, 2, 2)
    rows = Problem(y, Identity(), GaussianNoise(0.1), [1, 2, 2]).rows(torch.tensor([2, 0, 2]))
    assert rows.batch == 3 and rows.x_shape == (1, 2, 2)
    assert torch.equal(rows.y, y[[2, 0, 2]])


def test_unknown_of_a_complex_measurement_is_real():
    problem = Problem(torch.fft.fft(normal(2, 1, 1, 8)), Fourier(), NOISELESS, (1, 1, 8))
    assert problem.x_like.shape == (2, 1, 1, 8) and problem.x_like.dtype == torch.float64
    single = problem.to("cpu", torch.float32)
    assert single.y.dtype == torch.complex64 and single.x_like.dtype == torch.float32
    assert problem.y.dtype == torch.complex128


def test_batch_reductions_are_per_sample_and_hermitian():
    x = torch.complex(normal(3, 2, 5), normal(3, 2, 5, seed=1))
    y = torch.complex(normal(3, 2, 5, seed=2), normal(3, 2, 5, seed=3))
    for i in range(3):
        dot = torch.vdot(x[i].flatten(), y[i].flatten()).real
        torch.testing.assert_close(batch_dot(x, y)[i, 0, 0], dot, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(batch_norm(x)[i, 0, 0], x[i].norm(), rtol=1e-14, atol=0)
    assert batch_dot(x, y).shape == batch_norm(x).shape == (3, 1, 1)


def test_log_normal_is_the_density():
    r = normal(4, 2, 3)
    law = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 0.3)
    expected = law.log_prob(r).flatten(1).sum(1)
    torch.testing.assert_close(log_normal(r, 0.09), expected, rtol=1e-13, atol=0)
