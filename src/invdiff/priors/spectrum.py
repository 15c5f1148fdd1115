"""How wrong a prior is: the covariance of x0 given x = x0 + sigma z, as measured on images."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.tensors import constant
from invdiff.priors.modes import Covariance, channel_basis

SIGMAS = (0.003, 0.006, 0.012, 0.025, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 2.0, 4.0, 9.0, 20.0)
"""Noise levels at which errors are measured."""
EDGES = (0.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 182.0)
"""Bands of the radial frequency |(k / H, l / W)|, in 128ths; 128 is the finest along an axis."""
OCTAVES = 0.75
CONTRASTS = tuple(0.003 * 2 ** (OCTAVES * i) for i in range(12))
"""Local contrasts of a denoised image, for which errors are told apart: 0.003 to 0.91."""
WINDOW, SPREAD = 1.0, 2.0
"""Standard deviations in pixels of the window of the contrast, and of the mean of its effect."""
GROUPS = 24
"""Groups of channels that the spectrum of a prior that was not measured serves: colour clips of 12
frames."""


@dataclass(frozen=True, eq=False)
class ErrorSpectrum:
    """Cov[x0 | x] of a prior, taken as V = S^(1/2) T^T L T S^(1/2), shape of an image squared.

    T: orthonormal, the DCT-II of the whole image after `channel_basis`. L: diagonal, one value for
    each band of radial frequencies and group of channels. S: a factor for each pixel, a function of
    the contrast of the denoised image around it: edges are less certain than plain areas. Both are
    measured (`measure`), and interpolated linearly in the logarithms of sigma, frequency and
    contrast; beyond the ends of the tables the value at the end holds.

    bands: (sigmas, groups, bands), L / sigma^2, at most 1, of errors that were divided by the root
    of S. local: (sigmas, contrasts), S. share: (sigmas,), the mean square error over sigma^2, which
    V without S has. prior: fingerprint of the prior, "" where none is known. bfloat16_from: noise
    level from which the network may run in bfloat16 (`priors.precision`), None where that was not
    measured; blocks_from: from which its blocks may. They are no part of the fingerprint.
    Raises InvdiffError for tables of other shapes, and for variances that are not above 0.
    """

    bands: Tensor
    local: Tensor
    share: Tensor
    sigmas: tuple[float, ...] = SIGMAS
    prior: str = ""
    bfloat16_from: float | None = None
    blocks_from: float | None = None

    def __post_init__(self) -> None:
        n, b, c = len(self.sigmas), len(EDGES) - 1, len(CONTRASTS)
        fits = self.bands.ndim == 3 and self.bands.shape[::2] == (n, b)
        found = [tuple(t.shape) for t in (self.bands, self.local, self.share)]
        if not fits or found[1:] != [(n, c), (n,)]:
            raise InvdiffError(
                f"An error spectrum has bands ({n}, groups, {b}), local factors ({n}, {c}) and "
                f"shares ({n},), found {found[0]}, {found[1]} and {found[2]}."
            )
        if not all(bool((t > 0).all()) for t in (self.bands, self.local, self.share)):
            raise InvdiffError("Variances of an error spectrum are above 0; some are not.")

    def at(self, sigma: float, x0: Tensor, local: bool = True) -> Covariance:
        """V at a noise level, around the denoised images x0 (B, C, ..., H, W).

        local: with S. Without it L is made so large that V has the mean square error, but no mode
        has more than sigma^2.
        """
        L = self.diagonal(sigma, x0)
        if not local:
            share = float(self._at(self.share[:, None], sigma))
            return Covariance((L * share * sigma**2 / L.mean()).clamp_max(sigma**2))
        table = self._at(self.local, sigma)
        where = place_contrast(contrast(x0))
        return Covariance(L, smooth(read(table.to(x0), where), SPREAD))

    def diagonal(self, sigma: float, like: Tensor) -> Tensor:
        """L as an array (1, channels, H, W) for images (B, C, ..., H, W), in their precision.

        Small ones are kept, for the next image of the size.
        """
        kept: dict[object, Tensor] = self.__dict__.setdefault("_kept", {})
        key = (sigma, like.shape[1:], like.dtype, like.device)
        if (known := kept.get(key)) is not None:  # another thread may clear them
            return known
        found = self._diagonal(sigma, like)
        if found.numel() <= KEPT_NUMBERS:
            if len(kept) >= KEPT:
                kept.clear()
            kept[key] = found
        return found

    def _diagonal(self, sigma: float, like: Tensor) -> Tensor:
        table = self._at(self.bands, sigma)  # (groups, bands)
        axes = tuple(like.shape[1:-2])
        _, groups = channel_basis(axes)
        if len(axes) == 2:  # of longer clips: the group of the nearest frequency in time
            kinds = max(groups) // axes[1] + 1
            known = max(len(table) // kinds, 1)
            groups = tuple(g // axes[1] * known + g % axes[1] * known // axes[1] for g in groups)
        if max(groups) >= len(table):
            raise InvdiffError(
                f"The prior's error spectrum knows {len(table)} groups of channels, and images of "
                f"shape {tuple(like.shape[1:])} have {max(groups) + 1}; measure it on such images."
            )
        h, w = like.shape[-2:]
        where = place(_frequencies(h, w).clamp_min(1e-6).log(), _centres())
        maps = torch.stack([read(table[g].log(), where).exp() for g in groups])
        return (sigma**2 * maps.clamp_max(1.0))[None].to(like)

    def _at(self, table: Tensor, sigma: float) -> Tensor:
        """A table at a noise level."""
        at = torch.tensor([math.log(max(sigma, 1e-12))], dtype=torch.float64)
        where = place(at, [math.log(s) for s in self.sigmas])
        lower, share = int(where[0][0]), float(where[1][0])
        rows = table.double().log()
        return torch.lerp(rows[lower], rows[lower + 1], share).exp()

    @property
    def fingerprint(self) -> str:
        """Short hash of the numbers."""
        told = {k: v for k, v in self.as_dict().items() if k not in NUMBERS}
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """JSON values, of four digits."""

        def rounded(t: Tensor) -> Any:
            return json.loads(
                json.dumps(t.tolist()), parse_float=lambda v: float(f"{float(v):.4g}")
            )

        return {
            "format": 1,
            "prior": self.prior,
            "sigmas": list(self.sigmas),
            "bands": rounded(self.bands),
            "local": rounded(self.local),
            "share": rounded(self.share),
            **{k: v for k in NUMBERS if (v := getattr(self, k)) is not None},
        }

    @classmethod
    def from_dict(cls, values: Any) -> ErrorSpectrum:
        """The inverse of `as_dict`. Raises InvdiffError for anything else."""
        try:
            if values["format"] != 1:
                raise InvdiffError(f"An error spectrum of format {values['format']} is unknown.")
            names = ("bands", "local", "share")
            bands, local, share = (torch.tensor(values[n], dtype=torch.float64) for n in names)
            sigmas = tuple(float(s) for s in values["sigmas"])
            low = (None if (v := values.get(k)) is None else float(v) for k in NUMBERS)
            return cls(bands, local, share, sigmas, str(values["prior"]), *low)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, InvdiffError):
                raise
            raise InvdiffError("These numbers are no error spectrum; measure it anew.") from error


def save(spectrum: ErrorSpectrum, path: Path) -> None:
    """Write a spectrum as JSON, in one move."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(spectrum.as_dict()) + "\n")
    os.replace(part, path)


