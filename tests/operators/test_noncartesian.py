"""Non-Cartesian k-space against the direct sum, the Cartesian operators, and known densities."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import Tensor

import invdiff.operators as ops
from helpers import seeded
from invdiff.core import InvdiffError

pytest.importorskip("finufft")
SIZE = (6, 5)


def direct(x: Tensor, uv: Tensor, maps: Tensor) -> Tensor:
    """The formula of the docstring, one multiplication for each pixel and sample."""
    _, _, height, width = x.shape
    q, p = torch.meshgrid(
        torch.arange(height).double() - height // 2,
        torch.arange(width).double() - width // 2,
        indexing="ij",
    )
    z = maps * ops.as_complex(x)
    out = torch.zeros(len(x), z.shape[1], uv.shape[1], dtype=torch.complex128)
    for k in range(len(x)):
        for m, (u, v) in enumerate(uv[min(k, len(uv) - 1)].tolist()):
            wave = torch.exp(-2j * math.pi * (u * p / width + v * q / height))
            out[k, :, m] = (z[k] * wave).sum((1, 2)) / math.sqrt(height * width)
    return out


@pytest.mark.parametrize("eps", [1e-3, 1e-6, 1e-12])
@pytest.mark.parametrize("size", [(6, 5), (7, 8)])
def test_the_direct_sum(eps: float, size: tuple[int, int]) -> None:
    """Up to the eps that was asked for, with a factor of 10: finufft's promise is an estimate."""
    maps, x = ops.ring_maps(3, size), seeded(2, 2, *size)
    uv = torch.cat([ops.random_uv(20, 3.5, seed=k) for k in (1, 2)])  # beyond the band as well
    y = ops.NonCartesian(uv, size, maps, eps=eps)(x)
    want = direct(x, uv, maps)
    assert float((y - want).norm() / want.norm()) < 10 * eps
    assert float((y - want.conj()).norm() / want.norm()) > 0.1


def test_single_precision() -> None:
    size = (32, 24)
    x, uv = seeded(1, 2, *size), ops.random_uv(300, 12.0)
    want = ops.NonCartesian(uv, size, eps=1e-12)(x)
    found = ops.NonCartesian(uv, size)(x.float())
    assert found.dtype == torch.complex64
    # eps of finufft, and phases of up to pi 32 / 2 with the round-off of float32
    tol = 10e-6 + 16 * math.pi * torch.finfo(torch.float32).eps
    assert float((found - want).norm() / want.norm()) < tol


@pytest.mark.parametrize("size", [(6, 5), (7, 8)])
def test_whole_frequencies_are_the_cartesian_operator(size: tuple[int, int]) -> None:
    x = seeded(2, 4, *size)
    uv = ops.grid_uv(torch.ones(size))
    y = ops.NonCartesian(uv, size, eps=1e-12)(x)
    torch.testing.assert_close(
        y.reshape(2, 2, *size), ops.Fourier(torch.ones(1, 1, *size))(x), rtol=0, atol=1e-10
    )
    maps = ops.ring_maps(3, size)
    y = ops.NonCartesian(uv, size, maps, eps=1e-12)(x[:, :2])
    want = ops.Sense(maps, torch.ones(1, 1, *size))(x[:, :2])
    torch.testing.assert_close(y.reshape(2, 3, *size), want, rtol=0, atol=1e-10)


@pytest.mark.parametrize("eps", [1e-1, 1e-4])
def test_the_adjoint_is_exact_whatever_the_accuracy(eps: float) -> None:
    """The dot test holds to round-off although the transform itself is off by eps."""
    size = (24, 20)
    A = ops.NonCartesian(ops.radial_uv(9, 40, size), size, ops.ring_maps(4, size), eps=eps)
    exact = ops.NonCartesian(A.uv, size, A.maps, eps=1e-13)
    x = seeded(1, 2, *size)
    y = torch.view_as_complex(seeded(1, 4, 360, 2, seed=1))
    z = A(x)
    assert float((z - exact(x)).norm() / z.norm()) > 1e-3 * eps
    gap = (z * y.conj()).real.sum() - (x * A.adjoint(y)).sum()
    assert abs(float(gap)) < 1e-13 * float(z.norm() * y.norm())


@pytest.mark.parametrize("kind", ["radial", "spiral"])
def test_density_compensation_brings_the_adjoint_near_the_inverse(kind: str) -> None:
    """On a full trajectory A^H W A is nearly the identity for images whose band is a disc."""
    size = (24, 24)
    uv = {
        "radial": ops.radial_uv(60, 48, size),
        "spiral": ops.spiral_uv(8, 240, size),
    }[kind]
    w = ops.density_compensation(uv, size)
    assert w.shape == uv.shape[:2] and float(w.min()) > 0
    rows = torch.arange(24).double() - 12
    x = torch.exp(-0.5 * (rows[:, None] ** 2 + (rows + 2) ** 2) / 9)[None, None].repeat(1, 2, 1, 1)
    A = ops.NonCartesian(uv, size, density=w)
    far = float((A.gridded(A(x)) - x).norm() / x.norm())
    plain = A.adjoint(A(x))
    best = plain * ((plain * x).sum() / plain.square().sum())  # even at its best scale
    assert far < 0.05 < 0.3 < float((best - x).norm() / x.norm())


