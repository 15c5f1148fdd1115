"""Frames of animations and videos as items of a batch, and as what restore takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from invdiff.batch import inside
from invdiff.batch.clips import SHOWN
from invdiff.batch.items import BatchItem, ItemSource, beside, seed_of
from invdiff.cli import main
from invdiff.core import InvdiffError
from invdiff.files import video
from invdiff.files.ends import breaks_off, whole_pictures
from invdiff.files.frames import each, frames, listed, one_of, unpacked
from invdiff.files.pictures import read_photo

TIMES = [40, 80, 40, 120]
OPTIONS = ["--noise", "0.1", "--steps", "2", "--samples", "2", "--quiet", "--workers", "0"]


def drawn(count: int = 4, size: tuple[int, int] = (16, 20)) -> list[np.ndarray]:
    """Frames of plain colours, with a mark that moves: no palette, and no codec, changes much."""
    found = []
    for k in range(count):
        array = np.full((*size, 3), (40 + 20 * (k % 8), 90, 200 - 20 * (k % 8)), np.uint8)
        array[2:8, 2 + k % 8 : 8 + k % 8] = 250
        found.append(array)
    return found


def animation(path: Path, count: int = 4) -> Path:
    images = [Image.fromarray(a) for a in drawn(count)]
    kind = {".gif": "GIF", ".webp": "WEBP", ".apng": "PNG"}[path.suffix]
    more = {"lossless": True} if kind == "WEBP" else {}
    images[0].save(
        path, kind, save_all=True, append_images=images[1:], duration=(TIMES * count)[:count],
        loop=3, **more,
    )  # fmt: skip
    return path


def film(path: Path, count: int = 30, size: tuple[int, int] = (32, 48), rate: int = 12) -> Path:
    """A video with a key frame in every 12, and frames that are stored in another order."""
    av = pytest.importorskip("av")
    codec = {".avi": "mpeg4", ".webm": "libvpx-vp9"}.get(path.suffix, "libx264")
    options = {"bf": "2", "g": "12"} if codec == "libx264" else {"g": "12"}
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuv420p"
        stream.bit_rate = 10**6
        for array in drawn(count, size):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def items(path: Path, *patterns: str) -> dict[str, BatchItem]:
    found = ItemSource((str(path),), patterns, pages=True).items()
    return {item.id: item for item in found}


def read(item: BatchItem, folder: Path) -> np.ndarray:
    folder.mkdir(exist_ok=True)
    photo = read_photo(inside.unpacked(item.path, item.within, folder))
    return photo.pixels.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("ending", [".gif", ".webp", ".apng"])
def test_frames_of_an_animation(ending: str, tmp_path: Path) -> None:
    """Each as it is seen, in any order; one picture, and a task that takes no frames, is one."""
    animation(tmp_path / f"a{ending}")
    animation(tmp_path / f"one{ending}", 1)
    found = items(tmp_path)
    assert list(found) == [*(f"a{ending}/frame-{k:05}" for k in range(4)), f"one{ending}"]
    for k in (3, 0, 2, 1):
        got = read(found[f"a{ending}/frame-{k:05}"], tmp_path / "p")
        np.testing.assert_allclose(got, drawn()[k] / 255, atol=1e-6)
    assert [i.id for i in ItemSource((str(tmp_path / f"a{ending}"),)).items()] == [f"a{ending}"]
    near = beside("{stem}-{frame}-mask.png", found[f"a{ending}/frame-00002"])
    assert near == str(tmp_path / "a-00002-mask.png")


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm", ".avi"])
def test_frames_of_a_video(ending: str, tmp_path: Path) -> None:
    """In the order in which they are shown, each found by itself, from whatever key frame."""
    path = film(tmp_path / f"a{ending}")
    found = items(path)
    assert list(found) == [f"a{ending}/frame-{k:05}" for k in range(30)]
    for k in (29, 13, 11, 12, 0):
        got = read(found[f"a{ending}/frame-{k:05}"], tmp_path / "p")
        errors = [float(np.abs(got - a / 255).mean()) for a in drawn(8, (32, 48))]
        assert int(np.argmin(errors)) == k % 8, errors


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm", ".avi"])
def test_all_frames_of_a_video_in_order(ending: str, tmp_path: Path) -> None:
    """Decoded once, they are those that are found one by one; a cut one is told."""
    path = film(tmp_path / f"a{ending}")
    (tmp_path / "u").mkdir()
    for alone, at in zip(each(path, tmp_path), listed(path), strict=True):
        one = unpacked(str(path), at, tmp_path / "u")
        assert np.array_equal(np.asarray(Image.open(alone)), np.asarray(Image.open(one)))
    with pytest.raises(InvdiffError, match="tells of 31 frames, but 30 can be decoded"):
        list(video.decoded(str(path), 31))


def test_a_video_that_tells_no_times(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 14)
    by_time = np.asarray(video.frame(str(path), 9, video.times(str(path))[9]))
    assert np.array_equal(np.asarray(video.frame(str(path), 9, None)), by_time)
    with pytest.raises(InvdiffError, match="has no frame 14 that can be decoded"):
        video.frame(str(path), 14, None)


def test_a_video_on_its_side_is_turned() -> None:
    """-90 degrees, as telephones write, is a quarter clockwise: the left column comes on top."""
    array = np.zeros((2, 3, 3), np.uint8)
    array[:, 0] = 9
    assert (video.turned(array, -90)[0] == 9).all() and video.turned(array, -90).shape == (3, 2, 3)
    assert (video.turned(array, 180)[:, 2] == 9).all() and (video.turned(array, 0) == array).all()


def test_broken_ones_are_put_aside(tmp_path: Path) -> None:
    """A video among others that cannot be read is an item that fails; alone it is the error."""
    film(tmp_path / "cut.mp4")
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "cut.mp4").read_bytes()[:900])
    (tmp_path / "no.mkv").write_bytes(b"no video")
    whole = animation(tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(whole[: len(whole) * 3 // 4])
    found = items(tmp_path)
    for name in ("cut.mp4", "no.mkv"):
        with pytest.raises(InvdiffError, match=f"{name} cannot be read as a video"):
            read(found[name], tmp_path / "p")
        with pytest.raises(InvdiffError, match=f"{name} cannot be read as a video"):
            items(tmp_path / name)
    last = [i for i in found.values() if i.id.startswith("a.gif")][-1]
    with pytest.raises(InvdiffError, match=r"a\.gif"):
        read(BatchItem(last.id, last.path, {"frame": 3}), tmp_path / "p")


def several(path: Path, count: int) -> Path:
    """So many pictures in a file of any kind."""
    if path.suffix in (".gif", ".apng", ".webp"):
        return animation(path, count)
    if path.suffix != ".tif":
        return film(path, count)
    images = [Image.fromarray(a) for a in drawn(count)]
    images[0].save(path, save_all=True, append_images=images[1:])
    return path


@pytest.mark.parametrize("part", [0.5, 0.75])
@pytest.mark.parametrize("ending", [".tif", ".gif", ".mkv", ".webm", ".avi"])
def test_a_file_that_was_cut_off_is_told(ending: str, part: float, tmp_path: Path) -> None:
    """What is there is found, and then the end; one of them can be taken; the batch goes on."""
    path = several(tmp_path / f"a{ending}", 24)
    assert len(listed(path)) == 24
    whole = path.read_bytes()
    head = max(whole.find(b"movi"), 0)  # of an AVI of small frames it is most of the file
    path.write_bytes(whole[: head + int(part * (len(whole) - head))])
    found, walk = 0, frames(str(path))
    with pytest.raises(InvdiffError, match=r"a\.\w+ breaks off after \d+ (page|frame)s; copy or"):
        for name, _ in walk:
            found += 1
            assert name.endswith(f"{found - 1:03}")
    assert 0.3 * part * 24 < found < 24
    with pytest.raises(InvdiffError, match=f"breaks off after {found} "):
        listed(path)
    Image.fromarray(drawn(1)[0]).save(tmp_path / "b.png")
    ids = list(items(tmp_path))
    assert len(ids) == found + 2 and ids[-2:] == [f"a{ending}", "b.png"]
    assert one_of(path, found // 2, tmp_path).exists()


def test_a_video_that_goes_while_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frames are told; the reader of each says that there is no file."""
    path = film(tmp_path / "a.mkv", 3)
    times = video.times(str(path))
    path.unlink()
    monkeypatch.setattr(video, "times", lambda name: times)
    assert len(list(frames(str(path)))) == 3


