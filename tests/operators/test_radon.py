"""X-ray projections: plain loops, line integrals in closed form, scikit-image, preprocessing."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core import cache as kept
from invdiff.core.encode import decode, encode
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise
from invdiff.operators import (
    Inpaint,
    Radon,
    fbp,
    largest_side,
    limited_angle,
    line_integrals,
    metal_trace,
    sparse_view,
    transmit,
)
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.solvers.diffpir import DiffPIR
from invdiff.solvers.dps import DPS

CASES = {
    "parallel": Radon(sparse_view(7), (6, 5), 9),
    "shifted": Radon((0.0, 45.0, 90.0, 200.0), (5, 8), 7, pitch=1.3, shift=0.4, pixel=0.5),
    "fan": Radon(sparse_view(5, 360), (6, 7), 8, pitch=0.9, source=11.0),
}
each_case = pytest.mark.parametrize("A", CASES.values(), ids=CASES.keys())


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def ray(A: Radon, angle: float, j: int) -> tuple[float, float, float, float]:
    """A point and the unit direction of the ray of bin j, x right and y up."""
    t = math.radians(angle)
    s = (j - (A.detectors - 1) / 2 - A.shift) * A.pitch
    px, py = s * math.cos(t), s * math.sin(t)
    if A.source is None:
        return px, py, -math.sin(t), math.cos(t)
    dx, dy = px - A.source * math.sin(t), py + A.source * math.cos(t)  # from -source v
    return px, py, dx / math.hypot(dx, dy), dy / math.hypot(dx, dy)


def along_one_ray(image: np.ndarray, px: float, py: float, dx: float, dy: float) -> float:
    """Joseph's sum: one interpolated value in each row (each column, if flatter) that is met."""
    height, width = image.shape
    total = 0.0
    if abs(dy) >= abs(dx) - 1e-12:
        for row in range(height):
            y = (height - 1) / 2 - row
            column = px + (y - py) * dx / dy + (width - 1) / 2
            for k in range(width):
                total += image[row, k] * max(0.0, 1 - abs(column - k)) / abs(dy)
    else:
        for column in range(width):
            x = column - (width - 1) / 2
            row = (height - 1) / 2 - (py + (x - px) * dy / dx)
            for k in range(height):
                total += image[k, column] * max(0.0, 1 - abs(row - k)) / abs(dx)
    return total


@each_case
def test_plain_loops(A: Radon) -> None:
    image = random(1, 1, *A.size)
    want = [
        [
            A.pixel * along_one_ray(image[0, 0].numpy(), *ray(A, angle, j))
            for j in range(A.detectors)
        ]
        for angle in A.angles
    ]
    np.testing.assert_allclose(A(image)[0, 0].numpy(), want, atol=1e-12)


def test_right_angles_are_sums_of_columns_and_rows() -> None:
    """Bins count from left to right at 0, from the bottom up at 90, and backwards at 180."""
    image = random(1, 1, 5, 5)
    y = Radon((0.0, 90.0, 180.0, 270.0), (5, 5), 5, pixel=2.0)(image)[0, 0]
    columns, rows = 2 * image[0, 0].sum(0), 2 * image[0, 0].sum(1)
    for view, want in zip(y, (columns, rows.flip(0), columns.flip(0), rows), strict=True):
        torch.testing.assert_close(view, want, rtol=0, atol=1e-13)


# ---- closed forms

SIDE = 65
AXIS = torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2
PARALLEL = Radon(sparse_view(24), (SIDE, SIDE))
FAN = Radon(sparse_view(24, 360), (SIDE, SIDE), source=100.0)


def lines(A: Radon) -> tuple[Tensor, Tensor]:
    """Distance from the origin and angle of the normal, of every ray: (views, bins)."""
    theta = torch.tensor([math.radians(a) for a in A.angles], dtype=torch.float64)[:, None]
    s = A.bins()
    if A.source is None:
        return s.expand(len(theta), -1), theta.expand(-1, len(s))
    turn = (s / A.source).atan()
    return A.source * turn.sin().expand(len(theta), -1), theta - turn


def blob(x: float, y: float, width: float) -> Tensor:
    """exp(-r^2 / (2 width^2)) around (x, y)."""
    square = (AXIS - x) ** 2 + (-AXIS[:, None] - y) ** 2
    return (-square / (2 * width**2)).exp()[None, None]


