"""The cosine transform against scipy and its definition; which coefficients are measured."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.fft import dctn

from helpers import seeded
from invdiff.core import InvdiffError
from invdiff.noise import NOISELESS
from invdiff.operators import DCTSubsampling
from invdiff.operators.dct import dct2, dct_matrix, idct2
from invdiff.problem import Problem


@pytest.mark.parametrize("n", [1, 2, 5, 8, 17])
def test_the_matrix_is_the_orthonormal_cosine_transform(n):
    c = dct_matrix(n)
    torch.testing.assert_close(c @ c.T, torch.eye(n).double(), rtol=0, atol=4e-16 * n)
    for k in range(n):
        for i in range(n):
            norm = math.sqrt((1 if k == 0 else 2) / n)
            expected = norm * math.cos(math.pi * k * (2 * i + 1) / (2 * n))
            assert float(c[k, i]) == pytest.approx(expected, abs=1e-14)


def test_the_transform_is_scipys():
    fft = pytest.importorskip("scipy.fft")
    x = seeded(2, 3, 6, 5)
    y = DCTSubsampling(torch.ones(1, 1, 6, 5))(x)
    expected = fft.dctn(x.numpy(), axes=(-2, -1), norm="ortho")
    torch.testing.assert_close(y, torch.from_numpy(expected), rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [(800, 776), (769, 801)])
def test_a_large_picture_is_transformed_alike_alone_and_with_others(size):
    """By FFTs: along the columns of one picture they rounded otherwise than of several."""
    x = torch.randn(3, 1, *size, generator=torch.Generator().manual_seed(0))
    for transform in (dct2, idct2):
        together = transform(x)
        assert torch.equal(transform(x[:1]), together[:1])
        assert torch.equal(transform(x[:2]), together[:2])
    wanted = torch.from_numpy(dctn(x.double().numpy(), axes=(-2, -1), norm="ortho"))
    assert torch.allclose(dct2(x).double(), wanted, atol=2e-5)
    assert torch.allclose(idct2(dct2(x)), x, atol=1e-5)


def test_random_and_low_coefficients():
    A = DCTSubsampling.random((8, 6), 0.25, seed=3, low=2, batch=2)
    mask = A.mask
    assert mask.shape == (2, 1, 8, 6) and bool(mask[..., :2, :2].all())
    assert all(12 <= int(m.sum()) <= 16 for m in mask)
    assert not torch.equal(mask[0], mask[1])
    assert torch.equal(DCTSubsampling.random((8, 6), 0.25, seed=4, low=2).mask[0], mask[1])
    plain = DCTSubsampling.random((8, 6), 0.25, seed=3).mask
    assert int(plain.sum()) == 12 and bool((mask[:1] >= plain).all())
    low = DCTSubsampling.lowest((8, 6), 7)
    assert int(low.mask.sum()) == 7 * 6
    constant = torch.full((1, 1, 8, 6), 0.3).double()
    torch.testing.assert_close(low.pinv(low(constant)), constant, rtol=0, atol=1e-14)


def test_what_was_not_measured_is_never_read():
    A, x = DCTSubsampling.random((8, 6), 0.3, seed=1), seeded(1, 2, 8, 6)
    y = torch.where(A.mask, A(x), torch.nan)
    problem = Problem(y, A, NOISELESS, (2, 8, 6))
    assert torch.equal(A.pinv(problem.y), A.pinv(A(x)))


def test_errors_are_sentences():
    with pytest.raises(InvdiffError, match="knows no pixel"):
        DCTSubsampling(torch.zeros(1, 1, 4, 4))
    with pytest.raises(InvdiffError, match="only 1 .known. and 0"):
        DCTSubsampling(torch.full((1, 1, 4, 4), 0.5))
    for count, words in ((0, "lowest frequencies"), (9, "lowest frequencies"), (2.5, "a whole")):
        with pytest.raises(InvdiffError, match=words):
            DCTSubsampling.lowest((8, 6), count)
    with pytest.raises(InvdiffError, match="does not fit"):
        DCTSubsampling.lowest((8, 6), 2).y_shape((1, 6, 8))
