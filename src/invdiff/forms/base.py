"""What a form is: how one kind of measurement is read, made, and how its results are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from invdiff.core import Problem
from invdiff.figures import PHOTOGRAPH, Scale
from invdiff.io import check_real
from invdiff.priors.base import Prior
from invdiff.tasks import Task

Level = float | str | None
"""A noise level as told; "estimate" asks for an estimate, None for what the task supposes."""


@dataclass(frozen=True, eq=False)
class View:
    """How samples are shown and saved; a part of run.json, so that a repetition shows the same.

    spread: whether the samples' standard deviation means something. stands: the name of the file
    that stands for all samples.
    """

    spread: ClassVar[bool] = True
    stands: ClassVar[str] = "mean"

    @property
    def scale(self) -> Scale:
        """What the pixels of `picture` mean."""
        return PHOTOGRAPH

    @property
    def beside(self) -> str:
        """What lies beside the pictures, in words; "" for nothing."""
        return ""

    def size(self, x_shape: tuple[int, ...]) -> tuple[int, int]:
        """(height, width) of what is saved, for an unknown image of x_shape."""
        return x_shape[-2], x_shape[-1]

    def values(self, x: Tensor) -> Tensor:
        """Samples (K, C, H, W) in the units that are saved, (K, C', H', W')."""
        raise NotImplementedError

    def array(self, values: Tensor) -> np.ndarray:
        """`values` as numpy, (K, H', W') or, of several channels, (K, H', W', C')."""
        return np.asarray(values.permute(0, 2, 3, 1).squeeze(3).numpy())

    def picture(self, values: Tensor) -> Tensor:
        """One of `values`, (C', H', W'), as pixels (1 or 3, H', W') on [0, 1]."""
        raise NotImplementedError

    def std(self, values: Tensor) -> Tensor:
        """Standard deviation over the samples, (C, H', W'), in the units of the scale."""
        return values.std(0)

    def summary(self, values: Tensor, x: Tensor, problem: Problem) -> tuple[str, Tensor]:
        """(title, values) of what stands for all samples x: their mean."""
        return f"mean of {len(values)} samples", values.mean(0)

    def measurement(self, problem: Problem) -> list[tuple[str, Tensor]]:
        """(title, pixels) of the measurement, or of what is made of it without a prior."""
        raise NotImplementedError

    def save(self, folder: Path, name: str, values: Tensor) -> None:
        """Write one of `values` under a name without its ending; NAME.png is a picture of it."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Measured:
    """A measurement that is ready to be solved.

    about: what the file is, in words. noise: which noise is supposed, and why. notes: what was
    decided on the way.
    """

    problem: Problem
    view: View
    about: str
    noise: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Made:
    """A measurement that was made of a clean image, and is ready to be written.

    about: the clean image, in words. told: the measurement, in words. measurement: its file.
    flags: options of `restore` that belong to it; files: those that are files, by their names.
    write: puts all files into a folder.
    """

    about: str
    told: str
    measurement: str
    flags: Mapping[str, str]
    files: Mapping[str, str]
    write: Callable[[Path], None]
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Form:
    """How the measurements of some tasks are read and made.

    read(task, path, options, noise, prior): the problem that a file poses. make(task, path of a
    clean image, options, noise level, seed): a measurement of it. Both raise InvdiffError for
    whatever does not fit, before anything is written.
    """

    read: Callable[[Task, str, Mapping[str, Any], Level, Prior], Measured]
    make: Callable[[Task, str, Mapping[str, Any], float, int], Made]


def real_numbers(array: np.ndarray, name: str) -> Tensor:
    """An array that was read from a file as float32. Raises InvdiffError unless it is real."""
    check_real(array, name)
    return torch.from_numpy(np.array(array, np.float32))
