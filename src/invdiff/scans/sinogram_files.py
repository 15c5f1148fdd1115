"""CT measurements in files of many formats, made into line integrals."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.files.pictures import check_file, read_array
from invdiff.scans.dicom_files import is_dicom
from invdiff.scans.files import Npz, guarded
from invdiff.scans.flatfield import SEARCHED, Corrected, corrected
from invdiff.scans.sinogram import Sinogram
from invdiff.scans.sinogram_angles import (
    Angles,
    First,
    Unit,
    check_order,
    check_rows,
    in_degrees,
    ordered_axes,
)
from invdiff.scans.sinogram_hdf5 import read_hdf5
from invdiff.scans.sinogram_kinds import Kind, check_counts, decided
from invdiff.scans.sinogram_rows import Found, row_of, told_row
from invdiff.scans.tiff import read_stack

PLAIN = "numpy.save of the array, (views, bins)"
HOW = {
    ".mat": "in Python, numpy.savez(FILE, sinogram=..., theta=...) of scipy.io.loadmat(FILE), or "
    "of h5py.File(FILE) for version 7.3, whose axes come reversed",
    ".xrm": "export it as TIFF, or numpy.save of what dxchange.read_xrm reads",
    ".txrm": "export it as TIFF, or numpy.save of what dxchange.read_txrm reads",
    ".nii": "it holds an image, no sinogram",
    ".gz": "unpack it first",
    ".zip": "unpack it first",
    ".edf": "numpy.save of fabio.open(FILE).data",
    ".csv": "numpy.save of numpy.loadtxt(FILE, delimiter=',')",
    ".txt": "numpy.save of numpy.loadtxt(FILE)",
    ".pt": "numpy.save of torch.load(FILE)",
    ".mha": "it holds an image, no sinogram",
    ".mrd": "raw data of MRI are for restore mri",
    ".cfl": "raw data of MRI are for restore mri",
}
RAW = "numpy.save of numpy.fromfile(FILE, dtype).reshape(views, bins), with the dtype of its maker"
for _ending in (".dat", ".raw", ".vol", ".bin", ".img", ".sin", ".prj", ".sino", ".his", ".seq"):
    HOW[_ending] = RAW
for _ending in (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"):
    HOW[_ending] = "a picture holds 8 bits; export the numbers as TIFF of 16 bits or float"
ENDINGS = ".h5, .hdf5, .nxs, .nx, .npz, .npy, .tif, .tiff"


def read_sinogram(
    path: str | Path,
    key: str | None = None,
    row: int | None = None,
    angles: Angles | None = None,
    unit: Unit | None = None,
    kind: Kind | None = None,
    join: int = 1,
    zingers: bool | None = None,
    first: First | None = None,
) -> Sinogram:
    """The sinogram of one detector row from a file; the format is told by its ending.

    .h5 .hdf5  data exchange (De Carlo et al. 2014): `exchange/data` (views, rows, bins),
    .nxs .nx   `data_white`, `data_dark` (repeats, rows, bins) and `theta`; or NXtomo, whose entry
               is found: frames by their `image_key`, `rotation_angle`
    .npz       `key`, or `counts`, `sinogram` or `data` (views, bins) or (views, rows, bins);
               `white`, `dark` where there are any; `theta` or `angles`; `source` of a fan: the
               distance from the source to the axis of rotation, in bins on the axis
    .npy .tif  (views, bins) or (views, rows, bins), pages of a TIFF being views, with `angles`

    row: from 0; by default the middle one. angles: of the views, in place of the file's; or (start,
    stop) in degrees, for equal steps without the stop; they count counter-clockwise (`Geometry`).
    unit: of the angles, where the file names none and they may be degrees or radians.
    kind: `counts` need white fields and become -log((counts - dark) / (white - dark));
    `transmission` becomes its -log, `percent` is 100 times that, `integrals` are taken as they are.
    By default counts where there are white fields; in arrays without, integrals unless they are
    whole numbers. first: which axis stands first where it is not the views; by default the views
    are the axis that has as many entries as there are angles.
    join: so many bins become one: counts are added, and all else is averaged. zingers: whether
    bright outliers of counts are replaced, by default where neighbouring views are near enough to
    compare: a point half way between the axis and the rim moves by at most the SEARCHED bins.
    Facts tell what was done.
    Raises InvdiffError, one sentence that names the file: when it is broken, and where units, kinds
    or axes are open, with both readings and what answers.
    """
    path = Path(path)
    check_file(path)
    reader = _reader(path)
    count = None if angles is None or isinstance(angles, tuple) else int(angles.numel())
    with guarded(path, "a sinogram"):
        found, axes = reader(path, key, row, count, first)
        degrees, told = in_degrees(path, len(found.data), found.theta, found.unit, unit, angles)
        kind, how = decided(path, found.data, found.white, found.plain, kind)
        result = _integrals(path, found, kind, join, zingers, _step(degrees))
        if not bool(torch.isfinite(result.integrals).all()):
            raise InvdiffError(f"{path} holds values beyond single precision; check its numbers.")
        check_order(path, result.integrals, first)
    views, bins = result.integrals.shape
    facts = (*found.facts, *axes, f"{views} views of {bins} bins", how, told, *result.facts)
    source = None if found.source is None else found.source / join
    return Sinogram(result.integrals, degrees, result.variance, result.trusted, facts, source)


def _reader(path: Path) -> Any:
    """What reads a file, by its ending. Raises InvdiffError, with how to convert all others."""
    ending = path.suffix.lower()
    readers = {".npz": _npz, ".npy": _npy, ".tif": _tiff, ".tiff": _tiff}
    readers |= dict.fromkeys((".h5", ".hdf5", ".nxs", ".nx"), _hdf5)
    if ending in readers:
        return readers[ending]
    if ending in (".dcm", ".ima") or is_dicom(path):
        raise InvdiffError(
            f"{path} is a DICOM file: it holds slices that are reconstructed already, and no "
            "sinogram; to take their noise away, run invdiff restore low-dose-ct on it."
        )
    raise InvdiffError(
        f"{path} has none of the endings of sinograms: {ENDINGS}; to convert it: "
        f"{HOW.get(ending, PLAIN)}."
    )


def _hdf5(
    path: Path, key: str | None, row: int | None, count: int | None, first: First | None
) -> tuple[Found, tuple[str, ...]]:
    if first not in (None, "views"):
        raise InvdiffError(f"The layout of {path} has its views first; leave --first out.")
    return read_hdf5(path, key, row), ()


def _npz(
    path: Path, key: str | None, row: int | None, count: int | None, first: First | None
) -> tuple[Found, tuple[str, ...]]:
    file = Npz(path)
    name = key or file.first("counts", "sinogram", "data")
    if name is None:
        raise InvdiffError(
            f"{path} holds no counts, sinogram or data; name one of "
            f"{', '.join(file.names) or 'none'} by key."
        )
    angles = file.first("theta", "angles")
    theta = None if angles is None else file[angles]
    count = theta.size if count is None and theta is not None else count
    whole, axes = ordered_axes(path, file[name], count, first)
    data, chosen, rows = row_of(whole, row, f"{name} in {path}")

    def field(name: str) -> np.ndarray | None:
        if name not in file.names:
            return None
        fields = file[name]
        fields = fields[None] if fields.ndim == data.ndim - 1 else fields  # one field
        return row_of(fields, chosen, f"{name} in {path}")[0]

    facts = (f"numpy archive, array {name}", *told_row(chosen, rows, row))
    source = _source(file)
    facts += ("a fan, for there is a source",) * (source is not None)
    found = Found(data, field("white"), field("dark"), theta, None, facts, source=source)
    return found, (axes,) * bool(axes)


def _source(file: Npz) -> float | None:
    """The distance `source`, in bins; None where there is none."""
    if "source" not in file.names:
        return None
    value = file["source"]
    if value.size != 1 or value.dtype.kind == "c" or not 0 < float(value.item()) < math.inf:
        raise InvdiffError(
            f"source in {file.path} is no distance in bins, one number above 0; leave it out for "
            "parallel rays."
        )
    return float(value.item())


def _npy(
    path: Path, key: str | None, row: int | None, count: int | None, first: First | None
) -> tuple[Found, tuple[str, ...]]:
    if key is not None:
        raise InvdiffError(f"{path} holds a single array without a name; leave the key out.")
    return _plain(path, read_array(path), "numpy array", row, count, first)


def _tiff(
    path: Path, key: str | None, row: int | None, count: int | None, first: First | None
) -> tuple[Found, tuple[str, ...]]:
    if key is not None:
        raise InvdiffError(f"{path} holds pages without names; leave the key out.")
    return _plain(path, read_stack(path), "TIFF", row, count, first)


def _plain(
    path: Path, array: np.ndarray, what: str, row: int | None, count: int | None,
    first: First | None,
) -> tuple[Found, tuple[str, ...]]:  # fmt: skip
    """A row of an array that comes without angles."""
    whole, axes = ordered_axes(path, array, count, first)
    if count is None and first is None:
        check_rows(path, whole)
    data, chosen, rows = row_of(whole, row, str(path))
    facts = (what, *told_row(chosen, rows, row))
    return Found(data, None, None, None, None, facts), (axes,) * bool(axes)


def _step(degrees: tuple[float, ...]) -> float:
    """The angle between a view and the next one, in degrees: the median."""
    if len(degrees) < 2:
        return 180.0
    turns = np.abs(np.diff(degrees)) % 360
    return float(np.median(np.minimum(turns, 360 - turns)))


def _integrals(
    path: Path, found: Found, kind: Kind, join: int, zingers: bool | None, step: float
) -> Corrected:
    """Line integrals with their variance. step: between neighbouring views, in degrees."""
    data = found.data.astype(np.float64)
    if not np.isfinite(data).all():
        bad = int((~np.isfinite(data)).sum())
        raise InvdiffError(f"{path} holds {bad} values that are NaN or infinite; replace them.")
    if join < 1 or join > data.shape[1]:
        raise InvdiffError(f"Of {data.shape[1]} bins in {path}, {join} cannot be joined to one.")
    bins = data.shape[1]

    def joined(a: np.ndarray | None, what: str) -> Tensor | None:
        """Bins joined: counts are added, so that photon noise stays that of all of them."""
        if a is None:
            return None
        if a.ndim != 2 or a.shape[1] != bins or not np.isfinite(a).all():
            raise InvdiffError(
                f"The {what} field of {path} has shape {a.shape}, or is not finite; the data has "
                f"{bins} bins."
            )
        cut = a[:, : bins // join * join].astype(np.float64)
        bundles = cut.reshape(len(cut), -1, join)
        return torch.from_numpy(bundles.sum(-1) if kind == "counts" else bundles.mean(-1))

    values = joined(data, "data")
    assert values is not None
    told = (f"{join} bins joined to one",) * (join > 1)
    if kind == "counts":
        white = joined(found.white, "white")
        assert white is not None
        dark = joined(found.dark, "dark")
        _check_share(path, values, white, dark)
        if zingers is None:
            zingers = math.radians(step) * values.shape[1] / 4 <= SEARCHED
            apart = f"zingers kept: views {step:.3g} degrees apart are too different to tell them"
            told += (apart,) * (not zingers)
        result = corrected(values, white, dark, zingers, str(path))
        return dataclasses.replace(result, facts=(*told, *result.facts))
    if kind in ("transmission", "percent"):
        values = values / 100 if kind == "percent" else values
        if not bool((values > 0).all()):
            raise InvdiffError(
                f"{path} holds transmissions of 0 or below, which have no logarithm."
            )
        values = -values.log()
    all_ = torch.ones_like(values, dtype=torch.bool)
    return Corrected(values.float(), None, all_, (*told, "no noise level: there are no counts"))


def _check_share(path: Path, counts: Tensor, white: Tensor, dark: Tensor | None) -> None:
    """Raise InvdiffError where counts over their white field are no transmission."""
    offset = 0 if dark is None else dark.mean(0)
    beam = white.mean(0) - offset
    seen = beam > 0.05 * beam.median()
    share = torch.where(seen, (counts - offset) / torch.where(seen, beam, 1.0), math.nan)
    if bool(seen.any()):
        check_counts(path, share.numpy())
