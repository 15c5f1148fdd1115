"""Results as tar files, one for each shard, with the names of webdataset and always the same bytes.

An item is `KEY.json`, its line without what differs between two runs, then `KEY.estimate.png` and
so on. KEY is its id with _ for each point of the name, because a key ends at the first point. Its
line in the manifest tells in `at` where each of them lies: place, bytes, hash.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from invdiff.batch.items import shard_of
from invdiff.batch.outputs import MARKER
from invdiff.batch.place import Place, dumps, lines, unwritable
from invdiff.core import InvdiffError
from invdiff.core.checksum import LENGTH
from invdiff.core.durable import own_folder, sync
from invdiff.core.folders import remove_results

TIMES = {"seconds"}
"""What differs between two runs that are alike."""


def pack(place: Place, shard: int, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write the tar of a shard, in one move; its lines, which tell where everything lies.

    found: the lines of its items, in order. Files are taken from the folders of the items, and for
    a line with `at` from the tar that is replaced. Raises StoppedError where it cannot be written.
    """
    try:
        part = own_folder(place.out / "work")
    except OSError as error:
        raise unwritable(place.out, error) from error
    try:
        with open(part / "tar", "wb") as file:
            told = _written(place, shard, found, file)
            file.flush()
            os.fsync(file.fileno())
        target = place.packed(shard)
        target.parent.mkdir(exist_ok=True)
        os.replace(part / "tar", target)
        sync(target.parent)
    except OSError as error:
        raise unwritable(place.out, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return told


def _written(
    place: Place, shard: int, found: Sequence[dict[str, Any]], file: Any
) -> list[dict[str, Any]]:
    told, keys = [], set[str]()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for line in found:
            if "error" not in line:
                key = _key(line["id"], keys)
                at = {}
                for name, data in _files(place, shard, line):
                    info = tarfile.TarInfo(f"{key}.{name.replace('/', '.')}")
                    info.size = len(data)  # all else is 0: no time, no user
                    tar.addfile(info, io.BytesIO(data))
                    place_of = tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                    at[name] = [place_of, len(data), _hash(data)]
                line = line | {"at": at}
            told.append(line)
    return told


def _key(name: str, keys: set[str]) -> str:
    """The key of an item, another one than those that are taken."""
    at = PurePosixPath(name)
    key = str(at.with_name(at.name.replace(".", "_")))
    while key in keys:
        key += "-2"
    keys.add(key)
    return key


def _files(place: Place, shard: int, line: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of the results of an item, its line first."""
    plain = {k: v for k, v in line.items() if k not in TIMES | {"at"}}
    yield "json", f"{dumps(plain)}\n".encode()
    if "at" in line:
        for name in line["at"]:
            if name != "json":
                data = read(place, line, name, shard)
                if data is None:
                    raise InvdiffError(
                        f"{place.packed(shard)} was changed; remove {place.manifest(shard)} to "
                        "make it anew."
                    )
                yield name, data
        return
    folder = place.items / line["id"]
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if path != folder / MARKER:
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:LENGTH]


def read(place: Place, line: dict[str, Any], name: str, shard: int | None = None) -> bytes | None:
    """A file of the results of an item that was packed; None where it is not there any more."""
    shard = shard_of(line["id"], place.told()["shards"]) if shard is None else shard
    at, size, known = line["at"][name]
    try:
        with open(place.packed(shard), "rb") as file:
            file.seek(at)
            data = file.read(size)
            if _hash(data) == known:
                return data
        with tarfile.open(place.packed(shard), "r:") as tar:  # it was made anew meanwhile
            for member in tar:
                if member.name.endswith(".json") and _tells(tar, member, line["id"]):
                    key = member.name.removesuffix("json")
                    found = tar.extractfile(f"{key}{name.replace('/', '.')}")
                    data = b"" if found is None else found.read()
                    return data if _hash(data) == known else None
    except (OSError, tarfile.TarError, LookupError):
        pass
    return None


def _tells(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> bool:
    found = tar.extractfile(member)
    with suppress(ValueError):
        return found is not None and bool(json.loads(found.read()).get("id") == name)
    return False


def swept(place: Place) -> None:
    """Remove the folders of items of a batch whose shards are all packed."""
    for shard in range(place.told()["shards"]):
        for line in lines(place.manifest(shard)):
            if "at" in line and (place.items / line["id"] / MARKER).is_file():
                remove_folder(place.items / line["id"])
    for folder in sorted(place.items.rglob("*"), reverse=True):
        with suppress(OSError):
            folder.rmdir()


def remove_folder(folder: Path) -> None:
    """Remove the results of an item; what else lies there stays."""
    with suppress(OSError, InvdiffError):
        remove_results(folder, MARKER)
