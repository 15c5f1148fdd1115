"""Phase retrieval, saturation and nonlinear blur against plain loops, and what they cannot tell."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch import Tensor

from helpers import seeded
from invdiff.core import InvdiffError
from invdiff.operators import HDR, CodedDiffraction, NonlinearBlur, Operator, PhaseRetrieval
from invdiff.operators import resolve_ambiguity as resolved
from invdiff.operators.nonlinear_blur import linear_light, response


def near(a: Tensor, b: Tensor, tol: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tol)


def assert_slope(A: Operator, x: Tensor, tol: float = 1e-7) -> None:
    """<A'(x) d, v> = <d, vjp(x, v)>, the left side by central differences (error h^2, eps / h)."""
    d, h = seeded(*x.shape, seed=21), 1e-5
    v = seeded(*A(x).shape, seed=22)
    slope = (A(x + h * d) - A(x - h * d)) / (2 * h)
    left, right = (slope * v).sum(), (d * A.vjp(x, v)).sum()
    assert abs(left - right) < tol * slope.norm() * v.norm()


# ---- phase retrieval


def dft_magnitudes(image: list[list[complex]]) -> list[list[float]]:
    """|sum_ij x[i, j] exp(-2 pi i (u (i - ci) / H + w (j - cj) / W))| / sqrt(H W), centred."""
    H, W = len(image), len(image[0])
    found = []
    for u in range(-(H // 2), H - H // 2):
        row = []
        for w in range(-(W // 2), W - W // 2):
            total = 0j
            for i in range(H):
                for j in range(W):
                    turn = u * (i - H // 2) / H + w * (j - W // 2) / W
                    total += image[i][j] * cmath.exp(-2j * math.pi * turn)
            row.append(abs(total) / math.sqrt(H * W))
        found.append(row)
    return found


@pytest.mark.parametrize("unit_range", [False, True])
def test_phase_retrieval_is_its_formula(unit_range):
    A, x = PhaseRetrieval(oversample=2.0, unit_range=unit_range), seeded(2, 2, 8, 5)
    y = A(x)
    assert y.shape == (2, 2, 12, 7)  # int(2 / 8 * 8) = 2 and int(2 / 8 * 5) = 1 on each side
    for b in range(2):
        for c in range(2):
            padded = [[0.0] * 7 for _ in range(12)]
            for i in range(8):
                for j in range(5):
                    value = float(x[b, c, i, j])
                    padded[2 + i][1 + j] = (value + 1) / 2 if unit_range else value
            near(y[b, c], torch.tensor(dft_magnitudes(padded), dtype=torch.float64))


def test_the_field_is_centred():
    """Up to the sign of the phase, which the magnitude forgets: a centred point has phase 0."""
    x = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    x[..., 4, 4] = 1
    z = PhaseRetrieval(oversample=4.0).field(x)
    near(z, torch.full_like(z, 1 / 16))


@pytest.mark.parametrize(("oversample", "side"), [(2.0, 384), (4.0, 512), (0.0, 256), (2.1, 390)])
def test_oversampling_pads_as_published(oversample, side):
    assert PhaseRetrieval(oversample).y_shape((3, 256, 256)) == (3, side, side)
    assert oversample != 2.0 or side**2 / 256**2 == 2.25


def test_energy_is_kept():
    """The transform is orthonormal: |y| = |x|."""
    x = seeded(2, 3, 9, 6)
    near(PhaseRetrieval()(x).flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_is_finite_where_the_magnitude_is_0(dtype):
    A = PhaseRetrieval()
    v = seeded(1, 1, 12, 12, dtype=dtype)
    assert not A.vjp(torch.zeros(1, 1, 8, 8, dtype=dtype), v).any()
    # zero at some frequencies only: columns of alternating sign have no mean
    flat = torch.ones(1, 1, 8, 8, dtype=dtype)
    flat[..., 1::2] = -1
    A = PhaseRetrieval(oversample=0.0)
    assert (A(flat) == 0).any() and (A(flat) > 0).any()
    v = seeded(1, 1, 8, 8, dtype=dtype)
    assert torch.isfinite(A.vjp(flat, v)).all() and A.vjp(flat, v).any()
    tiny = A.vjp(torch.full_like(flat, torch.finfo(dtype).tiny), v)
    assert torch.isfinite(tiny).all()


def test_slopes_of_phase_retrieval():
    x = seeded(2, 2, 8, 6)
    assert_slope(PhaseRetrieval(), x)
    assert_slope(PhaseRetrieval(unit_range=True), x)
    assert_slope(CodedDiffraction.random((8, 6), 3, seed=0), x)
    with pytest.raises(AssertionError):
        assert_slope(WrongSlope(), x)


class WrongSlope(PhaseRetrieval):
    """Negative twin: the transpose without the phase."""

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return v[..., 2:-2, 1:-1]


def test_what_a_magnitude_cannot_tell_is_undone_for_scoring():
    x = seeded(2, 3, 8, 8)
    x[..., 0, :] = x[..., -1, :] = x[..., 0] = x[..., -1] = 0  # an empty border allows a shift
    A = PhaseRetrieval()
    moved = x.roll((1, -1), (-2, -1))
    other = torch.stack([-x[:, 0], x[:, 1].flip(-2, -1), -moved[:, 2]], dim=1)
    near(A(other), A(x))
    assert torch.equal(resolved(other, x, shift=1), x)
    assert not torch.equal(resolved(other, x), x)
    assert not torch.equal(resolved(other, x, sign=False, shift=1), x)
    assert torch.equal(resolved(x, x), x)
    assert torch.equal(resolved(0 * x, x), 0 * x)


def test_resolving_never_makes_the_error_larger():
    x, reference = seeded(4, 3, 6, 5), seeded(4, 3, 6, 5, seed=1)
    errors = [((z - reference) ** 2).sum((-2, -1)) for z in (resolved(x, reference, shift=1), x)]
    assert (errors[0] <= errors[1]).all() and (errors[0] < errors[1]).any()


def test_coded_diffraction_is_its_formula():
    A, x = CodedDiffraction.random((6, 5), 3, seed=4), seeded(2, 2, 6, 5)
    y = A(x)
    assert y.shape == (2, 2, 3, 6, 5) == (2, *A.y_shape((2, 6, 5)))
    assert set(A.masks.flatten().tolist()) == {1, 1j, -1, -1j}
    for k in range(3):
        image = (A.masks[k].to(torch.complex128) * x[1, 0]).tolist()
        near(y[1, 0, k], torch.tensor(dft_magnitudes(image), dtype=torch.float64))


def test_masks_tell_what_one_magnitude_cannot():
    x = seeded(1, 1, 8, 8)
    A, one = CodedDiffraction.random((8, 8), 2, seed=0), CodedDiffraction(torch.ones(1, 8, 8))
    near(A(-x), A(x))
    assert (A(x.flip(-2, -1)) - A(x)).abs().max() > 0.1
    near(one(x.flip(-2, -1)), one(x))


def test_a_mask_depends_on_its_own_seed_alone():
    three, two = (CodedDiffraction.random((6, 5), n, seed=7).masks for n in (3, 2))
    assert torch.equal(three[:2], two)
    assert torch.equal(three[1:], CodedDiffraction.random((6, 5), 2, seed=8).masks)
    assert not torch.equal(three[0], three[1])


# ---- saturation


def test_hdr_is_its_formula():
    x = torch.tensor([-0.9, -0.5, -0.25, 0.0, 0.3, 0.5, 0.50001, 0.8])
    y = torch.tensor([-1.0, -1.0, -0.5, 0.0, 0.6, 1.0, 1.0, 1.0])
    near(HDR()(x), y, 1e-7)
    assert torch.equal(HDR(1.0)(x), x)
    assert HDR().vjp(x, torch.ones(8)).tolist() == [0, 2, 2, 2, 2, 2, 0, 0]


def test_the_gradient_of_hdr_is_the_derivative():
    x, v = seeded(2, 3, 5, 4), seeded(2, 3, 5, 4, seed=1)
    assert torch.equal(HDR(1.7).vjp(x, v), Operator.vjp(HDR(1.7), x, v))
    assert_slope(HDR(), x)


def test_saturation_hides_an_error():
    """What the docstring says of saturated pixels: (truth, estimate) to the misfit's pull."""
    A = HDR()
    truth, x = torch.tensor([0.9, 0.9, 0.1, 0.1]), torch.tensor([0.3, 0.7, 0.7, 0.2])
    pull = A.vjp(x, A(truth) - A(x))
    assert pull[0] > 0 and pull[1] == 0 and pull[2] == 0 and pull[3] < 0
    assert A(truth)[2] != A(x)[2]  # its misfit is not 0, yet nothing pulls
    all_pull = HDR(straight_through=True).vjp(x, A(truth) - A(x))
    assert all_pull[0] > 0 and all_pull[1] == 0 and all_pull[2] < 0 and all_pull[3] < 0
    assert torch.equal(HDR(straight_through=True)(x), A(x))


# ---- nonlinear blur


def test_nonlinear_blur_is_its_formula():
    """With plain loops, from the public pieces: the kernels and the network's choice."""
    A, x = NonlinearBlur(seed=3, radius=2, kernels=3), seeded(1, 2, 6, 5) * 0.5
    w, y = A.choice(x), A(x)
    for c in range(2):
        for i in range(6):
            for j in range(5):
                light = 0.0
                for k in range(3):
                    moved = 0.0
                    for u in range(-2, 3):
                        for v in range(-2, 3):
                            at = (min(max(i - u, 0), 5), min(max(j - v, 0), 4))
                            z = float(x[0, c, *at])
                            moved += float(A.bank[k, 0, 2 + u, 2 + v]) * (z + math.hypot(z, 0.5))
                    light += float(w[0, k, i, j]) * moved
                assert float(y[0, c, i, j]) == pytest.approx(light / 2 - 1 / (8 * light), abs=1e-12)


def test_kernels_and_choices_are_means():
    A = NonlinearBlur()
    assert A.bank.shape == (6, 1, 17, 17) and (A.bank >= 0).all()
    near(A.bank.sum((1, 2, 3)), torch.ones(6, dtype=torch.float64))
    x = seeded(2, 3, 20, 20)
    w = A.choice(x)
    assert w.shape == (2, 6, 20, 20) and (w > 0).all()
    near(w.sum(1), torch.ones(2, 20, 20, dtype=torch.float64))
    y = A(x)
    assert x.min() < y.min() and y.max() < x.max()
    near(A(torch.full_like(x, 0.3)), torch.full_like(x, 0.3))


def test_the_choice_depends_on_the_image_and_on_the_code():
    x = seeded(1, 3, 16, 16) * 0.5
    A = NonlinearBlur(seed=1)
    assert (A.choice(x) - A.choice(-x)).abs().max() > 0.1
    even = NonlinearBlur(seed=1, contrast=0.0)
    near(even.choice(x), torch.full_like(even.choice(x), 1 / 6))
    assert (A(x) - NonlinearBlur(seed=2)(x)).abs().max() > 0.05
    double = response(linear_light(A(x)) + linear_light(A(-x)))
    assert (double - response(2 * linear_light(A(x * 0)))).abs().max() > 0.05


def test_one_code_for_good():
    """A kernel that is drawn anew at each call makes the guidance see another operator than y."""
    x = seeded(2, 3, 16, 16) * 0.5
    A = NonlinearBlur(seed=5)
    y = A(x)
    assert torch.equal(A(x), y)
    near(NonlinearBlur(seed=5)(x), y, 0)
    assert not (y - A(x)).any() and not A.vjp(x, y - A(x)).any()


def test_slopes_of_the_nonlinear_blur():
    assert_slope(NonlinearBlur(radius=3), seeded(2, 3, 12, 10) * 0.5)
    assert_slope(NonlinearBlur(radius=3), seeded(2, 3, 12, 10) * 5)


def test_the_response_is_the_inverse_of_linear_light_and_like_a_display():
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)
    near(response(linear_light(x)), x, 1e-13)
    unit = torch.linspace(-1, 1, 201, dtype=torch.float64)
    light = linear_light(unit)
    curve = (light - light[0]) / (light[-1] - light[0])
    gap = (curve - ((unit + 1) / 2) ** 2.2).abs().max()
    assert 0.02 < gap < 0.03


def test_far_from_the_range_nothing_overflows():
    """Guided estimates leave [-1, 1]; nothing is clamped and nothing breaks."""
    x = seeded(1, 3, 12, 12, dtype=torch.float32) * 1e3
    A = NonlinearBlur(radius=3)
    assert torch.isfinite(A(x)).all() and torch.isfinite(A.vjp(x, x)).all()
    assert A(x).abs().max() > 10


# ---- errors


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: PhaseRetrieval(-1.0),
            "Oversampling is a number of 0 or more, 64 at most, found -1.0",
        ),
        (lambda: PhaseRetrieval().y_shape((8, 8)), "(channels, height, width), found (8, 8)"),
        (lambda: CodedDiffraction(torch.ones(4, 4)), "(masks, height, width), found (4, 4)"),
        (lambda: CodedDiffraction.random((4, 4), 0, 0), "At least 1 diffraction mask"),
        (
            lambda: CodedDiffraction(torch.ones(2, 4, 4)).y_shape((3, 4, 5)),
            "images of 4 x 4, found images of 4 x 5",
        ),
        (lambda: resolved(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 5)), "one shape"),
        (lambda: HDR(0.0), "A gain is a finite number above 0, found 0.0"),
        (lambda: NonlinearBlur(radius=0), "a radius and a number of kernels of 1 or more"),
        (lambda: NonlinearBlur().y_shape((1, 2, 8, 8)), "found (1, 2, 8, 8)"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_errors_are_sentences(make, words):
    with pytest.raises(InvdiffError) as error:
        make()
    assert words in str(error.value) and str(error.value).endswith(".")
