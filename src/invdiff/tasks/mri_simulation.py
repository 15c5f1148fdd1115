"""Scans that are made of an image: undersampled k-space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.option import option
from invdiff.core.rng import Rng
from invdiff.files.pictures import luma, read_array, read_photo, save_picture, words
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Linear
from invdiff.operators.coils import ring_maps, root_sum_of_squares
from invdiff.operators.mri import Fourier, Sense, as_channels, as_complex
from invdiff.operators.sampling import (
    acceleration,
    equispaced,
    gaussian_lines,
    poisson_disc,
    random_lines,
)
from invdiff.tasks.base import (
    Made,
    Simulation,
    told_level,
)
from invdiff.tasks.mri import Mri
from invdiff.tasks.mri_values import CoilMaps
from invdiff.tasks.mri_view import WHITE
from invdiff.tasks.values import NoiseLevel, Numbers

SAMPLINGS: dict[str, Callable[[tuple[int, int], float, int], Tensor]] = {
    "gaussian": gaussian_lines,
    "random": random_lines,
    "equispaced": lambda size, accel, seed: equispaced(size, accel),
    "poisson": poisson_disc,
}
"""Ways to choose samples, by name: columns, and points for the last."""


@dataclass(frozen=True, kw_only=True)
class MakeMri(Simulation):
    """Simulate the k-space of a picture, or of a complex .npy (height, width)."""

    noise: NoiseLevel | None = option(
        "level to add, per real part of k-space, where the magnitude is about 0 to 1", None
    )
    accel: float = option("acceleration that is aimed at", 4.0)
    sampling: Literal["gaussian", "random", "equispaced", "poisson"] = option(
        "gaussian, random or equispaced columns, or poisson points", "gaussian"
    )
    coils: int = option("number of receive coils around the image", 1)

    def make(self, file: Path, out: Path, seed: int) -> Made:
        """kspace.npy, mask.npy, coil-maps.npy, and the truth.

        The picture's brightness is the magnitude, with a smooth phase; a complex .npy (H, W) is
        taken as it is.
        """
        truth, about, notes = clean_image(str(file))
        size, level = (int(truth.shape[-2]), int(truth.shape[-1])), told_level(self.noise)
        mask, coils = SAMPLINGS[self.sampling](size, self.accel, seed), self.coils
        maps = ring_maps(coils, size).to(torch.complex64) if coils != 1 else None
        A: Linear = Fourier(mask) if maps is None else Sense(maps, mask)
        y = A.restrict(GaussianNoise(level).sample(A(truth), Rng.of(seed)))

        def write(folder: Path) -> None:
            np.save(folder / "kspace.npy", y[0].numpy())
            np.save(folder / "mask.npy", mask[0, 0].numpy())
            if maps is not None:
                np.save(folder / "coil-maps.npy", maps[0].numpy())
            np.save(folder / "truth.npy", as_complex(truth)[0, 0].numpy())
            save_picture(folder / "truth.png", root_sum_of_squares(truth)[0] / WHITE)

        told = f"{coils} coil{'s' * (coils > 1)}, {words(size)} samples of k-space, "
        told += f"true acceleration {acceleration(mask)[0]:.2f}, noise {level:g} per real part"
        task = Mri(
            noise=NoiseLevel.of(level),  # an estimate would take signal for it
            mask=Numbers(str(out / "mask.npy")),
            coil_maps=None if maps is None else CoilMaps(str(out / "coil-maps.npy")),
        )
        return Made(task, about, told, "kspace.npy", write, notes)


def clean_image(path: str) -> tuple[Tensor, str, tuple[str, ...]]:
    """A clean complex image (1, 2, H, W), what it is, and what was made up."""
    if Path(path).suffix.lower() == ".npy":
        array = read_array(Path(path))
        if array.dtype.kind == "c" and array.ndim == 2:
            z = torch.from_numpy(np.array(array, np.complex64))[None, None]
            if not bool(torch.isfinite(torch.view_as_real(z)).all()):
                raise InvdiffError(f"{path} holds NaN or infinite values; replace them.")
            return as_channels(z), f"complex image, {words((z.shape[2], z.shape[3]))}", ()
    photo = read_photo(path)
    grey = luma(photo.pixels)[None]
    if not bool(torch.isfinite(grey).all()):
        raise InvdiffError("The picture holds NaN or infinite values; replace them.")
    phase = 2.0 * torch.linspace(-1, 1, grey.shape[-1]) ** 2 + 0.7
    truth = torch.cat([grey * phase.cos(), grey * phase.sin()], dim=1)
    return truth, photo.about, ("its brightness is the magnitude; the phase is made up",)
