"""k-space of one slice: what a file gave, and its oversampled readout."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from invdiff.operators.sampling import acceleration
from invdiff.scans.placement import Placement


@dataclass(frozen=True, eq=False)
class KSpace:
    """Cartesian k-space of one slice, as it was found in a file.

    data: (coils, H, W) complex64, 0 where it was not sampled; the zero frequency stands at
    (H // 2, W // 2), the scale is the file's. mask: (H, W) bool, True where sampled.
    facts: what was found and done, one short phrase each, to be shown to the user.
    recon: (H, W), pixels of data over the field of view that the scanner shows, where the file
    tells; None elsewhere. The image is cropped to it, also along columns.
    noise: covariance of the coils' noise in the samples of data, (coils, coils) complex64, of noise
    scans in the file, as `CorrelatedGaussian` takes it: E[n n^H] / 2, that of the real parts; None
    without such scans. noise_level: whether its level holds, or its shape alone, where a file tells
    no dwell times.
    calibration: samples for the coil maps alone, (coils, H, W) as data, of a scan of their own;
    None where data holds the calibration lines. placement: where the image lies in the scanner.
    dwell: time of one sample in us, 0 where it is not told; averaged: mean of 1 / how often a
    sample was measured: the share of the power of noise that is left. counts: by what the file
    holds several images (slice, echo, time, phase, set), and the numbers of these images.
    """

    data: Tensor
    mask: Tensor
    facts: tuple[str, ...] = ()
    recon: tuple[int, int] | None = None
    noise: Tensor | None = None
    noise_level: bool = True
    calibration: Tensor | None = None
    placement: Placement | None = None
    dwell: float = 0.0
    averaged: float = 1.0
    counts: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def y(self) -> Tensor:
        """The measurement of `Sense` or `Fourier`, (1, coils, H, W)."""
        return self.data[None]

    @property
    def sampling(self) -> Tensor:
        """The mask of `Sense` or `Fourier`, (1, 1, H, W)."""
        return self.mask[None, None]

    @property
    def acceleration(self) -> float:
        """The true one: all samples / samples taken."""
        return acceleration(self.sampling)[0]


def radius(mask: Tensor) -> Tensor:
    """Distance from the zero frequency, (H, W): 1 where an axis ends."""
    rows, columns = ((2 * torch.arange(n) - n) / n for n in mask.shape)
    return torch.hypot(rows[:, None], columns)


def without_oversampling(k: KSpace, rows: int | None) -> KSpace:
    """k with the rows of the image that the scanner throws away removed, where that is exact."""
    h = k.data.shape[1]
    if rows is None or not 0 < rows < h:
        return k
    if not bool((k.mask == k.mask[:1]).all()) or not bool(k.mask.any(1).all()):
        told = f"the readout is oversampled ({h} for {rows} rows) but not full, so it was kept"
        return replace(k, facts=(*k.facts, told))
    mask = k.mask[:rows].clone()
    told = f"oversampled readout cropped in the image from {h} to {rows} rows"
    calibration = None if k.calibration is None else _cropped(k.calibration, rows)
    return replace(
        k, data=_cropped(k.data, rows) * mask, mask=mask, calibration=calibration,
        facts=(*k.facts, told),
    )  # fmt: skip


def _cropped(data: Tensor, rows: int) -> Tensor:
    """k-space (coils, H, W) of the middle rows of its image."""
    shift, h = {"dim": -2}, data.shape[1]
    image = torch.fft.ifft(torch.fft.ifftshift(data, **shift), norm="ortho", **shift)
    image = torch.fft.fftshift(image, **shift)
    top = h // 2 - rows // 2
    image = image[:, top : top + rows]
    found = torch.fft.fft(torch.fft.ifftshift(image, **shift), norm="ortho", **shift)
    return torch.fft.fftshift(found, **shift)
