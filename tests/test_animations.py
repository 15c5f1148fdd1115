"""Animations as they are written: every frame, its values and its time, as Pillow reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from invdiff.files.animation import Pace, pace_of, write_together
from invdiff.files.frames import each, listed


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