@pytest.mark.parametrize("A", [PARALLEL, FAN], ids=["parallel", "fan"])
def test_a_gaussian_blob(A: Radon) -> None:
    """Its line integral at distance d from its centre is sqrt(2 pi) w exp(-d^2 / (2 w^2)).

    Linear interpolation between pixels errs by at most 1/8 of the second derivative across, which
    along a ray adds up to less than sqrt(2 pi) w (1 / w^2) / 8, over cos 45 degrees where oblique.
    """
    width, (x, y) = 4.0, (8.0, 5.0)
    d, normal = lines(A)
    off = d - x * normal.cos() - y * normal.sin()
    peak = math.sqrt(2 * math.pi) * width
    want = peak * (-(off**2) / (2 * width**2)).exp()
    bound = peak / width**2 / 8 * math.sqrt(2)
    found = A(blob(x, y, width))[0, 0]
    assert (found - want).abs().max() < bound
    mirrored = A(blob(x, -y, width))[0, 0]  # negative twin: angles that turn the other way
    assert (mirrored - want).abs().max() > 10 * bound


def test_a_disc() -> None:
    """2 sqrt(r^2 - s^2), up to the two pixels at which the ray enters and leaves the disc."""
    r, fine = 20.3, (torch.arange(10 * SIDE, dtype=torch.float64) + 0.5) / 10 - SIDE / 2
    inside = (fine**2 + fine[:, None] ** 2 < r**2).double()
    disc = inside.reshape(SIDE, 10, SIDE, 10).mean((1, 3))[None, None]  # share of each pixel
    s = PARALLEL.bins()
    want = 2 * (r**2 - s**2).clamp_min(0).sqrt()
    gap = PARALLEL(disc)[0, 0] - want
    away = s.abs() < r - 2
    assert gap[:, away].abs().max() < 2 * math.sqrt(2)
    assert gap[:, s.abs() > r + 2].abs().max() == 0


@pytest.mark.parametrize("A", [PARALLEL, FAN], ids=["parallel", "fan"])
def test_precision_and_cache(A: Radon) -> None:
    """float32 is float64 rounded: at most 2 SIDE terms of size |x| times 1.5."""
    x = random(2, 1, SIDE, SIDE)
    bound = 2 * SIDE * 1.5 * float(x.abs().max()) * torch.finfo(torch.float32).eps
    assert (A(x.float()).double() - A(x)).abs().max() < bound
    assert A.rows(torch.tensor([1, 0])) is A and A.to("cpu", torch.float32) is A


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_has_the_same_bits_whatever_stands_beside_it(dtype: torch.dtype) -> None:
    A = Radon(sparse_view(20), (64, 64))
    x = random(9, 1, 64, 64).to(dtype)
    y, z = A(x), A.adjoint(A(x))
    for n in range(1, 9):
        assert torch.equal(A(x[:n]), y[:n]) and torch.equal(A.adjoint(y[:n]), z[:n])


# ---- filtered back-projection


