"""Tasks of photographs: a damaged picture as a Problem in a prior's range, and made from a clean
one. A subclass tells its operator, and where it differs from a plain photograph."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.option import option
from invdiff.core.rng import Rng
from invdiff.files.arrays import Told
from invdiff.files.frames import one_of
from invdiff.files.pictures import (
    Photo,
    Range,
    check_pixels,
    luma,
    read_photo,
    save_picture,
    to_range,
    words,
)
from invdiff.noise import GaussianNoise, Noise
from invdiff.operators.algebra import Operator
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.problem.toys import unmeasured
from invdiff.tasks.base import Made, Measured, Preset, Task, View, told_level
from invdiff.tasks.clip import ClipView, measured_clip
from invdiff.tasks.clip_simulation import holds_several, made_clip
from invdiff.tasks.photo_noise import Supposed, supposed
from invdiff.tasks.pictures import (
    NO_MARGIN,
    Margin,
    PhotoView,
    beyond,
    clean_pixels,
    picture_view,
    prior_channels,
    takes,
    with_margin,
    without_margin,
)
from invdiff.tasks.presets import EVERY_PHOTO
from invdiff.tasks.span import Span
from invdiff.tasks.truth import Truth, clean_clip, clean_picture
from invdiff.tasks.validity import masked, valid_pixels, weighed, words_of
from invdiff.tasks.values import NoiseLevel, Size


@dataclass(frozen=True, kw_only=True)
class PhotoTask(Task):
    """A photograph that was damaged.

    channels: of the measurement. luma: whether it may be the luma of a picture in colour. centred:
    whether the operator knows images on [-1, 1] only, where it is not linear. least: the lowest
    noise, on [0, 1], that is supposed where none is told. stationary: whether noise that is
    correlated between pixels can be told, for which all of them are measured alike. stride: pixels
    of one colour are so many apart. counts: whether values may exceed white, which a PNG clips, so
    that the .npy is what is restored.
    """

    presets: ClassVar[tuple[Preset, ...]] = EVERY_PHOTO
    channels: ClassVar[int] = 3
    luma: ClassVar[bool] = True
    centred: ClassVar[bool] = False
    least: ClassVar[float] = 0.0
    stationary: ClassVar[bool] = False
    stride: ClassVar[int] = 1
    counts: ClassVar[bool] = False

    range: Span | None = option(
        "the file's numbers for black and white, as 0,255 or -1,1, where it does not tell them",
        None,
    )
    frame: int | None = option(
        "of an animation, a video or a TIFF of several pages: which picture, from 0", None, min=0
    )

    @property
    def factor(self) -> int:
        """By how much the unknown image is larger than the photograph, along each side."""
        return 1

    def operator(self, size: Size) -> Operator:
        """A for images (H, W)."""
        raise NotImplementedError

    def check(self, photo: Photo) -> None:
        """Raise InvdiffError where an option does not fit a photograph."""

    def photo(self, file: Path) -> tuple[Self, Photo, int]:
        """The photograph in a file, the task with what the file tells of it, and the EXIF
        orientation by which results are turned."""
        return self, read_photo(file, self.told()), 1

    def told(self) -> Told:
        """What is known of the numbers of a file."""
        span = None if self.range is None else (self.range.black, self.range.white)
        return Told(span, self.spread(), "--range")

    def spread(self) -> float:
        """Standard deviation of the noise of a white pixel, on [0, 1], as far as it is told."""
        return 0.0 if self.level is None or self.level.word else self.level.sigma

    def facts(self, photo: Photo) -> list[str]:
        """What else is to be told of a photograph and its instruments."""
        return []

    def image_size(self, size: Size) -> Size:
        """(H, W) of the unknown image for a photograph of size, both without the margin."""
        return size[0] * self.factor, size[1] * self.factor

    def margin(self, size: Size) -> Margin:
        """Pixels around a photograph that are restored with it, because it depends on them."""
        return NO_MARGIN

    def without_margin(self) -> Self:
        """The same task for a prior that has no room for a margin."""
        return self

    def known(self, size: Size) -> Tensor | None:
        """The pixels that are measured, (1, 1, H, W); None for all."""
        return None

    def texture(self, size: Size) -> float | None:
        """How much of a sharp photograph's finest texture the measurement keeps, 1 for all.

        None where the detail of a photograph tells nothing about noise that is to be removed.
        """
        return 1.0

    def likelihood(self, sigma: float, value_range: Range, repeats: int) -> Noise:
        """The noise of a measurement of level sigma on [0, 1], in `repeats` equal channels."""
        return GaussianNoise.on_unit_range(sigma * math.sqrt(repeats), value_range)

    def check_noise(self, photo: Photo) -> None:
        """Raise InvdiffError where a photograph cannot have the noise that the task supposes."""

    def noise_words(self, found: Supposed) -> str:
        """The noise in words."""
        return f"{found.sigma:.4f} where black is 0 and white is 1: {found.how}"

    def read(self, file: Path, prior: Prior) -> Measured:
        """The problem of restoring a photograph: of the frame that is asked for, where one is.

        With a prior of clips, that of all frames of a moving picture (`clip.measured_clip`).
        """
        if len(prior.image_shape or ()) == 4:
            return measured_clip(self, file, prior)
        with self._alone(file) as alone:
            return self.measured(alone, prior)

    def truth(self, file: Path, view: View, among: tuple[int, int] | None = None) -> Truth:
        return clean_clip(file) if isinstance(view, ClipView) else clean_picture(file, among)

    def measured(self, file: Path, prior: Prior, colours: bool = False) -> Measured:
        """The problem of restoring a photograph.

        A grey photograph is repeated in the three channels of a colour prior. Its noise is then the
        same in all of them, which counts as noise of sqrt(3) sigma that is different in each: for
        grey images the two have the same likelihood. colours: the photograph is one in colour, also
        where it happens to be grey.
        """
        task, photo, turn = self.photo(file)
        task.check(photo)
        pixels, grey, repeats, notes = task._pixels(photo, prior, colours)
        notes += [*words_of(photo), *task.facts(photo)]
        size = task.image_size(photo.size)
        margin = task.margin(photo.size)
        if any(margin) and not takes(prior, with_margin(size, margin)):
            task, margin = task.without_margin(), NO_MARGIN
            notes.append(
                f"the prior {prior.name} has no room for an unknown margin: the edge is reflected"
            )
        size = with_margin(size, margin)
        check_pixels(size, "The restored picture")
        A = task.operator(size)
        found = supposed(photo, pixels[:1] if repeats > 1 else pixels, task)
        notes += found.notes
        noise = task.likelihood(found.sigma, prior.image_range, repeats)
        if found.field is not None:
            low, high = prior.image_range
            noise = found.field.scaled((high - low) * math.sqrt(repeats))
        x_shape = (prior_channels(prior), *size)
        y = to_range(pixels, prior.image_range)[None].contiguous()
        task.check_noise(photo)
        y = y - beyond(A, x_shape, prior.image_range)
        noise, counted = weighed(noise, photo)
        A = masked(masked(A, valid_pixels(photo, len(pixels))), counted)
        problem = Problem(y, A, noise, x_shape)
        view = picture_view(photo, problem, prior.image_range, grey, turn, margin)
        view = task.view(view, problem)
        about = photo.about if self.frame is None else f"frame {self.frame}, {photo.about}"
        return Measured(problem, view, about, task.noise_words(found), tuple(notes))

    @contextmanager
    def _alone(self, file: Path) -> Iterator[Path]:
        """The file, or for the block the frame of it that is asked for."""
        if self.frame is None:
            yield file
            return
        with tempfile.TemporaryDirectory(prefix="invdiff-") as folder:
            alone = one_of(file, self.frame, Path(folder))
            try:
                yield alone
            except InvdiffError as error:
                raise InvdiffError(str(error).replace(folder, str(file))) from error

    def view(self, view: PhotoView, problem: Problem) -> PhotoView:
        """How samples are shown."""
        return view

    def _pixels(
        self, photo: Photo, prior: Prior, colours: bool
    ) -> tuple[Tensor, bool, int, list[str]]:
        """(C, H, W) as they are measured; whether results are grey; equal channels; notes."""
        channels = prior_channels(prior)
        if self.centred and prior.image_range != (-1.0, 1.0):
            raise InvdiffError(f"{self.name} needs a prior on [-1, 1], not on {prior.image_range}.")
        if self.channels == 1 or channels == 1:
            if not self.luma and not photo.grey:
                raise InvdiffError(
                    f"{self.name} takes the raw values of a sensor, one for each pixel, but this "
                    "picture has colours."
                )
            notes = [] if photo.grey else ["the picture has colours: its Rec. 601 luma is used"]
            return luma(photo.pixels), channels == 1, 1, notes
        if photo.grey and colours:
            return photo.pixels.expand(channels, -1, -1), False, 1, []
        if photo.grey:
            return photo.pixels.expand(channels, -1, -1), True, channels, []
        return photo.pixels, False, 1, []

    @classmethod
    def simulation(cls) -> type[Task]:
        return cls

    @classmethod
    def small(cls, size: Size) -> Self:
        """The task with options for a small problem."""
        return cls()

    @classmethod
    def toy(cls, sigma: float = 0.05, size: Size = (16, 16)) -> Problem:
        task = cls.small(size)
        return unmeasured(task.operator(size), task.likelihood(sigma, (0.0, 1.0), 1), (3, *size))

    def make(self, file: Path, out: Path, seed: int) -> Made:
        """The photograph damaged, on [0, 1]: measurement.png, .npy, and truth.png.

        Of a moving picture, or a TIFF of pages, without a frame that is asked for, all of them
        (`made_clip`).
        """
        if self.frame is None and holds_several(file):
            return made_clip(self, file, out, seed)
        with self._alone(file) as alone:
            photo, level = read_photo(alone, self.told()), told_level(self.level)
        truth, notes = clean_pixels(photo, self.factor)
        size = (int(truth.shape[1]), int(truth.shape[2]))
        task, more = self.beside(size, out, seed)
        task = dataclasses.replace(task, frame=None)
        A, model = self.operator(size), self.likelihood(level, (0.0, 1.0), 1)
        A.y_shape(tuple(truth.shape))  # refuses a grey picture where colours are needed
        z = self.measures(A, truth[None])
        truth = without_margin(truth, self.margin(size))
        y = model.sample(z, Rng.of(seed))[0]

        def write(folder: Path) -> None:
            self.write_beside(folder, more)
            save_picture(folder / "truth.png", truth)
            np.save(folder / "measurement.npy", y.permute(1, 2, 0).squeeze(2).numpy())
            save_picture(folder / "measurement.png", y)

        noisy = "" if self.counts else f", noise {level:g}"
        told = f"{words((y.shape[1], y.shape[2]))} pixels{noisy}"
        measurement = "measurement.npy" if self.counts else "measurement.png"
        return Made(task, photo.about, told, measurement, write, tuple(notes))

    def measures(self, A: Operator, pixels: Tensor) -> Tensor:
        """A of pixels (B, C, H, W) on [0, 1], on the same scale."""
        return A(pixels) if not self.centred else (A(2 * pixels - 1) + 1) / 2

    def write_beside(self, folder: Path, files: dict[str, Tensor]) -> None:
        """Write the files that `beside` tells."""
        for name, value in files.items():
            if name.endswith(".png"):
                save_picture(folder / name, value)
            else:
                np.save(folder / name, value.numpy())

    def beside(self, size: Size, out: Path, seed: int) -> tuple[Self, dict[str, Tensor]]:
        """The task that restores a picture of size, and files that it takes, by their names."""
        return dataclasses.replace(self, range=None), {}


@dataclass(frozen=True, kw_only=True)
class NoisyPhoto(PhotoTask):
    """A photograph with Gaussian noise, whose level may be told."""

    noise: NoiseLevel | None = option(
        "level where black is 0 and white is 1, as 0.1 or 25/255, or `estimate`, or `correlated`; "
        "else what the file tells",
        None,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise is not None and self.noise.word == "correlated" and not self.stationary:
            raise InvdiffError(
                f"{self.name} takes no correlated noise, which is alike in all pixels and measured "
                "in all; give --noise with a level, or `estimate`."
            )

    def beside(self, size: Size, out: Path, seed: int) -> tuple[Self, dict[str, Tensor]]:
        quiet = self.noise is not None and self.noise.sigma == 0
        task = dataclasses.replace(self, range=None)
        return dataclasses.replace(task, noise=None) if quiet else task, {}
