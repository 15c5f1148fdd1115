"""Transcriptions of solvers for priors of latents: 9 numbers decode to an image of 16.

The autoencoder is smooth, its matrices are written out, and its Jacobians are taken by hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from dense import MATRICES, ROWS, SEEDS, SHAPE, TRANSCRIPTIONS, D, Task, random_matrix
from torch import Tensor

from helpers import Dense, states
from invdiff.core.rng import Rng
from invdiff.core.schedules import Schedule
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Operator
from invdiff.priors.gaussian import GaussianPrior
from invdiff.priors.latent import LatentPrior, in_latent_space
from invdiff.problem import Problem
from invdiff.solvers import registry

Z, Z_SHAPE = 9, (1, 3, 3)
UP = random_matrix(D, Z, 11) / 3
DOWN = np.linalg.pinv(UP) + 0.1 * random_matrix(Z, D, 12)
MU = random_matrix(1, Z, 13)[0] / 2
ROOT = random_matrix(Z, Z, 14) / 4 + 0.4 * np.eye(Z)
SIGMA = (ROOT @ ROOT.T + (ROOT @ ROOT.T).T) / 2


@dataclass(frozen=True, eq=False)
class Bent(Operator):
    """matrix t(x) for flattened x, with t = tanh, or the identity where straight."""

    matrix: Tensor
    shape: tuple[int, ...]
    straight: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return ((x if self.straight else torch.tanh(x)) @ self.matrix.mT).reshape(-1, *self.shape)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.shape


def latent_prior(straight: bool) -> LatentPrior:
    """N(MU, SIGMA), decoded by D(z) = UP t(z); E(x) = DOWN t(x)."""
    return LatentPrior(
        GaussianPrior(torch.tensor(MU).reshape(Z_SHAPE), torch.tensor(SIGMA)),
        Bent(torch.tensor(UP), SHAPE, straight),
        Bent(torch.tensor(DOWN), Z_SHAPE, straight),
    )


@dataclass(frozen=True)
class LatentTask(Task):
    """A task whose state is a latent. gain(a, s) is dz0/dz_t of the denoiser, z0 its value."""

    straight: bool

    def gain(self, a, s):
        return a * SIGMA @ np.linalg.inv(a**2 * SIGMA + s**2 * np.eye(Z))

    def z0(self, z, a, s):
        return MU + self.gain(a, s) @ (z - a * MU)

    def bend(self, x):
        return x if self.straight else np.tanh(x)

    def slope(self, x):
        return np.ones_like(x) if self.straight else 1 - np.tanh(x) ** 2

    def decode(self, z):
        return UP @ self.bend(z)

    def decode_jacobian(self, z):
        return UP * self.slope(z)

    def encode(self, x):
        return DOWN @ self.bend(x)

    def encode_jacobian(self, x):
        return DOWN * self.slope(x)


def compare(name, knobs, matrix, sigma_y, schedule: Schedule, straight, library_knobs=None):
    """(library's last state, transcription's), both (ROWS, Z), on the same noise."""
    A, prior = MATRICES[matrix], latent_prior(straight)
    truth = UP @ (MU[:, None] + ROOT @ random_matrix(Z, ROWS, 15))
    y = truth.T @ A.T + sigma_y * random_matrix(ROWS, len(A), 7)
    problem = Problem(torch.tensor(y), Dense(torch.tensor(A), SHAPE), GaussianNoise(sigma_y), SHAPE)
    solver = registry()[name](
        **(knobs if library_knobs is None else library_knobs), schedule=schedule
    )
    rng = Rng.of(SEEDS)
    found = states(solver, in_latent_space(problem, prior), prior, rng)
    got = solver.finish(found[-1], in_latent_space(problem, prior), prior, rng)

    def one(row):
        def z(step, role):
            like = torch.empty(1, *Z_SHAPE, dtype=torch.float64)
            return rng.rows([row]).at(step).normal(like, role).numpy().ravel()

        levels = [(level.a, level.s) for level in schedule.levels()]
        return TRANSCRIPTIONS[name](LatentTask(A, y[row], sigma_y, z, levels, straight), **knobs)

    return got.flatten(1).numpy(), np.stack([one(row) for row in range(ROWS)])


def assert_agrees(*args, **kwargs):
    got, want = compare(*args, **kwargs)
    assert np.isfinite(want).all() and np.abs(want).max() < 1e4
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8)
