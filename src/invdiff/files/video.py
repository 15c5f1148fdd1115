"""Videos by PyAV, the extra `video`: when frames are shown, one frame, a video of many."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from invdiff.core import InvdiffError
from invdiff.files.raster import check_pixels

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")
CODECS = {".webm": "libvpx-vp9", ".avi": "mpeg4", ".mpg": "mpeg2video", ".mpeg": "mpeg2video"}
"""What writes each ending; H.264 the others."""
QUALITY = {"libx264": {"crf": "12", "mbtree": "0"}, "libvpx-vp9": {"crf": "12", "b": "0"}}
"""Options of encoders for pictures that look as they were; the others are given a bit rate. The
trees of libx264 depend on memory that it did not write: the same pictures became other bytes."""
BIT_EXACT = {"fflags": "+bitexact"}
"""Of containers: no times and no random numbers in files."""
BITS = 4
"""Of a pixel, where a bit rate is given."""


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    """An open container. Raises InvdiffError for whatever PyAV raises."""
    try:
        import av
    except ImportError:
        raise InvdiffError(
            f"{path} is a video, and PyAV, which reads it, is not installed; pip install "
            f"'invdiff[video]', or take its frames out by `ffmpeg -i {path} frame%04d.png`."
        ) from None
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise InvdiffError(f"{path} holds no pictures; give a video.")
            container.streams.video[0].codec_context.thread_count = 1
            yield container
    except InvdiffError:
        raise
    except Exception as error:  # of broken files: errors of FFmpeg, of values, of memory
        if not Path(path).exists():
            raise InvdiffError(f"There is no file {path}.") from None
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InvdiffError(
            f"{path} cannot be read as a video ({reason}); convert it by `ffmpeg -i {path} x.mp4`."
        ) from error


def times(path: str) -> list[int | None]:
    """When each frame is shown, in order, in the units of the file; None for all where it does not
    tell.

    Nothing is decoded. Raises InvdiffError for a file without frames, and for one that is no video.
    """
    found = list[int | None]()
    with _opened(path) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.size and not packet.is_discard:
                found.append(packet.pts)
    known = sorted({t for t in found if t is not None})
    if not found:
        raise InvdiffError(f"{path} holds no frame; make it once more.")
    return list(known) if len(known) == len(found) else [None] * len(found)


def frame(path: str, number: int, pts: int | None) -> Image.Image:
    """A frame, upright, in colours of 8 bits. pts: when it is shown; None counts frames.

    It is decoded from the key frame before it. Raises InvdiffError where there is none.
    """
    found = None
    if pts is not None:
        with _opened(path) as container:
            container.seek(pts, stream=container.streams.video[0])
            found = _shown_at(container, pts)
    if found is None:  # no time, or a key frame that does not open what follows it
        with _opened(path) as container:
            decoded = container.decode(container.streams.video[0])
            if pts is not None:
                found = _shown_at(container, pts)
            else:
                found = next((_upright(f) for k, f in enumerate(decoded) if k == number), None)
    if found is None:
        raise InvdiffError(f"{path} has no frame {number} that can be decoded; make it once more.")
    return found


def decoded(path: str, count: int) -> Iterator[Image.Image]:
    """All frames, upright, in the order in which they are shown, in colours of 8 bits.

    Raises InvdiffError unless there are so many.
    """
    done = 0
    with _opened(path) as container:
        for found in container.decode(container.streams.video[0]):
            yield _upright(found)
            done += 1
    if done != count:
        raise InvdiffError(
            f"{path} tells of {count} frames, but {done} can be decoded; make it once more."
        )


def _shown_at(container: Any, pts: int) -> Image.Image | None:
    for decoded in container.decode(container.streams.video[0]):
        if decoded.pts == pts:
            return _upright(decoded)
        if decoded.pts is not None and decoded.pts > pts:
            break
    return None


def _upright(decoded: Any) -> Image.Image:
    check_pixels((decoded.height, decoded.width), "A frame of the video")
    return Image.fromarray(turned(decoded.to_ndarray(format="rgb24"), decoded.rotation))


def turned(array: np.ndarray, degrees: float) -> np.ndarray:
    """(H, W, 3) turned counterclockwise, as a display matrix asks; by quarters alone."""
    return np.ascontiguousarray(np.rot90(array, round(degrees / 90) % 4))


def rate(path: str) -> Fraction:
    """Frames a second. Raises InvdiffError for a file that is no video."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        return Fraction(stream.average_rate or stream.guessed_rate or 25)


def write(target: Path, rate: Fraction, pictures: Iterable[Path]) -> None:
    """Write pictures of one size as a video of so many frames a second, without sound.

    By H.264, VP9, or the codec that is usual for the ending; lossy. Raises InvdiffError where there
    is no encoder for it, or no PyAV.
    """
    try:
        import av
        from av.codec.context import Flags
    except ImportError:
        raise InvdiffError(
            f"{target.name} is a video, and PyAV, which writes it, is not installed; pip install "
            "'invdiff[video]'."
        ) from None
    codec = CODECS.get(target.suffix.lower(), "libx264")
    try:
        with av.open(str(target), "w", options=BIT_EXACT) as out:
            stream = None
            for path in pictures:
                array = _pixels(path)
                if stream is None:
                    height, width = array.shape[:2]
                    stream = out.add_stream(codec, rate=rate, options=QUALITY.get(codec, {}))
                    even = height % 2 == 0 and width % 2 == 0
                    stream.pix_fmt = "yuv420p" if even or codec not in QUALITY else "yuv444p"
                    stream.width, stream.height = width, height
                    stream.codec_context.thread_count = 1
                    stream.codec_context.flags |= Flags.bitexact
                    if codec not in QUALITY:
                        stream.bit_rate = int(BITS * height * width * rate)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
            if stream is not None:
                out.mux(stream.encode(None))
    except OSError as error:
        if error.filename == str(target):
            raise
        raise _unwritten(target, error) from error
    except (ValueError, TypeError) as error:
        raise _unwritten(target, error) from error


def _pixels(path: Path) -> np.ndarray:
    """A picture in colours of 8 bits, (H, W, 3)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _unwritten(target: Path, error: Exception) -> InvdiffError:
    reason = " ".join(str(error).split())[:200]
    return InvdiffError(f"{target.name} cannot be written as a video ({reason}).")
