"""`invdiff batch --truth`: what is compared with what, and what cannot be."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invdiff.batch.items import BatchItem, ItemSource
from invdiff.batch.place import Place
from invdiff.batch.report import all_lines
from invdiff.batch.truth import _among, finite
from invdiff.cli import main
from invdiff.core import InvdiffError
from invdiff.files.frames import each, listed, unpacked
from invdiff.priors.load import load_prior
from invdiff.tasks import Ct, Denoise, LowDoseCt, Mri, NoiseLevel
from invdiff.tasks.ct_view import FloatView
from invdiff.tasks.truth import Truth, clean_clip, clean_picture, clean_slices

FAST = ["--steps", "1", "--samples", "2", "--quiet", "--workers", "0"]
CLIPS = ["--prior", "moving-fashion"]


def frames_of(count: int, side: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 255, (count, side, side), dtype=np.uint8)


def film(path: Path, frames: np.ndarray) -> Path:
    images = [Image.fromarray(f) for f in frames]
    kind = {".gif": "GIF", ".webp": "WEBP", ".apng": "PNG", ".tif": "TIFF"}[path.suffix]
    more = {"lossless": True} if kind == "WEBP" else {}
    images[0].save(path, kind, save_all=True, append_images=images[1:], **more)
    return path


def told(out: Path) -> dict[str, dict]:
    return {line["id"]: line for line in all_lines(Place(out))}


def decibels(mse: float) -> float:
    return float(-10 * np.log10(mse))


def test_a_clip_is_compared_frame_by_frame(tmp_path: Path) -> None:
    """PSNR over all frames and of the worst, as plain numpy has them; other lengths are told."""
    truth = frames_of(9)
    film(tmp_path / "a.gif", truth)
    film(tmp_path / "a-truth.apng", truth)
    film(tmp_path / "b.gif", truth)
    film(tmp_path / "b-truth.apng", truth[:8])
    out = tmp_path / "out"
    command = ["batch", "denoise", str(tmp_path / "*.gif"), "--noise", "0.1", *CLIPS, *FAST]
    assert main([*command, "--truth", "{stem}-truth.apng", "--out", str(out)]) == 3
    found = told(out)
    pictures = sorted((out / "items/a.gif/estimate").iterdir())
    estimate = np.stack([np.asarray(Image.open(p), float) for p in pictures]) / 255
    errors = ((estimate - truth / 255) ** 2).mean((1, 2))
    line = found["a.gif"]
    assert line["psnr"]["estimate"] == pytest.approx(decibels(errors.mean()), abs=0.01)
    worst = line["psnr_worst"]["estimate"]
    assert worst["frame"] == int(errors.argmax())
    assert worst["psnr"] == pytest.approx(decibels(errors.max()), abs=0.01)
    assert "b-truth.apng has 8 frames, but the result has 9" in found["b.gif"]["error"]
    assert "estimate of frame" in (out / "report.html").read_text()


@pytest.mark.parametrize("ending", [".gif", ".webp", ".apng", ".tif"])
def test_a_frame_is_compared_with_that_of_the_same_number(ending: str, tmp_path: Path) -> None:
    truth = film(tmp_path / f"truth{ending}", frames_of(4, seed=1))
    film(tmp_path / f"a{ending}", frames_of(4))
    for item in ItemSource((str(tmp_path / f"a{ending}"),), pages=True).items():
        (tmp_path / "u").mkdir(exist_ok=True)
        alone = unpacked(item.path, item.within, tmp_path / "u")
        number = item.within.get("frame", item.within.get("page"))
        among = _among(item, alone, Denoise(noise=NoiseLevel("0.1")))
        assert among == (number, 4)
        found = clean_picture(truth, among)
        np.testing.assert_allclose(found.array * 255, frames_of(4, seed=1)[number], atol=1e-4)
    with pytest.raises(InvdiffError, match="holds 4 pictures, but the measurement 5"):
        clean_picture(truth, (1, 5))
    with pytest.raises(InvdiffError, match="holds 4 pictures, but the measurement is one"):
        clean_picture(truth, None)


def test_pages_that_are_reduced_do_not_count(tmp_path: Path) -> None:
    """The third full page is the third of the truth, whatever lies between."""
    images = [Image.fromarray(f) for f in frames_of(3)]
    film(tmp_path / "truth.tif", frames_of(3))
    from PIL import TiffImagePlugin

    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / "a.tif"), True) as to:
        for image in images:
            image.save(to, format="TIFF")
            to.newFrame()
            image.resize((8, 8)).save(to, format="TIFF", tiffinfo={254: 1})
            to.newFrame()
    places = listed(tmp_path / "a.tif")
    assert [at["page"] for at in places] == [0, 2, 4]
    item = BatchItem("a.tif/page-004", str(tmp_path / "a.tif"), places[2])
    assert _among(item, tmp_path / "a.tif", Denoise(noise=NoiseLevel("0.1"))) == (2, 3)


def test_one_file_is_the_truth_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its path from here, and it is no item itself; one that is not there is said at once."""
    (tmp_path / "in").mkdir()
    truth = film(tmp_path / "in/truth.gif", frames_of(3, 16))
    film(tmp_path / "in/a.gif", frames_of(3, 16))
    command = ["batch", "denoise", str(tmp_path / "in"), "--noise", "0.1", *FAST]
    assert main([*command, "--truth", str(truth), "--out", str(tmp_path / "out")]) == 0
    found = told(tmp_path / "out")
    assert sorted(found) == [f"a.gif/frame-{k:05}" for k in range(3)]
    for k in range(3):
        shown = tmp_path / f"out/items/a.gif/frame-{k:05}/estimate.png"
        error = (np.asarray(Image.open(shown), float) - frames_of(3, 16)[k]) / 255
        psnr = found[f"a.gif/frame-{k:05}"]["psnr"]["estimate"]
        assert psnr == pytest.approx(decibels((error**2).mean()), abs=0.02)
    capsys.readouterr()
    assert main([*command, "--truth", "nothing.gif", "--out", str(tmp_path / "two")]) == 2
    assert "There is no nothing.gif; --truth is a file, or a pattern" in capsys.readouterr().err


