"""The results of an item: a folder that appears when it is whole, and never twice."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from invdiff import __version__
from invdiff.batch.items import BatchItem
from invdiff.batch.place import Place, dumps, unwritable
from invdiff.core import InvdiffError
from invdiff.core.checksum import LENGTH
from invdiff.core.durable import own_folder, rename_new, swap
from invdiff.core.folders import foreign, listing
from invdiff.core.signals import held
from invdiff.restoration.restored import Restoration, write_images

MARKER = "item.json"
UNNAMED = {errno.ENAMETOOLONG, errno.EILSEQ}
"""Errors that are the fault of an item's name; others the next item would meet too."""


def hash_of(*paths: Path) -> str:
    """SHA-256 of files; of a folder, of the names and the bytes of what lies in it.

    What is not there counts as nothing: whoever reads it says so.
    """
    found = hashlib.sha256()
    for path in paths:
        inner = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
        for file in inner:
            if file.is_file() and os.access(file, os.R_OK):
                found.update(f"{file.name if path.is_dir() else ''}:".encode("utf-8", "replace"))
                with open(file, "rb") as opened:
                    found.update(hashlib.file_digest(opened, "sha256").digest())
    return found.hexdigest()[:LENGTH]


def placed(
    place: Place, item: BatchItem, line: dict[str, Any], write: Callable[[Path], None]
) -> dict[str, Any]:
    """Write the results of an item; its line, with the hash of every file.

    Raises StoppedError where nothing can be written, InvdiffError where its folder is another's.
    """
    folder = place.items / item.id
    try:
        part = own_folder(place.out / "work")
    except OSError as error:
        raise unwritable(place.out, error) from error
    try:
        write(part)
        line["files"] = {p.name: hash_of(p) for p in sorted(part.iterdir())}
        told = {"invdiff": __version__} | line | {"hashes": line["files"]}
        told["files"] = sorted({*listing(part), MARKER})
        (part / MARKER).write_text(dumps(told) + "\n", encoding="utf-8")
        _place(part, folder)
    except OSError as error:
        if error.errno in UNNAMED:
            raise InvdiffError(
                f"There can be no folder {folder} ({error.strerror}); give the item a shorter name."
            ) from error
        raise unwritable(place.out, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return line


def _place(part: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with held():
        try:
            rename_new(part, folder)
        except FileExistsError:
            if not folder.is_dir() or folder.is_symlink() or foreign(folder, MARKER) != []:
                raise InvdiffError(
                    f"{folder} holds what no batch wrote, so it is not replaced; move that away."
                ) from None
            shutil.rmtree(swap(part, folder), ignore_errors=True)


def there(place: Place, item: BatchItem, line: Mapping[str, Any]) -> dict[str, Any] | None:
    """The line of results that lie there whole already, made by the same recipe of the same input.

    line: what is known before an item is restored. None where it is to be done.
    """
    folder = place.items / item.id
    try:
        told = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        files = told.pop("hashes")
        told["files"] = files
        same = all(told.get(k) == v for k, v in line.items())
        if same and all(hash_of(folder / name) == files[name] for name in files):
            return dict(told)
    except (OSError, ValueError, TypeError, AttributeError, LookupError):
        pass
    return None


def write_results(done: Restoration, folder: Path) -> None:
    """Write the images of a restoration, and std.npy, their uncertainty, in its units."""
    write_images(done, folder)
    if done.spread:
        np.save(folder / "std.npy", done.std.astype(np.float32))
