"""Arrays in files that strangers made: nothing is unpickled, no claim of a header is believed."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from invdiff.core import InvdiffError
from invdiff.files.arrays import check_file

MAX_BYTES = 2**30
"""An array that is larger in memory is refused: a small file can claim any size."""


@contextmanager
def guarded(path: Path, kind: str) -> Iterator[None]:
    """Whatever a library meets in a broken file becomes one sentence that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InvdiffError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
        raise InvdiffError(f"{path} is not {kind} that can be read ({reason}).") from error


def check_size(shape: tuple[int, ...], itemsize: int, what: str) -> None:
    """Raise InvdiffError when an array of this shape is empty or larger than MAX_BYTES."""
    n = math.prod(shape) * itemsize
    if min(shape, default=1) < 1:
        raise InvdiffError(f"{what} is empty, of shape {shape}.")
    if n > MAX_BYTES:
        raise InvdiffError(
            f"{what} of shape {shape} claims {n / 2**30:.1f} GiB, above the "
            f"{MAX_BYTES / 2**30:g} GiB that are read at once; cut out the part that is needed."
        )


def check_numbers(dtype: np.dtype[Any], what: str) -> None:
    """Raise InvdiffError unless dtype is a kind of number; objects are never unpickled."""
    if dtype.kind not in "buifc":
        raise InvdiffError(f"{what} holds {dtype} and not numbers; save it as a plain array.")


@contextmanager
def hdf5(path: Path) -> Iterator[Any]:
    """An HDF5 file opened for reading. Raises InvdiffError when it is none, or h5py is absent."""
    check_file(path)
    try:
        import h5py
    except ImportError:
        raise InvdiffError(
            f"Reading {path} needs h5py, which is not installed; run pip install 'invdiff[io]'."
        ) from None
    with guarded(path, "an HDF5 file"), h5py.File(path, "r") as file:
        yield file


def inside(thing: Any, path: Path) -> Any:
    """An array or a group of an open HDF5 file; InvdiffError where it lies in another file.

    A file may link to others, store its numbers in any file, or be put together from several: what
    a stranger's file could reach so is whatever its reader may read.
    """
    elsewhere = Path(thing.file.filename) != path or bool(getattr(thing, "external", None))
    if not elsewhere and getattr(thing, "is_virtual", False):
        elsewhere = any(source.file_name != "." for source in thing.virtual_sources())
    if elsewhere:
        raise InvdiffError(
            f"{path} refers to another file for {thing.name}, which is not followed; copy the "
            "array into one file."
        )
    return thing


def dataset(file: Any, key: str, path: Path) -> Any:
    """The array `key` of an open HDF5 file, not read yet; InvdiffError names what there is."""
    found = file.get(key)
    if found is None or getattr(found, "shape", None) is None:
        names: list[str] = []
        file.visititems(lambda name, thing: names.append(name) if hasattr(thing, "shape") else None)
        held = ", ".join(names[:12]) or "no arrays"
        raise InvdiffError(f"{path} holds no array called {key}; it holds {held}.")
    check_numbers(inside(found, path).dtype, f"{key} in {path}")
    return found


def taken(array: Any, index: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """array[index], which has the given shape, after its size was checked."""
    check_size(shape, array.dtype.itemsize, what)
    return np.asarray(array[index])


class Npz:
    """The arrays of a .npz file by name, read when asked for; InvdiffError where one is broken."""

    def __init__(self, path: Path) -> None:
        check_file(path)
        self.path = path
        with guarded(path, "a numpy archive"), zipfile.ZipFile(path) as archive:
            self.names = [n.removesuffix(".npy") for n in archive.namelist()]

    def __getitem__(self, name: str) -> np.ndarray:
        return self._read(name)

    def text(self, name: str) -> str:
        """One word or sentence, which a file holds as an array of no axes."""
        array = self._read(name, text=True)
        if array.dtype.kind != "U" or array.ndim:
            raise InvdiffError(f"{name} in {self.path} is not a text, but {array.dtype}.")
        return str(array)

    def _read(self, name: str, text: bool = False) -> np.ndarray:
        what = f"{name} in {self.path}"
        if name not in self.names:
            held = ", ".join(self.names) or "nothing"
            raise InvdiffError(f"{self.path} holds no array called {name}; it holds {held}.")
        with guarded(self.path, "a numpy archive"), zipfile.ZipFile(self.path) as archive:
            info = archive.getinfo(f"{name}.npy")
            with archive.open(info) as entry:
                shape, fortran, dtype = _header(entry)
                if not (text and dtype.kind == "U" and not shape and dtype.itemsize <= 1024):
                    check_numbers(dtype, what)
                if shape:
                    check_size(shape, dtype.itemsize, what)
                size = math.prod(shape) * dtype.itemsize
                raw = entry.read(size)
                if len(raw) != size or entry.read(1):
                    raise InvdiffError(f"{what} does not hold the {shape} values that it claims.")
        array: np.ndarray = np.frombuffer(raw, dtype)
        return array.reshape(shape, order="F" if fortran else "C")

    def first(self, *names: str) -> str | None:
        """The first of these names that the archive holds."""
        return next((n for n in names if n in self.names), None)


def _header(entry: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and type of the .npy stream."""
    version = np.lib.format.read_magic(entry)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise InvdiffError(f"A .npy stream of version {version} holds no plain numbers.")
    found: tuple[tuple[int, ...], bool, np.dtype[Any]] = readers[version](entry)
    return found