def test_a_gif_without_its_last_byte_is_whole(tmp_path: Path) -> None:
    """And none is that ends anywhere else than after a picture."""
    whole = animation(tmp_path / "a.gif").read_bytes()
    counts = []
    for end in range(len(whole)):
        (tmp_path / "b.gif").write_bytes(whole[:end])
        count, cut = whole_pictures(str(tmp_path / "b.gif"))
        counts.append(count)
        assert not cut or end < len(whole) - 1
        assert cut or count in (0, 4) or whole[end - 1] == 0
    assert counts == sorted(counts) and counts[-1] == 4
    (tmp_path / "b.gif").write_bytes(whole[:-1])
    assert len(listed(tmp_path / "b.gif")) == 4


def test_a_streamed_file_tells_no_length(tmp_path: Path) -> None:
    """Lengths that a container leaves open, or an end that is none of its parts."""
    path = film(tmp_path / "a.mkv")
    data = bytearray(path.read_bytes())
    at = data.index(bytes.fromhex("18538067")) + 4
    data[at : at + 8] = b"\x01" + b"\xff" * 7
    path.write_bytes(data[: len(data) // 2])
    assert not breaks_off(str(path)) and 0 < len(listed(path)) < 30
    path = film(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes() + bytes(20))
    assert not breaks_off(str(path)) and len(listed(path)) == 30


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    animation(tmp_path / "b.gif")
    monkeypatch.setitem(sys.modules, "av", None)
    found = items(tmp_path)
    assert len(found) == 5
    with pytest.raises(InvdiffError, match=r"pip install 'invdiff\[video\]', or take its frames"):
        read(found["a.mp4"], tmp_path / "p")


def test_one_of_several(tmp_path: Path) -> None:
    path = animation(tmp_path / "a.gif")
    Image.fromarray(drawn()[0]).save(tmp_path / "one.png")
    pages = [Image.fromarray(a) for a in drawn()]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    for several in (path, tmp_path / "a.tif"):
        got = np.asarray(Image.open(one_of(several, 2, tmp_path)).convert("RGB"))
        np.testing.assert_array_equal(got, drawn()[2])
    with pytest.raises(InvdiffError, match="holds 4 pictures, counted from 0; there is no 4"):
        one_of(path, 4, tmp_path)
    with pytest.raises(InvdiffError, match="holds one picture; leave --frame out"):
        one_of(tmp_path / "one.png", 0, tmp_path)


def test_a_batch_of_frames_and_its_animation(tmp_path: Path) -> None:
    """A frame is what restore --frame makes of it with its seed; together they are shown as long,
    and as often, as before."""
    animation(tmp_path / "in.gif")
    command = ["batch", "denoise", str(tmp_path / "in.gif"), *OPTIONS]
    out = tmp_path / "out"
    assert main([*command, "--out", str(out), "--animate"]) == 0
    names = [f"in.gif/frame-{k:05}" for k in range(4)]
    told = [json.loads((out / "items" / n / "item.json").read_text()) for n in names]
    assert [t["seed"] for t in told] == [seed_of(0, n) for n in names]
    one = ["restore", "denoise", str(tmp_path / "in.gif"), "--frame", "2", "--seed"]
    one += [str(told[2]["seed"]), "--out", str(tmp_path / "one"), *OPTIONS[:-2]]
    assert main(one) == 0
    for name in ("estimate.png", "sample-2.png"):
        alone = (tmp_path / "one" / name).read_bytes()
        assert alone == (out / "items" / names[2] / name).read_bytes()
    with Image.open(out / "videos/in.gif") as image:
        assert image.n_frames == 4 and image.info["loop"] == 3
        for k, name in enumerate(names):
            image.seek(k)
            assert image.info["duration"] == TIMES[k]
            shown = np.asarray(image.convert("RGB"), float)
            right = np.asarray(Image.open(out / "items" / name / "estimate.png"), float)
            assert np.abs(shown - right).mean() < 3  # of its palette of 256 colours
    assert main([*command, "--out", str(tmp_path / "tar"), "--animate", "--tar"]) == 2


def test_an_animation_needs_all_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lacks a frame is left out, with the reason, and the others are written."""
    (tmp_path / "in").mkdir()
    for name in ("a.webp", "b.apng"):
        animation(tmp_path / "in" / name)
    for name in ("a", "b"):
        for k in range(4):
            size = (16, 20) if (name, k) != ("a", 1) else (5, 5)
            mask = np.zeros(size, np.uint8)
            mask[:3, :3] = 255
            Image.fromarray(mask).save(tmp_path / "in" / f"{name}-{k:05}-mask.png")
    command = ["batch", "inpaint", str(tmp_path / "in"), "--mask", "{stem}-{frame}-mask.png"]
    command += [*OPTIONS, "--want", "estimate", "--animate", "--out", str(tmp_path / "out")]
    assert main(command) == 3
    said = capsys.readouterr()
    assert "1 in " in said.out and "a.webp is left out: its frame 1 was not restored" in said.err
    assert [p.name for p in (tmp_path / "out/videos").iterdir()] == ["b.apng"]
    with Image.open(tmp_path / "out/videos/b.apng") as image:
        image.seek(3)
        shown = np.asarray(image.convert("RGB"))
    right = Image.open(tmp_path / "out/items/b.apng/frame-00003" / SHOWN[0]).convert("RGB")
    np.testing.assert_array_equal(shown, np.asarray(right))  # lossless


@pytest.mark.parametrize(("ending", "size"), [(".mp4", (15, 21)), (".mp4", (32, 48)),
                                              (".webm", (32, 48)), (".avi", (32, 48))])  # fmt: skip
def test_a_video_is_written_with_its_rate(
    ending: str, size: tuple[int, int], tmp_path: Path
) -> None:
    """Of its kind; odd sizes too; frames look as the pictures do."""
    av = pytest.importorskip("av")
    like, pictures = film(tmp_path / f"a{ending}", 14), []
    for k, array in enumerate(drawn(8, size)):
        pictures.append(tmp_path / f"{k}.png")
        Image.fromarray(array).save(pictures[-1])
    target = tmp_path / f"b{ending}"
    video.write(target, video.rate(str(like)), pictures)
    with av.open(str(target)) as file:
        assert float(file.streams.video[0].average_rate) == pytest.approx(12, rel=0.02)
    found = list(frames(str(target)))
    assert len(found) == 8
    for k in (0, 5):
        got = np.asarray(video.frame(str(target), k, found[k][1]["pts"]), float)
        assert got.shape == (*size, 3) and np.abs(got - drawn(8, size)[k]).mean() < 12
