"""The items of a batch: one measurement each, with a name that is the same on every machine."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from invdiff.batch import inside
from invdiff.core import InvdiffError
from invdiff.scans.dicom_files import is_dicom, series_in

LISTS = (".txt", ".lst")
"""Endings of files that list items, a path a line."""
OTHERS = {
    ".txt", ".lst", ".md", ".rst", ".json", ".jsonl", ".yaml", ".yml", ".csv", ".tsv", ".html",
    ".xml", ".log", ".db", ".ini", ".py", ".ipynb", ".sh", ".toml", ".pdf", ".zip", ".gz", ".xz",
    ".part", ".tmp",
}  # fmt: skip
"""Endings in folders of what is no measurement; a list, or a glob with the ending, takes them."""
PROBED = 20
"""Files of a folder that are looked at, to tell a DICOM series."""
PATTERNS = ("{stem}", "{name}", "{dir}", "{page}", "{frame}")
"""What differs from item to item in the value of an option."""
SEED_BYTES = 6
"""Of a seed: whole numbers that JSON readers keep exactly."""


@dataclass(frozen=True)
class BatchItem:
    """One measurement. id: its name, a relative path with /. path: of its file, absolute.

    within: where it lies in the file, for one of several.
    """

    id: str
    path: str
    within: dict[str, Any] = field(default_factory=dict)

    @property
    def shared(self) -> bool:
        """Whether what lies beside it is in the same file, as with members of an archive."""
        return inside.shared(self.within)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        plain: dict[str, Any] = {"id": self.id, "path": self.path}
        return plain | ({"within": self.within} if self.within else {})


def hashed(text: str) -> bytes:
    """SHA-256 of a text; file names that are no UTF-8 too."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def shard_of(name: str, shards: int) -> int:
    """The shard of an item: a function of its id alone."""
    return int.from_bytes(hashed(name)[:8], "big") % shards


def seed_of(seed: int, name: str) -> int:
    """The seed of an item: a function of the run's seed and the item's id."""
    return int.from_bytes(hashed(f"{seed}/{name}")[:SEED_BYTES], "big")


def beside(pattern: str, item: BatchItem) -> str:
    """A pattern with {stem}, {name} and {dir} of an item; a relative one from the item's folder.

    Of a member of an archive it is the id of another one. Of a page of a TIFF, a frame, and
    a series, they are those of the file or the folder; {page} and {frame} are its number.
    """
    at = PurePosixPath(item.id)
    if item.within and not item.shared:
        at = at.parent
        pattern = pattern.replace("{page}", f"{item.within.get('page', 0):03}")
        pattern = pattern.replace("{frame}", f"{item.within.get('frame', 0):05}")
    text = pattern.replace("{stem}", at.stem).replace("{name}", at.name)
    text = text.replace("{dir}", str(at.parent))
    if item.shared:
        return os.path.normpath(os.path.join(str(at.parent), text))
    return os.path.normpath(os.path.join(os.path.dirname(item.path), text))


def is_pattern(value: Any) -> bool:
    """Whether a value of an option differs from item to item."""
    return isinstance(value, str) and any(k in value for k in PATTERNS)


