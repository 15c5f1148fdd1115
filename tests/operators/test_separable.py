"""The decomposition of separable operators, and inverses where A does not have full rank."""

from __future__ import annotations

import pytest
import torch

from invdiff.operators import (
    AveragePool,
    CircularBlur,
    Inpaint,
    Linear,
    SeparableBlur,
    gaussian_kernel,
)
from invdiff.operators.boundaries import reflected
from invdiff.operators.separable import Banded, full_svd
from invdiff.operators.separable_blur import blur_matrix

torch.set_num_threads(1)


def test_reflection() -> None:
    period = [0, 1, 2, 2, 1, 0]
    assert reflected(torch.arange(-6, 12), 3).tolist() == 3 * period
    assert reflected(torch.arange(-2, 3), 1).tolist() == [0] * 5


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (5, 5), (1, 1), (1, 6)])
@pytest.mark.parametrize("rank", [1, 9])
def test_full_svd(shape: tuple[int, int], rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(shape[0], rank, generator=generator, dtype=torch.float64)
    a = a @ torch.randn(rank, shape[1], generator=generator, dtype=torch.float64)
    u, s, v = full_svd(a)
    k = min(shape)
    assert u.shape == (shape[0], k) and s.shape == (k,) and v.shape == (shape[1], shape[1])
    torch.testing.assert_close(u.T @ u, torch.eye(k).double(), rtol=0, atol=1e-13)
    torch.testing.assert_close(v.T @ v, torch.eye(shape[1]).double(), rtol=0, atol=1e-13)
    torch.testing.assert_close(u * s @ v[:, :k].T, a, rtol=0, atol=1e-12)


def test_solve_in_single_precision_keeps_small_singular_values() -> None:
    """Singular values below the rank decision of float32 still count next to a small shift."""
    taps = gaussian_kernel(1.5).sum(0)
    A = SeparableBlur(taps, taps, (24, 24))
    small = A.s[(A.s > 0) & (A.s < 24 * torch.finfo(torch.float32).eps)]
    assert len(small) > 10
    b = torch.randn(2, 1, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = A.solve(b, 1e-10)
    assert float((A.solve(b.float(), 1e-10) - exact).norm() / exact.norm()) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "A",
    [
        AveragePool(4, (16, 16)) @ CircularBlur(gaussian_kernel(1.5), (16, 16)),
        Inpaint.random((16, 16), 0.5, seed=0) @ CircularBlur(gaussian_kernel(0.7), (16, 16)),
    ],
    ids=["pool-blur", "mask-blur"],
)
def test_iterative_pinv_stays_in_the_row_space(A: Linear, dtype: torch.dtype) -> None:
    """Plain conjugate gradients on the normal equations diverge here, to 1e9 and beyond."""
    eye = torch.eye(256, dtype=torch.float64).reshape(256, 1, 16, 16)
    a = A(eye).flatten(1).T
    s = torch.linalg.svdvals(a)
    s = s[s > 256 * torch.finfo(torch.float64).eps * s[0]]
    y = torch.randn(3, *A.y_shape((1, 16, 16)), generator=torch.Generator().manual_seed(1))
    x = A.pinv(y.to(dtype)).flatten(1).double()
    exact = y.double().flatten(1) @ torch.linalg.pinv(a, rtol=1e-12).T
    bound = 8 * torch.finfo(dtype).eps * float(s[0] / s[-1]) ** 2
    assert bound < 1e-2
    assert float((x - exact).norm() / exact.norm()) < bound


def test_blocks_that_skip_zeros_are_the_matrix() -> None:
    g = torch.Generator().manual_seed(0)
    taps = torch.rand(7, generator=g, dtype=torch.float64)
    for n, boundary in ((50, "reflect"), (64, "zero"), (41, "circular"), (5, "reflect")):
        matrix = blur_matrix(taps, n, boundary)
        banded = Banded(matrix, matrix)
        x = torch.randn(2, 3, n, n, generator=g, dtype=torch.float64)
        assert torch.allclose(banded.rows(x), matrix @ x, rtol=0, atol=1e-13)
        assert torch.allclose(banded.columns(x), x @ matrix.mT, rtol=0, atol=1e-13)
    assert len(Banded(blur_matrix(taps, 128, "zero"), taps).parts) == 8
    assert len(Banded(torch.ones(128, 128), taps).parts) == 1  # nothing to skip
