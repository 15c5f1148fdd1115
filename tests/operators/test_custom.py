"""Operators of the user's own: what is checked, what bad functions are told, and peers' operators.

The promises of every operator are tested in tests/contract/test_operators.py, which holds some."""

from __future__ import annotations

import importlib
import math
import sys
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from helpers import seeded
from invdiff import dot_test
from invdiff.core import InvdiffError
from invdiff.core.schedules import VP
from invdiff.noise import GaussianNoise
from invdiff.operators import (
    Bicubic,
    FromFunctions,
    Linear,
    Matrix,
    MatrixProduct,
    Operator,
    Sense,
    SparseMatrix,
    fft2c,
    ring_maps,
)
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.needs import Need, offers
from invdiff.sampling.run import solve
from invdiff.solvers.diffpir import DiffPIR
from invdiff.solvers.dps import DPS
from invdiff.solvers.mmps import MMPS

X = (2, 3, 4)
EPS = {d: torch.finfo(d).eps for d in (torch.float32, torch.float64)}
PRIOR = Denoiser(lambda x, sigma: 0.3 * x / (0.3 + sigma**2))


def double(x):
    return 2 * x


def constant(x):
    """A graph in which x does not stand."""
    return torch.ones(len(x), *X, dtype=x.dtype).requires_grad_() * 2


# ---------------------------------------------------------------------------------- the dot test


@pytest.mark.parametrize("dtype", EPS)
def test_the_dot_test_of_an_adjoint_is_round_off(dtype):
    """A sum of n terms is off by some sqrt(n) eps of its size, here n = 144 at most."""
    for A, shape in ((Bicubic(2, (6, 8)), (3, 6, 8)), (Linear.from_matrix(seeded(6, 24), X), X)):
        assert dot_test(A, shape, dtype) < 12 * EPS[dtype]


@pytest.mark.parametrize("scale", [0.99, 1.01, 2.0, -1.0, 0.0])
def test_the_dot_test_shows_a_wrong_scale_in_full(scale):
    """(<A x, v> - c <A x, v>) / size with <A x, v> between 0.4 and 1 of |A x| |v|, whatever n."""
    for shape in ((1, 4, 4), (3, 64, 64)):
        A = Linear.from_functions(double, lambda y: 2 * scale * y, shape, check=False)
        gap = dot_test(A, shape)
        assert 0.4 * abs(1 - scale) / max(1, abs(scale)) < gap < 1.01 * abs(1 - scale)


def test_the_dot_test_of_complex_measurements_and_of_zero():
    A = Linear.from_functions(
        lambda x: fft2c(x.to(x.dtype.to_complex())), lambda y: fft2c(y.conj()).conj().real, X
    )
    assert dot_test(A, X) < 12 * EPS[torch.float64]
    zero = Linear.from_functions(lambda x: 0 * x, lambda y: 0 * y, X)
    assert dot_test(zero, X) == 0


def test_the_dot_test_is_for_linear_operators():
    with pytest.raises(InvdiffError, match="FromFunction has no adjoint"):
        dot_test(Operator.from_function(torch.tanh), X)


def test_a_wrong_adjoint_is_refused_with_its_gap():
    with pytest.raises(InvdiffError, match=r"by \d\.\de-03 of their size, more than 1\.5e-08"):
        Linear.from_functions(double, lambda y: 1.98 * y, X)
    Linear.from_functions(double, lambda y: 1.98 * y, X, tol=0.02)
    assert isinstance(
        Linear.from_functions(double, lambda y: 1.98 * y, X, check=False), FromFunctions
    )


@pytest.mark.parametrize("forward", [lambda x: 2 * x + 1, lambda x: 2 * x * x.abs(), torch.tanh])
def test_what_is_not_linear_has_no_adjoint(forward):
    with pytest.raises(InvdiffError, match="affine"):
        Linear.from_functions(forward, double, X)


def test_nan_is_no_adjoint():
    with pytest.raises(InvdiffError, match="nan"):
        Linear.from_functions(double, lambda y: y * math.nan, X)


# ----------------------------------------------------------------------------- functions of numpy


def test_numpy_functions_get_copies_of_one_image():
    seen = []

    def spoil(x: np.ndarray) -> np.ndarray:
        seen.append(x.shape)
        x += 1
        return 2 * (x - 1)

    A = Linear.from_functions(spoil, double, X, numpy=True, tol=1e-12)
    x = seeded(2, *X)
    kept = x.clone()
    torch.testing.assert_close(A(x), 2 * x, rtol=1e-14, atol=1e-14)
    assert torch.equal(x, kept) and set(seen) == {X}


