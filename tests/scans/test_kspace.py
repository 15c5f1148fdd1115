"""Readers of k-space: every format gives back what its own library wrote, and says what it did."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import pytest
import torch
from scan_files import header, readout, rough, write_fastmri, write_raw

import invdiff.operators as ops
from invdiff import KSpace, Problem, Sense, read_kspace
from invdiff.core import InvdiffError
from invdiff.noise import GaussianNoise, noise_from_kspace
from invdiff.scans.cfl import write_cfl

COLUMNS = np.array([1, 0, 1, 1, 1, 0], bool)


def told(k: KSpace) -> str:
    return "; ".join(k.facts)


def image_rows(k: torch.Tensor) -> torch.Tensor:
    """Transform along the rows only: centred, orthonormal."""
    z = torch.fft.ifft(torch.fft.ifftshift(k, dim=-2), dim=-2, norm="ortho")
    return torch.fft.fftshift(z, dim=-2)


def test_npy(tmp_path: Path) -> None:
    full = rough(3, 8, 6)
    np.save(tmp_path / "k.npy", full * COLUMNS)
    k = read_kspace(tmp_path / "k.npy")
    assert k.data.dtype == torch.complex64 and k.data.shape == (3, 8, 6)
    np.testing.assert_array_equal(k.data.numpy(), full * COLUMNS)
    np.testing.assert_array_equal(k.mask.numpy(), np.broadcast_to(COLUMNS, (8, 6)))
    assert k.acceleration == pytest.approx(1.5)
    for phrase in ("3 coils", "8 x 6", "mask inferred", "acceleration 1.50", "region 8 x 3"):
        assert phrase in told(k)
    problem = Problem(
        k.y, Sense(ops.ring_maps(3, (8, 6)), k.sampling), GaussianNoise(0.1), (2, 8, 6)
    )
    assert problem.y.shape == (1, 3, 8, 6)
    np.save(tmp_path / "one.npy", full[0].astype(np.complex128))
    assert read_kspace(str(tmp_path / "one.npy")).data.shape == (1, 8, 6)
    np.save(tmp_path / "many.npy", rough(4, 3, 8, 6))
    many = read_kspace(tmp_path / "many.npy", slice=3)
    np.testing.assert_array_equal(many.data.numpy(), rough(4, 3, 8, 6)[3])
    assert "slice 3 of 4" in told(many)
    stack = read_kspace(tmp_path / "k.npy", first="slices")
    assert stack.data.shape == (1, 8, 6) and "slice 1 of 3, the middle one" in told(stack)


def test_npz_and_masks(tmp_path: Path) -> None:
    full = rough(2, 8, 6)
    np.savez(tmp_path / "k.npz", kspace=full, mask=COLUMNS, other=np.ones(3))
    k = read_kspace(tmp_path / "k.npz")
    np.testing.assert_array_equal(k.data.numpy(), full * COLUMNS)
    assert "16 samples outside the mask were dropped" in told(k) and "mask given" in told(k)
    own = torch.zeros(8, 6)
    own[3:6, 2:5] = 1
    k = read_kspace(tmp_path / "k.npz", mask=own)
    np.testing.assert_array_equal(k.data.numpy(), full * own.numpy())
    assert "region 3 x 3" in told(k)
    np.savez_compressed(tmp_path / "only.npz", anything=full, weights=np.ones(3))
    assert "array anything" in told(read_kspace(tmp_path / "only.npz"))
    np.savez(tmp_path / "two.npz", a=full, b=full)
    with pytest.raises(InvdiffError, match="2 complex arrays .* by key"):
        read_kspace(tmp_path / "two.npz")
    assert read_kspace(tmp_path / "two.npz", key="b").data.shape == (2, 8, 6)
    where = np.argwhere(own.numpy() > 0)
    samples = full[:, where[:, 0], where[:, 1]]
    bits = np.packbits(own.numpy().astype(bool))
    np.savez(tmp_path / "packed.npz", samples=samples, mask=bits, shape=np.array([8, 6]))
    packed = read_kspace(tmp_path / "packed.npz")
    np.testing.assert_array_equal(packed.data.numpy(), full * own.numpy())


def test_fastmri(tmp_path: Path) -> None:
    full = rough(5, 2, 8, 6)
    write_fastmri(tmp_path / "f.h5", full * COLUMNS, COLUMNS)
    k = read_kspace(tmp_path / "f.h5")
    np.testing.assert_array_equal(k.data.numpy(), full[2] * COLUMNS)
    assert "slice 2 of 5, the middle one" in told(k) and "mask given" in told(k)
    np.testing.assert_array_equal(read_kspace(tmp_path / "f.h5", slice=0).data, full[0] * COLUMNS)
    write_fastmri(tmp_path / "single.h5", full[:, 0])
    k = read_kspace(tmp_path / "single.h5", slice=4)
    np.testing.assert_array_equal(k.data.numpy(), full[4, :1])
    with pytest.raises(InvdiffError, match="5 slices, counted from 0; there is no slice 5"):
        read_kspace(tmp_path / "f.h5", slice=5)
    with pytest.raises(InvdiffError, match="no array called nothing; it holds kspace"):
        read_kspace(tmp_path / "f.h5", key="nothing")


def test_oversampling_is_cropped_in_the_image(tmp_path: Path) -> None:
    """What the crop keeps is the image's middle; white noise stays white, at its level."""
    full = rough(1, 2, 64, 6) * COLUMNS
    write_fastmri(tmp_path / "f.h5", full, COLUMNS, header(64, 6, 32, 6))
    k, whole = read_kspace(tmp_path / "f.h5"), read_kspace(tmp_path / "f.h5", crop=False)
    assert k.data.shape == (2, 32, 6) and k.recon == (32, 6)
    assert "cropped in the image from 64 to 32 rows" in told(k)
    torch.testing.assert_close(image_rows(k.data), image_rows(whole.data)[:, 16:48])
    assert torch.equal(whole.data, torch.from_numpy(full[0]))
    values = torch.view_as_real(k.data[:, k.mask])
    n = values.numel()
    assert abs(float(values.square().mean()) - 1) < 5 * (2 / n) ** 0.5
    points = np.zeros((64, 6), bool)
    points[::3, 1:5] = True
    write_fastmri(tmp_path / "p.h5", full * points, points, header(64, 6, 32, 6))
    kept = read_kspace(tmp_path / "p.h5")
    assert kept.data.shape[1] == 64 and "not full, so it was kept" in told(kept)


