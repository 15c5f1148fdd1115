"""Compressed sensing: textbook matrices, which coefficients are kept, errors."""

from __future__ import annotations

import math

import pytest
import torch

from invdiff.core import InvdiffError
from invdiff.operators import (
    AveragePool,
    Bicubic,
    BlockSensing,
    Blur,
    Identity,
    Inpaint,
    SinglePixel,
    WalshHadamard,
    gaussian_kernel,
    scaled,
)
from invdiff.operators.algebra.krylov import inverse_squared_norm
from invdiff.operators.sensing import hadamard, sign_changes


def sylvester(n: int) -> torch.Tensor:
    """Sylvester's matrix: entry (i, j) is (-1) to the number of common bits of i and j."""
    rows = [[(-1.0) ** (i & j).bit_count() for j in range(n)] for i in range(n)]
    return torch.tensor(rows, dtype=torch.float64) / math.sqrt(n)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_the_fast_transform_is_sylvesters_matrix(n: int) -> None:
    x = random(3, n)
    torch.testing.assert_close(hadamard(x), x @ sylvester(n).T, rtol=0, atol=1e-14 * n)
    torch.testing.assert_close(hadamard(hadamard(x)), x, rtol=0, atol=1e-14 * n)


def test_walsh_hadamard_keeps_the_first_of_a_random_order() -> None:
    """All pixels of a channel in one transform; the same coefficients in every channel."""
    A, x = WalshHadamard(5, (4, 8), seed=3), random(2, 3, 4, 8)
    matrix = sylvester(32)[A.index]
    expected = torch.einsum("kp,bcp->bck", matrix, x.flatten(2))
    torch.testing.assert_close(A(x), expected, rtol=0, atol=1e-13)
    more = WalshHadamard(32, (4, 8), seed=3)
    assert torch.equal(more.index[:5], A.index) and sorted(more.index.tolist()) == [*range(32)]
    torch.testing.assert_close(more.pinv(more(x)), x, rtol=0, atol=1e-13)
    assert not torch.equal(WalshHadamard(5, (4, 8), seed=4).index, A.index)
    assert A.s.sum() == 5 and A.y_shape((3, 4, 8)) == (3, 5)


def test_seeds_are_the_same_everywhere() -> None:
    """Golden values: a saved problem holds the seed alone."""
    assert WalshHadamard(6, (16, 16), seed=0).index.tolist() == [139, 101, 93, 20, 73, 149]


def test_block_sensing_multiplies_every_block() -> None:
    """In plain loops."""
    A, x = BlockSensing(3, (4, 6), block=2, seed=1), random(2, 3, 4, 6)
    y = A(x)
    assert y.shape == (2, 3, 3, 2, 3)
    for i in range(2):
        for j in range(3):
            block = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(2, 3, 4)
            expected = block @ A.basis[:, :3]
            torch.testing.assert_close(y[..., i, j], expected, rtol=0, atol=1e-14)
    eye = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(A.basis.T @ A.basis, eye, rtol=0, atol=1e-14)
    assert not torch.equal(A.basis, BlockSensing(3, (4, 6), block=2, seed=2).basis)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WalshHadamard(3, (12, 8)), "powers of two, found 12 x 8; crop or pad"),
        (lambda: WalshHadamard(65, (8, 8)), "from 1 to 64, found 65"),
        (lambda: WalshHadamard(0, (8, 8)), "from 1 to 64, found 0"),
        (lambda: BlockSensing(3, (64, 48)), "Blocks of 32 pixels do not tile an image of 64 x 48"),
        (lambda: BlockSensing(5, (4, 4), 2), "from 1 to 4, found 5"),
        (lambda: WalshHadamard(3, (8, 8)).y_shape((3, 8, 16)), "made for images of 8 x 8"),
        (lambda: BlockSensing(3, (8, 8), 4).y_shape((3, 4, 8)), "made for images of 8 x 8"),
    ],
)
def test_errors(make, message: str) -> None:
    with pytest.raises(InvdiffError, match=message):
        make()


