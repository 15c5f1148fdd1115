"""k-space as scanners and other programs store it: numpy, fastMRI, ISMRMRD and BART files."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.files.pictures import read_array
from invdiff.operators.coils import calibration_region
from invdiff.operators.sampling import acceleration
from invdiff.scans.cfl import AXES, read_cfl
from invdiff.scans.files import Npz, dataset, guarded, hdf5, inside, taken
from invdiff.scans.kspace import KSpace, without_oversampling
from invdiff.scans.raw_grid import read_raw

First = Literal["slices", "coils"]


def read_kspace(
    path: str | Path,
    key: str | None = None,
    slice: int | None = None,
    mask: Tensor | None = None,
    first: First | None = None,
    crop: bool = True,
) -> KSpace:
    """Cartesian k-space of one slice from a file; the format is told by its ending.

    .npy       complex, (H, W), (coils, H, W) or (slices, coils, H, W)
    .npz       the same as `key`, `kspace`, or the only complex array; `mask` where there is one;
               or `samples` (coils, n), `mask` (packed bits) and `shape` (H, W)
    .h5 .hdf5  fastMRI: `kspace` (slices, coils, H, W) or (slices, H, W), `mask` (W,), and
               `ismrmrd_header`; or ISMRMRD raw data: `dataset/data` and `dataset/xml`
    .cfl .hdr  BART: read and first phase axis are H and W

    key: name of the array in .npz and HDF5 (in ISMRMRD of the group). slice: from 0; by default the
    one in the middle. mask: (H, W) or (W,), in place of the file's. first: what the first of three
    axes is; by default coils, in HDF5 slices. crop: remove the oversampling of the readout (H)
    where a header tells of it and all rows are sampled alike: transform, keep the middle,
    transform back. Noise keeps its level, for the transform is orthonormal.
    Without a mask, what is 0 in all coils counts as not sampled. Facts tell what was done.
    Raises InvdiffError, one sentence with the name of the file, when it is broken or unknown.
    """
    path = Path(path)
    with guarded(path, "k-space"):
        return _read(path, key, slice, mask, first, crop)


def _read(
    path: Path,
    key: str | None,
    slice_: int | None,
    mask: Tensor | None,
    first: First | None,
    crop: bool,
) -> KSpace:
    """The format that belongs to the ending."""
    ending = path.suffix.lower()
    if key is not None and ending in (".npy", ".cfl", ".hdr"):
        raise InvdiffError(f"{path} holds a single array without a name; leave the key out.")
    if ending == ".npy":
        array = read_array(path)
        data, told = _one_slice(array, slice_, first or "coils", str(path))
        return _finished(path, data, mask, ("numpy array", *told))
    if ending == ".npz":
        return _npz(path, key, slice_, mask, first)
    if ending in (".h5", ".hdf5", ".mrd"):
        return _hdf5(path, key, slice_, mask, first, crop)
    if ending in (".cfl", ".hdr"):
        data, told = _bart_slice(read_cfl(path), slice_, path)
        return _finished(path, data, mask, ("BART array", *told))
    raise InvdiffError(
        f"{path} has none of the endings of k-space files: .npy, .npz, .h5, .hdf5, .mrd, .cfl."
    )


def _npz(
    path: Path, key: str | None, slice_: int | None, mask: Tensor | None, first: First | None
) -> KSpace:
    file = Npz(path)
    if key is None and {"samples", "mask", "shape"} <= set(file.names):
        return _finished(path, *_packed(file), ("packed samples",))
    found = key or file.first("kspace")
    if found is None:
        complex_ = [n for n in file.names if file[n].dtype.kind == "c"]
        if len(complex_) != 1:
            raise InvdiffError(
                f"{path} holds {len(complex_)} complex arrays and none called kspace; name one of "
                f"{', '.join(file.names) or 'none'} by key."
            )
        (found,) = complex_
    data, told = _one_slice(file[found], slice_, first or "coils", f"{found} in {path}")
    if mask is None and "mask" in file.names:
        mask = torch.from_numpy(file["mask"] != 0)
    return _finished(path, data, mask, (f"array {found}", *told))


def _packed(file: Npz) -> tuple[np.ndarray, Tensor]:
    """k-space and mask of samples (coils, n) with the bits of a mask of `shape`."""
    with guarded(file.path, "an archive of samples"):
        h, w = (int(n) for n in file["shape"])
        mask = np.unpackbits(file["mask"])[: h * w].reshape(h, w).astype(bool)
        samples = file["samples"]
        data = np.zeros((len(samples), h, w), np.complex64)
        data[:, mask] = samples
    return data, torch.from_numpy(mask)


def _hdf5(
    path: Path,
    key: str | None,
    slice_: int | None,
    mask: Tensor | None,
    first: First | None,
    crop: bool,
) -> KSpace:
    with hdf5(path) as file:
        group = file.get(key or "dataset")
        if group is not None and getattr(group, "shape", None) is None and "data" in group:
            raw = read_raw(path, group, slice_)
            k = _finished(path, raw.data, raw.mask if mask is None else mask, raw.facts)
            k = replace(k, recon=raw.recon, noise=raw.noise)
            return without_oversampling(k, raw.recon) if crop and raw.readout else k
        array = dataset(file, key or "kspace", path)
        data, told = _one_slice(array, slice_, first or "slices", f"{key or 'kspace'} in {path}")
        if mask is None and "mask" in file:
            m = dataset(file, "mask", path)
            mask = torch.from_numpy(taken(m, (), m.shape, f"mask in {path}") != 0)
        recon = _recon_size(file, path)
        k = replace(_finished(path, data, mask, ("HDF5 of fastMRI's layout", *told)), recon=recon)
    return without_oversampling(k, recon) if crop else k


def _recon_size(file: Any, path: Path) -> tuple[int, int] | None:
    """(H, W) of reconSpace in the dataset ismrmrd_header; None where there is none."""
    header = file.get("ismrmrd_header")
    if header is None:
        return None
    with guarded(path, "an HDF5 file with an ISMRMRD header"):
        text = inside(header, path)[()]
        root = ElementTree.fromstring(text if isinstance(text, bytes) else str(text))
        size = root.find(".//{*}reconSpace/{*}matrixSize")
        if size is None:
            return None
        x, y = (int(size.findtext(f"{{*}}{axis}") or 0) for axis in "xy")
    return (x, y) if x > 0 and y > 0 else None


def _one_slice(
    array: Any, index: int | None, first: First, what: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """One slice (coils, H, W) of an array of 2 to 4 axes, and what was chosen."""
    shape = tuple(array.shape)
    if array.dtype.kind != "c":
        raise InvdiffError(
            f"{what} holds {array.dtype} and not complex numbers; join real and imaginary parts."
        )
    if not 2 <= len(shape) <= 4:
        raise InvdiffError(
            f"{what} has shape {shape}; k-space is (H, W), (coils, H, W) or (slices, coils, H, W)."
        )
    if len(shape) == 2 or (len(shape) == 3 and first == "coils"):
        chosen_slice(1, index, what)
        data = taken(array, (), shape, what)
        return data if len(shape) == 3 else data[None], ()
    chosen, told = chosen_slice(shape[0], index, what)
    data = taken(array, chosen, shape[1:], what)
    return data if len(shape) == 4 else data[None], (told,)


def chosen_slice(n: int, index: int | None, what: str) -> tuple[int, str]:
    """The slice that was asked for, or the one in the middle, and a fact that says so."""
    if n < 1 or (index is not None and not 0 <= index < n):
        raise InvdiffError(
            f"{what} has {n} slice{'s' * (n != 1)}, counted from 0; there is no slice {index}."
        )
    chosen = n // 2 if index is None else index
    return chosen, f"slice {chosen} of {n}" + (", the middle one" if index is None else "")


def _bart_slice(
    array: np.ndarray, index: int | None, path: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(coils, H, W) of BART's axes read, phase 1, coil and slice; others must have length 1."""
    many = [f"{name} {n}" for k, (name, n) in enumerate(zip(AXES, array.shape, strict=True))
            if n > 1 and k not in (0, 1, 3, 13)]  # fmt: skip
    if many:
        raise InvdiffError(
            f"{path} has more axes than read, phase 1, coil and slice: {', '.join(many)}; cut out "
            "one image with bart slice."
        )
    chosen, told = chosen_slice(array.shape[13], index, str(path))
    k = array.reshape(*array.shape[:2], array.shape[3], -1, order="F")[..., chosen]
    return np.asarray(k).transpose(2, 0, 1), (told,) * (array.shape[13] > 1)


