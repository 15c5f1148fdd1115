"""Sinograms as people have them: NXtomo, TIFF, other orders of axes, open units and kinds."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
from test_sinogram import ANGLES, BINS, VIEWS, blobs, counts_of, told

from invdiff import centre_of_rotation, read_sinogram
from invdiff.core import InvdiffError
from invdiff.operators.geometry import Geometry
from invdiff.operators.radon import Radon
from invdiff.scans import Sinogram
from invdiff.scans.fan import direction_hint

Z = blobs(ANGLES)


def write_nxtomo(
    path: Path, entry: str = "entry1/tomo_entry", units: str | None = "degree"
) -> None:
    """Darks, flats, projections with one invalid frame, flats: 2 detector rows."""
    counts, white, dark = counts_of(Z, 5000.0, dark=50.0)
    part = np.concatenate([dark, white[:10], counts, counts[:1] * 0, white[10:]])
    kinds = [2] * len(dark) + [1] * 10 + [0] * VIEWS + [3] + [1] * (len(white) - 10)
    turn = np.zeros(len(part))
    turn[len(dark) + 10 : len(dark) + 10 + VIEWS] = ANGLES
    with h5py.File(path, "a") as file:
        g = file.create_group(entry)
        g.attrs["NX_class"] = "NXsubentry"
        g["definition"] = "NXtomo"
        g["instrument/detector/data"] = np.concatenate([part, part], 1)
        g["instrument/detector/image_key"] = np.array(kinds)
        g["sample/rotation_angle"] = np.degrees(np.radians(turn)) if units != "rad" else (
            np.radians(turn))  # fmt: skip
        if units:
            g["sample/rotation_angle"].attrs["units"] = units
        g["data/data"] = h5py.SoftLink(f"/{entry}/instrument/detector/data")


@pytest.mark.parametrize(("entry", "units"), [
    ("entry1/tomo_entry", "degree"), ("entry0000", "rad"), ("entry", None)])  # fmt: skip
def test_nxtomo_is_sorted_by_image_key(tmp_path: Path, entry: str, units: str | None) -> None:
    write_nxtomo(tmp_path / "s.nxs", entry, units)
    s = read_sinogram(tmp_path / "s.nxs")
    counts, white, dark = counts_of(Z, 5000.0, dark=50.0)
    want = -np.log((counts - dark.mean(0)) / (white - dark.mean(0)).mean(0))[:, 0]
    np.testing.assert_allclose(s.integrals.numpy(), want, atol=2e-4)
    assert s.angles == pytest.approx(tuple(ANGLES)) and s.variance is not None
    assert f"NXtomo, entry /{entry}" in told(s) and "1 frames left out" in told(s)
    assert "detector row 1 of 2" in told(s)


def test_several_entries_are_asked_for(tmp_path: Path) -> None:
    write_nxtomo(tmp_path / "s.nxs", "a")
    write_nxtomo(tmp_path / "s.nxs", "b")
    with pytest.raises(InvdiffError, match="2 NXtomo entries; name one by --key: a, b"):
        read_sinogram(tmp_path / "s.nxs")
    assert "entry /b" in told(read_sinogram(tmp_path / "s.nxs", key="b"))
    with h5py.File(tmp_path / "s.nxs", "a") as file:
        del file["b/sample/rotation_angle"]
    with pytest.raises(InvdiffError, match="entry /b of .* holds no rotation_angle"):
        read_sinogram(tmp_path / "s.nxs", key="b")


@pytest.mark.parametrize("shape", ["page", "rows", "rows first"])
def test_tiff_sinograms(tmp_path: Path, shape: str) -> None:
    z = Z.astype(np.float32)
    stack = {"page": z, "rows": np.stack([z, 2 * z, z], 1), "rows first": np.stack([z, 2 * z, z])}
    tifffile.imwrite(tmp_path / "s.tif", stack[shape], photometric="minisblack")
    s = read_sinogram(tmp_path / "s.tif", angles=torch.from_numpy(ANGLES))
    want = z if shape == "page" else 2 * z
    np.testing.assert_array_equal(s.integrals.numpy(), want)
    assert ("axes (rows, views, bins)" in told(s)) == (shape == "rows first")
    counts = (1000 * np.exp(-z)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "c.tif", counts)
    with pytest.raises(InvdiffError, match="give its --kind"):
        read_sinogram(tmp_path / "c.tif", angles=(0.0, 180.0))


def test_bins_that_stand_first_are_seen_by_the_number_of_angles(tmp_path: Path) -> None:
    angles = torch.from_numpy(ANGLES)
    np.save(tmp_path / "s.npy", np.ascontiguousarray(Z.T))
    s = read_sinogram(tmp_path / "s.npy", angles=angles)
    np.testing.assert_allclose(s.integrals.numpy(), Z, rtol=1e-6)
    assert "axes (bins, views), for there are 40 angles" in told(s)
    np.savez(tmp_path / "s.npz", sinogram=Z.T, theta=ANGLES)
    assert read_sinogram(tmp_path / "s.npz").integrals.shape == (VIEWS, BINS)


def test_bins_that_stand_first_are_asked_for_without_it(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.ascontiguousarray(Z.T))
    np.save(tmp_path / "square.npy", np.ascontiguousarray(blobs(ANGLES, bins=VIEWS).T))
    for name, angles in (("s", (0.0, 180.0)), ("square", torch.from_numpy(ANGLES))):
        with pytest.raises(InvdiffError, match=r"may be \(bins, views\); give --first bins, or"):
            read_sinogram(tmp_path / f"{name}.npy", angles=angles)
        s = read_sinogram(tmp_path / f"{name}.npy", angles=angles, first="bins")
        assert s.integrals.shape[0] == VIEWS and "as asked" in told(s)
    s = read_sinogram(tmp_path / "s.npy", angles=(0.0, 180.0), first="views")
    assert s.integrals.shape == (BINS, VIEWS)
    rows = np.stack([Z * k for k in (1, 3, 4, 2, 1)])
    np.save(tmp_path / "s.npy", rows)
    with pytest.raises(InvdiffError, match=r"may be \(rows, views, bins\); give --first rows, or"):
        read_sinogram(tmp_path / "s.npy", angles=(0.0, 180.0))
    s = read_sinogram(tmp_path / "s.npy", angles=(0.0, 180.0), first="rows", row=1)
    np.testing.assert_allclose(s.integrals.numpy(), 3 * Z, rtol=1e-6)
    np.save(tmp_path / "s.npy", rows.swapaxes(0, 1))
    assert read_sinogram(tmp_path / "s.npy", angles=(0.0, 180.0)).integrals.shape == Z.shape
    np.save(tmp_path / "s.npy", Z)  # the right order is not asked for
    assert read_sinogram(tmp_path / "s.npy", angles=(0.0, 180.0)).integrals.shape == Z.shape


@pytest.mark.parametrize(
    "theta", [np.linspace(-6, 6, 7), np.linspace(0, 1.5, VIEWS), np.arange(3.0), [0.0, 12.0, 5.0]]
)
def test_angles_of_an_open_unit_are_asked_for(tmp_path: Path, theta) -> None:
    np.savez(tmp_path / "t.npz", sinogram=np.ones((len(theta), 9)), theta=theta)
    with pytest.raises(InvdiffError, match="degrees, or radians .*--angle-unit degrees or --angle"):
        read_sinogram(tmp_path / "t.npz")
    s = read_sinogram(tmp_path / "t.npz", unit="degrees")
    assert s.angles == pytest.approx(tuple(theta))
    s = read_sinogram(tmp_path / "t.npz", unit="radians")
    assert s.angles == pytest.approx(tuple(np.degrees(theta)))


def test_kinds_that_cannot_be_are_asked_for(tmp_path: Path) -> None:
    z, angles = Z.astype(np.float32), torch.from_numpy(ANGLES)

    def read(values: np.ndarray, **options: object) -> Sinogram:
        np.save(tmp_path / "s.npy", values)
        return read_sinogram(tmp_path / "s.npy", angles=angles, **options)

    with pytest.raises(InvdiffError, match="above 20 let nothing pass.*--kind integrals.*percent"):
        read(30 * z)
    assert torch.equal(read(30 * z, kind="integrals").integrals, torch.from_numpy(30 * z))
    share = np.exp(-z)
    with pytest.raises(InvdiffError, match="as transmission is.* --kind transmission, or --kind i"):
        read(share)
    with pytest.raises(InvdiffError, match="reach 100.*if they are percent, give --kind percent"):
        read(100 * share, kind="transmission")
    with pytest.raises(InvdiffError, match="reach 1000.*if they are counts, give their white"):
        read(1000 * share, kind="transmission")
    np.testing.assert_allclose(read(100 * share, kind="percent").integrals, z, atol=1e-6)
    np.savez(tmp_path / "s.npz", counts=900 * share, white=np.ones((3, BINS)), theta=ANGLES)
    with pytest.raises(InvdiffError, match="times its white field, but an object only attenuates"):
        read_sinogram(tmp_path / "s.npz")
    np.savez(tmp_path / "s.npz", counts=share, white=9e4 * np.ones((3, BINS)), theta=ANGLES)
    with pytest.raises(InvdiffError, match="No ray of .* white field"):
        read_sinogram(tmp_path / "s.npz")


@pytest.mark.parametrize(
    ("name", "how"),
    [("a.mat", "scipy.io.loadmat"), ("a.dat", "numpy.fromfile"), ("a.txrm", "dxchange"),
     ("a.vol", "numpy.fromfile"), ("a.png", "8 bits"), ("a.nii", "no sinogram"),
     ("a.xyz", "numpy.save of the array"), ("a.dcm", "restore low-dose-ct"),
     ("IM0001", "restore low-dose-ct")],
)  # fmt: skip
def test_other_endings_say_how_to_convert(tmp_path: Path, name: str, how: str) -> None:
    mark = b"\0" * 128 + b"DICM" if name in ("IM0001",) else b"x"
    (tmp_path / name).write_bytes(mark)
    with pytest.raises(InvdiffError, match=how) as error:
        read_sinogram(tmp_path / name)
    assert name in str(error.value)


def fan(shift: float, sign: int = 1, views: int = 60) -> Sinogram:
    """A fan over a turn, of discs that no mirror maps on each other; its angles times sign."""
    yy, xx = torch.meshgrid(torch.arange(48) - 23.5, torch.arange(48) - 23.5, indexing="ij")
    x = (xx / 15).square() + (yy / 20).square() < 1
    x = x.float() - 0.5 * ((xx - 6) ** 2 + (yy - 4) ** 2 < 25) + 0.7 * ((xx + 7) ** 2 + yy**2 < 9)
    rays = Geometry(tuple(360 * k / views for k in range(views)), source=90.0)
    rays = rays.covering((48, 48)).shifted(shift)
    z = Radon.of(rays, (48, 48))(x[None, None])[0, 0]
    told_angles = tuple(sign * a for a in rays.angles)
    return Sinogram(z, told_angles, None, torch.ones_like(z, dtype=torch.bool), (), 90.0)


@pytest.mark.parametrize("shift", [0.0, 3.3, -2.6])
def test_the_axis_of_a_fan_is_found(shift: float) -> None:
    """By rays that are measured twice: to a twentieth of a bin without noise."""
    assert centre_of_rotation(fan(shift)) == pytest.approx(shift, abs=0.05)


def test_an_axis_of_a_fan_needs_rays_that_are_seen_twice() -> None:
    s = fan(0.0)
    with pytest.raises(InvdiffError, match="measured from both sides, too few"):
        centre_of_rotation(s.views(torch.arange(20)))


def test_a_fan_that_turns_the_other_way_is_told() -> None:
    assert direction_hint(fan(0.0), 0.0) == ""
    assert "--direction clockwise" in direction_hint(fan(0.0, -1), 0.0)


def test_mutated_files_give_a_sentence_or_a_sinogram(tmp_path: Path) -> None:
    write_nxtomo(tmp_path / "s.nxs")
    np.savez(tmp_path / "s.npz", sinogram=Z, theta=ANGLES)
    tifffile.imwrite(tmp_path / "s.tif", Z.astype(np.float32))
    rng, read = np.random.default_rng(1), 0
    for name in ("s.nxs", "s.npz", "s.tif"):
        data = (tmp_path / name).read_bytes()
        for k in range(20):
            raw = bytearray(data)
            for at in rng.integers(0, min(len(raw), 3000), 1 + k % 4):
                raw[at] = int(rng.integers(256))
            (tmp_path / f"bad{Path(name).suffix}").write_bytes(bytes(raw))
            try:
                s = read_sinogram(tmp_path / f"bad{Path(name).suffix}", angles=(0.0, 180.0))
            except InvdiffError as error:
                assert "\n" not in str(error)
            else:
                read += bool(torch.isfinite(s.integrals).all())
    assert read > 5
