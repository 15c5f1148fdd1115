"""The user's folder for what takes long to make, and matrices that are kept there between runs.

The folder is `$INVDIFF_CACHE`, else `$XDG_CACHE_HOME/invdiff`, else `~/.cache/invdiff`;
`INVDIFF_CACHE=off` switches it off. It holds at most `LIMIT` bytes, matrices and converted weights
together: what was used least recently goes first. A file appears whole, with a checksum; one that
is broken is built and written again. A folder that cannot be written to, or a full disk, is no
error: what would be kept is built each time. Deleting any of it is safe.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

Parts = dict[str, Tensor]

CACHE = "INVDIFF_CACHE"
"""Environment variable that names the folder, or is `off`."""
LIMIT = 4 * 10**9
"""Bytes that the folder holds at most."""
WORTH = 4 * 10**6
"""Smaller matrices are built faster than they are found."""
FORMAT = "2"
"""Part of every key: to be changed with the meaning of what is kept."""
CONVERTED, PARTIAL, CHECKSUM = "converted", ".partial-", "checksum"
"""The folder of converted weights, how unfinished files begin, and the name of a checksum."""


def folder() -> Path | None:
    """The user's folder; None where it is switched off, or the user has no home."""
    named = os.environ.get(CACHE, "")
    if named.strip().lower() == "off":
        return None
    home = os.environ.get("XDG_CACHE_HOME", "")
    home = home if os.path.isabs(home) else "~/.cache"  # relative ones count for nothing there
    try:
        return (Path(named) if named else Path(home) / "invdiff").expanduser()
    except RuntimeError:
        return None


def cached(kind: str, key: str, build: Callable[[], Parts]) -> Parts:
    """What build() gives, from disk where it was built before.

    kind and key: what the tensors are a function of, together with the version of invdiff.
    """
    from invdiff import __version__

    where = folder()
    if where is None:
        return build()
    digest = hashlib.blake2b(f"{FORMAT}/{__version__}/{key}".encode(), digest_size=16).hexdigest()
    file = where / f"{kind}-{digest}.safetensors"
    found = read(file)
    if found is not None:
        return found[0]
    parts = build()
    if sum(t.nbytes for t in parts.values()) >= WORTH:
        write(file, parts)
    return parts


def read(file: Path) -> tuple[Parts, dict[str, str]] | None:
    """The tensors in a file that `write` made, and its metadata; it counts as used now.

    None when there is none or it is broken, for whatever reason.
    """
    from safetensors import safe_open

    try:
        if not file.is_file():
            return None
        with safe_open(file, "pt") as opened:
            parts: Parts = {name: opened.get_tensor(name) for name in opened.keys()}
            about = dict(opened.metadata() or {})
        if _checksum(parts, about) != about.pop(CHECKSUM, None):
            return None
        with contextlib.suppress(OSError):  # of a folder that may be read alone
            os.utime(file)
    except Exception:
        return None
    return parts, about


def write(file: Path, parts: Parts, about: dict[str, str] | None = None) -> None:
    """Keep tensors and metadata in a file of the folder, in one move; nothing where that fails."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    about = dict(about or {})
    about[CHECKSUM] = _checksum(parts, about)
    with contextlib.suppress(OSError, SafetensorError):  # SafetensorError: the disk is full
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=PARTIAL)
        os.close(handle)
        try:
            save_file(parts, name, about)
            os.replace(name, file)
        finally:
            Path(name).unlink(missing_ok=True)
        _shrink(file)


def _checksum(parts: Parts, about: dict[str, str]) -> str:
    """CRC-32 of the metadata and of all tensors with their names, types and shapes, in order."""
    total = 0
    for key in sorted(about):
        if key != CHECKSUM:
            total = zlib.crc32(f"{key}={about[key]}".encode(), total)
    for name in sorted(parts):
        part = parts[name].contiguous()
        total = zlib.crc32(f"{name} {part.dtype} {tuple(part.shape)}".encode(), total)
        total = zlib.crc32(part.reshape(-1).view(torch.uint8).numpy().data, total)
    return str(total)


def held() -> list[Path]:
    """All files of the cache, those used least recently first; also what a killed run left."""
    where, found = folder(), []
    for place in () if where is None else (where, where / CONVERTED):
        for pattern in ("*.safetensors", f"{PARTIAL}*", "*.part"):
            found += [f for f in place.glob(pattern) if f.is_file() and not f.is_symlink()]
    times = {}
    for file in found:
        with contextlib.suppress(OSError):
            times[file] = file.stat().st_mtime
    return sorted(times, key=lambda f: times[f])


def clear() -> int:
    """Remove all files of the cache; the bytes that they had. Other files are left alone."""
    total = 0
    for file in held():
        with contextlib.suppress(OSError):
            size = file.stat().st_size
            file.unlink()
            total += size
    return total


def _shrink(newest: Path) -> None:
    """Remove what was used least recently until at most LIMIT bytes are left."""
    files = held()
    sizes = {}
    for file in files:
        with contextlib.suppress(OSError):
            sizes[file] = file.stat().st_size
    total = sum(sizes.values())
    for file in files:
        if total <= LIMIT:
            return
        if file != newest and file in sizes and not file.name.startswith(PARTIAL):
            file.unlink(missing_ok=True)
            total -= sizes[file]
