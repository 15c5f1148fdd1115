"""JPEG as a measurement: the real codec, with its quantisation tables known."""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, JpegImagePlugin
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.algebra import PseudoInvertible
from invdiff.operators.separable import whole

Sampling = Literal["4:4:4", "4:2:2", "4:2:0"]
SAMPLINGS: tuple[Sampling, ...] = ("4:4:4", "4:2:2", "4:2:0")
LONGEST = 65_535
"""Pixels along a side that the format can count."""

YCBCR = torch.tensor(
    [
        [0.299, 0.587, 0.114],
        [-0.299 / 1.772, -0.587 / 1.772, 0.5],
        [0.5, -0.587 / 1.402, -0.114 / 1.402],
    ],
    dtype=torch.float64,
)
"""JFIF 1.02: Y, Cb - 128 and Cr - 128 of R, G and B on [0, 255]."""


@dataclass(frozen=True, eq=False)
class JPEG(PseudoInvertible):
    """y = decode(encode(x)) by the real codec (libjpeg, through Pillow).

    Images (B, 1 or 3, H, W) of any size on [-1, 1]; y has the same shape. The codec takes 8 bits:
    x is clipped to [-1, 1] and rounded to one of 256 levels first, and y consists of these too.
    quality: 1 to 95, libjpeg's scale of the standard tables. Or tables: the quantisation tables
    themselves, one for all channels or one each (the last serves the channels that are left),
    64 whole numbers from 1 to 32767 each, row by row; `JPEG.from_file` reads those of a file.
    subsampling: of the colour differences (means over 2 x 1 or 2 x 2 pixels; grey has none).

    Its generalised inverse is the identity, for encoding a decoded file gives nearly the same
    file; not quite, because pixels were rounded and clipped between, and because decoders
    interpolate subsampled colours while encoders average them. Measured on six photographs, in
    1/255 of the range, decode(encode(y)) is on average within 0.05 of y for qualities up to 50, and
    within 0.27 for 95 with 4:2:0 (0.06 with 4:4:4), where y is 4 to 16 and 1.5 from x; single
    values move by up to 44. Without clipping, and with coarse tables, it is y bit for bit for grey
    and for 4:4:4. For white noise, which fills colours that 4:2:0 cannot hold, it is no inverse.
    No gradient passes. Raises InvdiffError for any other quality, sampling, table or image.
    """

    quality: int | None = None
    subsampling: Sampling = "4:2:0"
    tables: tuple[tuple[int, ...], ...] | None = None

    differentiable: ClassVar[bool] = False
    cells: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if (self.quality is None) == (self.tables is None):
            raise InvdiffError("A JPEG has a quality or quantisation tables; give one of the two.")
        if self.quality is not None and not (whole(self.quality) and self.quality <= 95):
            raise InvdiffError(
                f"A JPEG's quality is a whole number from 1 to 95, found {self.quality}."
            )
        if self.subsampling not in SAMPLINGS:
            raise InvdiffError(
                f"A JPEG's subsampling is one of {', '.join(SAMPLINGS)}, found {self.subsampling}."
            )
        if self.tables is not None:
            fits = 1 <= len(self.tables) <= 3 and all(len(t) == 64 for t in self.tables)
            if not (fits and all(whole(q) and q < 2**15 for t in self.tables for q in t)):
                raise InvdiffError(
                    "A JPEG has 1 to 3 quantisation tables, each of 64 whole numbers from 1 to "
                    "32767; JPEG.from_file reads those of a file."
                )
            object.__setattr__(self, "tables", tuple(tuple(map(int, t)) for t in self.tables))

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """The operator that made a JPEG file: its tables and its sampling.

        The file's own pixels, not turned by an EXIF tag, are the measurement.
        Raises InvdiffError when it is no JPEG file, or has CMYK or RGB channels, or a sampling
        other than 4:4:4, 4:2:2 and 4:2:0.
        """
        image = _opened(Path(path))
        layers = image.layer
        names = bytes(layer[0] for layer in layers)
        if len(layers) not in (1, 3) or names == b"RGB" or image.info.get("adobe_transform") == 0:
            raise InvdiffError(
                f"{path} stores its colours in another way than as brightness and colour "
                "differences; save it as an ordinary JPEG."
            )
        number = 0 if len(layers) == 1 else JpegImagePlugin.get_sampling(image)
        if number < 0:
            factors = ", ".join(f"{layer[1]} x {layer[2]}" for layer in layers)
            raise InvdiffError(
                f"{path} has the sampling factors {factors}, but only {', '.join(SAMPLINGS)} are "
                "known here."
            )
        tables = tuple(tuple(image.quantization[layer[3]]) for layer in layers)
        return cls(None, SAMPLINGS[number], tables)

    def __call__(self, x: Tensor) -> Tensor:
        self.y_shape(tuple(x.shape[1:]))
        levels = ((x.detach().clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8)
        files = [self.encode(image) for image in levels]
        decoded = torch.stack([decode(file) for file in files]) if files else levels
        return decoded.to(x.device, x.dtype) / 127.5 - 1

    def encode(self, levels: Tensor) -> bytes:
        """The JPEG file of one image, (1 or 3, H, W) uint8."""
        array = levels.permute(1, 2, 0).contiguous().numpy()
        grey = array.shape[2] == 1
        how: dict[str, Any] = {"quality": self.quality}
        if self.tables is not None:
            how = {"qtables": [list(t) for t in self.tables[: array.shape[2]]]}
        buffer = io.BytesIO()
        picture = Image.fromarray(array[:, :, 0] if grey else array)
        picture.save(buffer, "JPEG", subsampling=self.subsampling, **how)
        return buffer.getvalue()

    def pinv(self, y: Tensor) -> Tensor:
        """y itself."""
        return y

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """x with each quantised coefficient moved into the interval that the file of y allows.

        x: (B, C, H, W), y: a measurement, same shape. Brightness always; colour differences with
        4:4:4 only: with subsampling, those of x stay. The cells are found by transforming y, so
        they are the file's own except where y was clipped at black or white. Blocks of 8 x 8, the
        last ones filled by repeating the border, as the codec does; only their pixels within the
        image are returned. Nothing is rounded or clipped.
        """
        self.y_shape(tuple(x.shape[1:]))
        height, width = x.shape[2:]
        planes, known = _planes(x), _planes(y)
        seen = 3 if self.subsampling == "4:4:4" else 1
        tables = torch.tensor(self.steps()).reshape(-1, 8, 8).to(x.device, x.dtype)
        for channel in range(min(seen, x.shape[1])):
            q = tables[min(channel, len(tables) - 1)]
            index = (blocks(known[:, channel]) / q).round()
            c = torch.minimum(torch.maximum(blocks(planes[:, channel]), (index - 0.5) * q),
                              (index + 0.5) * q)  # fmt: skip
            planes[:, channel] = image(c, height, width)
        return _pixels(planes)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        fits = len(x_shape) == 3 and x_shape[0] in (1, 3)
        if not fits or not all(1 <= n <= LONGEST for n in x_shape[1:]):
            raise InvdiffError(
                "JPEG takes images of shape (1 or 3, height, width) of at most "
                f"{LONGEST} pixels a side, found images of shape {tuple(x_shape)}."
            )
        return tuple(x_shape)

    def steps(self) -> tuple[tuple[int, ...], ...]:
        """The quantisation tables in use, read from a file where a quality stands for them."""
        if self.tables is not None:
            return self.tables
        file = self.encode(torch.zeros(3, 8, 8, dtype=torch.uint8))
        with Image.open(io.BytesIO(file)) as image:
            assert isinstance(image, JpegImagePlugin.JpegImageFile)
            return tuple(tuple(image.quantization[layer[3]]) for layer in image.layer)


def decode(file: bytes) -> Tensor:
    """The image in a JPEG file, (1 or 3, H, W) uint8."""
    with Image.open(io.BytesIO(file)) as image:
        array = np.array(image)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)


