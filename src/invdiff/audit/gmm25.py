"""GMM-25: a mixture of 25 far-apart normals in up to 800 dimensions, measured by 1 to 4 numbers.

Protocol of Cardoso et al. 2024 (MCGdiff, arXiv 2308.07983), with every random number seeded.
Means (-8 i, -8 j) repeated d/2 times for i, j in -2..2, unit covariances, weights w ~ N(0, 1)^2
drawn once for each d; A a random row space with singular values U[0, 1]; noise U[0, 1] max(s).

Exact reduction. The means span a plane and A sees dy directions; off these 2 + dy dimensions the
prior is N(0, I) whatever y is, and a solver without a preferred axis treats all of them alike. So
the problem is posed in orthonormal coordinates of these 2 + dy dimensions and of up to 8 more,
and a random direction of R^d is drawn as its part in the former and the length of the rest.
d = 800 then costs what d = 8 does. It does not hold for solvers that work coordinate by
coordinate, such as those with Adam inside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Spectral
from invdiff.priors.gaussian import GaussianMixture
from invdiff.problem import Problem
from invdiff.problem.metrics import projected_wasserstein

PROBES = 8


@dataclass(frozen=True, eq=False)
class DenseOperator(Spectral):
    """y = M x for flattened images: left diag(singular) right[:, :m]^T = M, with m <= n.

    left: (m, m), singular: (m,), right: (n, n); left and right orthonormal.
    """

    left: Tensor
    singular: Tensor
    right: Tensor
    x_shape: tuple[int, ...]

    @classmethod
    def of(cls, matrix: Tensor, x_shape: tuple[int, ...]) -> Self:
        """The operator of a matrix (m, n), m <= n."""
        left, singular, right = torch.linalg.svd(matrix, full_matrices=True)
        return cls(left, singular, right.mT, x_shape)

    @property
    def s(self) -> Tensor:
        unseen = len(self.right) - len(self.singular)
        return torch.nn.functional.pad(self.singular.double(), (0, unseen))

    def V(self, c: Tensor) -> Tensor:
        return (c @ self._as("right", c).mT).reshape(-1, *self.x_shape)

    def Vt(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self._as("right", x)

    def U(self, c: Tensor) -> Tensor:
        return c[:, : len(self.left)] @ self._as("left", c).mT

    def Ut(self, y: Tensor) -> Tensor:
        unseen = len(self.right) - len(self.left)
        return torch.nn.functional.pad(y @ self._as("left", y), (0, unseen))


@dataclass(frozen=True, eq=False)
class GMM25:
    """One problem of the protocol, in reduced coordinates; all of it float64.

    d: dimension of the full problem. problem: y of shape (1, dy), images (1, 1, n).
    prior: the mixture in these coordinates.
    basis: (d, 2 + dy), orthonormal: the directions of R^d that the first 2 + dy coordinates stand
    for. The other coordinates are probes of what lies outside.
    """

    d: int
    problem: Problem
    prior: GaussianMixture
    basis: Tensor

    def posterior(self) -> GaussianMixture:
        """The exact posterior, from which a reference can be sampled."""
        return self.prior.posterior(self.problem)

    def directions(self, slices: int, seed: int) -> Tensor:
        """Random unit directions of R^d as they act on the n coordinates, (slices, n)."""
        like = torch.empty(1, slices, self.d, dtype=torch.float64)
        theta = Rng.of(seed).normal(like, "gmm25-slices")[0]
        theta = theta / theta.norm(dim=1, keepdim=True)
        rank = self.basis.shape[1]
        seen, rest = theta[:, :rank], theta[:, rank:]
        probes = rest[:, : self.problem.x_shape[-1] - rank]
        length = rest.norm(dim=1, keepdim=True) / probes.norm(dim=1, keepdim=True)
        return torch.cat([seen, length * probes], dim=1)

    def distance(
        self, samples: Tensor, reference: Tensor, slices: int = 1000, seed: int = 0, order: int = 1
    ) -> float:
        """Sliced Wasserstein-1 distance in R^d of two clouds of equal size, each (N, 1, 1, n).

        order 2: Wasserstein-2.
        """
        theta = self.directions(slices, seed)
        return projected_wasserstein(samples.cpu(), reference.cpu(), theta, order)


def gmm25_problem(d: int, dy: int, seed: int) -> GMM25:
    """Problem number `seed` of the cell (d, dy).

    d: even, more than 2 + dy (8, 80 and 800 in the literature). dy: measurements (1, 2 and 4).
    """
    if d % 2 or dy < 1 or d <= 2 + dy:
        raise InvdiffError(f"GMM-25 needs an even d above 2 + dy, found d = {d} and dy = {dy}.")
    rng, f64 = Rng.of(seed), torch.float64
    singular = rng.uniform(torch.empty(1, dy, dtype=f64), "gmm25-singular")[0].sort().values.flip(0)
    left, _, right = torch.linalg.svd(
        rng.normal(torch.empty(1, dy, d, dtype=f64), "gmm25-A")[0], full_matrices=False
    )
    sigma = float(rng.uniform(torch.empty(1, dtype=f64), "gmm25-sigma") * singular.max())

    plane = torch.eye(2, dtype=f64).repeat(d // 2, 1) / math.sqrt(d / 2)
    basis = torch.linalg.qr(torch.cat([plane, right.mT], dim=1)).Q
    probes = min(PROBES, d - 2 - dy)
    x_shape = (1, 1, 2 + dy + probes)

    def reduced(rows: Tensor) -> Tensor:
        return torch.nn.functional.pad(rows @ basis, (0, probes))

    grid = -8.0 * torch.cartesian_prod(*[torch.arange(-2, 3, dtype=f64)] * 2)
    weights = Rng.of(d).normal(torch.empty(1, 25, dtype=f64), "gmm25-weights")[0].square()
    means = reduced(grid.repeat(1, d // 2)).reshape(25, *x_shape)
    prior = GaussianMixture(weights, means, 1.0, value_range=(-math.inf, math.inf))
    A = DenseOperator.of(reduced((left * singular) @ right), x_shape)
    noise = GaussianNoise(sigma)
    y = noise.sample(A(prior.sample(1, rng)), rng)
    return GMM25(d, Problem(y, A, noise, x_shape), prior, basis)