# ---- the norm of an operator, by power iteration


def test_norms_that_are_known() -> None:
    """1 / |A|^2 of averages is exact: a constant image attains it."""
    like = torch.empty(2, 3, 12, 12, dtype=torch.float64)
    for A, expected in (
        (Identity(), 1.0),
        (Bicubic(4, (12, 12)), 16.0),
        (AveragePool(3, (12, 12)), 9.0),
        (Blur(gaussian_kernel(1.0), (12, 12), "zero"), None),
        (scaled(Bicubic(4, (12, 12)), -0.5), 64.0),
        (Inpaint.random((12, 12), 0.3, seed=0, batch=2), 1.0),
        (WalshHadamard(3, (4, 4)), 1.0),
    ):
        shape = like[..., :4, :4] if isinstance(A, WalshHadamard) else like
        found = inverse_squared_norm(A, shape)
        assert found.shape == (2, 1, 1, 1) and found.dtype == torch.float64
        if expected is None:
            n = 144
            eye = torch.eye(n, dtype=torch.float64).reshape(n, 1, 12, 12)
            expected = float(torch.linalg.svdvals(A(eye).reshape(n, n))[0]) ** -2
            torch.testing.assert_close(found, torch.full_like(found, expected), rtol=1e-2, atol=0)
        else:
            torch.testing.assert_close(found, torch.full_like(found, expected), rtol=1e-12, atol=0)


def test_an_operator_that_measures_nothing_has_no_scale() -> None:
    class Nothing(Identity):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return 0 * x

        adjoint = __call__

    like = torch.empty(1, 1, 2, 2)
    assert float(inverse_squared_norm(Nothing(), like)) == 0


@pytest.mark.parametrize("n", [1, 2, 8, 32])
def test_sign_changes_are_counted(n: int) -> None:
    rows = sylvester(n).sign()
    counted = (rows[:, 1:] != rows[:, :-1]).sum(1)
    assert torch.equal(sign_changes(n), counted) and sorted(counted.tolist()) == [*range(n)]


def test_orders_of_hadamard_coefficients() -> None:
    """Natural is Sylvester's; by sequency the mean is first, then one change along an axis."""
    x = random(1, 1, 4, 8)
    natural = WalshHadamard(32, (4, 8), order="natural")(x)
    torch.testing.assert_close(natural, x.flatten(2) @ sylvester(32).T, rtol=0, atol=1e-13)
    A = WalshHadamard(32, (4, 8), order="sequency")
    patterns = (sylvester(32)[A.index] * 32**0.5).round().reshape(32, 4, 8)
    rows = (patterns[:, 1:, 0] != patterns[:, :-1, 0]).sum(1)
    columns = (patterns[:, 0, 1:] != patterns[:, 0, :-1]).sum(1)
    total = (rows + columns).tolist()
    assert total == sorted(total) and total[:3] == [0, 1, 1] and bool((patterns[0] == 1).all())
    with pytest.raises(InvdiffError, match="random, natural and sequency"):
        WalshHadamard(1, (4, 8), order="cake")  # type: ignore[arg-type]


def test_single_pixel_camera_is_its_formula() -> None:
    """Means through patterns of 0 and 1 and their complements; the difference is signed."""
    base = WalshHadamard(9, (4, 8), seed=2)
    A, x = SinglePixel(base), random(2, 3, 4, 8)
    signs = (sylvester(32)[base.index] * 32**0.5).round()
    on = (1 + signs) / 2
    assert set(on.flatten().tolist()) == {0.0, 1.0}
    expected = torch.stack(
        [torch.einsum("kp,bcp->bck", p, x.flatten(2)) / 32 for p in (on, 1 - on)], dim=2
    )
    torch.testing.assert_close(A(x), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(A.difference(A(x)), base(x), rtol=0, atol=1e-13)
    torch.testing.assert_close(A.difference(A(x) + 7.0), base(x), rtol=0, atol=1e-12)
    assert (A(x) + 7.0 - A(x)).abs().min() > 6  # negative twin: one reading does know the dark