def beside(weights: Path) -> Path:
    """Where the spectrum of a file or folder of weights lies."""
    if weights.is_dir():
        return weights / "spectrum.json"
    return weights.with_name(weights.name.removesuffix(weights.suffix) + ".spectrum.json")


def load(path: Path, fingerprint: str) -> ErrorSpectrum | None:
    """The spectrum in a file, None where there is no file.

    Raises InvdiffError when it is broken, or of a prior with another fingerprint.
    """
    if not path.exists():
        return None
    try:
        found = ErrorSpectrum.from_dict(json.loads(path.read_text()))
    except ValueError as error:
        raise InvdiffError(
            f"{path} is no error spectrum; measure it anew, or delete it."
        ) from error
    if found.prior != fingerprint:
        raise InvdiffError(
            f"{path} was measured on other weights ({found.prior}, these are {fingerprint}); "
            "measure it anew with `invdiff priors measure`, or delete it."
        )
    return found


NUMBERS = ("bfloat16_from", "blocks_from")
"""Fields of a spectrum that tell in which numbers the network may run."""
KEPT, KEPT_NUMBERS = 64, 2**18
"""Arrays of variances that a spectrum keeps, and the numbers of the largest of them."""
SHARES = (
    0.592, 0.42, 0.285, 0.184, 0.12, 0.0761, 0.0457, 0.029, 0.0179,
    0.0109, 0.00493, 0.00218, 0.000819, 0.00028,
)  # fmt: skip
"""Mean square error of the prior `photo` over sigma^2, at SIGMAS, as its spectrum tells."""