def test_fbp_is_iradon() -> None:
    """scikit-image on an odd side, where both have the same centre, within the disc."""
    skimage = pytest.importorskip("skimage.transform")
    angles = sparse_view(40)
    sinogram = random(1, 1, 40, SIDE, seed=2)
    want = skimage.iradon(
        sinogram[0, 0].numpy().T, np.array(angles), filter_name="ramp", circle=True
    )
    disc = (AXIS**2 + AXIS[:, None] ** 2 < (SIDE // 2) ** 2).numpy()
    found = fbp(sinogram, Radon(angles, (SIDE, SIDE), SIDE))[0, 0].numpy()
    np.testing.assert_allclose(found[disc], want[disc], atol=1e-13)
    turned = fbp(sinogram, Radon(angles[::-1], (SIDE, SIDE), SIDE))[0, 0].numpy()
    assert np.abs(turned[disc] - want[disc]).max() > 0.1


@pytest.mark.parametrize(
    "A",
    [
        Radon(sparse_view(96), (SIDE, SIDE)),
        Radon((*sparse_view(96), 180.0), (SIDE, SIDE)),  # the first view once more, mirrored
        Radon(sparse_view(96, 360), (SIDE, SIDE)),
        Radon(sparse_view(96), (SIDE, SIDE), 140, pitch=0.75, shift=3.7, pixel=0.1),
        Radon(sparse_view(96, 360), (SIDE, SIDE), source=100.0, pixel=0.1),
    ],
    ids=["parallel", "closed", "full-turn", "shifted", "fan"],
)
def test_fbp_returns_the_image(A: Radon) -> None:
    """Two blobs of width w = 5 and heights 1 and -2, up to what is smoothed away.

    A smoothing of variance v along the detector lowers a blob by v / w^2 of its height. Linear
    interpolation at a share f between two pixels has v = f (1 - f) <= 1/4: once in the projector,
    once in fbp. A Hann window, (1 + cos k) / 2 = 1 - k^2 / 4 + ..., has v = 1/2.
    """
    image = torch.cat([blob(8, 5, 5), -2 * blob(-6, 3, 5)])
    found = fbp(A(image), A)
    assert (found - image).abs().max() < 2 * (1 / 4 + 1 / 4) / 5**2
    smooth = fbp(A(image), A, "hann")
    assert (smooth - image).abs().max() < 2 * (1 / 4 + 1 / 4 + 1 / 2) / 5**2
    assert smooth.abs().max() < found.abs().max()
    torch.testing.assert_close(found[:1], fbp(A(image[:1]), A), rtol=0, atol=1e-13)


def test_fbp_does_not_integrate_over_an_arc_that_was_not_seen() -> None:
    """The views of 90 degrees count as in the full turn: half 1 and half 2 add up to the whole."""
    whole = Radon(sparse_view(60), (SIDE, SIDE))
    halves = [Radon(whole.angles[:30], whole.size), Radon(whole.angles[30:], whole.size)]
    image = blob(8, 5, 5)
    parts = sum(fbp(A(image), A) for A in halves)
    torch.testing.assert_close(parts, fbp(whole(image), whole), rtol=0, atol=1e-12)


def test_fbp_knows_its_filters() -> None:
    with pytest.raises(InvdiffError, match="ramp or hann, found 'cosine'"):
        fbp(torch.zeros(1, 1, 7, 9), CASES["parallel"], "cosine")  # type: ignore[arg-type]


# ---- angles, metal, iterations, counts


def test_sets_of_angles() -> None:
    assert sparse_view(4) == (0.0, 45.0, 90.0, 135.0)
    assert max(sparse_view(23)) < 180  # the official mask of 23 views has its first view twice
    assert limited_angle(90) == tuple(float(k) for k in range(90))
    assert limited_angle(1.0, 0.3) == pytest.approx((0.0, 0.3, 0.6, 0.9))
    for call in (lambda: sparse_view(0), lambda: limited_angle(0), lambda: limited_angle(10, 20)):
        with pytest.raises(InvdiffError):
            call()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"angles": ()}, "at least one angle"),
        ({"angles": (float("nan"),)}, "angles.* must be a finite number"),
        ({"pitch": 0.0}, "above 0"),
        ({"pixel": -1.0}, "above 0"),
        ({"detectors": -3}, "1 to 1000000 bins"),
        ({"source": 3.0}, "inside an image of 6 x 5"),
        ({"size": (6, 0)}, "whole pixels"),
        ({"angles": tuple(range(180)), "size": (10000, 10000), "mode": "matrix"}, "32-bit indices"),
        ({"mode": "fast"}, "auto, matrix or rays"),
    ],
)
def test_what_cannot_be_measured_is_said(change: dict[str, object], sentence: str) -> None:
    settings: dict[str, object] = {"angles": (0.0,), "size": (6, 5)}
    with pytest.raises(InvdiffError, match=sentence):
        Radon(**{**settings, **change})  # type: ignore[arg-type]
    with pytest.raises(InvdiffError, match="6 x 5 pixels, found images of shape"):
        Radon((0.0,), (6, 5)).y_shape((1, 5, 6))


