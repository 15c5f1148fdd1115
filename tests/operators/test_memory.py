"""No operator allocates a dense matrix at the size of an image unless it was asked to.

The largest tensor that is made while an operator is built and applied, forwards, backwards and to
solve, is at most `LARGEST` times what an image or a measurement takes, whichever is larger, in
float64: a matrix over all pixels would be 65536 times as large as the image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import invdiff.operators as ops
from invdiff.operators import Linear, Operator, PseudoInvertible

N = 256
SIZE = (N, N)
LARGEST = 4
"""float64 numbers for each number of the image or the measurement: the four weights of a warp, the
windows of four tiles; complex numbers on a grid that is larger than the image need fewer."""
Made = tuple[Operator, tuple[int, ...]]


class Largest(TorchDispatchMode):
    """Bytes of the largest storage of any tensor that an operation has made."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and t.layout is torch.strided:
                self.bytes = max(self.bytes, t.untyped_storage().nbytes())
        return out


def mask() -> Tensor:
    return (torch.arange(N * N).reshape(1, 1, N, N) % 3 == 0).float()


def kernel() -> Tensor:
    made = ops.motion_kernel(9, 30)
    return made / made.sum()


GREY, COLOUR, PAIR = (1, *SIZE), (3, *SIZE), (2, *SIZE)
BUILD: dict[str, Callable[[], Made]] = {
    "Affine": lambda: (ops.affine(ops.Identity(), 2.0, 1.0), GREY),
    "AveragePool": lambda: (ops.AveragePool(4, SIZE), GREY),
    "Bayer": lambda: (ops.Bayer(), COLOUR),
    "Bicubic": lambda: (ops.Bicubic(4, SIZE), GREY),
    "BlockSensing": lambda: (ops.BlockSensing(64, SIZE, 16), GREY),
    "Blur": lambda: (ops.Blur(kernel(), SIZE), GREY),
    "Bracket": lambda: (ops.Bracket((0.5, 2.0)), GREY),
    "CameraResponse": lambda: (ops.CameraResponse(2.2), GREY),
    "CircularBlur": lambda: (ops.CircularBlur(kernel(), SIZE), GREY),
    "CodedDiffraction": lambda: (ops.CodedDiffraction.random(SIZE, 2, 0), GREY),
    "Composed": lambda: (ops.HDR() @ ops.Identity(), GREY),
    "ComposedLinear": lambda: (ops.AveragePool(2, SIZE) @ ops.Inpaint(mask()), GREY),
    "DCTSubsampling": lambda: (ops.DCTSubsampling(mask()), GREY),
    "Fourier": lambda: (ops.Fourier(mask()), PAIR),
    "Frames": lambda: (ops.Frames((0, 2), 3), (1, 3, *SIZE)),
    "Grayscale": lambda: (ops.Grayscale(), COLOUR),
    "HDR": lambda: (ops.HDR(), GREY),
    "Identity": lambda: (ops.Identity(), GREY),
    "Inpaint": lambda: (ops.Inpaint(mask()), GREY),
    "Interferometry": lambda: (ops.Interferometry(ops.random_uv(200, 20.0), SIZE), GREY),
    "JPEG": lambda: (ops.JPEG(30), GREY),
    "Mixed": lambda: (ops.Mixed(torch.eye(3), 1), COLOUR),
    "NonCartesian": lambda: (ops.NonCartesian(ops.radial_uv(32, N, SIZE), SIZE), PAIR),
    "NonlinearBlur": lambda: (ops.NonlinearBlur(0, 4, 3), GREY),
    "PhaseRetrieval": lambda: (ops.PhaseRetrieval(), GREY),
    "Quantize": lambda: (ops.Quantize(8), GREY),
    "Radon by rays": lambda: (ops.Radon(ops.sparse_view(9), SIZE, mode="rays"), GREY),
    "RealFourier": lambda: (ops.RealFourier(mask()), GREY),
    "Scaled": lambda: (ops.scaled(ops.Blur(kernel(), SIZE), 2.0), GREY),
    "ScaledSpectral": lambda: (ops.scaled(ops.Identity(), 2.0), GREY),
    "Sense": lambda: (ops.Sense(ops.ring_maps(4, SIZE), mask(), 5), PAIR),
    "SeparableBlur": lambda: (ops.blur(ops.gaussian_kernel(1.5), SIZE), GREY),
    "SinglePixel": lambda: (ops.SinglePixel(ops.WalshHadamard(6554, SIZE)), GREY),
    "Stack": lambda: (ops.Stack((ops.Identity(), ops.AveragePool(2, SIZE)), GREY), GREY),
    "TemporalPool": lambda: (ops.TemporalPool(2, 4), (1, 4, *SIZE)),
    "TiledBlur": lambda: (ops.TiledBlur(ops.lens_kernels((2, 2)), SIZE), GREY),
    "Upsample": lambda: (ops.Upsample(2, (2 * N, 2 * N)), GREY),
    "WalshHadamard": lambda: (ops.WalshHadamard(6554, SIZE), GREY),
    "Warp": lambda: (ops.Warp.turbulence(SIZE), GREY),
    "Weighted": lambda: (ops.Weighted(mask()), GREY),
}
"""All but those that are given their matrix, functions, weights or parts, and closures of
visibilities, which never see an image. `Radon` keeps a sparse matrix unless mode is "rays"."""


def used(make: Callable[[], Made]) -> float:
    """Bytes of the largest tensor, over those of the image or measurement in float64."""
    with Largest() as seen:
        A, shape = make()
        x = torch.zeros(1, *shape)
        x[..., ::3] = 0.5
        y = A(x)
        if A.differentiable:
            A.vjp(x, y)
        if isinstance(A, PseudoInvertible) and not isinstance(A, Linear):
            A.pinv(y)
        if isinstance(A, Linear):
            A.solve(x, 1e6)  # a large shift: few iterations, each as large as any
    return seen.bytes / (8 * max(x.numel(), y.numel()))


@pytest.mark.parametrize("name", BUILD)
def test_the_largest_tensor_is_of_the_size_of_an_image(name: str) -> None:
    assert used(BUILD[name]) <= LARGEST


def test_the_bound_finds_a_dense_matrix() -> None:
    """Negative twin, at an image that is not large enough for the bound to be out of reach."""
    assert used(lambda: (ops.Matrix(torch.eye(1024), (1, 32, 32), (1024,)), (1, 32, 32))) > LARGEST
