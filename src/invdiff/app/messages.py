"""What a job tells the page while it runs, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Waiting:
    """The job waits for its turn. place: 1 for the next."""

    place: int


@dataclass(frozen=True)
class Begun:
    """The job was read. lines: (label, text) that tell what will be done."""

    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class Running:
    """Where it stands, as `Preview`. pictures: (H, W) or (H, W, 3) bytes; none where they are as
    before."""

    part: str
    steps_done: int
    steps: int
    evaluations: int
    left: float | None
    pictures: tuple[np.ndarray, ...] = field(default=(), repr=False)


@dataclass(frozen=True, eq=False)
class Passed:
    """A lap of a race; picture as above."""

    solver: str
    step: int
    steps: int
    evaluations: int
    gradients: int
    cost: int
    misfit: float | None
    seconds: float
    picture: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Stopping:
    """It was asked to stop, and will after its step."""


@dataclass(frozen=True)
class Done:
    """The job is complete. out: the folder of its results; "" for a race."""

    out: str


@dataclass(frozen=True)
class Stopped:
    """It was stopped. kept: whether it can go on from there."""

    steps_done: int
    steps: int
    kept: bool


@dataclass(frozen=True)
class Failed:
    """It ended with an error. text: one sentence."""

    text: str


Message = Waiting | Begun | Running | Passed | Stopping | Done | Stopped | Failed
ENDS = (Done, Stopped, Failed)
"""The last message of a job is one of these."""
