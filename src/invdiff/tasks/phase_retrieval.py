"""Phase retrieval: magnitudes of Fourier transforms, .npy arrays in, pictures out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.option import option
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP
from invdiff.files.pictures import check_pixels, read_array, read_photo, save_picture, words
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Operator
from invdiff.operators.color import Grayscale
from invdiff.operators.phase import CodedDiffraction, PhaseRetrieval
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.problem.metrics import best_by_residual, residuals
from invdiff.problem.toys import unmeasured
from invdiff.solvers.dps import DPS
from invdiff.tasks.base import (
    Choice,
    Made,
    Measured,
    Preset,
    Simulation,
    Task,
    real_numbers,
    told_level,
)
from invdiff.tasks.pictures import PhotoView, clean_pixels, prior_channels
from invdiff.tasks.presets import side_of
from invdiff.tasks.values import NoiseLevel, Numbers, Size


@dataclass(frozen=True, eq=False)
class StartsView(PhotoView):
    """Starts of which some fail: the one that explains the measurement best stands for all."""

    spread: ClassVar[bool] = False
    summary_name: ClassVar[str] = "best"

    @property
    def beside(self) -> str:
        return "best.png is the sample of the smallest misfit; a magnitude does not tell the sign"

    def summary(self, values: Tensor, x: Tensor, problem: Problem) -> tuple[str, Tensor]:
        best = self.values(best_by_residual(x[None], problem))[0]
        misfit = float(residuals(x[None], problem).min()) / problem.y.numel() ** 0.5
        return f"best of {len(values)}: misfit {misfit:.3g}, noise {problem.sigma_y:.3g}", best

    def measurement(self, problem: Problem) -> list[tuple[str, Tensor]]:
        """The logarithm of the magnitudes, of the first mask where there are several."""
        y = problem.y[0].clamp_min(0)
        y = y[:, 0] if y.ndim == 4 else y
        log = (1 + 100 * y / y.max().clamp_min(1e-12)).log()
        return [("magnitudes, log", log / log.max().clamp_min(1e-12))]


@dataclass(frozen=True, kw_only=True)
class MakePhases(Simulation):
    """Measure the magnitudes of the Fourier transform of a picture."""

    noise: NoiseLevel | None = option("level to add, where black is 0 and white is 1", None)
    masks: int = option("how many random masks are in the beam; 0 pads the picture", 2, min=0)
    oversample: float = option(
        "without masks, by how much the picture is padded: 4 doubles each side", 4.0
    )

    def make(self, file: Path, out: Path, seed: int) -> Made:
        """measurement.npy, masks.npy where there are any, and truth.png."""
        photo, level = read_photo(file), told_level(self.noise)
        truth, notes = clean_pixels(photo)
        A: Operator = PhaseRetrieval(self.oversample)
        if self.masks:
            A = CodedDiffraction.random(photo.size, self.masks, seed)
        y = GaussianNoise.on_unit_range(level).sample(A(2 * truth[None] - 1), Rng.of(seed))[0]

        def write(folder: Path) -> None:
            np.save(folder / "measurement.npy", y.numpy())
            save_picture(folder / "truth.png", truth)
            if isinstance(A, CodedDiffraction):
                np.save(folder / "masks.npy", A.masks.numpy())

        kind = f"through {self.masks} random masks" if self.masks else "of the padded picture"
        task = RetrievePhase(
            noise=self.noise if level > 0 else None,
            masks=Numbers(str(out / "masks.npy")) if self.masks else None,
            oversample=RetrievePhase.oversample if self.masks else self.oversample,
        )
        told = f"magnitudes {kind}, noise {level:g}"
        return Made(task, photo.about, told, "measurement.npy", write, tuple(notes))


@dataclass(frozen=True, kw_only=True)
class RetrievePhase(Task):
    """Find a picture from the magnitudes of its Fourier transform (.npy)."""

    name: ClassVar[str] = "phase-retrieval"
    example: ClassVar[str] = "magnitudes.npy --masks masks.npy"
    auto: ClassVar[Choice] = Choice(
        "dps", "starts from noise, of which one random mask lets most succeed"
    )
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "dps",
            lambda p: DPS(12 * side_of(p) / 256, clip="straight-through", schedule=VP(150)),
        ),
    )

    noise: NoiseLevel | None = option("level where black is 0 and white is 1; none without", None)
    masks: Numbers | None = option(
        "file (.npy) of the complex masks that were in the beam, (masks, H, W)", None
    )
    oversample: float = option(
        "without masks, by how much the picture was padded: 4 doubles each side", 4.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise is not None and self.noise.word:
            raise InvdiffError(
                "The noise of magnitudes is not estimated; give --noise with its level."
            )

    def read(self, file: Path, prior: Prior) -> Measured:
        """The problem of finding the image on [-1, 1] whose transform has the magnitudes of a file.

        One channel of magnitudes measures the mean of a prior's channels; else each its own.
        """
        if prior.image_range != (-1.0, 1.0):
            raise InvdiffError(f"{self.name} needs a prior on [-1, 1], not on {prior.image_range}.")
        array = read_array(file)
        A, axes, size = _operator(str(file), array.shape, self.masks, self.oversample)
        check_pixels(size, "The restored picture")
        y = real_numbers(array, str(file))
        y = y if y.ndim == axes + 1 else y[None]
        if float(y.mean()) < 0 or bool((y < -10 * y.abs().mean()).any()):
            raise InvdiffError(f"{file} holds large negative values; magnitudes are 0 or more.")
        channels = prior_channels(prior)
        if len(y) not in (1, channels):
            raise InvdiffError(f"{file} has {len(y)} channels, but the prior has {channels}.")
        grey = len(y) == 1
        if grey and channels > 1:
            A = A @ Grayscale((1 / channels,) * channels)
        level = 0.0 if self.noise is None else self.noise.sigma
        how = "none: give --noise where there is some" if self.noise is None else "as given"
        problem = Problem(y[None], A, GaussianNoise.on_unit_range(level), (channels, *size))
        told = f"{level:.4f} where black is 0 and white is 1: {how}"
        about = f"numpy array, {'x'.join(map(str, array.shape))}"
        note = "magnitudes of the orthonormal transform of an image on [-1, 1]"
        return Measured(problem, StartsView(prior.image_range, grey), about, told, (note,))

    @classmethod
    def simulation(cls) -> type[Simulation]:
        return MakePhases

    @classmethod
    def toy(cls, sigma: float = 0.05, size: Size = (16, 16)) -> Problem:
        return unmeasured(PhaseRetrieval(), GaussianNoise(sigma), (3, *size))


def _operator(
    path: str, shape: tuple[int, ...], masks: Numbers | None, oversample: float
) -> tuple[Operator, int, tuple[int, int]]:
    """The operator, how many axes a channel of its measurement has, and the size of the image."""
    axes = 2 if masks is None else 3
    if len(shape) not in (axes, axes + 1):
        kinds = {2: "(height, width) or (channels, height, width)",
                 3: "(masks, height, width) or (channels, masks, height, width)"}  # fmt: skip
        raise InvdiffError(f"{path} has shape {shape}; magnitudes are {kinds[axes]}.")
    if masks is not None:
        array = masks.read()
        if array.dtype.kind != "c" or tuple(array.shape) != tuple(shape[-3:]):
            raise InvdiffError(
                f"The masks {masks} are {array.dtype} of shape {tuple(array.shape)}; they are "
                f"complex, of the shape of the magnitudes, {tuple(shape[-3:])}."
            )
        coded = CodedDiffraction(torch.from_numpy(np.array(array, np.complex64)))
        return coded, axes, (int(shape[-2]), int(shape[-1]))
    A = PhaseRetrieval(oversample)
    sides = [_unpadded(A, n) for n in shape[-2:]]
    if None in sides:
        raise InvdiffError(
            f"No image has magnitudes of {words((shape[-2], shape[-1]))} at an oversampling of "
            f"{oversample:g}; give the --oversample that was used."
        )
    return A, axes, (sides[0] or 0, sides[1] or 0)


def _unpadded(A: PhaseRetrieval, side: int) -> int | None:
    """The side of the image that is padded to `side`; None where there is none."""
    fits = (n for n in range(1, side + 1) if n + 2 * A.padding((n, n))[0] == side)
    return next(fits, None)