def isotropic(half_range: float = 1.0) -> ErrorSpectrum:
    """What stands for a prior that was not measured: the mean error of photographs, V = r^2 I.

    half_range: of the prior's images; noise levels are in units of it.
    """
    share = torch.tensor(SHARES, dtype=torch.float64)
    bands = share[:, None, None].expand(-1, GROUPS, len(EDGES) - 1).clone()
    flat = torch.ones(len(SIGMAS), len(CONTRASTS), dtype=torch.float64)
    return ErrorSpectrum(bands, flat, share, tuple(half_range * s for s in SIGMAS))


def _frequencies(h: int, w: int) -> Tensor:
    """Radial frequency of every mode, (H, W), in 128ths."""
    down, across = torch.arange(h).double() / h, torch.arange(w).double() / w
    return 128 * torch.hypot(down[:, None], across[None, :])


def band_of(h: int, w: int) -> Tensor:
    """Number of the band of every mode, (H, W)."""
    return torch.bucketize(_frequencies(h, w), torch.tensor(EDGES[1:-1]).double(), right=True)


def _centres() -> list[float]:
    """Logarithms of the middle frequencies of the bands; the first holds the mean alone."""
    return [math.log(math.sqrt(max(a, 0.5) * b)) for a, b in zip(EDGES, EDGES[1:], strict=False)]


def place(x: Tensor, knots: list[float]) -> tuple[Tensor, Tensor]:
    """(index of the knot below, share of the next one) for linear interpolation within the ends."""
    t = torch.tensor(knots, dtype=x.dtype, device=x.device)
    lower = (torch.bucketize(x, t, right=True) - 1).clamp(0, len(knots) - 2)
    return lower, ((x - t[lower]) / (t[lower + 1] - t[lower])).clamp(0, 1)


def place_contrast(c: Tensor) -> tuple[Tensor, Tensor]:
    """`place` of log c among those of CONTRASTS, which lie at equal distances: no search."""
    x, last = c.log().flatten(), len(CONTRASTS) - 1
    t = torch.tensor([math.log(v) for v in CONTRASTS], dtype=c.dtype, device=c.device)
    steps = (x - math.log(CONTRASTS[0])).div_(OCTAVES * math.log(2))
    lower = steps.to(torch.int32).clamp_(0, last - 1)
    share = (x - t.index_select(0, lower)) / t.diff().index_select(0, lower)
    return lower.reshape(c.shape), share.clamp(0, 1).reshape(c.shape)


def read(table: Tensor, where: tuple[Tensor, Tensor]) -> Tensor:
    """The table (knots,), interpolated linearly."""
    lower, share = where[0].flatten(), where[1].to(table)
    found = torch.lerp(
        table.index_select(0, lower), table.index_select(0, lower + 1), share.flatten()
    )
    return found.reshape(share.shape)


def contrast(x0: Tensor) -> Tensor:
    """Standard deviation within a Gaussian window of 1 pixel, root mean square over channels."""
    variance = (smooth(x0 * x0, WINDOW) - smooth(x0, WINDOW).square()).clamp_min(0)
    return variance.mean(1, keepdim=True).sqrt().clamp_min(1e-6)


@constant
def _window(r: int, width: float, dtype: torch.dtype) -> list[float]:
    """Weights of a Gaussian mean, from -r to r."""
    k = torch.exp(-(torch.arange(-r, r + 1).to(dtype) ** 2) / (2 * width**2))
    found: list[float] = (k / k.sum()).tolist()
    return found


def smooth(x: Tensor, width: float) -> Tensor:
    """Gaussian mean over the last two axes, with the border repeated.

    Shifted copies are added: of one channel, that is many times faster than `conv2d`.
    """
    r = math.ceil(3 * width)
    weights = _window(r, width, x.dtype)
    h, w = x.shape[-2:]
    flat = F.pad(x.reshape(-1, 1, h, w), (r, r, r, r), mode="replicate")
    for axis, n in ((-2, h), (-1, w)):
        total = flat.narrow(axis, 0, n) * weights[0]
        for i, weight in enumerate(weights[1:], 1):
            total.add_(flat.narrow(axis, i, n), alpha=weight)
        flat = total
    return flat.reshape(x.shape)
