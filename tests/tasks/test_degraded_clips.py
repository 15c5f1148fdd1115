"""`invdiff degrade` of moving pictures: frame by frame, from one seed, and restored again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from invdiff.batch.place import Place
from invdiff.batch.report import all_lines
from invdiff.cli import main
from invdiff.files import video
from invdiff.files.animation import Pace, pace_of, write_together
from invdiff.files.frames import each

TIMES = [40, 50, 60, 70, 80, 90, 100, 110]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def film(name: str, frames: np.ndarray) -> Path:
    images = [Image.fromarray(f) for f in frames]
    kind = {".gif": "GIF", ".webp": "WEBP", ".apng": "PNG"}[Path(name).suffix]
    more = {"lossless": True} if kind == "WEBP" else {}
    images[0].save(
        name, kind, save_all=True, append_images=images[1:], loop=2, duration=TIMES, **more
    )
    return Path(name)


def paged(name: str, frames: Iterable[np.ndarray]) -> Path:
    first, *rest = [Image.fromarray(f) for f in frames]
    first.save(name, "TIFF", save_all=True, append_images=rest)
    return Path(name)


def grey() -> np.ndarray:
    found = np.full((8, 32, 32), 90, np.uint8)
    for k in range(8):
        found[k, 4:20, 2 + k : 12 + k] = 160
    return found


def colours() -> np.ndarray:
    found = np.stack([grey(), grey()[:, ::-1], 255 - grey()], -1)
    found[0] = 0  # a frame without colours
    return found


def shown(path: str | Path, mode: str = "L") -> np.ndarray:
    found = each(path, Path())
    return np.stack([np.asarray(Image.open(p).convert(mode), float) for p in found])


@pytest.mark.parametrize("ending", [".gif", ".webp", ".apng"])
def test_each_frame_has_noise_of_its_own(ending: str, here: Path) -> None:
    """Of the level that was told, independent, and the same by the same seed."""
    film(f"a{ending}", grey())
    for out, seed in (("one", "1"), ("same", "1"), ("two", "2")):
        words = ["degrade", "denoise", f"a{ending}", "--noise", "0.1", "--seed", seed]
        assert main([*words, "--out", out]) == 0
    assert sorted(p.name for p in Path("one").iterdir()) == [
        "degrade.json", f"measurement{ending}", f"truth{ending}",
    ]  # fmt: skip
    np.testing.assert_array_equal(shown(f"one/truth{ending}"), grey())
    measured = f"measurement{ending}"
    assert (Path("one") / measured).read_bytes() == (Path("same") / measured).read_bytes()
    assert pace_of(f"one/{measured}") == pace_of(f"one/truth{ending}") == pace_of(f"a{ending}")
    noise = (shown(f"one/{measured}") - grey()) / 255
    other = (shown(f"two/{measured}") - grey()) / 255
    numbers = grey()[0].size
    assert np.abs(noise.std((1, 2)) / 0.1 - 1).max() < 5 / np.sqrt(2 * numbers)
    rows = np.corrcoef(np.concatenate([noise, other]).reshape(16, -1))
    assert np.abs(rows - np.eye(16)).max() < 5 / np.sqrt(numbers)


@pytest.mark.parametrize("ending", [".gif", ".apng", ".webp"])
def test_still_frames_stay(ending: str, here: Path) -> None:
    """Without noise equal frames remain equal, and as many: with it they differ."""
    frames = grey()
    frames[3], frames[6], frames[7] = frames[2], frames[5], frames[5]
    for k, frame in enumerate(frames):
        Image.fromarray(frame).save(f"{k}.png")
    write_together(
        Path(f"a{ending}"), Pace(ending, tuple(TIMES), 2), [Path(f"{k}.png") for k in range(8)]
    )
    words = ["degrade", "super-resolution", f"a{ending}", "--scale", "4"]
    assert main([*words, "--out", "d"]) == 0
    small = shown(f"d/measurement{ending}")
    assert small.shape == (8, 8, 8) and np.array_equal(small[3], small[2])
    np.testing.assert_array_equal(shown(f"d/truth{ending}"), frames)
    assert main([*words, "--noise", "0.1", "--out", "e"]) == 0
    small = shown(f"e/measurement{ending}")
    assert not np.array_equal(small[3], small[2])


@pytest.mark.parametrize(
    ("task", "options", "names"),
    [
        ("denoise", ["--noise", "0.05"], ["measurement.apng", "truth.apng"]),
        ("inpaint", ["--mask", "box:4,4,8,8"], ["mask.png", "measurement.apng", "truth.apng"]),
        ("super-resolution", ["--scale", "2"], ["measurement.apng", "truth.apng"]),
        ("deblur", ["--kernel", "gaussian:1"], ["kernel.npy", "measurement.apng", "truth.apng"]),
        ("colorize", [], ["measurement.gif", "truth.apng"]),
        ("demosaic", [], ["measurement.gif", "truth.apng"]),
        ("hdr", [], ["measurement.apng", "truth.apng"]),
    ],
)
def test_what_degrade_tells_restores_it(
    task: str, options: list[str], names: list[str], here: Path
) -> None:
    """Each frame by itself, and compared: a frame without colours among those with some too."""
    Image.fromarray(colours()[1]).save("a.png")
    film("a.apng", colours())
    film("a.gif", colours())
    file = "a.gif" if task in ("colorize", "demosaic") else "a.apng"
    assert main(["degrade", task, file, *options, "--out", "d"]) == 0
    about = json.loads(Path("d/degrade.json").read_text())
    assert sorted(p.name for p in Path("d").iterdir()) == sorted([*names, "degrade.json"])
    assert sorted(about["files"]) == sorted([*names, "degrade.json"])
    assert main(["degrade", task, file, *options, "--out", "d", "--overwrite"]) == 0
    if file == "a.apng":
        np.testing.assert_array_equal(shown("d/truth.apng", "RGB"), colours())
    words = shlex.split(about["restore"])
    assert words[:4] == ["invdiff", "batch", task, f"d/{names[-2]}"]
    fast = ["--steps", "1", "--samples", "1", "--workers", "0", "--quiet", "--want", "estimate"]
    if task != "denoise":
        return  # restoring frames takes long, and the others are restored as pictures are
    assert main([*words[1:], *fast]) == 0
    found = {line["id"]: line for line in all_lines(Place(Path("d-restored")))}
    assert len(found) == 8 and all(line["psnr"]["estimate"] > 15 for line in found.values())


def test_a_prior_of_clips_restores_it(here: Path) -> None:
    film("a.gif", grey())
    assert main(["degrade", "denoise", "a.gif", "--noise", "0.1", "--out", "d"]) == 0
    words = shlex.split(json.loads(Path("d/degrade.json").read_text())["restore"])[1:]
    more = ["--prior", "moving-fashion", "--steps", "2", "--samples", "1", "--workers", "0"]
    assert main([*words, *more, "--quiet"]) == 0
    (line,) = all_lines(Place(Path("d-restored")))
    assert line["psnr"]["estimate"] > 21 and 0 <= line["psnr_worst"]["mean"]["frame"] < 8
    assert line["psnr_worst"]["mean"]["psnr"] < line["psnr"]["mean"]


@pytest.mark.parametrize("colour", [False, True])
def test_pages_of_a_tiff(colour: bool, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, as a TIFF, which is restored page by page and compared; or one."""
    pages = colours() if colour else grey()
    paged("a.TIFF", pages)
    assert main(["degrade", "denoise", "a.TIFF", "--noise", "0.05", "--out", "d"]) == 0
    told = capsys.readouterr().out
    assert "8 pages of 32 x 32" in told and "prior moving-fashion" not in told
    mode = "RGB" if colour else "L"
    np.testing.assert_array_equal(shown("d/truth.tiff", mode), pages)
    noise = (shown("d/measurement.tiff", mode) - pages) / 255
    assert len({n.tobytes() for n in noise}) == 8 and 0.02 < noise.std() < 0.06
    words = shlex.split(json.loads(Path("d/degrade.json").read_text())["restore"])
    fast = ["--steps", "1", "--samples", "1", "--workers", "0", "--quiet", "--want", "estimate"]
    assert main([*words[1:], *fast]) == 0
    found = {line["id"]: line for line in all_lines(Place(Path("d-restored")))}
    assert len(found) == 8 and all(line["psnr"]["estimate"] > 20 for line in found.values())
    one = ["degrade", "denoise", "a.TIFF", "--noise", "0.05", "--frame", "3", "--out", "e"]
    assert main(one) == 0
    np.testing.assert_array_equal(np.asarray(Image.open("e/truth.png")), pages[3])