def test_ismrmrd(tmp_path: Path) -> None:
    """Noise scans, accelerated lines, repeats, a partial echo and a second contrast."""
    x, y = 16, 8
    full = rough(2, x, y)
    lines = [readout(full[:, :, step], step) for step in (1, 3, 4, 5, 7)]
    lines.append(readout(full[:, :, 4] + 2, 4, average=1))
    lines.append(readout(full[:, :, 0] * 9, 0, contrast=1))
    lines.append(readout(full[:, :, 2] * 9, 2, [ismrmrd.ACQ_IS_PARALLEL_CALIBRATION]))
    late = readout(full[:, 6:, 6], 6)
    late.center_sample = x // 2 - 6
    noise = [readout(rough(2, 400, seed=k), 0, [ismrmrd.ACQ_IS_NOISE_MEASUREMENT]) for k in (1, 2)]
    write_raw(tmp_path / "r.h5", header(x, y, x, y), [*noise, *lines, late])
    k = read_kspace(tmp_path / "r.h5")
    want = np.zeros((2, x, y), np.complex64)
    want[:, :, [1, 3, 4, 5, 7]] = full[:, :, [1, 3, 4, 5, 7]]
    want[:, :, 4] += 1
    want[:, 6:, 6] = full[:, 6:, 6]
    np.testing.assert_allclose(k.data.numpy(), want, atol=1e-6)
    np.testing.assert_array_equal(k.mask.numpy(), (want != 0).any(0))
    assert k.noise is not None
    # E[n n^H] / 2 = I for normals in both parts; 800 draws, five deviations
    assert float((k.noise - torch.eye(2)).abs().max()) < 5 / 800**0.5
    for phrase in ("contrast 0 of 2", "1 calibration", "up to 2 times", "noise covariance"):
        assert phrase in told(k)


