"""Visits: each has a private folder, which is deleted when it ends, and nobody else sees.

The page's library keeps copies of what is uploaded and shown in a folder of its own; `claim` notes
whose they are, so that they go with the visit too.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from invdiff.restoration.restored import Restoration


@dataclass(eq=False)
class Visit:
    """One open page, or one program that uses the interface.

    folder: its own. kept: what a tab remembers, by name. closed: whether it has ended. stop: by
    tab, whether its job is to end. shown: the last restoration.
    """

    folder: Path
    kept: dict[str, Any] = field(default_factory=dict)
    closed: threading.Event = field(default_factory=threading.Event)
    stops: dict[str, threading.Event] = field(default_factory=dict)
    shown: Restoration | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def room(self, name: str) -> Path:
        """A new folder in the folder, which holds nothing."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))

    def stop(self, tab: str) -> threading.Event:
        """What ends the job of a tab."""
        with self.lock:
            return self.stops.setdefault(tab, threading.Event())

    def end(self) -> None:
        """Stop its jobs and delete its folder."""
        self.closed.set()
        for stop in list(self.stops.values()):
            stop.set()
        shutil.rmtree(self.folder, ignore_errors=True)


class Visits:
    """All visits, by the name that the page gives them. root: the folder of their folders;
    copies: the folder of the copies that the page's library makes."""

    def __init__(self, root: Path) -> None:
        self.root, self.copies = root, root / "copies"
        self.copies.mkdir(mode=0o700)
        self._visits: dict[str, Visit] = {}
        self._claims: dict[Path, set[str]] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> Visit:
        """The visit of that name, which begins where there is none."""
        with self._lock:
            found = self._visits.get(name)
            if found is None:
                folder = Path(tempfile.mkdtemp(prefix="visit-", dir=self.root))
                found = self._visits[name] = Visit(folder)
            return found

    def claim(self, name: str, path: str) -> None:
        """Note that a copy belongs to a visit, perhaps among others (of the same file)."""
        copy = Path(path)
        if self.copies in copy.parents and ".." not in copy.parts:
            with self._lock:
                self._claims.setdefault(copy, set()).add(name)

    def end(self, name: str) -> None:
        """End a visit: delete its folder, and the copies that no other visit has."""
        with self._lock:
            visit = self._visits.pop(name, None)
            for copy in [c for c, names in self._claims.items() if name in names]:
                self._claims[copy].discard(name)
                if not self._claims[copy]:
                    del self._claims[copy]
                    copy.unlink(missing_ok=True)
                    if copy.parent != self.copies and not any(copy.parent.iterdir()):
                        copy.parent.rmdir()
        if visit is not None:
            visit.end()

    def end_all(self) -> None:
        """End all visits and delete the root."""
        for name in list(self._visits):
            self.end(name)
        shutil.rmtree(self.root, ignore_errors=True)
