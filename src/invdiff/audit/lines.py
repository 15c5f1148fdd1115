"""The file in which an audit, or a bench, is kept: a line of JSON for each item, written whole or
not at all.

The first line says how it was measured. A run that was stopped goes on where the file ends; a line
that was cut off is dropped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from invdiff.core import InvdiffError

AUDIT, BENCH = "audit", "bench"
"""What is kept: the name of the command, of its file and of its first line."""
NAME = f"{AUDIT}.jsonl"
Line = dict[str, Any]


def read(path: Path) -> tuple[Line, list[Line]]:
    """What the file says of itself, and its items. Raises InvdiffError where it is no such file."""
    kind = path.stem
    if not path.is_file():
        raise InvdiffError(f"There is no {kind} in {path.parent}: {path.name} is missing.")
    found: list[Line] = []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvdiffError(f"{path} is no text; it is not a file of `invdiff {kind}`.") from None
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        try:
            if not line.endswith("\n"):
                break
            found.append(json.loads(line))
        except ValueError:
            raise InvdiffError(f"Line {number} of {path} is no JSON; it was edited.") from None
    if not found or not isinstance(found[0], dict) or kind not in found[0]:
        raise InvdiffError(f"{path} is not a file of `invdiff {kind}`.")
    for number, one in enumerate(found[1:], 2):
        if not isinstance(one, dict) or "item" not in one or not {"values", "error"} & set(one):
            raise InvdiffError(
                f"Line {number} of {path} is damaged: it lacks its item or its values; remove it, "
                "and --resume measures it again."
            )
    return found[0][kind], found[1:]


class Lines:
    """An audit or a bench under way: what is done, and where the next item goes.

    Raises InvdiffError where there is one already and resume is False, where it was measured
    otherwise, and where the folder cannot be made.
    """

    def __init__(self, folder: Path, how: Line, resume: bool = False, kind: str = AUDIT) -> None:
        self.path, self.items = folder / f"{kind}.jsonl", list[Line]()
        if self.path.exists():
            if not resume:
                raise InvdiffError(f"{folder} holds {self.path.name}; --resume goes on with it.")
            known, self.items = read(self.path)
            if known != how:
                changed = [k for k in {*known, *how} if known.get(k) != how.get(k)]
                raise InvdiffError(
                    f"The {kind} in {folder} was measured with other settings "
                    f"({', '.join(sorted(changed))}); give another --out."
                )
            text = self.path.read_bytes()
            whole = text.rfind(b"\n") + 1
            if whole < len(text):
                os.truncate(self.path, whole)
        else:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InvdiffError(
                    f"{folder} cannot be a folder for results ({error.strerror}); give another "
                    "--out."
                ) from error
            self._append({kind: how})

    @property
    def done(self) -> set[str]:
        """Names of the items that were measured."""
        return {line["item"] for line in self.items}

    def add(self, line: Line) -> None:
        """Append an item and wait until it is on the disk."""
        self._append(line)
        self.items.append(line)

    def _append(self, line: Line) -> None:
        data = (json.dumps(line, allow_nan=False) + "\n").encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
