"""Published facts about block means and antialiased bicubic decimation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators import AveragePool, Bicubic
from invdiff.operators.boundaries import reflected
from invdiff.operators.downsample import keys_cubic

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("factor", "low", "high"), [(4, 0.349, 0.500), (8, 0.247, 0.354), (16, 0.176, 0.250)]
)
def test_bicubic_singular_values(factor: int, low: float, high: float) -> None:
    """One axis of 256 pixels; the published figures have three digits."""
    s = torch.linalg.svdvals(Bicubic(factor, (256, 256)).left)
    assert float(s[-1]) == pytest.approx(low, abs=1e-3)
    assert float(s[0]) == pytest.approx(high, abs=5e-4)


def test_bicubic_in_two_dimensions() -> None:
    A = Bicubic(4, (256, 256))
    s = A.s[A.s > 1e-12]
    assert len(s) == 64 * 64 and float(s.max()) == pytest.approx(0.25, abs=1e-6)
    assert float(s.min()) == pytest.approx(0.121, abs=1e-3)
    assert float(s.max() / s.min()) == pytest.approx(2.06, abs=0.01)


def cubic_enlargement(n: int, factor: int) -> Tensor:
    """n samples to n factor samples by plain cubic interpolation, mirrored at the ends."""
    centre = (torch.arange(n * factor).double() + 0.5) / factor - 0.5
    taps = centre.floor().long()[:, None] + torch.arange(-1, 3)
    up = torch.zeros(n * factor, n, dtype=torch.float64)
    return up.scatter_add_(1, reflected(taps, n), keys_cubic(taps - centre[:, None]))


@pytest.mark.parametrize(("factor", "low"), [(2, 0.0), (4, 0.486), (16, 0.497)])
def test_enlargement_is_the_scaled_transpose(factor: int, low: float) -> None:
    """up = N down^T, so up down is symmetric with eigenvalues in [0, 1], but no projector."""
    down = Bicubic(factor, (256, 256)).left
    up = cubic_enlargement(256 // factor, factor)
    torch.testing.assert_close(up, factor * down.T, rtol=0, atol=1e-12)
    eigenvalues = torch.linalg.eigvalsh(up @ down)[-(256 // factor) :]
    assert float(eigenvalues[-1]) == pytest.approx(1, abs=1e-9)
    if low:
        assert float(eigenvalues[0]) == pytest.approx(low, abs=1e-3)
        gap = float((eigenvalues**2 - eigenvalues).abs().max())
        assert gap == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_block_mean_spectrum(factor: int) -> None:
    """s = 1 / R on n / R^2 modes and 0 on the others; the pseudo-inverse repeats each pixel."""
    A = AveragePool(factor, (16, 24))
    assert A.s.shape == (16, 24)
    kept = A.s[A.s > 0]
    assert len(kept) == 16 * 24 // factor**2
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / factor), rtol=0, atol=1e-14)
    y = torch.randn(2, 3, 16 // factor, 24 // factor, dtype=torch.float64)
    repeated = y.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    torch.testing.assert_close(A.pinv(y), repeated, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [AveragePool, Bicubic])
def test_constants_and_identity(make: type) -> None:
    x = torch.randn(2, 3, 7, 11, dtype=torch.float64)
    torch.testing.assert_close(make(1, (7, 11))(x), x, rtol=0, atol=1e-14)
    ones = torch.ones(1, 1, 7, 11, dtype=torch.float64)
    assert make(3, (7, 11)).y_shape((3, 7, 11)) == (3, 3, 4)
    torch.testing.assert_close(make(3, (7, 11))(ones), ones[..., :3, :4], rtol=0, atol=1e-14)


@pytest.mark.parametrize("make", [AveragePool, Bicubic])
def test_errors_are_sentences(make: type) -> None:
    for factor in (0, -2, 2.5, 4.0, 9, float("nan"), "2"):
        with pytest.raises(InvdiffError, match=f"from 1 to 8 .* 8 x 9 pixels, found {factor}"):
            make(factor, (8, 9))
    for size in ((8,), (8, -1), (8.0, 9)):
        with pytest.raises(InvdiffError, match="size"):
            make(2, size)
    with pytest.raises(InvdiffError, match=r"8 x 9 pixels, found .*\(3, 9, 8\)"):
        make(2, (8, 9)).y_shape((3, 9, 8))
    assert make(2, [8, 9]).size == (8, 9)
