"""Moving pictures, and pages of a TIFF, that are damaged one by one, each with its own noise."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.files.animation import Pace, pace_of, write_together
from invdiff.files.arrays import check_file
from invdiff.files.frames import ANIMATIONS, MOVING, SEVERAL, each, listed
from invdiff.files.pages import TIFFS
from invdiff.files.pictures import read_photo, save_picture, words
from invdiff.tasks.base import Made, told_level
from invdiff.tasks.pictures import clean_pixels, without_margin

if TYPE_CHECKING:
    from invdiff.tasks.photo import PhotoTask


def holds_several(file: Path) -> bool:
    """Whether a file is an animation of several frames, a video, or a TIFF of several pages.

    Raises InvdiffError where there is no such file, or a video cannot be read.
    """
    check_file(file)
    return file.suffix.lower() in SEVERAL and bool(listed(file))


def check_still(task: str, file: Path) -> None:
    """Raise InvdiffError for a moving picture, of which a task would measure but one."""
    if file.is_file() and file.suffix.lower() in MOVING and holds_several(file):
        raise InvdiffError(
            f"{task} measures one picture, and {file} has {len(listed(file))} frames; take one out "
            f"of it, as by `ffmpeg -i {file} frame%04d.png`."
        )


@dataclass(frozen=True)
class _Film:
    """Clean frames, or pages, of one size. what: which of these. size: (H, W); channels: 1 or 3, of
    all. about: in words."""

    task: PhotoTask
    file: Path
    what: str
    size: tuple[int, int]
    channels: int
    count: int
    about: str
    notes: tuple[str, ...]

    def truths(self) -> Iterator[Tensor]:
        """Frames (C, H, W) on [0, 1], one after the other."""
        for truth, _, _ in _clean(self.task, self.file):
            yield truth.expand(self.channels, -1, -1)


def made_clip(task: PhotoTask, file: Path, out: Path, seed: int) -> Made:
    """All frames of a moving picture, or pages of a TIFF, damaged: measurement and truth as such.

    A mask, or a kernel, is that of all; the noise of frame k is a function of the seed and k. They
    are written without loss, of the kind of the file where that can be (`_ending`). Raises
    InvdiffError before anything is written for frames of several sizes, and measurements that no
    moving picture holds.
    """
    if task.counts:
        raise InvdiffError(
            f"{task.name} measures values above white, which the {_what(file)} of {file} cannot "
            "hold; give one of them, with --frame 0."
        )
    film, level = _film(task, file), told_level(task.level)
    one, more = task.beside(film.size, out, seed)
    one = dataclasses.replace(one, frame=None)
    A, model = task.operator(film.size), task.likelihood(level, (0.0, 1.0), 1)
    channels, height, width = A.y_shape((film.channels, *film.size))
    kept = pace_of(str(file))
    paces = [_pace(kept, film.count, c) for c in (channels, film.channels)]
    names = [f"{n}{p.ending}" for n, p in zip(("measurement", "truth"), paces, strict=True)]

    def write(folder: Path) -> None:
        task.write_beside(folder, more)
        with tempfile.TemporaryDirectory(prefix="invdiff-") as inner:
            pictures: tuple[list[Path], list[Path]] = ([], [])
            for k, truth in enumerate(film.truths()):
                z = task.measures(A, truth[None])
                y = model.sample(z, Rng.of(seed).at(k))[0]
                shown = without_margin(truth, task.margin(film.size))
                for found, name, pixels in zip(pictures, ("y", "x"), (y, shown), strict=True):
                    found.append(Path(inner) / f"{name}-{k:05}.png")
                    save_picture(found[-1], pixels)
            for name, pace, found in zip(names, paces, pictures, strict=True):
                write_together(folder / name, pace, found)

    told = f"{film.count} {film.what} of {words((height, width))} pixels, noise {level:g} in each"
    notes = film.notes
    if paces[0].ending != kept.ending:
        notes += (f"written as {paces[0].ending}, for {kept.ending} would lose some of it",)
    if film.what == "frames":
        notes += (TOGETHER,)
    return Made(one, film.about, told, names[0], write, notes, names[1])


TOGETHER = "with --prior moving-fashion, or another of clips, all frames are restored together"


def _what(file: Path) -> str:
    return "pages" if file.suffix.lower() in TIFFS else "frames"


def _clean(task: PhotoTask, file: Path) -> Iterator[tuple[Tensor, list[str], str]]:
    """(pixels, notes, about) of the frames of a file."""
    with tempfile.TemporaryDirectory(prefix="invdiff-") as folder:
        for k, alone in enumerate(each(file, Path(folder))):
            try:
                photo = read_photo(alone, task.told())
                truth, notes = clean_pixels(photo, task.factor)
            except InvdiffError as error:
                one = _what(file).removesuffix("s").capitalize()
                raise InvdiffError(f"{one} {k} of {file}: {error}".replace(folder, "")) from error
            yield truth, notes, photo.about


def _film(task: PhotoTask, file: Path) -> _Film:
    """What the frames of a file have in common. Raises InvdiffError for several sizes."""
    size, channels, count, about, what = (0, 0), 1, 0, "", _what(file)
    said = dict[str, None]()
    for truth, notes, form in _clean(task, file):
        here = (int(truth.shape[1]), int(truth.shape[2]))
        if count and here != size:
            raise InvdiffError(
                f"{file} has {what} of {words(size)} and of {words(here)} pixels; convert it to "
                "one size, as by `ffmpeg -vf scale=WIDTH:HEIGHT`, or give one with --frame 0."
            )
        size, channels, about = here, max(channels, len(truth)), about or form
        said |= dict.fromkeys(notes)
        count += 1
    colour = "" if channels == 1 else ", colour"
    told = f"{count} {what} of {words(size)}{colour or ', grey'}"
    return _Film(task, file, what, size, channels, count, told, tuple(said))


def _pace(kept: Pace, count: int, channels: int) -> Pace:
    """The pace of what loses nothing: a TIFF, a WebP, a GIF of grey frames, else APNG, whose frames
    begin at the nearest millisecond to those of a video."""
    if kept.ending in TIFFS:
        return kept
    if kept.ending == ".webp" or (kept.ending == ".gif" and channels == 1):
        return kept
    if kept.ending in ANIMATIONS:
        return dataclasses.replace(kept, ending=".apng")
    starts = [round(1000 * k / Fraction(kept.rate)) for k in range(count + 1)]
    return Pace(".apng", tuple(b - a for a, b in zip(starts, starts[1:], strict=False)), 0)
