"""ISMRMRD raw data (Inati et al. 2017): the readouts of one image, and the noise of its coils.

The layout is the format's: the group holds `data`, records of head, trajectory and interleaved
real and imaginary parts, and `xml`, a header.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.noise import noise_from_scan
from invdiff.scans.asked import Asked
from invdiff.scans.files import check_size, inside
from invdiff.scans.raw_header import Header, read_header
from invdiff.scans.raw_sieve import (
    BOTH,
    NOISE,
    OTHER,
    REVERSE,
    Sieve,
    calibration_lines,
    flagged,
    image_lines,
)


@dataclass(frozen=True, eq=False)
class NoiseScan:
    """covariance: of the coils' noise in one readout of the image, as `KSpace.noise`. told: whether
    the dwell times of noise and image are known, so that its level is right, not
    its shape alone."""

    covariance: Tensor
    told: bool
    fact: str


@dataclass(frozen=True, eq=False)
class Readouts:
    """Readouts of one image: records and heads of the file, which of them, and what was chosen.
    calibration: readouts that were measured for the coils' sensitivities alone, with the header of
    their encoding."""

    path: Path
    header: Header
    records: Any
    heads: np.ndarray
    lines: np.ndarray
    calibration: np.ndarray
    calibration_header: Header
    noise: NoiseScan | None
    facts: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]

    def samples(self, k: int) -> np.ndarray:
        """Those of the readout k that count, (coils, samples) complex64."""
        start, stop = self.span(k)
        return samples_of(self.records, self.heads, k, self.path)[:, start:stop]

    def span(self, k: int) -> tuple[int, int]:
        """The first sample of the readout k that counts, and the one behind the last."""
        head = self.heads[k]
        start = int(head["discard_pre"])
        stop = int(head["number_of_samples"]) - int(head["discard_post"])
        if not start < stop:
            raise InvdiffError(f"Readout {k} of {self.path} discards all of its samples.")
        return start, stop

    @property
    def coils(self) -> int:
        return int(self.heads["active_channels"][self.lines[0]])


def readouts(path: Path, group: Any, header: Header, asked: Asked, grid: bool = True) -> Readouts:
    """The readouts of one image; of a single slab where there are three dimensions.

    grid: whether they lie on a Cartesian grid. Raises InvdiffError when there are none, or when
    they run backwards.
    """
    records = inside(group["data"], path)
    check_size(records.shape, records.dtype["head"].itemsize, f"data in {path}")
    heads = records.fields("head")[:]
    lines, told, counts = image_lines(heads, header, asked, path, grid)
    if flagged(heads, REVERSE)[lines].any():
        raise InvdiffError(
            f"{path} holds readouts that run backwards (EPI), which need a phase correction; "
            "correct them first."
        )
    if heads["active_channels"][lines[0]] < 1:
        raise InvdiffError(f"Readouts of {path} have no coils.")

    def same(number: int) -> bool:
        other = read_header(group, path, number) if number < header.count else None
        if other is None or other.kind != header.kind:
            return False
        mm = np.array([header.encoded_mm, other.encoded_mm])[:, : 3 if header.encoded[2] > 1 else 2]
        known = bool((mm > 0).all())
        return known and bool(np.allclose(mm[0], mm[1], rtol=0.01))

    calibration, aside = calibration_lines(heads, lines, header, same)
    noise = _noise(records, heads, lines, header, path)
    facts = ["ISMRMRD raw data", *told, *aside]
    facts[1:1] = [f"encoding {header.number} of {header.count}"] * (header.count > 1)
    facts += [f"{len(calibration)} calibration lines"] * (len(calibration) > 0)
    left = int(flagged(heads, *OTHER).sum())
    facts += [f"{left} navigator, correction and other readouts were left out"] * (left > 0)
    facts += [] if noise is None else [noise.fact]
    own = header
    if len(calibration) and heads["encoding_space_ref"][calibration[0]] != header.number:
        own = read_header(group, path, int(heads["encoding_space_ref"][calibration[0]]))
    return Readouts(
        path, header, records, heads, lines, calibration, own, noise, tuple(facts), counts
    )


def integrated(r: Readouts, places: np.ndarray, calibration: np.ndarray) -> bool:
    """Whether calibration lines belong to the image itself, of the contrast of its lines.

    The header tells it. Without its word they do where they fill gaps between lines of the image,
    and none was measured as both: a separate scan measures its middle without regard to these.
    places, calibration: numbers of the lines in k-space, of the image and of the calibration.
    """
    heads, first = r.heads, r.heads[r.lines[0]]
    alike = heads["encoding_space_ref"][r.calibration] == first["encoding_space_ref"]
    for name in ("contrast", "phase", "repetition", "set"):
        alike = alike & (heads["idx"][name][r.calibration] == first["idx"][name])
    times = heads["sample_time_us"][r.calibration]
    alike = alike & np.isclose(times, first["sample_time_us"], rtol=1e-3)
    if not alike.all() or r.header.calibration in ("separate", "external"):
        return False
    if r.header.calibration == "embedded":
        return True
    apart = not np.isin(calibration, places).any()
    among = (places > calibration.min()) & (places < calibration.max())
    return apart and bool(among.any() or flagged(heads[r.lines], BOTH).any())


def samples_of(records: Any, heads: np.ndarray, k: int, path: Path) -> np.ndarray:
    """The readout k, (coils, samples) complex64."""
    head = heads[k]
    shape = int(head["active_channels"]), int(head["number_of_samples"])
    values = np.ascontiguousarray(records[k]["data"], np.float32)
    if values.size != 2 * shape[0] * shape[1]:
        raise InvdiffError(
            f"Readout {k} of {path} has {values.size} numbers, but its header tells of {shape[0]} "
            f"coils with {shape[1]} complex samples."
        )
    return values.view(np.complex64).reshape(shape)


def noise_of(
    records: Any, heads: np.ndarray, lines: np.ndarray, path: Path
) -> tuple[Tensor, float]:
    """Covariance of the coils by `noise_from_scan` of readouts of noise, and their dwell time in us
    (0 where it is not told)."""
    n = np.concatenate([samples_of(records, heads, k, path) for k in lines], axis=1)
    if not np.isfinite(n.view(np.float32)).all() or n.shape[1] < 10 * len(n):
        raise InvdiffError(f"The noise scans of {path} are too short, or hold NaN.")
    cov = noise_from_scan(torch.from_numpy(n)).value
    assert isinstance(cov, Tensor)
    check_covariance(cov, str(path))
    return cov.to(torch.complex64), float(heads["sample_time_us"][lines[0]])


def check_covariance(cov: Tensor, what: str) -> None:
    """Raise InvdiffError for a covariance that no noise has: 0, or beyond what float32 holds."""
    top = float(cov.abs().amax())
    if not 1e-30 < top < 1e30:
        raise InvdiffError(f"The noise scan of {what} has a power of {top:.3g}; it is no noise.")


def scaled_noise(
    covariance: Tensor, noise_us: float, image_us: float, bandwidth: float, where: str
) -> NoiseScan:
    """The covariance for readouts of another dwell time: the power of noise is proportional to the
    bandwidth, 1 / dwell time.

    bandwidth: the noise of a scan lacks what the receiver filters at its edges, so that its power
    is this share of the power in the middle of the band, where the image is.
    """
    known = 0 < noise_us < np.inf and 0 < image_us < np.inf
    known = known and 1e-4 < noise_us / image_us < 1e4  # else a field holds something else
    factor = (noise_us / image_us if known else 1.0) / bandwidth
    fact = f"noise covariance of the coils from {where}"
    fact += f", dwell times {noise_us:g} and {image_us:g} us" if known else ", dwell times not told"
    return NoiseScan(covariance * factor, known, fact)


def _noise(
    records: Any, heads: np.ndarray, lines: np.ndarray, header: Header, path: Path
) -> NoiseScan | None:
    """The noise of the coils of the image, None where there are no noise scans of them."""
    image = heads[lines[0]]
    s = Sieve(heads, np.flatnonzero(flagged(heads, NOISE)), "noise scans")
    s.keep(s.left["active_channels"] == image["active_channels"], "of other coils")
    s.keep(s.left["channel_mask"] == image["channel_mask"], "of other coils")
    s.keep_usual(s.left["sample_time_us"], "of another dwell time")
    if not len(s.lines):
        return None
    covariance, dwell = noise_of(records, heads, s.lines, path)
    found = scaled_noise(
        covariance, dwell, float(image["sample_time_us"]), header.bandwidth, "noise scans"
    )
    told = "; ".join([found.fact, *s.told])
    return NoiseScan(found.covariance, found.told, told)
