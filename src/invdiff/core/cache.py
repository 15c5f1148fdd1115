"""The user's folder for what takes long to make, and matrices that are kept there between runs.

The folder is `$INVDIFF_CACHE`, else `$XDG_CACHE_HOME/invdiff`, else `~/.cache/invdiff`;
`INVDIFF_CACHE=off` switches it off. Of matrices it holds at most `LIMIT` bytes: what was used least
recently goes first. A file appears whole, with a checksum; one that is broken is built and written
again. A folder that cannot be written to is no error: the matrix is built each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

Parts = dict[str, Tensor]

CACHE = "INVDIFF_CACHE"
"""Environment variable that names the folder, or is `off`."""
LIMIT = 4 * 10**9
"""Bytes of matrices that the folder holds at most."""
WORTH = 4 * 10**6
"""Smaller matrices are built faster than they are found."""
FORMAT = "1"
"""Part of every key: to be changed with the meaning of what is kept."""


def folder() -> Path | None:
    """The user's folder; None where it is switched off, or the user has no home."""
    named = os.environ.get(CACHE, "")
    if named.strip().lower() == "off":
        return None
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return (Path(named) if named else Path(home) / "invdiff").expanduser()
    except RuntimeError:
        return None


def kept(kind: str, key: str, build: Callable[[], Parts]) -> Parts:
    """What build() gives, from disk where it was built before.

    kind and key: what the tensors are a function of, together with the version of invdiff.
    """
    from invdiff import __version__

    where = folder()
    if where is None:
        return build()
    digest = hashlib.blake2b(f"{FORMAT}/{__version__}/{key}".encode(), digest_size=16).hexdigest()
    file = where / f"{kind}-{digest}.safetensors"
    found = _read(file)
    if found is not None:
        return found
    parts = build()
    if sum(t.nbytes for t in parts.values()) >= WORTH:
        with contextlib.suppress(OSError):
            _write(file, parts)
            _shrink(where, file)
    return parts


def _checksum(parts: Parts) -> str:
    """CRC-32 of all bytes, in the order of names."""
    total = 0
    for name in sorted(parts):
        total = zlib.crc32(parts[name].numpy().data, total)
    return str(total)


def _read(file: Path) -> Parts | None:
    """The tensors in a file; None when there is none or it is broken, for whatever reason."""
    from safetensors import safe_open

    try:
        if not file.is_file():
            return None
        with safe_open(file, "pt") as opened:
            parts: Parts = {name: opened.get_tensor(name) for name in opened.keys()}
            told = (opened.metadata() or {}).get("checksum")
        if _checksum(parts) != told:
            return None
        os.utime(file)
    except Exception:
        return None
    return parts


def _write(file: Path, parts: Parts) -> None:
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".partial-")
    os.close(handle)
    try:
        save_file(parts, name, {"checksum": _checksum(parts)})
        os.replace(name, file)
    finally:
        Path(name).unlink(missing_ok=True)


def _shrink(where: Path, newest: Path) -> None:
    """Remove what was used least recently until at most LIMIT bytes are left."""
    files = [(f.stat(), f) for f in where.glob("*.safetensors")]
    total = sum(s.st_size for s, _ in files)
    for stat, file in sorted(files, key=lambda pair: (pair[1] == newest, pair[0].st_mtime)):
        if total <= LIMIT:
            return
        file.unlink(missing_ok=True)
        total -= stat.st_size
