"""Pictures written together, as an animation or a video of the kind that they came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from invdiff.files import video
from invdiff.files.frames import ANIMATIONS

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".gif": ("GIF", {"disposal": 2}),
    ".apng": ("PNG", {}),
    ".webp": ("WEBP", {"lossless": True}),
}
"""By the ending: Pillow's name, and its options."""
USUAL = 100
"""Milliseconds of a frame that tells none."""


@dataclass(frozen=True)
class Pace:
    """How frames are shown. ending: of the file, which tells its kind. durations: milliseconds of
    each frame, of animations; loop: how often they are shown, 0 for ever, None where the file does
    not tell. rate: frames a second of a video, as "25" or "30000/1001"."""

    ending: str
    durations: tuple[int, ...] = ()
    loop: int | None = None
    rate: str = ""


def pace_of(path: str) -> Pace:
    """The pace of an animation or a video. Raises InvdiffError as `video.rate` does."""
    ending = Path(path).suffix.lower()
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
    """Write pictures of one size as an animation or a video of a pace.

    Animations of Pillow hold all frames in memory while they are written, videos one. Raises
    InvdiffError as `video.write` does.
    """
    if pace.ending not in ANIMATIONS:
        video.write(target, Fraction(pace.rate), pictures)
        return
    kind, more = FORMATS[pace.ending]
    if pace.loop is not None:
        more = {**more, "loop": pace.loop}
    first, rest = next(iter(_Opened(pictures[:1]))), _Opened(pictures[1:])
    durations = list(pace.durations)
    first.save(target, kind, save_all=True, append_images=rest, duration=durations, **more)


class _Opened:
    """Pictures that are opened one by one, as often as they are gone through: Pillow looks at those
    of an APNG twice."""

    def __init__(self, pictures: Sequence[Path]) -> None:
        self.pictures = pictures

    def __iter__(self) -> Iterator[Image.Image]:
        for path in self.pictures:
            with Image.open(path) as image:
                yield image.convert("RGBA" if image.has_transparency_data else "RGB")