def test_a_truth_in_a_tar_is_no_item(tmp_path: Path) -> None:
    Image.fromarray(frames_of(1, 16)[0]).save(tmp_path / "x.png")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("x.png", "x.truth.png"):
            tar.add(tmp_path / "x.png", name)
    command = ["batch", "denoise", str(tmp_path / "a.tar"), "--noise", "0.1", *FAST]
    out = tmp_path / "out"
    assert main([*command, "--truth", "{stem}.truth.png", "--out", str(out)]) == 0
    assert list(told(out)) == ["a.tar/x.png"] and told(out)["a.tar/x.png"]["psnr"]["mean"] > 10


def test_grey_and_colours() -> None:
    """Grey is the same picture in colours; colours are none in grey."""
    grey, colours = np.full((4, 5), 0.5), np.full((4, 5, 3), 0.5)
    fitted = Truth(Path("a.png"), grey).fitted(colours + 0.1)
    assert fitted.psnr(colours + 0.1) == (pytest.approx(20.0), [])
    with pytest.raises(InvdiffError, match="has colours, but the result is grey"):
        Truth(Path("a.png"), colours, colours=True).fitted(grey)
    clip = Truth(Path("a.gif"), np.stack([grey] * 2), part="frame")
    assert clip.fitted(np.stack([colours] * 2)).array.shape == (2, 4, 5, 3)
    with pytest.raises(InvdiffError, match="of 5 x 4 pixels, but the result of 4 x 4"):
        clip.fitted(np.zeros((2, 4, 4)))


def test_clips_of_grey_and_coloured_frames(tmp_path: Path) -> None:
    """A black frame in a clip of colours is one of colours; an array is a clip too."""
    frames = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    frames[0] = 0
    film(tmp_path / "a.apng", frames)
    found = clean_clip(tmp_path / "a.apng")
    np.testing.assert_allclose(found.array * 255, frames, atol=1e-4)
    np.save(tmp_path / "a.npy", frames)
    np.testing.assert_allclose(clean_clip(tmp_path / "a.npy").array, found.array, atol=1e-6)
    np.save(tmp_path / "b.npy", frames[0, 0])
    with pytest.raises(InvdiffError, match=r"is of shape \(8, 3\); a clip is"):
        clean_clip(tmp_path / "b.npy")
    Image.fromarray(frames[1]).save(tmp_path / "one.gif")
    with pytest.raises(InvdiffError, match="is one picture, but the result is a clip"):
        clean_clip(tmp_path / "one.gif")


