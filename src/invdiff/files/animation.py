"""Pictures written together, of the kind that they came from: animation, video, TIFF of pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, repeat
from pathlib import Path

import numpy as np
from PIL import Image

from invdiff.files import video
from invdiff.files.frames import ANIMATIONS
from invdiff.files.pages import TIFFS
from invdiff.files.stitch import WRITERS, Still

USUAL = 100
"""Milliseconds of a frame that tells none."""


@dataclass(frozen=True)
class Pace:
    """How frames are shown. ending: of the file, which tells its kind. durations: milliseconds of
    each frame, of animations; loop: how often they are shown, 0 for ever, None where the file does
    not tell. rate: frames a second of a video, as "25" or "30000/1001". Pages have none of it."""

    ending: str
    durations: tuple[int, ...] = ()
    loop: int | None = None
    rate: str = ""


def pace_of(path: str) -> Pace:
    """The pace of an animation or a video, and the kind of a TIFF. Raises InvdiffError as
    `video.rate` does."""
    ending = Path(path).suffix.lower()
    if ending in TIFFS:
        return Pace(ending)
    if ending not in ANIMATIONS:
        return Pace(ending, rate=str(video.rate(path)))
    with Image.open(path) as image:
        found = []
        for number in range(int(getattr(image, "n_frames", 1))):
            image.seek(number)
            image.load()  # some plug-ins know a duration only then
            found.append(int(image.info.get("duration", USUAL)))
        loop = image.info.get("loop")
    return Pace(ending, tuple(found), None if loop is None else int(loop))


def write_together(target: Path, pace: Pace, pictures: Sequence[Path]) -> None:
    """Write pictures of one size as an animation or a video of a pace, one after the other, and of
    8 bits and any size as pages of a TIFF.

    All are written, also those that equal the one before. Raises InvdiffError as `video.write`
    does.
    """
    if pace.ending in TIFFS:
        _write_pages(target, pictures)
        return
    if pace.ending not in ANIMATIONS:
        video.write(target, Fraction(pace.rate), pictures)
        return
    modes = set[str]()
    for path in pictures:
        with Image.open(path) as image:
            modes.add("RGBA" if image.has_transparency_data else image.mode)
    mode = "RGBA" if "RGBA" in modes else "L" if modes <= {"1", "L", "I;16"} else "RGB"
    with open(target, "wb") as file:
        stills = _stills(pictures, mode, pace.durations)
        WRITERS[pace.ending](file, stills, len(pictures), pace.loop)


def _write_pages(target: Path, pictures: Sequence[Path]) -> None:
    """Write pictures as pages of a TIFF, without loss."""

    def opened(path: Path) -> Image.Image:
        with Image.open(path) as image:
            return image.copy()

    rest = (opened(path) for path in pictures[1:])
    opened(pictures[0]).save(
        target, "TIFF", save_all=True, append_images=rest, compression="tiff_adobe_deflate"
    )


def _stills(pictures: Sequence[Path], mode: str, durations: Sequence[int]) -> Iterator[Still]:
    for path, shown in zip(pictures, chain(durations, repeat(USUAL)), strict=False):
        with Image.open(path) as image:
            yield Still(_of_8_bits(image).convert(mode), shown)


def _of_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, which Pillow would clip, as the nearest of 8."""
    if image.mode != "I;16":
        return image
    return Image.fromarray(((np.asarray(image, np.uint32) + 128) // 257).astype(np.uint8))
