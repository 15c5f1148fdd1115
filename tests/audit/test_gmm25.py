"""GMM-25: the reduced problem is the full one, and exact samples are recognised as such."""

import statistics

import numpy as np
import pytest
import torch

from invdiff.audit.gmm25 import gmm25_problem
from invdiff.core import InvdiffError
from invdiff.operators.algebra import Linear
from invdiff.priors.gaussian import GaussianMixture
from invdiff.problem import Problem

F64 = torch.float64
CELLS = [(8, 1), (8, 4), (80, 2), (800, 4)]


class Full(Linear):
    def __init__(self, M):
        object.__setattr__(self, "M", M)

    def __call__(self, x):
        return x.flatten(1) @ self.M.to(x.dtype).mT


def rank(cell):
    return cell.basis.shape[1]


@pytest.mark.parametrize(("d", "dy"), [(8, 1), (8, 4), (80, 2)])
def test_reduced_posterior_is_the_projected_full_one(d, dy):
    cell = gmm25_problem(d, dy, 3)
    r, small = rank(cell), cell.posterior()
    M = torch.stack([cell.problem.A(e[None])[0] for e in unit(cell)], dim=1)[:, :r] @ cell.basis.mT
    steps = torch.arange(-2, 3, dtype=F64)
    means = torch.stack([-8 * torch.stack([i, j]).repeat(d // 2) for i in steps for j in steps])
    full = GaussianMixture(cell.prior.weights, means, 1.0)
    big = full.posterior(Problem(cell.problem.y, Full(M), cell.problem.noise, (d,)))
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(big.weights, small.weights, **close)
    torch.testing.assert_close(big.means @ cell.basis, small.means[:, 0, 0, :r], **close)
    torch.testing.assert_close(
        cell.basis.mT @ big.cov @ cell.basis, small.cov[:r, :r], rtol=1e-9, atol=1e-9
    )
    outside = torch.eye(d, dtype=F64) - cell.basis @ cell.basis.mT
    torch.testing.assert_close(outside @ big.cov @ outside, outside, **close)
    torch.testing.assert_close(small.cov[r:, r:], torch.eye(len(small.cov) - r).double(), **close)


def unit(cell):
    n = cell.problem.x_shape[-1]
    return torch.eye(n, dtype=F64).reshape(n, 1, 1, n)


@pytest.mark.parametrize(("d", "dy"), CELLS)
def test_directions_have_unit_length_and_the_right_share(d, dy):
    """|theta_S|^2 of a random direction of R^d is Beta(r/2, (d-r)/2): mean r/d."""
    cell = gmm25_problem(d, dy, 0)
    theta, r = cell.directions(4000, 0), rank(cell)
    torch.testing.assert_close(theta.norm(dim=1), torch.ones(4000).double(), rtol=0, atol=1e-14)
    share = theta[:, :r].square().sum(1)
    error = (2 * r * (d - r) / (d**2 * (d + 2)) / 4000) ** 0.5
    assert abs(float(share.mean()) - r / d) < 5 * error


def test_operator_and_noise_follow_the_protocol():
    for seed in range(5):
        cell = gmm25_problem(80, 4, seed)
        s = cell.problem.A.s[:4]
        assert ((s >= 0) & (s < 1)).all() and (s[:-1] >= s[1:]).all()
        assert 0 <= cell.problem.sigma_y <= float(s[0])
    assert torch.equal(gmm25_problem(80, 1, 0).prior.weights, cell.prior.weights)
    assert cell.problem.y.dtype == F64 and cell.problem.x_shape == (1, 1, 6 + 8)


def test_problems_are_functions_of_their_seed():
    one, same, other = (gmm25_problem(8, 2, s).problem for s in (0, 0, 1))
    assert torch.equal(one.y, same.y) and one.noise == same.noise
    assert not torch.equal(one.y, other.y)


def excess(cell, samples, reference):
    """Distance of two clouds above that of random splits of both together, in standard deviations
    of the latter: what is left is no Monte Carlo error."""
    both = torch.cat([samples, reference])
    splits = []
    for i in range(20):
        order = torch.from_numpy(np.random.default_rng(i).permutation(len(both)))
        splits.append(cell.distance(*both[order].chunk(2), slices=100))
    distance = cell.distance(samples, reference, slices=100)
    return (distance - statistics.mean(splits)) / statistics.stdev(splits)


@pytest.mark.parametrize(("d", "dy"), CELLS)
def test_exact_samples_are_recognised_and_the_prior_is_not(d, dy):
    for seed in range(2):
        cell = gmm25_problem(d, dy, seed)
        posterior = cell.posterior()
        reference = posterior.sample(1000, 100 + seed)
        assert excess(cell, posterior.sample(1000, 200 + seed), reference) < 5
        assert excess(cell, cell.prior.sample(1000, 300 + seed), reference) > 5


@pytest.mark.parametrize(("d", "dy"), [(7, 1), (8, 0), (8, 6)])
def test_impossible_cells_are_refused(d, dy):
    with pytest.raises(InvdiffError, match="even d above 2"):
        gmm25_problem(d, dy, 0)
