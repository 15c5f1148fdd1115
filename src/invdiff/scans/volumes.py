"""Images and volumes out: NIfTI, BART's arrays, and the HDF5 file that fastMRI scores."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from invdiff.core import InvdiffError
from invdiff.scans.cfl import write_cfl

ENDINGS = {".nii": "nibabel", ".nii.gz": "nibabel", ".cfl": "", ".h5": "h5py"}
"""Of files that are written, and the package that it takes."""
ORDER = ("set", "phase", "time", "echo", "slice")
"""Axes of a stack of images, the last of them fastest, before (H, W)."""
BART = {"slice": 13, "time": 10, "echo": 5, "phase": 11, "set": 6}
"""Axes of BART's arrays."""


def ending_of(name: str) -> str:
    """The one of ENDINGS that a name has. Raises InvdiffError for a folder, or another ending."""
    found = next((e for e in ENDINGS if name.lower().endswith(e) and len(name) > len(e)), None)
    if found is None or Path(name).name != name:
        raise InvdiffError(
            f"--save-as is the name of a file in the folder of results, as brain.nii.gz, with one "
            f"of the endings {', '.join(ENDINGS)}; found {name}."
        )
    return found


def check_writable(name: str) -> None:
    """Raise InvdiffError where the package that writes such a file is absent."""
    package = ENDINGS[ending_of(name)]
    if package and find_spec(package) is None:
        raise InvdiffError(
            f"Writing {name} needs {package}, which is not installed; run pip install "
            "'invdiff[io]'."
        )


def write_volume(
    path: Path,
    stack: np.ndarray,
    axes: tuple[str, ...] = (),
    affines: np.ndarray | None = None,
    placed: bool = False,
    deep: bool = False,
) -> list[str]:
    """Write images (..., H, W), complex or real, with axes of ORDER before H and W.

    .nii, .nii.gz: magnitudes (H, W, slice, time, echo, phase, set) with the affine of the slices.
    .cfl: complex numbers, slices along BART's axis 13, those of three dimensions along axis 2.
    .h5: fastMRI's `reconstruction`, magnitudes (slices, H, W).
    affines: (slices, 4, 4) of every slice, from (row, column, 0) to mm; None without them. placed:
    whether they tell positions in the scanner, and not sizes of pixels alone.
    Returns the names of the files.
    """
    ending, stack = ending_of(path.name), np.asarray(stack)
    if ending == ".cfl":
        _write_cfl(path, stack, axes, deep)
        return [path.with_suffix(ending).name for ending in (".cfl", ".hdr")]
    size = np.abs(stack).astype(np.float32)
    if ending == ".h5":
        import h5py

        whole = size if "slice" in axes else np.expand_dims(size, -3)
        with h5py.File(path, "w") as file:
            file["reconstruction"] = whole
        return [path.name]
    names = [name for name in reversed(ORDER) if name in axes]
    k = np.moveaxis(size, (-2, -1), (0, 1))  # (H, W, ...)
    k = k.transpose([0, 1, *(2 + axes.index(name) for name in names)])
    if "slice" not in axes:
        k = k[:, :, None]
    _write_nifti(path, k, affines, placed)
    return [path.name]


def _write_nifti(path: Path, k: np.ndarray, affines: np.ndarray | None, placed: bool) -> None:
    import nibabel

    matrix = None
    if affines is not None:
        k, matrix = _in_order(k, affines)
    image = nibabel.Nifti1Image(k, matrix)
    image.header.set_xyzt_units("mm")
    if matrix is not None:
        code = "scanner" if placed else "unknown"
        image.set_sform(matrix, code if placed else "aligned")
        image.set_qform(matrix, code)
    nibabel.save(image, path)


def _in_order(k: np.ndarray, affines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slices by their position along the normal, and the affine matrix of all."""
    first = np.array(affines[0], float)
    if len(affines) == 1:
        return k, first
    normal = first[:3, 2] / np.linalg.norm(first[:3, 2])
    along = (affines[:, :3, 3] - affines[0, :3, 3]) @ normal
    order = np.argsort(along, kind="stable")
    if np.unique(np.round(along, 3)).size == len(along):
        k, affines = k[:, :, order], affines[order]
        first = np.array(affines[0], float)
        first[:3, 2] = (affines[-1, :3, 3] - affines[0, :3, 3]) / (len(affines) - 1)
    return k, first


def _write_cfl(path: Path, stack: np.ndarray, axes: tuple[str, ...], deep: bool) -> None:
    shape = [1] * 16
    shape[:2] = stack.shape[-2:]
    order = [stack.ndim - 2, stack.ndim - 1]
    where = [0, 1]
    for k, name in enumerate(axes):
        at = 2 if deep and name == "slice" else BART[name]
        shape[at] = stack.shape[k]
        order.append(k)
        where.append(at)
    found = stack.transpose([order[where.index(at)] for at in sorted(where)])
    write_cfl(path, np.asarray(found, np.complex64).reshape(shape))
