"""Low light: the photon noise of a dark photograph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

from invdiff.core import InvdiffError
from invdiff.core.option import option
from invdiff.files.pictures import Photo, Range
from invdiff.noise import Noise, Poisson, PoissonGaussian
from invdiff.operators.algebra import Identity, Operator
from invdiff.tasks.base import Choice, Preset
from invdiff.tasks.photo import PhotoTask
from invdiff.tasks.photo_noise import Supposed
from invdiff.tasks.presets import EVERY_PHOTO, dps
from invdiff.tasks.values import Size


@dataclass(frozen=True, kw_only=True)
class LowLight(PhotoTask):
    """Remove the photon noise of a dark photograph, and the read noise of its sensor."""

    name: ClassVar[str] = "low-light"
    example: ClassVar[str] = "photo.npy --peak 30"
    counts: ClassVar[bool] = True
    auto: ClassVar[Choice] = Choice(
        "dps", "it gains 9 dB at 30 photons, 1 dB more than non-local means of the counts"
    )
    presets: ClassVar[tuple[Preset, ...]] = (
        dps("poisson"),
        *EVERY_PHOTO,
    )

    peak: float = option("photons in a white pixel")
    readout: float | None = option(
        "standard deviation of the read noise in photons (electrons); none without", None
    )

    def operator(self, size: Size) -> Operator:
        return Identity()

    def likelihood(self, sigma: float, value_range: Range, repeats: int) -> Noise:
        """Equal channels share the photons and the variance of the read noise: each of `repeats`
        has that many times the variance of the pixel."""
        peak = self.peak / repeats
        if self.readout is None:
            return Poisson(peak, *value_range)
        return PoissonGaussian(peak, *value_range, read_sigma=self.readout / math.sqrt(repeats))

    def spread(self) -> float:
        """Of the photons in a white pixel, and of what is read out."""
        return math.sqrt(self.peak + (self.readout or 0.0) ** 2) / max(self.peak, 1e-9)

    def check_noise(self, photo: Photo) -> None:
        dark = int((photo.pixels < 0).sum())
        if dark and self.readout is None:
            raise InvdiffError(
                f"{dark} values of the picture are below black, which photons cannot make; tell "
                "the read noise with --readout, or raise the picture so that black is 0."
            )

    def noise_words(self, found: Supposed) -> str:
        read = "" if self.readout is None else f", and read noise of {self.readout:g} photons"
        return f"that of {self.peak:g} photons in a white pixel{read}"

    @classmethod
    def small(cls, size: Size) -> Self:
        return cls(peak=100.0)
