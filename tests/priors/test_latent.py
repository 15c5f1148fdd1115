"""Priors of latents where all is known: a normal law, a linear decoder, and the posterior."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from helpers import Dense, seeded
from invdiff.core import InvdiffError, Level
from invdiff.core.schedules import Karras
from invdiff.noise import GaussianNoise
from invdiff.operators import (
    AveragePool,
    Decoded,
    DecodedLinear,
    Identity,
    Linear,
    Operator,
    Upsample,
    affine,
)
from invdiff.operators.algebra.decoded import Autoencoder, decoded
from invdiff.priors.base import Counted
from invdiff.priors.gaussian import GaussianPrior
from invdiff.priors.latent import LatentPrior, in_latent_space
from invdiff.problem import Problem
from invdiff.sampling.needs import Need, offers
from invdiff.sampling.pose import pose
from invdiff.sampling.run import solve
from invdiff.sampling.stream import stream
from invdiff.solvers.dps import DPS
from invdiff.solvers.mmps import MMPS

Z_SHAPE, X_SHAPE = (1, 2, 3), (1, 4, 6)
POOL, UP = AveragePool(2, X_SHAPE[1:]), Upsample(2, X_SHAPE[1:])
MATRIX = seeded(5, 24, seed=3) / 5
FLAT = GaussianPrior(torch.zeros(X_SHAPE).double(), 1.0)
COV = torch.eye(6).double() * 0.5 + seeded(6, 1, seed=4) @ seeded(6, 1, seed=4).mT


class Bend(Operator):
    """A decoder that is not linear."""

    def __call__(self, x: Tensor) -> Tensor:
        return torch.tanh(UP(x))

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return X_SHAPE


class FixedEncoder(Operator):
    """Says the same shape whatever the image is."""

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return Z_SHAPE


def normal() -> GaussianPrior:
    return GaussianPrior(seeded(*Z_SHAPE, seed=5), COV)


def prior() -> LatentPrior:
    return LatentPrior(normal(), UP, POOL, X_SHAPE)


def problem(rows: int = 1) -> Problem:
    return Problem(seeded(rows, 5, seed=6), Dense(MATRIX, X_SHAPE), GaussianNoise(0.3), X_SHAPE)


def matrix(A: Linear, shape: tuple[int, ...]) -> Tensor:
    n = math.prod(shape)
    return A(torch.eye(n).double().reshape(n, *shape)).flatten(1).mT


def test_the_posterior_of_the_latent_is_the_closed_form():
    """cov (A D)^T (A D cov (A D)^T + sigma^2)^-1, with D written as a matrix."""
    latent = in_latent_space(problem(), prior())
    assert isinstance(latent.A, DecodedLinear) and latent.x_shape == Z_SHAPE
    found = normal().posterior(latent)
    AD = MATRIX @ matrix(UP, Z_SHAPE)
    S = AD @ COV @ AD.mT + 0.3**2 * torch.eye(5).double()
    gain = COV @ AD.mT @ torch.linalg.inv(S)
    mean = normal().mean.flatten()
    want = mean + gain @ (problem().y[0] - AD @ mean)
    torch.testing.assert_close(found.mean.flatten(), want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.cov, COV - gain @ AD @ COV, rtol=1e-9, atol=1e-9)


def test_a_solver_that_knows_nothing_of_latents_draws_from_it():
    """MMPS is exact for normal laws but for its steps: mean and spread of decoded images."""
    n = 400
    found = solve(
        problem(), prior(), MMPS(iterations=6, schedule=Karras(60, 20.0, 0.01)), samples=n
    )
    exact = normal().posterior(in_latent_space(problem(), prior()))
    D = matrix(UP, Z_SHAPE)
    mean, cov = D @ exact.mean.flatten(), D @ exact.cov @ D.mT
    images = found.samples[0].flatten(1)
    std = cov.diagonal().sqrt()
    # 24 z-scores, of which 6 differ: below 4 but once in 3000
    assert ((images.mean(0) - mean) / std * n**0.5).abs().max() < 4
    # a variance of n samples scatters by sqrt(2 / n); the steps' own error is below 2 percent
    ratio = images.var(0) / std**2
    assert (ratio - 1).abs().max() < 4 * (2 / n) ** 0.5 + 0.02
    torch.testing.assert_close(UP(found.latents[0]), found.samples[0])


def test_what_ignores_y_is_seen():
    """Negative twin: the prior's own mean fails the test above."""
    exact = normal().posterior(in_latent_space(problem(), prior()))
    gap = (exact.mean - normal().mean).flatten() / exact.cov.diagonal().sqrt()
    assert gap.abs().max() * 400**0.5 > 8


