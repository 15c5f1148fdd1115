"""Readers of sinograms: what is known comes back; units, fields and outliers are told."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scan_files import write_exchange

from invdiff import Radon, centre_of_rotation, fbp, read_sinogram, sparse_view
from invdiff.core import InvdiffError
from invdiff.scans import Sinogram

VIEWS, BINS = 40, 64
ANGLES = np.array(sparse_view(VIEWS))


def told(s: Sinogram) -> str:
    return "; ".join(s.facts)


def blobs(angles: np.ndarray, shift: float = 0.0, bins: int = BINS) -> np.ndarray:
    """Exact line integrals of three Gaussian blobs, (views, bins), with the axis moved by shift."""
    s = np.arange(bins) - (bins - 1) / 2 - shift
    out = np.zeros((len(angles), bins))
    for x, y, width, height in ((3, 5, 4, 0.2), (-8, 2, 3, 0.3), (1, -9, 2.5, 0.15)):
        centre = x * np.cos(np.radians(angles)) + y * np.sin(np.radians(angles))
        out += height * width * np.exp(-0.5 * ((s - centre[:, None]) / width) ** 2)
    return out


def counts_of(z: np.ndarray, photons: float, gain: float = 1.0, dark: float = 50.0, seed: int = 0):
    """Counts (views, 1 row, bins) of a gain per photon, and fields with the same noise."""
    rng = np.random.default_rng(seed)
    beam = photons * (1 + 0.2 * np.sin(np.arange(z.shape[1]) / 7))

    def expose(rate: np.ndarray) -> np.ndarray:
        return (gain * rng.poisson(rate) + dark)[:, None]

    fields = np.repeat(beam[None], 20, 0)
    return expose(beam * np.exp(-z)), expose(fields), np.full((5, 1, z.shape[1]), dark)


def test_a_file_that_tells_of_a_fan(tmp_path: Path) -> None:
    """A blob off the axis, by exact line integrals along the rays of `Radon`."""
    source, width, at = 90.0, 4.0, np.array([12.0, -7.0])
    angles = np.array(sparse_view(180, 360))
    u = np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], -1)[:, None]
    v = np.stack([-u[..., 1], u[..., 0]], -1)
    way = (np.arange(BINS) - (BINS - 1) / 2)[:, None] * u + source * v
    way /= np.linalg.norm(way, axis=-1, keepdims=True)
    off = at + source * v
    far = off[..., 0] * way[..., 1] - off[..., 1] * way[..., 0]
    z = 0.1 * np.exp(-0.5 * (far / width) ** 2) * width * math.sqrt(2 * math.pi)
    np.savez(tmp_path / "fan.npz", sinogram=z, theta=angles, source=source)
    s = read_sinogram(tmp_path / "fan.npz")
    assert s.source == source and "a fan, for there is a source" in told(s)
    assert s.views(torch.arange(3)).source == source
    A = s.radon((BINS, BINS))
    image = fbp(s.y, A)[0, 0].numpy()
    x = np.arange(BINS) - (BINS - 1) / 2
    want = 0.1 * np.exp(-0.5 * ((x - at[0]) ** 2 + (-x[:, None] - at[1]) ** 2) / width**2)
    inside = np.hypot(x[:, None], x) < 30  # 90 sin(atan(32 / 90)): seen by all views
    # interpolation of the filtered views, h^2 / 8 times the Laplacian, 2 / w^2
    assert (np.abs(image - want) * inside).max() < 0.1 * 2 / 8 / width**2
    mirrored = np.abs(image - want[:, ::-1]) * inside
    assert mirrored.max() > 0.05
    joined = read_sinogram(tmp_path / "fan.npz", join=2)
    assert joined.source == source / 2 and joined.radon((32, 32), pitch=2.0).source == source
    assert abs(centre_of_rotation(s)) < 0.05
    for bad in (0.0, -5.0, np.nan, np.ones(2), 1j):
        np.savez(tmp_path / "bad.npz", sinogram=z, theta=angles, source=bad)
        with pytest.raises(InvdiffError, match=r"source in .*bad\.npz is no distance"):
            read_sinogram(tmp_path / "bad.npz")


def test_counts_become_line_integrals_with_their_variance(tmp_path: Path) -> None:
    z = blobs(ANGLES)
    data, white, dark = counts_of(z, 2e4, gain=3.0)
    write_exchange(tmp_path / "s.h5", data, ANGLES, white, dark, "degrees")
    s = read_sinogram(tmp_path / "s.h5")
    assert s.integrals.shape == (VIEWS, BINS) and s.integrals.dtype == torch.float32
    assert s.angles == pytest.approx(tuple(ANGLES)) and s.y.shape == (1, 1, VIEWS, BINS)
    assert s.variance is not None and bool(s.trusted.all())
    for phrase in ("40 views of 64 bins", "20 white and 5 dark", "as the file says", "0 zingers"):
        assert phrase in told(s)
    # the variance is that of Poisson counts and of the mean of 20 white fields, which is left out
    r = (s.integrals.double().numpy() - z) ** 2 / s.variance.double().numpy()
    n = r.size
    # gain: median of 64 sample variances of 20; chi-square: sqrt(2 / n); white: up to 1 / 20 more
    slack = 5 * 1.25 * math.sqrt(2 / 19 / BINS) + 5 * math.sqrt(2 / n)
    assert 1 - slack < r.mean() < 1 + 1 / 20 + slack
    photons = (data[:, 0] - 50) / 3
    ratio = s.variance.numpy() * photons
    assert np.ptp(ratio) < 1e-4 * ratio.mean()
    (fact,) = [f for f in s.facts if "per photon" in f]
    gain = float(fact.split()[2])
    assert abs(gain / 3 - 1) < 5 * 1.25 * math.sqrt(2 / 19 / BINS)


def test_without_enough_white_fields_a_count_is_a_photon(tmp_path: Path) -> None:
    data, white, dark = counts_of(blobs(ANGLES), 2e4)
    np.savez(tmp_path / "s.npz", counts=data, white=white[:1], theta=ANGLES)
    s = read_sinogram(tmp_path / "s.npz")
    assert "a count is taken for a photon" in told(s) and s.variance is not None
    torch.testing.assert_close(s.variance, torch.from_numpy(1 / data[:, 0]).float())
    assert "0 dark fields" in told(s) and "more than two turns" in told(s)


@pytest.mark.parametrize(
    ("theta", "units", "unit", "degrees", "how"),
    [
        (ANGLES, "degrees", None, ANGLES, "as the file says"),
        (ANGLES, b"deg", None, ANGLES, "as the file says"),
        (np.radians(ANGLES), "radians", None, ANGLES, "as the file says"),
        (np.radians(ANGLES), None, None, ANGLES, "half a turn or a turn in equal steps"),
        (2 * np.radians(ANGLES), None, None, 2 * ANGLES, "half a turn or a turn in equal steps"),
        (ANGLES, None, None, ANGLES, "radians would be more than two turns"),
        (ANGLES / 40, None, "degrees", ANGLES / 40, "as asked"),
        (np.radians(ANGLES), "furlongs", None, ANGLES, "half a turn or a turn in equal steps"),
        (np.radians(ANGLES) / 2, None, "radians", ANGLES / 2, "as asked"),
    ],
)
def test_units_of_angles(tmp_path: Path, theta, units, unit, degrees, how) -> None:
    write_exchange(tmp_path / "s.h5", blobs(ANGLES)[:, None], theta, units=units)
    s = read_sinogram(tmp_path / "s.h5", unit=unit, kind="integrals")
    assert s.angles == pytest.approx(tuple(degrees)) and how in told(s)
    assert s.variance is None and "there are no counts" in told(s)


def test_rows_views_and_joined_bins(tmp_path: Path) -> None:
    z = np.stack([blobs(ANGLES), 2 * blobs(ANGLES), 3 * blobs(ANGLES)], axis=1)
    np.save(tmp_path / "s.npy", z.astype(np.float32))
    angles = torch.from_numpy(ANGLES)
    s = read_sinogram(tmp_path / "s.npy", angles=angles)
    np.testing.assert_allclose(s.integrals.numpy(), z[:, 1], rtol=1e-6)
    assert "detector row 1 of 3, the middle one" in told(s) and "no white field" in told(s)
    s = read_sinogram(tmp_path / "s.npy", row=2, angles=angles, join=3)
    want = z[:, 2, :63].reshape(VIEWS, 21, 3).mean(-1)
    np.testing.assert_allclose(s.integrals.numpy(), want, rtol=1e-5)
    part = s.views(torch.tensor([3, 5]))
    assert part.angles == (s.angles[3], s.angles[5]) and torch.equal(
        part.integrals, s.integrals[[3, 5]]
    )
    A = s.radon((20, 24), shift=0.5, pitch=1.5)
    assert isinstance(A, Radon) and A(torch.zeros(1, 1, 20, 24)).shape == s.y.shape
    np.save(tmp_path / "t.npy", np.exp(-z[:, 0]))
    s = read_sinogram(tmp_path / "t.npy", angles=angles, kind="transmission")
    np.testing.assert_allclose(s.integrals.numpy(), z[:, 0], atol=1e-6)


@pytest.mark.parametrize("fields", [1, 20])
def test_joined_counts_are_added(tmp_path: Path, fields: int) -> None:
    """Photons of all the bins that are joined, whether the gain is found or taken for 1."""
    z = np.zeros((VIEWS, BINS))
    data, white, dark = counts_of(z, 1000.0)
    write_exchange(tmp_path / "s.h5", data, ANGLES, white[:fields], dark, "degrees")
    s = read_sinogram(tmp_path / "s.h5", join=4, zingers=False)
    assert s.variance is not None
    # 16 bins; a gain is the median of 16 sample variances of 20 fields
    tolerance = 0.05 if fields == 1 else 5 * 1.25 * (2 / 19 / 16) ** 0.5
    assert float(s.variance.mean()) == pytest.approx(1 / 4000, rel=0.05 + tolerance)


def test_angles_in_equal_steps(tmp_path: Path) -> None:
    """In degrees, however small they are."""
    np.save(tmp_path / "s.npy", blobs(ANGLES).astype(np.float32))
    s = read_sinogram(tmp_path / "s.npy", angles=(-2.0, 6.0))
    assert s.angles == pytest.approx([-2 + 8 * k / VIEWS for k in range(VIEWS)])
    assert "(read as degrees: as asked)" in told(s)


def test_zingers_and_dead_bins_are_filled_in(tmp_path: Path) -> None:
    z = blobs(ANGLES)
    data, white, dark = counts_of(z, 2e4)
    clean = data.copy()
    struck = [(5, 10), (20, 31), (39, 63), (0, 0)]
    for view, bin_ in struck:
        data[view, 0, bin_] += 6e4
    data[:, 0, 40] = white[:, 0, 40] = 50
    np.savez(tmp_path / "s.npz", counts=data, white=white, dark=dark, theta=ANGLES)
    s = read_sinogram(tmp_path / "s.npz")
    assert "4 zingers filled in" in told(s) and "1 dead bins filled in" in told(s)
    bad = torch.zeros(VIEWS, BINS, dtype=torch.bool)
    bad[:, 40] = True
    for view, bin_ in struck:
        bad[view, bin_] = True
    assert torch.equal(~s.trusted, bad)
    assert float((s.integrals - torch.from_numpy(z)).abs().max()) < 0.1
    raw = read_sinogram(tmp_path / "s.npz", zingers=False)
    assert float((raw.integrals - torch.from_numpy(z)).abs().max()) > 1  # the negative twin
    np.savez(tmp_path / "c.npz", counts=clean, white=white, dark=dark, theta=ANGLES)
    assert "0 zingers" in told(read_sinogram(tmp_path / "c.npz"))


def channels(views: int, bins: int) -> np.ndarray:
    """Line integrals of a block with thin channels on a spiral, (views, bins), over half a turn."""
    angles = np.radians(180 * np.arange(views) / views)[:, None]
    s = np.arange(bins) - (bins - 1) / 2
    out = np.full((views, bins), 3.0)
    for k in range(12):
        r, phi = bins / 2 * (0.1 + 0.07 * k), 2.4 * k
        out -= 1.5 * np.exp(-0.5 * (s - r * np.cos(angles - phi)) ** 2)
    return out.clip(0)


@pytest.mark.parametrize(("views", "bins", "join"), [(10, 64, 1), (40, 256, 1), (40, 256, 4)])
def test_zingers_are_not_told_from_edges_where_views_are_far_apart(
    tmp_path: Path, views: int, bins: int, join: int
) -> None:
    """18 degrees at 64 bins, 4.5 at 256; the same 4.5 degrees are near at 64 joined bins."""
    z = channels(views, bins)
    data, white, dark = counts_of(z, 1e4)
    np.savez(tmp_path / "s.npz", counts=data[:, 0], white=white[:, 0], dark=dark[:, 0],
             theta=180 * np.arange(views) / views)  # fmt: skip
    s = read_sinogram(tmp_path / "s.npz", join=join)
    near = join == 4
    kept = f"zingers kept: views {180 / views:.3g} degrees apart"
    assert (kept in told(s)) == (not near) and ("filled in" in told(s)) == near
    assert bool(s.trusted.all()) or near
    asked = read_sinogram(tmp_path / "s.npz", join=join, zingers=True)
    assert "zingers filled in" in told(asked)
    if not near:  # the negative twin: asked for, channels are taken for zingers
        assert int((~asked.trusted).sum()) > 10


def test_a_ray_that_lost_all_photons_stays_finite(tmp_path: Path) -> None:
    counts = np.full((3, 8), 100.0)
    counts[1, 4] = -3
    np.savez(tmp_path / "s.npz", counts=counts, white=np.full((1, 8), 200.0), theta=[0, 60, 120.0])
    s = read_sinogram(tmp_path / "s.npz")
    assert float(s.integrals[1, 4]) == pytest.approx(math.log(400)) and "1 rays" in told(s)
    assert s.variance is not None and float(s.variance[1, 4]) == 2


@pytest.mark.parametrize("shift", [0.0, 2.5, -3.3, 0.27, -9.81])
@pytest.mark.parametrize("past", [False, True])
def test_the_axis_is_found_to_a_fraction_of_a_bin(shift: float, past: bool) -> None:
    """Smooth blobs are band-limited, so that only the step between views is left."""
    angles = np.arange(0, 200 if past else 180, 1.0)
    s = Sinogram(torch.from_numpy(blobs(angles, shift)).float(), tuple(angles), None, torch.ones(1))
    assert abs(centre_of_rotation(s) - shift) < (0.001 if past else 0.05)
    assert abs(centre_of_rotation(s, "mass") - shift) < 0.01
    turned = Sinogram(s.integrals.flip(1), s.angles, None, torch.ones(1))
    assert abs(centre_of_rotation(turned) + shift) < 0.05


def test_the_axis_is_where_radon_puts_it() -> None:
    """Edges are aliased by the bins: to a tenth of a bin with a view and its opposite. Without,
    straight edges change much from view to view: to a fifth."""
    A = Radon((*sparse_view(90), 180.0), (48, 48), 70, shift=1.7)
    x = torch.zeros(1, 1, 48, 48)
    x[..., 10:20, 14:30] = 1
    x[..., 28:36, 20:24] = 2
    s = Sinogram(A(x)[0, 0], A.angles, None, torch.ones(1))
    assert abs(centre_of_rotation(s) - 1.7) < 0.1
    half = Sinogram(s.integrals[:90], s.angles[:90], None, torch.ones(1))
    assert abs(centre_of_rotation(half) - 1.7) < 0.2
    again = fbp(s.y, s.radon((48, 48), shift=centre_of_rotation(s)))
    wrong = fbp(s.y, s.radon((48, 48)))
    assert float((again - x).norm()) < 0.5 * float((wrong - x).norm())


def test_an_axis_that_cannot_be_found() -> None:
    angles = tuple(float(a) for a in range(90))
    s = Sinogram(torch.ones(90, 9), angles, None, torch.ones(1))
    with pytest.raises(InvdiffError, match="from 0 to 89 degrees, so none is half a turn"):
        centre_of_rotation(s)
    with pytest.raises(InvdiffError, match="three views"):
        centre_of_rotation(Sinogram(
            torch.ones(2, 9), (0.0, 180.0), None, torch.ones(1)))  # fmt: skip
    gap = (0.0, 1.0, 2.0, 190.0, 191.0)
    with pytest.raises(InvdiffError, match="none is half a turn"):
        centre_of_rotation(Sinogram(torch.rand(5, 9), gap, None, torch.ones(1)))
    with pytest.raises(InvdiffError, match="opposite or by mass"):
        centre_of_rotation(s, "guess")  # type: ignore[arg-type]
    with pytest.raises(InvdiffError, match="show an object"):
        centre_of_rotation(Sinogram(0 * s.integrals, angles, None, torch.ones(1)), "mass")


def test_what_is_no_sinogram_is_said(tmp_path: Path) -> None:
    z = blobs(ANGLES)
    angles = torch.from_numpy(ANGLES)

    def refused(reason: str, *, theta=ANGLES, units=None, data=None, white=None, **options) -> None:
        data = z[:, None] if data is None else data
        write_exchange(tmp_path / "s.h5", data, theta, white, units=units)
        with pytest.raises(InvdiffError, match=reason) as error:
            read_sinogram(tmp_path / "s.h5", **options)
        assert "s.h5" in str(error.value) and "\n" not in str(error.value)

    nan = z[:, None].copy()
    nan[3, 0, 4] = np.nan
    refused("no white field, and does not say")
    refused("no white field, without which counts", kind="counts")
    refused("holds no angles", theta=None, kind="integrals")
    refused("40 views, but its angles are of shape", theta=ANGLES[1:], kind="integrals")
    refused("called radians but reach", units="radians", kind="integrals")
    refused("the same angle", theta=0 * ANGLES, kind="integrals")
    refused("1 values that are NaN", data=nan, kind="integrals")
    refused("no row 1", row=1, kind="integrals")
    refused("real numbers", data=z[:, None].astype(complex), kind="integrals")
    refused("transmissions of 0 or below", data=0 * z[:, None], kind="transmission")
    refused("65 cannot be joined", join=65, kind="integrals")
    refused("white field .* 64 bins", white=np.ones((3, 1, 60)))
    refused("does not exceed its dark", white=np.zeros((3, 1, 64)))
    refused("no array called exchange/other", key="exchange/other")
    np.save(tmp_path / "s.npy", (1000 * z).astype(np.int32))
    with pytest.raises(InvdiffError, match="say what its numbers are"):
        read_sinogram(tmp_path / "s.npy", angles=angles)
    np.savez(tmp_path / "s.npz", something=z)
    with pytest.raises(InvdiffError, match="no counts, sinogram or data; name one of something"):
        read_sinogram(tmp_path / "s.npz")
    (tmp_path / "s.txt").write_text("")
    with pytest.raises(InvdiffError, match="none of the endings"):
        read_sinogram(tmp_path / "s.txt")


def test_the_tooth_of_the_examples() -> None:
    """A real measurement: two ways to find the axis agree within half a detector pixel."""
    s = read_sinogram(Path(__file__).parents[2] / "examples" / "tooth.npz")
    assert s.integrals.shape == (181, 640)
    by_shape, by_mass = centre_of_rotation(s), centre_of_rotation(s, "mass")
    assert abs(by_shape - by_mass) < 0.5 and -25 < by_shape < -22
    assert float((~s.trusted).float().mean()) < 0.005