def _opened(path: Path) -> JpegImagePlugin.JpegImageFile:
    """The header of a JPEG file. Raises InvdiffError when it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                if isinstance(image, JpegImagePlugin.JpegImageFile) and image.quantization:
                    return image
    except OSError as error:
        if error.strerror:  # the system's, not Pillow's
            raise InvdiffError(
                f"{path} cannot be read ({error.strerror}); give a JPEG file."
            ) from None
    except Exception:  # Pillow's plug-ins raise whatever a broken file makes them meet
        pass
    raise InvdiffError(f"{path} is not a JPEG file; the tables of a JPEG are in the file alone.")


def _dct() -> Tensor:
    """The orthonormal 8-point discrete cosine transform: row k is frequency k, float64."""
    k, n = torch.arange(8.0, dtype=torch.float64)[:, None], torch.arange(8.0, dtype=torch.float64)
    rows = torch.cos(math.pi * k * (2 * n + 1) / 16) / 2
    rows[0] /= math.sqrt(2)
    return rows


def _planes(x: Tensor) -> Tensor:
    """(B, 1 or 3, H, W) on [-1, 1] as Y, Cb and Cr, centred at 0, in units of 1/255."""
    if x.shape[1] == 1:
        return 127.5 * (x + 1) - 128
    planes = torch.einsum("ij,bjhw->bihw", YCBCR.to(x.device, x.dtype), 127.5 * (x + 1))
    return planes - torch.tensor([128.0, 0, 0]).to(planes)[:, None, None]


def _pixels(planes: Tensor) -> Tensor:
    """The inverse of `_planes`."""
    planes = planes + torch.tensor([128.0, 0, 0]).to(planes)[: planes.shape[1], None, None]
    if planes.shape[1] == 3:
        planes = torch.einsum("ij,bjhw->bihw", YCBCR.inverse().to(planes), planes)
    return planes / 127.5 - 1


def blocks(plane: Tensor) -> Tensor:
    """DCT coefficients of (B, H, W), (B, rows, columns, 8, 8); the border fills the last blocks."""
    height, width = plane.shape[1:]
    padded = F.pad(plane[:, None], (0, -width % 8, 0, -height % 8), mode="replicate")
    rows, columns = padded.shape[2] // 8, padded.shape[3] // 8
    blocks = padded.reshape(-1, rows, 8, columns, 8).transpose(2, 3)
    T = _dct().to(plane)
    return T @ blocks @ T.mT


def image(c: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `blocks`: (B, height, width)."""
    T = _dct().to(c)
    return (T.mT @ c @ T).transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, :height, :width]
