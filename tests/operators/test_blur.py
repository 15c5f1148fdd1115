"""Kernels, the choice of class, and the errors of the blur family."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import StationaryGaussian
from invdiff.operators import (
    Blur,
    CircularBlur,
    SeparableBlur,
    blur,
    check_kernel,
    dot_test,
    gaussian_kernel,
    motion_kernel,
)
from invdiff.operators.blur_kernels import path_kernels
from invdiff.operators.boundaries import margins

torch.set_num_threads(1)


def same(a: torch.Tensor, b: torch.Tensor, tol: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tol)


@pytest.mark.parametrize(("sigma", "side"), [(0.3, 5), (1.0, 9), (3.0, 25)])
def test_gaussian_kernel(sigma: float, side: int) -> None:
    k = gaussian_kernel(sigma)
    offset = torch.arange(side).double() - side // 2
    assert k.shape == (side, side) and float(k.sum()) == pytest.approx(1, abs=1e-14)
    same(k, k.T)
    same(k, k.flip(0, 1))
    ratio = k[side // 2 + 1, side // 2] / k[side // 2, side // 2]
    assert float(ratio) == pytest.approx(float(torch.exp(torch.tensor(-0.5 / sigma**2))), rel=1e-6)
    if sigma >= 1:
        # the discrete variance equals sigma^2 but for the tails beyond 4 sigma (about 1e-3)
        assert float((k.sum(1) * offset**2).sum()) == pytest.approx(sigma**2, rel=2e-3)


@pytest.mark.parametrize(("radius", "points"), [(8, 64), (30, 480)])
def test_path_kernels(radius: int, points: int) -> None:
    """Means of points along a path whose middle is the middle and whose reach is told."""
    kernels = path_kernels(5, radius, Rng.of(3), points)
    n = 2 * radius + 1
    assert kernels.shape == (5, n, n) and bool((kernels >= 0).all())
    assert torch.allclose(kernels.sum((1, 2)), torch.ones(5).double())
    place = torch.arange(-radius, radius + 1).double()
    for kernel in kernels:
        middle = (kernel.sum(1) @ place, kernel.sum(0) @ place)
        assert all(abs(float(m)) < 1e-12 for m in middle)
        far = float(torch.hypot(*(kernel.nonzero().mT.double() - radius)).max())
        assert radius / 2 <= far <= radius + 2**0.5
    assert not torch.allclose(kernels[0], kernels[1])
    assert torch.equal(kernels, path_kernels(5, radius, Rng.of(3), points))


def test_motion_kernel() -> None:
    same(motion_kernel(5, 0), torch.full((1, 5), 0.2).double(), 1e-7)
    same(motion_kernel(5, 90), motion_kernel(5, 0).T)
    same(motion_kernel(1, 33), torch.ones(1, 1).double())
    rising = motion_kernel(6, 45)
    assert float(rising[0, -1]) > 0 and float(rising[0, 0]) == 0
    same(rising, rising.T.flip(0, 1))
    for length, angle in [(1.5, 10), (9, 30), (12.3, 77), (7, 135), (30, 200)]:
        k = motion_kernel(length, angle)
        assert all(n % 2 == 1 for n in k.shape) and bool((k >= 0).all())
        assert float(k.sum()) == pytest.approx(1, abs=1e-14)
        same(k, k.flip(0, 1))
        same(k, motion_kernel(length, angle + 180))
        same(k, motion_kernel(length, -angle).flip(0))
        assert bool(k[0].any() and k[-1].any() and k[:, 0].any() and k[:, -1].any())


def test_convolution_flips_the_kernel() -> None:
    """A point becomes the kernel itself, not its mirror image."""
    kernel = torch.arange(1.0, 10.0).double().reshape(3, 3)
    x = torch.zeros(1, 1, 7, 8).double()
    x[..., 3, 4] = 1
    for boundary in ("circular", "reflect", "mirror", "replicate", "zero"):
        same(blur(kernel, (7, 8), boundary)(x)[0, 0, 2:5, 3:6], kernel)


@pytest.mark.parametrize("boundary", ["reflect", "mirror", "replicate", "zero", "circular"])
def test_the_classes_agree(boundary: str) -> None:
    """A Gaussian goes to the highest class, which agrees with the general ones."""
    kernel, size = gaussian_kernel(0.8), (13, 10)
    taps = kernel.sum(0)
    found = blur(kernel, size, boundary)
    assert type(found) is (CircularBlur if boundary == "circular" else SeparableBlur)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    same(found(x), SeparableBlur(taps, taps, size, boundary)(x))
    if boundary != "circular":
        same(found(x), Blur(kernel, size, boundary)(x))
        assert type(blur(motion_kernel(5, 30), size, boundary)) is Blur
        assert type(blur(kernel.float(), size, boundary)) is SeparableBlur
        assert type(blur(torch.ones(3, 5, dtype=torch.int64), size, boundary)) is SeparableBlur


@pytest.mark.parametrize(
    "kernel",
    [
        gaussian_kernel(0.8),
        motion_kernel(5, 30),
        torch.arange(1.0, 13.0).double().reshape(3, 4).square(),  # even, of rank above 1
        torch.eye(5).double()[3:4] + 0.0 * torch.ones(1, 5).double(),  # a shift by one pixel
        torch.nn.functional.pad(torch.ones(2, 3).double(), (3, 0, 1, 4)),  # off its centre
    ],
)
def test_an_unknown_boundary_is_a_cut_out_of_a_larger_picture(kernel: torch.Tensor) -> None:
    """What is measured does not depend on what a known boundary supposes, and all of it is there.

    Beyond one pixel more the three known boundaries differ, so that no pixel was left out.
    """
    size = (14, 15)
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    (above, below), (left, right) = margins(kernel)
    rows, columns = slice(above, size[0] - below), slice(left, size[1] - right)
    A = blur(kernel, size, "unknown")
    known = [blur(kernel, size, b)(x) for b in ("zero", "reflect", "circular")]
    for whole in known:
        same(A(x), whole[..., rows, columns])
    same(A(x), Blur(kernel, size, "unknown")(x))
    assert tuple(A(x).shape[1:]) == A.y_shape((2, *size))
    for edge in (above - 1, size[0] - below):
        if 0 <= edge < size[0]:
            assert (known[0] - known[2])[..., edge, :].abs().max() > 1e-6


def test_a_kernel_may_reach_too_far_for_an_unknown_boundary() -> None:
    for kernel in (gaussian_kernel(2), motion_kernel(17, 45)):
        with pytest.raises(InvdiffError, match="nothing is measured"):
            blur(kernel, (12, 30), "unknown")
    assert blur(gaussian_kernel(2), (17, 17), "unknown").y_shape((1, 17, 17)) == (1, 1, 1)


def test_a_mirror_does_not_repeat_the_edge() -> None:
    """The padding that torch calls reflect, as in the official code of DPS; not our reflect."""
    kernel, x = gaussian_kernel(1.0), torch.randn(2, 3, 12, 11, dtype=torch.float64)
    padded = torch.nn.functional.pad(x, (4, 4, 4, 4), mode="reflect")
    want = torch.nn.functional.conv2d(padded.reshape(6, 1, 20, 19), kernel[None, None])
    for A in (blur(kernel, (12, 11), "mirror"), Blur(kernel, (12, 11), "mirror")):
        same(A(x), want.reshape(x.shape))
    assert float((blur(kernel, (12, 11), "reflect")(x) - want.reshape(x.shape)).abs().max()) > 0.01


@pytest.mark.parametrize(("boundary", "mode"), [("mirror", "reflect"), ("replicate", "edge")])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (4, 3), (6, 9)])
@pytest.mark.parametrize("sides", [(1, 1), (3, 2), (7, 4), (13, 30)])
def test_a_mirror_and_a_repeated_edge_of_any_kernel(
    boundary: str, mode: str, size: tuple[int, int], sides: tuple[int, int]
) -> None:
    """Against numpy's padding, for kernels that reach beyond the mirror image too; the adjoint."""
    kernel = torch.rand(sides, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    A, x = Blur(kernel, size, boundary), torch.randn(1, 1, *size, dtype=torch.float64)
    (h, w), wide = sides, np.pad(x[0, 0].numpy(), [(n, n) for n in sides], mode=mode)
    want = sum(
        kernel[u, v] * wide[h + h // 2 - u :, w + w // 2 - v :][: size[0], : size[1]]
        for u in range(h)
        for v in range(w)
    )
    same(A(x)[0, 0], want)
    assert dot_test(A, (1, *size)) < 1e-13


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 3), (6, 9)])
@pytest.mark.parametrize("sides", [(1, 1), (3, 2), (7, 4), (13, 30)])
def test_replicate_is_separable(size: tuple[int, int], sides: tuple[int, int]) -> None:
    kernel = torch.rand(sides, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = torch.randn(1, 1, *size, dtype=torch.float64)
    taps = kernel[0], kernel[:, 0]
    B = SeparableBlur(taps[1], taps[0], size, "replicate")
    same(B(x), Blur(torch.outer(taps[1], taps[0]), size, "replicate")(x))


@pytest.mark.parametrize("sides", [(1, 1), (3, 2), (4, 5), (6, 9)])
def test_valid_is_what_scipy_calls_valid(sides: tuple[int, int]) -> None:
    """Every tap counts, those of 0 at the sides too, which an unknown boundary leaves out."""
    kernel = torch.rand(sides, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for k in (kernel, torch.outer(kernel[:, 0], kernel[0]), F.pad(kernel[:1, :1], (0, 2, 1, 0))):
        A, x = blur(k, (6, 9), "valid"), torch.randn(2, 3, 6, 9, dtype=torch.float64)
        want = convolve2d(x[1, 2].numpy(), k.numpy(), mode="valid")
        same(A(x)[1, 2], torch.tensor(want))
        assert A.y_shape((3, 6, 9)) == (3, 7 - k.shape[0], 10 - k.shape[1])
        assert dot_test(A, (3, 6, 9)) < 1e-13
    wide = F.pad(kernel, (2, 2, 0, 0))
    if sides[1] < 5:
        found, less = (blur(wide, (6, 9), b)(x).shape[-1] for b in ("unknown", "valid"))
        assert found == 10 - sides[1] > less == 6 - sides[1]
    with pytest.raises(InvdiffError, match="boundary valid nothing is measured"):
        blur(F.pad(kernel, (1, 1)), (6, sides[1] + 1), "valid")


EACH = torch.rand(3, 2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
BOUNDARIES = ("circular", "reflect", "mirror", "replicate", "zero", "unknown", "valid")


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_kernels_of_their_own(boundary: str) -> None:
    """Each channel and each measurement is blurred by its own kernel, as by it alone."""
    size, x = (9, 8), torch.randn(3, 2, 9, 8, dtype=torch.float64)
    alone = [[blur(EACH[m, c], size, boundary)(x[m : m + 1, c : c + 1]) for c in (0, 1)]
             for m in range(3)]  # fmt: skip
    want = torch.cat([torch.cat(row, 1) for row in alone])
    A = blur(EACH, size, boundary)
    same(A(x), want)
    same(A.rows(torch.tensor([2, 0]))(x[[2, 0]]), want[[2, 0]])
    same(blur(EACH[1], size, boundary)(x)[1], want[1])  # by channel
    same(blur(EACH[:, :1], size, boundary)(x)[:, :1], want[:, :1])  # by measurement
    for B in (A, blur(EACH[1], size, boundary), blur(EACH[:, :1], size, boundary)):
        assert tuple(B(x).shape[1:]) == B.y_shape((2, *size))
        y = torch.randn(B(x).shape, dtype=torch.float64)
        gap = (B(x) * y).sum() - (x * B.adjoint(y)).sum()
        assert abs(float(gap)) < 1e-13 * float(B(x).norm() * y.norm())
    assert float((blur(EACH[1].flip(0), size, boundary)(x)[1] - want[1]).abs().max()) > 1e-3


def test_kernels_of_their_own_keep_the_ladder() -> None:
    """Circular ones have singular values, and their norm is the largest of all rows."""
    A = CircularBlur(EACH, (9, 8))
    assert A.s.shape == (3, 2, 9, 8) and A.norm() == float(A.s.max())
    each = [CircularBlur(k, (9, 8)).norm() for k in EACH.flatten(0, 1)]
    assert A.norm() == pytest.approx(max(each), rel=1e-14)
    inside = Blur(EACH, (9, 8), "zero").norm()  # of positive taps, below that of the whole plane
    assert 0.5 * max(each) < inside < max(each)
    y = A(torch.randn(3, 2, 9, 8, dtype=torch.float64))
    same(A(A.pinv(y)), y, 1e-10)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_kernels_that_do_not_fit_are_one_sentence(boundary: str) -> None:
    A = blur(EACH[0], (9, 8), boundary)
    for wrong in ((3, 9, 8), (1, 9, 8), (2, 4, 9, 8), (2, 8, 9)):
        with pytest.raises(InvdiffError, match=r"channels|9 x 8"):
            A.y_shape(wrong)
    each = blur(EACH[:, :1], (9, 8), boundary)
    assert each.y_shape((5, 9, 8))[0] == 5
    with pytest.raises(InvdiffError, match="any number of channels"):
        each.y_shape((2, 4, 9, 8))
    for wrong_kernel in (EACH[None], EACH[0, 0, 0], torch.zeros(2, 3, 3), EACH[:, :0]):
        with pytest.raises(InvdiffError, match="kernel"):
            blur(wrong_kernel, (9, 8), boundary)
    cancelling = EACH[0].clone()
    cancelling[1] = torch.tensor([[1.0, -1.0, 0.0]])
    with pytest.raises(InvdiffError, match="sum to 0"):
        blur(cancelling, (9, 8), boundary)


def test_constants_pass() -> None:
    ones = torch.ones(1, 1, 12, 11, dtype=torch.float64)
    for boundary in ("circular", "reflect", "mirror", "replicate"):
        for kernel in (gaussian_kernel(2), motion_kernel(9, 25)):
            same(blur(kernel, (12, 11), boundary)(ones), ones)


def test_circular_solve_is_the_wiener_filter() -> None:
    """Against a dense solve, and the same through the Hartley modes."""
    A = CircularBlur(motion_kernel(5, 20), (8, 7))
    eye = torch.eye(56, dtype=torch.float64).reshape(56, 1, 8, 7)
    a = A(eye).flatten(1).T
    b = torch.randn(3, 1, 8, 7, dtype=torch.float64)
    dense = torch.linalg.solve(a.T @ a + 0.03 * torch.eye(56).double(), b.flatten(1).T).T
    same(A.solve(b, 0.03).flatten(1), dense, 1e-11)
    same(A.V(A.Vt(b) / (A.s**2 + 0.03)), A.solve(b, 0.03), 1e-11)


@pytest.mark.parametrize(
    "kernel",
    [
        torch.ones(3),
        torch.ones(0, 3),
        torch.tensor([[1.0, -1.0]]),
        torch.tensor([[1.0, float("nan")]]),
        torch.ones(2, 2, dtype=torch.complex64),
    ],
)
def test_bad_kernels(kernel: torch.Tensor) -> None:
    for make in (check_kernel, lambda k: blur(k, (5, 5)), lambda k: CircularBlur(k, (5, 5))):
        with pytest.raises(InvdiffError):
            make(kernel)


def test_errors_are_sentences() -> None:
    kernel = gaussian_kernel(1)
    with pytest.raises(InvdiffError, match="known are circular, reflect, mirror, unknown, zero"):
        blur(kernel, (5, 5), "periodic")
    with pytest.raises(InvdiffError, match="known are reflect, mirror, zero, unknown"):
        Blur(kernel, (5, 5), "circular")
    for boundary in ("circular", "reflect", "mirror", "zero"):
        for k in (kernel, motion_kernel(5, 30)):
            with pytest.raises(InvdiffError, match=r"5 x 4 pixels, found .*\(3, 6, 4\)"):
                blur(k, (5, 4), boundary).y_shape((3, 6, 4))
    for size in ((5,), (5, 0), (5.5, 4), (1, 2, 3)):
        with pytest.raises(InvdiffError, match="size"):
            CircularBlur(kernel, size)  # type: ignore[arg-type]
    finite = "sigma must be a finite"
    for sigma, words in ((0, "width"), (-1, "width"), (math.nan, finite), (math.inf, finite)):
        with pytest.raises(InvdiffError, match=words):
            gaussian_kernel(sigma)
    with pytest.raises(InvdiffError, match="length"):
        motion_kernel(0.5, 0)


def test_no_tap_of_a_kernel_is_lost() -> None:
    """A 9-tap uniform and a 5-tap Gaussian blur act with all their taps, and keep brightness.

    The operators of the official DDRM code leave the last tap out, so that a 9-tap mean becomes 8
    taps that sum to 8/9 = 0.889, and 5 Gaussian taps become 4 that sum to 0.802.
    """
    gauss = torch.exp(-(torch.arange(-2, 3).double() ** 2) / 200)
    for taps, lost in ((torch.ones(9).double() / 9, 0.889), (gauss / gauss.sum(), 0.802)):
        n = len(taps)
        assert float(taps[:-1].sum()) == pytest.approx(lost, abs=5e-4)
        kernel = torch.outer(taps, taps)
        for A in (
            SeparableBlur(taps, taps, (21, 20), "zero"),
            Blur(kernel, (21, 20), "zero"),
            CircularBlur(kernel, (21, 20)),
        ):
            x = torch.zeros(1, 1, 21, 20).double()
            x[0, 0, 10, 9] = 1
            point = torch.zeros(21, 20).double()
            point[10 - n // 2 : 11 + n // 2, 9 - n // 2 : 10 + n // 2] = kernel
            same(A(x)[0, 0], point)
            same(A(torch.ones_like(x))[0, 0, 10, 9], torch.ones(()).double())


@pytest.mark.parametrize("size", [(24, 24), (48, 30), (128, 96)])
def test_one_grey_picture_is_filtered_as_several_are(size):
    """MKL transforms a single one otherwise on some processors."""
    x = torch.randn(4, 1, *size, generator=torch.Generator().manual_seed(0))
    blur = CircularBlur(gaussian_kernel(1.0), size)
    noise = StationaryGaussian((0.1, 0.3, 0.5), ((0.9, 0.5, 0.2),))
    for apply in (blur, blur.adjoint, noise.colour, noise.whiten):
        assert torch.equal(apply(x[:1]), apply(x)[:1])
