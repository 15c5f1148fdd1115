"""Data steps of parallel imaging by lines against dense matrices, and where there are none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import invdiff.operators as ops
from helpers import seeded
from invdiff.noise import GaussianNoise
from invdiff.operators import sense_lines
from invdiff.operators.sense_lines import across, lines
from invdiff.priors.modes import Covariance
from invdiff.priors.posterior import matrix
from invdiff.problem import Problem
from invdiff.solvers import normal

H, W, COILS = 6, 5, 3
COLUMNS = torch.tensor([1.0, 0, 1, 1, 0]).reshape(1, 1, 1, W)
ROWS = torch.tensor([1.0, 0, 0, 1, 1, 0]).reshape(1, 1, H, 1)


def maps(rows: int = 1) -> Tensor:
    return torch.complex(seeded(rows, COILS, H, W, seed=1), seeded(rows, COILS, H, W, seed=2))


@pytest.mark.parametrize("mask", [COLUMNS, ROWS], ids=["columns", "rows"])
@pytest.mark.parametrize("whole", [False, True], ids=["one axis", "whole mask"])
@pytest.mark.parametrize("rows", [1, 2])
def test_solve_and_ridge_are_those_of_the_matrix(mask: Tensor, whole: bool, rows: int) -> None:
    """(A^T A + shift)^-1 in float64, also where a shift is far below the singular values."""
    mask = mask.expand(1, 1, H, W).clone() if whole else mask
    A, shape = ops.Sense(maps(rows), mask), (2, H, W)
    b, y = seeded(2, *shape, seed=3), A(seeded(2, *shape, seed=4))
    for k in range(2):
        one = ops.Sense(maps(rows)[k % rows : k % rows + 1], mask)
        M = matrix(one, shape)[0]
        for shift in (0.3, 1e-6):
            normal = M.T @ M + shift * torch.eye(M.shape[1], dtype=torch.float64)
            want = torch.linalg.solve(normal, b[k].flatten()).reshape(shape)
            found = A.solve(b, shift)[k]
            assert float((found - want).norm() / want.norm()) < 1e-9
            want = torch.linalg.solve(normal, one.adjoint(y[k : k + 1]).flatten()).reshape(shape)
            assert float((A.ridge(y, shift)[k] - want).norm() / want.norm()) < 1e-6


def test_ridge_leaves_out_what_was_not_seen() -> None:
    """In float32 and at a shift below round-off, where solve divides round-off by the shift."""
    A = ops.Sense(maps().to(torch.complex64)[:, :1], COLUMNS)
    x = seeded(1, 2, H, W, seed=4).float()
    exact = ops.Sense(maps()[:, :1], COLUMNS).pinv(A(x).to(torch.complex128))
    assert float((A.ridge(A(x), 1e-9).double() - exact).norm() / exact.norm()) < 1e-3


def test_points_have_no_lines() -> None:
    """A mask of single points falls back on iterations, and so does a matrix beyond memory."""
    points = torch.ones(1, 1, H, W)
    points[0, 0, 2, 3] = 0
    assert across(points, (H, W)) is None and lines(maps(), points) is None
    assert across(COLUMNS, (H, W)) == -1 and across(ROWS, (H, W)) == -2


def test_lines_are_left_where_they_need_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    A = ops.Sense(maps(), COLUMNS, cg_tol=1e-12)
    b = seeded(1, 2, H, W, seed=3)
    exact = A.solve(b, 0.1)
    monkeypatch.setattr(sense_lines, "MOST_BYTES", 0)
    B = ops.Sense(maps(), COLUMNS, cg_tol=1e-12)
    assert lines(maps(), COLUMNS) is None
    assert torch.allclose(B.solve(b, 0.1), exact, atol=1e-9)


@pytest.mark.parametrize("size", [(6, 8), (7, 5), (6, 5)])
@pytest.mark.parametrize("across", [-1, -2])
@pytest.mark.parametrize("rows", [1, 2])
def test_lines_alone_measure_the_same(size: tuple[int, int], across: int, rows: int) -> None:
    """A = U A' with an isometry U, whose range is all that was measured."""
    g = torch.Generator().manual_seed(6)
    S = torch.randn(rows, COILS, *size, dtype=torch.complex128, generator=g)
    mask = torch.zeros(1, 1, *size)
    mask.index_fill_(across, torch.tensor([0, 2, 3]), 1)
    A, x = ops.Sense(S, mask), torch.randn(2, 2, *size, dtype=torch.float64, generator=g)
    y = A(x)
    small = A.compact(y)
    assert small is not None
    r = A.restrict(torch.randn(y.shape, dtype=y.dtype, generator=g))
    k = small.forward(x)
    assert k.shape[across] == 3 and k.numel() < y.numel()
    torch.testing.assert_close(small.back(k), y, atol=1e-13, rtol=0)
    torch.testing.assert_close(small.adjoint(small.to(r)), A.adjoint(r), atol=1e-13, rtol=0)
    torch.testing.assert_close(small.back(small.to(r)), r, atol=1e-13, rtol=0)
    torch.testing.assert_close(small.to(small.back(k)), k, atol=1e-13, rtol=0)


def test_points_and_masks_of_their_own_have_no_lines_alone() -> None:
    points = torch.ones(1, 1, H, W)
    points[0, 0, 2, 3] = 0
    for mask in (points, torch.cat([COLUMNS, COLUMNS.flip(-1)])):
        A = ops.Sense(maps(), mask)
        assert A.compact(A(seeded(2, 2, H, W, seed=3))) is None


@pytest.mark.parametrize("sigma", [0.05, 0.0])
def test_weights_of_lines_alone_are_those_of_all_k_space(
    sigma: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of an r with noise where nothing was measured, of which images know nothing."""
    A, g = ops.Sense(maps(), COLUMNS), torch.Generator().manual_seed(7)
    V = Covariance(torch.rand(1, 2, H, W, dtype=torch.float64, generator=g) + 0.1)
    y = A(seeded(2, 2, H, W, seed=4))
    r = y + torch.randn(y.shape, dtype=y.dtype, generator=g) * sigma
    problem = Problem(y, A, GaussianNoise(sigma), (2, H, W))
    found = [V(A.adjoint(normal.weights(r, V, problem, 500, 1e-9)))]
    monkeypatch.setattr(ops.Sense, "compact", ops.Linear.compact)
    found.append(V(A.adjoint(normal.weights(r, V, problem, 500, 1e-9))))
    torch.testing.assert_close(*found, atol=1e-6, rtol=0)