def test_numpy_functions_keep_the_precision_of_the_image():
    A = Linear.from_functions(
        lambda x: np.float64(2) * x.astype(np.float64), lambda y: 2 * y, X, numpy=True
    )
    assert A(seeded(1, *X, dtype=torch.float32)).dtype == torch.float32


@pytest.mark.parametrize(
    ("adjoint", "word"),
    [(lambda y: y[0], r"an array of \(3, 4\) from one of \(2, 3, 4\)"), (lambda y: None, "object")],
)
def test_a_numpy_adjoint_gives_images(adjoint, word):
    with pytest.raises(InvdiffError, match=word):
        Linear.from_functions(double, adjoint, X, numpy=True)


def test_a_function_that_returns_its_argument():
    A = Linear.from_functions(lambda x: x, lambda y: y, X)
    x = seeded(2, *X).requires_grad_()
    (grad,) = torch.autograd.grad(A(A(x)).square().sum(), x)
    assert torch.equal(grad, 2 * x)


@pytest.mark.parametrize(
    "solver", [DPS(schedule=VP(3)), MMPS(schedule=VP(3)), DiffPIR(schedule=VP(3))]
)
def test_solvers_run_on_numpy_functions_as_on_torch(solver):
    kinds = (torch.cumsum, np.cumsum)
    runs = []
    for f, numpy in zip(kinds, (False, True), strict=True):
        A = Linear.from_functions(
            lambda x, f=f: f(x, -1),
            lambda y, f=f, numpy=numpy: (
                f(y[..., ::-1], -1)[..., ::-1] if numpy else f(y.flip(-1), -1).flip(-1)
            ),
            X,
            numpy=numpy,
        )
        problem = Problem(A(seeded(1, *X)), A, GaussianNoise(0.1), X)
        runs.append(solve(problem, PRIOR, solver).samples)
    torch.testing.assert_close(*runs, rtol=1e-9, atol=1e-9)


def test_a_nonlinear_function_of_numpy_with_its_vjp():
    A = Operator.from_function(np.tanh, lambda x, v: v / np.cosh(x) ** 2, numpy=True)
    B = Operator.from_function(torch.tanh)
    x, v = seeded(2, *X), seeded(2, *X, seed=1)
    torch.testing.assert_close(A(x), B(x))
    torch.testing.assert_close(A.vjp(x, v), B.vjp(x, v), rtol=1e-12, atol=1e-12)
    y = B(seeded(1, *X, seed=2))
    runs = [
        solve(Problem(y, op, GaussianNoise(0.1), X), PRIOR, DPS(schedule=VP(3))) for op in (A, B)
    ]
    torch.testing.assert_close(runs[0].samples, runs[1].samples, rtol=1e-9, atol=1e-9)


def test_a_function_of_numpy_without_vjp_offers_no_gradient():
    y = torch.zeros(1, *X)
    blind = Operator.from_function(np.tanh, numpy=True)
    assert Need.OPERATOR_VJP not in offers(Problem(y, blind, GaussianNoise(0.1), X))
    with pytest.raises(InvdiffError, match="No gradient passes through FromFunction"):
        blind.vjp(y, y)


@pytest.mark.parametrize(
    "f",
    [lambda x: torch.from_numpy(np.tanh(x.numpy())), lambda x: torch.tanh(x.detach()), constant],
)
def test_a_broken_gradient_is_a_sentence(f):
    with pytest.raises(InvdiffError, match="give its vjp, or say differentiable=False"):
        Operator.from_function(f).vjp(seeded(1, *X), seeded(1, *X))
    assert not Operator.from_function(f, differentiable=False).differentiable


def test_other_errors_of_a_function_are_its_own():
    def broken(x):
        raise RuntimeError("the simulator stopped")

    with pytest.raises(RuntimeError, match="the simulator stopped"):
        Operator.from_function(broken).vjp(seeded(1, *X), seeded(1, *X))


@pytest.mark.parametrize(
    ("f", "word"),
    [
        (lambda x: x.mean(), "a batch"),
        (lambda x: x[0], "row by row"),
        (lambda x: [x], "returned list"),
    ],
)
def test_a_function_takes_and_gives_batches(f, word):
    with pytest.raises(InvdiffError, match=word):
        Operator.from_function(f).y_shape((1, 4, 4))
    with pytest.raises(InvdiffError, match=word):
        Linear.from_functions(f, double, (1, 4, 4))