def _finished(path: Path, data: np.ndarray, mask: Tensor | None, facts: tuple[str, ...]) -> KSpace:
    """Checked and masked k-space, with the facts that hold for every format."""
    k = torch.from_numpy(np.array(data, np.complex64, order="C"))
    size = tuple(k.shape[-2:])
    if mask is None:
        found, how = (k != 0).any(0), "mask inferred: what is 0 in all coils was not sampled"
    else:
        found, how = _mask(mask, size, path), "mask given"
    bad = int((~torch.isfinite(torch.view_as_real(k))).any(-1)[:, found].sum())
    if bad:
        raise InvdiffError(
            f"{path} holds {bad} samples that are NaN or infinite; mark them as not sampled."
        )
    if not bool((found & (k != 0).any(0)).any()):
        raise InvdiffError(f"{path} holds no sample that is not 0.")
    outside = int(((k != 0).any(0) & ~found).sum())
    k = torch.where(found, k, 0)
    rows, columns = calibration_region(found[None, None])
    told = [
        *facts,
        f"{len(k)} coil{'s' * (len(k) > 1)}, {size[0]} x {size[1]} samples",
        how,
        f"true acceleration {acceleration(found[None, None])[0]:.2f}",
        f"calibration region {rows} x {columns}, found from the mask",
    ]
    told += [f"{outside} samples outside the mask were dropped"] * (outside > 0)
    return KSpace(k, found, tuple(told))


def _mask(mask: Tensor, size: tuple[int, ...], path: Path) -> Tensor:
    """A mask (H, W), (W,) or either with leading ones, as (H, W) bool."""
    m = mask.reshape([n for k, n in enumerate(mask.shape) if n > 1 or k >= mask.ndim - 2])
    if tuple(m.shape) not in (size, size[1:], (1, size[1]), (size[0], 1)):
        raise InvdiffError(
            f"The mask of {path} has shape {tuple(mask.shape)}, but k-space has {size[0]} rows and "
            f"{size[1]} columns; a mask is (H, W), or (W,) for whole columns."
        )
    if not bool(((m == 0) | (m == 1)).all()) or not bool((m != 0).any()):
        raise InvdiffError(f"The mask of {path} holds only 1 (sampled) and 0, and not all 0.")
    return (m != 0).expand(size).clone()