def test_ismrmrd_slices_centre_and_oversampling(tmp_path: Path) -> None:
    x, y = 16, 8
    full = rough(2, 2, x, 6)
    lines = [
        readout(full[s, :, :, step], step, slice=s) for s in (0, 1) for step in range(6)
    ]  # the middle of k-space is step 2, so it stands at column y // 2 = 4
    write_raw(tmp_path / "r.h5", header(x, y, x // 2, y, centre=2), lines)
    k = read_kspace(tmp_path / "r.h5", slice=0, crop=False)
    np.testing.assert_array_equal(k.data[:, :, 2:].numpy(), full[0])
    assert not k.mask[:, :2].any() and k.noise is None and k.recon == (8, 8)
    assert read_kspace(tmp_path / "r.h5", slice=0).data.shape == (2, 8, 8)
    with pytest.raises(InvdiffError, match="slices 0 to 1; there is no slice 2"):
        read_kspace(tmp_path / "r.h5", slice=2)


def test_ismrmrd_3d(tmp_path: Path) -> None:
    """Every position of the readout is a slice: that of the inverse transform of all k-space."""
    x, y, z = 16, 6, 5
    full = rough(2, x, y, z)
    image = np.fft.fftshift(
        np.fft.ifft(np.fft.ifftshift(full, axes=1), axis=1, norm="ortho"), axes=1
    )
    kept = [(j, k) for k in range(z) for j in range(y) if (j, k) not in ((0, 0), (5, 1), (3, 4))]
    lines = [readout(full[:, :, j, k], j, kspace_encode_step_2=k) for j, k in kept]
    write_raw(tmp_path / "r.h5", header(x, y, 8, y, z=z), lines)
    for wanted, position in ((0, 4), (7, 11), (None, 8)):
        k = read_kspace(tmp_path / "r.h5", slice=wanted)
        assert k.data.shape == (2, y, z) and k.recon == (y, z)  # by fields of view
        want = image[:, position] * k.mask.numpy()
        np.testing.assert_allclose(k.data.numpy(), want, atol=1e-5)
        assert sorted(map(tuple, np.argwhere(k.mask.numpy()))) == sorted(kept)
    assert "slice 4 of 8, the middle one" in told(k) and "columns phase encoding 2" in told(k)
    assert "slice 0 of 1" not in told(k)
    with pytest.raises(InvdiffError, match="8 positions .* there is no slice 8"):
        read_kspace(tmp_path / "r.h5", slice=8)
    again = [*lines, readout(full[:, :, 0, 0], 0, slice=1)]
    write_raw(tmp_path / "s.h5", header(x, y, 8, y, z=z), again)
    with pytest.raises(InvdiffError, match="2 slabs"):
        read_kspace(tmp_path / "s.h5")


@pytest.mark.parametrize(
    ("xml", "change", "reason"),
    [
        (header(16, 8, 16, 8, trajectory="radial"), {}, "radial; only cartesian"),
        (header(16, 8, 16, 8, trajectory="epi"), {}, "EPI measurement"),
        (header(16, 8, 16, 8, z=4), {"center_sample": 6}, "every readout is full"),
        (header(16, 8, 16, 8, z=4), {"kspace_encode_step_2": 4}, "of 8 x 4 phase encodings"),
        (header(20, 8, 20, 8, z=4), {}, "covers samples 2 to 17 of 0 to 19; a 3-D"),
        (header(12, 8, 12, 8), {}, "does not fit into the encoded matrix of 12 x 8"),
        (header(16, 8, 16, 8), {"step": 9}, "does not fit"),
        (header(16, 8, 16, 8), {"flags": [ismrmrd.ACQ_IS_REVERSE]}, "backwards"),
        (header(16, 8, 16, 8), {"flags": [ismrmrd.ACQ_IS_NAVIGATION_DATA]}, "no readout"),
        (header(16, 8, 0, 8), {}, "no size of its reconSpace"),
        (b"<xml", {}, "not ISMRMRD raw data that can be read"),
    ],
)
def test_raw_data_that_is_not_read(tmp_path: Path, xml: bytes, change, reason: str) -> None:
    data = rough(2, 16)
    write_raw(tmp_path / "r.h5", xml, [readout(data, **{"step": 1, **change})])
    with pytest.raises(InvdiffError, match=reason) as error:
        read_kspace(tmp_path / "r.h5")
    assert "r.h5" in str(error.value)


def test_bart(tmp_path: Path) -> None:
    """The first axis is the fastest in the file: checked byte by byte, not by our own writer."""
    full = rough(3, 8, 6)
    (tmp_path / "k.hdr").write_text(
        "# Dimensions\n8 6 1 3 1 1 1 1 1 1 1 1 1 1 1 1 \n# Command\nx\n"
    )
    values = [full[c, r, p] for c in range(3) for p in range(6) for r in range(8)]
    (tmp_path / "k.cfl").write_bytes(np.array(values, "<c8").tobytes())
    for name in ("k.cfl", "k.hdr"):
        k = read_kspace(tmp_path / name)
        np.testing.assert_array_equal(k.data.numpy(), full)
    assert "BART" in told(k) and "slice" not in told(k)
    many = rough(8, 6, 1, 3, *[1] * 9, 4)
    write_cfl(tmp_path / "s", many)
    k = read_kspace(tmp_path / "s.cfl", slice=3)
    np.testing.assert_array_equal(k.data.numpy(), many[:, :, 0, :, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]
                                  .transpose(2, 0, 1))  # fmt: skip
    assert "slice 3 of 4" in told(k)
    write_cfl(tmp_path / "t", rough(8, 6, 1, 3, 2))
    with pytest.raises(InvdiffError, match="more axes than .*: maps 2"):
        read_kspace(tmp_path / "t.cfl")


@pytest.mark.parametrize(
    "text",
    ["", "# Dimensions", "# Dimensions\n", "# Dimensions\n8 6 x", "# Dimensions\n8 0 1", "8 6",
     "# Dimensions\n" + "1 " * 17, "# Dimensions\n-8 6", "# Dimensions\n8.0 6"],
)  # fmt: skip
def test_headers_of_bart_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "k.hdr").write_text(text)
    (tmp_path / "k.cfl").write_bytes(bytes(8 * 48))
    with pytest.raises(InvdiffError, match=r"k\.hdr is no BART header"):
        read_kspace(tmp_path / "k.cfl")


def test_the_two_files_of_bart_must_agree(tmp_path: Path) -> None:
    write_cfl(tmp_path / "k", rough(8, 6))
    (tmp_path / "k.hdr").write_text("# Dimensions\n8 7\n")
    with pytest.raises(InvdiffError, match="384 bytes, but its header k.hdr tells of 8 x 7 "):
        read_kspace(tmp_path / "k.cfl")
    (tmp_path / "k.hdr").unlink()
    with pytest.raises(InvdiffError, match=r"no file .*k\.hdr"):
        read_kspace(tmp_path / "k.cfl")


def test_what_is_no_k_space_is_said(tmp_path: Path) -> None:
    def refused(array: np.ndarray, reason: str, **options) -> None:
        np.save(tmp_path / "k.npy", array)
        with pytest.raises(InvdiffError, match=reason) as error:
            read_kspace(tmp_path / "k.npy", **options)
        assert "k.npy" in str(error.value) and "\n" not in str(error.value)

    good = rough(2, 8, 6)
    nan, empty = good.copy(), np.zeros((2, 0, 6), np.complex64)
    nan[1, 2, 3] = complex("nan")
    refused(good.real, "float32 and not complex")
    refused(good[0, 0], r"shape \(6,\)")
    refused(rough(2, 2, 2, 2, 2), "shape")
    refused(nan, "1 samples that are NaN")
    refused(empty, "empty")
    refused(0 * good, "no sample that is not 0")
    refused(np.array([{"a": 1}], object), "not a numpy array that can be read")
    refused(np.array(["a"]), "not numbers")
    refused(good, "8 rows and 6 columns", mask=torch.ones(8))
    refused(good, "only 1 .sampled. and 0", mask=torch.full((8, 6), 0.5))
    refused(good, "not all 0", mask=torch.zeros(8, 6))
    with pytest.raises(InvdiffError, match="none of the endings"):
        (tmp_path / "k.dat").write_text("")
        read_kspace(tmp_path / "k.dat")
    with pytest.raises(InvdiffError, match="There is no file"):
        read_kspace(tmp_path / "absent.npy")
    nan_mask = good.copy()
    nan_mask[:, 2, 3] = complex("nan")
    np.save(tmp_path / "k.npy", nan_mask)
    mask = torch.ones(8, 6)
    mask[2, 3] = 0
    assert torch.isfinite(torch.view_as_real(read_kspace(tmp_path / "k.npy", mask=mask).data)).all()


def test_without_h5py_the_error_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "k.h5").write_text("")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InvdiffError, match=r"pip install 'invdiff\[io\]'"):
        read_kspace(tmp_path / "k.h5")


def test_the_brain_of_the_examples() -> None:
    k = read_kspace(Path(__file__).parents[2] / "examples" / "brain8coil.npz")
    assert k.data.shape == (8, 230, 180) and k.acceleration == pytest.approx(8.04, abs=0.01)
    assert "calibration region 24 x 24, found from the mask" in k.facts
    assert 0.005 < noise_from_kspace(k.data).sigma < 0.02


def test_an_hdf5_array_that_is_no_array(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file.create_group("kspace")
        file["text"] = "words"
    with pytest.raises(InvdiffError, match="no array called kspace; it holds text"):
        read_kspace(tmp_path / "k.h5")
    with pytest.raises(InvdiffError, match="not numbers"):
        read_kspace(tmp_path / "k.h5", key="text")
