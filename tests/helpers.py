"""What several test files need: a dense operator, a driver that takes any Rng, impulse noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path as File

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from invdiff.core import InvdiffError, Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import Schedule
from invdiff.operators.algebra import Spectral
from invdiff.priors.base import Prior
from invdiff.priors.photo import save_weights
from invdiff.priors.photo_net import PhotoNet, PhotoNetConfig
from invdiff.problem import Problem
from invdiff.sampling.state import State
from invdiff.solvers import Solver


@dataclass(frozen=True, eq=False)
class Dense(Spectral):
    """y = matrix @ x.flatten(), any matrix (m, n): wide, tall or of deficient rank."""

    matrix: Tensor
    x_shape: tuple[int, ...]

    @cached_property
    def _svd(self) -> tuple[Tensor, Tensor, Tensor]:
        U, s, Vh = torch.linalg.svd(self.matrix.double(), full_matrices=True)
        return U[:, : len(s)], torch.nn.functional.pad(s, (0, len(Vh) - len(s))), Vh

    @cached_property
    def s(self) -> Tensor:
        return self._svd[1]

    def V(self, c: Tensor) -> Tensor:
        return (c @ self._svd[2].to(c.dtype)).reshape(-1, *self.x_shape)

    def Vt(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self._svd[2].to(x.dtype).mT

    def U(self, c: Tensor) -> Tensor:
        U = self._svd[0].to(c.dtype)
        return c[:, : U.shape[1]] @ U.mT

    def Ut(self, y: Tensor) -> Tensor:
        U, s, _ = self._svd
        return torch.nn.functional.pad(y @ U.to(y.dtype), (0, len(s) - U.shape[1]))


@dataclass(frozen=True)
class Levels(Schedule):
    """A schedule of given levels; the clean one is among them."""

    given: tuple[Level, ...] = field(kw_only=True)

    def levels(self) -> list[Level]:
        return list(self.given)


def exploding(schedule: Schedule) -> Levels:
    """The same noise levels s / a as the schedule, in the frame a = 1."""
    levels = tuple(Level(1.0, level.sigma) for level in schedule.levels())
    return Levels(len(levels) - 1, given=levels)


def states(solver: Solver, problem: Problem, prior: Prior, rng: Rng) -> list[State]:
    """All states of a run, from init to the end, without the checks of `invdiff.sampling.run`."""
    with torch.no_grad():
        found = [solver.init(problem, prior, rng.at(-1))]
        for step in range(solver.num_steps):
            found.append(solver.step(found[-1], problem, prior, rng.at(step)))
    return found


@dataclass(frozen=True)
class Recorder(Rng):
    """Draws zeros, and keeps the names of all draws in `asked`."""

    asked: list[tuple[int, str]] = field(default_factory=list)

    def at(self, step: int) -> Recorder:
        return Recorder(self.seeds, step, asked=self.asked)

    def normal(self, like: Tensor, role: str) -> Tensor:
        self.asked.append((self.step, role))
        return torch.zeros_like(like)


@dataclass(frozen=True)
class Given(Rng):
    """Draws what table(step, role) says: one number for each row."""

    table: Callable[[int, str], Tensor] = field(kw_only=True)

    def at(self, step: int) -> Given:
        return Given(self.seeds, step, table=self.table)

    def normal(self, like: Tensor, role: str) -> Tensor:
        numbers = self.table(self.step, role).to(like.dtype)
        return numbers.reshape(-1, *[1] * (like.ndim - 1)).expand(like.shape).clone()


@dataclass(frozen=True)
class Bulk(Rng):
    """One key for all rows: quick where many rows need no identity of their own."""

    def at(self, step: int) -> Bulk:
        return Bulk(self.seeds, step)

    def normal(self, like: Tensor, role: str) -> Tensor:
        return Rng(self.seeds[:1], self.step).normal(like[None], role)[0]


def noise_names(solver: Solver, problem: Problem, prior: Prior) -> list[tuple[int, str]]:
    """(step, role) of every draw that a run makes, in order, each once."""
    recorder = Recorder((0,) * problem.batch)
    states(solver, problem, prior, recorder)
    assert len(recorder.asked) == len(set(recorder.asked)), "two draws share one key"
    return recorder.asked


def repeated(problem: Problem, n: int) -> Problem:
    """n rows of the first measurement."""
    return problem.rows(torch.zeros(n, dtype=torch.long))


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """A fixed white-noise tensor for inputs of tests."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def seeds(n: int) -> Sequence[int]:
    """n seeds, far from 0 and from each other."""
    return tuple(1000 + 17 * i for i in range(n))


def tiny(path: File, channels: int = 3, seed: int | None = None) -> File:
    """A file of a small network of photographs with random weights, none of them zero."""
    torch.manual_seed(channels if seed is None else seed)
    config = PhotoNetConfig(channels, widths=(8, 16, 16), blocks=(1, 1, 1), up_blocks=(1, 1))
    net = PhotoNet(config)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn(p.shape))
    save_weights(net, path, {})
    return path


def sentence(call: Callable[[], object], *words: str) -> None:
    """call raises InvdiffError: one line, one full stop at its end, with these words in it."""
    with pytest.raises(InvdiffError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and ". " not in text, text
    for word in words:
        assert word in text, (word, text)


def names(folder: File) -> list[str]:
    """What lies in a folder, by name."""
    return sorted(p.name for p in folder.iterdir())


def array(path: File) -> np.ndarray:
    """The bytes of a picture, (H, W) or (H, W, channels)."""
    with Image.open(path) as image:
        return np.asarray(image)