def test_radial_density_is_the_radius() -> None:
    """Weights of full radial sampling grow as |k|, apart from the centre and the rim."""
    size = (32, 32)
    uv = ops.radial_uv(64, 64, size, golden=False)
    w = ops.density_compensation(uv, size)[0].reshape(64, 64).mean(0)
    r = (torch.arange(64).double() - 32).abs()
    inside = (r >= 4) & (r <= 24)
    slope = w[inside] / r[inside]
    assert float(slope.max() / slope.min()) < 1.2
    assert float(w[32]) < 0.5 * float(w[inside].min())


def test_a_density_changes_the_start_of_pinv_and_not_its_end() -> None:
    size = (8, 8)
    uv = ops.radial_uv(7, 16, size)
    w = ops.density_compensation(uv, size)
    x = seeded(1, 2, *size)
    y = ops.NonCartesian(uv, size, eps=1e-12)(x)
    limits = [
        ops.NonCartesian(uv, size, density=d, eps=1e-12, cg_iterations=1000).pinv(y)
        for d in (None, w)
    ]
    early = [
        ops.NonCartesian(uv, size, density=d, eps=1e-12, cg_iterations=2).pinv(y) for d in (None, w)
    ]
    assert float((limits[0] - limits[1]).norm() / x.norm()) < 1e-3
    gaps = [float((e - limits[0]).norm()) for e in early]
    assert gaps[1] < gaps[0]


def test_trajectories() -> None:
    uv = ops.radial_uv(3, 8, (16, 12), golden=False).reshape(3, 8, 2)
    assert torch.equal(uv[:, 4], torch.zeros(3, 2).double())  # every spoke meets the centre
    torch.testing.assert_close(uv[0, 0], torch.tensor([-6.0, 0.0]).double())
    angles = torch.atan2(uv[:, 7, 1] / 8, uv[:, 7, 0] / 6).rad2deg()
    torch.testing.assert_close(angles, torch.tensor([0.0, 60, 120]).double())
    golden = ops.radial_uv(2, 8, (16, 16)).reshape(2, 8, 2)
    turn = torch.atan2(golden[1, 7, 1], golden[1, 7, 0]).rad2deg()
    assert abs(float(turn) - 111.246) < 1e-3
    spiral = ops.spiral_uv(2, 50, (16, 16)).reshape(2, 50, 2)
    torch.testing.assert_close(spiral[1], -spiral[0])  # half a turn apart
    assert float(spiral.norm(dim=-1).max()) < 8
    # neighbouring turns of the two arms are one cycle apart: 4 turns each over a radius of 8
    outward = torch.cat([torch.zeros(1).double(), spiral[0].norm(dim=-1)]).diff()
    assert bool((outward[1:] > 0).all())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: ops.NonCartesian(torch.zeros(3, 2), SIZE), "shape"),
        (lambda: ops.NonCartesian(torch.full((1, 3, 2), float("nan")), SIZE), "finite"),
        (lambda: ops.NonCartesian(torch.zeros(1, 3, 2), SIZE, eps=1.0), "eps"),
        (lambda: ops.NonCartesian(torch.zeros(1, 3, 2), SIZE, torch.ones(1, 2, 6, 5)), "complex"),
        (lambda: ops.NonCartesian(torch.zeros(1, 3, 2), SIZE, density=torch.ones(1, 4)), "weight"),
        (lambda: ops.NonCartesian(torch.zeros(1, 3, 2), SIZE).y_shape((2, 5, 6)), "images"),
        (lambda: ops.NonCartesian(torch.zeros(1, 3, 2), SIZE).y_shape((3, 6, 5)), "images"),
        (lambda: ops.radial_uv(0, 8, SIZE), "number of lines is a whole number"),
        (lambda: ops.spiral_uv(1, 8, SIZE, turns=-1.0), "turns"),
    ],
)
def test_what_cannot_be_measured_is_said(make: object, reason: str) -> None:
    with pytest.raises(InvdiffError, match=reason):
        make()  # type: ignore[operator]


def test_without_finufft_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "finufft", None)
    with pytest.raises(InvdiffError, match=r"pip install 'invdiff\[mri\]'"):
        ops.NonCartesian(torch.zeros(1, 3, 2), SIZE)(torch.zeros(1, 2, *SIZE))
