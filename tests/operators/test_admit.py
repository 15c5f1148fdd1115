"""Whatever is given to an operator: it works, or one sentence says what was asked and found."""

from __future__ import annotations

import dataclasses
import inspect
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

import invdiff.operators as ops
from invdiff.core import InvdiffError
from invdiff.operators import Linear, Operator, PseudoInvertible

SIZE = (4, 8)
MASK = torch.tensor([1.0, 0, 1, 1] * 8).reshape(1, 1, *SIZE)
KERNEL = torch.tensor([[0.1, 0.6, 0.3]], dtype=torch.float64)
UV = torch.tensor([[[0.0, 1.0], [1.5, -1.0], [0.2, 0.1]]], dtype=torch.float64)
MAPS = ops.ring_maps(2, SIZE, distance=1.5)
ARRAY = ops.earth_rotation(12, 2, 1.5, seed=4)
SPARSE = ops.SparseMatrix.from_csr(scipy.sparse.eye(3, 32), (1, *SIZE), (3,))
GREY = (1, *SIZE)
VISIBILITIES = (1, ARRAY.uv.shape[1])


def of(operator: Operator) -> dict[str, Any]:
    """The arguments that make it."""
    return {f.name: getattr(operator, f.name) for f in dataclasses.fields(operator) if f.init}


def flipped(x: Tensor) -> Tensor:
    return x.flip(-1)


GOOD: dict[str, tuple[Operator, tuple[int, ...]]] = {
    "Affine": (ops.affine(ops.Identity(), 2.0, 1.0), GREY),
    "AveragePool": (ops.AveragePool(2, SIZE), GREY),
    "Bayer": (ops.Bayer(), (3, *SIZE)),
    "Bicubic": (ops.Bicubic(2, SIZE), GREY),
    "BlockSensing": (ops.BlockSensing(3, SIZE, 4), GREY),
    "Blur": (ops.Blur(KERNEL, SIZE), GREY),
    "Bracket": (ops.Bracket((0.5, 2.0)), GREY),
    "CameraResponse": (ops.CameraResponse(2.2), GREY),
    "CircularBlur": (ops.CircularBlur(KERNEL, SIZE), GREY),
    "ClosureAmplitudes": (ops.ClosureAmplitudes(ARRAY.quadrangles()), VISIBILITIES),
    "ClosurePhases": (ops.ClosurePhases(ARRAY.triangles()), VISIBILITIES),
    "CodedDiffraction": (ops.CodedDiffraction.random(SIZE, 2, 0), GREY),
    "Composed": (ops.Composed(ops.HDR(), ops.Identity()), GREY),
    "ComposedLinear": (ops.ComposedLinear(ops.Identity(), ops.Inpaint(MASK)), GREY),
    "ComposedPseudoInvertible": (
        ops.ComposedPseudoInvertible(ops.JPEG(30), ops.AveragePool(2, SIZE)),
        GREY,
    ),
    "DCTSubsampling": (ops.DCTSubsampling(MASK), GREY),
    "Decoded": (ops.Decoded(ops.HDR(), ops.Identity(), ops.Identity()), GREY),
    "DecodedLinear": (ops.DecodedLinear(ops.Identity(), ops.Identity(), ops.Identity()), GREY),
    "Fourier": (ops.Fourier(MASK), (2, *SIZE)),
    "Frames": (ops.Frames((2, 0), 3), (1, 3, *SIZE)),
    "FromFunction": (ops.FromFunction(torch.tanh, None, True, False), GREY),
    "FromFunctions": (ops.FromFunctions(flipped, flipped, GREY, GREY, False), GREY),
    "Grayscale": (ops.Grayscale(), (3, *SIZE)),
    "HDR": (ops.HDR(), GREY),
    "Identity": (ops.Identity(), GREY),
    "Inpaint": (ops.Inpaint(MASK), GREY),
    "Interferometry": (ops.Interferometry(UV, SIZE), GREY),
    "JPEG": (ops.JPEG(30), GREY),
    "Matrix": (ops.Matrix(torch.ones(3, 32), GREY, (3,)), GREY),
    "MatrixProduct": (ops.MatrixProduct(torch.ones(3, 32), GREY, (3,)), GREY),
    "Mixed": (ops.Mixed(torch.eye(3), 1), (3, *SIZE)),
    "NonCartesian": (ops.NonCartesian(UV, SIZE), (2, *SIZE)),
    "NonlinearBlur": (ops.NonlinearBlur(0, 2, 2), GREY),
    "PhaseRetrieval": (ops.PhaseRetrieval(), GREY),
    "Quantize": (ops.Quantize(8), GREY),
    "Radon": (ops.Radon((0.0, 30.0), SIZE), GREY),
    "RealFourier": (ops.RealFourier(MASK), GREY),
    "Scaled": (ops.Scaled(ops.Radon((0.0,), SIZE), 2.0), GREY),
    "ScaledOperator": (ops.ScaledOperator(ops.HDR(), 2.0), GREY),
    "ScaledPseudoInvertible": (ops.ScaledPseudoInvertible(ops.Quantize(8), 2.0), GREY),
    "ScaledSpectral": (ops.ScaledSpectral(ops.Identity(), 2.0), GREY),
    "Sense": (ops.Sense(MAPS, MASK), (2, *SIZE)),
    "SeparableBlur": (ops.SeparableBlur(KERNEL[0], KERNEL[0], SIZE), GREY),
    "SinglePixel": (ops.SinglePixel(ops.WalshHadamard(5, SIZE)), GREY),
    "SparseMatrix": (SPARSE, GREY),
    "Stack": (ops.Stack((ops.Identity(), ops.Inpaint(MASK)), GREY), GREY),
    "Summed": (ops.Summed((ops.Identity(), ops.HDR())), GREY),
    "SummedLinear": (ops.SummedLinear((ops.Identity(), ops.Inpaint(MASK))), GREY),
    "TemporalPool": (ops.TemporalPool(2, 4), (1, 4, *SIZE)),
    "TiledBlur": (ops.TiledBlur(KERNEL[None, None].repeat(1, 2, 1, 1), SIZE), GREY),
    "Transposed": (ops.Transposed(ops.Blur(KERNEL, SIZE)), GREY),
    "TransposedSpectral": (ops.TransposedSpectral(ops.AveragePool(2, SIZE)), (1, 2, 4)),
    "Upsample": (ops.Upsample(2, SIZE), (1, 2, 4)),
    "WalshHadamard": (ops.WalshHadamard(5, SIZE), GREY),
    "Warp": (ops.Warp(torch.ones(1, 2, *SIZE)), GREY),
    "Weighted": (ops.Weighted(MASK), GREY),
}
"""Name to an instance, and the shape of its images."""

