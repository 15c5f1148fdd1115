"""Images and volumes out: right affine, right axes, right numbers, in each format."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from scan_files import header, readout, rough, write_raw

from invdiff import load_prior, read_kspace
from invdiff.core import InvdiffError
from invdiff.restoration.restored import Restoration
from invdiff.restoration.series import STARTED, Series, begin, restore_all
from invdiff.scans.cfl import read_cfl, write_cfl
from invdiff.scans.placement import Placement
from invdiff.scans.volumes import write_volume
from invdiff.tasks.mri import CoilMaps, Mri, NoiseLevel
from invdiff.tasks.mri_values import Volume

X, Y = 32, 24
SQUARE = header(X, Y, X, Y).replace(b"<x>400</x>", b"<x>200</x>")


def shot(s: int) -> np.ndarray:
    """k-space of a smooth spot, (1, 32, 24)."""
    y, x = np.mgrid[:X, :Y]
    z = np.exp(-((y - 16) ** 2 + (x - 12 + s) ** 2) / 18).astype(np.complex64)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(z), norm="ortho"))[None].astype("c8")


def stack(path: Path, slices: int = 3, order=(2, 0, 1)) -> Path:
    """Slices of 200 x 200 mm, 6 mm apart; the one in position k has the number order[k]."""
    turn = {"read_dir": (0.0, 1.0, 0.0), "phase_dir": (1.0, 0.0, 0.0), "slice_dir": (0.0, 0.0, 1.0)}
    lines = [
        readout(shot(k)[:, :, j], j, slice=order[k], position=(5.0, 7.0, 20.0 + 6 * k), **turn)
        for k in range(slices) for j in range(Y)
    ]  # fmt: skip
    write_raw(path, SQUARE, lines)
    return path


def test_the_affine_is_that_of_the_scanner(tmp_path: Path) -> None:
    """The pixel in the middle is at the position of the head; left and posterior change sign."""
    k = read_kspace(stack(tmp_path / "s.h5"), slice=0)
    assert k.placement is not None
    affine = k.placement.affine((X, Y)).numpy()
    np.testing.assert_allclose(affine @ [16, 12, 0, 1], [-5, -7, 26, 1])
    np.testing.assert_allclose(affine @ [17, 12, 0, 1], [-5, -7 - 200 / X, 26, 1])
    np.testing.assert_allclose(affine @ [16, 13, 0, 1], [-5 - 200 / Y, -7, 26, 1])
    coarse = k.placement.coarser(2.0, 2.0).affine((X // 2, Y // 2)).numpy()
    np.testing.assert_allclose(coarse @ [8, 6, 0, 1], [-5, -7, 26, 1])
    unknown = Placement((2.0, 3.0, 0.0)).affine((4, 4)).numpy()
    np.testing.assert_allclose(np.diag(unknown), [2, 3, 1, 1])


def test_all_slices_are_one_nifti(tmp_path: Path) -> None:
    """In the order of their positions, whatever their numbers, opened by nibabel."""
    nibabel = pytest.importorskip("nibabel")
    task = Mri(slice="all", save_as=Volume("brain.nii.gz"), noise=NoiseLevel.of(0.01))
    file = stack(tmp_path / "s.h5")
    done = restore_all(task, file, want="estimate", prior=load_prior("brain"))
    out = done.save(tmp_path / "out")
    image = nibabel.load(out / "brain.nii.gz")
    assert image.shape == (X, Y, 3) and image.header["sform_code"] == 1
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(image.affine @ [16, 12, 0, 1], [-5, -7, 20, 1], atol=1e-4)
    np.testing.assert_allclose(image.affine @ [16, 12, 2, 1], [-5, -7, 32, 1], atol=1e-4)
    np.testing.assert_allclose(image.header.get_zooms(), [200 / X, 200 / Y, 6], rtol=1e-5)
    values = image.get_fdata()
    for k, number in enumerate((2, 0, 1)):
        alone = np.load(out / f"slice-{number:03d}" / "estimate.npy")
        np.testing.assert_allclose(values[:, :, k], np.abs(alone), rtol=1e-5)
        assert np.unravel_index(np.abs(alone).argmax(), alone.shape) == (16, 12 - k)
    np.testing.assert_array_equal(np.load(out / "estimate.npy").shape, (3, X, Y))
    assert Restoration.load(out / "slice-001").task == "mri" and isinstance(done, Series)
    with pytest.raises(InvdiffError, match="exists"):
        done.save(out)
    (out / "slice-001" / "thesis.txt").write_text("x")
    with pytest.raises(InvdiffError, match=r"no run wrote \(slice-001/thesis.txt\)"):
        done.save(out, overwrite=True)
    (out / "slice-001" / "thesis.txt").unlink()
    done.save(out, overwrite=True)
    assert (out / "series.json").is_file()


def test_series_that_were_interrupted(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert begin(out, False, False) == {}
    with pytest.raises(InvdiffError, match="interrupted; give --resume"):
        begin(out, False, False)
    assert begin(out, False, True) == {} and begin(out, True, False) == {}
    with pytest.raises(InvdiffError, match="no series that was interrupted"):
        begin(tmp_path / "other", False, True)
    for broken in ('{"done": 3}', "[]", "{"):
        (out / STARTED).write_text(broken)
        with pytest.raises(InvdiffError, match="no series that was interrupted"):
            begin(out, False, True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InvdiffError, match="other things"):
        begin(tmp_path / "mine", True, False)


def test_every_format(tmp_path: Path) -> None:
    """Slices and times of (time, slice, H, W)."""
    z = rough(2, 3, 5, 4)
    names = write_volume(tmp_path / "v.cfl", z, ("time", "slice"))
    assert sorted(names) == sorted(f.name for f in tmp_path.iterdir())
    back = read_cfl(tmp_path / "v.cfl")
    assert back.shape[:2] == (5, 4) and back.shape[10] == 2 and back.shape[13] == 3
    np.testing.assert_array_equal(back.reshape(5, 4, 2, 3, order="F"), z.transpose(2, 3, 0, 1))
    write_volume(tmp_path / "d.cfl", z[0], ("slice",), deep=True)
    np.testing.assert_array_equal(read_cfl(tmp_path / "d.cfl").reshape(5, 4, 3, order="F"),
                                  z[0].transpose(1, 2, 0))  # fmt: skip
    write_volume(tmp_path / "v.h5", z[0], ("slice",))
    with h5py.File(tmp_path / "v.h5") as file:
        np.testing.assert_allclose(file["reconstruction"][()], np.abs(z[0]), rtol=1e-6)
    write_volume(tmp_path / "one.h5", z[0, 0])
    with h5py.File(tmp_path / "one.h5") as file:
        assert file["reconstruction"].shape == (1, 5, 4)
    nibabel = pytest.importorskip("nibabel")
    write_volume(tmp_path / "v.nii", z, ("time", "slice"))
    values = nibabel.load(tmp_path / "v.nii").get_fdata()
    np.testing.assert_allclose(values, np.abs(z.transpose(2, 3, 1, 0)), rtol=1e-6)


@pytest.mark.parametrize("name", ["a.png", "x/a.nii", ".nii", "a", "a.nii.gz.txt"])
def test_names_of_no_volume(name: str) -> None:
    with pytest.raises(InvdiffError, match="--save-as is the name of a file"):
        Volume.parse(name)


def test_without_nibabel_the_error_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invdiff.scans.volumes.find_spec", lambda name: None)
    np.save(tmp_path / "k.npy", shot(0))
    with pytest.raises(InvdiffError, match=r"nibabel.*pip install 'invdiff\[io\]'"):
        Mri(save_as=Volume("a.nii")).read(tmp_path / "k.npy", load_prior("brain"))


def test_what_the_scanner_shows_is_kept(tmp_path: Path) -> None:
    """Phase oversampling: the image is cut along its columns, and the affine follows."""
    head, tail = SQUARE.split(b"<reconSpace>")
    xml = head + b"<reconSpace>" + tail.replace(b"<y>200</y>", b"<y>100</y>", 1)
    write_raw(tmp_path / "s.h5", xml, [readout(shot(0)[:, :, j], j) for j in range(Y)])
    m = Mri(noise=NoiseLevel.of(0.01)).read(tmp_path / "s.h5", load_prior("brain"))
    assert m.view.size(m.problem.x_shape) == (X, Y // 2)
    x = torch.arange(2 * X * Y, dtype=torch.float32).reshape(1, 2, X, Y)
    torch.testing.assert_close(m.view.values(x), x[..., 6:18] * m.view.unit)
    assert any("cut to the 12 x 32 pixels" in note for note in m.notes)


def test_coil_maps_of_bart(tmp_path: Path) -> None:
    maps = rough(3, 6, 5)
    write_cfl(tmp_path / "two", np.moveaxis(maps, 0, -1)[None])  # 1 H W coils
    found = CoilMaps(str(tmp_path / "two.cfl")).maps()
    np.testing.assert_array_equal(found, maps)
    sets = np.stack([np.moveaxis(maps, 0, -1)[:, :, None], rough(6, 5, 1, 3)], -1)
    write_cfl(tmp_path / "sets", sets)
    np.testing.assert_array_equal(CoilMaps(str(tmp_path / "sets.hdr")).maps(), maps)
    write_cfl(tmp_path / "deep", rough(6, 5, 4, 3))
    with pytest.raises(InvdiffError, match="two axes of space"):
        CoilMaps(str(tmp_path / "deep.cfl")).maps()
    assert CoilMaps("espirit").maps() is None and CoilMaps("espirit:0.8").crop == 0.8
    for wrong in ("espirit:2", "espirit:x"):
        with pytest.raises(InvdiffError, match="an eigenvalue from 0 to 1"):
            CoilMaps(wrong)