@pytest.mark.parametrize(
    ("adjoint", "word"),
    [
        (lambda y: y[..., 0], "is needed"),
        (lambda y: y + 0j, "complex"),
        (lambda y: 0, "int"),
    ],
)
def test_an_adjoint_gives_images(adjoint, word):
    with pytest.raises(InvdiffError, match=word):
        Linear.from_functions(double, adjoint, X)


def test_images_of_another_shape_are_refused():
    made = (
        Linear.from_functions(double, double, X),
        Linear.from_matrix(seeded(6, 24), X),
        Linear.from_matrix(seeded(6, 24), X, decompose=False),
        Linear.from_matrix(scipy.sparse.eye_array(24), X),
    )
    for A in made:
        with pytest.raises(InvdiffError, match=r"\(2, 3, 4\), found \(1, 3, 4\)"):
            A.y_shape((1, 3, 4))


# --------------------------------------------------------------------------------------- matrices


def test_from_matrix_takes_the_rung_that_the_size_allows():
    wide = torch.zeros(1, 5000)
    for given, kind in (
        (seeded(6, 24), Matrix),
        (seeded(6, 24).numpy(), Matrix),
        (scipy.sparse.coo_array(seeded(6, 24).numpy()), SparseMatrix),
        (seeded(6, 24) * 1j, MatrixProduct),
    ):
        assert type(Linear.from_matrix(given, X)) is kind
    assert type(Linear.from_matrix(wide, (5000,))) is MatrixProduct
    asked = Linear.from_matrix(wide, (5000,), decompose=True)
    assert type(asked) is Matrix and "_svd" not in vars(asked)  # nothing is allocated before use


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, scipy.sparse.csc_matrix])
def test_a_matrix_is_a_matrix_product(kind):
    M = seeded(6, 24).numpy()
    A = Linear.from_matrix(kind(M), X, (3, 2))
    x, y = seeded(2, *X, seed=1), seeded(2, 3, 2, seed=2)
    torch.testing.assert_close(A(x).flatten(1), x.flatten(1) @ torch.from_numpy(M).T)
    torch.testing.assert_close(A.adjoint(y).flatten(1), y.flatten(1) @ torch.from_numpy(M))


