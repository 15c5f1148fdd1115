"""Folders of results, which appear when they are whole; nothing of others is ever deleted."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from invdiff.core.durable import own_folder, rename_new, swap, sync, sync_tree
from invdiff.core.errors import InvdiffError
from invdiff.core.signals import held

LONGEST = 255
"""Bytes of a name that file systems take."""
ROOM = len("-9999.checkpoint")
"""Bytes that are left for names beside it."""
OLDER = re.compile(
    r"run\.json|run\.safetensors|(overview|uncertainty)\.png|degrade\.json"
    r"|(estimate|mean|best|sample-\d+)(-phase)?\.(png|npy|tif)"
    r"|(measurement|truth|mask|masks|kernel|spectrum|sinogram|kspace|coil-maps)\.(png|npy|npz|jpg)"
)
"""Names of files in folders of versions whose marker had no list of `files`."""


class TakenError(InvdiffError):
    """A folder is there that may not be replaced."""


def check_folder(folder: Path, overwrite: bool, marker: str) -> None:
    """Raise InvdiffError unless a folder of results may be written there.

    marker: the JSON file that every folder of results has. One that exists may be replaced with
    overwrite where it holds nothing but files that were written with its marker.
    """
    _check_name(folder)
    if os.path.lexists(folder):
        if not overwrite and (folder.exists() or not folder.is_symlink()):
            raise TakenError(f"{folder} exists; choose another folder or allow --overwrite.")
        _check_replaceable(folder, marker)
    parent = next(p for p in folder.absolute().parents if p.exists())
    try:  # what access(2) allows a file system may still refuse
        own_folder(parent).rmdir()
    except OSError:
        raise InvdiffError(f"{folder} cannot be made, because {parent} is not writable.") from None


def check_apart(folder: Path, *inputs: str) -> None:
    """Raise InvdiffError when an input file lies in a folder that may be replaced."""
    for path in map(Path, inputs):
        if path.exists() and folder.resolve() in path.resolve().parents:
            raise InvdiffError(f"{path} lies in {folder}; choose another folder for the results.")


@contextlib.contextmanager
def whole_folder(folder: Path, overwrite: bool = False, marker: str = "run.json") -> Iterator[Path]:
    """A folder to write into, which becomes `folder` when the block has succeeded.

    It is a new one beside `folder`; a block that fails leaves nothing. The files are on the disk
    before the folder appears. Raises InvdiffError as `check_folder` does, before and after.
    """
    with _part(folder, overwrite, marker) as part:
        yield part
        sync_tree(part)
        _place(part, folder.absolute(), overwrite, marker)


def write_folder(
    folder: Path,
    write: Callable[[Path], None],
    overwrite: bool = False,
    marker: str = "run.json",
) -> Path:
    """Where a folder is that was written by `write`, and appeared when it was whole.

    That is `folder`, or, where another came into being meanwhile, the first of FOLDER-2, FOLDER-3
    and so on that is free. Raises InvdiffError as `check_folder` does, before anything is written.
    """
    with _part(folder, overwrite, marker) as part:
        write(part)
        sync_tree(part)
        for place in beside(folder):
            with contextlib.suppress(TakenError):
                _place(part, place.absolute(), overwrite and place == folder, marker)
                return place
    raise AssertionError("there is always another name")


def beside(folder: Path) -> Iterator[Path]:
    """folder, then FOLDER-2, FOLDER-3 and so on."""
    yield folder
    for number in itertools.count(2):
        yield folder.with_name(f"{folder.name}-{number}")


@contextlib.contextmanager
def _part(folder: Path, overwrite: bool, marker: str) -> Iterator[Path]:
    """A folder of this process beside `folder`, which is removed unless it was placed."""
    check_folder(folder, overwrite, marker)
    with _parents(folder.absolute()) as parent:
        part = own_folder(parent)
        try:
            yield part
        finally:
            with held():
                shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def _parents(folder: Path) -> Iterator[Path]:
    """The folder around `folder`; what was missing of it is removed again after a failure."""
    missing = [p for p in folder.parents if not p.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield folder.parent
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _place(part: Path, folder: Path, overwrite: bool, marker: str) -> None:
    """Rename a whole folder to its place. Raises TakenError where that is another's."""
    with held():
        if not (overwrite and os.path.lexists(folder)):
            try:
                rename_new(part, folder)
            except FileExistsError:
                raise TakenError(
                    f"{folder} came into being meanwhile; choose another folder."
                ) from None
        else:
            _check_replaceable(folder, marker)
            old = swap(part, folder)
            names = listing(old)
            ours = _written(old, marker, names) or []
            if set(names) - set(ours):  # they came within the last moment
                shutil.rmtree(swap(old, folder), ignore_errors=True)
                _check_replaceable(folder, marker)
            _discard(old, ours)
        sync(folder.parent)


