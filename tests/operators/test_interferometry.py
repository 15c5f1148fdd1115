"""Visibilities in plain loops, on the grid against the fast transform, and arrays on the globe."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
import torch

from helpers import seeded
from invdiff.core import InvdiffError
from invdiff.noise import GaussianNoise
from invdiff.operators import (
    Interferometry,
    earth_rotation,
    grid_uv,
    low_frequencies,
    random_uv,
)
from invdiff.problem import Problem

H, W = 5, 6


def visibility(image, u, v):
    """The sum over pixels, phases from the pixel (H // 2, W // 2)."""
    total = 0.0
    for q in range(H):
        for p in range(W):
            phase = u * (p - W // 2) / W + v * (q - H // 2) / H
            total += float(image[q, p]) * cmath.exp(-2j * math.pi * phase)
    return total / math.sqrt(H * W)


def test_visibilities_in_loops():
    x, uv = seeded(2, 3, H, W), random_uv(4, 2.5, seed=3)
    y = Interferometry(uv, (H, W))(x)
    assert y.shape == (2, 3, 4) and y.dtype == torch.complex128
    for b in range(2):
        for c in range(3):
            for m, (u, v) in enumerate(uv[0].tolist()):
                assert complex(y[b, c, m]) == pytest.approx(visibility(x[b, c], u, v), abs=1e-12)
    assert complex(y[0, 0, 0]) != pytest.approx(visibility(x[0, 0], *uv[0, 0].flip(0).tolist()))


def test_each_row_has_its_own_frequencies():
    x = seeded(2, 1, H, W)
    uv = torch.cat([random_uv(3, 2.0, seed=k) for k in (1, 2)])
    y = Interferometry(uv, (H, W))(x)
    for b in range(2):
        torch.testing.assert_close(
            y[b : b + 1], Interferometry(uv[b : b + 1], (H, W))(x[b : b + 1])
        )
    back = Interferometry(uv, (H, W)).adjoint(y)
    assert back.shape == x.shape and back.dtype == torch.float64


@pytest.mark.parametrize("size", [(5, 6), (8, 7), (4, 4)])
def test_whole_frequencies_are_the_centred_orthonormal_transform(size):
    x = seeded(2, 1, *size)
    everything = grid_uv(torch.ones(size))
    y = Interferometry(everything, size)(x).reshape(x.shape)
    moved = torch.fft.ifftshift(x, dim=(-2, -1))
    want = torch.fft.fftshift(torch.fft.fft2(moved, norm="ortho"), dim=(-2, -1))
    torch.testing.assert_close(y, want, rtol=0, atol=1e-12)
    A = Interferometry(everything, size)
    torch.testing.assert_close(A.adjoint(A(x)), x, rtol=0, atol=1e-12)


def test_the_lowest_frequencies_are_a_centred_square():
    mask = low_frequencies((8, 7), 4)
    q, p = mask.nonzero(as_tuple=True)
    assert (q - 4).tolist() == sum([[k] * 4 for k in (-2, -1, 0, 1)], [])
    assert sorted(set((p - 3).tolist())) == [-2, -1, 0, 1]
    flat = torch.full((1, 1, 8, 7), 0.5, dtype=torch.float64)
    y = Interferometry(grid_uv(mask), (8, 7))(flat)
    zero = (grid_uv(mask)[0] == 0).all(1)
    assert complex(y[0, 0, zero][0]) == pytest.approx(0.5 * math.sqrt(56))
    assert y[0, 0, ~zero].abs().max() < 1e-12


def test_random_frequencies_fill_a_disc():
    uv = random_uv(20000, 3.0, seed=1)
    r = uv[0].norm(dim=1)
    assert uv.shape == (1, 20000, 2) and float(r.max()) <= 3
    # uniform in area: r^2 / 9 is uniform on [0, 1], mean 1/2, standard deviation sqrt(1/12)
    assert abs(float((r**2 / 9).mean()) - 0.5) < 4 * math.sqrt(1 / 12 / 20000)
    assert torch.equal(uv, random_uv(20000, 3.0, seed=1))
    assert not torch.equal(uv, random_uv(20000, 3.0, seed=2))


def test_tracks_of_the_earths_rotation_are_ellipses():
    """u^2 + ((v - v0) / sin declination)^2 is constant for a pair; nobody looks through the ground.

    With two stations near each other both see the source at the same times.
    """
    uv = earth_rotation(2, 48, 10.0, seed=3, declination=60.0, elevation=-90.0).uv[0].numpy()
    assert len(uv) == 48 and np.linalg.norm(uv, axis=1).max() == pytest.approx(10.0)
    u, v = uv.T
    v0 = v.mean()  # 48 times are spread evenly over one turn
    radius = u**2 + ((v - v0) / math.sin(math.radians(60))) ** 2
    np.testing.assert_allclose(radius, radius.mean(), rtol=1e-10)
    wrong = u**2 + ((v - v0) / math.sin(math.radians(50))) ** 2
    assert wrong.std() > 1e-2 * wrong.mean()
    assert len(earth_rotation(8, 12, 7.0, elevation=40.0).uv[0]) < len(
        earth_rotation(8, 12, 7.0).uv[0]
    )


def test_arrays_are_functions_of_the_seed():
    assert torch.equal(earth_rotation(6, 8, 5.0, seed=1).uv, earth_rotation(6, 8, 5.0, seed=1).uv)
    one, two = (earth_rotation(6, 8, 5.0, seed=s).uv for s in (1, 2))
    assert one.shape != two.shape or not torch.equal(one, two)


def test_noise_has_sigma_in_each_part():
    A = Interferometry(random_uv(3, 2.0), (H, W))
    problem = Problem(A(seeded(1, 1, H, W)), A, GaussianNoise(0.1), (1, H, W))
    assert problem.y.is_complex() and problem.x_like.dtype == torch.float64


def test_refusals():
    with pytest.raises(InvdiffError, match="shape .batch or 1, count, 2., real"):
        Interferometry(torch.zeros(4, 2), (H, W))
    with pytest.raises(InvdiffError, match="finite"):
        Interferometry(torch.full((1, 4, 2), math.nan), (H, W))
    with pytest.raises(InvdiffError, match="observes images of .channels, 5, 6."):
        Interferometry(random_uv(3, 2.0), (H, W)).y_shape((1, W, H))
    with pytest.raises(InvdiffError, match="marks at least one"):
        grid_uv(torch.zeros(3, 3))
    with pytest.raises(InvdiffError, match="no 7 x 7 lowest"):
        low_frequencies((5, 6), 7)
    with pytest.raises(InvdiffError, match="number of frequencies is .* from 1"):
        random_uv(0, 1.0)
    with pytest.raises(InvdiffError, match="No two of the 2 stations"):
        earth_rotation(2, 4, 1.0, elevation=89.0)
