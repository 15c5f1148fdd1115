"""ISMRMRD raw data off the grid (radial, spiral, ...), by the trajectory that the file holds.

The format fixes no unit for trajectories. Their reach tells it: the trajectory of a full scan ends
where the encoded matrix does, at half a cycle per pixel, and that is another number in each unit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError, nearest
from invdiff.scans.asked import Asked
from invdiff.scans.files import check_size, guarded, hdf5
from invdiff.scans.placement import Placement, of_head
from invdiff.scans.raw import Readouts, readouts
from invdiff.scans.raw_header import Header, read_header

REACH = (0.9, 1.01)
"""Reaches of trajectories along both axes, as shares of half a cycle per pixel, from which their
unit is told."""
LEAST = 0.1
"""Share below which a unit that was asked for is not believed."""


@dataclass(frozen=True, eq=False)
class NonCartesianKSpace:
    """Samples of k-space anywhere, of one slice.

    data: (coils, M) complex64, on the file's scale. uv: (1, M, 2) float64, cycles per field of
    view, u along columns (y of the file) and v along rows (x), as `NonCartesian` takes them.
    size: (H, W) of the image, pixels of the encoded resolution over the field of view that the
    scanner shows. facts: what was found and done, one short phrase each. noise, noise_level:
    covariance of the coils' noise, as in `KSpace`; so are counts, placement and dwell.
    """

    data: Tensor
    uv: Tensor
    size: tuple[int, int]
    facts: tuple[str, ...] = ()
    noise: Tensor | None = None
    noise_level: bool = True
    counts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    placement: Placement | None = None
    dwell: float = 0.0

    @property
    def y(self) -> Tensor:
        """The measurement of `NonCartesian`, (1, coils, M)."""
        return self.data[None]


def is_noncartesian(path: str | Path, key: str | None = None, encoding: int | None = None) -> bool:
    """Whether a file is ISMRMRD raw data with another trajectory than a Cartesian one."""
    path = Path(path)
    if path.suffix.lower() not in (".h5", ".hdf5", ".mrd") or not path.exists():
        return False
    with guarded(path, "ISMRMRD raw data"), hdf5(path) as file:
        group = file.get(key or "dataset")
        if not hasattr(group, "keys") or not {"data", "xml"} <= set(group):
            return False
        return read_header(group, path, encoding).kind not in ("cartesian", "epi", "")


def read_noncartesian(
    path: str | Path,
    key: str | None = None,
    slice: int | None = None,
    unit: str | None = None,
    *,
    echo: int | None = None,
    time: int | None = None,
    phase: int | None = None,
    set: int | None = None,
    encoding: int | None = None,
) -> NonCartesianKSpace:
    """Samples and trajectory of one slice of 2-D ISMRMRD raw data (.h5, .hdf5, .mrd).

    key: of the group, dataset by default. slice, echo, time, phase, set: from 0, by default the
    slice in the middle and the first of the others; encoding: of those that the header tells of.
    What is left out is as for `read_kspace`; repeated readouts are further samples.
    unit: of the trajectory, pixel (cycles per pixel), fov (cycles per encoded field of view),
    recon-fov (per field of view that is shown), radian (per pixel), 1/m or rad/m. By default it is
    the one in which the trajectory reaches 0.9 to 1.01 of half a cycle per encoded pixel along both
    axes; facts say which.
    Raises InvdiffError, one sentence that names the file, when there is no such unit or more than
    one, no trajectory in the file, or one of three dimensions.
    """
    path = Path(path)
    asked = Asked(key, slice, echo, time, phase, set, encoding)
    with guarded(path, "ISMRMRD raw data"), hdf5(path) as file:
        group = file.get(key or "dataset")
        if not hasattr(group, "keys") or not {"data", "xml"} <= {*group}:
            raise InvdiffError(f"{path} holds no ISMRMRD raw data called {key or 'dataset'}.")
        header = read_header(group, path, encoding)
        if header.kind in ("cartesian", "epi", ""):
            raise InvdiffError(
                f"{path} is {header.kind or 'of no kind that it tells'}; read_kspace reads "
                "Cartesian raw data."
            )
        if header.encoded[2] != 1:
            raise InvdiffError(
                f"{path} is a 3-D measurement along a trajectory of kind {header.kind}; only "
                "slices are read, transform along the partitions first."
            )
        if min(*header.encoded_mm[:2], *header.recon_mm[:2]) <= 0:
            raise InvdiffError(f"{path} tells no field of view in its header.")
        r = readouts(path, group, header, asked, grid=False)
        data, k = _gathered(r)
    cycles, told = _cycles_per_pixel(k, header, unit, path)
    return _finished(r, data, cycles, told)


def _gathered(r: Readouts) -> tuple[np.ndarray, np.ndarray]:
    """All samples (coils, M), and the trajectory (M, 2) in its own unit."""
    heads, count = r.heads[r.lines], sum(b - a for a, b in map(r.span, r.lines))
    check_size((r.coils, count), 8, f"k-space of {r.path}")
    axes = np.unique(heads["trajectory_dimensions"])
    if len(axes) != 1 or axes[0] not in (2, 3):
        raise InvdiffError(
            f"{r.path} holds no trajectory of two dimensions beside its samples (found "
            f"{', '.join(map(str, axes))}); give samples and trajectory to NonCartesian."
        )
    values, places = [], []
    for k in r.lines:
        n = int(r.heads[k]["number_of_samples"])
        start, stop = r.span(k)
        place = np.asarray(r.records[k]["traj"], np.float64)
        if place.size != n * axes[0]:
            raise InvdiffError(
                f"Readout {k} of {r.path} has {n} samples, but a trajectory of {place.size} "
                "numbers."
            )
        values.append(r.samples(k))
        places.append(place.reshape(n, -1)[start:stop])
    data, found = np.concatenate(values, 1), np.concatenate(places)
    if not np.isfinite(found).all() or not np.isfinite(data.view(np.float32)).all():
        raise InvdiffError(f"{r.path} holds samples or places that are NaN or infinite.")
    if axes[0] == 3 and found[:, 2].any():
        raise InvdiffError(
            f"{r.path} holds a third number for each sample, a third dimension or a weight; only "
            "trajectories of two dimensions are read."
        )
    return data, found[:, :2]


def _cycles_per_pixel(
    k: np.ndarray, header: Header, unit: str | None, path: Path
) -> tuple[np.ndarray, str]:
    """The trajectory (M, 2) in cycles per encoded pixel, and how its unit was told."""
    edges = _edges(header)
    reach = {name: np.abs(k).max(0) / edge for name, edge in edges.items()}
    span = f"reaches {np.abs(k).max():.4g}"
    if unit is not None:
        if unit not in edges:
            raise nearest(unit, edges, "unit of trajectories")
        share = float(reach[unit].max())
        if not LEAST <= share <= REACH[1]:
            raise InvdiffError(
                f"The trajectory of {path} {span}, {share:.3g} of what the encoded matrix "
                f"resolves if its unit is {unit}; it is another one."
            )
        return k / edges[unit] / 2, f"trajectory {span}, in units of {unit}, as asked"
    fits = [n for n, share in reach.items() if REACH[0] <= share.min() <= share.max() <= REACH[1]]
    same = [name for name in fits if np.allclose(edges[name], edges[fits[0]], rtol=1e-3)]
    if not fits or len(same) < len(fits):
        many = f"could be in {' or '.join(fits)}" if fits else "is in no unit that is known"
        raise InvdiffError(
            f"The trajectory of {path} {span} and {many}, by an encoded matrix of "
            f"{header.encoded[0]} x {header.encoded[1]}; name its unit, one of {', '.join(edges)}."
        )
    told = f"trajectory {span}, so its unit is {' or '.join(fits)}"
    return k / edges[fits[0]] / 2, told


def _edges(header: Header) -> dict[str, np.ndarray]:
    """What half a cycle per encoded pixel is in every unit, along x and y."""
    n, mm = np.array(header.encoded[:2], float), np.array(header.encoded_mm[:2])
    shown = np.array(header.recon_mm[:2])
    per_metre = n / (2 * mm) * 1000
    return {
        "pixel": np.full(2, 0.5),
        "fov": n / 2,
        "recon-fov": n / 2 * shown / mm,
        "radian": np.full(2, np.pi),
        "1/m": per_metre,
        "rad/m": 2 * np.pi * per_metre,
    }


def _finished(r: Readouts, data: np.ndarray, cycles: np.ndarray, told: str) -> NonCartesianKSpace:
    """Samples with frequencies on the image of the field of view that is shown."""
    header = r.header
    sides = np.array(header.encoded[:2]) * header.recon_mm[:2] / np.array(header.encoded_mm[:2])
    h, w = (max(1, round(n)) for n in sides.tolist())
    check_size((r.coils, h, w), 8, f"An image of {r.path}")
    if not data.any():
        raise InvdiffError(f"{r.path} holds no sample that is not 0.")
    uv = torch.from_numpy((cycles * sides)[:, ::-1].copy())[None]
    coils, count = data.shape
    facts = (
        *r.facts,
        f"{header.kind}, {len(r.lines)} readouts, {count} samples",
        f"{coils} coil{'s' * (coils > 1)}, image of {h} x {w}",
        told,
    )
    return NonCartesianKSpace(
        torch.from_numpy(data), uv, (h, w), facts, *_noise(r), r.counts, _placement(r), _dwell(r)
    )


def _noise(r: Readouts) -> tuple[Tensor | None, bool]:
    """Covariance of the coils' noise, and whether its level holds."""
    return (None, True) if r.noise is None else (r.noise.covariance, r.noise.told)


def _placement(r: Readouts) -> Placement | None:
    """Of the image, with pixels of the encoded resolution."""
    x, y, _ = (mm / n for mm, n in zip(r.header.encoded_mm, r.header.encoded, strict=True))
    return of_head(r.heads[r.lines[0]], (x, y, r.header.recon_mm[2]))


def _dwell(r: Readouts) -> float:
    """Time of a sample in us, 0 where it is not told."""
    found = float(r.heads[r.lines[0]]["sample_time_us"])
    return found if 0 < found < np.inf else 0.0
