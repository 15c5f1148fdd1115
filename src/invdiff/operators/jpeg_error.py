"""How much a JPEG file lost: the level of its quantisation error, from its tables and itself."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, JpegImagePlugin
from torch import Tensor

from invdiff.noise import Estimate
from invdiff.operators.jpeg import YCBCR, blocks, stores_rgb


def quantisation_error(coefficients: Tensor, steps: Tensor) -> Tensor:
    """Mean square error of each frequency by its quantisation, shape (8, 8).

    coefficients: (..., 8, 8), decoded ones. steps: (8, 8), q.
    The coefficients of a photograph follow the law of Laplace (Reininger and Gibson 1983, IEEE
    Transactions on Communications 31). Its scale b is told by p0, the share of zeros among what
    was decoded: p0 = 1 - exp(-a) with a = q / (2 b). A zero stands for the values within q / 2,
    whose mean square is b^2 gamma(3, a) / (1 - exp(-a)), gamma being the lower incomplete gamma
    function; all other values have an error of q^2 / 12. A share is kept within half a coefficient
    of 0 and of 1.
    """
    flat, q = coefficients.reshape(-1, 8, 8).double(), steps.double()
    edge = 0.5 / max(len(flat), 1)
    p0 = (flat.abs() < q / 2).double().mean(0).clamp(edge, 1 - edge)
    a = -torch.log1p(-p0)
    b = q / (2 * a)
    zeros = b**2 * 2 * torch.special.gammainc(torch.full_like(a, 3.0), a) / p0
    return p0 * torch.minimum(zeros, q**2 / 12) + (1 - p0) * q**2 / 12


def noise_from_tables(path: str | Path, luma: bool = False) -> Estimate | None:
    """The quantisation error of a JPEG file, as a standard deviation on [0, 1]; None of others.

    luma: of the brightness alone, else the root of the mean square over red, green and blue. The
    error is not white, and largest where the picture has detail; this level is two to five times
    too large on photographs, and on purpose: the error holds the signal's own frequencies. What
    subsampled colours lost beyond quantisation is not counted. None too for CMYK.
    """
    found = _planes(path)
    if found is None:
        return None
    planes, layers, tables, plain = found
    largest = [max(layer[axis] for layer in layers) for axis in (1, 2)]
    errors = []
    for plane, layer, table in zip(planes.movedim(-1, 0), layers, tables, strict=True):
        wide, high = (most // layer[axis] for most, axis in zip(largest, (1, 2), strict=True))
        steps = torch.tensor(table).reshape(8, 8)
        error = quantisation_error(blocks(_means(plane, high, wide)), steps)
        errors.append(float(error.mean()))
    variance = torch.tensor(errors, dtype=torch.float64)
    if not plain:
        variance = variance[:1] if luma else YCBCR.inverse().square() @ variance
    sigma = math.sqrt(float(variance.mean())) / 255
    how = "error that the quantisation tables of the JPEG file make, for coefficients of Laplace"
    return Estimate(sigma, 0.0, how)


def _planes(path: str | Path) -> tuple[Tensor, Any, list[list[int]], bool] | None:
    """The planes of a JPEG file (H, W, C) about 128, its layers and tables, and whether these are
    brightness alone or colours as they are; None of other files, and of broken ones."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                if not isinstance(image, JpegImagePlugin.JpegImageFile):
                    return None
                layers = image.layer
                if len(layers) not in (1, 3):
                    return None
                plain = len(layers) == 1 or stores_rgb(image)
                tables = [image.quantization[layer[3]] for layer in layers]
                if not plain:
                    image.draft("YCbCr", image.size)
                planes = torch.from_numpy(np.atleast_3d(np.array(image))).float() - 128
    except Exception:  # Pillow's plug-ins raise whatever a broken file makes them meet
        return None
    return planes, layers, tables, plain


def _means(plane: Tensor, high: int, wide: int) -> Tensor:
    """(1, H', W') of (H, W): means over blocks of high x wide pixels, the border repeated."""
    padded = F.pad(plane[None, None], (0, -plane.shape[1] % wide, 0, -plane.shape[0] % high),
                   mode="replicate")  # fmt: skip
    return F.avg_pool2d(padded, (high, wide))[0]
