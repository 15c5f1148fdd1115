"""Grayscale: weights, basis and errors."""

from __future__ import annotations

import pytest
import torch

from invdiff.core import InvdiffError
from invdiff.operators import REC601, Grayscale


def test_defaults() -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(Grayscale()(x), x.mean(1, keepdim=True), rtol=0, atol=1e-14)
    torch.testing.assert_close(
        Grayscale().pinv(x[:, :1]), x[:, :1].expand_as(x), rtol=0, atol=1e-14
    )
    assert Grayscale().s.flatten().tolist() == pytest.approx([3**-0.5, 0, 0], abs=1e-15)
    assert sum(REC601) == pytest.approx(1)


@pytest.mark.parametrize(
    "weights",
    [(1.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (1.0, 1e-9, 0.0), (0, 0, 2), (3.0,), (1, 2, 3, 4)],
)
def test_basis_is_orthonormal(weights: tuple[float, ...]) -> None:
    """Also next to the axis, where a Householder mirror of the wrong sign would cancel."""
    A = Grayscale(weights)
    w = torch.tensor(weights, dtype=torch.float64)
    eye = torch.eye(len(weights), dtype=torch.float64)
    torch.testing.assert_close(A.basis.T @ A.basis, eye, rtol=0, atol=1e-15)
    torch.testing.assert_close(A.basis[:, 0], w / w.norm(), rtol=0, atol=1e-15)


def test_errors_are_sentences() -> None:
    for weights in ((), (0, 0, 0), (1, float("nan"), 0)):
        with pytest.raises(InvdiffError, match="not all zero"):
            Grayscale(weights)
    for shape in ((1, 4, 5), (3, 4), (1, 2, 4, 5), (3, 1, 2, 4, 5)):
        with pytest.raises(InvdiffError, match="3 colour weights are for images"):
            Grayscale().y_shape(shape)
