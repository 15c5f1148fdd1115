"""Every operator against a second transcription in plain loops, float64, on small odd sizes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from invdiff.operators import (
    AveragePool,
    Bicubic,
    Blur,
    CircularBlur,
    Grayscale,
    Inpaint,
    Linear,
    SeparableBlur,
    blur,
)

torch.set_num_threads(1)
SIZES = [(12, 10), (13, 7), (1, 1), (5, 1), (4, 9)]
KERNELS = [(1, 1), (3, 3), (2, 2), (4, 3), (1, 5), (15, 20)]
NUMPY_PAD = {"circular": "wrap", "reflect": "symmetric", "zero": "constant"}


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(math.prod(shape)).standard_normal(shape)


def agrees(operator: Linear, x: np.ndarray, expected: np.ndarray) -> None:
    """Equal to 1e-12; x and expected are (C, H, W)."""
    y = operator(torch.from_numpy(x)[None])[0].numpy()
    assert y.shape == expected.shape == operator.y_shape(x.shape)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)


def loop_blur(x: np.ndarray, kernel: np.ndarray, boundary: str) -> np.ndarray:
    """sum over u of kernel[u] x[i - (u - c)], with x continued by numpy."""
    (h, w), (height, width) = kernel.shape, x.shape[1:]
    padded = np.pad(x, ((0, 0), (h, h), (w, w)), mode=NUMPY_PAD[boundary])
    y = np.zeros_like(x)
    for i, j in np.ndindex(height, width):
        for u, v in np.ndindex(h, w):
            y[:, i, j] += kernel[u, v] * padded[:, h + i - (u - h // 2), w + j - (v - w // 2)]
    return y


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", KERNELS)
@pytest.mark.parametrize("boundary", list(NUMPY_PAD))
def test_blur(size: tuple[int, int], shape: tuple[int, int], boundary: str) -> None:
    x, kernel = random(2, *size), random(*shape) + 0.5
    expected, k = loop_blur(x, kernel, boundary), torch.from_numpy(kernel)
    agrees(
        CircularBlur(k, size) if boundary == "circular" else Blur(k, size, boundary), x, expected
    )
    agrees(blur(k, size, boundary), x, expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", KERNELS)
@pytest.mark.parametrize("boundary", list(NUMPY_PAD))
def test_separable_blur(size: tuple[int, int], shape: tuple[int, int], boundary: str) -> None:
    x, rows, cols = random(2, *size), random(shape[0]) + 0.5, random(shape[1], 1)[:, 0] + 0.5
    operator = SeparableBlur(torch.from_numpy(rows), torch.from_numpy(cols), size, boundary)
    agrees(operator, x, loop_blur(x, np.outer(rows, cols), boundary))


def loop_average(line: np.ndarray, factor: int) -> np.ndarray:
    blocks = [line[i : i + factor] for i in range(0, len(line), factor)]
    return np.array([sum(block) / len(block) for block in blocks])


def keys(t: float) -> float:
    t = abs(t)
    if t <= 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


def loop_bicubic(line: np.ndarray, factor: int) -> np.ndarray:
    n, y = len(line), []
    for p in range(math.ceil(n / factor)):
        centre = p * factor + (factor - 1) / 2
        total = weight = 0.0
        for i in range(math.floor(centre) - 2 * factor, math.ceil(centre) + 2 * factor + 1):
            k, j = keys((i - centre) / factor), i
            while not 0 <= j < n:
                j = -1 - j if j < 0 else 2 * n - 1 - j
            total, weight = total + k * line[j], weight + k
        y.append(total / weight)
    return np.array(y)


@pytest.mark.parametrize(
    ("size", "factor"), [(s, f) for s, f in itertools.product(SIZES, range(1, 6)) if f <= min(s)]
)
@pytest.mark.parametrize(("make", "line"), [(AveragePool, loop_average), (Bicubic, loop_bicubic)])
def test_downsample(make: type, line: object, size: tuple[int, int], factor: int) -> None:
    x = random(2, *size)
    rows = np.apply_along_axis(line, 1, x, factor)
    agrees(make(factor, size), x, np.apply_along_axis(line, 2, rows, factor))


def test_grayscale() -> None:
    x, weights = random(3, 5, 4), (0.2, -0.7, 0.4)
    y = np.zeros((1, 5, 4))
    for c, i, j in np.ndindex(3, 5, 4):
        y[0, i, j] += weights[c] * x[c, i, j]
    agrees(Grayscale(weights), x, y)


@pytest.mark.parametrize("channels", [1, 3])
def test_inpaint(channels: int) -> None:
    x, mask = random(3, 5, 4), random(channels, 5, 4) > 0
    y = np.zeros_like(x)
    for c, i, j in np.ndindex(3, 5, 4):
        if mask[min(c, channels - 1), i, j]:
            y[c, i, j] = x[c, i, j]
    agrees(Inpaint(torch.from_numpy(mask)[None]), x, y)
