"""First images for a measurement, where a fit may start."""

from __future__ import annotations

import pytest
import torch

import invdiff.operators as ops
from helpers import seeded
from invdiff.noise import GaussianNoise
from invdiff.operators import Operator
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.needs import IncompatibleError
from invdiff.sampling.run import solve
from invdiff.solvers.reddiff import REDDiff

SHAPE = (3, 8, 8)


def test_a_generalised_inverse_is_a_guess():
    for A in (ops.AveragePool(2, (8, 8)), ops.Quantize(8), ops.Grayscale()):
        y = A(seeded(2, *SHAPE))
        assert A.guesses and torch.equal(A.guess(y, SHAPE), A.pinv(y))


@pytest.mark.parametrize("unit_range", [False, True])
@pytest.mark.parametrize("oversample", [0.0, 2.0, 4.0])
def test_the_guess_of_phase_retrieval(oversample, unit_range):
    """|F^-1 y| of the middle, back on the range of images: not 0, where the misfit has no slope."""
    A = ops.PhaseRetrieval(oversample, unit_range)
    y = A(seeded(2, *SHAPE))
    k = torch.fft.ifftshift(y, dim=(-2, -1))
    full = torch.fft.fftshift(torch.fft.ifft2(k, norm="ortho"), dim=(-2, -1)).abs()
    pad = int(oversample)
    middle = full[..., pad : pad + 8, pad : pad + 8]
    torch.testing.assert_close(A.guess(y, SHAPE), 2 * middle - 1 if unit_range else middle)


def test_other_guesses():
    y = seeded(1, *SHAPE).clamp(-1, 1)
    assert torch.equal(ops.HDR(4.0).guess(y, SHAPE), y / 4)
    A = ops.NonlinearBlur(radius=2)
    assert torch.equal(A.guess(y, SHAPE), A(y))


class Sine(Operator):
    """y = sin(x): nothing is known of its inverse."""

    def __call__(self, x):
        return torch.sin(x)


def test_a_start_from_a_guess_needs_one():
    prior = Denoiser(lambda x, s: x / (1 + s**2))
    solver = REDDiff(init_from="guess").with_steps(3)
    A = ops.HDR()
    problem = Problem(A(seeded(1, *SHAPE)), A, GaussianNoise(0.1), SHAPE)
    assert solve(problem, prior, solver).samples.isfinite().all()
    problem = Problem(torch.sin(seeded(1, *SHAPE)), Sine(), GaussianNoise(0.1), SHAPE)
    with pytest.raises(IncompatibleError, match="needs a first guess of the image and Sine offers"):
        solve(problem, prior, solver)
