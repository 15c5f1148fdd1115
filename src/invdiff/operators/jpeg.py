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
from invdiff.operators.jpeg_sampling import by_planes, factors_of, sampling_of
from invdiff.operators.sizes import whole

SAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
"""What Pillow writes; other samplings go through the codec plane by plane."""
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
    subsampling: of the colour differences (means over 2 x 1 or 2 x 2 pixels; grey has none); 4:4:0,
    4:1:1, 4:1:0 and sampling factors as 2x2,1x2,1x2 too. colours: "ycc" for brightness and colour
    differences, "rgb" for files that store red, green and blue as they are (Adobe transform 0).

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
    subsampling: str = "4:2:0"
    tables: tuple[tuple[int, ...], ...] | None = None
    colours: Literal["ycc", "rgb"] = "ycc"

    differentiable: ClassVar[bool] = False
    cells: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if (self.quality is None) == (self.tables is None):
            raise InvdiffError("A JPEG has a quality or quantisation tables; give one of the two.")
        if self.quality is not None and not (whole(self.quality) and self.quality <= 95):
            raise InvdiffError(
                f"A JPEG's quality is a whole number from 1 to 95, found {self.quality}."
            )
        factors_of(self.subsampling)
        if self.colours not in ("ycc", "rgb"):
            raise InvdiffError(f"A JPEG's colours are ycc or rgb, found {self.colours}.")
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
        Raises InvdiffError when it is no JPEG file, or has CMYK channels, or sampling factors that
        do not divide the largest.
        """
        image = _opened(Path(path))
        layers = image.layer
        if len(layers) not in (1, 3):
            raise InvdiffError(
                f"{path} stores its colours in another way than as brightness and colour "
                "differences, as inks (CMYK); save it as a PNG and give it to another task."
            )
        tables = tuple(tuple(image.quantization[layer[3]]) for layer in layers)
        if len(layers) == 1:
            return cls(None, "4:4:4", tables)
        try:
            sampling = sampling_of([(layer[1], layer[2]) for layer in layers])
        except InvdiffError:
            factors = ", ".join(f"{layer[1]} x {layer[2]}" for layer in layers)
            raise InvdiffError(
                f"{path} has the sampling factors {factors}, which do not divide the largest; save "
                "it as an ordinary JPEG."
            ) from None
        return cls(None, sampling, tables, "rgb" if stores_rgb(image) else "ycc")

    def __call__(self, x: Tensor) -> Tensor:
        self.y_shape(tuple(x.shape[1:]))
        levels = ((x.detach().clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8)
        done = [self._coded(image) for image in levels]
        return (torch.stack(done) if done else levels).to(x.device, x.dtype) / 127.5 - 1

    def _coded(self, levels: Tensor) -> Tensor:
        """(1 or 3, H, W) uint8, encoded and decoded."""
        if len(levels) == 1 or (self.subsampling in SAMPLINGS and self.colours == "ycc"):
            return decode(self.encode(levels))
        planes = levels if self.colours == "rgb" else _rounded(to_ycc(levels))
        steps = self.steps()
        tables = [list(steps[min(k, len(steps) - 1)]) for k in range(3)]
        coded = by_planes(planes, factors_of(self.subsampling), tables)
        return coded if self.colours == "rgb" else _rounded(from_ycc(coded))

    def encode(self, levels: Tensor) -> bytes:
        """The JPEG file of one image, (1 or 3, H, W) uint8.

        Raises InvdiffError for a sampling, or colours, that Pillow does not write.
        """
        if len(levels) > 1 and (self.subsampling not in SAMPLINGS or self.colours != "ycc"):
            raise InvdiffError(
                f"JPEG files of {self.subsampling}, {self.colours}, are not written; these are: "
                f"{', '.join(SAMPLINGS)}, ycc."
            )
        array = levels.permute(1, 2, 0).contiguous().numpy()
        grey = array.shape[2] == 1
        how: dict[str, Any] = {"quality": self.quality}
        if self.tables is not None:
            how = {"qtables": [list(t) for t in self.tables[: array.shape[2]]]}
        buffer = io.BytesIO()
        picture = Image.fromarray(array[:, :, 0] if grey else array)
        picture.save(buffer, "JPEG", subsampling="4:2:0" if grey else self.subsampling, **how)
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
        rgb = self.colours == "rgb"
        planes, known = _planes(x, rgb), _planes(y, rgb)
        seen = 3 if self.subsampling == "4:4:4" else 1 - (factors_of(self.subsampling)[0] != (1, 1))
        tables = torch.tensor(self.steps()).reshape(-1, 8, 8).to(x.device, x.dtype)
        for channel in range(min(seen, x.shape[1])):
            q = tables[min(channel, len(tables) - 1)]
            index = (blocks(known[:, channel]) / q).round()
            c = torch.minimum(torch.maximum(blocks(planes[:, channel]), (index - 0.5) * q),
                              (index + 0.5) * q)  # fmt: skip
            planes[:, channel] = image(c, height, width)
        return _pixels(planes, rgb)

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
        file = JPEG(self.quality).encode(torch.zeros(3, 8, 8, dtype=torch.uint8))
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
                if isinstance(image, JpegImagePlugin.JpegImageFile) and _has_tables(image):
                    return image
    except OSError as error:
        if error.strerror:  # the system's, not Pillow's
            raise InvdiffError(
                f"{path} cannot be read ({error.strerror}); give a JPEG file."
            ) from None
    except Exception:  # Pillow's plug-ins raise whatever a broken file makes them meet
        pass
    raise InvdiffError(f"{path} is not a JPEG file; the tables of a JPEG are in the file alone.")


def _has_tables(image: JpegImagePlugin.JpegImageFile) -> bool:
    """Whether every plane has the quantisation table that it names."""
    return (
        bool(image.layer)
        and all(len(layer) > 3 for layer in image.layer)
        and all(layer[3] in image.quantization for layer in image.layer)
    )


def _rounded(planes: Tensor) -> Tensor:
    return (planes + 0.5).floor().clamp(0, 255).to(torch.uint8)


def to_ycc(levels: Tensor) -> Tensor:
    """Y, Cb and Cr of (3, H, W) levels of red, green and blue, all on [0, 255] (JFIF 1.02)."""
    offset = torch.tensor([0.0, 128, 128], dtype=torch.float64)[:, None, None]
    return torch.einsum("ij,jhw->ihw", YCBCR, levels.double()) + offset


def from_ycc(planes: Tensor) -> Tensor:
    """The inverse of `to_ycc`."""
    offset = torch.tensor([0.0, 128, 128], dtype=torch.float64)[:, None, None]
    return torch.einsum("ij,jhw->ihw", YCBCR.inverse(), planes.double() - offset)


def stores_rgb(image: JpegImagePlugin.JpegImageFile) -> bool:
    """Whether three planes are red, green and blue, by the rules of libjpeg (jdapimin.c)."""
    if "jfif" in image.info:
        return False
    if "adobe_transform" in image.info:
        return bool(image.info["adobe_transform"] == 0)
    return bytes(layer[0] for layer in image.layer) == b"RGB"


def _dct() -> Tensor:
    """The orthonormal 8-point discrete cosine transform: row k is frequency k, float64."""
    k, n = torch.arange(8.0, dtype=torch.float64)[:, None], torch.arange(8.0, dtype=torch.float64)
    rows = torch.cos(math.pi * k * (2 * n + 1) / 16) / 2
    rows[0] /= math.sqrt(2)
    return rows


def _planes(x: Tensor, rgb: bool = False) -> Tensor:
    """(B, 1 or 3, H, W) on [-1, 1] as Y, Cb and Cr, or as they are, centred at 0, in units of
    1/255."""
    if x.shape[1] == 1 or rgb:
        return 127.5 * (x + 1) - 128
    planes = torch.einsum("ij,bjhw->bihw", YCBCR.to(x.device, x.dtype), 127.5 * (x + 1))
    return planes - torch.tensor([128.0, 0, 0]).to(planes)[:, None, None]


def _pixels(planes: Tensor, rgb: bool = False) -> Tensor:
    """The inverse of `_planes`."""
    if rgb:
        return (planes + 128) / 127.5 - 1
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
