"""Every operator at random sizes, among them one pixel and primes, and with nonsense for numbers.

What can be built must keep its promises: the shape that y_shape states, the precision, the dot
test and linearity where it is linear, a finite gradient where it is not. What cannot be built must
say so in one InvdiffError; any other exception, and a result that is not finite, is a failure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import invdiff.operators as ops
from invdiff.core import InvdiffError
from invdiff.operators import Linear, Operator, PseudoInvertible

SETTINGS = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
SIDES = (1, 2, 3, 5, 7, 8, 11, 13)
POWERS = (1, 2, 4, 8)
Shape = tuple[int, ...]
Made = tuple[Operator, Shape]


def white(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def mask_of(b: int, h: int, w: int, seed: int) -> Tensor:
    """A random mask that knows at least one pixel."""
    mask = white(b, 1, h, w, seed=seed) > 0
    mask[..., 0, 0] = True
    return mask


def taps(h: int, w: int, seed: int) -> Tensor:
    return white(h, w, seed=seed).abs() + 0.01


def closures(k: int) -> ops.TelescopeArray:
    return ops.earth_rotation(12, 2, 1.5, seed=k)


BUILD: dict[str, Callable[[int, int, int, int, int], Made]] = {
    "identity": lambda h, w, b, k, f: (ops.Identity(), (2, h, w)),
    "inpaint": lambda h, w, b, k, f: (ops.Inpaint(mask_of(b, h, w, k)), (2, h, w)),
    "pool": lambda h, w, b, k, f: (ops.AveragePool(min(f, h, w), (h, w)), (2, h, w)),
    "bicubic": lambda h, w, b, k, f: (ops.Bicubic(min(f, h, w), (h, w)), (1, h, w)),
    "upsample": lambda h, w, b, k, f: (ops.Upsample(f, (h, w)), (1, -(-h // f), -(-w // f))),
    "upsample-bicubic": lambda h, w, b, k, f: (
        ops.Upsample(f, (h, w), "bicubic"),
        (1, -(-h // f), -(-w // f)),
    ),
    "circular": lambda h, w, b, k, f: (ops.CircularBlur(taps(f, k % 4 + 1, k), (h, w)), (1, h, w)),
    "blur-reflect": lambda h, w, b, k, f: (ops.Blur(taps(f, 3, k), (h, w)), (1, h, w)),
    "blur-zero": lambda h, w, b, k, f: (ops.Blur(taps(f, 2, k), (h, w), "zero"), (2, h, w)),
    "separable": lambda h, w, b, k, f: (
        ops.SeparableBlur(taps(1, f, k)[0], taps(1, 3, k + 1)[0], (h, w), "reflect"),
        (1, h, w),
    ),
    "blur-gaussian": lambda h, w, b, k, f: (
        ops.blur(ops.gaussian_kernel(f / 2), (h, w)),
        (1, h, w),
    ),
    "blur-motion": lambda h, w, b, k, f: (
        ops.blur(ops.motion_kernel(f, 40.0 * k), (h, w)),
        (1, h, w),
    ),
    "gray": lambda h, w, b, k, f: (ops.Grayscale(tuple(white(f, seed=k).tolist())), (f, h, w)),
    "bayer": lambda h, w, b, k, f: (
        ops.Bayer(("RGGB", "BGGR", "GRBG", "GBRG")[k % 4]),
        (3, h, w),
    ),
    "tiled": lambda h, w, b, k, f: (
        ops.TiledBlur(
            taps(min(2, h) * min(3, w), 15, k).reshape(min(2, h), min(3, w), 3, 5),
            (h, w),
            ("reflect", "zero", "circular")[k % 3],
        ),
        (1, h, w),
    ),
    "lens": lambda h, w, b, k, f: (
        ops.TiledBlur(ops.lens_kernels((min(2, h), min(f, w)), 0.4, 1.0), (h, w)),
        (1, h, w),
    ),
    "warp": lambda h, w, b, k, f: (ops.Warp(f * white(b, 2, h, w, seed=k)), (2, h, w)),
    "turbulence": lambda h, w, b, k, f: (ops.Warp.turbulence((h, w), f, 1.0, k), (1, h, w)),
    "dct": lambda h, w, b, k, f: (ops.DCTSubsampling(mask_of(b, h, w, k)), (2, h, w)),
    "hadamard": lambda h, w, b, k, f: (
        ops.WalshHadamard(1, (h, w), k, ("random", "natural", "sequency")[k % 3]),  # type: ignore[arg-type]
        (2, h, w),
    ),
    "single-pixel": lambda h, w, b, k, f: (
        ops.SinglePixel(ops.WalshHadamard(min(f, h * w), (h, w), k)),
        (1, h, w),
    ),
    "block": lambda h, w, b, k, f: (
        ops.BlockSensing(k % f**2 + 1, (f * min(h, 4), f * min(w, 4)), f, k),
        (1, f * min(h, 4), f * min(w, 4)),
    ),
    "fourier": lambda h, w, b, k, f: (ops.Fourier(mask_of(b, h, w, k)), (2, h, w)),
    "fourier-real": lambda h, w, b, k, f: (ops.RealFourier(mask_of(b, h, w, k)), (2, h, w)),
    "sense": lambda h, w, b, k, f: (
        ops.Sense(torch.view_as_complex(white(1, 3, h, w, 2, seed=k)), mask_of(b, h, w, k)),
        (2, h, w),
    ),
    "interferometry": lambda h, w, b, k, f: (
        ops.Interferometry(3 * white(b, f, 2, seed=k), (h, w)),
        (1, h, w),
    ),
    "radon": lambda h, w, b, k, f: (ops.Radon(ops.sparse_view(f), (h, w)), (1, h, w)),
    "frames": lambda h, w, b, k, f: (ops.Frames((f - 1, 0)[: min(f, 2)], f), (1, f, h, w)),
    "temporal-pool": lambda h, w, b, k, f: (ops.TemporalPool(min(f, 2), f), (1, f, h, w)),
    "composed": lambda h, w, b, k, f: (
        ops.AveragePool(min(f, h, w), (h, w)) @ ops.Inpaint(mask_of(b, h, w, k)),
        (1, h, w),
    ),
    "stack": lambda h, w, b, k, f: (
        ops.Stack((ops.Grayscale(), ops.Inpaint(mask_of(b, h, w, k))), (3, h, w)),
        (3, h, w),
    ),
    "scaled": lambda h, w, b, k, f: (ops.scaled(ops.Identity(), -0.5 * f), (1, h, w)),
    "sum": lambda h, w, b, k, f: (
        ops.Inpaint(mask_of(b, h, w, k)) - f * ops.Blur(taps(f, 3, k), (h, w)),
        (1, h, w),
    ),
    "transposed": lambda h, w, b, k, f: (
        ops.AveragePool(min(f, h, w), (h, w)).T,
        (2, -(-h // min(f, h, w)), -(-w // min(f, h, w))),
    ),
    "normal": lambda h, w, b, k, f: (
        ops.Inpaint(mask_of(b, h, w, k)).T @ ops.Blur(taps(f, 3, k), (h, w)) / f,
        (1, h, w),
    ),
    "curved-sum": lambda h, w, b, k, f: (ops.HDR(f) - ops.Identity() / f, (1, h, w)),
    "photons": lambda h, w, b, k, f: (ops.to_photons(10.0**f), (1, h, w)),
    "phase": lambda h, w, b, k, f: (ops.PhaseRetrieval(f, bool(k % 2)), (2, h, w)),
    "diffraction": lambda h, w, b, k, f: (ops.CodedDiffraction.random((h, w), f, k), (1, h, w)),
    "hdr": lambda h, w, b, k, f: (ops.HDR(f), (1, h, w)),
    "bracket": lambda h, w, b, k, f: (ops.Bracket((0.5, f)), (1, h, w)),
    "response": lambda h, w, b, k, f: (ops.CameraResponse(f, reverse=bool(k % 2)), (1, h, w)),
    "nonlinear-blur": lambda h, w, b, k, f: (ops.NonlinearBlur(k, radius=f), (2, h, w)),
    "closure-phases": lambda h, w, b, k, f: (
        ops.ClosurePhases(closures(k).triangles()) @ ops.Interferometry(closures(k).uv, (h, w)),
        (1, h, w),
    ),
    "closure-amplitudes": lambda h, w, b, k, f: (
        ops.ClosureAmplitudes(closures(4).quadrangles())
        @ ops.Interferometry(closures(4).uv, (h, w)),
        (1, h, w),
    ),
    "quantize": lambda h, w, b, k, f: (ops.Quantize(f + 1), (1, h, w)),
    "jpeg": lambda h, w, b, k, f: (ops.JPEG(20 * f), ((1, 3)[k % 2], h, w)),
}
"""Name to f(height, width, batch, seed, 1 ... 4): an operator and the shape of its images."""


def real(z: Tensor) -> Tensor:
    """Complex numbers as pairs of real ones, float64."""
    return (torch.view_as_real(z.resolve_conj()) if z.is_complex() else z).double()


def like(z: Tensor, seed: int) -> Tensor:
    """White noise of the shape and type of z."""
    if not z.is_complex():
        return white(*z.shape, seed=seed, dtype=z.dtype)
    return torch.view_as_complex(white(*z.shape, 2, seed=seed, dtype=z.real.dtype))


def keeps_its_promises(A: Operator, shape: Shape, batch: int, dtype: torch.dtype, k: int) -> None:
    """Shapes, precision, dot test and linearity or gradient of A for white noise of that seed."""
    x = white(batch, *shape, seed=k, dtype=dtype) / 2
    y = A(x)
    assert tuple(y.shape) == (batch, *A.y_shape(shape))
    assert y.real.dtype == dtype if y.is_complex() else y.dtype == dtype
    assert torch.isfinite(real(y)).all()
    if isinstance(A, PseudoInvertible):
        image = A.pinv(y)
        assert image.shape == x.shape and image.dtype == dtype and torch.isfinite(image).all()
    if not A.differentiable:
        return
    v = like(y, k + 1)
    back = A.vjp(x, v)
    assert back.shape == x.shape and back.dtype == dtype and torch.isfinite(back).all()
    if not isinstance(A, Linear):
        return
    bound = 1e-10 if dtype == torch.float64 else 1e-5
    left, right = real(y) * real(v), x.double() * back.double()
    sizes = real(y).norm() * real(v).norm() + x.double().norm() * back.double().norm()
    assert abs(left.sum() - right.sum()) <= bound * sizes
    z = white(batch, *shape, seed=k + 2, dtype=dtype)
    size = max(float(real(A(z)).abs().max()), float(real(y).abs().max()))
    gap = real(A(2 * x - 3 * z)) - 2 * real(y) + 3 * real(A(z))
    assert gap.abs().max() <= 64 * torch.finfo(dtype).eps * math.sqrt(math.prod(shape)) * (size + 1)


@pytest.mark.parametrize("name", BUILD)
def test_any_size_keeps_the_promises(name: str) -> None:
    sides = POWERS if name in ("hadamard", "single-pixel") else SIDES

    @SETTINGS
    @given(
        st.sampled_from(sides),
        st.sampled_from(sides),
        st.integers(1, 3),
        st.sampled_from([torch.float32, torch.float64]),
        st.integers(0, 20),
        st.integers(1, 4),
    )
    def check(h: int, w: int, batch: int, dtype: torch.dtype, k: int, f: int) -> None:
        A, shape = BUILD[name](h, w, batch, k, f)
        keeps_its_promises(A, shape, batch, dtype, k)

    check()


def test_one_pixel() -> None:
    """All of them, for one pixel and the smallest parameter."""
    for make in BUILD.values():
        A, shape = make(1, 1, 1, 0, 1)
        keeps_its_promises(A, shape, 1, torch.float64, 0)


def test_the_check_finds_a_wrong_transpose() -> None:
    """Negative twin."""

    class Wrong(ops.CircularBlur):
        def adjoint(self, y: Tensor) -> Tensor:
            return y

    with pytest.raises(AssertionError):
        keeps_its_promises(Wrong(taps(3, 2, 0), (5, 7)), (1, 5, 7), 2, torch.float64, 0)


NONSENSE = (math.nan, math.inf, -math.inf, 0, 0.0, -1, 0.5, 2.5, 1, 4, 40, 1e-300, 1e30, 10**12)
SMALL = (1, 6, 5)
NUMBERS: dict[str, Callable[[Any], Made]] = {
    "pool": lambda n: (ops.AveragePool(n, (6, 5)), SMALL),
    "bicubic": lambda n: (ops.Bicubic(n, (6, 5)), SMALL),
    "upsample": lambda n: (ops.Upsample(n, (6, 5)), SMALL),
    "size": lambda n: (ops.AveragePool(1, (n, 5)), SMALL),
    "gaussian": lambda n: (ops.blur(ops.gaussian_kernel(n), (6, 5)), SMALL),
    "motion": lambda n: (ops.blur(ops.motion_kernel(n, 30), (6, 5)), SMALL),
    "motion-angle": lambda n: (ops.blur(ops.motion_kernel(3, n), (6, 5)), SMALL),
    "kernel": lambda n: (ops.CircularBlur(torch.tensor([[1.0, n]]), (6, 5)), SMALL),
    "gray": lambda n: (ops.Grayscale((1.0, n, 0.5)), (3, 6, 5)),
    "inpaint": lambda n: (ops.Inpaint.random((6, 5), n, 0), SMALL),
    "inpaint-box": lambda n: (ops.Inpaint.box((6, 5), 1, 1, n, 2), SMALL),
    "dct": lambda n: (ops.DCTSubsampling.random((6, 5), 0.5, 0, low=n), SMALL),
    "hadamard": lambda n: (ops.WalshHadamard(n, (4, 8)), (1, 4, 8)),
    "block": lambda n: (ops.BlockSensing(2, (6, 6), n), (1, 6, 6)),
    "block-keep": lambda n: (ops.BlockSensing(n, (6, 6), 3), (1, 6, 6)),
    "lens": lambda n: (ops.TiledBlur(ops.lens_kernels((2, 2), n, 1.0), (6, 5)), SMALL),
    "lens-corner": lambda n: (ops.TiledBlur(ops.lens_kernels((2, 2), 1.0, n), (6, 5)), SMALL),
    "turbulence": lambda n: (ops.Warp.turbulence((6, 5), n, 1.0), SMALL),
    "turbulence-scale": lambda n: (ops.Warp.turbulence((6, 5), 1.0, n), SMALL),
    "warp": lambda n: (ops.Warp(torch.full((1, 2, 6, 5), float(n))), SMALL),
    "radon": lambda n: (ops.Radon(ops.sparse_view(4), (6, 5), pixel=n), SMALL),
    "radon-pitch": lambda n: (ops.Radon(ops.sparse_view(4), (6, 5), pitch=n), SMALL),
    "interferometry": lambda n: (ops.Interferometry(torch.tensor([[[1.0, n]]]), (6, 5)), SMALL),
    "array-radius": lambda n: (ops.Interferometry(ops.earth_rotation(4, 3, n).uv, (6, 5)), SMALL),
    "array-random": lambda n: (ops.Interferometry(ops.random_uv(4, n), (6, 5)), SMALL),
    "phase": lambda n: (ops.PhaseRetrieval(n), SMALL),
    "diffraction": lambda n: (ops.CodedDiffraction.random((6, 5), n, 0), SMALL),
    "hdr": lambda n: (ops.HDR(n), SMALL),
    "bracket": lambda n: (ops.Bracket((n, 1.0)), SMALL),
    "response": lambda n: (ops.CameraResponse(n), SMALL),
    "response-offset": lambda n: (ops.CameraResponse(2.4, n), SMALL),
    "photons": lambda n: (ops.to_photons(n), SMALL),
    "nonlinear-blur": lambda n: (ops.NonlinearBlur(radius=n), SMALL),
    "nonlinear-kernels": lambda n: (ops.NonlinearBlur(radius=2, kernels=n), SMALL),
    "quantize": lambda n: (ops.Quantize(n), SMALL),
    "jpeg": lambda n: (ops.JPEG(n), SMALL),
    "frames": lambda n: (ops.Frames((n,), 4), (1, 4, 3, 2)),
    "temporal-pool": lambda n: (ops.TemporalPool(n, 4), (1, 4, 3, 2)),
}
"""Name to f(number): an operator that depends on it, and the shape of its images."""


@pytest.mark.parametrize("name", NUMBERS)
def test_nonsense_is_one_sentence(name: str) -> None:
    """A number either makes an operator that works, or an InvdiffError."""
    for n in NONSENSE:
        try:
            A, shape = NUMBERS[name](n)
            A.y_shape(shape)
        except InvdiffError as error:
            assert len(str(error)) > 20 and "\n" not in str(error), n
            continue
        x = white(1, *shape)
        y = A(x)
        assert torch.isfinite(real(y)).all(), n
        assert tuple(y.shape[1:]) == A.y_shape(shape), n
        if A.differentiable:
            assert torch.isfinite(A.vjp(x, like(y, 1))).all(), n


WRONG: dict[str, Callable[[], object]] = {
    "mask-empty": lambda: ops.Inpaint(torch.zeros(1, 1, 4, 4)),
    "mask-nan": lambda: ops.Inpaint(torch.full((1, 1, 4, 4), torch.nan)),
    "mask-axes": lambda: ops.Inpaint(torch.ones(4, 4)),
    "mask-no-pixels": lambda: ops.Inpaint(torch.ones(1, 1, 0, 4)),
    "dct-empty": lambda: ops.DCTSubsampling(torch.zeros(1, 1, 4, 4)),
    "fourier-empty": lambda: ops.Fourier(torch.zeros(1, 1, 4, 4)),
    "fourier-real-nan": lambda: ops.RealFourier(torch.full((1, 1, 4, 4), torch.nan)),
    "sense-maps": lambda: ops.Sense(torch.ones(1, 2, 4, 4), torch.ones(1, 1, 5, 4)).y_shape(
        (2, 4, 4)
    ),
    "kernel-zero": lambda: ops.CircularBlur(torch.zeros(3, 3), (4, 4)),
    "kernel-empty": lambda: ops.Blur(torch.zeros(0, 3), (4, 4)),
    "kernel-inf": lambda: ops.blur(torch.full((3, 3), torch.inf), (4, 4)),
    "kernel-complex": lambda: ops.Blur(torch.ones(3, 3, dtype=torch.complex64), (4, 4)),
    "tiles-zero": lambda: ops.TiledBlur(torch.zeros(2, 2, 3, 3), (4, 4)),
    "tiles-none": lambda: ops.TiledBlur(torch.ones(0, 2, 3, 3), (4, 4)),
    "warp-axes": lambda: ops.Warp(torch.zeros(2, 4, 4)),
    "masks-empty": lambda: ops.CodedDiffraction(torch.ones(0, 4, 4)),
    "weights-none": lambda: ops.Grayscale(()),
    "angles-none": lambda: ops.Radon((), (4, 4)),
    "frames-none": lambda: ops.Frames((), 4),
    "exposures-none": lambda: ops.Bracket(()),
    "scale-zero": lambda: ops.scaled(ops.Identity(), 0.0),
    "scale-nan": lambda: ops.scaled(ops.Identity(), math.nan),
    "affine-inf": lambda: ops.affine(ops.Identity(), 1.0, math.inf),
    "stack-none": lambda: ops.Stack((), (3, 4, 4)),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_one_sentence(name: str) -> None:
    with pytest.raises(InvdiffError) as error:
        WRONG[name]()
    assert len(str(error.value)) > 20 and "\n" not in str(error.value)


ANY = ("identity", "scaled", "curved-sum", "photons", "hdr", "bracket", "response", "quantize")


@pytest.mark.parametrize("name", [n for n in BUILD if n not in ANY])
def test_wrong_shapes_are_one_sentence(name: str) -> None:
    """y_shape, which every Problem asks, refuses images with another number of axes or channels."""
    sides = (4, 8) if name in ("hadamard", "single-pixel") else (5, 7)
    A, shape = BUILD[name](*sides, 1, 1, 3)
    refused = 0
    for wrong in (shape[:-1], (), (1, 1, *shape), (shape[0], *(n + 1 for n in shape[1:]))):
        try:
            A.y_shape(wrong)
        except InvdiffError as error:
            assert len(str(error)) > 20 and "\n" not in str(error)
            refused += 1
    assert refused >= 1
