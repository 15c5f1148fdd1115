"""What a task is: how one kind of measurement is read, made, shown, and best solved."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.option import check_ranges
from invdiff.files.arrays import check_file
from invdiff.files.figures import PHOTOGRAPH, Scale
from invdiff.files.pictures import check_real
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling.solver import Solver
from invdiff.scans.dicom_files import is_dicom
from invdiff.tasks.truth import Truth, clean_picture
from invdiff.tasks.values import NoiseLevel, Size


@dataclass(frozen=True, eq=False)
class View:
    """How samples are shown and saved; a part of run.json, so that a repetition shows the same.

    spread: whether the samples' standard deviation means something. summary_name: the name of the
    file that stands for all samples.
    """

    spread: ClassVar[bool] = True
    summary_name: ClassVar[str] = "mean"

    @property
    def scale(self) -> Scale:
        """What the pixels of `picture` mean."""
        return PHOTOGRAPH

    @property
    def beside(self) -> str:
        """What lies beside the pictures, in words; "" for nothing."""
        return ""

    def size(self, x_shape: tuple[int, ...]) -> Size:
        """(height, width) of what is saved, for an unknown image of x_shape."""
        return x_shape[-2], x_shape[-1]

    def values(self, x: Tensor) -> Tensor:
        """Samples (K, C, H, W) in the units that are saved, (K, C', H', W').

        Of several measurements, the slices of a stack, C counts the slices too.
        """
        raise NotImplementedError

    def array(self, values: Tensor) -> np.ndarray:
        """`values` as numpy, (K, H', W') or, of several channels, (K, H', W', C')."""
        return np.asarray(values.permute(0, 2, 3, 1).squeeze(3).numpy())

    def picture(self, values: Tensor) -> Tensor:
        """One of `values`, (C', H', W'), as pixels (1 or 3, H', W') on [0, 1]."""
        raise NotImplementedError

    def deviation(self, std: Tensor) -> np.ndarray:
        """What `std` gave as numpy, in the layout of `array`."""
        return np.asarray(std.permute(1, 2, 0).squeeze(2).numpy())

    def shown(self, values: Tensor) -> Tensor:
        """The channels of (C, H', W') that pictures show: of a stack of slices, the middle one."""
        return values

    def seen(self, image: np.ndarray) -> np.ndarray:
        """The same of one image in the layout of `array`: (H', W') or (H', W', C')."""
        return image

    def alone(self, measurement: int) -> View:
        """The view of one of several measurements, by its number: a slice of a stack."""
        return self

    def warnings(self, x: Tensor) -> list[str]:
        """Sentences on what is wrong with samples x (K, C, H, W), beside what `check` says."""
        return []

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
    decided on the way; those that begin with WARNING belong beside the results too.
    """

    problem: Problem
    view: View
    about: str
    noise: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Parts:
    """Several images of one file, which are restored one by one.

    tasks: what restores each; names: of their folders. join(folder, images, views): writes what
    they are together, from the estimates (images, H, W) and their views, and tells the names of the
    files.
    """

    tasks: tuple[Task, ...]
    names: tuple[str, ...]
    join: Callable[[Path, np.ndarray, tuple[View, ...]], list[str]]


@dataclass(frozen=True, eq=False)
class Made:
    """A measurement that was made of a clean image, and is ready to be written.

    task: what restores it. about: the clean image, in words. told: the measurement, in words.
    measurement: the name of its file. write: puts all files into a folder. truth: of several
    pictures, which `batch` restores and compares, the name of the file with theirs.
    """

    task: Task
    about: str
    told: str
    measurement: str
    write: Callable[[Path], None]
    notes: tuple[str, ...] = field(default=())
    truth: str = ""


@dataclass(frozen=True)
class Choice:
    """A solver by its name, and why it; otherwise: another, for photographs with unknown pixels and
    for problems that the first cannot solve."""

    solver: str
    reason: str
    otherwise: Choice | None = None


@dataclass(frozen=True)
class Preset:
    """A solver's configuration for a task. make(problem): of one problem, as solvers see it.

    kind: from the paper, from its code, or found by trials. source: where it is from, or where
    its results are told: a page of docs.
    """

    solver: str
    make: Callable[[Problem], Solver]
    kind: Literal["paper", "repo", "tuned"] = "tuned"
    source: str = "photographs.md"


@dataclass(frozen=True, kw_only=True)
class Task:
    """Base of all tasks. A subclass is one kind of measurement, in one file.

    Its fields with `option(...)` are what users tell: flags of the command line, entries of YAML
    files, arguments in Python. The first line of its docstring is what lists and help show.
    name: as users type it. example: what follows the name in an example of the command line.
    prior: the one that is taken without another. auto: the solver of choice, best: what makes the
    one picture that stands for a task (None: the mean of samples). presets: configurations of
    solvers; others have the defaults of their papers. scale_1: whether noise levels are on the
    scale where black is 0 and white is 1, so that none is above 1. folders: whether the measurement
    may be a folder of files.
    """

    name: ClassVar[str]
    example: ClassVar[str] = "photo.png"
    prior: ClassVar[str] = "photo"
    auto: ClassVar[Choice]
    best: ClassVar[Choice | None] = None
    presets: ClassVar[tuple[Preset, ...]] = ()
    folders: ClassVar[bool] = False
    scale_1: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_ranges(self)
        level = self.level
        if level is not None and self.scale_1 and level.sigma > 1:
            raise InvdiffError(
                f"A noise level of {level} is more than the whole range from black, which is 0, to "
                f"white, which is 1; if it is on the scale from 0 to 255, give --noise "
                f"{level}/255, which is {level.sigma / 255:.2g}."
            )

    @classmethod
    def summary(cls) -> str:
        """The task in one line."""
        return (cls.__doc__ or cls.name).partition("\n")[0].rstrip(".")

    @property
    def level(self) -> NoiseLevel | None:
        """The noise level that was told, of tasks that have one."""
        found: NoiseLevel | None = getattr(self, "noise", None)
        return found

    def check_input(self, file: Path) -> None:
        """Raise InvdiffError unless there is such a file, or a folder where the task takes one."""
        if self.folders and file.is_dir():
            return
        if file.is_dir() and any(is_dicom(f) for f in list(file.glob("*"))[:20] if f.is_file()):
            raise InvdiffError(
                f"{file} is a folder of DICOM files, and {self.name} takes a single file; to take "
                f"the noise of CT slices away, run invdiff restore low-dose-ct {file}."
            )
        check_file(file)

    def read(self, file: Path, prior: Prior) -> Measured:
        """The problem that a file poses. Raises InvdiffError for what does not fit."""
        raise NotImplementedError

    def parts(self, file: Path) -> Parts | None:
        """The images of a file, where more than one is asked for; None for one."""
        return None

    def truth(self, file: Path, view: View, among: tuple[int, int] | None = None) -> Truth:
        """What results of a view are compared with where the truth is known: a clean picture.

        among: which picture of its file the measurement is, and of how many; None for the only one.
        Raises InvdiffError for a file that holds no such truth.
        """
        return clean_picture(file, among)

    @classmethod
    def simulation(cls) -> type[Simulation] | type[Task] | None:
        """What `degrade` is told, whose `make` makes a measurement; None where there is none."""
        return None

    @classmethod
    def toy(cls, sigma: float = 0.05, size: Size = (16, 16)) -> Problem:
        """A small problem of the task, y = 0, for tables and tests: its types decide who can."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Base of what `degrade` is told: how a measurement is made of a clean image.

    Its fields are options, as those of a task.
    """

    def __post_init__(self) -> None:
        check_ranges(self)

    def make(self, file: Path, out: Path, seed: int) -> Made:
        """A measurement of a clean image; its files are to lie in the folder `out`.

        Raises InvdiffError before anything is written.
        """
        raise NotImplementedError


def told_level(noise: NoiseLevel | None) -> float:
    """The level that `degrade` adds. Raises InvdiffError for a word."""
    if noise is None:
        return 0.0
    if noise.word:
        raise InvdiffError("A clean picture has no noise to estimate; give its level as a number.")
    return noise.sigma


def real_numbers(array: np.ndarray, name: str) -> Tensor:
    """An array that was read from a file as float32. Raises InvdiffError unless it is real."""
    check_real(array, name)
    return torch.from_numpy(np.array(array, np.float32))


def shorter(size: Size) -> float:
    """The side of the square of as many pixels."""
    return math.sqrt(size[0] * size[1])
