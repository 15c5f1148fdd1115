"""Orders of axes, origins and formats: the right one is read, and where it is open one is asked."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from scan_files import rough

from invdiff import read_kspace
from invdiff.core import InvdiffError
from invdiff.operators import fft2c, ring_maps
from invdiff.scans.cfl import write_cfl

N = 48


def disc(radius: float, at: tuple[int, int] = (0, 0)) -> torch.Tensor:
    y, x = (torch.arange(N) - N // 2 - a for a in at)
    return (y[:, None] ** 2 + x**2 < (radius * N) ** 2).to(torch.complex64)


def coils(n: int = 4) -> np.ndarray:
    """k-space of a disc, (n, 48, 48), centred."""
    return fft2c(ring_maps(n, (N, N))[0].to(torch.complex64) * disc(0.4)).numpy()


K = coils()


def read(path: Path, array: np.ndarray, **options) -> np.ndarray:
    np.save(path / "k.npy", array)
    return read_kspace(path / "k.npy", **options).data.numpy()


@pytest.mark.parametrize(
    ("order", "axes"),
    [((1, 2, 0), "y,x,coils"), ((1, 0, 2), "y,coils,x")],
)
def test_coils_that_are_not_first_are_asked_about(tmp_path: Path, order, axes: str) -> None:
    moved = K.transpose(order)
    with pytest.raises(InvdiffError, match=f"Then give --axes {axes}, else --axes coils,y,x"):
        read(tmp_path, moved)
    np.testing.assert_array_equal(read(tmp_path, moved, axes=axes), K)
    turned = read(tmp_path, moved, axes=axes.replace("y", "q").replace("x", "y").replace("q", "x"))
    np.testing.assert_array_equal(turned, K.transpose(0, 2, 1))


@pytest.mark.parametrize("size", [(N, N), (N - 1, N + 1)])
def test_the_zero_frequency_in_the_corner_is_asked_about(tmp_path: Path, size) -> None:
    k = K[:, : size[0], : size[1]]
    k = np.pad(k, [(0, 0), (0, max(0, size[0] - N)), (0, max(0, size[1] - N))])
    k = np.roll(k, [size[0] // 2 - N // 2, size[1] // 2 - N // 2], (1, 2))
    corner = np.fft.ifftshift(k, axes=(1, 2))
    with pytest.raises(InvdiffError, match="--origin corner; --origin centre takes it"):
        read(tmp_path, corner)
    np.testing.assert_array_equal(read(tmp_path, corner, origin="corner"), k)
    np.testing.assert_array_equal(read(tmp_path, corner, origin="centre"), corner)
    np.testing.assert_array_equal(read(tmp_path, k), k)  # the negative twin


def test_k_space_that_was_cut_or_is_an_image_is_asked_about(tmp_path: Path) -> None:
    with pytest.raises(InvdiffError, match="cut or shifted"):
        read(tmp_path, K[:, :, 16:])
    image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(K, axes=(1, 2))), axes=(1, 2))
    with pytest.raises(InvdiffError, match="looks like an image"):
        read(tmp_path, image)


def test_slices_that_pass_for_coils_are_asked_about(tmp_path: Path) -> None:
    """Images of blocks of their own; coils of one such image pass."""
    blocks = torch.rand(4, 12, 12, generator=torch.Generator().manual_seed(0))
    texture = blocks.repeat_interleave(4, 1).repeat_interleave(4, 2) * disc(0.45)
    k = fft2c(texture).numpy()
    one = fft2c(ring_maps(4, (N, N))[0].to(torch.complex64) * texture[0]).numpy()
    np.testing.assert_array_equal(read(tmp_path, one), one)
    with pytest.raises(InvdiffError, match="4 slices, not like 4 coils.*--first slices, else"):
        read(tmp_path, k)
    np.testing.assert_array_equal(read(tmp_path, k, first="slices", slice=3)[0], k[3])
    np.testing.assert_array_equal(read(tmp_path, k, first="coils"), k)
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = one
    with pytest.raises(InvdiffError, match="4 coils that see one image.*--first coils"):
        read_kspace(tmp_path / "k.h5")
    found = read_kspace(tmp_path / "k.h5", first="coils").data.numpy()
    np.testing.assert_array_equal(found, one)


def test_axes_by_name(tmp_path: Path) -> None:
    many = rough(2, 3, 5, 6, 4)  # times, slices, y, x, coils
    found = read(tmp_path, many, axes="times,slices,y,x,coils", time=1, slice=2)
    np.testing.assert_array_equal(found, many[1, 2].transpose(2, 0, 1))
    for text in ("y,x", "a,y,x", "y,y,x", "coils,slices,times,x,echoes"):
        with pytest.raises(InvdiffError, match="--axes"):
            read(tmp_path, many, axes=text)
    with pytest.raises(InvdiffError, match="there is no echo 1"):
        read(tmp_path, many, axes="times,slices,y,x,coils", echo=1)


def test_real_and_imaginary_parts(tmp_path: Path) -> None:
    parts = np.stack([K.real, K.imag], -1)
    np.testing.assert_array_equal(read(tmp_path, parts), K)
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = parts[None]
    np.testing.assert_array_equal(read_kspace(tmp_path / "k.h5").data.numpy(), K)
    with pytest.raises(InvdiffError, match="has to be the last"):
        read(tmp_path, np.moveaxis(parts, -1, 0))


def pairs(array: np.ndarray) -> np.ndarray:
    """Complex numbers as MATLAB writes them to HDF5."""
    found = np.empty(array.shape, [("real", "<f8"), ("imag", "<f8")])
    found["real"], found["imag"] = array.real, array.imag
    return found


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_matlab(tmp_path: Path, version: str) -> None:
    """(H, W, coils, slices) as MATLAB counts; HDF5 has them reversed."""
    many = np.stack([np.moveaxis(K, 0, -1) * s for s in (1, 2, 3)], -1).astype(np.complex64)
    mask = np.ones((N, N))
    mask[:, ::3] = 0
    path = tmp_path / "scan.mat"
    if version == "5":
        scipy.io.savemat(path, {"kspace_full": many, "mask": mask, "name": "x"})
    else:
        with h5py.File(path, "w") as file:
            file["kspace_full"], file["mask"] = pairs(many.T), mask.T
    k = read_kspace(path, slice=2)
    np.testing.assert_allclose(k.data.numpy(), 3 * K * mask, rtol=1e-6)
    assert k.counts == {"slice": (0, 1, 2)}
    np.testing.assert_array_equal(k.mask.numpy(), mask > 0)
    turned = read_kspace(path, slice=2, axes="x,y,coils,slices", mask=torch.ones(N, N)).data
    np.testing.assert_allclose(turned.numpy(), 3 * K.transpose(0, 2, 1), rtol=1e-6)
    with pytest.raises(InvdiffError, match="no array called nothing; it holds"):
        read_kspace(path, key="nothing")
    path.write_bytes(b"MATLAB 5.0 but not so")
    with pytest.raises(InvdiffError, match=r"scan\.mat"):
        read_kspace(path)


@pytest.mark.parametrize("dims", [(1, N, N), (N, 1, N), (N, N, 1)])
def test_bart_has_any_two_axes_of_space(tmp_path: Path, dims) -> None:
    write_cfl(tmp_path / "k", np.moveaxis(K, 0, -1).reshape(*dims, 4))
    np.testing.assert_array_equal(read_kspace(tmp_path / "k.cfl").data.numpy(), K)


def test_bart_series(tmp_path: Path) -> None:
    """Echoes, times and slices have names, an axis of none is `set`, averages are averaged."""
    a = np.zeros((6, 5, 1, 2, 1, 2, 3, 1, 1, 1, 4, 1, 1, 2, 2), np.complex64)
    base = rough(2, 6, 5)
    grid = np.ix_(range(2), range(3), range(4), range(2), range(2))
    for e, c, t, s, n in zip(*(g.ravel() for g in np.broadcast_arrays(*grid)), strict=True):
        value = 1 + e + 10 * c + 100 * t + 1000 * s + 0.25 * (2 * n - 1)
        a[:, :, 0, :, 0, e, c, 0, 0, 0, t, 0, 0, s, n] = base.transpose(1, 2, 0) * value
    write_cfl(tmp_path / "k", a)
    k = read_kspace(tmp_path / "k.cfl", echo=1, set=2, time=3, slice=0)
    np.testing.assert_allclose(k.data.numpy(), base * 322, rtol=1e-5)
    first = read_kspace(tmp_path / "k.cfl")
    np.testing.assert_allclose(first.data.numpy(), base * 1001, rtol=1e-5)
    with pytest.raises(InvdiffError, match="4 times, counted from 0; there is no time 4"):
        read_kspace(tmp_path / "k.cfl", time=4)


@pytest.mark.parametrize("full", ["y", "x", "z"])
def test_three_dimensions_become_slices(tmp_path: Path, full: str) -> None:
    """A centred transform along the axis that is sampled all or not at all."""
    k = rough(2, 8, 6, 5)  # coils, z, y, x
    axis = {"z": 1, "y": 2, "x": 3}[full]
    points = np.random.default_rng(0).random(np.delete(k.shape[1:], axis - 1)) < 0.6
    mask = np.expand_dims(points, axis - 1)
    along = {"axes": axis}
    image = np.fft.fftshift(
        np.fft.ifft(np.fft.ifftshift(k * mask, **along), axis=axis, norm="ortho"), **along
    )
    np.save(tmp_path / "k.npy", k * mask)
    found = read_kspace(tmp_path / "k.npy", axes="coils,z,y,x", slice=1)
    np.testing.assert_allclose(found.data.numpy(), image.take(1, axis), atol=1e-5)
    assert found.counts["slice"] == tuple(range(k.shape[axis]))
    holes = k * mask
    holes.reshape(2, -1)[:, ::7] = 0
    np.save(tmp_path / "k.npy", holes)
    with pytest.raises(InvdiffError, match="none of which is fully sampled"):
        read_kspace(tmp_path / "k.npy", axes="coils,z,y,x")


def test_soft_masks_do_not_count_as_measured(tmp_path: Path) -> None:
    mask = torch.ones(N, N)
    mask[:, 3] = 0.5
    mask[:, 4] = 0
    np.savez(tmp_path / "k.npz", kspace=K, mask=mask.numpy())
    k = read_kspace(tmp_path / "k.npz")
    assert not k.mask[:, 3:5].any() and int(k.mask.sum()) == N * (N - 2)
    assert f"{N} samples whose mask is between 0 and 1" in "; ".join(k.facts)
    assert torch.equal(read_kspace(tmp_path / "k.npz", mask=255 * (mask == 1)).mask, mask == 1)
    for wrong in (mask * 3, -mask, mask / 2):
        with pytest.raises(InvdiffError, match="only 1 .sampled. and 0"):
            read_kspace(tmp_path / "k.npz", mask=wrong)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("meas.dat", "siemens_to_ismrmrd"),
        ("fid", "bruker_to_ismrmrd"),
        ("P1.7", "ge_to_ismrmrd"),
        ("scan.raw", "philips_to_ismrmrd"),
        ("brain.nii.gz", "images, not k-space"),
        ("slice.dcm", "images, not k-space"),
        ("k.bin", "numpy.save"),
    ],
)
def test_other_files_are_told_how_to_convert(tmp_path: Path, name: str, how: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InvdiffError, match="none of the endings") as error:
        read_kspace(tmp_path / name)
    assert how in str(error.value) and "\n" not in str(error.value)
