"""Files and folders that are whole or not there, also after a loss of power."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex

from invdiff.core.signals import held

AT_FDCWD, NOREPLACE, EXCHANGE = -100, 1, 2
"""Of renameat2(2)."""
MISSING = {errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ENOTSUP}
"""Errors of a system, or a file system, that has no such rename."""


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some file systems do not sync folders
        if not path.is_dir() or error.errno not in MISSING | {errno.EBADF}:
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """`sync` of all that is in a folder, and of the folder."""
    for path in sorted(folder.rglob("*")):
        sync(path)
    sync(folder)


def sync_system(folder: Path) -> bool:
    """Wait until all that was written to the file system of a folder is on the disk.

    It is one wait for many files. False where the system has no such call: `sync` the files then.
    Raises OSError where it fails.
    """
    call = _syncfs()
    if call is None:
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if call(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
    return True


def write_text(path: Path, text: str) -> None:
    """Replace a file in one move: at any time it holds the text of before or the new one."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file in one move: at any time it holds the bytes of before or the new ones."""
    part = path.with_name(f"{path.name}.{token_hex(4)}")
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def own_folder(parent: Path) -> Path:
    """A new folder of a name that nobody else has, with the modes that the umask allows."""
    while True:
        found = parent / f".invdiff-{token_hex(4)}"
        with contextlib.suppress(FileExistsError):
            found.mkdir()
            return found


def rename_new(source: Path, target: Path) -> None:
    """Rename a folder. Raises FileExistsError where the target exists, be it an empty folder."""
    if _renameat2(source, target, NOREPLACE):
        return
    taken = FileExistsError(errno.EEXIST, "exists", str(target))
    if os.path.lexists(target):
        raise taken
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise taken from error
        raise


def swap(new: Path, target: Path) -> Path:
    """Put the folder `new` in the place of another; where that one lies now.

    Where the system can, at no time is there nothing, or a part, at `target`.
    """
    old = target.with_name(f".invdiff-{token_hex(4)}")
    with held():
        if _renameat2(new, target, EXCHANGE):
            os.rename(new, old)
            return old
        os.rename(target, old)
        try:
            rename_new(new, target)
        except OSError:
            rename_new(old, target)
            raise
    return old


@functools.cache
def _syncfs() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


@functools.cache
def _call() -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def _renameat2(source: Path, target: Path, flag: int) -> bool:
    """Whether the system renamed; False where it has no such call. Raises OSError otherwise."""
    call = _call()
    if call is None:
        return False
    if call(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in MISSING:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))
