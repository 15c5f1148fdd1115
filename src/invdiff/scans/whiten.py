"""Noise scans used: k-space of coils whose noise is alike, and maps that keep the image's
intensity.

With C = L L^H the covariance of the coils' noise, L^-1 y has white noise of level 1 in every coil
(Pruessmann et al. 2001, "Advances in sensitivity encoding with arbitrary k-space trajectories").
Sensitivities that are estimated of it are those of the whitened coils, normalised; the image would
be shaded by |L^-1 S|. S = L S' / |L S'| are the maps of the coils as they are, for which sum |S|^2
is 1, and L^-1 S those of the whitened coils for the same image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.files.pictures import read_array
from invdiff.noise import noise_from_scan
from invdiff.operators.coils import normalised
from invdiff.scans.cfl import read_cfl
from invdiff.scans.files import hdf5, inside
from invdiff.scans.kspace import KSpace
from invdiff.scans.noncartesian import NonCartesianKSpace
from invdiff.scans.raw import check_covariance, noise_of, scaled_noise
from invdiff.scans.raw_sieve import NOISE, flagged

LEAST = 1e-6
"""Share of the largest eigenvalue of a covariance below which it is taken to be singular."""


@dataclass(frozen=True, eq=False)
class NoiseWhitening:
    """factor: L of C = L L^H, (coils, coils) complex128."""

    factor: Tensor

    @staticmethod
    def of(covariance: Tensor) -> NoiseWhitening:
        """Raises InvdiffError where a coil has no noise of its own."""
        C = covariance.to(torch.complex128)
        values = torch.linalg.eigvalsh((C + C.mH) / 2)
        if not bool(torch.isfinite(values).all()) or float(values[0]) <= LEAST * float(values[-1]):
            raise InvdiffError(
                "The noise scan shows coils without noise of their own (a singular covariance), so "
                "k-space cannot be whitened; leave the dead coils out, or give --whiten never."
            )
        return NoiseWhitening(torch.linalg.cholesky((C + C.mH) / 2))

    def white(self, data: Tensor) -> Tensor:
        """L^-1 data, of (coils, ...)."""
        flat = data.flatten(1).to(torch.complex128)
        found = torch.linalg.solve_triangular(self.factor, flat, upper=False)
        return found.reshape(data.shape).to(data.dtype)

    def coloured(self, maps: Tensor) -> Tensor:
        """Normalised sensitivities of the coils as they are, of those of whitened coils."""
        found = self.factor @ maps.flatten(1).to(torch.complex128)
        return normalised(found.reshape(maps.shape)).to(maps.dtype)

    @property
    def mean(self) -> float:
        """Root of the mean variance of the coils."""
        return float((self.factor @ self.factor.mH).diagonal().real.mean().sqrt())


K = TypeVar("K", bound=KSpace | NonCartesianKSpace)


def with_noise_scan(k: K, path: Path, array: np.ndarray | None = None) -> K:
    """k with the noise of a scan in another file: its covariance in place of that of k.

    .npy (coils, n) or (n, coils), .cfl with BART's axis of coils, or ISMRMRD raw data, of which the
    noise scans count, and all readouts where none is marked so. Dwell times are accounted for where
    both files tell them. array: in place of what the file holds. Raises InvdiffError where the
    coils are not those of k.
    """
    coils = len(k.data)
    if array is not None:
        covariance, dwell, what = _of_array(array, coils, str(path))
    else:
        covariance, dwell, what = _covariance(path, coils)
    found = scaled_noise(covariance, dwell, k.dwell, 1.0, what)
    told = found.told or not dwell  # a plain array is in the units of k-space
    share = k.averaged if isinstance(k, KSpace) else 1.0
    return replace(
        k, noise=found.covariance * share, noise_level=told, facts=(*k.facts, found.fact)
    )


def _covariance(path: Path, coils: int) -> tuple[Tensor, float, str]:
    """Covariance of a file's noise, its dwell time in us (0 where not told), and what it is."""
    ending = path.suffix.lower()
    if ending in (".h5", ".hdf5", ".mrd"):
        with hdf5(path) as file:
            group = file.get("dataset")
            if not hasattr(group, "keys") or "data" not in group:
                raise InvdiffError(f"{path} holds no ISMRMRD raw data, so no noise scan.")
            records = inside(group["data"], path)
            heads = records.fields("head")[:]
            marked = flagged(heads, NOISE)
            lines = np.flatnonzero(marked if marked.any() else marked | True)
            have = np.unique(heads["active_channels"][lines])
            if have.tolist() != [coils]:
                raise InvdiffError(_other(path, " or ".join(map(str, have)), coils))
            covariance, dwell = noise_of(records, heads, lines, path)
        return covariance, dwell, str(path)
    if ending in (".cfl", ".hdr"):
        array = np.asarray(read_cfl(path))
        if array.shape[3] != coils:
            raise InvdiffError(_other(path, str(array.shape[3]), coils))
        return _of_array(np.moveaxis(array, 3, 0).reshape(coils, -1), coils, str(path))
    if ending == ".npy":
        return _of_array(read_array(path), coils, str(path))
    raise InvdiffError(
        f"{path} is none of the files of noise scans: .npy (coils, samples), .cfl or ISMRMRD "
        "(.h5, .mrd)."
    )


def _of_array(array: np.ndarray, coils: int, what: str) -> tuple[Tensor, float, str]:
    """The same of samples with an axis of coils, whose dwell time is not told."""
    axes = [k for k, n in enumerate(array.shape) if n == coils]
    if not axes or array.dtype.kind != "c":
        raise InvdiffError(
            f"The noise scan {what} has shape {array.shape} of {array.dtype}; complex samples "
            f"(coils, samples) of {coils} coils are needed."
        )
    if len(axes) > 1:
        raise InvdiffError(
            f"The noise scan {what} has shape {array.shape}, and more than one axis could be its "
            f"{coils} coils; save it as (coils, samples)."
        )
    scan = torch.from_numpy(np.array(np.moveaxis(array, axes[0], 0), np.complex64))
    if not bool(torch.isfinite(torch.view_as_real(scan)).all()):
        raise InvdiffError(f"{what} holds NaN or infinite values, so no noise scan.")
    found = noise_from_scan(scan.reshape(coils, -1)).value
    assert isinstance(found, Tensor)
    check_covariance(found, what)
    return found.to(torch.complex64), 0.0, what


def _other(path: Path, found: str, coils: int) -> str:
    return f"The noise scan {path} has {found} coils, but k-space has {coils}."
