"""k-space as scanners and other programs store it: numpy, fastMRI, ISMRMRD, BART, MATLAB files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.files.pictures import read_array
from invdiff.scans.asked import Asked, First, Origin, parse_axes
from invdiff.scans.cfl import bart_image, read_cfl
from invdiff.scans.convert import how_to_convert
from invdiff.scans.files import Npz, check_numbers, dataset, guarded, hdf5, inside, taken
from invdiff.scans.finish import finished
from invdiff.scans.kspace import KSpace, without_oversampling
from invdiff.scans.layout import BACK, FRONT, image_of, is_complex, named_axes
from invdiff.scans.matlab import matlab
from invdiff.scans.placement import Placement
from invdiff.scans.raw_grid import read_raw
from invdiff.scans.raw_header import Header, parse_header

ENDINGS = (".npy", ".npz", ".h5", ".hdf5", ".mrd", ".cfl", ".mat")
"""Of files of k-space; .hdr of BART beside .cfl."""


def read_kspace(
    path: str | Path,
    key: str | None = None,
    slice: int | None = None,
    mask: Tensor | None = None,
    first: First | None = None,
    crop: bool = True,
    *,
    axes: str | tuple[str, ...] | None = None,
    origin: Origin | None = None,
    echo: int | None = None,
    time: int | None = None,
    phase: int | None = None,
    set: int | None = None,
    encoding: int | None = None,
) -> KSpace:
    """Cartesian k-space of one image from a file; the format is told by its ending.

    .npy       complex, (H, W), (coils, H, W) or (slices, coils, H, W)
    .npz       the same as `key`, `kspace`, or the only complex array; `mask` where there is one;
               or `samples` (coils, n), `mask` (packed bits) and `shape` (H, W)
    .h5 .hdf5  fastMRI: `kspace` (slices, coils, H, W) or (slices, H, W), `mask` (W,), and
               `ismrmrd_header`; or ISMRMRD raw data: `dataset/data` and `dataset/xml`
    .cfl .hdr  BART: the two of its first three axes that are longer than 1 are H and W
    .mat       MATLAB 5 and 7.3: (H, W), (H, W, coils), (.., slices), (.., times), as MATLAB counts

    Real arrays whose last axis is 2 hold real and imaginary parts.
    key: name of the array in .npz, .mat and HDF5 (in ISMRMRD of the group). slice, echo, time,
    phase, set: from 0; by default the slice in the middle and the first of the others; `set` counts
    what BART has along axes of no other name. encoding: of raw data. mask: (H, W) or (W,), in place
    of the file's. first: what the first of three axes is; by default coils, in HDF5 slices. axes:
    names of all axes, as "slices,y,x,coils"; y are the rows; z makes three dimensions, which are
    transformed along one that is fully sampled. origin: where the zero frequency is, centre or
    corner. crop: remove the oversampling of the readout (H) where a header tells of it, by its
    fields of view, and all rows are sampled alike: transform, keep the middle, transform back.
    Noise keeps its level, for the transform is orthonormal.
    Without a mask, what is 0 in all coils counts as not sampled. Facts tell what was done.
    Raises InvdiffError, one sentence with the name of the file, when it is broken or unknown, and
    where its axes or its origin are more likely others than those that are taken.
    """
    path = Path(path)
    names = axes_of(axes)
    asked = Asked(key, slice, echo, time, phase, set, encoding, first, names, origin, crop)
    with guarded(path, "k-space"):
        return _read(path, asked, mask)


def axes_of(axes: str | tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Names of axes, checked."""
    if axes is None:
        return None
    return parse_axes(axes if isinstance(axes, str) else ",".join(axes))


def _read(path: Path, asked: Asked, mask: Tensor | None) -> KSpace:
    """The format that belongs to the ending."""
    ending = path.suffix.lower()
    if asked.key is not None and ending in (".npy", ".cfl", ".hdr"):
        raise InvdiffError(f"{path} holds a single array without a name; leave the key out.")
    if asked.encoding is not None and ending not in (".h5", ".hdf5", ".mrd"):
        raise InvdiffError(f"{path} is no ISMRMRD raw data, so it has no encodings.")
    if ending == ".npy":
        array = read_array(path)
        names = named_axes(array, asked, str(path), FRONT)
        data, told, counts = image_of(array, names, asked, str(path))
        return replace(
            finished(path, data, mask, ("numpy array", *told), asked.origin), counts=counts
        )
    if ending == ".npz":
        return _npz(path, asked, mask)
    if ending in (".h5", ".hdf5", ".mrd"):
        return _hdf5(path, asked, mask)
    if ending in (".cfl", ".hdr"):
        data, told, counts = bart_image(read_cfl(path), asked, path)
        return replace(
            finished(path, data, mask, ("BART array", *told), asked.origin), counts=counts
        )
    if ending == ".mat":
        return _mat(path, asked, mask)
    raise InvdiffError(
        f"{path} has none of the endings of k-space files: {', '.join(ENDINGS)}"
        f"{how_to_convert(path)}."
    )


def _npz(path: Path, asked: Asked, mask: Tensor | None) -> KSpace:
    file = Npz(path)
    if asked.key is None and {"samples", "mask", "shape"} <= set(file.names):
        return finished(path, *_packed(file), ("packed samples",))
    found = asked.key or file.first("kspace")
    if found is None:
        complex_ = [n for n in file.names if file[n].dtype.kind == "c"]
        if len(complex_) != 1:
            raise InvdiffError(
                f"{path} holds {len(complex_)} complex arrays and none called kspace; name one of "
                f"{', '.join(file.names) or 'none'} by key."
            )
        (found,) = complex_
    array, what = file[found], f"{found} in {path}"
    data, told, counts = image_of(array, named_axes(array, asked, what, FRONT), asked, what)
    if mask is None and "mask" in file.names:
        mask = torch.from_numpy(_plain(file["mask"]))
    return replace(
        finished(path, data, mask, (f"array {found}", *told), asked.origin), counts=counts
    )


