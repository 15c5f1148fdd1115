"""BART's arrays: NAME.hdr is text with the sizes, NAME.cfl complex64, the first axis fastest."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from invdiff.core import InvdiffError
from invdiff.files.arrays import check_file
from invdiff.scans.files import check_size, guarded

AXES = ("read", "phase 1", "phase 2", "coil", "maps", "echo", "coefficient", "coefficient 2",
        "iteration", "cardiac phase", "time", "time 2", "level", "slice", "average",
        "batch")  # fmt: skip
"""What BART calls its axes."""


def read_cfl(path: Path) -> np.ndarray:
    """The array of NAME.cfl and NAME.hdr (either name is given), mapped from disk, (..., 16 axes).

    Raises InvdiffError when one of the two is absent, or their sizes disagree.
    """
    header, data = path.with_suffix(".hdr"), path.with_suffix(".cfl")
    check_file(header)
    check_file(data)
    with guarded(header, "a BART header"), open(header, encoding="utf-8") as file:
        lines = [line.strip() for line in file.read(65536).splitlines()]
    sizes = lines[lines.index("# Dimensions") + 1].split() if "# Dimensions" in lines[:-1] else []
    if not sizes or len(sizes) > len(AXES) or not all(s.isdecimal() and int(s) for s in sizes):
        raise InvdiffError(
            f"{header} is no BART header: up to 16 whole numbers above 0 stand below "
            "'# Dimensions'."
        )
    shape = tuple(map(int, sizes)) + (1,) * (len(AXES) - len(sizes))
    check_size((int(np.prod(shape, dtype=object)),), 8, str(data))
    if data.stat().st_size != 8 * np.prod(shape):
        raise InvdiffError(
            f"{data} has {data.stat().st_size} bytes, but its header {header.name} tells of "
            f"{' x '.join(sizes)} complex values, {8 * np.prod(shape)} bytes."
        )
    with guarded(data, "a BART array"):
        return np.memmap(data, np.dtype("<c8"), "r", shape=shape, order="F")


def write_cfl(path: Path, array: np.ndarray) -> None:
    """Write NAME.cfl and NAME.hdr of an array whose axes are BART's."""
    shape = array.shape + (1,) * (len(AXES) - array.ndim)
    text = "# Dimensions\n" + " ".join(map(str, shape)) + "\n"
    path.with_suffix(".hdr").write_text(text, encoding="utf-8")
    path.with_suffix(".cfl").write_bytes(array.astype("<c8").tobytes(order="F"))