@dataclass(frozen=True)
class ItemSource:
    """Where items come from.

    words: folders, globs, files, lists of files; patterns: of what lies beside items, which is none
    itself. apart: a folder that is passed over, the one of the results. folders: whether the task
    takes a folder of DICOM files as one item; series: whether each of its series is one. pages:
    whether each page of a TIFF is an item. column: of images in parquet files.
    """

    words: tuple[str, ...]
    patterns: tuple[str, ...] = ()
    apart: Path | None = None
    folders: bool = False
    series: bool = False
    pages: bool = False
    column: str | None = None

    def told(self) -> list[str]:
        """What decides which items there are, as JSON values."""
        return [*self.words, *([f"--column {self.column}"] if self.column else [])]

    def items(self, passed: Callable[[str], None] = lambda path: None) -> Iterator[BatchItem]:
        """All items, in whatever order. passed(path): called for files that are no measurement.

        Raises InvdiffError for a source that is not there.
        """
        if len(self.words) > 1:
            yield from self._apart(lambda: self._named(self.words, Path.cwd()))
            return
        (word,) = self.words
        path = Path(word)
        if path.is_dir():
            yield from self._apart(lambda: self._folder(path, path, passed))
        elif path.is_file() and path.suffix.lower() in LISTS:
            yield from self._apart(lambda: self._named(_lines(path), path.parent))
        elif path.is_file():
            item = BatchItem(path.name, os.path.abspath(path))
            yield from self._apart(lambda: inside.members(item, BatchItem, self.column, self.pages))
        elif glob.has_magic(word):
            yield from self._apart(lambda: self._glob(word))
        else:
            raise InvdiffError(
                f"There is no {word}; IN is a folder, a glob in quotes, files, or a list (.txt)."
            )

    def _apart(self, found: Callable[[], Iterator[BatchItem]]) -> Iterator[BatchItem]:
        """Items but those that lie beside others by a pattern."""
        if not self.patterns:
            yield from found()
            return
        pairs = ((beside(p, i), _place(i)) for i in found() for p in self.patterns)
        near = {at for at, own in pairs if at != own}
        yield from (i for i in found() if _place(i) not in near)

    def _folder(
        self, root: Path, folder: Path, passed: Callable[[str], None]
    ) -> Iterator[BatchItem]:
        with os.scandir(folder) as entries:
            inner = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        files = [e for e in inner if not e.is_dir()]
        if self.folders and any(is_dicom(Path(e.path)) for e in files[:PROBED] if e.is_file()):
            name = root.absolute().name if folder == root else folder.relative_to(root).as_posix()
            yield from self._series(BatchItem(name, os.path.abspath(folder)))
            return  # its reader takes what lies below too
        names = {e.name for e in files}
        for e in files:
            stem, ending = os.path.splitext(e.name)
            if ending.lower() in OTHERS or (ending == ".hdr" and f"{stem}.cfl" in names):
                passed(e.path)
                continue
            name = Path(e.path).relative_to(root).as_posix()
            yield from self._inner(BatchItem(name, os.path.abspath(e.path)))
        for e in inner:
            if e.is_dir(follow_symlinks=False) and not self._is_apart(e.path):
                yield from self._folder(root, Path(e.path), passed)

    def _series(self, item: BatchItem) -> Iterator[BatchItem]:
        """The series of a folder of DICOM files; the folder, where it holds but one, or is
        broken."""
        found = list[str]()
        with suppress(Exception):  # broken headers raise whatever they make pydicom meet
            found = series_in(Path(item.path)) if self.series else []
        if len(found) < 2:
            yield item
        for uid in found if len(found) > 1 else ():
            yield BatchItem(f"{item.id}/series-{uid or 'none'}", item.path, {"series": uid})

    def _inner(self, item: BatchItem) -> Iterator[BatchItem]:
        """The items in one of several files."""
        return inside.members_or_sentence(item, BatchItem, self.column, self.pages)

    def _is_apart(self, folder: str) -> bool:
        return self.apart is not None and os.path.realpath(folder) == os.path.realpath(self.apart)

    def _glob(self, word: str) -> Iterator[BatchItem]:
        parts = Path(word).parts
        fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        root = Path(*parts[:fixed]) if fixed else Path()
        out = None if self.apart is None else os.path.realpath(self.apart) + os.sep
        for found in glob.iglob(word, recursive=True):
            within = out is not None and os.path.realpath(found).startswith(out)
            if os.path.isfile(found) and not within:
                item = BatchItem(Path(found).relative_to(root).as_posix(), os.path.abspath(found))
                yield from self._inner(item)

    def _named(self, words: Sequence[str], folder: Path) -> Iterator[BatchItem]:
        """Items of paths, from a folder; an id is the path without what leads upwards."""
        found = [BatchItem(name_of(word), os.path.abspath(folder / word)) for word in words]
        seen = {item.id for item in found}
        for item in found:
            above = next((str(p) for p in PurePosixPath(item.id).parents if str(p) in seen), None)
            if above is not None:
                raise InvdiffError(
                    f"The items {above} and {item.id} cannot both have a folder of results; give "
                    "them in two batches."
                )
            yield from self._inner(item)


def _place(item: BatchItem) -> str:
    """What `beside` would call an item that lay beside another."""
    return item.id if item.shared else item.path


def name_of(path: str) -> str:
    """The id of a path in a list."""
    parts = [p for p in Path(os.path.normpath(path)).parts if p not in (os.sep, "..", "/")]
    if not parts or "\0" in path:
        raise InvdiffError(f"{path!r} names no file; a list has a path a line.")
    return "/".join(parts)


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise InvdiffError(f"{path} cannot be read ({error.strerror}).") from None
    found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not found:
        raise InvdiffError(f"{path} lists no file; it has a path a line.")
    return found
