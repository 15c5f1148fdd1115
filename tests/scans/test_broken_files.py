"""Broken files: cut anywhere, bytes changed anywhere, sizes claimed that are not there.

Whatever is read must be what was written (cutting may fall behind the data); else there is one
sentence that names the file. Nothing is allocated for a claim.
"""

from __future__ import annotations

import functools
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scan_files import header, readout, rough, write_exchange, write_fastmri, write_raw
from test_images import (
    groups,
    hu_image,
    orientation,
    position,
    rescale,
    write_frames,
    write_slice,
)
from torch import Tensor

from invdiff import read_dicom, read_kspace, read_sinogram, read_tiff, write_tiff
from invdiff.core import InvdiffError
from invdiff.scans import read_noncartesian
from invdiff.scans.cfl import write_cfl

ANGLES = torch.arange(5) * 36.0


def _npy(path: Path) -> None:
    np.save(path, rough(2, 6, 5))


def _npz(path: Path) -> None:
    np.savez_compressed(path, kspace=rough(2, 6, 5), mask=np.ones(5))


def _fastmri(path: Path) -> None:
    write_fastmri(path, rough(2, 2, 6, 5), np.ones(5), header(6, 5, 4, 5))


def _raw(path: Path) -> None:
    full = rough(2, 6, 4)
    write_raw(path, header(6, 4, 6, 4), [readout(full[:, :, k], k) for k in range(4)])


def _radial(path: Path) -> None:
    full = rough(2, 6, 8)
    turn = np.pi * np.arange(6) / 6
    r = np.arange(8) / 8 - 0.5
    places = np.stack([np.outer(np.cos(turn), r), np.outer(np.sin(turn), r)], -1)
    lines = [readout(full[:, k], k, traj=places[k]) for k in range(6)]
    write_raw(path, header(8, 8, 8, 8, trajectory="radial"), lines)


def _deep(path: Path) -> None:
    full = rough(2, 6, 4, 3)
    lines = [readout(full[:, :, j, k], j, kspace_encode_step_2=k) for j in range(4)
             for k in range(3)]  # fmt: skip
    write_raw(path, header(6, 4, 6, 4, z=3), lines)


def _sinogram(path: Path) -> None:
    z = np.random.default_rng(0).random((5, 1, 9)) + 1
    white = np.full((2, 1, 9), 9.0)
    write_exchange(path, z, ANGLES.numpy(), white, 0 * white, "degrees")


def _frames(path: Path) -> None:
    own = [groups(position(z), rescale(1, -1024)) for z in (1.0, 0.0)]
    write_frames(path, np.stack([hu_image()] * 2) + 1024, own, orientation())


def _flagged(path: Path) -> None:
    """Noise scans, calibration lines and another encoding beside the image."""
    full = rough(2, 6, 4)
    lines = [readout(full[:, :, k], k, sample_time_us=5.0) for k in range(4)]
    lines += [readout(full[:, :, k], k, [20]) for k in (1, 2)]
    lines += [readout(full[:, :, 1], 1, encoding_space_ref=1)]
    scan = readout(rough(2, 40), 0, [19], sample_time_us=5.0)
    write_raw(path, header(6, 4, 6, 4), [scan, *lines])


def _matlab(path: Path) -> None:
    scipy.io.savemat(path, {"kspace": np.moveaxis(rough(2, 6, 5), 0, -1)})


def _matlab_hdf5(path: Path) -> None:
    pairs = np.zeros((2, 5, 6), [("real", "<f4"), ("imag", "<f4")])
    pairs["real"] = rough(2, 5, 6).real
    with h5py.File(path, "w") as file:
        file["kspace"] = pairs