def test_a_metal_trace_is_every_ray_that_meets_the_metal() -> None:
    A = Radon(sparse_view(12), (16, 16))
    metal = torch.zeros(1, 1, 16, 16)
    metal[..., 6:9, 8:11] = 1
    mask = metal_trace(A, metal.bool())
    image = random(1, 1, 16, 16)
    bright = image + 1e6 * metal
    cut = mask @ A
    assert torch.equal(cut(image), cut(bright))  # no ray that is kept sees the metal
    for dropped, value in zip(~mask.mask.flatten(), A(metal).flatten(), strict=True):
        assert bool(dropped) == bool(value > 0)
    assert 0.05 < float((~mask.mask).double().mean()) < 0.5
    y = torch.where(mask.mask, A(image), float("nan"))
    assert torch.isfinite(Problem(y, cut, GaussianNoise(0.0), (1, 16, 16)).y).all()
    assert isinstance(mask, Inpaint)


class Watched(Radon):
    """Counts how often it is applied."""

    def __call__(self, x: Tensor) -> Tensor:
        self.__dict__["calls"] = self.__dict__.get("calls", 0) + 1
        return super().__call__(x)


def test_iterations_are_bounded_by_the_field() -> None:
    """Also when a mask is put over it."""
    y = random(1, 1, 12, 23)
    uses: list[Callable[[Radon], object]] = [
        lambda A: A.pinv(y),
        lambda A: A.solve(A.adjoint(y), 1e-3),
        lambda A: (Inpaint(torch.ones(1, 1, 12, 23)) @ A).pinv(y),
        lambda A: (Inpaint(torch.ones(1, 1, 12, 23)) @ A).solve(A.adjoint(y), 1e-3),
    ]
    for use in uses:
        for bound in (3, 7):
            A = Watched(sparse_view(12), (16, 16), cg_iterations=bound, cg_tol=0.0)
            A.preconditioner(random(1, 1, 16, 16), 1.0)
            A.__dict__["calls"] = 0
            use(A)
            assert A.__dict__["calls"] == bound


def test_a_run_tells_of_data_steps_that_reached_their_bound() -> None:
    """Two steps of two samples, each stopped after one iteration; none with enough of them."""
    x = random(1, 1, 12, 12).float()
    for bound, systems in ((1, 4), (200, None)):
        A = Radon(sparse_view(9), (12, 12), cg_iterations=bound)
        p = Problem(A(x), A, GaussianNoise(0.1), (1, 12, 12))
        r = solve(p, Denoiser(lambda x, s: x / (1 + s**2)), DiffPIR().with_steps(2), samples=2)
        told = r.config.get("unsolved")
        assert (told and told["systems"]) == systems
        assert told is None or (told["iterations"] == 1 and told["residual"] > A.cg_tol)


def test_a_run_record_holds_the_geometry_and_no_matrix() -> None:
    A = CASES["shifted"]
    A(random(1, 1, *A.size))
    tensors: dict[str, Tensor] = {}
    again = decode(encode((A, DPS()), tensors), tensors)[0]
    assert not tensors and isinstance(again, Radon)
    x = random(1, 1, *A.size, seed=4)
    assert torch.equal(again(x), A(x))


def test_line_integrals_of_counts() -> None:
    """-log of transmission; a ray without photons counts as half of one."""
    z = torch.tensor([[0.0, 0.7, 3.0]], dtype=torch.float64)
    white, dark = torch.tensor([1100.0, 2100.0, 600.0]), 100.0
    counts = dark + (white - dark) * (-z).exp()
    torch.testing.assert_close(line_integrals(counts, white, dark), z, rtol=0, atol=1e-12)
    lost = line_integrals(torch.tensor([90.0]), 1100.0, 100.0)
    assert float(lost) == pytest.approx(math.log(2000))
    with pytest.raises(InvdiffError, match="white field must exceed"):
        line_integrals(counts, 100.0, 100.0)


def test_transmission_noise_is_nearly_normal_with_the_documented_width() -> None:
    """Standard error of a variance: sqrt(2 / n) of it. The next order of both mean and variance is
    1 / counts, the counts being photons exp(-z)."""
    n, photons = 20000, 1e5
    for z in (0.5, 2.0):
        y = transmit(torch.full((1, n), z, dtype=torch.float64), photons, Rng.of(3)) - z
        width = math.exp(z / 2) / photons**0.5
        higher = 2 / (photons * math.exp(-z))
        assert abs(float(y.var()) / width**2 - 1) < 5 * (2 / n) ** 0.5 + higher
        assert abs(float(y.mean())) < 5 * width / n**0.5 + width**2
    with pytest.raises(InvdiffError, match="above 0"):
        transmit(torch.zeros(1, 2), 0.0, Rng.of(0))


