"""Zip archives as torch writes them, whose claims are checked before anything is read."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

from invdiff.core import InvdiffError


def records(
    file: Path | IO[bytes], size: int, name: str, programs: bool = False
) -> list[zipfile.ZipInfo]:
    """What an archive of `size` bytes holds. name: of its file, for messages.

    torch stores its records as they are, so that they cannot be larger than their archive, but for
    the code of TorchScript; programs: such archives pass, for the caller refuses them.
    Raises InvdiffError for records that claim more, or that are packed, and for what is no archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            found = archive.infolist()
    except Exception as error:
        raise InvdiffError(
            f"{name} is a truncated or broken archive ({type(error).__name__}); fetch it again."
        ) from error
    if programs and any(is_program(r) for r in found):
        return found
    if sum(r.file_size for r in found) > size or any(r.compress_type for r in found):
        raise InvdiffError(f"{name} claims more data than it has bytes; fetch the file again.")
    return found


def is_program(record: zipfile.ZipInfo) -> bool:
    """Whether it is a record that TorchScript programs alone have."""
    return record.filename.endswith("constants.pkl")
