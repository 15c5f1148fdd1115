"""Kernels of the blurs of published comparisons: random paths, or files of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from invdiff.bench.frames import naming
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.files.kernels import read_kernel
from invdiff.operators.algebra import Operator
from invdiff.operators.blur import blur
from invdiff.operators.blur_kernels import path_kernels

KERNEL = 61
"""Side of the kernels of DPS, DAPS and DiffPIR, in pixels."""
ENDINGS = (".npy", ".npz", ".txt", ".csv", ".png", ".tif", ".tiff", ".bmp")
"""Of the files of a folder that are kernels."""


def kernel_files(folder: Path, side: int) -> tuple[Path, ...]:
    """The kernels of a folder, by name, or the one that is named.

    Raises InvdiffError where there is none, or one is no kernel for images of side x side pixels.
    """
    if not (folder.is_file() or folder.is_dir()):
        raise InvdiffError(
            f"There is no file or folder {folder}; give a folder of kernels, or one kernel."
        )
    inside = [folder] if folder.is_file() else sorted(p for p in folder.iterdir() if p.is_file())
    found = tuple(p for p in inside if folder.is_file() or p.suffix.lower() in ENDINGS)
    if not found:
        raise InvdiffError(f"{folder} holds no kernel ({', '.join(ENDINGS)}).")
    for path in found:
        with naming(path):
            read_kernel(str(path), (side, side))
    return found


def published_side(size: tuple[int, int]) -> int:
    """The published side of a kernel, or the largest odd one that fits into the image."""
    return min(KERNEL, min(size) - 1 + min(size) % 2)


def motion(boundary: str, files: Sequence[Path] = ()) -> Callable[[tuple[int, int], int], Operator]:
    """A kernel of the files, or a random path of the published size."""

    def make(size: tuple[int, int], seed: int) -> Operator:
        kernel: Tensor
        if files:
            kernel = read_kernel(str(files[seed % len(files)]), size)
        else:
            radius = published_side(size) // 2
            kernel = path_kernels(1, radius, Rng.of(seed), points=16 * radius)[0]
        return blur(kernel, size, boundary)

    return make
