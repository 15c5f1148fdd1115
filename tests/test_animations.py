"""Animations as they are written: every frame, its values and its time, as Pillow reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invdiff.files.animation import Pace, pace_of, write_together
from invdiff.files.frames import each, listed, one_of
from invdiff.files.pictures import read_photo
from invdiff.files.stitch import Still, write_apng


def pictures_of(folder: Path, frames: np.ndarray) -> list[Path]:
    folder.mkdir()
    found = []
    for k, frame in enumerate(frames):
        found.append(folder / f"{k}.png")
        Image.fromarray(frame).save(found[-1])
    return found


@pytest.mark.parametrize("ending", [".gif", ".apng", ".webp"])
@pytest.mark.parametrize("kind", ["grey", "colours", "transparent"])
def test_all_frames_are_written(kind: str, ending: str, tmp_path: Path) -> None:
    """Also equal ones, with their own times; a GIF keeps up to 256 colours a frame."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (40, 4 if kind == "transparent" else 3), dtype=np.uint8)
    colours[:, 3:] = np.where(colours[:, 3:] < 128, 0, 255)
    frames = colours[rng.integers(0, 40, (6, 23, 21))]
    if kind == "grey":
        frames = rng.integers(0, 256, (6, 23, 21), dtype=np.uint8)
    frames[2], frames[4], frames[5] = frames[1], frames[3], frames[3]
    pace = Pace(ending, (40, 50, 60, 70, 80, 2000), 3)
    path = tmp_path / f"a{ending}"
    write_together(path, pace, pictures_of(tmp_path / "p", frames))
    assert pace_of(str(path)) == pace and len(listed(path)) == 6
    for alone, frame in zip(each(path, tmp_path), frames, strict=True):
        mode = {"grey": "L", "colours": "RGB", "transparent": "RGBA"}[kind]
        got = np.asarray(Image.open(alone).convert(mode))
        if kind == "transparent":
            assert np.array_equal(got[..., 3], frame[..., 3])
            got, frame = got * (got[..., 3:] > 0), frame * (frame[..., 3:] > 0)
        if kind == "grey" or ending != ".gif":
            np.testing.assert_array_equal(got, frame)
        else:  # its colours are found anew
            assert np.abs(got.astype(float) - frame).mean() < 4


def test_grey_and_coloured_frames_together(tmp_path: Path) -> None:
    frames = pictures_of(tmp_path / "p", np.zeros((2, 8, 8), np.uint8))
    Image.new("RGB", (8, 8), (200, 10, 90)).save(frames[1])
    write_together(tmp_path / "a.apng", Pace(".apng", (70000,)), frames)
    got = [
        np.asarray(Image.open(p).convert("RGB"))[0, 0] for p in each(tmp_path / "a.apng", tmp_path)
    ]
    assert np.array_equal(got, [(0, 0, 0), (200, 10, 90)])
    assert pace_of(str(tmp_path / "a.apng")).durations == (70000, 100)


def test_grey_of_16_bits(tmp_path: Path) -> None:
    """An APNG of such frames keeps them, one by one and in order; written again they have 8."""
    frames = np.random.default_rng(0).integers(0, 65536, (3, 20, 18), dtype=np.uint16)
    paths = []
    for k, frame in enumerate(frames):
        paths.append(tmp_path / f"{k}.png")
        Image.fromarray(frame).save(paths[-1])
    with open(tmp_path / "a.apng", "wb") as file:
        write_apng(file, (Still(Image.open(p), 40) for p in paths), 3, 0)
    for k, alone in enumerate(each(tmp_path / "a.apng", tmp_path)):
        found = read_photo(alone)
        np.testing.assert_allclose(found.pixels[0] * 65535, frames[k], atol=0.01)
        one = read_photo(one_of(tmp_path / "a.apng", k, tmp_path / "."))
        assert found.depth == 16 and torch.equal(one.pixels, found.pixels)
    write_together(tmp_path / "b.apng", Pace(".apng", (40,) * 3), paths)
    for k, alone in enumerate(each(tmp_path / "b.apng", tmp_path)):
        np.testing.assert_allclose(np.asarray(Image.open(alone)) * 257.0, frames[k], atol=129)
