"""What every operator promises: linearity, adjoint, inverses, decomposition, batch, precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import invdiff.operators as ops
from invdiff.operators import Linear, Operator, Spectral

torch.set_num_threads(1)
Shape = tuple[int, ...]
B = 3
EPS = torch.finfo(torch.float64).eps


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def sharp(kernel: Tensor) -> Tensor:
    """The kernel with a strong middle tap, so that it inverts well."""
    kernel = kernel.double().clone()
    kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] += 2 * kernel.sum()
    return kernel / kernel.sum()


def rough(height: int, width: int) -> Tensor:
    return sharp(random(height, width, seed=height * 31 + width).abs())


def mask(*shape: int) -> Tensor:
    return random(*shape, seed=5) > 0


class Pairs(Linear):
    """An operator with a complex measurement, seen as pairs of real numbers in a last axis.

    Its real inner product is Re <y, v>, so that every promise below reads as for real operators.
    """

    def __init__(self, base: Linear) -> None:
        object.__setattr__(self, "base", base)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.view_as_real(self.base(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.base.adjoint(torch.view_as_complex(y.contiguous()))

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return self.base.vjp(x, torch.view_as_complex(v.contiguous()))

    def pinv(self, y: Tensor) -> Tensor:
        return self.base.pinv(torch.view_as_complex(y.contiguous()))

    def solve(self, b: Tensor, shift: float) -> Tensor:
        return self.base.solve(b, shift)

    def rows(self, index: Tensor) -> Pairs:
        return type(self)(self.base.rows(index))

    def y_shape(self, x_shape: Shape) -> Shape:
        return (*self.base.y_shape(x_shape), 2)


class SpectralPairs(Pairs, Spectral):
    @property
    def s(self) -> Tensor:
        return self.base.s

    def V(self, c: Tensor) -> Tensor:
        return self.base.V(c)

    def Vt(self, x: Tensor) -> Tensor:
        return self.base.Vt(x)

    def U(self, c: Tensor) -> Tensor:
        return torch.view_as_real(self.base.U(c))

    def Ut(self, y: Tensor) -> Tensor:
        return self.base.Ut(torch.view_as_complex(y.contiguous()))


def pairs(A: Linear) -> Pairs:
    return (SpectralPairs if isinstance(A, Spectral) else Pairs)(A)


TAPS = (torch.tensor([0.05, 0.8, 0.15]), torch.tensor([0.05, 0.1, 0.75, 0.1]))
RGB = (3, 12, 10)
POOL = ops.AveragePool(2, (12, 10))
HALF = ops.Inpaint.random((6, 5), 0.5, seed=1, batch=B)
EACH_UV = torch.cat([ops.random_uv(6, 3.0, seed=k) for k in (1, 2, 4)])
LOW_UV = ops.grid_uv(ops.low_frequencies((7, 6), 3))
CASES: list[tuple[str, Operator, Shape]] = [
    ("identity", ops.Identity(), (2, 5, 4)),
    ("mask", ops.Inpaint(mask(1, 1, 12, 10)), RGB),
    ("mask-float", ops.Inpaint(mask(1, 3, 12, 10).float()), RGB),
    ("mask-each", ops.Inpaint.random((12, 10), 0.4, seed=0, batch=B), RGB),
    ("mask-box", ops.Inpaint.box((7, 5), 1, 2, 3, 3), (1, 7, 5)),
    ("mask-video", ops.Inpaint(mask(1, 1, 4, 6, 5)), (2, 4, 6, 5)),
    ("pool", POOL, RGB),
    ("pool-rest", ops.AveragePool(3, (13, 7)), (1, 13, 7)),
    ("pool-1", ops.AveragePool(1, (5, 4)), (1, 5, 4)),
    ("pool-pixel", ops.AveragePool(1, (1, 1)), (2, 1, 1)),
    ("pool-all", ops.AveragePool(5, (5, 7)), (1, 5, 7)),
    ("pool-video", ops.AveragePool(2, (6, 5)), (2, 3, 6, 5)),
    ("bicubic", ops.Bicubic(2, (12, 10)), RGB),
    ("bicubic-rest", ops.Bicubic(3, (13, 7)), (1, 13, 7)),
    ("circular", ops.CircularBlur(ops.gaussian_kernel(0.7), (12, 10)), RGB),
    ("circular-prime", ops.CircularBlur(rough(3, 5), (13, 7)), (1, 13, 7)),
    ("circular-even", ops.CircularBlur(rough(4, 2), (7, 6)), (1, 7, 6)),
    ("circular-zeros", ops.CircularBlur(torch.ones(2, 2) / 4, (6, 8)), (1, 6, 8)),
    ("circular-large", ops.CircularBlur(rough(9, 11), (5, 4)), (2, 5, 4)),
    ("circular-pixel", ops.CircularBlur(rough(3, 3), (1, 1)), (1, 1, 1)),
    ("circular-video", ops.CircularBlur(rough(3, 3), (6, 5)), (2, 3, 6, 5)),
    ("separable-reflect", ops.SeparableBlur(*TAPS, (12, 10), "reflect"), RGB),
    ("separable-zero", ops.SeparableBlur(*TAPS, (13, 7), "zero"), (1, 13, 7)),
    ("separable-circular", ops.SeparableBlur(*TAPS, (7, 6), "circular"), (1, 7, 6)),
    ("blur-gauss", ops.blur(ops.gaussian_kernel(0.6), (8, 9)), (1, 8, 9)),
    ("blur-reflect", ops.Blur(rough(5, 3), (12, 10), "reflect"), RGB),
    ("blur-zero", ops.Blur(rough(4, 3), (13, 7), "zero"), (1, 13, 7)),
    ("blur-motion", ops.Blur(sharp(ops.motion_kernel(4, 30)), (7, 8), "reflect"), (1, 7, 8)),
    ("blur-video", ops.Blur(rough(3, 3), (6, 5), "reflect"), (2, 3, 6, 5)),
    ("gray", ops.Grayscale(), RGB),
    ("gray-negative", ops.Grayscale((-0.5, 0.0, 2.0)), (3, 4, 5)),
    ("interferometry", pairs(ops.Interferometry(ops.random_uv(10, 5.0), (12, 10))), RGB),
    ("interferometry-each", pairs(ops.Interferometry(EACH_UV, (7, 6))), (2, 7, 6)),
    ("interferometry-grid", pairs(ops.Interferometry(LOW_UV, (7, 6))), (1, 7, 6)),
    ("composed", POOL @ ops.CircularBlur(rough(3, 3), (12, 10)), RGB),
    ("composed-mask", HALF @ POOL, (1, 12, 10)),
    ("stack", ops.Stack((POOL, ops.Grayscale()), RGB), RGB),
    ("stack-mask", ops.Stack((HALF, ops.Bicubic(2, (6, 5))), (2, 6, 5)), (2, 6, 5)),
    ("scaled", ops.scaled(ops.Blur(rough(3, 3), (5, 6)), -1.5), (1, 5, 6)),
    ("scaled-spectral", ops.scaled(ops.Bicubic(2, (5, 6)), -1.5), (1, 5, 6)),
    ("affine", ops.affine(ops.Bicubic(2, (5, 6)), 0.5, 0.5), (1, 5, 6)),
]
LINEAR = [c for c in CASES if isinstance(c[1], Linear)]
SPECTRAL = [c for c in CASES if isinstance(c[1], Spectral)]


def each(cases: list[tuple[str, Operator, Shape]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("A", "shape"), [pytest.param(*c[1:], id=c[0]) for c in cases])


def maps(A: Operator, shape: Shape) -> dict[str, tuple[Callable[[Tensor], Tensor], Shape]]:
    """Every linear map that A offers, with the shape of its argument."""
    y = A.y_shape(shape)
    found: dict[str, tuple[Callable[[Tensor], Tensor], Shape]] = {"A": (A, shape)}
    if isinstance(A, Linear):
        found |= {"adjoint": (A.adjoint, y), "pinv": (A.pinv, y)}
        found["solve"] = (lambda b: A.solve(b, 0.05), shape)
    if isinstance(A, Spectral):
        found |= {"V": (A.V, shape), "Vt": (A.Vt, shape), "U": (A.U, shape), "Ut": (A.Ut, y)}
    return found


def matrix(f: Callable[[Tensor], Tensor], shape: Shape) -> Tensor:
    """The matrix of a linear map of arrays of the given shape, float64."""
    n = math.prod(shape)
    return f(torch.eye(n, dtype=torch.float64).reshape(n, *shape)).flatten(1).T


def same(a: Tensor, b: Tensor, tol: float) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tol)


def counted(a: Tensor) -> Tensor:
    """The singular values of a matrix that are not numerically zero, in falling order."""
    s = torch.linalg.svdvals(a)
    return s[s > max(a.shape) * EPS * s[0]]


def alone(A: Operator, k: int = 0) -> Operator:
    """A for batch row k: it accepts any number of images where its own tensors have one row."""
    return A.rows(torch.tensor([k]))


def assert_adjoint(A: Operator, shape: Shape, dtype: torch.dtype) -> None:
    """<A x, y> = <x, A^T y> up to the round-off of dtype."""
    bound = 1e-10 if dtype == torch.float64 else 1e-5
    assert isinstance(A, Linear)
    x = random(B, *shape, seed=1).to(dtype)
    y = random(B, *A.y_shape(shape), seed=2).to(dtype)
    z, back = A(x).double(), A.adjoint(y).double()
    gap = ((z * y).sum() - (x * back).sum()).abs() / (z.norm() * y.norm())
    assert gap < bound


@each(LINEAR)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adjoint(A: Linear, shape: Shape, dtype: torch.dtype) -> None:
    assert_adjoint(A, shape, dtype)


@dataclass(frozen=True, eq=False)
class WrongAdjoint(ops.CircularBlur):
    """A blur whose transpose returns its input."""

    def adjoint(self, y: Tensor) -> Tensor:
        return y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adjoint_finds_a_wrong_transpose(dtype: torch.dtype) -> None:
    with pytest.raises(AssertionError):
        assert_adjoint(WrongAdjoint(rough(3, 3), (12, 10)), RGB, dtype)


@each(CASES)
def test_linear(A: Operator, shape: Shape) -> None:
    x, z = random(B, *shape, seed=3), random(B, *shape, seed=4)
    zero = A(torch.zeros_like(x))
    assert not (isinstance(A, Linear) and zero.any())
    same(A(2 * x - 3 * z) - zero, 2 * (A(x) - zero) - 3 * (A(z) - zero), 1e-12)


@each(LINEAR)
def test_moore_penrose(A: Linear, shape: Shape) -> None:
    """The four identities that define A^+.

    A backward stable pinv has a relative error of n eps cond, cond = max s / min s that counts.
    Without a decomposition the iteration may stop at |A^T r| = 8 eps |A| |r|: 8 eps cond^2."""
    A, spectral = alone(A), isinstance(A, Spectral)
    a, p = matrix(A, shape), matrix(A.pinv, A.y_shape(shape))
    s = counted(a)
    cond = float(s[0] / s[-1])
    tol = EPS * (4 * max(a.shape) * cond if spectral else 8 * max(a.shape) * cond**2)
    assert tol < 1e-10
    same(a @ p @ a, a, tol * float(s[0]))
    same(p @ a @ p, p, tol / float(s[-1]))
    same(a @ p, (a @ p).T, tol)
    same(p @ a, (p @ a).T, tol)


@each(LINEAR)
@pytest.mark.parametrize("shift", [0.01, 3.0])
def test_solve(A: Linear, shape: Shape, shift: float) -> None:
    b = random(B, *shape, seed=5)
    x = A.solve(b, shift)
    assert (A.adjoint(A(x)) + shift * x - b).norm() < 1e-8 * b.norm()


@each(SPECTRAL)
def test_decomposition(A: Spectral, shape: Shape) -> None:
    """A = U s Vt with V square and orthonormal, U orthonormal where s > 0."""
    A = alone(A)
    y_shape, n = A.y_shape(shape), math.prod(shape)
    a, v, vt = matrix(A, shape), matrix(A.V, shape), matrix(A.Vt, shape)
    u, ut = matrix(A.U, shape), matrix(A.Ut, y_shape)
    assert A.s.dtype == torch.float64 and bool((A.s >= 0).all())
    s = A.spectrum(a).expand(1, *shape).flatten()
    seen = u[:, s > 0]
    same(v @ vt, torch.eye(n).double(), 1e-10)
    same(vt, v.T, 1e-10)
    same(ut, u.T, 1e-10)
    same(seen.T @ seen, torch.eye(seen.shape[1]).double(), 1e-10)
    same(u @ (s[:, None] * vt), a, 1e-10)
    same(s.sort(descending=True).values[: min(a.shape)], torch.linalg.svdvals(a), 1e-10)


@each(CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_is_the_same_in_a_batch(A: Operator, shape: Shape, dtype: torch.dtype) -> None:
    """Up to round-off (a batch may be added in another order): 32 eps covers the sums of one map,
    an iterative solution multiplies it by cond^2. Nothing is written to; the precision stays."""
    iterative = isinstance(A, Linear) and not isinstance(A, Spectral)
    s = counted(matrix(alone(A), shape)) if iterative else torch.ones(1)
    for name, (f, argument) in maps(A, shape).items():
        v = random(B, *argument, seed=6).to(dtype)
        kept = v.clone()
        whole = f(v)
        assert whole.dtype == dtype and torch.equal(v, kept), name
        amplified = float(s[0] / s[-1]) ** 2 if name in ("pinv", "solve") else 1.0
        tol = 32 * torch.finfo(dtype).eps * amplified * float(whole.abs().max())
        for k in range(B):
            same(maps(alone(A, k), shape)[name][0](v[k : k + 1]), whole[k : k + 1], tol)
    index = torch.tensor([2, 0, 0])
    x = random(B, *shape, seed=7)
    same(A.rows(index)(x[index]), A(x)[index], 1e-14)


@each(CASES)
def test_gradients_pass(A: Operator, shape: Shape) -> None:
    x = random(B, *shape, seed=8).requires_grad_()
    z = A(x)
    v = random(*z.shape, seed=9).requires_grad_()
    (expected,) = torch.autograd.grad(z, x, v)
    same(A.vjp(x, v), expected, 1e-12)
    if isinstance(A, Linear):
        (twice,) = torch.autograd.grad(A.adjoint(v), v, x)
        same(twice, z, 1e-12)


@each(CASES)
def test_shapes_and_devices(A: Operator, shape: Shape) -> None:
    """y_shape tells the truth; a device without data shows that no tensor is left behind."""
    assert A.y_shape(shape) == tuple(A(random(B, *shape)).shape[1:])
    for name, (f, argument) in maps(A, shape).items():
        if isinstance(A, Spectral) or name in ("A", "adjoint"):
            out = f(torch.empty(B, *argument, device="meta"))
            assert out.device.type == "meta" and out.dtype == torch.float32, name
