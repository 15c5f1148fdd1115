"""DICOM as people have it: padding, units, files that are not clean, folders with other things."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLosslessSV1, SecondaryCaptureImageStorage, generate_uid
from test_images import hu_image, write_slice

from invdiff import read_dicom
from invdiff.core import InvdiffError
from invdiff.scans.dicom_values import own_type

PADDING, LIMIT = 0x00280120, 0x00280121


def stored_slice(path: Path, row: list[int], signed: bool, *tags: tuple[int, str, object]) -> None:
    """8 x 8 of 100 HU (stored 1124), the first row as told, 16 bits, HU = value - 1024."""
    write_slice(path, np.full((8, 8), 100))
    d = pydicom.dcmread(path)
    values = np.full((8, 8), 1124, np.int64)
    values[0] = np.resize(row, 8)
    d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 15, int(signed)
    d.PixelData = (values & 0xFFFF).astype("<u2").tobytes()
    for tag, vr, value in tags:
        d[tag] = DataElement(tag, vr, value)
    d.save_as(path)


@pytest.mark.parametrize(
    ("row", "signed", "tags", "first"),
    [
        ([-2000], True, [(PADDING, "US", 63536)], [-1024] * 2),
        ([-2000, -1950], True, [(PADDING, "SS", -2000), (LIMIT, "SS", -1900)], [-1024] * 2),
        ([-2000, -1950], True, [(PADDING, "US", 63536), (LIMIT, "US", 63636)], [-1024] * 2),
        ([-1950, -2000], True, [(PADDING, "SS", -1900), (LIMIT, "SS", -2000)], [-1024] * 2),
        ([63536], False, [(PADDING, "SS", -2000)], [-1024] * 2),
        ([-2000, 300], True, [(PADDING, "SS", -2000)], [-1024, 300 - 1024]),
        ([500, 501], False, [(PADDING, "US", 500)], [-1024, 501 - 1024]),
    ],
)
def test_padding_is_compared_in_the_type_of_the_pixels(
    tmp_path: Path, row: list[int], signed: bool, tags: list, first: list[int]
) -> None:
    stored_slice(tmp_path / "a", row, signed, *tags)
    s = read_dicom(tmp_path / "a")
    assert s.hu[0, 0, 0, :2].tolist() == first and bool((s.hu[0, 0, 1:] == 100).all())
    assert s.padding[0, 0, 0, :2].tolist() == [v == -1024 for v in first]
    assert bool((s.raw[0, 0, 0, :2] == s.hu[0, 0, 0, :2]).logical_or(s.padding[0, 0, 0, :2]).all())


def test_one_pattern_is_one_number() -> None:
    d = Dataset()
    d.BitsAllocated, d.PixelRepresentation = 16, 1
    assert own_type(d, 63536) == own_type(d, -2000) == own_type(d, b"\x30\xf8") == -2000
    d.PixelRepresentation = 0
    assert own_type(d, -2000) == 63536


def test_undeclared_padding_is_told_and_kept(tmp_path: Path) -> None:
    stored_slice(tmp_path / "a", [-2000], True)
    s = read_dicom(tmp_path / "a")
    assert float(s.hu.min()) == -3024
    assert "warning: 8 pixels lie below -1100 HU, down to -3024" in "; ".join(s.facts)
    stored_slice(tmp_path / "b", [0], True)
    assert "below" not in "; ".join(read_dicom(tmp_path / "b").facts)


def item(**values: object) -> Dataset:
    d = Dataset()
    for name, value in values.items():
        setattr(d, name, value)
    return d


def test_units_that_are_not_hounsfield(tmp_path: Path) -> None:
    for unit in ("OD", "Z_EFF"):
        write_slice(tmp_path / "a", hu_image(), RescaleType=unit)
        with pytest.raises(InvdiffError, match=f"type {unit}, which are not Hounsfield units"):
            read_dicom(tmp_path / "a")
    write_slice(tmp_path / "a", hu_image(), RescaleType="US")
    with pytest.raises(InvdiffError, match="unspecified type .US.*--unit hu .hu=True"):
        read_dicom(tmp_path / "a")
    np.testing.assert_array_equal(read_dicom(tmp_path / "a", hu=True).hu[0, 0], hu_image())
    write_slice(tmp_path / "a", hu_image(), RescaleType="HU")
    np.testing.assert_array_equal(read_dicom(tmp_path / "a").hu[0, 0].numpy(), hu_image())
    units = item(MeasurementUnitsCodeSequence=[item(CodeValue="mg/cm3")])
    write_slice(tmp_path / "a", hu_image(), RealWorldValueMappingSequence=[units])
    with pytest.raises(InvdiffError, match="to mg/cm3, which are not Hounsfield"):
        read_dicom(tmp_path / "a")


@pytest.mark.parametrize(("first", "vr"), [(-10, "SS"), (65526, "US")])
def test_a_modality_lookup_table(tmp_path: Path, first: int, vr: str) -> None:
    """Its first mapped value is in the type of the pixels; what is beyond its ends takes these."""
    table = np.arange(40) ** 2
    lut = Dataset()
    lut.add(DataElement(0x00283002, vr, [40, first, 16]))
    lut.add(DataElement(0x00283006, "OW", table.astype("<u2").tobytes()))
    lut.ModalityLUTType = "HU"
    stored_slice(tmp_path / "a", [-50, -10, -9, 0, 29, 200], True)
    d = pydicom.dcmread(tmp_path / "a")
    del d.RescaleSlope, d.RescaleIntercept
    d.ModalityLUTSequence = [lut]
    d.save_as(tmp_path / "a")
    s = read_dicom(tmp_path / "a")
    assert s.hu[0, 0, 0, :6].tolist() == [0, 0, 1, 100, 39**2, 39**2]
    lut.ModalityLUTType = "US"
    d.save_as(tmp_path / "a")
    with pytest.raises(InvdiffError, match="unspecified type"):
        read_dicom(tmp_path / "a")


@pytest.mark.parametrize("cut", ["preamble", "group 2"])
def test_files_without_preamble_are_slices_too(tmp_path: Path, cut: str) -> None:
    for k in range(3):
        write_slice(tmp_path / f"IM{k}", hu_image(k), float(k))
    if cut == "preamble":
        data = (tmp_path / "IM1").read_bytes()
        (tmp_path / "IM1").write_bytes(data[132:])
    else:
        d = pydicom.dcmread(tmp_path / "IM1")
        del d.file_meta
        d.preamble = None
        pydicom.dcmwrite(tmp_path / "IM1", d, implicit_vr=True, little_endian=True)
    for path, want in ((tmp_path, (0.0, 1.0, 2.0)), (tmp_path / "IM1", (1.0,))):
        s = read_dicom(path)
        assert s.positions == want
        np.testing.assert_array_equal(s.hu[list(want).index(1.0), 0].numpy(), hu_image(1))


def test_what_is_left_out_of_a_folder_is_named(tmp_path: Path) -> None:
    for k in range(4):
        write_slice(tmp_path / f"CT{k}", hu_image(k), 2.0 * k, InstanceNumber=k + 1)
    write_slice(tmp_path / "SCOUT", hu_image(), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_slice(tmp_path / "MR", hu_image(), Modality="MR")
    write_slice(tmp_path / "DOSE", hu_image(), SOPClassUID=SecondaryCaptureImageStorage,
                ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])  # fmt: skip
    write_slice(tmp_path / "SR", hu_image(), Modality="SR", Rows=None, PixelData=None,
                SOPClassUID="1.2.840.10008.5.1.4.1.1.88.67")  # fmt: skip
    (tmp_path / "CT3").rename(tmp_path / "copy of CT3")
    (tmp_path / "CT3").write_bytes((tmp_path / "copy of CT3").read_bytes())
    (tmp_path / "readme.txt").write_text("none")
    s = read_dicom(tmp_path)
    told = "; ".join(s.facts)
    assert s.positions == (0.0, 2.0, 4.0, 6.0) and "missing" not in told and "lacks" not in told
    for part in ("1 x localizer (SCOUT)", "1 x image of modality MR (MR)", "no DICOM (readme.txt)",
                 "1 x picture of a screen or in colours (DOSE)", "1 copies of slices left out",
                 "1 x DICOM file without an image (SR) (SR)"):  # fmt: skip
        assert part in told
    with pytest.raises(InvdiffError, match="is a localizer"):
        read_dicom(tmp_path / "SCOUT")
    with pytest.raises(InvdiffError, match=r"without an image \(SR\)"):
        read_dicom(tmp_path / "SR")
    for name in ("CT1", "CT2"):
        (tmp_path / name).unlink()
    assert "the series lacks instances 2, 3" in "; ".join(read_dicom(tmp_path).facts)


def test_series_and_folders_below(tmp_path: Path) -> None:
    for k, uid in enumerate((generate_uid(), generate_uid())):
        folder = tmp_path / "study" / f"series{k}"
        folder.mkdir(parents=True)
        for z in range(2):
            write_slice(folder / f"{z}", hu_image(k), float(z), SeriesInstanceUID=uid,
                        SeriesNumber=k + 3, SeriesDescription=f"kernel {k}")  # fmt: skip
    with pytest.raises(InvdiffError, match=r"2 series; .*--series: 3 \(2 slices, kernel 0\), 4 "):
        read_dicom(tmp_path)
    s = read_dicom(tmp_path, series=4)
    np.testing.assert_array_equal(s.hu[0, 0].numpy(), hu_image(1))
    assert "2 slices of other series left out" in s.facts
    with pytest.raises(InvdiffError, match="no series 9; it holds 3 "):
        read_dicom(tmp_path, series=9)


def dicomdir(folder: Path, names: list[list[str]]) -> Path:
    write_slice(folder / "DICOMDIR", hu_image(), Rows=None, PixelData=None, Modality=None)
    d = pydicom.dcmread(folder / "DICOMDIR")
    d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that the standard does not allow
        d.DirectoryRecordSequence = [
            item(DirectoryRecordType="PATIENT"),
            *(item(DirectoryRecordType="IMAGE", ReferencedFileID=name) for name in names),
        ]
        d.save_as(folder / "DICOMDIR")
    return folder / "DICOMDIR"


def test_a_dicomdir_is_followed_and_not_out_of_its_disc(tmp_path: Path) -> None:
    disc = tmp_path / "disc"
    (disc / "IMG").mkdir(parents=True)
    for k in range(2):
        write_slice(disc / "IMG" / f"{k}", hu_image(k), float(k))
    write_slice(tmp_path / "secret", hu_image(5), 9.0)
    s = read_dicom(dicomdir(disc, [["IMG", "0"], ["IMG", "1"]]))
    assert s.positions == (0.0, 1.0) and "the files that a DICOMDIR lists" in s.facts
    assert "1 x DICOMDIR (DICOMDIR)" in "; ".join(read_dicom(disc).facts)
    for names in (["..", "secret"], ["IMG", "7"]):
        with pytest.raises(InvdiffError, match="lists .*, which is not there"):
            read_dicom(dicomdir(disc, [names]))


def test_what_decodes_a_compressed_file_is_told(tmp_path: Path) -> None:
    write_slice(tmp_path / "a", hu_image())
    d = pydicom.dcmread(tmp_path / "a")
    for syntax, sentence in (
        (JPEGLosslessSV1, "compressed as JPEG Lossless.* pip install python-gdcm, or convert"),
        ("1.2.840.10008.1.2.4.100", "stored as MPEG2.*, which is not read; convert it"),
    ):
        d.file_meta.TransferSyntaxUID = syntax
        d.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
        d["PixelData"].VR = "OB"
        d.save_as(tmp_path / "a")
        with pytest.raises(InvdiffError, match=sentence):
            read_dicom(tmp_path / "a")


def test_run_length_encoding_is_exact(tmp_path: Path) -> None:
    write_slice(tmp_path / "a", hu_image(size=(16, 16)))
    d = pydicom.dcmread(tmp_path / "a")
    d.compress("1.2.840.10008.1.2.5")
    d.save_as(tmp_path / "a")
    got = read_dicom(tmp_path / "a").hu[0, 0]
    assert torch.equal(got, torch.from_numpy(hu_image(size=(16, 16))).float())


def test_mutated_files_give_a_sentence_or_the_right_slice(tmp_path: Path) -> None:
    """60 of them: bytes changed, cut, or doubled; nothing but InvdiffError leaves the reader."""
    write_slice(tmp_path / "good", hu_image())
    data, rng = (tmp_path / "good").read_bytes(), np.random.default_rng(0)
    read = 0
    for k in range(60):
        raw = bytearray(data)
        for at in rng.integers(0, len(raw), 1 + k % 5):
            raw[at] = int(rng.integers(256))
        if k % 3 == 1:
            raw = raw[: int(rng.integers(len(raw)))]
        (tmp_path / "bad").write_bytes(bytes(raw))
        try:
            s = read_dicom(tmp_path / "bad")
        except InvdiffError as error:
            assert "\n" not in str(error)
        else:
            assert s.hu.ndim == 4 and bool(torch.isfinite(s.hu).all())
            read += 1
    assert read >= 5
