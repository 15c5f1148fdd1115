"""Noise models: densities against torch's, samples against their moments (5 standard errors)."""

import math

import pytest
import torch

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import NOISELESS, GaussianNoise, Noise, Poisson

N = 100_000
Z = torch.linspace(-0.9, 1.1, 24, dtype=torch.float64).reshape(2, 1, 3, 4)


def z_of_mean(values: torch.Tensor, mean: float) -> float:
    """(average - mean) in standard errors, which are estimated from the values."""
    return abs(float((values.mean() - mean) / values.std())) * math.sqrt(values.numel())


def test_gaussian_density():
    y = Z + 0.2 * torch.sin(50 * Z)
    expected = torch.distributions.Normal(Z, 0.1).log_prob(y).flatten(1).sum(1)
    torch.testing.assert_close(GaussianNoise(0.1).log_prob(y, Z), expected, rtol=1e-12, atol=0)


def test_complex_gaussian_density_counts_both_parts():
    y, z = torch.complex(Z, -Z), torch.complex(0.5 * Z, Z)
    expected = GaussianNoise(0.1).log_prob(y.real, z.real) + GaussianNoise(0.1).log_prob(
        y.imag, z.imag
    )
    found = GaussianNoise(0.1).log_prob(y, z)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_gaussian_samples():
    n = GaussianNoise(0.3).sample(torch.ones(1, N, dtype=torch.float64), Rng.of(1)) - 1
    assert z_of_mean(n, 0) < 5 and z_of_mean(n**2, 0.09) < 5
    assert z_of_mean(n**2, 4 * 0.09) > 5


def test_sigma_is_that_of_each_part_of_a_complex_measurement():
    n = GaussianNoise(0.3).sample(torch.zeros(1, N, dtype=torch.complex128), Rng.of(1))
    assert z_of_mean(n.real**2, 0.09) < 5 and z_of_mean(n.imag**2, 0.09) < 5
    assert z_of_mean(n.real * n.imag, 0) < 5


def test_a_lazily_conjugated_measurement_is_as_good_as_another():
    z = torch.complex(Z, Z)
    noise, rng = GaussianNoise(0.3), Rng.of([1, 2])
    y = noise.sample(z.conj(), rng)
    assert torch.equal(y, noise.sample(z.conj().resolve_conj(), rng))
    assert torch.equal(noise.log_prob(y, z.conj()), noise.log_prob(y.conj(), z))


@pytest.mark.parametrize("noise", [GaussianNoise(0.3), Poisson(20.0)])
def test_a_row_depends_on_its_own_seed(noise):
    y = noise.sample(Z, Rng.of([4, 5]))
    assert torch.equal(y[1:], noise.sample(Z[1:], Rng.of([5])))
    assert torch.equal(y, noise.sample(Z, Rng.of([4, 5])))
    assert not torch.equal(y[1:], noise.sample(Z[1:], Rng.of([6])))
    assert noise.log_prob(y, Z).shape == (2,)


def test_noiseless_measurement():
    assert torch.equal(NOISELESS.sample(Z, Rng.of([1, 2])), Z)
    with pytest.raises(InvdiffError, match="no density"):
        NOISELESS.log_prob(Z, Z)


def test_levels_quoted_for_the_unit_range_double():
    """An image range of 2 instead of 1: the same relative noise is twice the number."""
    unit = Z / 2 + 0.5
    quoted = GaussianNoise(0.05).sample(unit, Rng.of([1, 2]))
    converted = GaussianNoise.on_unit_range(0.05).sample(Z, Rng.of([1, 2]))
    torch.testing.assert_close(converted, 2 * quoted - 1, rtol=0, atol=1e-14)


@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf])
def test_gaussian_refuses(sigma):
    with pytest.raises(InvdiffError, match="not negative"):
        GaussianNoise(sigma)


def test_poisson_density_is_that_of_the_counts():
    noise = Poisson(30.0)
    counts = torch.arange(24, dtype=torch.float64).reshape(2, 1, 3, 4)
    y = counts / noise.gain + noise.black
    expected = torch.distributions.Poisson(noise.rate(Z)).log_prob(counts).flatten(1).sum(1)
    torch.testing.assert_close(noise.log_prob(y, Z), expected, rtol=1e-11, atol=0)


@pytest.mark.parametrize(("black", "white"), [(-1.0, 1.0), (0.0, 5.0)])
def test_poisson_samples(black, white):
    noise, z = Poisson(50.0, black, white), black + 0.3 * (white - black)
    y = noise.sample(torch.full((1, N), z, dtype=torch.float64), Rng.of(1))
    assert z_of_mean(y, z) < 5
    assert z_of_mean((y - z) ** 2, 15.0 / noise.gain**2) < 5
    assert z_of_mean(y, z + 0.5 / noise.gain) > 5


def test_poisson_below_black_counts_as_black():
    noise, dark = Poisson(50.0), torch.full((1, 8), -1.5, dtype=torch.float64)
    assert torch.equal(noise.sample(dark, Rng.of(1)), torch.full_like(dark, -1.0))
    assert torch.isfinite(noise.log_prob(Z[:1], dark.reshape(1, 1, 2, 4)[..., :1, :1])).all()


def test_poisson_score_is_finite_everywhere():
    z = torch.linspace(-2, 2, 24, dtype=torch.float64).reshape(2, 1, 3, 4).requires_grad_()
    (score,) = torch.autograd.grad(Poisson(10.0).log_prob(Z, z).sum(), z)
    assert torch.isfinite(score).all()


@pytest.mark.parametrize("noise", [GaussianNoise(0.3), Poisson(20.0), Poisson(5.0, 0.0, 2.0)])
def test_score_is_the_gradient_of_the_density(noise):
    y = noise.sample(Z, Rng.of([4, 5]))
    z = torch.linspace(-1.5, 1.5, 24, dtype=torch.float64).reshape(Z.shape).requires_grad_()
    (expected,) = torch.autograd.grad(noise.log_prob(y, z).sum(), z)
    found = noise.score(y, z.detach())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert (found - noise.score(y, z.detach() + 1e-3)).abs().max() > 1e-4


def test_complex_score_is_the_gradient_in_both_parts():
    """So that the adjoint takes it to the gradient in a real image."""
    y = torch.complex(Z, -Z)
    parts = torch.stack([0.5 * Z, Z]).requires_grad_()
    z = torch.complex(parts[0], parts[1])
    (expected,) = torch.autograd.grad(GaussianNoise(0.3).log_prob(y, z).sum(), parts)
    found = GaussianNoise(0.3).score(y, z.detach())
    torch.testing.assert_close(torch.stack([found.real, found.imag]), expected)


def test_who_has_a_density():
    assert GaussianNoise(0.1).has_density and Poisson(1.0).has_density
    assert not NOISELESS.has_density and not Noise().has_density
    with pytest.raises(InvdiffError, match="no density"):
        NOISELESS.score(Z, Z)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0.0,), "peak"), ((math.nan,), "peak"), ((1.0, 1.0, 1.0), "white must exceed black")],
)
def test_poisson_refuses(arguments, message):
    with pytest.raises(InvdiffError, match=message):
        Poisson(*arguments)
