"""Blur that depends on what is seen: a network chooses the kernel of each pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.operators.algebra import Operator
from invdiff.operators.blur_kernels import gaussian_kernel, path_kernels
from invdiff.operators.sizes import whole

DARK = 0.25
"""Square of the bend of the response curve: with it, the curve is within 0.03 of gamma 2.2."""


@dataclass(frozen=True, eq=False)
class NonlinearBlur(Operator):
    """y = R(sum_k w_k(x) (h_k * L(x))): exposure in linear light, along paths the scene decides.

    h_k: `kernels` fixed random camera movements within radius pixels, each of sum 1. w_k(x): how
    much pixel by pixel the k-th movement counts, a small convolutional network of the grey image
    with random weights, smoothed and passed through a softmax. L takes display values on [-1, 1] to
    linear light, R = 1 / L is the camera's response: L(x) = x + sqrt(x^2 + 1/4), which follows a
    display gamma of 2.2 to within 0.03, and is smooth and invertible for all real numbers.

    This stands in for the published nonlinear deblurring task (Tran et al. 2021, arXiv 2104.00317,
    as used by Chung et al. 2023, arXiv 2209.14687), whose kernel network is known by its trained
    weights alone, and these cannot be shipped: numbers do not compare with published ones.
    Everything random is drawn once from `seed`: y and the guidance see one and the same operator.
    Nothing is clamped: y lies between the extremes of x, because all weights are means.

    Images (B, C, H, W), any C, to y of the same shape; edges are repeated outwards.
    radius: of the movements, 1 or more; kernels: 1 or more (1 is a blur that does not look at x).
    contrast: how sharply the network decides, 0 for the same mean of all kernels everywhere.
    """

    seed: int = 0
    radius: int = 8
    kernels: int = 6
    contrast: float = 6.0

    guesses: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not all(whole(n) and n <= 200 for n in (self.radius, self.kernels)):
            raise InvdiffError(
                "A nonlinear blur needs a radius and a number of kernels of 1 or more, whole "
                f"numbers up to 200, found {self.radius} and {self.kernels}."
            )
        if not math.isfinite(self.contrast):
            raise InvdiffError(f"A contrast is a finite number, found {self.contrast}.")

    @property
    def _rng(self) -> Rng:
        return Rng.of(self.seed)

    @cached_property
    def bank(self) -> Tensor:
        """The kernels, (kernels, 1, n, n), n = 2 radius + 1, float64, not negative, sum 1.

        Those of `path_kernels`.
        """
        return path_kernels(self.kernels, self.radius, self._rng)[:, None]

    @cached_property
    def taps(self) -> list[list[tuple[int, int, float]]]:
        """(row, column, weight) of the entries of each kernel that are not 0: a few of n^2."""
        return [
            [(int(i), int(j), float(h[0, i, j])) for i, j in h[0].nonzero().tolist()]
            for h in self.bank
        ]

    def exposures(self, light: Tensor) -> Tensor:
        """h_k * light for all k, (B, C, kernels, H, W), by shifts: sums of what is not negative."""
        r, (height, width) = self.radius, light.shape[-2:]
        wide = F.pad(light, (r, r, r, r), mode="replicate")
        moved = []
        for taps in self.taps:
            total = torch.zeros_like(light)
            for i, j, weight in taps:
                top, left = 2 * r - i, 2 * r - j
                total = total + weight * wide[..., top : top + height, left : left + width]
            moved.append(total)
        return torch.stack(moved, dim=2)

    @cached_property
    def first(self) -> Tensor:
        """Weights of the first layer, (8, 1, 5, 5), of unit norm and sum 0 except for the first."""
        w = self._rng.normal(torch.empty(1, 8, 1, 5, 5, dtype=torch.float64), "first")[0]
        w = w - w.mean((2, 3), keepdim=True)
        w[0] = 1 / 5
        return w / w.norm(dim=(2, 3), keepdim=True)

    @cached_property
    def second(self) -> Tensor:
        """Weights of the second layer, (kernels, 8, 1, 1), of unit norm."""
        like = torch.empty(1, self.kernels, 8, 1, 1, dtype=torch.float64)
        w = self._rng.normal(like, "second")[0]
        return w / w.norm(dim=1, keepdim=True)

    @cached_property
    def smooth(self) -> Tensor:
        """The Gaussian that makes neighbours choose alike, (1, 1, n), standard deviation 2."""
        return gaussian_kernel(2.0).sum(0)[None, None]

    def choice(self, x: Tensor) -> Tensor:
        """w_k(x), (B, kernels, H, W), positive, sum 1 over the kernels."""
        features = torch.tanh(_conv(x.mean(1, keepdim=True), self._as("first", x)))
        logits = F.conv2d(features, self._as("second", x))
        taps = self._as("smooth", x).expand(self.kernels, 1, -1)
        logits = _conv(logits, taps[:, :, :, None], self.kernels)
        logits = _conv(logits, taps[:, :, None, :], self.kernels)
        return (self.contrast * logits).softmax(1)

    def __call__(self, x: Tensor) -> Tensor:
        return response((self.choice(x)[:, None] * self.exposures(linear_light(x))).sum(2))

    def guess(self, y: Tensor, x_shape: tuple[int, ...]) -> Tensor:
        """A(y), the measurement blurred once more: where the code of RED-diff starts."""
        return self(y)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(x_shape) != 3:
            raise InvdiffError(
                "NonlinearBlur measures images of shape (channels, height, width), found "
                f"{tuple(x_shape)}."
            )
        return tuple(x_shape)


def linear_light(x: Tensor) -> Tensor:
    """L(x) = x + sqrt(x^2 + 1/4) > 0, without cancellation for negative x."""
    root = (x * x + DARK).sqrt()
    return torch.where(x > 0, root + x, DARK / (root + x.abs()))


def response(light: Tensor) -> Tensor:
    """R(u) = (u - 1 / (4 u)) / 2, the inverse of linear_light."""
    return (light - DARK / light) / 2


def _conv(x: Tensor, weights: Tensor, groups: int = 1) -> Tensor:
    """Convolution that keeps the size, edges repeated outwards."""
    h, w = (math.floor(n / 2) for n in weights.shape[-2:])
    return F.conv2d(F.pad(x, (w, w, h, h), mode="replicate"), weights.flip(-2, -1), groups=groups)