def test_a_video(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Written without loss, with the times of its frames to the millisecond."""
    pytest.importorskip("av")
    pictures = []
    for k, frame in enumerate(grey()):
        pictures.append(Path(f"{k}.png"))
        Image.fromarray(frame).save(pictures[-1])
    video.write(Path("a.mp4"), Fraction(30), pictures)
    assert main(["degrade", "denoise", "a.mp4", "--noise", "0.1", "--out", "d"]) == 0
    assert "written as .apng, for .mp4 would lose" in capsys.readouterr().out
    np.testing.assert_array_equal(shown("d/truth.apng"), shown("a.mp4"))
    assert pace_of("d/truth.apng").durations == (33, 34, 33, 33, 34, 33, 33, 34)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jpeg", "a.gif", "--quality", "20"], "jpeg measures one picture, and a.gif has 8 frames"),
        (["mri", "a.gif"], "mri measures one picture, and a.gif has 8 frames; take one out of it"),
        (["low-light", "a.gif", "--peak", "9"], "cannot hold; give one of them, with --frame 0"),
        (["denoise", "cut.gif", "--noise", "0.1"], "cut.gif breaks off after"),
        (["denoise", "cut.tif", "--noise", "0.1"], "cut.tif breaks off after"),
        (["denoise", "no.gif", "--noise", "0.1"], "no.gif is not an image that can be read"),
        (["denoise", "nothing.gif", "--noise", "0.1"], "There is no file nothing.gif"),
        (["denoise", "clear.apng", "--noise", "0.1"], "Frame 3 of clear.apng: Every pixel of"),
        (["super-resolution", "a.gif", "--scale", "33"], "Frame 0 of a.gif: A scale of 33"),
        (["denoise", "a.gif", "--noise", "0.1", "--frame", "8"], "there is no 8"),
        (["denoise", "sizes.tif", "--noise", "0.1"], "has pages of 32 x 32 and of 30 x 32 pixels"),
        (["super-resolution", "a.tif", "--scale", "33"], "Page 0 of a.tif: A scale of 33"),
        (["low-light", "a.tif", "--peak", "9"], "which the pages of a.tif cannot hold"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    words: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is written."""
    whole = film("a.gif", grey()).read_bytes()
    Path("cut.gif").write_bytes(whole[: len(whole) // 2])
    Path("no.gif").write_bytes(b"GIF89a")
    clear = np.repeat(grey()[..., None], 4, -1)
    clear[..., 3] = 255
    clear[3, ..., 3] = 0
    film("clear.apng", clear)
    paged("a.tif", grey())
    Path("cut.tif").write_bytes(Path("a.tif").read_bytes()[: Path("a.tif").stat().st_size * 3 // 4])
    paged("sizes.tif", [grey()[0], grey()[1][:, :30]])
    before = sorted(Path().iterdir())
    assert main(["degrade", *words, "--out", "d"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and "/tmp" not in error
    assert sorted(Path().iterdir()) == before


def test_one_frame_is_a_picture(here: Path) -> None:
    film("a.gif", grey())
    Image.fromarray(grey()[0]).save("one.gif")
    words = ["degrade", "denoise", "--noise", "0.1"]
    assert main([*words, "a.gif", "--frame", "2", "--out", "d"]) == 0
    assert main([*words, "one.gif", "--out", "e"]) == 0
    for out, k in (("d", 2), ("e", 0)):
        assert np.array_equal(np.asarray(Image.open(f"{out}/truth.png")), grey()[k])
        about = json.loads(Path(f"{out}/degrade.json").read_text())
        assert about["restore"].startswith(f"invdiff restore denoise {out}/measurement.png")
