"""CT slices in, without their noise out: DICOM series and stacks of Hounsfield units."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

import invdiff
from invdiff import read_dicom, read_tiff
from invdiff.app.results import of_pixel
from invdiff.app.shown import Showing, pixels
from invdiff.cli import main
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise.bands import spectrum_of_levels
from invdiff.restoration import restored
from invdiff.restoration.directions import directions
from invdiff.restoration.job import prepare
from invdiff.restoration.preview import Preview
from invdiff.restoration.race import race
from invdiff.scans.ct_noise import ct_noise, deviation, usual_noise
from invdiff.scans.dicom_write import _stored
from invdiff.tasks import LowDoseCt, NoiseLevel

sys.path.insert(0, str(Path(__file__).parents[1] / "scans"))
from test_images import groups, orientation, position, rescale, write_frames, write_slice

SIZE = 96
QUICK = ["--steps", "2", "--samples", "2", "--quiet"]


def body(k: int = 0) -> np.ndarray:
    """Tissue of 40 HU with a lung and a bone in air, moved a little from slice to slice."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    hu = np.full((SIZE, SIZE), -1000.0)
    hu[(x / 45) ** 2 + (y / 40) ** 2 < 1] = 40
    hu[(x + 15) ** 2 + (y - k) ** 2 < 25] = -850
    hu[(x - 12) ** 2 + (y + 9) ** 2 < 9] = 900
    return hu


def noisy(k: int = 0, level: float = 30.0) -> np.ndarray:
    field = spectrum_of_levels([0.5, 1.0])
    field = field.scaled(level / deviation(field))
    return field.sample(torch.from_numpy(body(k))[None, None], Rng.of(k))[0, 0].numpy()


def whole(hu: np.ndarray) -> np.ndarray:
    return hu.round().clip(-1024, 3000).astype(int)


def test_the_spectrum_of_the_noise_is_measured() -> None:
    """Its deviation to a fifth, from some 50 patches of each of 2 slices."""
    hu = torch.from_numpy(np.stack([noisy(0), noisy(3)]))[:, None]
    field, levels = ct_noise(hu)
    assert deviation(field) == pytest.approx(30, rel=0.2) and levels[1] > 1.5 * levels[0]
    told, _ = ct_noise(hu, 12.0)
    assert deviation(told) == pytest.approx(12) and told.frequencies == field.frequencies
    with pytest.raises(InvdiffError, match="too little soft tissue"):
        ct_noise(torch.full((1, 1, 64, 64), -1000.0))
    with pytest.raises(InvdiffError, match="without noise"):
        ct_noise(torch.full((1, 1, 64, 64), 40.0))


