"""Tiled blur and displacements against loops, and what they reduce to."""

from __future__ import annotations

import math

import pytest
import torch

from helpers import seeded
from invdiff.core import InvdiffError
from invdiff.operators import TiledBlur, Warp, blur, dot_test, gaussian_kernel, lens_kernels
from invdiff.operators.varying import hat_windows


@pytest.mark.parametrize(("n", "tiles"), [(12, 3), (7, 4), (5, 5), (1, 1), (9, 1)])
def test_windows_sum_to_one(n, tiles):
    w = hat_windows(n, tiles)
    assert w.shape == (tiles, n) and (w >= 0).all()
    torch.testing.assert_close(w.sum(0), torch.ones(n).double(), rtol=0, atol=1e-15)
    for t in range(tiles):
        middle = (t + 0.5) * n / tiles - 0.5
        for i in range(n):
            fall = max(0.0, 1 - abs(i - middle) * tiles / n)
            first = t == 0 and i < middle or t == tiles - 1 and i > middle
            assert float(w[t, i]) == pytest.approx(1.0 if first else fall, abs=1e-14)


@pytest.mark.parametrize("boundary", ["reflect", "replicate", "zero", "circular", "valid"])
def test_tiled_blur_is_its_formula(boundary):
    kernels = seeded(2, 3, 3, 5).abs()
    x = seeded(2, 2, 8, 9, seed=1)
    rows, columns = hat_windows(8, 2), hat_windows(9, 3)
    if boundary == "valid":  # of kernels of 3 x 5 taps
        rows, columns = rows[:, 1:-1], columns[:, 2:-2]
    expected = torch.zeros(2, 2, rows.shape[1], columns.shape[1]).double()
    for i in range(2):
        for j in range(3):
            window = rows[i][:, None] * columns[j][None, :]
            expected += window * blur(kernels[i, j], (8, 9), boundary)(x)
    A = TiledBlur(kernels, (8, 9), boundary)
    torch.testing.assert_close(A(x), expected, rtol=0, atol=1e-13)
    assert dot_test(A, (2, 8, 9)) < 1e-13
    with pytest.raises(InvdiffError, match="nothing is measured"):
        TiledBlur(kernels, (2, 9), "valid")


def test_equal_kernels_are_one_blur_and_constants_stay():
    k = gaussian_kernel(0.8)
    A, x = TiledBlur(k.expand(3, 2, *k.shape), (9, 8)), seeded(1, 1, 9, 8)
    torch.testing.assert_close(A(x), blur(k, (9, 8))(x), rtol=0, atol=1e-14)
    lens = TiledBlur(lens_kernels((3, 3)), (20, 20))
    flat = torch.full((1, 1, 20, 20), 0.7).double()
    torch.testing.assert_close(lens(flat), flat, rtol=0, atol=1e-13)


def test_a_lens_is_sharp_in_the_middle_and_smears_outwards():
    k = lens_kernels((3, 3), 0.5, 2.0)
    torch.testing.assert_close(k.sum((2, 3)), torch.ones(3, 3).double())
    at = torch.arange(k.shape[-1]).double() - k.shape[-1] // 2
    spread_x = (k * at[None, :] ** 2).sum((2, 3))
    spread_y = (k * at[:, None] ** 2).sum((2, 3))
    assert spread_x[1, 1] < 0.3 and spread_x[1, 2] > spread_y[1, 2]
    assert spread_y[0, 1] > spread_x[0, 1]
    # upper left corner: along the diagonal through the middle, not across it
    mixed = (k[0, 0] * at[:, None] * at[None, :]).sum()
    assert mixed > 0
    torch.testing.assert_close(k[2, 2], k[0, 0].flip(0, 1), rtol=0, atol=1e-15)


def sampled(image, row, column):
    """Bilinear sample in plain numbers, places beyond the edge moved onto it."""
    h, w = image.shape
    row, column = min(max(row, 0.0), h - 1.0), min(max(column, 0.0), w - 1.0)
    i, j = min(math.floor(row), h - 1), min(math.floor(column), w - 1)
    total = 0.0
    for a in (i, i + 1):
        for b in (j, j + 1):
            weight = max(0.0, 1 - abs(row - a)) * max(0.0, 1 - abs(column - b))
            if weight:
                total += weight * float(image[a, b])
    return total