def _packed(file: Npz) -> tuple[np.ndarray, Tensor]:
    """k-space and mask of samples (coils, n) with the bits of a mask of `shape`."""
    with guarded(file.path, "an archive of samples"):
        h, w = (int(n) for n in file["shape"])
        mask = np.unpackbits(file["mask"])[: h * w].reshape(h, w).astype(bool)
        samples = file["samples"]
        data = np.zeros((len(samples), h, w), np.complex64)
        data[:, mask] = samples
    return data, torch.from_numpy(mask)


def _mat(path: Path, asked: Asked, mask: Tensor | None) -> KSpace:
    with matlab(path) as file:
        name, array = file.kspace(asked.key)
        what = f"{name} in {path}"
        plain = _Forward(array) if file.reversed_ else array
        names = named_axes(plain, asked, what, BACK)
        data, told, counts = image_of(plain, names, asked, what)
        if mask is None and "mask" in file.shapes and name != "mask":
            found = file["mask"]
            m = taken(found, (), tuple(found.shape), f"mask in {path}")
            mask = torch.from_numpy(_plain(m.T if file.reversed_ else m))
    fact = f"array {name} of a MATLAB file, axes {', '.join(names)}"
    return replace(finished(path, data, mask, (fact, *told), asked.origin), counts=counts)


class _Forward:
    """A dataset of HDF5 with its axes as MATLAB counts them."""

    def __init__(self, array: Any) -> None:
        self.array, self.dtype = array, array.dtype
        self.shape = tuple(array.shape)[::-1]

    def __getitem__(self, index: tuple[Any, ...]) -> np.ndarray:
        return np.asarray(self.array[index[::-1]]).T


def _hdf5(path: Path, asked: Asked, mask: Tensor | None) -> KSpace:
    with hdf5(path) as file:
        group = file.get(asked.key or "dataset")
        if group is not None and getattr(group, "shape", None) is None and "data" in group:
            return _raw(path, group, asked, mask)
        if asked.encoding is not None:
            raise InvdiffError(f"{path} is no ISMRMRD raw data, so it has no encodings.")
        array = _dataset(file, asked.key or "kspace", path)
        what = f"{asked.key or 'kspace'} in {path}"
        fastmri = bool({"ismrmrd_header", "reconstruction_rss", "reconstruction_esc"} & {*file})
        names = named_axes(array, asked, what, FRONT, "slices")
        data, told, counts = image_of(array, names, asked, what, fastmri)
        if mask is None and "mask" in file:
            m = _dataset(file, "mask", path)
            mask = torch.from_numpy(_plain(taken(m, (), m.shape, f"mask in {path}")))
        k = finished(path, data, mask, ("HDF5 of fastMRI's layout", *told), asked.origin)
        k = replace(k, counts=counts)
        header = _header(file, path)
    if header is None:
        return k
    h, w = (int(n) for n in k.mask.shape)
    recon = header.shown(0, h), _columns(header, w)
    voxel = header.encoded_mm[0] / h, header.encoded_mm[1] / w, header.recon_mm[2]
    k = replace(k, recon=recon, placement=Placement(voxel) if max(voxel) > 0 else None)
    return without_oversampling(k, recon[0]) if asked.crop else k


def _columns(header: Header, w: int) -> int:
    """Columns over the field of view that is shown; of the encoded matrix where the file dropped or
    added a few."""
    n = header.encoded[1]
    alike = abs(n - w) <= 0.05 * n
    return min(header.shown(1, n if alike else w), w)


def _raw(path: Path, group: Any, asked: Asked, mask: Tensor | None) -> KSpace:
    """ISMRMRD raw data."""
    if asked.axes is not None or asked.origin is not None or asked.first is not None:
        raise InvdiffError(
            f"{path} is ISMRMRD raw data, which tells its axes and its origin itself; leave "
            "--axes, --first and --origin out."
        )
    raw = read_raw(path, group, asked)
    k = finished(path, raw.data, raw.mask if mask is None else mask, raw.facts)
    k = replace(k, recon=raw.recon, placement=raw.placement)
    k = replace(k, dwell=raw.dwell, averaged=raw.averaged, counts=raw.counts)
    if raw.noise is not None:
        k = replace(k, noise=raw.noise.covariance, noise_level=raw.noise.told)
    if raw.calibration is not None and math.prod(raw.calibration.shape):
        k = replace(k, calibration=torch.from_numpy(raw.calibration))
    return without_oversampling(k, raw.recon[0]) if asked.crop and raw.readout else k


def _header(file: Any, path: Path) -> Header | None:
    """Of the dataset ismrmrd_header of fastMRI; None where there is none."""
    header = file.get("ismrmrd_header")
    if header is None:
        return None
    with guarded(path, "an HDF5 file with an ISMRMRD header"):
        text = inside(header, path)[()]
        return parse_header(text if isinstance(text, bytes) else str(text), path)


def _dataset(file: Any, key: str, path: Path) -> Any:
    """An array of numbers, or of pairs called real and imag."""
    found = file.get(key)
    if getattr(found, "shape", None) is not None and is_complex(found.dtype):
        return inside(found, path)
    return dataset(file, key, path)


def _plain(mask: np.ndarray) -> np.ndarray:
    """A mask as numbers."""
    check_numbers(mask.dtype, "The mask")
    return np.asarray(mask, np.float32)
