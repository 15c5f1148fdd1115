"""CT measurements in files: HDF5 data exchange and numpy archives, made into line integrals."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.files.pictures import check_file, read_array
from invdiff.scans.files import Npz, dataset, guarded, hdf5, taken
from invdiff.scans.flatfield import SEARCHED, Corrected, corrected
from invdiff.scans.sinogram import Sinogram

Kind = Literal["counts", "transmission", "integrals"]
Unit = Literal["degrees", "radians"]
Angles = Tensor | tuple[float, float]


def read_sinogram(
    path: str | Path,
    key: str | None = None,
    row: int | None = None,
    angles: Angles | None = None,
    unit: Unit | None = None,
    kind: Kind | None = None,
    join: int = 1,
    zingers: bool | None = None,
) -> Sinogram:
    """The sinogram of one detector row from a file; the format is told by its ending.

    .h5 .hdf5  data exchange (De Carlo et al. 2014): `exchange/data` (views, rows, bins),
               `data_white`, `data_dark` (repeats, rows, bins) and `theta`
    .npz       `key`, or `counts`, `sinogram` or `data` (views, bins) or (views, rows, bins);
               `white`, `dark` where there are any; `theta` or `angles`; `source` of a fan: the
               distance from the source to the axis of rotation, in bins on the axis
    .npy       (views, bins) or (views, rows, bins), with `angles`

    row: from 0; by default the middle one. angles: of the views, in place of the file's; or (start,
    stop) in degrees, for equal steps without the stop. unit: of the angles; by default what the
    file says, else radians where all lie within 7, degrees elsewhere.
    kind: `counts` need white fields and become -log((counts - dark) / (white - dark));
    `transmission` becomes its -log, `integrals` are taken as they are. By default counts where
    there are white fields; in numpy files without, integrals unless they are whole numbers.
    join: so many bins become one: counts are added, and all else is averaged. zingers: whether
    bright outliers of counts are replaced, by default where neighbouring views are near enough to
    compare: a point half way between the axis and the rim moves by at most the SEARCHED bins.
    Facts tell what was done.
    Raises InvdiffError, one sentence that names the file.
    """
    path = Path(path)
    check_file(path)
    ending = path.suffix.lower()
    readers = {".h5": _exchange, ".hdf5": _exchange, ".nxs": _exchange, ".npz": _npz, ".npy": _npy}
    if ending not in readers:
        raise InvdiffError(
            f"{path} has none of the endings of sinograms: .h5, .hdf5, .nxs, .npz, .npy."
        )
    with guarded(path, "a sinogram"):
        found = readers[ending](path, key, row)
        degrees, told = _degrees(path, found, angles, unit)
        kind, how = _kind(path, found, kind)
        result = _integrals(path, found, kind, join, zingers, _step(degrees))
    views, bins = result.integrals.shape
    facts = (*found.facts, f"{views} views of {bins} bins", how, told, *result.facts)
    source = None if found.source is None else found.source / join
    return Sinogram(result.integrals, degrees, result.variance, result.trusted, facts, source)


@dataclass(frozen=True, eq=False)
class Found:
    """What a file holds of one row: data (views, bins), fields (repeats, bins), angles, and how
    far a fan's source is, in bins."""

    data: np.ndarray
    white: np.ndarray | None
    dark: np.ndarray | None
    theta: np.ndarray | None
    unit: str | None
    facts: tuple[str, ...]
    numpy: bool = True
    source: float | None = None


def _row(array: Any, row: int | None, what: str) -> tuple[np.ndarray, int | None, int]:
    """One detector row of (views, bins) or (views, rows, bins): it, its number, and of how many."""
    shape = tuple(array.shape)
    if array.dtype.kind == "c" or len(shape) not in (2, 3):
        raise InvdiffError(
            f"{what} has shape {shape} of {array.dtype}; a sinogram holds real numbers, "
            "(views, bins) or (views, rows, bins)."
        )
    if len(shape) == 2:
        if row not in (None, 0):
            raise InvdiffError(f"{what} has one detector row, 0; there is no row {row}.")
        return taken(array, (), shape, what), None, 1
    rows = shape[1]
    if rows < 1 or (row is not None and not 0 <= row < rows):
        raise InvdiffError(f"{what} has {rows} rows, counted from 0; there is no row {row}.")
    chosen = rows // 2 if row is None else row
    part = taken(array, (slice(None), chosen), (shape[0], shape[2]), what)
    return part, chosen, rows


def _chosen_row(row: int | None, rows: int, asked: int | None) -> tuple[str, ...]:
    if row is None:
        return ()
    return (f"detector row {row} of {rows}" + (", the middle one" if asked is None else ""),)


