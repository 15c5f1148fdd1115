"""log p by the probability-flow equation, against densities that are known in closed form."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import seeded, seeds
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.priors.base import Counted, Denoiser, Prior
from invdiff.priors.gaussian import GaussianMixture, GaussianPrior
from invdiff.priors.likelihood import ProbabilityFlow, Window, rademacher

SHAPE = (1, 1, 2)
ROWS = 3
ROOT = seeded(2, 2, seed=1) / 3 + 0.4 * torch.eye(2, dtype=torch.float64)
NORMAL = GaussianPrior(seeded(*SHAPE, seed=2) / 3, ROOT @ ROOT.T)
MIXTURE = GaussianMixture(
    [0.3, 0.5, 0.2], seeded(3, *SHAPE, seed=3), torch.tensor([0.1, 0.3, 0.05])
)
PRIORS = {"normal": NORMAL, "mixture": MIXTURE}
FAR = Window(0.01, 1e5)  # the law at sigma_max is N(0, sigma_max^2) to 1e-5
CLOUD = {name: p.sample(ROWS, 5).double() for name, p in PRIORS.items()}
each_prior = pytest.mark.parametrize("name", PRIORS)


def score(prior: GaussianMixture, x: Tensor, sigma: float) -> Tensor:
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        return torch.autograd.grad(prior.log_prob(x, sigma).sum(), x)[0]


@each_prior
def test_exact_trace_is_the_density(name):
    """Within 1e-4, at the level at which x is scored; at another level it is not."""
    x, flow = CLOUD[name], ProbabilityFlow(FAR, steps=60)
    found = flow.log_prob(PRIORS[name], x)
    torch.testing.assert_close(found, PRIORS[name].log_prob(x, 0.01), rtol=1e-4, atol=1e-4)
    other = PRIORS[name].log_prob(x, 0.1)
    assert ((found - other).abs() > 1e-2).all()


@each_prior
def test_steps_converge_with_the_fourth_order(name):
    """Halving the step divides the error of the integral by about 2^4; at least by 2^3 here."""
    x, window = CLOUD[name], Window(0.1, 50.0)
    fine = ProbabilityFlow(window, steps=100).log_prob(PRIORS[name], x)
    errors = [
        float((ProbabilityFlow(window, steps=n).log_prob(PRIORS[name], x) - fine).abs().max())
        for n in (15, 30)
    ]
    assert errors[1] < errors[0] / 8 and errors[1] < 1e-4


def test_the_law_at_the_noisy_end_matters():
    """It is exact for data N(0, data_std^2) whatever sigma_max; else off by O(|mean| / sigma_max).

    12.46 is where the official default beta_max = 10 ends, instead of 152 for 20.
    """
    x = 0.7 * seeded(ROWS, *SHAPE, seed=6)
    for std in (1.0, 0.5):
        prior = GaussianPrior(torch.zeros(SHAPE, dtype=torch.float64), std**2)
        found = ProbabilityFlow(Window(0.05, 2.0, std), steps=40).log_prob(prior, x)
        torch.testing.assert_close(found, prior.log_prob(x, 0.05), rtol=1e-6, atol=1e-6)
        wrong = ProbabilityFlow(Window(0.05, 2.0, 0.0), steps=20).log_prob(prior, x)
        assert (wrong - found).abs().max() > 1e-2
    errors = []
    for top in (12.46, 124.6):
        found = ProbabilityFlow(Window(0.01, top), steps=30).log_prob(NORMAL, CLOUD["normal"])
        errors.append((found - NORMAL.log_prob(CLOUD["normal"], 0.01)).abs().max())
    assert errors[0] > 5e-3 and 5 < errors[0] / errors[1] < 20


def paper_vp(u: np.ndarray, steps: int = 400) -> tuple[float, float, float]:
    """log p_{t0}(u) as printed in the paper: VP-continuous, t from 1e-3 to 1, prior N(0, I).

    dx/dt = -beta/2 (x + score), dl/dt = its divergence, log p = log N(x_1; 0, I) + l.
    Also the ratio s / a at both ends.
    """
    mu, cov = NORMAL.mean.numpy().ravel(), NORMAL.cov.numpy()
    n = len(mu)

    def a(t):
        return math.exp(-0.5 * (0.1 * t + 0.5 * t**2 * (20 - 0.1)))

    def rhs(t, state):
        beta = 0.1 + t * (20 - 0.1)
        inverse = np.linalg.inv(a(t) ** 2 * cov + (1 - a(t) ** 2) * np.eye(n))
        drift = -beta / 2 * (state[:n] - inverse @ (state[:n] - a(t) * mu))
        return np.append(drift, -beta / 2 * (n - np.trace(inverse)))

    state, grid = np.append(u, 0.0), np.geomspace(1e-3, 1, steps + 1)
    for t, end in zip(grid[:-1], grid[1:], strict=True):
        h = end - t
        k1 = rhs(t, state)
        k2 = rhs(t + h / 2, state + h / 2 * k1)
        k3 = rhs(t + h / 2, state + h / 2 * k2)
        k4 = rhs(end, state + h * k3)
        state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    log_p = -0.5 * state[:n] @ state[:n] - n / 2 * math.log(2 * math.pi) + state[n]
    return log_p, *(math.sqrt(1 - a(t) ** 2) / a(t) for t in (1e-3, 1))


def test_the_papers_equation_is_the_same_in_another_frame():
    """u = a x: log p_u(u) = log p_x(u / a) - n log a; the error at the noisy end is the same too.

    Tolerance: both solvers are of fourth order and 40 times finer than needed for 1e-7.
    """
    u = CLOUD["normal"][:1] * 0.9
    log_p, low, high = paper_vp(u.numpy().ravel())
    a0 = 1 / math.hypot(1, low)
    flow = ProbabilityFlow(Window(low, high, 1.0), steps=100)
    found = float(flow.log_prob(NORMAL, u / a0)) - 2 * math.log(a0)
    assert found == pytest.approx(log_p, abs=1e-6)
    other = ProbabilityFlow(Window(low, 0.9 * high, 1.0), steps=100)
    assert float(other.log_prob(NORMAL, u / a0)) - 2 * math.log(a0) != pytest.approx(
        log_p, abs=1e-5
    )


def test_hutchinson_is_unbiased():
    """Mean over 400 probes within 4 standard errors of the exact trace, sample by sample."""
    flow, x, n = ProbabilityFlow(FAR, steps=12), CLOUD["normal"][:1], 400
    exact = flow.log_prob(NORMAL, x)
    rows = x.expand(n, *SHAPE)
    found = flow.log_prob(NORMAL, rows, rademacher(rows, 1, Rng.of(range(n))))
    error = found.std() / math.sqrt(n)
    assert found.std() > 1e-3
    assert (found.mean() - exact).abs() < 4 * error
    assert (found.mean() - exact + 8 * error).abs() > 4 * error


def test_probes_are_signs_of_the_samples_own_seed():
    x = seeded(3, *SHAPE)
    probes = rademacher(x, 5, Rng.of((4, 5, 6)))
    assert probes.shape == (5, 3, *SHAPE) and torch.equal(probes.abs(), torch.ones_like(probes))
    assert torch.equal(probes[:, 1:2], rademacher(x[1:2], 5, Rng.of((5,))))
    assert len({tuple(p.flatten().tolist()) for p in probes}) == 5


@each_prior
def test_gradient_is_the_score(name):
    """With the exact trace, and up to the law at the noisy end."""
    x = CLOUD[name][:2]
    log_p, grad = ProbabilityFlow(FAR, steps=80).log_prob_grad(PRIORS[name], x)
    want = score(PRIORS[name], x, 0.01)
    assert (grad - want).abs().max() < 1e-4 * want.abs().max()
    torch.testing.assert_close(log_p, ProbabilityFlow(FAR, steps=80).log_prob(PRIORS[name], x))
    assert (grad - score(PRIORS[name], x, 0.1)).abs().max() > 1e-2


def test_gradient_of_few_steps_and_probes_is_that_of_what_is_computed():
    """Central differences, on a prior whose Jacobian depends on x."""
    x, flow = CLOUD["mixture"], ProbabilityFlow(Window(0.05, 20.0), steps=5)
    probes = rademacher(x, 2, Rng.of(seeds(ROWS)))
    _, grad = flow.log_prob_grad(MIXTURE, x, probes)
    v = seeded(*x.shape, seed=9)
    ends = [flow.log_prob(MIXTURE, x + h * v, probes) for h in (1e-4, -1e-4)]
    slope = (grad * v).flatten(1).sum(1)
    torch.testing.assert_close((ends[0] - ends[1]) / 2e-4, slope, rtol=1e-5, atol=1e-6)
    assert ((ends[0] - ends[1]) / 2e-4 - 1.01 * slope).abs().max() > 1e-3


def test_the_adaptive_solver_agrees():
    """Dormand-Prince by torchdiffeq, with its adjoint: the same to ten times its tolerance."""
    x, window = CLOUD["mixture"][:2], Window(0.05, 50.0)
    adaptive = ProbabilityFlow(window, "dopri5", rtol=1e-4, atol=1e-6)
    fixed = ProbabilityFlow(window, steps=60)
    log_p, grad = adaptive.log_prob_grad(MIXTURE, x)
    want, slope = fixed.log_prob_grad(MIXTURE, x)
    torch.testing.assert_close(log_p, want, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(adaptive.log_prob(MIXTURE, x), log_p, rtol=0, atol=1e-9)
    torch.testing.assert_close(grad, slope, rtol=0, atol=1e-3 * float(slope.abs().max()))
    loose = ProbabilityFlow(window, "dopri5", rtol=1e-1, atol=1e-1).log_prob(MIXTURE, x)
    assert (loose - want).abs().max() > 2e-3


def elementwise(x: Tensor, sigma: float) -> Tensor:
    """Half of the pixels at -0.6, half at 0.6, plus N(0, 0.04): no sums over a batch."""
    total = 0.04 + sigma**2
    return (0.04 * x + sigma**2 * 0.6 * torch.tanh(0.6 * x / total)) / total


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_do_not_see_each_other(dtype):
    """Bit for bit with rk4; the adaptive solver shares its steps, and shows it."""
    x, prior = seeded(4, 1, 3, 3, dtype=dtype), Denoiser(elementwise)
    x[3] *= 10
    probes = rademacher(x, 2, Rng.of(seeds(4)))
    flow = ProbabilityFlow(steps=6)
    log_p, grad = flow.log_prob_grad(prior, x, probes)
    assert log_p.dtype == grad.dtype == dtype
    for i in range(4):
        row = slice(i, i + 1)
        own = flow.log_prob_grad(prior, x[row], probes[:, row])
        assert torch.equal(own[0], log_p[row]) and torch.equal(own[1], grad[row])
    if dtype == torch.float64:
        adaptive = ProbabilityFlow(method="dopri5")
        together = adaptive.log_prob(prior, x, probes)[:1]
        assert not torch.equal(together, adaptive.log_prob(prior, x[:1], probes[:, :1]))


def test_cost():
    """4 evaluations a step, with one product for each probe, or for each pixel."""
    x = seeded(2, 1, 3, 3)
    for probes, each in ((rademacher(x, 2, Rng.of((0, 1))), 2), (None, 9)):
        counted = Counted(Denoiser(elementwise))
        ProbabilityFlow(steps=5).log_prob(counted, x, probes)
        assert (counted.nfe, counted.vjps) == (20, 20 * each)


def test_the_window_keeps_to_the_levels_of_the_prior():
    prior: Prior = Denoiser(elementwise)
    prior.sigma_min, prior.sigma_max = 0.02, 30.0
    assert Window().of(prior) == Window(0.02, 30.0, 1.0)
    assert Window(0.1, 5.0, 0.5).of(prior) == Window(0.1, 5.0, 0.5)
    x = seeded(1, 1, 2, 2)
    assert torch.equal(
        ProbabilityFlow().log_prob(prior, x),
        ProbabilityFlow(Window(0.02, 30.0)).log_prob(Denoiser(elementwise), x),
    )


@pytest.mark.parametrize("levels", [(0.0, 1.0), (2.0, 1.0), (0.1, math.inf), (0.1, 1.0, -1.0)])
def test_windows_refuse(levels):
    with pytest.raises(InvdiffError, match="0 < sigma_min <= sigma_max"):
        Window(*levels)


def test_solvers_refuse(monkeypatch):
    with pytest.raises(InvdiffError, match="rk4 in at least 1 step, or by dopri5"):
        ProbabilityFlow(method="euler")
    with pytest.raises(InvdiffError, match="at least 1 step"):
        ProbabilityFlow(steps=0)
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(InvdiffError, match=r"pip install invdiff\[bayes\]"):
        ProbabilityFlow(method="dopri5").log_prob(NORMAL, CLOUD["normal"])
