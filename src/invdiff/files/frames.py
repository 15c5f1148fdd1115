"""Frames of animations and videos, pages of a TIFF: which there are, and one as a file."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from invdiff.core import InvdiffError
from invdiff.files import pages, video
from invdiff.files.arrays import check_file
from invdiff.files.ends import breaks_off, cut_off, whole_pictures

ANIMATIONS = (".gif", ".apng", ".webp")
"""Endings of files that Pillow reads and that may hold several frames; a .png is one picture."""
MOVING = (*ANIMATIONS, *video.VIDEOS)
"""Endings of moving pictures."""
SEVERAL = (*MOVING, *pages.TIFFS)
"""Endings of files that are looked into."""
PLAIN = ("1", "L", "LA", "RGB", "RGBA", "I;16")
"""Modes of Pillow that a PNG holds as they are."""


def frames(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, where) of the pictures of a file, in order; none where it has but one, or cannot be
    read, which its reader tells.

    Raises InvdiffError for a video that cannot be read, or not without the extra `video`; and after
    those that are there, for a file that was cut off.
    """
    ending, count, cut = Path(path).suffix.lower(), 0, False
    if ending in pages.TIFFS:
        yield from pages.pages(path)
        return
    if ending in video.VIDEOS:
        for number, pts in enumerate(video.times(path)):
            yield f"frame-{number:05}", {"frame": number} | ({} if pts is None else {"pts": pts})
            count += 1
        with contextlib.suppress(OSError):  # it has gone since: the reader of its frames tells
            cut = breaks_off(path)
    else:
        count, cut = _count(path)
        for number in range(count if count > 1 or cut else 0):
            yield f"frame-{number:05}", {"frame": number}
    if count and cut:
        raise cut_off(path, count, "frame")


def listed(path: str | Path) -> list[dict[str, Any]]:
    """Where the pictures of a file lie, in order; none where it has but one, or is of another kind.

    Raises InvdiffError as `frames` does.
    """
    if Path(path).suffix.lower() not in SEVERAL:
        return []
    try:
        about = os.stat(path)
    except OSError:
        return [at for _, at in frames(str(path))]
    return list(_listed(str(path), about.st_mtime_ns, about.st_size))


@lru_cache(maxsize=8)
def _listed(path: str, changed: int, size: int) -> tuple[dict[str, Any], ...]:
    """`listed`, once for each state of a file: each frame of a long video asks for it."""
    return tuple(at for _, at in frames(path))


def each(path: str | Path, folder: Path) -> Iterator[Path]:
    """The pictures of `listed`, in order, each as a file of its own in a folder until the next.

    Of an animation or a video all are decoded once, from the first on. Raises InvdiffError as
    `unpacked` does, and where fewer can be decoded than there are.
    """
    for number, image in enumerate(_decoded(str(path), folder)):
        if isinstance(image, Path):
            yield image
            image.unlink(missing_ok=True)
            continue
        target = folder / f"frame-{number:05}.png"
        image.save(target, "PNG", icc_profile=image.info.get("icc_profile"))
        yield target
        target.unlink(missing_ok=True)


def _decoded(path: str, folder: Path) -> Iterator[Image.Image | Path]:
    """The pictures of a file; of a TIFF, files with a page each."""
    places = listed(path)
    if Path(path).suffix.lower() in pages.TIFFS:
        for at in places:
            yield unpacked(path, at, folder)
    elif Path(path).suffix.lower() in video.VIDEOS:
        yield from video.decoded(path, len(places))
    else:
        yield from _animation(path, len(places))


def _animation(path: str, count: int) -> Iterator[Image.Image]:
    """The frames of an animation, from the first on."""
    try:
        image = Image.open(path)
    except Exception as error:
        raise _unread(path, 0, error) from error
    with image:
        for number in range(count):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = _seen(image, number)
            yield found


def _count(path: str) -> tuple[int, bool]:
    """Frames of an animation, without decoding them, 0 of what cannot be read; and whether the file
    was cut off after them."""
    if Path(path).suffix.lower() == ".webp" and not _moves(path):
        return 1, False
    if Path(path).suffix.lower() == ".gif":
        with contextlib.suppress(OSError):
            count, cut = whole_pictures(path)
            if cut:
                return count, True
    with contextlib.suppress(Exception), warnings.catch_warnings():  # plug-ins raise anything
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            return int(getattr(image, "n_frames", 1)), False
    return 0, False


def _moves(path: str) -> bool:
    """Whether a WebP may be an animation, by its header alone: Pillow reads all of the file."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        head = file.read(21)  # WebP Container Specification, Extended File Format: VP8X and flags
        return head[12:16] == b"VP8X" and len(head) == 21 and bool(head[20] & 2)
    return False


def unpacked(path: str, within: dict[str, Any], folder: Path) -> Path:
    """A picture of `frames` as a file of its own in a folder: a TIFF, or a PNG of 8 bits, of 16
    where an APNG has grey frames of these.

    Raises InvdiffError where there is none.
    """
    if "page" in within:
        return pages.unpacked(path, within["page"], folder)
    number, target = within["frame"], folder / f"frame-{within['frame']:05}.png"
    if Path(path).suffix.lower() in video.VIDEOS:
        image = video.frame(path, number, within.get("pts"))
    else:
        image = _animated(path, number)
    image.save(target, "PNG", icc_profile=image.info.get("icc_profile"))
    return target


def _animated(path: str, number: int) -> Image.Image:
    """A frame as it is seen: what the frames before it left, and what it changes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as image:
                return _seen(image, number)
        except InvdiffError:
            raise
        except Exception as error:
            raise _unread(path, number, error) from error


def _seen(image: Image.Image, number: int) -> Image.Image:
    """A frame of an open animation as it is seen."""
    try:
        image.seek(number)
        image.load()
        if image.mode in PLAIN and not image.has_transparency_data:
            return image.copy()
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    except Exception as error:  # plug-ins raise whatever a broken file makes them meet
        raise _unread(str(getattr(image, "filename", "")), number, error) from error


def _unread(path: str, number: int, error: Exception) -> InvdiffError:
    if not Path(path).exists():
        return InvdiffError(f"There is no file {path}.")
    reason = " ".join(str(error).split()) or type(error).__name__
    return InvdiffError(
        f"Frame {number} of {path} cannot be read ({reason}); save the animation once more."
    )


def one_of(file: Path, number: int, folder: Path) -> Path:
    """The picture of a number, from 0, as a file of its own in a folder.

    Raises InvdiffError where the file has no such picture, or holds but one.
    """
    check_file(file)
    found = None
    count = 0
    if file.suffix.lower() in SEVERAL:
        for _, within in frames(str(file)):
            count += 1
            if number in (within.get("frame"), within.get("page")):
                found = within
                break
    if found is None and count == 0:
        raise InvdiffError(f"{file} holds one picture; leave --frame out.")
    if found is None:
        raise InvdiffError(f"{file} holds {count} pictures, counted from 0; there is no {number}.")
    return unpacked(str(file), found, folder)