def _exchange(path: Path, key: str | None, row: int | None) -> Found:
    with hdf5(path) as file:
        name = key or "exchange/data"
        group = name.rpartition("/")[0]
        data, chosen, rows = _row(dataset(file, name, path), row, f"{name} in {path}")

        def field(name: str) -> np.ndarray | None:
            if f"{group}/{name}" not in file:
                return None
            array = dataset(file, f"{group}/{name}", path)
            return _row(array, chosen, f"{name} in {path}")[0]

        white, dark = field("data_white"), field("data_dark")
        theta, unit = None, None
        if f"{group}/theta" in file:
            array = dataset(file, f"{group}/theta", path)
            theta = taken(array, (), array.shape, f"theta in {path}")
            unit = array.attrs.get("units")
            unit = unit.decode(errors="replace") if isinstance(unit, bytes) else unit
    facts = ("HDF5 data exchange", *_chosen_row(chosen, rows, row))
    told = None if unit is None else str(unit)
    return Found(data, white, dark, theta, told, facts, numpy=False)


def _npz(path: Path, key: str | None, row: int | None) -> Found:
    file = Npz(path)
    name = key or file.first("counts", "sinogram", "data")
    if name is None:
        raise InvdiffError(
            f"{path} holds no counts, sinogram or data; name one of "
            f"{', '.join(file.names) or 'none'} by key."
        )
    data, chosen, rows = _row(file[name], row, f"{name} in {path}")

    def field(name: str) -> np.ndarray | None:
        if name not in file.names:
            return None
        return _row(file[name], chosen, f"{name} in {path}")[0]

    angles = file.first("theta", "angles")
    theta = None if angles is None else file[angles]
    facts = (f"numpy archive, array {name}", *_chosen_row(chosen, rows, row))
    source = _source(file)
    facts += ("a fan, for there is a source",) * (source is not None)
    return Found(data, field("white"), field("dark"), theta, None, facts, source=source)


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


def _npy(path: Path, key: str | None, row: int | None) -> Found:
    if key is not None:
        raise InvdiffError(f"{path} holds a single array without a name; leave the key out.")
    data, chosen, rows = _row(read_array(path), row, str(path))
    facts = ("numpy array", *_chosen_row(chosen, rows, row))
    return Found(data, None, None, None, None, facts)


def _degrees(
    path: Path, found: Found, angles: Angles | None, unit: Unit | None
) -> tuple[tuple[float, ...], str]:
    """The angles in degrees, and how their unit was told."""
    views = len(found.data)
    if isinstance(angles, tuple):
        (start, stop), unit = angles, "degrees"
        angles = start + (stop - start) * torch.arange(views, dtype=torch.float64) / views
    theta = found.theta if angles is None else angles.double().numpy()
    if theta is None:
        raise InvdiffError(f"{path} holds no angles; give the angle of each of its {views} views.")
    theta = np.asarray(theta, np.float64).squeeze()
    if theta.shape != (views,) or not np.isfinite(theta).all():
        raise InvdiffError(
            f"{path} has {views} views, but its angles are of shape {theta.shape}, or not finite."
        )
    told = (found.unit or "").strip().lower() if angles is None else ""
    short = {"deg": "degrees", "degree": "degrees", "rad": "radians", "radian": "radians"}
    told = short.get(told, told)
    span = float(np.abs(theta).max())
    if unit is not None:
        used, how = str(unit), "as asked"
    elif told in ("degrees", "radians"):
        used, how = told, "as the file says"
    else:
        used, how = ("radians", "none is above 7") if span <= 7 else ("degrees", "some are above 7")
    if used == "radians" and span > 4 * math.pi + 1e-6:
        raise InvdiffError(
            f"The angles of {path} are called radians but reach {span:.4g}; give unit='degrees'."
        )
    if used == "radians":
        theta = np.degrees(theta)
    if views > 1 and np.ptp(theta) < 1e-9:
        raise InvdiffError(
            f"All {views} views of {path} have the same angle, {theta[0]:g} degrees."
        )
    reach = f"angles from {theta.min():g} to {theta.max():g} degrees"
    return tuple(theta.tolist()), f"{reach} (read as {used}: {how})"


def _kind(path: Path, found: Found, kind: Kind | None) -> tuple[Kind, str]:
    """What the numbers are, and how that was told."""
    if kind == "counts" and found.white is None:
        raise InvdiffError(f"{path} holds no white field, without which counts say nothing.")
    if kind is not None:
        return kind, f"taken as {kind}, as asked"
    if found.white is not None:
        return "counts", "counts, for there are white fields"
    if found.numpy and found.data.dtype.kind == "f":
        return "integrals", "taken as line integrals, for there is no white field"
    raise InvdiffError(
        f"{path} holds no white field, and does not say what its numbers are; give "
        "its kind, transmission or integrals."
    )


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
        if zingers is None:
            zingers = math.radians(step) * values.shape[1] / 4 <= SEARCHED
            apart = f"zingers kept: views {step:.3g} degrees apart are too different to tell them"
            told += (apart,) * (not zingers)
        result = corrected(values, white, joined(found.dark, "dark"), zingers, str(path))
        return dataclasses.replace(result, facts=(*told, *result.facts))
    if kind == "transmission":
        if not bool((values > 0).all()):
            raise InvdiffError(
                f"{path} holds transmissions of 0 or below, which have no logarithm."
            )
        values = -values.log()
    all_ = torch.ones_like(values, dtype=torch.bool)
    return Corrected(values.float(), None, all_, (*told, "no noise level: there are no counts"))
