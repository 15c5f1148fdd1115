"""Pictures written together, as an animation or a video of the kind that they came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


def write_together(target: Path, like: str, pictures: Sequence[Path]) -> None:
    """Write pictures of one size as what `like` is, with its durations, or its frame rate.

    Animations of Pillow hold all frames in memory while they are written, videos one. Raises
    InvdiffError as `video.write` does.
    """
    ending = Path(like).suffix.lower()
    if ending not in ANIMATIONS:
        video.write(target, like, pictures)
        return
    kind, more = FORMATS[ending]
    durations, about = _timed(like)
    first, rest = next(iter(_Opened(pictures[:1]))), _Opened(pictures[1:])
    first.save(target, kind, save_all=True, append_images=rest, duration=durations, **about, **more)


def _timed(path: str) -> tuple[list[int], dict[str, int]]:
    """Milliseconds of each frame, and how often it is shown, where the file tells that."""
    with Image.open(path) as image:
        found = []
        for number in range(int(getattr(image, "n_frames", 1))):
            image.seek(number)
            image.load()  # some plug-ins know a duration only then
            found.append(int(image.info.get("duration", USUAL)))
        loop = image.info.get("loop")
    return found, {} if loop is None else {"loop": int(loop)}


class _Opened:
    """Pictures that are opened one by one, as often as they are gone through: Pillow looks at those
    of an APNG twice."""

    def __init__(self, pictures: Sequence[Path]) -> None:
        self.pictures = pictures

    def __iter__(self) -> Iterator[Image.Image]:
        for path in self.pictures:
            with Image.open(path) as image:
                yield image.convert("RGBA" if image.has_transparency_data else "RGB")
