"""Projections and filtered back-projection against ASTRA (CPU) and scikit-image.

The image is a Gaussian blob of width w, away from the middle, so that angle sign, axis and shift
all show. Its projections have the maximal slope exp(-1/2) / w and curvature 1 / w^2 of their peak,
from which the tolerances follow. ASTRA computes in float32.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from invdiff.operators import Radon, fbp, sparse_view

SIDE = 64
PARALLEL = {
    "plain": Radon(sparse_view(24), (SIDE, SIDE), 91),
    "shifted": Radon(sparse_view(24), (SIDE, SIDE), 91, shift=1.3),
    "wide": Radon((0.0, 17.0, 45.0, 90.0, 133.0), (SIDE, SIDE - 6), 70, pitch=1.5, shift=-0.4),
}
FANS = {
    "plain": Radon(sparse_view(24, 360), (SIDE, SIDE), 101, source=90.0),
    "shifted": Radon(sparse_view(24, 360), (SIDE, SIDE), 101, shift=1.3, source=90.0),
    "wide": Radon((0.0, 17.0, 45.0, 190.0), (SIDE - 6, SIDE), 66, 1.5, -0.4, source=70.0),
}
EPS = float(np.finfo(np.float32).eps)
SLOPE = math.exp(-0.5)


@pytest.fixture(scope="module")
def astra() -> Any:
    return pytest.importorskip("astra", exc_type=ImportError)


def blob(size: tuple[int, int], width: float) -> Tensor:
    """exp(-r^2 / (2 width^2)) around (6, -9), x right and y up; (1, 1, H, W) float64."""
    height, across = size
    x = torch.arange(across).double() - (across - 1) / 2
    y = (height - 1) / 2 - torch.arange(height).double()[:, None]
    return torch.exp(-0.5 * ((x - 6) ** 2 + (y + 9) ** 2) / width**2)[None, None]


def geometry(astra: Any, A: Radon) -> Any:
    """A's rays in ASTRA's words; DetectorOffset moves the detector along its own axis."""
    theta = np.radians(A.angles)
    if A.source is None:
        rays = astra.create_proj_geom("parallel", A.pitch, A.detectors, theta)
    else:
        rays = astra.create_proj_geom("fanflat", A.pitch, A.detectors, theta, A.source, 0.0)
    return astra.geom_postalignment(rays, -A.shift) if A.shift else astra.geom_2vec(rays)


def single_rays(astra: Any, fan: Any, bins: int) -> Any:
    """Every ray of ASTRA's fan as a parallel view of one bin: its `linear` knows no fans."""
    vectors = fan["Vectors"]
    source, middle, step = (vectors[:, None, k : k + 2] for k in (0, 2, 4))
    at = middle + (np.arange(bins)[:, None] - (bins - 1) / 2) * step
    way = (at - source) / np.linalg.norm(at - source, axis=-1, keepdims=True)
    across = np.stack([way[..., 1], -way[..., 0]], -1)
    rows = np.concatenate([way, at, across], -1).reshape(-1, 6)
    return astra.create_proj_geom("parallel_vec", 1, rows)


def projector(astra: Any, name: str, rays: Any, size: tuple[int, int]) -> Any:
    return astra.OpTomo(astra.create_projector(name, rays, astra.create_vol_geom(*size)))


def gap(found: np.ndarray, want: np.ndarray) -> float:
    """The largest difference, relative to the peak."""
    return float(np.abs(found - want).max() / np.abs(want).max())


def seen(A: Radon, x: Tensor) -> np.ndarray:
    found: np.ndarray = A(x)[0, 0].numpy()
    return found


def check_linear(A: Radon, W: Any) -> None:
    """ASTRA's `linear` is Joseph's rule: both directions agree up to its round-off.

    Positions of up to 128 pixels in float32, after four operations, are off by 4 * 64 eps, which
    the slope of the blob turns into values; a sum of at most 64 terms is off by 64 eps.
    """
    width = 4.0
    x = blob(A.size, width)
    want = W.FP(x[0, 0].float().numpy()).reshape(len(A.angles), A.detectors)
    round_off = 4 * 64 * EPS * SLOPE / width + 64 * EPS
    assert gap(seen(A, x), want) < 4 * round_off
    for change in ({"shift": A.shift + 0.01}, {"pitch": A.pitch * 1.002}):
        assert gap(seen(dataclasses.replace(A, **change), x), want) > 4 * round_off
    # the adjoint of noise: weights, of slope 1, are off by positions, hence relative to their size
    y = torch.randn(1, 1, len(A.angles), A.detectors, generator=torch.Generator().manual_seed(0))
    back = W.BP(y.reshape(W.sshape).numpy())
    mine = A.adjoint(y.double())[0, 0].numpy()
    assert np.linalg.norm(mine - back) < 4 * 64 * EPS * 4 * np.linalg.norm(back)


