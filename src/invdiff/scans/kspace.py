"""k-space of one slice: what a file gave, and its oversampled readout."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from invdiff.operators.sampling import acceleration


@dataclass(frozen=True, eq=False)
class KSpace:
    """Cartesian k-space of one slice, as it was found in a file.

    data: (coils, H, W) complex64, 0 where it was not sampled; the zero frequency stands at
    (H // 2, W // 2), the scale is the file's. mask: (H, W) bool, True where sampled.
    facts: what was found and done, one short phrase each, to be shown to the user.
    recon: (H, W) to which the scanner crops the image, where the file tells; None elsewhere.
    noise: covariance of the coils' noise, (coils, coils) complex64, of noise scans in the file, as
    `CorrelatedGaussian` takes it: E[n n^H] / 2, that of the real parts; None without such scans.
    """

    data: Tensor
    mask: Tensor
    facts: tuple[str, ...] = ()
    recon: tuple[int, int] | None = None
    noise: Tensor | None = None

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


def without_oversampling(k: KSpace, recon: tuple[int, int] | None) -> KSpace:
    """k with the rows of the image that the scanner throws away removed, where that is exact."""
    rows = k.mask.any(1)
    h = k.data.shape[1]
    if recon is None or not 0 < recon[0] < h:
        return k
    if not bool((k.mask == k.mask[:1]).all()) or not bool(rows.all()):
        told = f"the readout is oversampled ({h} for {recon[0]} rows) but not full, so it was kept"
        return replace(k, facts=(*k.facts, told))
    shift = {"dim": -2}
    image = torch.fft.ifft(torch.fft.ifftshift(k.data, **shift), norm="ortho", **shift)
    image = torch.fft.fftshift(image, **shift)
    top = h // 2 - recon[0] // 2
    image = image[:, top : top + recon[0]]
    data = torch.fft.fft(torch.fft.ifftshift(image, **shift), norm="ortho", **shift)
    data = torch.fft.fftshift(data, **shift) * k.mask[: recon[0]]
    told = f"oversampled readout cropped in the image from {h} to {recon[0]} rows"
    return replace(k, data=data, mask=k.mask[: recon[0]].clone(), facts=(*k.facts, told))