ABSTRACT = {"Linear", "Operator", "PseudoInvertible", "Separable", "Spectral"}
FROM_A_FILE = {"KernelNetworkBlur"}
"""tests/operators/test_kernel_network.py makes its weights."""

BAD: list[Any] = [
    *(None, "abc", "", b"4", object(), 3, 0, -1, 2.5, 1e30, -1e30, 10**12, -(10**12), 10**400),
    *(math.nan, math.inf, -math.inf, True, 1j, {}, {1}, len),
    *(
        [],
        (),
        [[]],
        [1],
        [1, 2],
        [[1, 2], [3]],
        [[1, 0], [0, 1]],
        ["a", "b"],
        [None],
        [math.nan, 1],
    ),
    *((math.inf, 2), (10**12, 4), (-4, 8), (4, 8, 1), (0, 8), [1e30, 1.0], [10**400], range(2)),
    *(np.ones((2, 2)), np.ones(2, dtype="U3"), np.array([1, None]), np.float32(2.0), np.int64(2)),
    *(np.array(["2020-01-01"], "M8[D]"), np.ones((1, 1, *SIZE), np.uint16), np.array(2)),
    *(torch.tensor(2), torch.tensor(math.nan), torch.tensor([]), torch.zeros(1, 1, *SIZE)),
    *(torch.full((1, 1, *SIZE), math.nan), torch.full((1, 1, *SIZE), math.inf)),
    *(torch.full((1, 1, *SIZE), 1e30), torch.ones(1, 1, *SIZE, dtype=torch.complex64)),
    *(torch.ones(1, 1, *SIZE, dtype=torch.bool), torch.ones(0, 1, *SIZE), torch.ones(1, 0, *SIZE)),
    *(torch.ones(2, 1, 1, *SIZE), torch.ones(3), torch.ones(2, 3), torch.ones(2, 2, 2)),
    *(-torch.ones(2, 3, dtype=torch.long), torch.full((2, 3), 10**12), torch.ones(0, 3)),
    *(torch.eye(3).to_sparse(), torch.ones(3, dtype=torch.uint16), torch.ones(1, 1, 5, 8)),
    *(ops.Identity(), ops.Inpaint(torch.ones(1, 1, 5, 5)), (ops.Identity(), 3), MAPS, UV, KERNEL),
]
"""Nonsense for some argument; for another it may be what is asked for, and then it must work."""


MAKERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "affine": (ops.affine, dict(base=ops.Identity(), scale=2.0, offset=1.0)),
    "scaled": (ops.scaled, dict(base=ops.Identity(), scale=2.0)),
    "blur": (ops.blur, dict(kernel=KERNEL, size=SIZE, boundary="zero")),
    "gaussian_kernel": (ops.gaussian_kernel, dict(sigma=1.0)),
    "motion_kernel": (ops.motion_kernel, dict(length=3.0, angle_degrees=30.0)),
    "lens_kernels": (ops.lens_kernels, dict(grid=(2, 2), centre=0.5, corner=1.0)),
    "sparse_view": (ops.sparse_view, dict(views=3, span=180.0)),
    "limited_angle": (ops.limited_angle, dict(degrees=90.0, step=5.0)),
    "largest_side": (ops.largest_side, dict(views=5, dtype=torch.float32)),
    "grid_uv": (ops.grid_uv, dict(mask=torch.ones(4, 8))),
    "low_frequencies": (ops.low_frequencies, dict(size=SIZE, count=2)),
    "random_uv": (ops.random_uv, dict(count=4, radius=2.0, seed=0)),
    "radial_uv": (ops.radial_uv, dict(spokes=3, samples=4, size=SIZE, golden=True)),
    "spiral_uv": (ops.spiral_uv, dict(arms=3, samples=4, size=SIZE, turns=1.0)),
    "density_compensation": (ops.density_compensation, dict(uv=UV, size=SIZE, iterations=2)),
    "earth_rotation": (
        ops.earth_rotation,
        dict(stations=5, times=2, radius=2.0, seed=0, hours=12.0, declination=3.0, elevation=5.0),
    ),
    "to_photons": (ops.to_photons, dict(peak=100.0, base=None)),
    "ring_maps": (ops.ring_maps, dict(coils=2, size=SIZE, distance=1.5)),
    "equispaced": (ops.equispaced, dict(size=SIZE, accel=2.0)),
    "random_lines": (ops.random_lines, dict(size=SIZE, accel=2.0, seed=0)),
    "gaussian_lines": (ops.gaussian_lines, dict(size=SIZE, accel=2.0, seed=0)),
    "gaussian_points": (ops.gaussian_points, dict(size=SIZE, accel=2.0, seed=0)),
    "poisson_disc": (ops.poisson_disc, dict(size=SIZE, accel=2.0, seed=0)),
    "Inpaint.box": (ops.Inpaint.box, dict(size=SIZE, top=1, left=1, height=2, width=2)),
    "Inpaint.random": (ops.Inpaint.random, dict(size=SIZE, keep=0.5, seed=0, batch=2)),
    "DCTSubsampling.random": (ops.DCTSubsampling.random, dict(size=SIZE, keep=0.5, seed=0, low=2)),
    "DCTSubsampling.lowest": (ops.DCTSubsampling.lowest, dict(size=SIZE, count=2)),
    "Warp.turbulence": (ops.Warp.turbulence, dict(size=SIZE, strength=1.0, scale=2.0, seed=0)),
    "CodedDiffraction.random": (ops.CodedDiffraction.random, dict(size=SIZE, count=2, seed=0)),
}
"""What makes operators and their arguments, with arguments that are right."""


def finite(z: Tensor) -> bool:
    return bool(torch.isfinite(z).all())


def works(A: Operator, shape: tuple[int, ...]) -> None:
    """A measures images of that shape, or refuses them."""
    want = A.y_shape(shape)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    if len(shape) == 2:  # visibilities
        x = torch.complex(x, x.flip(1))
    y = A(x)
    assert tuple(y.shape[1:]) == tuple(want) and finite(y)
    if A.differentiable:
        assert finite(A.vjp(x, torch.ones_like(y)))
    if isinstance(A, PseudoInvertible):
        assert finite(A.pinv(y))
    if isinstance(A, Linear):
        assert finite(A.solve(x, 1.0))


def refused(error: InvdiffError) -> None:
    said = str(error)
    assert 20 < len(said) < 400 and "\n" not in said and said.endswith(".")


def cases() -> list[tuple[str, str]]:
    """All but what a user's own function is given: its errors are its own."""
    own = {"function", "gradient", "forward", "backward", "numpy"}
    return [
        (name, argument)
        for name, (A, _) in GOOD.items()
        for argument in of(A)
        if not (name in ("FromFunction", "FromFunctions") and argument in own)
    ]


def test_every_public_operator_is_here() -> None:
    public = {
        name
        for name in ops.__all__
        if inspect.isclass(getattr(ops, name)) and issubclass(getattr(ops, name), Operator)
    }
    assert public == set(GOOD) | ABSTRACT | FROM_A_FILE
    for A, shape in GOOD.values():
        works(A, shape)
        works(type(A)(**of(A)), shape)


@pytest.mark.parametrize(("name", "argument"), cases())
def test_anything_works_or_is_one_sentence(name: str, argument: str) -> None:
    """Never another error, a number that is not finite, a wrong shape or a wait."""
    A, shape = GOOD[name]
    for bad in BAD:
        began = time.process_time()
        try:
            works(type(A)(**of(A) | {argument: bad}), shape)
        except InvdiffError as error:
            refused(error)
        except Exception as error:
            raise AssertionError(f"{name}({argument}={bad!r})"[:200]) from error
        assert time.process_time() - began < 5, bad


@pytest.mark.parametrize(
    ("name", "argument"), [(name, arg) for name, (_, given) in MAKERS.items() for arg in given]
)
def test_anything_makes_or_is_one_sentence(name: str, argument: str) -> None:
    make, given = MAKERS[name]
    make(**given)
    for bad in BAD:
        began = time.process_time()
        try:
            made = make(**given | {argument: bad})
        except InvdiffError as error:
            refused(error)
        except Exception as error:
            raise AssertionError(f"{name}({argument}={bad!r})"[:200]) from error
        else:
            if isinstance(made, Tensor):
                assert finite(made)
        assert time.process_time() - began < 5, bad
