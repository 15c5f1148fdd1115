"""Uniform quantisation, against plain loops; and which compositions keep a generalised inverse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import invdiff.operators as ops
from helpers import seeded
from invdiff.core import InvdiffError
from invdiff.noise import NOISELESS
from invdiff.problem import Problem


def by_hand(x: float, levels: int, value: str) -> float:
    index = min(max(math.floor((x + 1) / 2 * levels), 0), levels - 1)
    return -1 + 2 * (index + (0.5 if value == "centre" else 0.0)) / levels


@pytest.mark.parametrize("value", ["centre", "lower"])
@pytest.mark.parametrize("levels", [2, 3, 8, 10, 256])
def test_the_formula(levels: int, value) -> None:
    x = 1.2 * seeded(200)
    got = ops.Quantize(levels, value)(x.reshape(2, 1, 10, 10)).flatten()
    want = torch.tensor([by_hand(float(v), levels, value) for v in x], dtype=torch.float64)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-15)
    assert len(got.unique()) <= levels


def test_the_bins_of_official_codes() -> None:
    """DDRM-JPEG: whole numbers of 255 divided by 32. RED-diff: the nearest of 2^b values."""
    x = torch.linspace(-1, 1, 1001, dtype=torch.float64)[None]
    bytes_ = ((x + 1) / 2 * 255).int() // 32 / (255 / 32) * 2.0 - 1
    torch.testing.assert_close(ops.Quantize(8, "bytes")(x), bytes_.double(), rtol=0, atol=1e-7)
    ends = torch.floor((x + 1) / 2 * 7 + 0.5) / 7 * 2 - 1
    torch.testing.assert_close(ops.Quantize.bits(3, "ends")(x), ends, rtol=0, atol=1e-15)
    assert float((ops.Quantize(8, "lower")(x) - bytes_).abs().max()) > 0.2
    with pytest.raises(InvdiffError, match="6 levels do not"):
        ops.Quantize(6, "bytes")


@pytest.mark.parametrize("value", ["centre", "lower", "bytes", "ends"])
@pytest.mark.parametrize("levels", [*range(2, 40), 255, 256, 999, 65536])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_twice_is_once_bit_for_bit(levels: int, value, dtype: torch.dtype) -> None:
    if value == "bytes" and 256 % levels:
        return
    Q = ops.Quantize(levels, value)
    y = Q(torch.linspace(-1.2, 1.2, 4000, dtype=dtype)[None])
    assert torch.equal(Q(y), y)
    assert torch.equal(Q(Q.pinv(y)), y)


def test_the_centre_is_unbiased_and_the_lower_edge_is_half_a_bin_dark() -> None:
    """Mean error over values that fill all bins evenly."""
    x = (torch.arange(8000, dtype=torch.float64) + 0.5) / 4000 - 1
    centre, lower = (ops.Quantize(8, v)(x[None]) - x for v in ("centre", "lower"))
    assert abs(float(centre.mean())) < 1e-12
    assert float(lower.mean()) == pytest.approx(-1 / 8, abs=1e-12)


def test_values_beyond_the_range_and_on_edges() -> None:
    Q = ops.Quantize(4)
    x = torch.tensor([[-9.0, -1.0, -0.5, 0.0, 0.5, 1.0, 9.0]])
    want = torch.tensor([[-0.75, -0.75, -0.25, 0.25, 0.75, 0.75, 0.75]])
    assert torch.equal(Q(x), want)
    assert torch.equal(ops.Quantize.bits(2)(x), want)


@pytest.mark.parametrize("levels", [1, 0, 2.5, 65537])
def test_a_bad_number_of_levels_is_one_sentence(levels) -> None:
    with pytest.raises(InvdiffError, match=r"whole number from 2 to 65536, found"):
        ops.Quantize(levels)
    with pytest.raises(InvdiffError, match=r"whole number from 1 to 16"):
        ops.Quantize.bits(0)
    with pytest.raises(InvdiffError, match="one of centre, lower, bytes, ends, not upper"):
        ops.Quantize(4, "upper")  # type: ignore[arg-type]


# ---- compositions


RGB = (3, 12, 10)
POOL = ops.AveragePool(2, (12, 10))
HOLE = ops.Inpaint.box((12, 10), 2, 3, 5, 4)
SHARP = torch.tensor([[0.0, 0.1, 0.0], [0.1, 0.6, 0.1], [0.0, 0.1, 0.0]])
INVERTIBLE = ops.CircularBlur(SHARP, (12, 10))
Q = ops.Quantize(5)
COMPOSITIONS: list[tuple[str, ops.Operator, bool]] = [
    ("inner-onto", Q @ POOL, True),
    ("inner-onto-colour", Q @ ops.Grayscale(), True),
    ("inner-affine", Q @ ops.affine(POOL, 0.7, 0.1), True),
    ("outer-one-to-one", INVERTIBLE @ Q, True),
    ("both", INVERTIBLE @ (Q @ INVERTIBLE), True),
    ("inner-with-a-hole", ops.JPEG(20) @ HOLE, False),
    ("outer-loses-pixels", HOLE @ ops.JPEG(20), False),
    ("outer-loses-colour", ops.Grayscale() @ Q, False),
    ("outer-loses-detail", POOL @ Q, False),
    ("two-quantisers", ops.Quantize(3) @ Q, False),
    ("iterative", Q @ ops.Blur(SHARP, (12, 10), "reflect"), False),  # it does not know its rank
]


def gap(A: ops.Operator, dtype: torch.dtype = torch.float64) -> float:
    """max |h(h^+(h(x))) - h(x)| over some images."""
    assert isinstance(A, ops.PseudoInvertible)
    x = 0.4 * seeded(6, *RGB, dtype=dtype)
    z = A(x)
    return float((A(A.pinv(z)) - z).abs().max())


@pytest.mark.parametrize(
    ("A", "consistent"), [c[1:] for c in COMPOSITIONS], ids=[c[0] for c in COMPOSITIONS]
)
def test_which_compositions_have_a_generalised_inverse(A: ops.Operator, consistent: bool) -> None:
    assert isinstance(A, ops.ComposedPseudoInvertible)
    assert A.consistent(RGB) == consistent
    if consistent:
        assert gap(A) < 1e-13


@pytest.mark.parametrize(
    "A", [ops.JPEG(20) @ HOLE, HOLE @ ops.JPEG(20), ops.Grayscale() @ Q, POOL @ Q], ids=str
)
def test_where_it_is_refused_it_does_fail(A: ops.Operator) -> None:
    """Negative twin: the rule does not refuse for nothing."""
    assert gap(A) > 0.05


def test_jpeg_of_a_block_mean_is_as_idempotent_as_jpeg() -> None:
    """The block mean of A^+(y) is y again, up to round-off: what is left is JPEG's own gap."""
    A = ops.JPEG(20) @ POOL
    z = A(0.4 * seeded(6, *RGB))
    torch.testing.assert_close(A(A.pinv(z)), ops.JPEG(20)(z), rtol=0, atol=1e-12)
    assert A.consistent(RGB)


