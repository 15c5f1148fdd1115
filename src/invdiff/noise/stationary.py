"""Gaussian noise that is alike everywhere and correlated between neighbouring pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.alike import irfft2
from invdiff.noise.base import real
from invdiff.noise.coloured import Coloured
from invdiff.noise.flat import COLOURS


@dataclass(frozen=True, eq=False)
class StationaryGaussian(Coloured):
    """y = z + n, n a stationary Gaussian field over the last two axes of y (B, C, ..., H, W).

    frequencies: in cycles per pixel, above 0 and rising. sigmas: the standard deviation of the
    noise at each of them, in the units of y: the root of its power spectrum, which for white noise
    of sigma is sigma everywhere. Between them log sigma is linear in log frequency, beyond them
    constant; the noise is isotropic.
    sigmas holds one row for all channels, or two for pictures of three channels: brightness, then
    the differences of colour, along orthonormal axes.
    The field repeats at the edge of the picture, so that L is a filter by FFT, symmetric.
    level: as in `Coloured`; its default is the largest sigma, so that nothing that is left after
    whitening is stronger.
    Raises InvdiffError for other frequencies and sigmas, and for other measurements.
    """

    frequencies: tuple[float, ...]
    sigmas: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        f, rows = self.frequencies, self.sigmas
        rising = all(a < b for a, b in zip(f, f[1:], strict=False))
        if not f or not rising or not 0 < f[0] or not f[-1] < math.inf:
            raise InvdiffError(f"Frequencies rise from above 0 and are finite, found {f}.")
        if len(rows) not in (1, 2) or any(len(row) != len(f) for row in rows):
            raise InvdiffError(
                f"One or two rows of {len(f)} sigmas belong to {len(f)} frequencies, found rows of "
                f"{', '.join(str(len(row)) for row in rows) or 'none'}."
            )
        if not all(0 < s < math.inf for row in rows for s in row):
            raise InvdiffError("The sigmas of a spectrum are finite numbers above 0; some are not.")
        self._settle_level(max(map(max, rows)))

    def scaled(self, factor: float) -> StationaryGaussian:
        """The noise of a measurement that was multiplied by a factor above 0."""
        rows = tuple(tuple(factor * s for s in row) for row in self.sigmas)
        return replace(self, sigmas=rows, level=factor * self.level)

    def admit(self, y: Tensor) -> Tensor:
        real(y, "Stationary")
        if y.ndim < 3 or (len(self.sigmas) == 2 and (y.ndim < 4 or y.shape[1] != 3)):
            raise InvdiffError(
                f"Noise with {len(self.sigmas)} rows of sigmas is of pictures with "
                f"{'three channels' if len(self.sigmas) == 2 else 'two axes'}, found a "
                f"measurement of shape {tuple(y.shape)}."
            )
        return y

    def spectrum(self, size: tuple[int, int]) -> Tensor:
        """sigma at every frequency of an image of size, in fft2 order: (1 or 3, H, W), float64."""
        rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64) for n in size)
        return self._sigmas_at(rows, columns)

    def cosine_spectrum(self, size: tuple[int, int]) -> Tensor:
        """sigma of every cosine mode (DCT-II) of an image of size: (1 or 3, H, W), float64."""
        rows, columns = (torch.arange(n, dtype=torch.float64) / (2 * n) for n in size)
        return self._sigmas_at(rows, columns)

    def _sigmas_at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """sigma at frequencies in cycles per pixel, (1 or 3, rows, columns)."""
        f = (rows[:, None] ** 2 + columns[None, :] ** 2).sqrt()
        nodes = torch.tensor(self.frequencies, dtype=torch.float64).log()
        at = f.clamp_min(self.frequencies[0] / 2).log().clamp(nodes[0], nodes[-1])
        right = torch.searchsorted(nodes, at).clamp(1, max(len(nodes) - 1, 1))
        found = []
        for row in self.sigmas:
            logs = torch.tensor(row, dtype=torch.float64).log()
            if len(nodes) == 1:
                found.append(logs.exp().expand(f.shape))
                continue
            share = (at - nodes[right - 1]) / (nodes[right] - nodes[right - 1])
            found.append(torch.lerp(logs[right - 1], logs[right], share).exp())
        return torch.stack(found if len(found) == 1 else [found[0], found[1], found[1]])

    def _filtered(self, r: Tensor, power: int) -> Tensor:
        """L^power r."""
        size = (int(r.shape[-2]), int(r.shape[-1]))
        gain = self.spectrum(size)[..., : size[1] // 2 + 1].pow(power).to(r.device, r.dtype)
        gain = gain.reshape(len(gain), *[1] * (r.ndim - 4), *gain.shape[1:])
        turned = self.turned(r)
        out = irfft2(torch.fft.rfft2(turned) * gain, size)
        return self.turned(out, back=True)

    def turned(self, x: Tensor, back: bool = False) -> Tensor:
        """x (B, 3, ..., H, W) along the axes of brightness and colour, or back; x itself where one
        row of sigmas serves all channels."""
        if len(self.sigmas) == 1:
            return x
        axes = COLOURS.to(x.device, x.dtype)
        return torch.einsum("ij,bj...->bi...", axes.mT if back else axes, x)

    def colour(self, n: Tensor) -> Tensor:
        return self._filtered(n, 1)

    def whiten(self, r: Tensor) -> Tensor:
        return self._filtered(r, -1)

    def whiten_adjoint(self, w: Tensor) -> Tensor:
        return self._filtered(w, -1)

    def log_volume(self, r: Tensor) -> Tensor:
        sigma = self.spectrum((int(r.shape[-2]), int(r.shape[-1])))
        planes = r[0].numel() // sigma[0].numel()
        total = (sigma * math.sqrt(2 * math.pi)).log().sum() * (planes / len(sigma))
        return total.to(r.device, r.dtype).expand(len(r))