def test_scans(tmp_path: Path) -> None:
    """In the units of the results: magnitudes of k-space, HU or attenuation; no pictures."""
    image = np.exp(1j) * np.arange(1, 13).reshape(3, 4)
    np.save(tmp_path / "z.npy", image[None])
    view = FloatView(torch.zeros(1, 3, 4), -1024, 1500, "HU", -1024, 500)
    found = Mri().truth(tmp_path / "z.npy", view)
    assert found.span == (0.0, pytest.approx(12.0))
    assert found.fitted(image).psnr(image + 1e-9)[0] > 100
    error = np.abs(np.abs(image + 1) - np.abs(image)) ** 2
    assert found.psnr(image + 1)[0] == pytest.approx(decibels(error.mean() / 144))
    hu = np.linspace(-1000, 900, 12).reshape(3, 4)
    np.save(tmp_path / "hu.npy", hu)
    of_ct = Ct().truth(tmp_path / "hu.npy", view).fitted(hu)
    assert of_ct.psnr(hu + 25.24)[0] == pytest.approx(40.0)  # 1 % of the prior's window
    bare = FloatView(torch.zeros(1, 3, 4), 0, 0.03, "attenuation per length", 0, 0.03)
    with pytest.raises(InvdiffError, match="seems to be in HU, for it begins at -1000"):
        Ct().truth(tmp_path / "hu.npy", bare)
    Image.fromarray(frames_of(1, 4)[0]).save(tmp_path / "p.png")
    for task in (Ct(), Mri()):
        with pytest.raises(InvdiffError, match="is no array, and pictures do not tell units"):
            task.truth(tmp_path / "p.png", view)


def test_stacks_of_slices(tmp_path: Path) -> None:
    """Slice by slice; of the one that was asked for, that one; padding tells nothing."""
    hu = np.linspace(-1000, 900, 24).reshape(2, 3, 4)
    np.save(tmp_path / "a.npy", hu)
    view = FloatView(torch.zeros(1, 3, 4), -1024, 1500, "HU", -1024, 500)
    both = LowDoseCt().truth(tmp_path / "a.npy", view).fitted(hu)
    whole, parts = both.psnr(np.stack([hu[0] + 2.524, hu[1] + 25.24]))
    assert parts == pytest.approx([60.0, 40.0]) and 40 < whole < 45
    one = LowDoseCt(slice=1).truth(tmp_path / "a.npy", view).fitted(hu[1])
    assert one.psnr(hu[1] + 25.24) == (pytest.approx(40.0), [])
    with pytest.raises(InvdiffError, match="has 2 slices, but the result has 1"):
        both.fitted(hu[0])
    with pytest.raises(InvdiffError, match="there is no slice 2"):
        LowDoseCt(slice=2).truth(tmp_path / "a.npy", view)
    padded = hu.copy()
    padded[0, 0, 0] = -2000
    window = (-1024.0, 1500.0)
    assert clean_slices(Path("a"), padded, "HU", window).array[0, 0, 0] == -1024


@pytest.mark.parametrize("ending", [".gif", ".webp", ".apng"])
def test_frames_in_order_are_those_one_by_one(ending: str, tmp_path: Path) -> None:
    frames = np.zeros((4, 10, 12, 3), np.uint8)
    for k in range(4):
        frames[k, k : k + 4, 2 * k : 2 * k + 3] = (200, 40 * k, 90)  # partial frames
    path = film(tmp_path / f"a{ending}", frames)
    for alone, at in zip(each(path, tmp_path), listed(path), strict=True):
        (tmp_path / "u").mkdir(exist_ok=True)
        right = unpacked(str(path), at, tmp_path / "u")
        assert np.array_equal(np.asarray(Image.open(alone)), np.asarray(Image.open(right)))
    assert not list(tmp_path.glob("frame-*"))


def test_a_cut_animation_is_told(tmp_path: Path) -> None:
    path = film(tmp_path / "a.gif", frames_of(4))
    path.write_bytes(path.read_bytes()[: path.stat().st_size - 600])
    with pytest.raises(InvdiffError, match=r"a\.gif breaks off after 3 frames"):
        clean_clip(path)


def test_a_broken_one_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    with pytest.raises(InvdiffError, match=r"a\.gif is not an image that can be read"):
        clean_clip(tmp_path / "a.gif")
    prior = load_prior("moving-fashion")
    with pytest.raises(InvdiffError, match=r"a\.gif is not an image that can be read"):
        Denoise(noise=NoiseLevel("0.1")).read(tmp_path / "a.gif", prior)


def test_lines_are_json() -> None:
    """An exact result has no PSNR that JSON could hold."""
    assert json.dumps(finite(float("inf"))) == "null" and finite(12.3456789) == 12.3457