def test_no_composition_claims_a_gradient_that_a_part_lacks() -> None:
    class Cubed(ops.Operator):
        def __call__(self, x: Tensor) -> Tensor:
            return x**3

    assert (Cubed() @ POOL).differentiable and not (Cubed() @ Q).differentiable
    assert not (Q @ POOL).differentiable
    affine = ops.affine(POOL, 0.7, 0.1)
    assert (affine @ ops.affine(INVERTIBLE, 0.5, 0.2)).differentiable
    assert type(Cubed() @ Q) is ops.Composed
    rows = (Q @ ops.Inpaint.random((12, 10), 0.5, 0, batch=2)).rows(torch.tensor([1]))
    assert not rows.differentiable


def test_affine_pinv_takes_the_offset_off() -> None:
    A = ops.affine(POOL, 0.7, 0.1)
    assert isinstance(A, ops.Affine)
    x = seeded(2, *RGB)
    torch.testing.assert_close(A.pinv(A(x)), POOL.pinv(POOL(x)), rtol=0, atol=1e-14)
    assert A.onto(RGB) and not A.one_to_one(RGB)


def test_an_approximate_inverse_runs_when_it_is_accepted() -> None:
    from invdiff.priors.base import Denoiser
    from invdiff.sampling.needs import IncompatibleError
    from invdiff.sampling.run import solve
    from invdiff.solvers import solver_class

    prior = Denoiser(lambda x, sigma: x / (1 + sigma**2))
    for approximate in (False, True):
        A = ops.ComposedPseudoInvertible(HOLE, ops.JPEG(20), approximate)
        problem = Problem(A(0.4 * seeded(1, *RGB)), A, NOISELESS, RGB)
        solver = solver_class("ddrm-jpeg")().with_steps(2)
        if approximate:
            assert solve(problem, prior, solver).samples.isfinite().all()
        else:
            with pytest.raises(IncompatibleError, match="approximate=True accepts"):
                solve(problem, prior, solver)
