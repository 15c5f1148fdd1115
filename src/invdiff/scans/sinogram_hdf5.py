"""Sinograms in HDF5: data exchange, and NXtomo of NeXus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from invdiff.core import InvdiffError
from invdiff.scans.files import dataset, hdf5, inside, taken
from invdiff.scans.sinogram_rows import Found, row_of, told_row

PROJECTION, FLAT, DARK = 0, 1, 2
"""image_key of NXtomo."""
DATA = ("instrument/detector/data", "data/data", "data")
KEYS = ("instrument/detector/image_key", "data/image_key", "image_key")
CONTROL = "instrument/detector/image_key_control"
ANGLES = ("sample/rotation_angle", "data/rotation_angle", "rotation_angle")


def read_hdf5(path: Path, key: str | None, row: int | None) -> Found:
    """One detector row of data exchange, or of the NXtomo entry of a NeXus file.

    key: the array, or the NXtomo entry where there are several.
    """
    with hdf5(path) as file:
        entries = _entries(file, path)
        if key is not None and entries:
            entries = [e for e in entries if key.strip("/") == e or key.strip("/").startswith(e)]
        if not entries:
            return _exchange(file, path, key, row)
        if len(entries) > 1:
            raise InvdiffError(
                f"{path} holds {len(entries)} NXtomo entries; name one by --key: "
                f"{', '.join(entries[:8])}."
            )
        return _nxtomo(file[entries[0]] if entries[0] else file, path, row)


def _first(group: Any, path: Path, names: tuple[str, ...]) -> Any:
    """The first of these arrays that a group holds; None without any."""
    for name in names:
        found = group.get(name)
        if found is not None and getattr(found, "shape", None) is not None:
            return inside(found, path)
    return None


def _text(thing: Any) -> str:
    value = thing[()] if hasattr(thing, "shape") else thing
    value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _entries(file: Any, path: Path) -> list[str]:
    """Names of the groups that are NXtomo: by their definition, or by what they hold."""
    found: list[str] = []

    def look(name: str, thing: Any) -> None:
        if hasattr(thing, "shape") or len(found) > 64:
            return
        definition = thing.get("definition")
        named = definition is not None and hasattr(definition, "shape")
        tomo = named and not definition.shape and _text(inside(definition, path)) == "NXtomo"
        if tomo or _first(thing, path, KEYS[:2]) is not None:
            found.append(name)

    look("", file)
    file.visititems(look)
    # a definition may stand in an entry whose parts are found again below it
    return [n for n in found if not any(m != n and m.startswith(f"{n}/") for m in found)]


def _nxtomo(entry: Any, path: Path, row: int | None) -> Found:
    """Projections, flat and dark fields of an NXtomo entry, by their image_key."""
    name = entry.name
    data, keys = _first(entry, path, DATA), _first(entry, path, KEYS)
    angles = _first(entry, path, ANGLES)
    for what, thing in (("data", data), ("rotation_angle", angles)):
        if thing is None:
            raise InvdiffError(f"The NXtomo entry {name} of {path} holds no {what}.")
    frames, chosen, rows = row_of(data, row, f"{data.name} in {path}")
    count = len(frames)
    kinds = np.zeros(count, np.int64)
    if keys is not None:
        kinds = taken(keys, (), keys.shape, f"image_key in {path}").astype(np.int64).ravel()
    theta = taken(angles, (), angles.shape, f"rotation_angle in {path}").ravel()
    control = _first(entry, path, (CONTROL,))
    if len(kinds) != count or len(theta) != count:
        raise InvdiffError(
            f"The NXtomo entry {name} of {path} holds {count} frames, but {len(kinds)} values of "
            f"image_key and {len(theta)} angles; save it once more."
        )
    if control is not None and control.shape == (count,):  # returns to an earlier angle are -1
        again = taken(control, (), control.shape, f"image_key_control in {path}").astype(np.int64)
        kinds = np.where((again < 0) & (kinds == PROJECTION), -1, kinds)
    seen = kinds == PROJECTION
    if not seen.any():
        raise InvdiffError(f"The NXtomo entry {name} of {path} holds no projections.")
    white, dark = frames[kinds == FLAT], frames[kinds == DARK]
    left = int((~np.isin(kinds, (PROJECTION, FLAT, DARK))).sum())
    facts = (f"NXtomo, entry {name}", *told_row(chosen, rows, row))
    facts += (f"{left} frames left out: invalid or for alignment",) * (left > 0)
    return Found(
        frames[seen],
        white if len(white) else None,
        dark if len(dark) else None,
        theta[seen],
        _units(angles),
        facts,
        plain=False,
    )


def _units(array: Any) -> str | None:
    """The unit that an array names."""
    unit = array.attrs.get("units")
    return None if unit is None else _text(unit)


def _exchange(file: Any, path: Path, key: str | None, row: int | None) -> Found:
    """One detector row of the layout of De Carlo et al. 2014."""
    name = key or "exchange/data"
    group = name.rpartition("/")[0]
    data, chosen, rows = row_of(dataset(file, name, path), row, f"{name} in {path}")

    def field(name: str) -> np.ndarray | None:
        if f"{group}/{name}" not in file:
            return None
        array = dataset(file, f"{group}/{name}", path)
        return row_of(array, chosen, f"{name} in {path}")[0]

    white, dark = field("data_white"), field("data_dark")
    theta, unit = None, None
    if f"{group}/theta" in file:
        array = dataset(file, f"{group}/theta", path)
        theta, unit = taken(array, (), array.shape, f"theta in {path}"), _units(array)
    facts = ("HDF5 data exchange", *told_row(chosen, rows, row))
    return Found(data, white, dark, theta, unit, facts, plain=False)
