"""Operators times numbers, added and transposed: what they measure, their rung, their errors."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import invdiff.operators as ops
from invdiff.core import InvdiffError
from invdiff.core.encode import decode, encode
from invdiff.core.schedules import VP
from invdiff.noise import NOISELESS, DiagonalGaussian, GaussianNoise
from invdiff.operators import Linear, Operator
from invdiff.operators.algebra.krylov import largest_singular_value
from invdiff.priors.gaussian import GaussianMixture
from invdiff.problem import Problem
from invdiff.sampling.needs import Need, offers
from invdiff.sampling.run import solve
from invdiff.solvers.ddrm import DDRM

torch.set_num_threads(1)
SIZE = (6, 5)
GREY = (1, *SIZE)
KERNEL = torch.tensor([[0.0, 0.2, 0.0], [0.1, 0.5, 0.3], [0.0, 0.0, 0.1]], dtype=torch.float64)
BLUR = ops.Blur(KERNEL, SIZE)
ROUND = ops.CircularBlur(KERNEL, SIZE)
MASK = ops.Inpaint.random(SIZE, 0.5, seed=1)
HDR = ops.HDR()


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def same(a: Tensor, b: Tensor, tol: float = 1e-13) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tol)


X = random(2, *GREY)


@pytest.mark.parametrize("A", [BLUR, ROUND, MASK, ops.JPEG(50), HDR, ops.affine(BLUR, 2.0, 0.5)])
def test_numbers(A: Operator) -> None:
    """Every way of writing it, with numbers of Python, NumPy and torch."""
    x = X.clamp(-1, 1)
    for found in (2 * A, A * 2, A / 0.5, np.float64(2) * A, torch.tensor(2.0) * A, A * np.int64(2)):
        same(found(x), 2 * A(x))
    same((-A)(x), -A(x))
    minus = -A
    assert -minus is A or isinstance(A, ops.Affine)
    same((A / 3 * 3)(x), A(x))


RUNGS = [
    (ROUND, ops.ScaledSpectral),
    (BLUR, ops.Scaled),
    (ops.Quantize(5), ops.ScaledPseudoInvertible),
    (HDR, ops.ScaledOperator),
    (ops.affine(ROUND, 1.0, 2.0), ops.Affine),
    (MASK @ BLUR, ops.ComposedLinear),
    (ops.JPEG(50) @ MASK, ops.ComposedPseudoInvertible),
    (HDR @ MASK, ops.Composed),
    (ops.Decoded(MASK, HDR, ops.Identity()), ops.Decoded),
    (ops.DecodedLinear(MASK, BLUR, ops.Identity()), ops.DecodedLinear),
]


@pytest.mark.parametrize(("A", "kind"), RUNGS)
def test_solvers_see_the_same_needs_of_a_multiple(A: Operator, kind: type[Operator]) -> None:
    """A factor takes nothing away and adds nothing."""

    def offered(A: Operator) -> frozenset[Need]:
        y = torch.zeros(1, *A.y_shape(GREY))
        noise = GaussianNoise(0.1) if A.differentiable else NOISELESS
        return offers(Problem(y, A, noise, GREY))

    for found in (-3 * A, A / 7):
        assert type(found) is kind
        assert offered(found) == offered(A)
    assert 2 * (3 * A) is not A and type(2 * (3 * A)) is kind


def test_only_the_cells_of_a_file_are_lost() -> None:
    """A solver that reads the cells of a JPEG takes the JPEG itself."""
    y = torch.zeros(1, *GREY)
    whole, twice = (
        offers(Problem(y, A, NOISELESS, GREY)) for A in (ops.JPEG(50), 2 * ops.JPEG(50))
    )
    assert whole - twice == {Need.CELLS} and not twice - whole


def test_an_approximate_inverse_stays_accepted() -> None:
    A = ops.ComposedPseudoInvertible(MASK, ops.JPEG(50), approximate=True)
    problem = Problem(torch.zeros(1, *GREY), 2 * A, NOISELESS, GREY)
    assert Need.GENERALISED_INVERSE in offers(problem)
    refused = ops.ComposedPseudoInvertible(MASK, ops.JPEG(50))
    problem = Problem(torch.zeros(1, *GREY), 2 * refused, NOISELESS, GREY)
    assert Need.GENERALISED_INVERSE not in offers(problem)


@pytest.mark.parametrize("A", [ops.Identity(), MASK, ops.Weighted(X[:1].abs())])
def test_whitening_keeps_the_decomposition_of_a_multiple(A: Linear) -> None:
    noise = DiagonalGaussian(0.1 + X[:1].abs())
    y = A(X[:1])
    assert Need.SVD in offers(Problem(y, A, noise, GREY))
    assert Need.SVD in offers(Problem(-2 * y, -2 * A, noise, GREY))
    assert Need.SVD not in offers(Problem(y, A + 0.1 * ROUND, noise, GREY))


ADDED = [
    (BLUR + ROUND, ops.SummedLinear, Need.PINV, Need.SVD),
    (ROUND - 0.5 * ROUND, ops.ScaledSpectral, Need.SVD, None),
    (ops.Identity() + ops.Identity(), ops.ScaledSpectral, Need.SVD, None),
    (BLUR + MASK - BLUR, ops.Inpaint, Need.SVD, None),
    (BLUR + HDR, ops.Summed, Need.OPERATOR_VJP, Need.LINEAR),
    (BLUR + ops.JPEG(50), ops.Summed, None, Need.OPERATOR_VJP),
    (ops.affine(BLUR, 1.0, 0.5) + ROUND, ops.Affine, Need.OPERATOR_VJP, Need.LINEAR),
    (BLUR.T, ops.Transposed, Need.PINV, Need.SVD),
    (MASK.T, ops.TransposedSpectral, Need.PINV, Need.SVD),
    (ROUND.T @ ROUND, ops.ComposedLinear, Need.PINV, Need.SVD),
]


@pytest.mark.parametrize(("A", "kind", "has", "lacks"), ADDED)
def test_needs_of_sums_and_transposes(
    A: Operator, kind: type[Operator], has: Need | None, lacks: Need | None
) -> None:
    assert type(A) is kind
    found = offers(Problem(torch.zeros(1, *A.y_shape(GREY)), A, NOISELESS, GREY))
    assert has is None or has in found
    assert lacks is None or lacks not in found


def test_sums_measure_the_sum() -> None:
    same((BLUR + ROUND - 3 * MASK)(X), BLUR(X) + ROUND(X) - 3 * MASK(X))
    same((BLUR + HDR)(X), BLUR(X) + HDR(X))
    same((HDR - BLUR).vjp(X, X), HDR.vjp(X, X) - BLUR.adjoint(X))
    same(sum([BLUR, ROUND, HDR])(X), BLUR(X) + ROUND(X) + HDR(X))  # type: ignore[operator]
    A = ops.affine(BLUR, 2.0, 0.5) - ops.affine(ROUND, 1.0, 2.0)
    assert isinstance(A, ops.Affine) and isinstance(A.linear, Linear)
    same(A(X), 2 * BLUR(X) + 0.5 - ROUND(X) - 2)
    terms = ((BLUR + ROUND) + (MASK + 2 * BLUR)).terms  # type: ignore[attr-defined]
    assert [type(t) for t in terms] == [ops.Scaled, ops.CircularBlur, ops.Inpaint]


def test_what_no_term_measures_is_never_read() -> None:
    left, right = (ops.Inpaint.box(SIZE, 0, at, 6, 3) for at in (0, 2))
    y = (left + right)(X)
    hole = (left.mask == 0) & (right.mask == 0)
    assert bool(hole.any())
    torn = torch.where(hole, torch.nan, y)
    problem = Problem(torn, left + right, GaussianNoise(0.1), GREY)
    same(problem.y, y)
    with pytest.raises(InvdiffError, match="NaN"):
        Problem(torn, left + ops.Identity(), GaussianNoise(0.1), GREY)


def test_iterations_stay_bounded() -> None:
    """An early stop is part of a method: it survives factors, sums and transposition."""
    A = ops.Radon((0.0, 50.0), SIZE, cg_iterations=3)
    for found in (2 * A, A + ops.Radon((0.0, 60.0), SIZE), A.T, ops.Identity() @ (2 * A)):
        assert found.cg_iterations == 3  # type: ignore[attr-defined]
    y = A(X)
    same((2 * A).pinv(2 * y), A.pinv(y))
    other = ops.Radon((0.0, 50.0), SIZE)
    assert float((other.pinv(y) - A.pinv(y)).abs().max()) > 1e-6


@pytest.mark.parametrize("A", [BLUR, ROUND, MASK, ops.Bicubic(2, SIZE), 2 * BLUR, BLUR + ROUND])
def test_transposed_twice(A: Linear) -> None:
    assert A.T.T is A
    y = random(2, *A.y_shape(GREY), seed=3)
    same(A.T(y), A.adjoint(y))
    same(A.T.adjoint(X), A(X))
    assert A.T.y_shape(A.y_shape(GREY)) == GREY
    assert A.T.norm() == A.norm()


def test_identity_is_its_own_transpose() -> None:
    assert isinstance(ops.Identity().T, ops.Identity)


def test_sqrt_of_a_normal_operator() -> None:
    """|A^T A| = |A|^2, of complex measurements too."""
    sense = ops.Sense(ops.ring_maps(3, SIZE), ops.equispaced(SIZE, 2.0))
    for A in (BLUR, sense):
        assert (A.T @ A).norm(tol=1e-9) == pytest.approx(A.norm(tol=1e-9) ** 2, rel=4e-9)


def test_norms_of_what_has_a_decomposition_are_exact() -> None:
    assert ops.Identity().norm() == MASK.norm() == 1
    assert (-3 * MASK).norm() == 3
    assert ops.AveragePool(4, (8, 8)).norm() == pytest.approx(0.25, rel=1e-14)
    assert ops.Grayscale((0.3, 0.4, 1.2)).norm() == pytest.approx(1.3, rel=1e-14)
    assert ops.Mixed(torch.tensor([[0.0, 2.0], [1.0, 0.0]])).norm() == 2
    assert ops.affine(MASK, -2.0, 5.0).norm() == 2


def test_norm_of_rays() -> None:
    """A / A.norm() has norm 1, and the norm is the same again: nothing is drawn."""
    A = ops.Radon(ops.sparse_view(9), (32, 32), pixel=3.0)
    assert A.norm() == A.norm()
    eye = torch.eye(32 * 32, dtype=torch.float64).reshape(-1, 1, 32, 32)
    want = float(torch.linalg.matrix_norm(A(eye).flatten(1), 2))
    assert A.norm() == pytest.approx(want, rel=1e-4)
    assert (A / A.norm()).norm(tol=1e-9) == pytest.approx(1, rel=1e-4)


def test_an_early_stop_of_the_iteration_is_seen() -> None:
    """Negative twin: of an operator with close singular values, 3 iterations are not enough."""
    weights = torch.linspace(0.1, 1, 400, dtype=torch.float64).reshape(1, 1, 20, 20)
    A = ops.Weighted(weights)
    short = largest_singular_value(A, (1, 20, 20), iterations=3)
    assert short < 0.999 and largest_singular_value(A, (1, 20, 20)) == pytest.approx(1, rel=1e-4)
    assert largest_singular_value(ops.ComposedLinear(MASK, MASK), GREY) == pytest.approx(1)


class Nothing(Linear):
    def __call__(self, x: Tensor) -> Tensor:
        return 0 * x

    adjoint = __call__


def test_an_operator_that_measures_nothing() -> None:
    assert Nothing().norm(GREY) == 0
    with pytest.raises(InvdiffError, match="not 0, found 0"):
        Nothing() / Nothing().norm(GREY)


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "zero": (lambda: 0 * BLUR, "not 0, found 0"),
    "by zero": (lambda: BLUR / 0, "divided by a finite number"),
    "nan": (lambda: float("nan") * BLUR, "factor must be a finite number"),
    "text": (lambda: BLUR * "2", "factor must be a number"),  # type: ignore[operator]
    "complex": (lambda: 1j * BLUR, "factor must be a number"),  # type: ignore[operator]
    "bool": (lambda: True * BLUR, "factor must be a number"),
    "underflow": (lambda: 1e-200 * (1e-200 * BLUR), "not 0, found 0"),
    "overflow": (lambda: 1e200 * (1e200 * BLUR), "must be a finite number"),
    "array": (lambda: np.ones(3) * BLUR, r"shape \(3,\); Weighted"),
    "tensor": (lambda: BLUR * torch.ones(2, 2), r"shape \(2, 2\); Weighted"),
    "product": (lambda: BLUR * ROUND, "A @ B"),  # type: ignore[operator]
    "number added": (lambda: BLUR + 3, "found int; a number"),  # type: ignore[operator]
    "array added": (lambda: np.ones(3) - BLUR, "found ndarray"),
    "tensor added": (lambda: torch.ones(3) + BLUR, "found Tensor"),
    "none subtracted": (lambda: BLUR - None, "found NoneType"),  # type: ignore[operator]
    "cancelled": (lambda: BLUR - BLUR, "cancel"),
    "shapes": (lambda: (BLUR + ops.AveragePool(2, SIZE)).y_shape(GREY), r"\(1, 6, 5\) and \(1, 3"),
    "shapes of arrays": (lambda: (ops.Grayscale() + ops.Identity())(X.expand(2, 3, 6, 5)), "stack"),
    "sizes": (lambda: (BLUR + ops.Blur(KERNEL, (5, 6))).y_shape(GREY), "5 x 6 pixels"),
    "kinds": (lambda: (ops.RealFourier(MASK.mask) + BLUR)(X), "complex"),
    "transpose": (lambda: BLUR.T.y_shape((1, 4, 4)), "transpose of Blur takes"),
    "transpose of a mask": (lambda: MASK.T.y_shape((3, 2)), "transpose of Inpaint takes"),
    "norm without a shape": (lambda: (Nothing() + ops.Identity()).norm(), "A.norm"),
    "norm of another shape": (lambda: BLUR.norm((1, 3, 3)), "6 x 5 pixels"),
    "shape that is none": (lambda: BLUR.norm(6), "shape of an image must be a tuple"),  # type: ignore[arg-type]
    "tolerance of 0": (lambda: BLUR.norm(tol=0), "above 0 and below 1"),
    "tolerance in words": (lambda: BLUR.norm(tol="a"), "tol must be a number"),  # type: ignore[arg-type]
    "norm of a curve": (lambda: HDR.norm(), "HDR is not linear"),
    "no terms": (lambda: ops.SummedLinear(()), "at least one"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_makes_no_sense_is_one_sentence(name: str) -> None:
    make, words = WRONG[name]
    with pytest.raises(InvdiffError, match=words) as error:
        make()
    assert 20 < len(str(error.value)) < 300 and "\n" not in str(error.value)


WRITTEN = [-2.5 * MASK, BLUR / 3, BLUR + 0.1 * ROUND, 2 * ops.Quantize(4), HDR - 2 * BLUR, BLUR.T]


@pytest.mark.parametrize("A", [*WRITTEN, MASK.T, (MASK + BLUR).T @ ROUND, 0.1 * HDR])
def test_run_json_keeps_them(A: Operator) -> None:
    tensors: dict[str, Tensor] = {}
    again = decode(json.loads(json.dumps(encode(A, tensors, "A"))), tensors)
    assert type(again) is type(A)
    assert torch.equal(again(X), A(X))


def test_older_files_are_read() -> None:
    """The module in which factors stood, and the field T of operators along time."""
    base = {"type": "invdiff.operators.spectral:Identity", "fields": {}}
    for name in ("Scaled", "ScaledSpectral"):
        form = {"type": f"invdiff.operators.algebra:{name}", "fields": {"base": base, "scale": 2.0}}
        assert type(decode(form, {})) is getattr(ops, name)
    frames = {"type": "invdiff.operators.video:Frames", "fields": {"indices": [2, 0], "T": 3}}
    pool = {"type": "invdiff.operators.video:TemporalPool", "fields": {"factor": 2, "T": 4}}
    assert decode(frames, {}).y_shape((1, 3, 2, 2)) == (1, 2, 2, 2)
    assert decode(pool, {}).y_shape((1, 4, 2, 2)) == (1, 2, 2, 2)


def test_a_multiple_is_the_same_problem() -> None:
    """y, A and the level of noise times one factor: DDRM makes the same samples."""
    prior = GaussianMixture((1.0,), torch.zeros(1, *GREY), torch.full((1,), 0.5))
    A, noise, factor = ROUND, 0.1, -4.0
    y = A(X[:1]) + noise * random(1, *GREY, seed=5)
    found = [
        solve(
            Problem(y * c, B, GaussianNoise(noise * abs(c)), GREY), prior, DDRM(schedule=VP(8)), 2
        ).samples
        for B, c in ((A, 1.0), (factor * A, factor))
    ]
    same(found[0], found[1], 1e-9)
