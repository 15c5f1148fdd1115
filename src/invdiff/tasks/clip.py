"""Moving pictures for a prior of clips: all frames of a file as one measurement, and shown so."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.files.animation import Pace, pace_of, write_together
from invdiff.files.frames import MOVING, listed
from invdiff.files.frames import each as decoded
from invdiff.files.pictures import read_photo, words
from invdiff.noise import GaussianNoise, Noise, Poisson
from invdiff.operators.algebra import Identity, Operator
from invdiff.operators.inpaint import Inpaint
from invdiff.priors.base import Prior
from invdiff.priors.windows import clip_length
from invdiff.problem import Problem
from invdiff.tasks.base import Measured, View
from invdiff.tasks.pictures import PhotoView
from invdiff.tasks.validity import unmasked
from invdiff.tasks.values import Size

if TYPE_CHECKING:
    from invdiff.tasks.photo import PhotoTask


@dataclass(frozen=True, eq=False)
class ClipView(View):
    """Samples as moving pictures. one: how a frame is shown; its `measured` holds all of them,
    (T, C, H, W). pace: how long. channels: 1 or 3, of a frame.

    Values are (K, T C, H, W), frame by frame, and arrays (K, T, H, W[, C]). Pictures show the frame
    in the middle.
    """

    one: PhotoView
    pace: Pace
    channels: int

    @property
    def beside(self) -> str:
        kind = self.pace.ending
        return f"pictures show the middle frame; beside each lie all, as {kind} and in a folder"

    def size(self, x_shape: tuple[int, ...]) -> Size:
        return self.one.size(x_shape)

    def values(self, x: Tensor) -> Tensor:
        return self.one.values(x.transpose(1, 2)).flatten(1, 2)

    def array(self, values: Tensor) -> np.ndarray:
        found = torch.stack([self._frames(v) for v in values]).movedim(2, -1)
        return np.asarray((found.squeeze(-1) if self.channels == 1 else found).numpy())

    def deviation(self, std: Tensor) -> np.ndarray:
        return self.array(std[None])[0]

    def shown(self, values: Tensor) -> Tensor:
        return self._frames(values)[len(values) // self.channels // 2]

    def seen(self, image: np.ndarray) -> np.ndarray:
        return image[len(image) // 2] if image.ndim == 3 + (self.channels > 1) else image

    def picture(self, values: Tensor) -> Tensor:
        return self.shown(values)

    def measurement(self, problem: Problem) -> list[tuple[str, Tensor]]:
        ((title, clip),) = self.one.measurement(problem)  # (C, T, H, W)
        middle = clip.shape[1] // 2
        return [(f"{title}, frame {middle}", clip[:, middle])]

    def save(self, folder: Path, name: str, values: Tensor) -> None:
        inner = folder / name
        inner.mkdir()
        each = self._frames(values)
        for number, frame in enumerate(each):
            self.one.save(inner, f"frame-{number:05}", frame)
        self.one.save(folder, name, self.shown(values))
        pictures = [inner / f"frame-{number:05}.png" for number in range(len(each))]
        write_together(folder / f"{name}{self.pace.ending}", self.pace, pictures)

    def _frames(self, values: Tensor) -> Tensor:
        """(T C, H, W) as (T, C, H, W)."""
        return values.reshape(-1, self.channels, *values.shape[1:])


def measured_clip(task: PhotoTask, file: Path, prior: Prior) -> Measured:
    """The problem of restoring all frames of an animation or a video at once, (1, C, T, H, W).

    Each frame is read as a photograph, and operators act on frames one by one; white noise has one
    level in all of them, the root mean square of what was found in each. Raises InvdiffError for
    one picture, fewer frames than the prior takes, frames that are measured in different ways, and
    whatever a photograph is refused for.
    """
    least = clip_length(prior) or 1
    each = _each(task, file, prior, least)
    if len({m.view.grey for m in each if isinstance(m.view, PhotoView)}) > 1:
        each = _each(task, file, prior, least, True)  # a black frame, among those with colours
    problems = [m.problem for m in each]
    y = torch.cat([p.y for p in problems]).movedim(0, 1)[None]
    channels, *size = problems[0].x_shape
    x_shape = (channels, len(each), *size)
    noise, told = _noise([p.noise for p in problems], each[0].noise, prior)
    view = _view(each, file)
    notes = dict.fromkeys(note for m in each for note in m.notes)
    problem = Problem(y, _operator([p.A for p in problems]), noise, x_shape)
    about = f"{len(each)} frames of {each[0].about.partition(', ')[2]}"  # they were read as PNG
    return Measured(problem, view, about, told, tuple(notes))


def _each(
    task: PhotoTask, file: Path, prior: Prior, least: int, colours: bool = False
) -> list[Measured]:
    """The frames of a file as measurements, one by one. colours: grey ones count as coloured."""
    takes = f"the prior {prior.name} is of clips of {least} frames or more"
    if task.frame is not None:
        raise InvdiffError(f"One frame is asked for, but {takes}; leave --frame out.")
    found = listed(file) if file.suffix.lower() in MOVING else []
    if not found:
        if file.suffix.lower() in MOVING:
            read_photo(file)  # which tells what is broken
        raise InvdiffError(
            f"{file} is one picture, but {takes}; give an animation (GIF, WebP, .apng) or a video, "
            "or a --prior of pictures."
        )
    if len(found) < least:
        raise InvdiffError(
            f"{file} has {len(found)} frames, but {takes}; give a longer one, or restore its "
            "frames one by one: invdiff batch, with a --prior of pictures."
        )
    each = list[Measured]()
    with tempfile.TemporaryDirectory(prefix="invdiff-") as folder:
        for alone in decoded(file, Path(folder)):
            try:
                m = task.measured(alone, prior, colours)
            except InvdiffError as error:
                raise InvdiffError(str(error).replace(folder, str(file))) from error
            (high, wide), want = m.problem.x_shape[-2:], (prior.image_shape or (None, None))[-2:]
            have = (high, wide)
            if any(w not in (None, h) for w, h in zip(want, have, strict=True)):
                raise InvdiffError(
                    f"{file} would become frames of {words(have)} pixels, but the prior "
                    f"{prior.name} makes frames of {' x '.join(map(str, want))}; resize or crop "
                    "it, or restore its frames one by one: invdiff batch, with a --prior of "
                    "pictures."
                )
            each.append(m)
    return each


def _operator(each: Sequence[Operator]) -> Operator:
    """The operator of frames, from that of each. Masks may differ from frame to frame."""
    if all(isinstance(A, Identity) for A in each):
        return each[0]
    if all(isinstance(A, Identity | Inpaint) for A in each):
        masks = [A.mask for A in each if isinstance(A, Inpaint)]
        like = max(masks, key=lambda mask: mask.shape[1]).bool()  # (1, 1 or C, H, W)
        known = [A.mask.bool() if isinstance(A, Inpaint) else like | True for A in each]
        return Inpaint(torch.stack([mask.expand_as(like) for mask in known], dim=2))
    if any(unmasked(A) is not A for A in each):
        raise InvdiffError(
            "Some pixels of the frames are transparent, which denoise and inpaint alone take in "
            "moving pictures; save them without transparency."
        )
    return each[0]


def _noise(each: Sequence[Noise], told: str, prior: Prior) -> tuple[Noise, str]:
    """The noise of all frames, from that of each, and in words."""
    if all(type(noise) is GaussianNoise for noise in each):
        sigmas = [float(noise.sigma_y) for noise in each]
        if len(set(sigmas)) == 1:
            return each[0], told
        low, high = prior.image_range
        level = float(np.sqrt(np.mean(np.square(sigmas))))
        least, most, mean = (s / (high - low) for s in (min(sigmas), max(sigmas), level))
        said = f"{mean:.4f} where black is 0 and white is 1: from {least:.4f} to {most:.4f} in "
        said += f"{len(each)} frames; the first, {told}"
        return GaussianNoise(level), said
    if all(isinstance(noise, Poisson) for noise in each):
        return each[0], told
    raise InvdiffError(
        "The noise of moving pictures is alike in all pixels, and not correlated; give --noise "
        "with a level, and no frames that are partly transparent."
    )


def _view(each: Sequence[Measured], file: Path) -> ClipView:
    """How the frames are shown, from how each is."""
    views = [m.view for m in each if isinstance(m.view, PhotoView)]
    first = views[0]
    kept = [view.kept for view in views if view.kept is not None]
    measured = [view.measured for view in views if view.measured is not None]
    one = PhotoView(
        first.value_range, first.grey, None, first.icc, first.turn, first.margin,
        torch.stack(kept)[:, None] if kept else None, torch.stack(measured) if measured else None,
        first.depth, first.span,
    )  # fmt: skip
    channels = 1 if first.grey or each[0].problem.x_shape[0] == 1 else 3
    return ClipView(one, pace_of(str(file)), channels)
