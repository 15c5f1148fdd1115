"""DICOM slices in Hounsfield units, and float TIFF."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
import torch
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

from invdiff import hu_to_x, read_dicom, read_tiff, write_tiff
from invdiff.cli import main
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


def group(name: str, **values: object) -> Dataset:
    """One functional group: a sequence of one item."""
    item, holder = Dataset(), Dataset()
    for key, value in values.items():
        setattr(item, key, value)
    setattr(holder, f"{name}Sequence", [item])
    return holder


def groups(*parts: Dataset) -> Dataset:
    joined = Dataset()
    for part in parts:
        joined.update(part)
    return joined


def position(z: float) -> Dataset:
    return group("PlanePosition", ImagePositionPatient=[0, 0, z])


def rescale(slope: float, intercept: float, unit: str = "HU") -> Dataset:
    return group(
        "PixelValueTransformation",
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        RescaleType=unit,
    )


def orientation(*turn: float) -> Dataset:
    return group("PlaneOrientation", ImageOrientationPatient=list(turn) or [1, 0, 0, 0, 1, 0])


SPACING = group("PixelMeasures", PixelSpacing=[0.5, 0.6])
TOP = ("RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImageOrientationPatient",
       "ImagePositionPatient")  # fmt: skip


def write_frames(path: Path, stored: np.ndarray, own: list[Dataset], shared: Dataset, **changes):
    """An enhanced CT file of stored values (frames, H, W)."""
    write_slice(
        path,
        stored.reshape(-1, stored.shape[2]) - 1024,
        **dict.fromkeys(TOP),
        SOPClassUID=EnhancedCTImageStorage,
        Rows=stored.shape[1],
        NumberOfFrames=len(stored),
        PerFrameFunctionalGroupsSequence=own,
        SharedFunctionalGroupsSequence=[shared],
        **changes,
    )


def test_frames_of_one_file_are_sorted_and_rescaled(tmp_path: Path) -> None:
    """Rescaling per frame, orientation and spacing shared; then all but the position shared."""
    stored = np.stack([hu_image(k) + 1024 for k in range(4)])
    heights, slopes = (7.5, -2.5, 2.5, 0.0), (1.0, 2.0, 1.0, 0.5)
    own = [
        groups(position(z), rescale(slope, -1000 - k))
        for k, (z, slope) in enumerate(zip(heights, slopes, strict=True))
    ]
    write_frames(tmp_path / "a.dcm", stored, own, groups(orientation(), SPACING))
    s = read_dicom(tmp_path / "a.dcm")
    assert s.hu.shape == (4, 1, 6, 5) and s.positions == (-2.5, 0.0, 2.5, 7.5)
    assert s.spacing == (0.5, 0.6)
    for row, k in enumerate((1, 3, 2, 0)):
        want = stored[k] * slopes[k] - 1000 - k
        np.testing.assert_array_equal(s.hu[row, 0].numpy(), want.astype(np.float32))
    assert "4 slices of 6 x 5" in s.facts[0] and "slices are missing" in "; ".join(s.facts)
    own = [position(z) for z in heights]
    shared = groups(orientation(), SPACING, rescale(1, -1024))
    write_frames(tmp_path / "b.dcm", stored, own, shared, PixelPaddingValue=int(stored[0, 0, 0]))
    s = read_dicom(tmp_path / "b.dcm")
    assert float(s.hu[3, 0, 0, 0]) == -1024 and "frames of one file" in s.facts
    np.testing.assert_array_equal(s.hu[3, 0, 1:].numpy(), hu_image(0)[1:])
    # a frame's own group overrides the shared one; one frame needs no position
    write_frames(tmp_path / "c.dcm", stored[:1], [rescale(3, 0)], shared)
    s = read_dicom(tmp_path / "c.dcm")
    np.testing.assert_array_equal(s.hu[0, 0].numpy(), 3 * stored[0])
    assert s.positions is None


def test_a_scan_is_made_of_the_frame_in_the_middle(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    stored = np.stack([hu_image(k, (16, 16)) + 1024 for k in range(3)])
    own = [position(z) for z in (5, 0, 9)]
    shared = groups(orientation(), rescale(1, -1024))
    write_frames(tmp_path / "a.dcm", stored, own, shared)
    write_slice(tmp_path / "b.dcm", hu_image(0, (16, 16)))
    for name in ("a", "b"):
        made = ["ct", "--views", "4", "--out", str(tmp_path / name)]
        assert main(["degrade", str(tmp_path / f"{name}.dcm"), *made]) == 0
        assert ("slice 1 of 3, the middle one" in capsys.readouterr().out) == (name == "a")
        truth = np.load(tmp_path / name / "truth.npy")
        np.testing.assert_array_equal(truth, hu_image(0, (16, 16)))


def test_a_series_in_several_files_of_frames(tmp_path: Path) -> None:
    stored = np.stack([hu_image(k) + 1024 for k in range(4)])
    shared = groups(orientation(0, 1, 0, 0, 0, 1), rescale(1, -1024))  # the normal is x
    for name, some in (("a", (0, 2)), ("b", (1, 3))):
        own = [group("PlanePosition", ImagePositionPatient=[k, 9, 9 - k]) for k in some]
        write_frames(tmp_path / name, stored[list(some)], own, shared)
    s = read_dicom(tmp_path)
    assert s.positions == (0.0, 1.0, 2.0, 3.0) and s.spacing is None
    np.testing.assert_array_equal(s.hu[:, 0].numpy(), stored - 1024)


@pytest.mark.parametrize(
    ("own", "shared", "reason"),
    [
        ([position(0), SPACING], rescale(1, 0), "Frame 1 of .* does not tell its position"),
        ([position(0), SPACING], groups(orientation(), rescale(1, 0)), "Frame 2 of .* its positi"),
        ([position(0), position(1)], orientation(), "Frame 1 of .* has no RescaleSlope"),
        ([position(0), groups(position(1), rescale(1, 0, "US"))], groups(orientation(),
         rescale(1, 0)), "Frame 2 of .* values of an unspecified type .US.*--unit hu"),
        ([position(1), position(1)], groups(orientation(), rescale(1, 0)), "same position"),
        ([position(1)], groups(orientation(), rescale(1, 0)), "2 frames, but .* groups of 1"),
        ([groups(position(1), orientation()), groups(position(2), orientation(0, 1, 0, 0, 0, 1))],
         rescale(1, 0), "different orientations"),
        ([position(1), group("PlanePosition", ImagePositionPatient=[1, 2])],
         groups(orientation(), rescale(1, 0)), "not a DICOM"),
    ],
)  # fmt: skip
def test_frames_that_are_not_read(
    tmp_path: Path, own: list[Dataset], shared: Dataset, reason: str
) -> None:
    write_frames(tmp_path / "a.dcm", np.stack([hu_image()] * 2) + 1024, own, shared)
    with pytest.raises(InvdiffError, match=reason) as error:
        read_dicom(tmp_path / "a.dcm")
    assert "a.dcm" in str(error.value) and "\n" not in str(error.value)


def test_a_folder_is_sorted_by_position(tmp_path: Path) -> None:
    for k, z in enumerate((7.5, -2.5, 2.5, 0.0, 20.0)):
        write_slice(tmp_path / f"{k}", hu_image(k), z)
    (tmp_path / "notes.txt").write_text("none")
    s = read_dicom(tmp_path)
    assert s.positions == (-2.5, 0.0, 2.5, 7.5, 20.0)
    for row, k in enumerate((1, 3, 2, 0, 4)):
        np.testing.assert_array_equal(s.hu[row, 0].numpy(), hu_image(k))
    told = "; ".join(s.facts)
    assert "slices are missing: between 7.5 and 20 mm (the usual distance is 3.75 mm)" in told
    assert "left out: 1 x file that is no DICOM (notes.txt)" in told


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SamplesPerPixel": 3}, "colours"),
        ({"Modality": "MR"}, "modality MR; Hounsfield units are those of CT"),
        ({"RescaleSlope": None}, "no RescaleSlope"),
        ({"RescaleSlope": 0}, "RescaleSlope of 0"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colours"),
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