FORMATS: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], Tensor]]] = {
    "npy": ("f.npy", _npy, lambda p: read_kspace(p).data),
    "npz": ("f.npz", _npz, lambda p: read_kspace(p).data),
    "fastmri": ("f.h5", _fastmri, lambda p: read_kspace(p).data),
    "raw": ("f.mrd", _raw, lambda p: read_kspace(p).data),
    "flagged": ("f.mrd", _flagged, lambda p: read_kspace(p).data),
    "matlab": ("f.mat", _matlab, lambda p: read_kspace(p).data),
    "matlab-7.3": ("f.mat", _matlab_hdf5, lambda p: read_kspace(p).data),
    "radial": ("f.mrd", _radial, lambda p: read_noncartesian(p).data),
    "deep": ("f.mrd", _deep, lambda p: read_kspace(p).data),
    "bart": ("f.cfl", lambda p: write_cfl(p, rough(6, 5)), lambda p: read_kspace(p).data),
    "header": ("f.hdr", lambda p: write_cfl(p, rough(6, 5)), lambda p: read_kspace(p).data),
    "sinogram": ("s.h5", _sinogram, lambda p: read_sinogram(p).integrals),
    "dicom": ("f.dcm", lambda p: write_slice(p, hu_image()), lambda p: read_dicom(p).hu),
    "frames": ("f.dcm", _frames, lambda p: read_dicom(p).hu),
    "tiff": ("f.tif", lambda p: write_tiff(p, torch.ones(2, 6, 5)), read_tiff),
}
OPTIONS = settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@functools.cache
def whole(name: str) -> tuple[dict[str, bytes], Tensor]:
    """The files of a format, written once, and what they hold."""
    file, write, read = FORMATS[name]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / file)
        want = read(Path(folder) / file)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}, want


def put(name: str, folder: Path) -> Path:
    """The files of a format, anew in a folder; the one that is read."""
    for old in folder.iterdir():
        old.unlink()
    for file, data in whole(name)[0].items():
        (folder / file).write_bytes(data)
    return folder / FORMATS[name][0]


def read_or_sentence(name: str, path: Path) -> Tensor | None:
    """What the file gives; None where the error is one sentence that names it."""
    try:
        return FORMATS[name][2](path)
    except InvdiffError as error:
        text = str(error)
        assert path.stem in text and "\n" not in text and len(text) < 600, text
        assert text.endswith("."), text
        return None


FAST = [name for name in FORMATS if name != "matlab"]
"""Formats that are read in this process; MATLAB's version 5 takes one of its own each time."""


@pytest.mark.parametrize("seed", range(6))
def test_a_matlab_file_that_is_broken_ends_no_process(seed: int, tmp_path: Path) -> None:
    """Cut, and with changed bytes: data, or one sentence."""
    path = put("matlab", tmp_path)
    draw = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for _ in range(3):
        data[int(draw.integers(128, len(data)))] = int(draw.integers(256))
    path.write_bytes(data[: len(data) - 40 * (seed % 2)])
    found = read_or_sentence("matlab", path)
    assert found is None or found.numel() <= 4096


@pytest.mark.parametrize("name", FAST)
@OPTIONS
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut(name: str, tmp_path: Path, share: float) -> None:
    path = put(name, tmp_path)
    data, want = path.read_bytes(), whole(name)[1]
    path.write_bytes(data[: int(share * len(data))])
    found = read_or_sentence(name, path)
    assert found is None or torch.equal(found, want)


@pytest.mark.parametrize("name", FAST)
@OPTIONS
@given(share=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_file_with_a_changed_byte(name: str, tmp_path: Path, share: float, byte: int) -> None:
    """Data may change unnoticed; NaN, other types and sizes that do not fit may not."""
    path = put(name, tmp_path)
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] = byte
    path.write_bytes(data)
    found = read_or_sentence(name, path)
    if found is not None and name != "tiff":
        parts = torch.view_as_real(found) if found.is_complex() else found
        assert bool(torch.isfinite(parts).all()) and found.numel() <= 4096