def test_a_series_comes_back_as_a_series(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    heights, source = (5.0, 0.0, 2.5), tmp_path / "in"
    source.mkdir()
    for k, z in enumerate(heights):
        hu = whole(noisy(k))
        hu[0, :5] = 1976  # padding, stored as 3000
        hu[40, 40] = 2500
        write_slice(source / f"IM{k}", hu, z, PixelPaddingValue=3000, SmallestImagePixelValue=7,
                    PatientID="P7", SliceThickness=2.5, SeriesNumber=4)  # fmt: skip
    out = tmp_path / "out"
    assert main(["restore", "low-dose-ct", str(source), *QUICK, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "not for diagnosis" in printed and "15 pixels of padding are kept" in printed
    before, done = read_dicom(source), restored.Restoration.load(out)
    assert done.estimate.shape == (3, SIZE, SIZE) and done.samples.shape == (2, 3, SIZE, SIZE)
    assert done.std.shape == (3, SIZE, SIZE)
    uids = {d.SOPInstanceUID for d in map(pydicom.dcmread, source.iterdir())}
    for name, values in (("estimate", done.estimate), ("sample-2", done.samples[1])):
        after = read_dicom(out / name)
        assert after.positions == before.positions and after.spacing == before.spacing
        mine = (before.hu[:, 0] > -1024).numpy()
        gap = np.abs(after.hu[:, 0].numpy() - values)[mine]
        assert gap.max() <= 0.5 + 1e-3  # rounding to steps of RescaleSlope
        assert bool((after.padding == before.padding).all())
        assert bool((after.hu[:, 0, 40, 40] == 2500).all())
        for file in (out / name).iterdir():
            d = pydicom.dcmread(file)
            assert d.ImageType[0] == "DERIVED" and d.PatientID == "P7" and d.SliceThickness == 2.5
            assert d.SourceImageSequence[0].ReferencedSOPInstanceUID in uids
            assert d.SOPInstanceUID not in uids and "SmallestImagePixelValue" not in d
            assert d.file_meta.MediaStorageSOPInstanceUID == d.SOPInstanceUID
            assert "not for diagnosis" in d.DerivationDescription and d.SeriesNumber == 1004
            uids.add(d.SOPInstanceUID)
    series = {pydicom.dcmread(out / n / "0001.dcm").SeriesInstanceUID for n in ("mean", "sample-1")}
    assert len(series) == 2
    again = tmp_path / "again"
    assert main(["restore", "--from", str(out), "--quiet", "--out", str(again)]) == 0
    for name in ("estimate", "mean", "sample-1"):
        first, second = (read_dicom(f / name) for f in (out, again))
        assert float((first.hu - second.hu).abs().max()) <= 1
        a, b = (pydicom.dcmread(f / name / "0002.dcm") for f in (out, again))
        assert a.SOPInstanceUID == b.SOPInstanceUID


def test_another_answer_has_other_uids(tmp_path: Path) -> None:
    """A UID names one set of values: those of another seed are others."""
    write_slice(tmp_path / "IM0", whole(noisy()), 0.0)
    found = []
    for seed in (0, 1):
        done = invdiff.restore(
            "low-dose-ct", tmp_path / "IM0", samples=1, seed=seed, steps=2, progress=False
        )
        out = done.save(tmp_path / f"out-{seed}")
        found.append(pydicom.dcmread(out / "sample-1" / "0001.dcm"))
        found.append(pydicom.dcmread(out / "estimate" / "0001.dcm"))
    assert len({d.SOPInstanceUID for d in found}) == 3  # the estimate takes no seed
    assert len({d.SeriesInstanceUID for d in found}) == 3


def test_what_is_seen_of_a_stack(tmp_path: Path) -> None:
    """Previews show the slice that is under way, pictures and pixels of the page the middle one;
    directions are of all slices, and a race takes one."""
    hu = np.stack([noisy(k) for k in range(3)]).astype(np.float32)
    hu[1, 40, 40] = 2500
    np.save(tmp_path / "stack.npy", hu)
    seen: list[tuple[np.ndarray, Preview]] = []
    done = invdiff.restore(
        "low-dose-ct", hu, noise=30.0, samples=2, batch=2, steps=2, progress=False,
        preview=lambda p: seen.append((p.images(), p)),
    )  # fmt: skip
    shown = [images for images, p in seen if p.part == "samples"]
    assert {images.shape for images in shown} == {(2, SIZE, SIZE)} and len(shown) == 9
    held = [bool((images[:, 40, 40] == 2500).all()) for images in shown]
    assert held == [False] * 3 + [True] * 3 + [False] * 3
    np.testing.assert_array_equal(done.view.seen(done.estimate), done.estimate[1])
    np.testing.assert_array_equal(
        pixels(done, done.estimate, Showing()), pixels(done, done.estimate[1], Showing())
    )
    lines, _ = of_pixel(done, 40, 40)
    assert ("estimate", "2500 HU") in lines
    assert directions(done).at([1.0]).shape == (3, SIZE, SIZE)
    task = LowDoseCt(noise=NoiseLevel.of(30.0))
    with pytest.raises(InvdiffError, match="one image, found 3 slices"):
        next(race(prepare(task, tmp_path / "stack.npy"), task, ["spectral-ancestral", "ddrm"], 10))


def test_noise_goes_and_the_body_stays(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.stack([noisy(0), noisy(1)]))
    r = invdiff.restore("low-dose-ct", tmp_path / "s.npy", want="estimate", progress=False)
    tissue = np.stack([body(0), body(1)]) == 40

    def error(x: np.ndarray) -> float:
        return float(np.sqrt(((x - np.stack([body(0), body(1)]))[tissue] ** 2).mean()))

    assert error(r.estimate) < 0.6 * error(np.load(tmp_path / "s.npy"))
    assert abs(float(r.estimate[tissue].mean()) - 40) < 5
    one = invdiff.restore("low-dose-ct", tmp_path / "s.npy", slice=1, want="estimate",
                          progress=False, noise=30)  # fmt: skip
    assert one.estimate.shape == (SIZE, SIZE)


def test_samples_agree_with_a_slice_of_a_low_dose(tmp_path: Path) -> None:
    """Its data steps end, and neither samples nor estimate contradict what was measured."""
    hu = np.load(Path(__file__).parents[2] / "examples/chest-ct.npz")["hu"].astype(np.float32)
    field = usual_noise(40.0)
    np.save(tmp_path / "s.npy", field.sample(torch.from_numpy(hu[None, None]), Rng.of(0))[0, 0])
    done = invdiff.restore("low-dose-ct", tmp_path / "s.npy", noise=40, samples=2, progress=False)
    config = done.result.config
    assert "unsolved" not in config and all(m < 1.2 for m in config["checks"]["samples"]["misfit"])
    assert not [w for w in done.warnings if "misses" in w]
    mean = np.asarray(done.samples).mean(0)
    inside = (hu > -1000) & (hu < 1500)
    assert (
        np.sqrt(np.square(mean - hu)[inside].mean()) < 33
    )  # 40 in the slice; 45 where they did not end


def test_no_restored_value_reads_as_padding() -> None:
    d = pydicom.Dataset()
    d.PixelPaddingValue, d.BitsAllocated, d.BitsStored = 2000, 16, 12
    d.PixelRepresentation, d.RescaleSlope, d.RescaleIntercept = 0, 1, -1024
    hu = np.array([[975.2, 976.4, 976.4, -1200.0, 9000.0]])
    held = np.array([[False, False, True, False, False]])
    assert _stored(d, hu, held).tolist() == [[1999, 1999, 2000, 0, 4095]]
    d.PixelPaddingValue, d.PixelPaddingRangeLimit = 0, 30
    hu = np.array([[-1024.0, -1000.0, -993.0]])
    assert _stored(d, hu, held[:, :3] & False).tolist() == [[31, 31, 31]]


def test_frames_and_tiff(tmp_path: Path) -> None:
    stored = np.stack([whole(noisy(k)) + 1024 for k in range(2)])
    shared = groups(orientation(), rescale(1, -1024))
    write_frames(tmp_path / "f.dcm", stored, [position(3), position(1)], shared)
    args = ["--steps", "1", "--samples", "1", "--quiet", "--out"]
    assert (
        main(["restore", "low-dose-ct", str(tmp_path / "f.dcm"), *args, str(tmp_path / "o")]) == 0
    )
    assert read_dicom(tmp_path / "o" / "mean").positions == (1.0, 3.0)
    invdiff.write_tiff(tmp_path / "s.tif", torch.from_numpy(noisy()).float())
    assert (
        main(["restore", "low-dose-ct", str(tmp_path / "s.tif"), *args, str(tmp_path / "t")]) == 0
    )
    done = restored.Restoration.load(tmp_path / "t")
    np.testing.assert_array_equal(read_tiff(tmp_path / "t" / "mean.tif")[0], done.mean)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["restore", "low-dose-ct", "nothing"], "There is no file nothing"),
        (["restore", "low-dose-ct", "empty"], "holds no DICOM images"),
        (["restore", "low-dose-ct", "mu.npy"], "no Hounsfield units of a body"),
        (["restore", "low-dose-ct", "a.nii"], "none of the endings of slices"),
        (["restore", "low-dose-ct", "s.npy", "--slice", "3"], "no slice 3"),
        (["restore", "low-dose-ct", "s.npy", "--noise", "0"], "above 0"),
        (["restore", "denoise", "IM", "--noise", "0.1"], "restore low-dose-ct IM"),
        (["restore", "denoise", "series", "--noise", "0.1"], "restore low-dose-ct series"),
        (["restore", "ct", "IM"], "restore low-dose-ct"),
    ],
)
def test_other_files_get_one_sentence(
    command: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("series").mkdir()
    np.save("mu.npy", np.full((32, 32), 0.02))
    np.save("s.npy", noisy())
    Path("a.nii").write_bytes(b"x")
    for name in ("IM", "series/IM"):
        write_slice(tmp_path / name, whole(noisy()))
    assert main(command) != 0
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1 and not list(tmp_path.glob("restored*"))