def _discard(old: Path, names: list[str]) -> None:
    """Delete what is left of a folder of results: the files of these names."""
    with contextlib.suppress(OSError):
        for name in names:
            (old / name).unlink(missing_ok=True)
        inner = {old / parent for name in names for parent in Path(name).parents}
        for folder in sorted(inner | {old}, key=lambda f: len(f.parts), reverse=True):
            folder.rmdir()


def remove_results(folder: Path, marker: str) -> None:
    """Delete a folder of results. Raises InvdiffError where it holds anything else."""
    _check_replaceable(folder, marker)
    with held():
        _discard(folder, written(folder, marker))
    if folder.exists():
        _check_replaceable(folder, marker)
        raise TakenError(f"{folder} cannot be deleted; choose another folder.")


def _check_name(folder: Path) -> None:
    """Raise InvdiffError unless the path can be that of a new folder."""
    shown = str(folder)[:60] + "..." * (len(str(folder)) > 60)
    if "\0" in str(folder):
        raise InvdiffError(f"{shown!r} is no name of a folder; choose another for --out.")
    try:
        exists = True
        folder.lstat()
    except (FileNotFoundError, NotADirectoryError):
        exists = False
    except OSError as error:
        raise InvdiffError(
            f"There can be no folder {shown} ({error.strerror}); choose another for --out."
        ) from None
    if not exists and len(os.fsencode(folder.name)) > LONGEST - ROOM:
        raise InvdiffError(
            f"The name {shown} is too long: results take one of at most {LONGEST - ROOM} bytes; "
            "choose a shorter one for --out."
        )
    if not exists and folder.name in ("", ".", ".."):
        raise InvdiffError(f"{shown or '.'} names no new folder; give its name for --out.")


def _check_replaceable(folder: Path, marker: str) -> None:
    """Raise TakenError unless --overwrite may replace what is there."""
    if folder.is_symlink():
        gone = "" if folder.exists() else ", which is not there"
        raise TakenError(
            f"{folder} is a link to {os.readlink(folder)}{gone}, so it is not overwritten; "
            "give the folder itself, or choose another."
        )
    if not folder.is_dir():
        raise TakenError(
            f"{folder} is a file and no folder of results, so it is not overwritten; choose "
            "another folder."
        )
    others = foreign(folder, marker)
    if others is None:
        raise TakenError(
            f"{folder} holds other things than an earlier result (no {marker} of a run), so it is "
            "not overwritten; choose another folder."
        )
    if others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" * (len(others) > 3))
        raise TakenError(
            f"{folder} holds what no run wrote ({shown}), so it is not overwritten; move that "
            "away, or choose another folder."
        )
    if folder.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise TakenError(
            f"{folder} is the working folder, which is not overwritten; choose a folder in it."
        )


def listing(folder: Path) -> list[str]:
    """All that is in a folder, as names from there: files, links, and folders that are empty."""
    found = []
    for place, inner, files in os.walk(folder):
        links = [name for name in inner if (Path(place) / name).is_symlink()]
        for name in (*files, *links):
            found.append((Path(place) / name).relative_to(folder).as_posix())
        if not inner and not files and Path(place) != folder:
            found.append(Path(place).relative_to(folder).as_posix())
    return sorted(found)


def foreign(folder: Path, marker: str) -> list[str] | None:
    """Names in a folder that were not written with its marker; None where there is no marker."""
    if not (folder / marker).is_file():
        return None if any(folder.iterdir()) else []
    names = listing(folder)
    ours = _written(folder, marker, names)
    return None if ours is None else [name for name in names if name not in ours]


def written(folder: Path, marker: str) -> list[str]:
    """Names of the files in a folder of results that were written with its marker."""
    return _written(folder, marker, listing(folder)) or []


def _written(folder: Path, marker: str, names: list[str]) -> list[str] | None:
    """Which of the names are files that were written with the marker; None without a marker."""
    try:
        told = json.loads((folder / marker).read_text(encoding="utf-8"))
        if "invdiff" not in told:
            return None
        known = told.get("files", [name for name in names if OLDER.fullmatch(name)])
        files = [n for n in names if (folder / n).is_file() and not (folder / n).is_symlink()]
        return [name for name in files if name in known]
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