@pytest.mark.parametrize("A", PARALLEL.values(), ids=PARALLEL.keys())
def test_parallel_rays_by_josephs_rule(astra: Any, A: Radon) -> None:
    check_linear(A, projector(astra, "linear", geometry(astra, A), A.size))


@pytest.mark.parametrize("A", FANS.values(), ids=FANS.keys())
def test_fans_by_josephs_rule(astra: Any, A: Radon) -> None:
    """The fan is ASTRA's, taken apart into rays; the weights are those of its `linear`."""
    rays = single_rays(astra, geometry(astra, A), A.detectors)
    check_linear(A, projector(astra, "linear", rays, A.size))


@pytest.mark.parametrize("A", [PARALLEL["plain"], PARALLEL["shifted"], *FANS.values()])
def test_squares_instead_of_lines(astra: Any, A: Radon) -> None:
    """ASTRA's `line` takes pixels as squares of one value, no further than half a diagonal away
    from the ray: an error of first order. Joseph's is curvature / 8, of second order."""
    name = "line" if A.source is None else "line_fanflat"
    W = projector(astra, name, geometry(astra, A), A.size)
    for width in (4.0, 8.0):
        x = blob(A.size, width)
        want = W.FP(x[0, 0].float().numpy())
        assert gap(seen(A, x), want) < math.sqrt(0.5) * SLOPE / width + 1 / 8 / width**2
        for wrong in (x.flip(-1), x.flip(-2)):
            assert gap(seen(A, wrong), want) > 0.5


@pytest.mark.parametrize("A", [PARALLEL["plain"], PARALLEL["shifted"], FANS["plain"]])
def test_strips_instead_of_lines(astra: Any, A: Radon) -> None:
    """ASTRA's `strip` averages over the width of a bin as well (curvature / 24). Bins as wide as
    pixels divide the squares like linear interpolation (curvature / 8). Those of a fan are s = 0.7
    to 1.3 pixels wide on their way through the blob: the mean offset from the middle of a square,
    a sawtooth whose integral stays within 1/8, is up to 1 / (8 s).
    """
    plain = A.source is None
    W = projector(astra, "strip" if plain else "strip_fanflat", _unshifted(astra, A), A.size)
    for width in (4.0, 8.0):
        x = blob(A.size, width)
        want = W.FP(x[0, 0].float().numpy())
        bound = (1 / 24 + 1 / 8 + 1 / 8) / width**2
        assert gap(seen(A, x), want) < (bound if plain else bound + SLOPE / width / (8 * 0.7))


def _unshifted(astra: Any, A: Radon) -> Any:
    """ASTRA's strips know no fans as vectors."""
    if A.source is None:
        return geometry(astra, A)
    assert A.shift == 0
    theta = np.radians(A.angles)
    return astra.create_proj_geom("fanflat", A.pitch, A.detectors, theta, A.source, 0.0)


def test_filtered_back_projection_of_astra(astra: Any) -> None:
    """The same filter; ASTRA spreads over strips where we interpolate.

    Both blur the image, by variances of 1/6: h^2 / 6 of a triangle, h^2 / 12 of a bin and of a
    pixel. Half of that times the Laplacian, 2 / w^2 at the peak, is 1 / (6 w^2) for each.
    """
    A = Radon(sparse_view(180), (SIDE, SIDE), 96)
    rays = astra.create_proj_geom("parallel", 1.0, A.detectors, np.radians(A.angles))
    volume = astra.create_vol_geom(*A.size)
    for width in (4.0, 8.0):
        x = blob(A.size, width)
        y = A(x)
        ids = astra.data2d.create("-sino", rays, y[0, 0].float().numpy())
        out = astra.data2d.create("-vol", volume)
        config = astra.astra_dict("FBP")
        config["ProjectorId"] = astra.create_projector("strip", rays, volume)
        config |= {"ProjectionDataId": ids, "ReconstructionDataId": out, "FilterType": "Ram-Lak"}
        astra.algorithm.run(astra.algorithm.create(config))
        found = fbp(y, A)[0, 0].numpy()
        assert np.abs(found - astra.data2d.get(out)).max() < 2 / 6 / width**2
        # against the truth: Joseph's blur of the data comes on top
        assert np.abs(found - x[0, 0].numpy()).max() < (2 / 6 + 2 / 8) / width**2
        assert np.abs(found - x[0, 0].flip(-1).numpy()).max() > 0.5


def test_filtered_back_projection_of_scikit_image() -> None:
    """The same filter and interpolation, in float64; at odd sides both axes are the middle."""
    transform = pytest.importorskip("skimage.transform")
    side = 65
    A = Radon(sparse_view(60), (side, side), side)
    y = A(blob(A.size, 4.0))
    want = transform.iradon(y[0, 0].numpy().T, A.angles, circle=True, preserve_range=True)
    rows = np.arange(side) - side // 2
    inside = np.hypot(rows[:, None], rows) < side // 2
    assert np.abs((fbp(y, A)[0, 0].numpy() - want) * inside).max() < 1e-12