def test_the_driver_composes_and_decodes_in_one_place():
    """solve on the problem of images is solve on that of latents, decoded."""
    solver = DPS(schedule=Karras(5, 5.0, 0.1))
    pooled = Problem(seeded(2, 1, 2, 3, seed=6), POOL, GaussianNoise(0.3), X_SHAPE)
    whole = solve(pooled, prior(), solver, samples=3, batch=2)
    assert whole.samples.shape == (2, 3, *X_SHAPE) and whole.latents.shape == (2, 3, *Z_SHAPE)
    by_hand = solve(in_latent_space(pooled, prior()), normal(), solver, samples=3, batch=2)
    assert by_hand.latents is None and torch.equal(by_hand.samples, whole.latents)
    assert torch.equal(UP(whole.latents.flatten(0, 1)), whole.samples.flatten(0, 1))
    assert whole.problem().x_shape == X_SHAPE  # what is written down is the problem of images
    last = list(stream(pooled, prior(), solver, [1, 2]))[-1]
    assert last.x0.shape == (2, *Z_SHAPE)


def test_posing_twice_is_posing_once():
    latent = pose(problem(), prior()).problem
    assert in_latent_space(latent, prior()) is latent
    plain = problem()
    assert in_latent_space(plain, normal()) is plain


def test_an_offset_is_taken_out_before():
    A = affine(Identity(), 0.5, 0.25)
    shifted = Problem(seeded(1, *X_SHAPE), A, GaussianNoise(0.1), X_SHAPE)
    latent = pose(shifted, prior()).problem
    assert isinstance(latent.A, DecodedLinear)
    torch.testing.assert_close(latent.y, shifted.y - 0.25)


def test_what_it_offers():
    found = offers(in_latent_space(problem(), prior()), prior())
    assert {Need.AUTOENCODER, Need.IMAGE_LINEAR, Need.PINV} <= found
    bent = Autoencoder(Bend(), POOL)
    A = decoded(Dense(MATRIX, X_SHAPE), bent)
    assert isinstance(A, Decoded)
    found = offers(Problem(torch.zeros(1, 5), A, GaussianNoise(0.1), Z_SHAPE))
    assert {Need.AUTOENCODER, Need.IMAGE_LINEAR, Need.OPERATOR_VJP} <= found
    assert Need.LINEAR not in found
    plain = offers(problem(), normal())
    assert Need.AUTOENCODER not in plain and Need.IMAGE_LINEAR in plain


def test_shapes_that_do_not_fit():
    other = Problem(torch.zeros(1, 1, 4, 8), Identity(), GaussianNoise(0.1), (1, 4, 8))
    square = LatentPrior(normal(), Upsample(2, (4, 6)), FixedEncoder(), X_SHAPE)
    with pytest.raises(InvdiffError, match="decodes images of 1 x 4 x 6, but .* 1 x 4 x 8; resize"):
        in_latent_space(other, square)


def test_a_counted_or_moved_prior_keeps_its_autoencoder():
    counted = Counted(prior())
    assert counted.autoencoder is not None and counted.image_shape == X_SHAPE
    wide = LatentPrior(normal(), UP, POOL, X_SHAPE, (0.0, 1.0))
    assert Counted(wide).image_range == (0.0, 1.0) != wide.value_range
    assert in_latent_space(problem(), counted).x_shape == Z_SHAPE
    moved = prior().to("cpu")
    z = seeded(2, *Z_SHAPE)
    assert torch.equal(moved.denoise(z, 0.5), prior().denoise(z, 0.5))
    x0, pull = moved.x0_vjp(z, Level(0.8, 0.6))
    torch.testing.assert_close(x0, prior().x0(z, Level(0.8, 0.6)))
    assert pull(z).shape == z.shape and moved.image_shape == X_SHAPE


def test_gradients_of_a_decoded_operator():
    """vjp is the transpose of the derivative, by differences."""
    A = decoded(Dense(MATRIX, X_SHAPE), Autoencoder(Bend(), POOL))
    z, u, v, h = seeded(1, *Z_SHAPE), seeded(1, *Z_SHAPE, seed=1), seeded(1, 5, seed=2), 1e-5
    slope = (A(z + h * u) - A(z - h * u)) / (2 * h)
    assert float((slope * v).sum()) == pytest.approx(float((A.vjp(z, v) * u).sum()), rel=1e-8)


def test_files_hold_latents(tmp_path: Path):
    from invdiff.sampling.result import Result

    result = solve(problem(), prior(), DPS(schedule=Karras(3, 5.0, 0.1)))
    loaded = Result.load(result.save(tmp_path / "run"))
    assert torch.equal(loaded.latents, result.latents)
    assert (
        Result.load(
            solve(problem(), FLAT, DPS(schedule=Karras(3, 5.0, 0.1))).save(tmp_path / "plain")
        ).latents
        is None
    )
