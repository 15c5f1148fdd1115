"""DICOM slices in Hounsfield units, and float TIFF."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
import torch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from invdiff import hu_to_x, read_dicom, read_tiff, write_tiff
from invdiff.core import InvdiffError

SERIES = generate_uid()


def write_slice(path: Path, hu: np.ndarray, z: float = 0.0, **changes) -> None:
    """A CT slice as scanners write it: 16 bits, unsigned, HU = value - 1024."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    d = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    d.SOPClassUID, d.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    d.Modality, d.SeriesInstanceUID = "CT", SERIES
    d.Rows, d.Columns = hu.shape
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.RescaleSlope, d.RescaleIntercept = 1, -1024
    d.PixelSpacing = [0.7, 0.8]
    d.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    d.ImagePositionPatient = [0, 0, z]
    d.PixelData = (hu + 1024).astype("<u2").tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(d, name)
        else:
            setattr(d, name, value)
    d.save_as(path, enforce_file_format=True)


def hu_image(seed: int = 0, size: tuple[int, int] = (6, 5)) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1500, size)


def test_a_slice_in_hounsfield_units(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm", hu_image())
    s = read_dicom(tmp_path / "a.dcm")
    assert s.hu.dtype == torch.float32 and s.hu.shape == (1, 1, 6, 5)
    np.testing.assert_array_equal(s.hu[0, 0].numpy(), hu_image())
    assert s.spacing == (0.7, 0.8) and s.positions == (0.0,)
    assert float(hu_to_x(s.hu).abs().max()) <= 1
    write_slice(tmp_path / "b.dcm", hu_image(), RescaleSlope=2, RescaleIntercept=5)
    np.testing.assert_array_equal(
        read_dicom(tmp_path / "b.dcm").hu[0, 0].numpy(), 2 * (hu_image() + 1024) + 5
    )


def test_monochrome1_is_not_inverted_and_padding_is_air(tmp_path: Path) -> None:
    hu = hu_image()
    hu[0] = 976  # stored as 2000
    write_slice(
        tmp_path / "a.dcm", hu, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=2000
    )
    s = read_dicom(tmp_path / "a.dcm")
    np.testing.assert_array_equal(s.hu[0, 0, 1:].numpy(), hu[1:])
    assert bool((s.hu[0, 0, 0] == -1024).all())
    assert "MONOCHROME1" in "; ".join(s.facts) and "padding set to -1024" in "; ".join(s.facts)


def test_a_folder_is_sorted_by_position(tmp_path: Path) -> None:
    for k, z in enumerate((7.5, -2.5, 2.5, 0.0, 20.0)):
        write_slice(tmp_path / f"{k}", hu_image(k), z)
    (tmp_path / "notes.txt").write_text("none")
    s = read_dicom(tmp_path)
    assert s.positions == (-2.5, 0.0, 2.5, 7.5, 20.0)
    for row, k in enumerate((1, 3, 2, 0, 4)):
        np.testing.assert_array_equal(s.hu[row, 0].numpy(), hu_image(k))
    told = "; ".join(s.facts)
    assert "slices are missing" in told and "1 other files" in told


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Modality": "MR"}, "modality MR; Hounsfield units are those of CT"),
        ({"RescaleSlope": None}, "no RescaleSlope"),
        ({"NumberOfFrames": 2}, "several frames"),
        ({"Rows": 60000, "Columns": 60000}, "claims 13.4 GiB"),
        ({"Rows": 7}, "not a DICOM image that can be read"),
        ({"Rows": None}, "not a DICOM image that can be read"),
        ({"PixelData": None}, "not a DICOM image that can be read"),
    ],
)
def test_slices_that_are_not_read(tmp_path: Path, changes, reason: str) -> None:
    write_slice(tmp_path / "a.dcm", hu_image(), **changes)
    with pytest.raises(InvdiffError, match=reason) as error:
        read_dicom(tmp_path / "a.dcm")
    assert "a.dcm" in str(error.value) and "\n" not in str(error.value)


def test_folders_that_are_not_read(tmp_path: Path) -> None:
    def refused(reason: str) -> None:
        with pytest.raises(InvdiffError, match=reason):
            read_dicom(tmp_path)

    refused("holds no DICOM images")
    write_slice(tmp_path / "a", hu_image())
    write_slice(tmp_path / "b", hu_image())
    refused("two slices at the same position")
    write_slice(tmp_path / "b", hu_image(size=(5, 5)), 1.0)
    refused("different sizes")
    write_slice(tmp_path / "b", hu_image(), 1.0, SeriesInstanceUID=generate_uid())
    refused("2 series")
    write_slice(tmp_path / "b", hu_image(), 1.0, ImagePositionPatient=None)
    refused("does not tell its position")
    data = (tmp_path / "a").read_bytes()
    (tmp_path / "b").unlink()
    (tmp_path / "a").write_bytes(data[: len(data) - 7])
    refused("a is not a DICOM image")
    with pytest.raises(InvdiffError, match="no file or folder"):
        read_dicom(tmp_path / "absent")


def test_float_tiff_is_exact(tmp_path: Path) -> None:
    values = torch.randn(3, 6, 5) * 1000
    values[0, 0, 0] = float("nan")
    write_tiff(tmp_path / "a.tif", values, "HU")
    found = read_tiff(tmp_path / "a.tif")
    assert torch.equal(found.nan_to_num(7), values.nan_to_num(7))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert len(file.pages) == 3 and file.pages[0].dtype == np.float32
        assert file.pages[0].description == "HU"
    write_tiff(tmp_path / "b.tif", values[1])
    assert torch.equal(read_tiff(tmp_path / "b.tif"), values[1:2])
    tifffile.imwrite(tmp_path / "c.tif", np.arange(60, dtype=np.uint16).reshape(4, 5, 3),
                     photometric="rgb")  # fmt: skip
    assert torch.equal(read_tiff(tmp_path / "c.tif")[2], torch.arange(2, 60, 3.0).reshape(4, 5))


def test_what_is_no_tiff_is_said(tmp_path: Path) -> None:
    for image in (torch.zeros(2, 3, 4, 5), torch.zeros(2, 2, dtype=torch.complex64)):
        with pytest.raises(InvdiffError, match="A TIFF holds real images"):
            write_tiff(tmp_path / "a.tif", image)
    (tmp_path / "a.tif").write_bytes(b"II*\0nothing")
    with pytest.raises(InvdiffError, match=r"a\.tif is not a TIFF"):
        read_tiff(tmp_path / "a.tif")
    with pytest.raises(InvdiffError, match="There is no file"):
        read_tiff(tmp_path / "absent.tif")


def test_without_the_extra_the_error_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("")
    for name, read in (("pydicom", read_dicom), ("tifffile", read_tiff)):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InvdiffError, match=r"pip install 'invdiff\[io\]'"):
            read(tmp_path / "a")
    assert pydicom is not None
