"""The Krylov solvers against dense linear algebra, in float64."""

import torch

from invdiff.operators.algebra.krylov import Bounds, conjugate_gradients, gmres, watched_bounds

N, ROWS = 9, 4


def system(symmetric: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """A well-conditioned matrix for each row (condition number below 10), and right-hand sides."""
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(ROWS, N, N, generator=g, dtype=torch.float64)
    matrix = torch.eye(N, dtype=torch.float64) + 0.15 * noise
    matrix = matrix @ matrix.mT if symmetric else matrix
    return matrix, torch.randn(ROWS, N, generator=g, dtype=torch.float64)


def apply(matrix: torch.Tensor):
    """The matrix as a function of a batch of vectors."""
    return lambda v: (matrix @ v[..., None])[..., 0]


def test_gmres_solves_what_is_not_symmetric() -> None:
    """After n steps the Krylov space is everything, so the solution is exact to round-off."""
    matrix, b = system(symmetric=False)
    x = gmres(apply(matrix), b, N)
    assert torch.allclose(x, torch.linalg.solve(matrix, b), atol=1e-12)


def test_gmres_minimises_the_residual_over_its_krylov_space() -> None:
    """After 3 steps: the least-squares solution in span(b, M b, M^2 b), written out."""
    matrix, b = system(symmetric=False)
    x = gmres(apply(matrix), b, 3)
    for M, c, found in zip(matrix, b, x, strict=True):
        K = torch.stack([c, M @ c, M @ M @ c], dim=1)
        weights = torch.linalg.lstsq(M @ K, c[:, None]).solution
        assert torch.allclose(found, (K @ weights)[:, 0], atol=1e-10)


def test_gmres_survives_a_zero_and_an_early_end() -> None:
    """b = 0 gives 0; an eigenvector is solved in one step, and more steps leave it alone."""
    matrix, b = system(symmetric=False)
    assert torch.equal(gmres(apply(matrix), 0 * b, 4), 0 * b)
    x = gmres(lambda v: 2 * v, b, 4)
    assert torch.allclose(x, b / 2, atol=1e-14)


def test_both_agree_where_both_apply() -> None:
    """On a symmetric positive definite system, at the end, conjugate gradients is GMRES."""
    matrix, b = system(symmetric=True)
    exact = torch.linalg.solve(matrix, b)
    assert torch.allclose(gmres(apply(matrix), b, N), exact, atol=1e-11)
    assert torch.allclose(conjugate_gradients(apply(matrix), b, 2 * N), exact, atol=1e-11)


def test_conjugate_gradients_goes_wrong_without_symmetry() -> None:
    """The negative twin: on the first system it must miss the solution."""
    matrix, b = system(symmetric=False)
    x = conjugate_gradients(apply(matrix), b, N)
    assert not torch.allclose(x, torch.linalg.solve(matrix, b), atol=1e-3)


def test_a_preconditioner_changes_the_way_and_not_the_end() -> None:
    """With the inverse itself one iteration is enough; with any other the end is the same."""
    matrix, b = system(symmetric=True)
    exact = torch.linalg.solve(matrix, b)
    one = conjugate_gradients(apply(matrix), b, 1, precondition=apply(torch.linalg.inv(matrix)))
    assert torch.allclose(one, exact, atol=1e-12)
    scale = torch.linspace(0.5, 2, N, dtype=torch.float64)
    any_ = conjugate_gradients(apply(matrix), b, 3 * N, precondition=lambda r: scale * r)
    assert torch.allclose(any_, exact, atol=1e-11)


def test_a_tolerance_is_kept_for_every_row() -> None:
    """The residual is below it, and a row does not depend on the rows beside it."""
    matrix, b = system(symmetric=True)
    x = conjugate_gradients(apply(matrix), b, 50, tol=1e-2)
    left = (apply(matrix)(x) - b).norm(dim=1) / b.norm(dim=1)
    assert bool((left <= 1e-2).all()) and float(left.max()) > 1e-8
    for k in range(ROWS):
        alone = conjugate_gradients(apply(matrix[k : k + 1]), b[k : k + 1], 50, tol=1e-2)
        assert torch.equal(alone[0], x[k])


def test_a_bound_that_is_reached_is_noted() -> None:
    """How many systems, and what the worst of them left; nothing where the tolerance was met."""
    matrix, b = system(symmetric=True)
    with watched_bounds(Bounds()) as found:
        x = conjugate_gradients(apply(matrix), b, 2, tol=1e-6)
    left = (apply(matrix)(x) - b).norm(dim=1) / b.norm(dim=1)
    assert found.systems == ROWS and found.iterations == 2
    assert abs(found.residual - float(left.max())) < 1e-12
    with watched_bounds(Bounds()) as found:
        conjugate_gradients(apply(matrix), b, 3 * N, tol=1e-6)
        conjugate_gradients(apply(matrix), b, 2)  # a number of iterations, and no tolerance
    assert found.systems == 0