def claimed(shape: tuple[int, ...], dtype: str = "<c8") -> bytes:
    """The header of a .npy file of that shape, and no data."""
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (63 - (10 + len(head)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head


def lying(folder: Path) -> list[tuple[Path, Callable[[Path], object]]]:
    """Small files that claim 10 GB and more."""
    huge = (4, 20000, 20000)
    (folder / "a.npy").write_bytes(claimed(huge) + bytes(1000))
    (folder / "b.npy").write_bytes(claimed((2**40, 2**40)) + bytes(1000))
    with zipfile.ZipFile(folder / "c.npz", "w") as archive:
        archive.writestr("kspace.npy", claimed(huge) + bytes(1000))
    with zipfile.ZipFile(folder / "d.npz", "w") as archive:
        archive.writestr("kspace.npy", claimed((4, 5000, 5000)) + bytes(1000))
    (folder / "e.hdr").write_text("# Dimensions\n20000 20000 1 4\n")
    (folder / "e.cfl").write_bytes(bytes(1000))
    with h5py.File(folder / "f.h5", "w") as file:
        file.create_dataset("kspace", (4, 8, 20000, 20000), "c8", chunks=(1, 1, 64, 64))
    with h5py.File(folder / "g.h5", "w") as file:
        group = file.create_group("exchange")
        group.create_dataset("data", (100000, 1, 100000), "f4", chunks=(1, 1, 64))
    write_raw(folder / "h.mrd", header(60000, 60000, 6, 4), [readout(rough(2, 6), 0)])
    deep = [readout(rough(2, 6), 0)]
    write_raw(folder / "j.mrd", header(6, 60000, 6, 60000, z=60000), deep)
    far = np.array([[0.5, 0.5], [0, 0]])
    wide = header(60000, 60000, 60000, 60000, trajectory="radial")
    write_raw(folder / "k.mrd", wide, [readout(rough(2, 2), 0, traj=far)])
    with zipfile.ZipFile(folder / "i.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("kspace.npy", claimed((1, 2, 3)) + bytes(10**7))  # more than claimed
    kspace = [folder / f for f in ("a.npy", "b.npy", "c.npz", "d.npz", "e.cfl", "f.h5", "h.mrd")]
    found: list[tuple[Path, Callable[[Path], object]]] = [(p, read_kspace) for p in kspace]
    found += [(folder / "j.mrd", read_kspace), (folder / "k.mrd", read_noncartesian)]
    return [*found, (folder / "g.h5", read_sinogram), (folder / "i.npz", read_kspace)]


def test_nothing_is_allocated_for_a_claim(tmp_path: Path) -> None:
    for path, read in lying(tmp_path):
        tracemalloc.start()
        with pytest.raises(InvdiffError) as error:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert path.stem + "." in str(error.value) and peak < 5e6, (path, peak)


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (pytest.fail, ("unpickled",))

    objects = np.array([Bomb()], object)
    np.save(tmp_path / "o.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "o.npz", kspace=objects)
    for name in ("o.npy", "o.npz"):
        for read in (read_kspace, read_sinogram):
            with pytest.raises(InvdiffError, match=r"o\.np"):
                read(tmp_path / name, key="kspace")


def _secret(path: Path) -> Path:
    """A file of another user's numbers, whole as it is."""
    with h5py.File(path, "w") as file:
        file["kspace"] = rough(2, 6, 5)
        file["header"] = header(6, 5, 4, 5)
    return path


def _linked(file: h5py.File, other: Path) -> None:
    file["kspace"] = h5py.ExternalLink(str(other), "kspace")


def _stored(file: h5py.File, other: Path) -> None:
    file.create_dataset("kspace", (1, 6, 5), "c8", external=[(str(other), 0, 240)])


def _virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((2, 6, 5), "c8")
    layout[:] = h5py.VirtualSource(str(other), "kspace", (2, 6, 5), "c8")
    file.create_virtual_dataset("kspace", layout)


def _header(file: h5py.File, other: Path) -> None:
    file["kspace"] = rough(1, 2, 6, 5)
    file["ismrmrd_header"] = h5py.ExternalLink(str(other), "header")


def _mask(file: h5py.File, other: Path) -> None:
    file["kspace"] = rough(1, 2, 6, 5)
    file["mask"] = h5py.ExternalLink(str(other), "kspace")


def _group(file: h5py.File, other: Path) -> None:
    file["dataset"] = h5py.ExternalLink(str(other), "dataset")


@pytest.mark.parametrize("make", [_linked, _stored, _virtual, _header, _mask])
def test_no_other_file_is_read(tmp_path: Path, make: Callable[[h5py.File, Path], None]) -> None:
    """Links, external storage and virtual arrays would read any file that the reader may."""
    other, path = _secret(tmp_path / "secret.h5"), tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        make(file, other)
    with pytest.raises(InvdiffError, match=r"f\.h5 refers to another file for .*not followed"):
        read_kspace(path)


def test_raw_data_of_another_file_is_not_read(tmp_path: Path) -> None:
    _raw(tmp_path / "secret.mrd")
    with h5py.File(tmp_path / "f.mrd", "w") as file:
        _group(file, tmp_path / "secret.mrd")
    with pytest.raises(InvdiffError, match=r"f\.mrd refers to another file"):
        read_kspace(tmp_path / "f.mrd")


def test_links_within_a_file_are_followed(tmp_path: Path) -> None:
    """The negative twin: soft links and virtual arrays of the file itself are its own."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["own"] = rough(2, 6, 5).astype("c8")
        file["soft"] = h5py.SoftLink("/own")
        layout = h5py.VirtualLayout((2, 6, 5), "c8")
        layout[:] = h5py.VirtualSource(".", "own", (2, 6, 5), "c8")
        file.create_virtual_dataset("virtual", layout)
    found = [read_kspace(path, key=key).data for key in ("own", "soft", "virtual")]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
