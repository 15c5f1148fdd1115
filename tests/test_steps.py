"""The shared one-liners against the textbook formulas that they abbreviate."""

import math

import pytest
import torch

from invdiff.core import CLEAN, Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP
from invdiff.noise import NOISELESS
from invdiff.operators.algebra import Identity, Linear
from invdiff.operators.algebra.compose import ComposedLinear
from invdiff.problem import Problem
from invdiff.sampling.steps import adam, ddim, ddim_std, langevin, renoise, replace

EPS = 2.0**-52
LEVELS = VP(1000, spacing="trailing").levels()
PAIRS = [(0, 1), (0, 500), (10, 40), (500, 501), (700, 999), (998, 999)]
SHAPE = (2, 1, 4, 4)


class TopHalf(Linear):
    """The upper rows, twice as bright: a linear map that is not a projection."""

    def __call__(self, x):
        return 2 * x[..., :2, :]

    def adjoint(self, y):
        return torch.cat([2 * y, torch.zeros_like(y)], dim=-2)


def noise(role: str) -> torch.Tensor:
    return Rng.of([1, 2]).normal(torch.empty(SHAPE, dtype=torch.float64), role)


def posterior(level: Level, to: Level) -> tuple[float, float, float]:
    """q(x_s | x_t, x0) of Ho et al. 2020, eq. 7: weights of x0 and x_t, and the std."""
    bar_t, bar_s = level.a**2, to.a**2
    alpha = bar_t / bar_s
    of_x0 = math.sqrt(bar_s) * (1 - alpha) / (1 - bar_t)
    of_xt = math.sqrt(alpha) * (1 - bar_s) / (1 - bar_t)
    return of_x0, of_xt, math.sqrt((1 - bar_s) / (1 - bar_t) * (1 - alpha))


@pytest.mark.parametrize(("i", "j"), PAIRS)
def test_eta_1_is_the_ancestral_step(i, j):
    """The formulas subtract numbers of size 1 that may be as close as 1 - alpha."""
    level, to = LEVELS[i], LEVELS[j]
    of_x0, of_xt, std = posterior(level, to)
    lost = 100 * EPS / (1 - level.a**2 / to.a**2) / to.s**2
    assert ddim_std(level, to, 1.0) == pytest.approx(std, rel=lost)
    x0, xt, z = noise("x0"), noise("xt"), noise("z")
    eps = (xt - level.a * x0) / level.s
    expected = of_x0 * x0 + of_xt * xt + std * z
    torch.testing.assert_close(ddim(x0, eps, level, to, z, 1.0), expected, rtol=lost, atol=lost)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("i", "j"), PAIRS)
def test_frames_agree(i, j, eta):
    """x / a of a variance-preserving step is the variance-exploding step."""
    level, to = LEVELS[i], LEVELS[j]
    x0, eps, z = noise("x0"), noise("eps"), noise("z")
    vp = ddim(x0, eps, level, to, z, eta) / to.a
    ve = ddim(x0, eps, Level(1.0, level.sigma), Level(1.0, to.sigma), z, eta)
    assert ddim_std(level, to, eta) / to.a == pytest.approx(
        ddim_std(Level(1.0, level.sigma), Level(1.0, to.sigma), eta), rel=1e-12
    )
    torch.testing.assert_close(vp, ve, rtol=1e-12, atol=1e-12 * to.sigma)


def test_eta_0_draws_no_noise():
    x0, eps = noise("x0"), noise("eps")
    level, to = LEVELS[10], LEVELS[40]
    one, other = (ddim(x0, eps, level, to, noise(r), 0.0) for r in "ab")
    assert torch.equal(one, other)
    assert torch.equal(one, to.a * x0 + to.s * eps)


@pytest.mark.parametrize("c1", [0.0, 0.2, 0.6])
def test_renoise_keeps_the_level(c1):
    """Coefficients by unit inputs: with independent eps and z the variance is to.s^2."""
    to, one, zero = Level(0.8, 0.6), torch.ones(1, dtype=torch.float64), torch.zeros(1).double()
    of_x0 = renoise(one, zero, to, zero, c1)
    of_eps, of_z = renoise(zero, one, to, zero, c1), renoise(zero, zero, to, one, c1)
    assert float(of_x0) == 0.8 and float(of_z) == c1
    assert float(of_eps**2 + of_z**2) == pytest.approx(0.36, rel=1e-14)


def test_the_clean_level_takes_no_noise():
    x0 = noise("x0")
    assert torch.equal(renoise(x0, noise("eps"), CLEAN, noise("z"), 0.5), x0)
    assert torch.equal(ddim(x0, noise("eps"), LEVELS[5], CLEAN, noise("z"), 1.0), x0)


def test_climbing_is_without_fresh_noise():
    assert ddim_std(LEVELS[40], LEVELS[10], 1.0) == 0.0
    assert ddim_std(LEVELS[40], LEVELS[40], 1.0) == 0.0


@pytest.mark.parametrize("step", [0.25, 1, torch.tensor(0.25, dtype=torch.float64)])
def test_langevin_on_a_normal_law(step):
    """x -> (1 - h) x + sqrt(2 h) z on N(0, 1), read off by unit inputs."""
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    h = float(step)
    assert float(langevin(one, -one, step, zero)) == pytest.approx(1 - h, abs=EPS)
    assert float(langevin(zero, -zero, step, one)) == pytest.approx(math.sqrt(2 * h), rel=EPS)


def test_replace_overwrites_what_was_observed_and_nothing_else():
    x, z, level = noise("x"), noise("z"), Level(0.8, 0.6)
    A = TopHalf()
    problem = Problem(A(noise("truth")), A, NOISELESS, SHAPE[1:])
    new = replace(x, problem, level, z)
    close = {"rtol": 0, "atol": 100 * EPS}
    torch.testing.assert_close(A(new), level.a * problem.y + level.s * A(z), **close)
    assert torch.equal(new[..., 2:, :], x[..., 2:, :])
    assert torch.equal(replace(x, problem, level, z, lam=0.0), x)
    half = replace(x, problem, level, z, lam=0.5)
    torch.testing.assert_close(half, (x + new) / 2, **close)
    assert not torch.allclose(A(half), A(new))


def test_replace_by_a_full_measurement_forgets_the_state():
    z, level = noise("z"), Level(0.8, 0.6)
    A = ComposedLinear(Identity(), Identity())
    problem = Problem(noise("truth"), A, NOISELESS, SHAPE[1:])
    new = replace(noise("x"), problem, level, z)
    torch.testing.assert_close(new, 0.8 * problem.y + 0.6 * z, rtol=0, atol=100 * EPS)


def test_adam_is_torchs():
    """Ten steps on a quartic, by torch.optim; a moment that is not corrected is seen."""
    theirs = torch.tensor([1.0, -2.0, 0.3], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([theirs], lr=0.05)
    ours, m, v = theirs.detach().clone(), torch.zeros(3).double(), torch.zeros(3).double()
    for k in range(10):
        optimiser.zero_grad()
        (theirs**4).sum().backward()
        optimiser.step()
        uncorrected, _, _ = adam(4 * ours**3, m, v, k + 1)
        change, m, v = adam(4 * ours**3, m, v, k)
        assert (change - uncorrected).abs().max() > 1e-3
        ours = ours - 0.05 * change
        torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-12)
