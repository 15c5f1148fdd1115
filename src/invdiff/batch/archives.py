"""Archives of measurements: tar files, as webdataset names their members, read in place."""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from invdiff.core import InvdiffError

TARS = (".tar",)
"""Endings of archives whose members are read; a compressed one has no place to jump to."""
BESIDE = {".json", ".txt", ".cls", ".cls2", ".caption", ".md", ".csv", ".yaml"}
"""Endings of members that tell of an image and are none."""


def members(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, where) of the members of an archive that are no text.

    Members that follow one another and share a key, as webdataset has them (the name up to the
    first point), are told to each other. Raises InvdiffError for what is no archive, or is cut.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            for _, group in itertools.groupby(filter(_is_file, archive), key=_key):
                found = {m.name: [m.offset_data, m.size] for m in group}
                for name in found:
                    if PurePosixPath(name).suffix.lower() not in BESIDE:
                        near = {k: v for k, v in found.items() if k != name}
                        at = {"member": name, "at": found[name], "near": near}
                        yield str(PurePosixPath(name)), at
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise InvdiffError(
            f"{path} cannot be read as a tar file ({reason}); make it again, without compression."
        ) from None


def _is_file(member: tarfile.TarInfo) -> bool:
    at = PurePosixPath(member.name)
    return member.isfile() and not (at.is_absolute() or ".." in at.parts or at.name[:1] == ".")


def _key(member: tarfile.TarInfo) -> tuple[str, str]:
    at = PurePosixPath(member.name)
    return str(at.parent), at.name.partition(".")[0]


def unpacked(path: str, within: dict[str, Any], folder: Path) -> Path:
    """A member, and those of its key, as files in a folder; the path of the member.

    Raises InvdiffError where the archive is no longer there, or cut.
    """
    for name, (at, size) in {within["member"]: within["at"], **within["near"]}.items():
        try:
            with open(path, "rb") as file:
                file.seek(at)
                found = file.read(size)
        except OSError as error:
            raise InvdiffError(f"{path} cannot be read ({error.strerror}).") from None
        if len(found) != size:
            raise InvdiffError(f"{path} is cut: it ends within {name}.")
        (folder / PurePosixPath(name).name).write_bytes(found)
    return folder / PurePosixPath(within["member"]).name
