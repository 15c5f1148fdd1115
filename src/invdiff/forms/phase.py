"""Magnitudes of Fourier transforms as measurements: .npy arrays in, pictures out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError, Problem
from invdiff.forms.base import Level, Made, Measured, real_numbers
from invdiff.forms.photo import PhotoView, clean_pixels
from invdiff.io import check_pixels, read_array, read_photo, save_picture, words
from invdiff.metrics import best_by_residual, residuals
from invdiff.noise import Gaussian
from invdiff.operators.base import Operator
from invdiff.operators.color import Grayscale
from invdiff.operators.phase import CodedDiffraction, PhaseRetrieval
from invdiff.photos import prior_channels
from invdiff.priors.base import Prior
from invdiff.rng import Rng
from invdiff.tasks import Task


@dataclass(frozen=True, eq=False)
class StartsView(PhotoView):
    """Starts of which some fail: the one that explains the measurement best stands for all."""

    spread: ClassVar[bool] = False
    stands: ClassVar[str] = "best"

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


def read(task: Task, path: str, options: Mapping[str, Any], noise: Level, prior: Prior) -> Measured:
    """The problem of finding the image on [-1, 1] whose transform has the magnitudes of a file.

    One channel of magnitudes measures the mean of a prior's channels; else each its own.
    """
    if noise == "estimate":
        raise InvdiffError("The noise of magnitudes is not estimated; give --noise with its level.")
    if prior.image_range != (-1.0, 1.0):
        raise InvdiffError(f"{task.name} needs a prior on [-1, 1], not on {prior.image_range}.")
    array = read_array(Path(path))
    masks = options.get("masks")
    A, axes, size = _operator(path, array.shape, masks, options["oversample"])
    check_pixels(size, "The restored picture")
    y = real_numbers(array, path)
    y = y if y.ndim == axes + 1 else y[None]
    if float(y.mean()) < 0 or bool((y < -10 * y.abs().mean()).any()):
        raise InvdiffError(f"{path} holds large negative values; magnitudes are 0 or more.")
    channels = prior_channels(prior)
    if len(y) not in (1, channels):
        raise InvdiffError(f"{path} has {len(y)} channels, but the prior has {channels}.")
    grey = len(y) == 1
    if grey and channels > 1:
        A = A @ Grayscale((1 / channels,) * channels)
    level = 0.0 if noise is None else float(noise)
    how = "none: give --noise where there is some" if noise is None else "as given"
    problem = Problem(y[None], A, Gaussian.on_unit_range(level), (channels, *size))
    told = f"{level:.4f} where black is 0 and white is 1: {how}"
    about = f"numpy array, {'x'.join(map(str, array.shape))}"
    note = "magnitudes of the orthonormal transform of an image on [-1, 1]"
    return Measured(problem, StartsView(prior.image_range, grey), about, told, (note,))


def _operator(
    path: str, shape: tuple[int, ...], masks: str | None, oversample: float
) -> tuple[Operator, int, tuple[int, int]]:
    """The operator, how many axes a channel of its measurement has, and the size of the image."""
    axes = 2 if masks is None else 3
    if len(shape) not in (axes, axes + 1):
        kinds = {2: "(height, width) or (channels, height, width)",
                 3: "(masks, height, width) or (channels, masks, height, width)"}  # fmt: skip
        raise InvdiffError(f"{path} has shape {shape}; magnitudes are {kinds[axes]}.")
    if masks is not None:
        array = read_array(Path(masks))
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


def make(task: Task, path: str, options: Mapping[str, Any], noise: float, seed: int) -> Made:
    """Magnitudes of a picture: measurement.npy, masks.npy where there are any, and truth.png."""
    photo = read_photo(path)
    truth, notes = clean_pixels(photo)
    count = options["masks"]
    if not (count.isdigit()):
        raise InvdiffError(f"--masks is how many random masks there are, 0 or more, found {count}.")
    A: Operator = PhaseRetrieval(options["oversample"])
    if int(count):
        A = CodedDiffraction.random(photo.size, int(count), seed)
    y = Gaussian.on_unit_range(noise).sample(A(2 * truth[None] - 1), Rng.of(seed))[0]

    def write(folder: Path) -> None:
        np.save(folder / "measurement.npy", y.numpy())
        save_picture(folder / "truth.png", truth)
        if isinstance(A, CodedDiffraction):
            np.save(folder / "masks.npy", A.masks.numpy())

    kind = f"through {count} random masks" if int(count) else "of the padded picture"
    flags = {"noise": str(noise)} if noise > 0 else {}
    if not int(count) and options["oversample"] != task.defaults["oversample"]:
        flags["oversample"] = str(options["oversample"])
    files = {"masks": "masks.npy"} if int(count) else {}
    told = f"magnitudes {kind}, noise {noise:g}"
    return Made(photo.about, told, "measurement.npy", flags, files, write, tuple(notes))
