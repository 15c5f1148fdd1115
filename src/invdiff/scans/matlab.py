"""MATLAB files: version 5 by scipy, version 7.3, which is HDF5 with its axes reversed, by h5py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from invdiff.core import InvdiffError
from invdiff.files.pictures import check_file
from invdiff.scans.files import MAX_BYTES, check_size, guarded, hdf5, inside
from invdiff.scans.layout import is_complex
from invdiff.scans.matlab_child import read_numbers


class Matlab:
    """The arrays of a .mat file: names with their shapes as MATLAB counts axes.

    shapes: of arrays of numbers. A name is read when asked for; where `reversed_` its axes come in
    the order of the file, the last of MATLAB first.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self._file = path, file
        self.reversed_ = file is not None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.complex: dict[str, bool] = {}
        if file is not None:
            for name, found in file.items():
                if getattr(found, "shape", None) is not None and _numbers(found.dtype):
                    self.shapes[name] = tuple(found.shape)[::-1]
                    self.complex[name] = is_complex(found.dtype)
        else:
            self._arrays = read_numbers(path)
            self.shapes = {name: array.shape for name, array in self._arrays.items()}

    def __getitem__(self, name: str) -> Any:
        """An array, or a dataset of HDF5. Raises InvdiffError where there is none of numbers."""
        if name not in self.shapes:
            held = ", ".join(list(self.shapes)[:12]) or "no arrays of numbers"
            raise InvdiffError(f"{self.path} holds no array called {name}; it holds {held}.")
        if self._file is not None:
            return inside(self._file[name], self.path)
        check_size(self.shapes[name], 8, f"{name} in {self.path}")
        return self._arrays[name]

    def kspace(self, key: str | None) -> tuple[str, Any]:
        """The array that is asked for, or kspace, or the only one that is complex and no map."""
        if key is not None:
            return key, self[key]
        if "kspace" in self.shapes:
            return "kspace", self["kspace"]
        large = [n for n, shape in self.shapes.items() if len(shape) >= 2 and np.prod(shape) >= 4]
        found = [n for n in large if self.complex.get(n, True)]
        if not self.reversed_:
            found = [n for n in found if is_complex(self[n].dtype)]
        if len(found) != 1:
            raise InvdiffError(
                f"{self.path} holds {len(found)} complex arrays and none called kspace; name one "
                f"of {', '.join(self.shapes) or 'none'} by key."
            )
        return found[0], self[found[0]]


@contextmanager
def matlab(path: Path) -> Iterator[Matlab]:
    """A MATLAB file opened for reading. Raises InvdiffError when it is none, or scipy or h5py is
    absent."""
    check_file(path)
    with guarded(path, "a MATLAB file"), open(path, "rb") as file:
        head = file.read(520)
    if head.startswith(b"\x89HDF\r\n\x1a\n") or head[512:520] == b"\x89HDF\r\n\x1a\n":
        with hdf5(path) as opened:
            yield Matlab(path, opened)
        return
    try:
        import scipy.io  # noqa: F401
    except ImportError:
        raise InvdiffError(
            f"Reading {path} needs scipy, which is not installed; run pip install 'invdiff[mri]', "
            "or save the array with numpy.save."
        ) from None
    if path.stat().st_size > MAX_BYTES:
        raise InvdiffError(f"{path} is larger than the 1 GiB that are read at once; split it.")
    with guarded(path, "a MATLAB file"):
        yield Matlab(path, None)


def _numbers(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "buifc" or is_complex(dtype)