# ---- matrices on disk, and none at all


MODES = [*CASES.values(), Radon(sparse_view(5, 360), (24, 20), 30, pitch=0.8, source=20.0)]


@pytest.mark.parametrize("A", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_matrix_the_weights_are_the_same(A: Radon, dtype: torch.dtype) -> None:
    """Sums of at most 2 max(H, W) terms (of angles * detectors in the adjoint), in another order.

    The round-off of a sum of k terms is at most k eps times the sum of their sizes."""
    rays = dataclasses.replace(A, mode="rays")
    assert A.keeps_matrix(dtype) and not rays.keeps_matrix(dtype)
    x = random(2, 1, *A.size).to(dtype)
    y = random(2, 1, len(A.angles), A.detectors, seed=1).to(dtype)
    eps = torch.finfo(dtype).eps
    for k, found, want, sizes in (
        (2 * max(A.size), rays(x), A(x), A(x.abs())),
        (A.detectors * len(A.angles), rays.adjoint(y), A.adjoint(y), A.adjoint(y.abs())),
    ):
        assert found.shape == want.shape and found.dtype == dtype
        assert bool(((found - want).abs() <= 2 * k * eps * sizes).all())
    turned = dataclasses.replace(rays, shift=A.shift + 0.01)  # the negative twin
    assert float((turned(x) - A(x)).abs().max()) > 1e-3
    if dtype == torch.float64:
        gap = (rays(x) * y).sum() - (x * rays.adjoint(y)).sum()
        assert abs(float(gap)) < 1e-13 * float(rays(x).norm() * y.norm())
    assert "_casts" not in rays.__dict__


def test_the_memory_of_a_matrix_is_known_before_it_is_built() -> None:
    """Within what the docstring says, and the number of bytes is what the tensors hold."""
    for A, share in (
        (Radon(sparse_view(30), (64, 48)), 0.02),
        (Radon((0.0, 45.0, 80.0), (40, 64), 200, pitch=0.5), 0.02),
        (Radon(sparse_view(20, 360), (64, 64), 160, source=60.0), 0.1),
        (Radon(sparse_view(20, 360), (64, 64), 120, source=200.0), 0.1),
        (Radon(sparse_view(9), (64, 64), 20), 0.02),  # a detector that sees the middle only
    ):
        forward, back = A._pair(torch.empty(0))
        actual = len(forward.values())
        slack = share * actual + 2 * max(A.size) * len(A.angles)
        assert abs(A.nonzeros - actual) < slack
        held = sum(
            t.nbytes
            for m in (forward, back)
            for t in (m.values(), m.col_indices(), m.crow_indices())
        )
        assert abs(A.matrix_bytes() - held) <= 16 * abs(A.nonzeros - actual)


def test_above_two_gigabytes_no_matrix_is_kept() -> None:
    """The documented sizes: docs/mri-and-ct.md."""
    for views, side in ((30, 1517), (180, 620), (720, 310)):
        assert largest_side(views) == side
        assert Radon(sparse_view(views), (side, side)).matrix_bytes() <= 2e9
        larger = Radon(sparse_view(views), (side + 1, side + 1))
        assert larger.matrix_bytes() > 2e9 and not larger.keeps_matrix()
    assert Radon(sparse_view(1000), (4000, 4000)).keeps_matrix() is False  # beyond 32 bits as well


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for matrices, where all are worth keeping."""
    monkeypatch.setenv("INVDIFF_CACHE", str(tmp_path / "matrices"))
    monkeypatch.setattr(kept, "WORTH", 1)
    return tmp_path / "matrices"


def forbidden(*_: object) -> None:
    raise AssertionError("a matrix was built again")


def test_a_matrix_is_read_from_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    A, x = CASES["fan"], random(1, 1, *CASES["fan"].size)
    want = dataclasses.replace(A)(x)
    assert [f.suffix for f in folder.iterdir()] == [".safetensors"]
    with monkeypatch.context() as patch:
        patch.setattr(Radon, "_assemble", forbidden)
        assert torch.equal(dataclasses.replace(A, cg_iterations=7)(x), want)
        others = [{"shift": 0.1}, {"pixel": 0.5}, {"pitch": 1.0}, {"source": 12.0}]
        for change in (*others, {"detectors": 9}, {"angles": (1.0,)}):
            with pytest.raises(AssertionError, match="built again"):
                dataclasses.replace(A, **change)(x)  # type: ignore[arg-type]
        with pytest.raises(AssertionError, match="built again"):
            dataclasses.replace(A)(x.float())
        patch.setenv("INVDIFF_CACHE", "off")
        with pytest.raises(AssertionError, match="built again"):
            dataclasses.replace(A)(x)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "folder", "version"])
def test_a_broken_file_is_built_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    A, x = CASES["parallel"], random(1, 1, *CASES["parallel"].size)
    want = dataclasses.replace(A)(x)
    (file,) = folder.iterdir()
    data = bytearray(file.read_bytes())
    if harm == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif harm == "flip":
        data[-3] ^= 64
        file.write_bytes(data)
    elif harm == "empty":
        file.write_bytes(b"")
    elif harm == "folder":
        file.unlink()
        file.mkdir()
    else:
        monkeypatch.setattr(kept, "FORMAT", "other")
    built = []
    assemble = Radon._assemble
    monkeypatch.setattr(Radon, "_assemble", lambda *a: built.append(1) or assemble(*a))
    assert torch.equal(dataclasses.replace(A)(x), want) and built
    if harm != "folder":
        assert torch.equal(dataclasses.replace(A)(x), want) and len(built) == 1  # mended
    assert not list(folder.glob(".partial*"))


def test_the_folder_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was used least recently goes first."""
    x = random(1, 1, 6, 5)
    Radon((0.0,), (6, 5))(x)
    (first,) = folder.iterdir()
    os.utime(first, (1, 1))
    Radon((10.0,), (6, 5))(x)
    (second,) = set(folder.iterdir()) - {first}
    os.utime(second, (2, 2))
    Radon((0.0,), (6, 5))(x)  # used again, so now the other one is older
    monkeypatch.setattr(kept, "LIMIT", 2.5 * first.stat().st_size)
    Radon((20.0,), (6, 5))(x)
    assert first.exists() and not second.exists() and len(list(folder.iterdir())) == 2


def test_a_folder_that_cannot_be_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INVDIFF_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(kept, "WORTH", 1)
    x = random(1, 1, 6, 5)
    assert torch.isfinite(Radon((0.0,), (6, 5))(x)).all()
    monkeypatch.setenv("INVDIFF_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "there"))
    assert kept.folder() == tmp_path / "there" / "invdiff"
    small = Radon((0.0,), (6, 5))
    monkeypatch.setattr(kept, "WORTH", 10**6)
    small(x)
    assert not (tmp_path / "there").exists()  # not worth a file


def test_scikit_image_sees_nearly_the_same_line_integrals() -> None:
    """Its radon turns the image by linear interpolation and sums columns. Both interpolate a smooth
    blob of width w with a relative error of at most (1/8 + 1/8) / w^2 from curvature: two axes for
    it, one for Joseph, and each at most h^2 / 8 times the second derivative."""
    transform = pytest.importorskip("skimage.transform")
    side, width = 65, 5.0  # odd: its axis is the middle pixel, as ours
    rows = torch.arange(side).double() - side // 2
    blob = torch.exp(-0.5 * ((rows[:, None] - 6) ** 2 + (rows + 9) ** 2) / width**2)[None, None]
    blob = torch.where(torch.hypot(rows[:, None], rows) <= side // 2, blob, 0.0)
    A = Radon(sparse_view(12), (side, side), side)
    want = transform.radon(blob[0, 0].numpy(), A.angles, circle=True, preserve_range=True).T
    gap = np.abs(A(blob)[0, 0].numpy() - want).max() / want.max()
    assert gap < (1 / 4 + 1 / 8) / width**2
    mirrored = dataclasses.replace(A, angles=tuple(-a for a in A.angles))
    assert np.abs(mirrored(blob)[0, 0].numpy() - want).max() > 0.5 * want.max()
