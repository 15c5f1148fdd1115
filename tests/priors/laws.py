"""Laws, operators and a z-test that the tests of exact priors share."""

import math
from dataclasses import dataclass

import pytest
import torch

from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Linear, Operator
from invdiff.operators.algebra.compose import Affine
from invdiff.priors.gaussian import GaussianMixture, GaussianPrior
from invdiff.problem import Problem

F64 = torch.float64
SHAPE = (1, 2, 3)
N, K = 6, 3
EPS = 2.0**-52
SAMPLES = 40_000


def noise(*shape, role="z", seed=0):
    return Rng.of(seed).normal(torch.empty(1, *shape, dtype=F64), role)[0]


def spd(k: int = 1, seed: int = 0) -> torch.Tensor:
    """k covariances of N pixels with eigenvalues from about 0.1 to 3."""
    root = noise(k, N, N, role="spd", seed=seed)
    return root @ root.mT / N + 0.1 * torch.eye(N, dtype=F64)


@dataclass(frozen=True, eq=False)
class Dense(Linear):
    """y = M x + 0 for flattened images; Re and Im rows when complex."""

    M: torch.Tensor

    def __call__(self, x):
        M = self.M if self.M.is_complex() else self.M.to(x.dtype)
        return x.flatten(1).to(M.dtype) @ M.mT

    def adjoint(self, y):
        x = (y @ self.M.conj()).reshape(-1, *SHAPE)
        return x.real if x.is_complex() else x


class Squared(Operator):
    def __call__(self, x):
        return x**2


MIXTURES = {
    "one variance": GaussianMixture([1, 2, 3], 2 * noise(K, *SHAPE), 0.5),
    "a variance each": GaussianMixture([1, 2, 3], 2 * noise(K, *SHAPE), torch.tensor([0.1, 1, 2])),
    "pixel variances": GaussianMixture(
        [1, 2, 3], 2 * noise(K, *SHAPE), noise(K, *SHAPE, role="v").exp()
    ),
    "shared dense": GaussianMixture([1, 2, 3], 2 * noise(K, *SHAPE), spd()),
    "dense": GaussianMixture([1, 2, 3], 2 * noise(K, *SHAPE), spd(K)),
    "dense, one weight 0": GaussianMixture([0.7, 0, 0.3], 2 * noise(K, *SHAPE), spd(K)),
    "gaussian": GaussianPrior(noise(*SHAPE), spd()[0]),
    "gaussian, one variance": GaussianPrior(noise(*SHAPE), 0.3),
    "gaussian, pixel variances": GaussianPrior(noise(*SHAPE), noise(*SHAPE, role="v").exp()),
}
MATRIX = noise(4, N, role="M")
OPERATORS = {
    "wide": Dense(MATRIX),
    "tall": Dense(noise(9, N, role="M")),
    "masked": Dense(torch.diag(torch.tensor([1.0, 0, 1, 0, 0, 1], dtype=F64))),
    "complex": Dense(torch.complex(noise(2, N, role="re"), noise(2, N, role="im"))),
    "affine": Affine(Dense(MATRIX), noise(4, role="b")),
}
all_mixtures = pytest.mark.parametrize("prior", MIXTURES.values(), ids=MIXTURES.keys())
all_operators = pytest.mark.parametrize("A", OPERATORS.values(), ids=OPERATORS.keys())


def measured(prior, A, sigma=0.3, seed=1, dtype=F64):
    x = prior.sample(1, Rng.of([seed])).to(dtype)
    law = GaussianNoise(sigma)
    return Problem(law.sample(A(x), Rng.of([seed])), A, law, SHAPE)


def worst_z(x: torch.Tensor, mean: torch.Tensor, cov: torch.Tensor) -> float:
    """Largest deviation of sample means and of sample covariances, in standard errors."""
    r = x.double().flatten(1) - mean.flatten()
    products = (r[:, :, None] * r[:, None, :]).flatten(1) - cov.flatten()
    every = torch.cat([r, products], dim=1)
    return float((every.mean(0).abs() / every.std(0)).max()) * math.sqrt(len(x))