@pytest.mark.parametrize(
    ("matrix", "word"),
    [
        (seeded(6, 23), "found 6 x 23"),
        (scipy.sparse.eye_array(23), "found 23 x 23"),
        (torch.full((6, 24), math.nan), "NaN"),
        (scipy.sparse.csr_array(np.full((6, 24), np.inf)), "NaN or infinite"),
        (scipy.sparse.csr_array(np.full((6, 24), 1j)), "aslinearoperator"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(matrix, word):
    with pytest.raises(InvdiffError, match=word):
        Linear.from_matrix(matrix, X)


def test_what_is_no_matrix_is_refused():
    class Odd:
        shape = (6, 24)

    with pytest.raises(InvdiffError, match="found Odd"):
        Linear.from_matrix(Odd(), X)
    for given in ([[1.0, 2.0]], np.array([[None]])):
        with pytest.raises(InvdiffError, match="array of numbers"):
            Linear.from_matrix(given, X)
    for given in (np.ones(24), "matrix"):
        with pytest.raises(InvdiffError, match="two axes"):
            Linear.from_matrix(given, X)
    with pytest.raises(InvdiffError, match="is not decomposed"):
        Linear.from_matrix(scipy.sparse.eye_array(24), X, decompose=True)
    with pytest.raises(InvdiffError, match="no real decomposition"):
        Linear.from_matrix(seeded(6, 24) * 1j, X, decompose=True)


@pytest.mark.parametrize("kind", [torch.as_tensor, lambda m: scipy.sparse.csr_array(m.numpy())])
def test_a_run_with_a_matrix_can_be_repeated_from_its_record(kind):
    A = Linear.from_matrix(kind(seeded(6, 24) / 5), X)
    result = solve(
        Problem(A(seeded(1, *X)), A, GaussianNoise(0.1), X), PRIOR, DiffPIR(schedule=VP(3))
    )
    x = seeded(2, *X, seed=1)
    assert torch.equal(result.problem().A(x), A(x))


# ------------------------------------------------------------------------------------------ SciPy


def test_a_linear_operator_of_scipy():
    M = seeded(6, 24).numpy()
    A, B = Linear.from_scipy(aslinearoperator(M), X), Linear.from_matrix(M, X)
    x, y = seeded(2, *X, seed=1), seeded(2, 6, seed=2)
    torch.testing.assert_close(A(x), B(x))
    torch.testing.assert_close(A.adjoint(y), B.adjoint(y))


def test_a_complex_linear_operator_of_scipy():
    M = seeded(6, 24).numpy() + 1j * seeded(6, 24, seed=1).numpy()
    A, B = Linear.from_scipy(aslinearoperator(M), X), Linear.from_matrix(M, X)
    x, y = seeded(2, *X, seed=1), torch.complex(seeded(2, 6, seed=2), seeded(2, 6, seed=3))
    torch.testing.assert_close(A(x), B(x))
    torch.testing.assert_close(A.adjoint(y), B.adjoint(y))


@pytest.mark.parametrize(
    ("operator", "word"),
    [
        (LinearOperator((24, 24), matvec=lambda v: v, dtype=float), "no rmatvec"),
        (LinearOperator((24, 24), matvec=lambda v: v, rmatvec=lambda v: -v, dtype=float), "differ"),
        (aslinearoperator(np.eye(23)), "found 23 x 23"),
        (np.eye(24), "ndarray has not"),
    ],
)
def test_a_linear_operator_that_will_not_do(operator, word):
    with pytest.raises(InvdiffError, match=word):
        Linear.from_scipy(operator, X)


# ---------------------------------------------------------------------------------------- deepinv


UNUSED = {
    "torchvision": ("", ".utils", ".transforms", ".transforms.functional", ".datasets",
                    ".datasets.folder", ".datasets.utils"),
    "natsort": ("",),
}  # fmt: skip
"""What deepinv imports and its operators do not use."""


@pytest.fixture(scope="module")
def physics() -> Iterator[Any]:
    """deepinv's operators; empty modules stand in for what is missing of UNUSED, or is broken."""
    patch = pytest.MonkeyPatch()
    for package, names in UNUSED.items():
        try:
            importlib.import_module(package)
        except (ImportError, RuntimeError):
            for name in names:
                module = mock.MagicMock(__name__=f"{package}{name}", __path__=[], __spec__=None)
                patch.setitem(sys.modules, f"{package}{name}", module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("deepinv.physics", exc_type=ImportError)
    patch.undo()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["blur", "inpaint", "downsample", "sensing", "coils"])
def test_a_linear_physics_keeps_the_contract(physics, kind):
    from contract import test_operators as contract

    shape = (2, 8, 8) if kind == "coils" else (1, 8, 8)
    maps, mask = ring_maps(3, (8, 8)), (seeded(8, 8) > 0).float()
    made = {
        "coils": lambda: physics.MultiCoilMRI(mask, maps, img_size=shape),
        "blur": lambda: physics.Blur(
            filter=seeded(1, 1, 3, 3, dtype=torch.float32), padding="circular"
        ),
        "inpaint": lambda: physics.Inpainting(shape, mask=0.5),
        "downsample": lambda: physics.Downsampling(img_size=shape, factor=2),
        "sensing": lambda: physics.CompressedSensing(m=20, img_size=shape),
    }
    A = Operator.from_deepinv(made[kind](), shape)
    for dtype in EPS:
        contract.assert_adjoint(A, shape, dtype)
    if kind == "coils":
        x = seeded(2, *shape)
        y = torch.view_as_real(Sense(maps, mask[None, None])(x)).movedim(-1, 1)
        torch.testing.assert_close(A(x), y, rtol=1e-6, atol=1e-6)  # maps of single precision
    contract.test_linear(A, shape)
    contract.test_gradients_pass(A, shape)
    contract.test_a_row_is_the_same_in_a_batch(A, shape, torch.float64)
    contract.test_solve(A, shape, 3.0)


@pytest.mark.filterwarnings("ignore")
def test_a_physics_that_is_not_linear(physics):
    B = physics.CompressedSensing(m=20, img_size=(1, 8, 8))
    A = Operator.from_deepinv(physics.PhaseRetrieval(B=B), (1, 8, 8))
    x = seeded(2, 1, 8, 8)
    assert not isinstance(A, Linear) and A.differentiable
    torch.testing.assert_close(A(x), Operator.from_deepinv(B, (1, 8, 8))(x).abs().square())


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_physics(physics):
    with pytest.raises(InvdiffError, match="found Bicubic"):
        Operator.from_deepinv(Bicubic(2, (4, 4)), (1, 4, 4))
