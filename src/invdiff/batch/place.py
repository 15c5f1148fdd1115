"""The folder of a batch: what lies where, and who may write a part of it.

    batch.json            what is done with every item, and how many shards there are
    plan/00012.jsonl      the items of a shard: a head, then a line each
    manifest/00012.jsonl  what became of them; it appears when the shard is finished
    items/NAME/           the results of an item, and item.json
    shards/00012.tar      or, with --tar, all results of a shard; the folders are then removed
    work/                 what is under way: locks, and which item a shard is at

A shard is held by a lock on a byte of one file (POSIX record locks, which network file systems
have too). It ends with its process, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from invdiff.core import InvdiffError
from invdiff.core.durable import write_text

MARKER, FORMAT = "batch.json", 1
PLANNED = 2**40
"""The byte that stands for the plan; those below stand for shards."""


class StoppedError(InvdiffError):
    """What ends a run, and not one item: a full disk, a folder that takes nothing."""


class Place:
    """A folder of results of a batch, from its path. Nothing is made before `make`."""

    def __init__(self, out: str | Path) -> None:
        self.out = Path(os.path.abspath(out))

    @property
    def marker(self) -> Path:
        """batch.json."""
        return self.out / MARKER

    @property
    def items(self) -> Path:
        """The folder that mirrors the input."""
        return self.out / "items"

    @property
    def report(self) -> Path:
        """The page that shows the worst first."""
        return self.out / "report.html"

    def plan(self, shard: int) -> Path:
        """The items of a shard."""
        return self.out / "plan" / f"{shard:05}.jsonl"

    def manifest(self, shard: int) -> Path:
        """What became of them."""
        return self.out / "manifest" / f"{shard:05}.jsonl"

    def packed(self, shard: int) -> Path:
        """The results of its items, of a batch with --tar."""
        return self.out / "shards" / f"{shard:05}.tar"

    def at(self, shard: int) -> Path:
        """Names the item that a shard is at."""
        return self.out / "work" / f"{shard:05}.at"

    def make(self) -> None:
        """Make the folders. Raises InvdiffError where other things lie there, StoppedError where
        they cannot be made."""
        strange = self.out.exists() and not (self.out / "work").is_dir()
        if strange and (not self.out.is_dir() or any(self.out.iterdir())):
            raise InvdiffError(
                f"{self.out} exists and is no folder of a batch; choose another for --out."
            )
        try:
            for name in ("work", "plan", "manifest", "items"):  # work first: it tells whose it is
                (self.out / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.out, error) from error

    def told(self) -> dict[str, Any]:
        """batch.json. Raises InvdiffError where there is none."""
        try:
            found = json.loads(self.marker.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InvdiffError(f"{self.out} is no folder of a batch: it has no {MARKER}.") from None
        except (OSError, ValueError) as error:
            raise InvdiffError(f"{self.marker} cannot be read ({error}).") from None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise InvdiffError(f"{self.marker} is of another version of invdiff.")
        return found

    @cached_property
    def _locks(self) -> int:
        """One descriptor for the process: closing any of the file lets go of all its locks."""
        return os.open(self.out / "work" / "locks", os.O_RDWR | os.O_CREAT, 0o666)

    @contextlib.contextmanager
    def holding(self, byte: int, wait: bool = False) -> Iterator[bool]:
        """Hold a shard, or PLANNED; gives whether it is held. wait: until it is.

        Raises InvdiffError where the system has no such locks.
        """
        try:
            import fcntl
        except ImportError:
            raise InvdiffError(
                "`invdiff batch` needs locks of POSIX systems; run it under Linux, macOS or WSL."
            ) from None
        try:
            descriptor = self._locks
        except OSError as error:
            raise unwritable(self.out, error) from error
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, byte)
        except (BlockingIOError, PermissionError):
            yield False
            return
        except OSError as error:
            raise unwritable(self.out, error) from error
        try:
            yield True
        finally:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, byte)


def unwritable(path: Path, error: OSError) -> StoppedError:
    """The error for a folder that takes no file."""
    reason = error.strerror or " ".join(str(error).split())
    return StoppedError(f"Nothing can be written to {path} ({reason}); make room, and go on.")


def dumps(value: Mapping[str, Any]) -> str:
    """A JSON line."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def write_lines(path: Path, head: Mapping[str, Any], lines: list[str]) -> None:
    """Write a file of JSON lines in one move. Raises StoppedError where it cannot be."""
    try:
        write_text(path, "\n".join([dumps(head), *lines]) + "\n")
    except OSError as error:
        raise unwritable(path.parent, error) from error


def head(path: Path) -> dict[str, Any] | None:
    """The first line of such a file; None without it."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.loads(file.readline())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The other lines; none where there is no file."""
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
        file.readline()
        for line in file:
            yield json.loads(line)