@pytest.mark.parametrize("size", [(6, 5), (1, 4), (1, 1)])
def test_warp_in_loops(size):
    d, x = 2 * seeded(2, 2, *size), seeded(2, 2, *size, seed=1)
    y = Warp(d)(x)
    for b in range(2):
        for c in range(2):
            for i in range(size[0]):
                for j in range(size[1]):
                    dy, dx = d[b, :, i, j].tolist()
                    expected = sampled(x[b, c], i + dy, j + dx)
                    assert float(y[b, c, i, j]) == pytest.approx(expected, abs=1e-13)


def test_whole_steps_move_pixels():
    d = torch.zeros(1, 2, 4, 5).double()
    x = seeded(2, 3, 4, 5)
    assert torch.equal(Warp(d)(x), x)
    d[:, 0], d[:, 1] = 1.0, -2.0
    y = Warp(d)(x)
    assert torch.equal(y[..., :3, 2:], x[..., 1:, :3]) and torch.equal(y[..., 3, 2:], x[..., 3, :3])


def test_turbulence_is_smooth_and_of_the_strength_asked_for():
    A = Warp.turbulence((32, 40), 1.5, scale=4.0, seed=3)
    d = A.displacement
    torch.testing.assert_close(d.square().mean((2, 3)).sqrt(), torch.full((1, 2), 1.5).double())
    # neighbours of white noise smoothed by a Gaussian of width s correlate by exp(-1 / (4 s^2))
    step = (d - d.roll(1, 3)).square().mean() / d.square().mean()
    assert float(step) == pytest.approx(2 * (1 - math.exp(-1 / 64)), rel=0.3)
    assert torch.equal(Warp.turbulence((32, 40), 1.5, scale=4.0, seed=3).displacement, d)
    assert not torch.equal(Warp.turbulence((32, 40), 1.5, scale=4.0, seed=4).displacement, d)
    assert not Warp.turbulence((6, 5), 0.0, 2.0).displacement.any()


def test_errors_are_sentences():
    with pytest.raises(InvdiffError, match="rows, columns, height, width"):
        TiledBlur(torch.ones(3, 3), (8, 8))
    with pytest.raises(InvdiffError, match="do not fit"):
        TiledBlur(torch.ones(9, 1, 3, 3), (8, 8))
    with pytest.raises(InvdiffError, match="sum to 0"):
        TiledBlur(torch.stack([torch.ones(3, 3), torch.zeros(3, 3)])[None], (8, 8))
    with pytest.raises(InvdiffError, match="no boundary"):
        TiledBlur(torch.ones(1, 1, 3, 3), (8, 8), "periodic")
    with pytest.raises(InvdiffError, match="made for images of 8 x 8"):
        TiledBlur(torch.ones(1, 1, 3, 3), (8, 8)).y_shape((1, 8, 9))
    for bad in (torch.zeros(1, 3, 4, 4), torch.zeros(2, 4, 4), torch.zeros(1, 2, 4, 4).long()):
        with pytest.raises(InvdiffError, match="batch or 1, 2, height, width"):
            Warp(bad)
    with pytest.raises(InvdiffError, match="finite numbers"):
        Warp(torch.full((1, 2, 4, 4), torch.nan))
    for strength, scale, words in (
        (-1.0, 2.0, "0 or more"),
        (math.nan, 2.0, "finite number"),
        (1.0, 0.0, "above 0"),
        (1.0, 99.0, "larger than the image"),
        (1.0, math.nan, "finite number"),
    ):
        with pytest.raises(InvdiffError, match=words):
            Warp.turbulence((8, 8), strength, scale)
    finite = "must be a finite number"
    wrong = ((0.0, 1.0, "pixels above 0"), (1.0, math.inf, finite), (math.nan, 1.0, finite))
    for centre, corner, words in wrong:
        with pytest.raises(InvdiffError, match=words):
            lens_kernels((2, 2), centre, corner)
