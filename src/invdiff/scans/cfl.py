"""BART's arrays: NAME.hdr is text with the sizes, NAME.cfl complex64, the first axis fastest."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from invdiff.core import InvdiffError
from invdiff.files.arrays import check_file
from invdiff.scans.asked import Asked
from invdiff.scans.files import check_size, guarded
from invdiff.scans.layout import Counts, image_of

AXES = ("read", "phase 1", "phase 2", "coil", "maps", "echo", "coefficient", "coefficient 2",
        "iteration", "chemical shift", "time", "time 2", "level", "slice", "average",
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


MEANT = {3: "coils", 5: "echoes", 10: "times", 11: "phases", 13: "slices", 14: "averages"}
"""What the axes of AXES are called elsewhere; those that are neither these nor space are sets."""


def bart_image(
    array: np.ndarray, asked: Asked, path: Path
) -> tuple[np.ndarray, tuple[str, ...], Counts]:
    """One image (coils, H, W) of k-space, what was chosen, and which images there are.

    H and W are the two of the first three axes that are longer than 1: the readout may be
    transformed away. Where all three are, it is transformed along one that is fully sampled.
    Averages are averaged. Raises InvdiffError for several sets of maps.
    """
    if asked.axes is not None or asked.first is not None:
        raise InvdiffError(f"{path} is BART's, whose axes have fixed meanings; leave --axes out.")
    if array.shape[4] > 1:
        raise InvdiffError(
            f"{path} has more axes than k-space has: maps {array.shape[4]}; cut out one with bart "
            "slice."
        )
    space = [k for k in range(3) if array.shape[k] > 1]
    space += [k for k in range(3) if k not in space][: max(0, 2 - len(space))]
    space.sort()
    names = dict(zip(space, ("y", "x") if len(space) == 2 else ("y", "x", "z"), strict=True))
    rest = [k for k in range(4, len(AXES)) if k not in MEANT and array.shape[k] > 1]
    kept = [*space, *(k for k in MEANT if array.shape[k] > 1 or k == 3)]
    shape = [array.shape[k] for k in kept]
    order = [*kept, *rest, *(k for k in range(len(AXES)) if k not in (*kept, *rest))]
    k = array.transpose(order).reshape(*shape, -1, order="F")
    told = [names.get(n, MEANT.get(n, "")) for n in kept]
    found, facts, counts = image_of(k, (*told, "sets"), asked, str(path), told=True)
    used = [AXES[n] for n in space]
    facts = (*facts, f"rows {used[0]}, columns {used[1]}") if used[:2] != list(AXES[:2]) else facts
    return found, facts, counts


def write_cfl(path: Path, array: np.ndarray) -> None:
    """Write NAME.cfl and NAME.hdr of an array whose axes are BART's."""
    shape = array.shape + (1,) * (len(AXES) - array.ndim)
    text = "# Dimensions\n" + " ".join(map(str, shape)) + "\n"
    path.with_suffix(".hdr").write_text(text, encoding="utf-8")
    path.with_suffix(".cfl").write_bytes(array.astype("<c8").tobytes(order="F"))
