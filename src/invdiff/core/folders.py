"""Folders of results, which appear when they are whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from invdiff.core import InvdiffError


def check_folder(folder: Path, overwrite: bool, marker: str) -> None:
    """Raise InvdiffError unless `whole_folder` may write there."""
    if folder.exists() and not overwrite:
        raise InvdiffError(f"{folder} exists; choose another folder or allow --overwrite.")
    ours = folder.is_dir() and ((folder / marker).is_file() or not any(folder.iterdir()))
    if folder.exists() and not ours:
        raise InvdiffError(
            f"{folder} holds other things than an earlier result (no {marker}), so it is not "
            "overwritten; choose another folder."
        )
    parent = next(p for p in folder.absolute().parents if p.exists())
    try:  # what access(2) allows a file system may still refuse
        os.rmdir(tempfile.mkdtemp(prefix=".invdiff-", dir=parent))
    except OSError:
        raise InvdiffError(f"{folder} cannot be made, because {parent} is not writable.") from None


def check_apart(folder: Path, *inputs: str) -> None:
    """Raise InvdiffError when an input file lies in a folder that may be replaced."""
    for path in map(Path, inputs):
        if path.exists() and folder.resolve() in path.resolve().parents:
            raise InvdiffError(f"{path} lies in {folder}; choose another folder for the results.")


@contextlib.contextmanager
def whole_folder(folder: Path, overwrite: bool = False, marker: str = "run.json") -> Iterator[Path]:
    """A folder to write into (FOLDER.part), which becomes `folder` when the block has succeeded.

    marker: a file that tells a folder written by this function: with `overwrite`, such a folder, or
    an empty one, is replaced; no other ever is. A block that fails leaves nothing.
    """
    check_folder(folder, overwrite, marker)
    part, old = (folder.with_name(folder.name + end) for end in (".part", ".old"))
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(folder, old)
        os.replace(part, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
