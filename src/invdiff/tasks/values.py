"""Values that options of tasks hold: each knows its text, and what else of Python stands for it.

Those whose text may name a file say so (`from_file`): the page takes an upload for them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.files.instruments import Instrument, painted
from invdiff.files.kernels import SHAPES, check_spec, fitted, read_kernel
from invdiff.files.masks import Marked, White, marked, read_marked
from invdiff.files.pictures import picture_pixels, read_array
from invdiff.operators.inpaint import Inpaint

Size = tuple[int, int]


def _real(value: Any) -> Tensor:
    """An array, a tensor or nested lists as float64. Raises TypeError unless they are real."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "buif":
        raise TypeError(f"{array.dtype} is not real")
    return torch.as_tensor(array.astype(np.float64))


def _painted(image: Image.Image, what: str) -> Tensor:
    """How strongly a picture of an instrument is painted, (H, W)."""
    pixels, alpha = picture_pixels(image, what)
    opacity = None if alpha is None else alpha.double() / 255
    return painted(pixels, opacity, f"The {what}")


@dataclass(frozen=True)
class NoiseLevel:
    """A noise level: a number, as 0.1 or 25/255, or a word that says how it is found.

    "estimate": from the data themselves; "correlated": its spectrum too. sigma: the number, NaN for
    a word.
    """

    metavar: ClassVar[str] = "LEVEL"
    WORDS: ClassVar[tuple[str, ...]] = ("estimate", "correlated")

    text: str
    sigma: float = field(init=False)

    def __post_init__(self) -> None:
        top, slash, bottom = self.text.partition("/")
        try:
            number = float(top) / float(bottom) if slash else float(top)
        except (ValueError, ZeroDivisionError):
            number = math.nan
        if math.isnan(number) and self.text not in self.WORDS:
            words = " or ".join(f"`{word}`" for word in self.WORDS)
            raise InvdiffError(
                f"--noise expects a number, as 0.1 or 25/255, or {words}, found {self.text}."
            )
        if number < 0 or number == math.inf:
            raise InvdiffError(
                f"A noise level is a finite number that is not negative, found {self.text}."
            )
        object.__setattr__(self, "sigma", number)

    @property
    def word(self) -> str:
        """How the level is found; "" where it is told."""
        return self.text if self.text in self.WORDS else ""

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(text.strip())

    @classmethod
    def of(cls, value: float) -> Self:
        return cls(str(value))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Numbers:
    """An array, or the file (.npy) that holds it."""

    metavar: ClassVar[str] = "FILE"
    from_file: ClassVar[bool] = True

    path: str
    array: Tensor | None = field(default=None, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(text)

    @classmethod
    def of(cls, value: np.ndarray | Tensor) -> Self:
        found = torch.as_tensor(np.asarray(value) if not isinstance(value, Tensor) else value)
        return cls(f"array {'x'.join(map(str, found.shape))}", found.detach().cpu())

    def read(self) -> np.ndarray:
        """The numbers. Raises InvdiffError when there is no such file, or no array in it."""
        if self.array is not None:
            return np.asarray(self.array.resolve_conj().numpy())
        return np.asarray(read_array(Path(self.path)))

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class TextOrArray:
    """A value in words or in a file that they name, `spec`, or as an array."""

    from_file: ClassVar[bool] = True

    spec: str
    array: Tensor | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return self.spec


@dataclass(frozen=True)
class Kernel(TextOrArray):
    """A blur kernel: gaussian:SIGMA, motion:LENGTH,DEGREES, or a file, or an array (h, w)."""

    metavar: ClassVar[str] = "KERNEL"

    @classmethod
    def parse(cls, text: str) -> Self:
        check_spec(text)
        return cls(text)

    @classmethod
    def of(cls, value: np.ndarray | Tensor | Image.Image) -> Self:
        if isinstance(value, Image.Image):
            value = _painted(value, "kernel")
        found = _real(value)
        return cls(f"array {'x'.join(map(str, found.shape))}", found)

    @property
    def drawn(self) -> bool:
        """Whether it is a file or an array, and no shape in words."""
        return self.array is not None or self.spec.partition(":")[0] not in SHAPES

    def at(self, size: Size) -> Tensor:
        """The kernel (h, w), float64, of sum 1, for pictures of size. Raises InvdiffError."""
        return read_kernel(self.spec, size) if self.array is None else fitted(self.array, size)


@dataclass(frozen=True)
class Mask(TextOrArray):
    """Pixels to restore: a picture that is white there, box:TOP,LEFT,HEIGHT,WIDTH, random:SHARE,
    or an array (H, W) that is not 0 there."""

    metavar: ClassVar[str] = "MASK"
    FORMS: ClassVar[str] = "random:SHARE, box:TOP,LEFT,HEIGHT,WIDTH or a picture"

    @classmethod
    def parse(cls, text: str) -> Self:
        found = cls(text)
        if found.numbers() is None and not Path(text).is_file():
            raise InvdiffError(f"There is no file {text}, and it is no mask; give {cls.FORMS}.")
        return found

    @classmethod
    def of(cls, value: np.ndarray | Tensor | Image.Image) -> Self:
        if isinstance(value, Image.Image):
            value = _painted(value, "mask")
        found = _real(value)
        if found.ndim != 2:
            raise InvdiffError(f"A mask is (height, width), found shape {tuple(found.shape)}.")
        return cls(f"array {found.shape[0]}x{found.shape[1]}", found)

    def at(self, size: Size, seed: int = 0) -> Tensor:
        """The known pixels (1, 1, H, W) of a picture of size. seed: of random ones."""
        return self.marked(size, seed).known

    def marked(self, size: Size, seed: int = 0, white: White | None = None) -> Marked:
        """What the mask says of a picture of size. white: what white means in a picture."""
        if self.array is not None:
            return marked(Instrument(self.array, False), size, "The mask", white)
        numbers = self.numbers()
        if numbers is None:
            return read_marked(self.spec, size, white)
        if len(numbers) == 1:
            return Marked(Inpaint.random(size, 1 - numbers[0], seed=seed).mask)
        return Marked(Inpaint.box(size, *map(int, numbers)).mask)

    def numbers(self) -> list[float] | None:
        """SHARE, or TOP, LEFT, HEIGHT and WIDTH; None of a file. Raises InvdiffError for others."""
        word, colon, rest = self.spec.partition(":")
        if not colon or word not in ("random", "box"):
            return None
        try:
            found = [(float if word == "random" else int)(v) for v in rest.split(",")]
        except ValueError:
            found = []
        if word == "box" and len(found) == 4:
            return found
        if word == "random" and len(found) == 1 and 0 < found[0] < 1:
            return found
        raise InvdiffError(
            f"{self.spec} is not a mask; give {self.FORMS}, with a SHARE above 0 and below 1."
        )


@dataclass(frozen=True)
class ImageSize:
    """Pixels of a picture, WIDTHxHEIGHT. size: (H, W)."""

    metavar: ClassVar[str] = "WxH"

    size: Size

    @classmethod
    def parse(cls, text: str) -> Self:
        match = re.fullmatch(r"\s*(\d+)\s*x\s*(\d+)\s*", text)
        if match is None or "0" in match.groups():
            raise InvdiffError(f"--size is WIDTHxHEIGHT in pixels, as 256x192, found {text}.")
        return cls((int(match[2]), int(match[1])))

    @classmethod
    def of(cls, value: Any) -> Self:
        """Of (height, width)."""
        height, width = value
        return cls.parse(f"{width}x{height}")

    def __str__(self) -> str:
        return f"{self.size[1]}x{self.size[0]}"


@dataclass(frozen=True)
class Angles(TextOrArray):
    """Angles of projections: START,STOP in degrees, in equal steps (STOP is not repeated), or a
    file (.npy) with each of them, in degrees or radians, or an array of them."""

    metavar: ClassVar[str] = "ANGLES"

    @classmethod
    def parse(cls, text: str) -> Self:
        found = cls(text)
        if not Path(text).exists():
            found.span()
        return found

    @classmethod
    def of(cls, value: Any) -> Self:
        numbers = _real(value)
        if numbers.ndim != 1:
            raise InvdiffError(f"Angles are a row of numbers, found shape {tuple(numbers.shape)}.")
        if numbers.shape == (2,):
            return cls(f"{float(numbers[0])},{float(numbers[1])}")
        return cls(f"array {len(numbers)}", numbers)

    def span(self) -> tuple[float, float]:
        """START, STOP. Raises InvdiffError where they are not two numbers."""
        try:
            start, stop = (float(v) for v in self.spec.split(","))
        except ValueError:
            raise InvdiffError(
                f"{self.spec} is no file and no START,STOP in degrees; give --angles FILE.npy or "
                "0,180."
            ) from None
        if not math.isfinite(stop - start) or start == stop:
            raise InvdiffError(f"--angles START,STOP are two different numbers, found {self.spec}.")
        return start, stop

    def read(self) -> np.ndarray | tuple[float, float]:
        """Each angle, as an array, or START, STOP."""
        if self.array is not None:
            return np.asarray(self.array.numpy())
        path = Path(self.spec)
        return np.asarray(read_array(path)) if path.exists() else self.span()


@dataclass(frozen=True)
class Centre:
    """Where the axis of rotation is, in bins from the middle, or `estimate` (NaN)."""

    metavar: ClassVar[str] = "BINS"

    bins: float

    @classmethod
    def parse(cls, text: str) -> Self:
        if text == "estimate":
            return cls(math.nan)
        try:
            bins = float(text)
        except ValueError:
            bins = math.nan
        if not math.isfinite(bins):
            raise InvdiffError(f"--center expects a number or `estimate`, found {text}.")
        return cls(bins)

    @classmethod
    def of(cls, value: float) -> Self:
        return cls.parse(str(value))

    @property
    def estimated(self) -> bool:
        """Whether it is to be found from the views."""
        return math.isnan(self.bins)

    def __str__(self) -> str:
        return "estimate" if self.estimated else f"{self.bins:g}"
