"""Denoisers of other libraries: each, right for a normal law, gives that law's exact denoiser."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers import seeded
from invdiff.core import InvdiffError, Level
from invdiff.core.schedules import VP
from invdiff.noise import GaussianNoise
from invdiff.operators import AveragePool
from invdiff.priors.adapters import from_deepinv, from_eps_model, from_k_diffusion
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.solvers.dps import DPS

MU, TAU = 0.2, 0.3  # of pixels on [-1, 1]
BARS = VP(1000).alpha_bars()


def exact(x: Tensor, sigma: float) -> Tensor:
    return MU + TAU**2 / (TAU**2 + sigma**2) * (x - MU)


class OnUnitRange(nn.Module):
    """The denoiser of the same law on [0, 1], where mean and spread are other numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor((MU + 1) / 2, dtype=torch.float64))

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        variance = (TAU / 2) ** 2
        return self.mean + variance / (variance + sigma**2) * (x - self.mean)


def k_model(x: Tensor, sigma: Tensor) -> Tensor:
    assert sigma.shape == (len(x),) and sigma.dtype == x.dtype
    return torch.stack([exact(row, float(s)) for row, s in zip(x, sigma, strict=True)])


def eps_model(xt: Tensor, t: Tensor) -> Tensor:
    assert t.shape == (len(xt),) and t.dtype == torch.long
    a, s = math.sqrt(BARS[t[0]]), math.sqrt(1 - BARS[t[0]])
    return (xt - a * exact(xt / a, s / a)) / s


def learned_variance(xt: Tensor, t: Tensor) -> Tensor:
    return torch.cat([eps_model(xt, t), xt], 1)


PRIORS = {
    "deepinv": lambda: from_deepinv(OnUnitRange()),
    "k-diffusion": lambda: from_k_diffusion(k_model),
    "eps": lambda: from_eps_model(eps_model, BARS),
    "eps-tensor": lambda: from_eps_model(eps_model, torch.tensor(BARS)),
    "eps-variance": lambda: from_eps_model(learned_variance, BARS),
}


@pytest.mark.parametrize("kind", PRIORS)
def test_the_exact_denoiser(kind: str) -> None:
    prior, x = PRIORS[kind](), seeded(2, 3, 4, 4)
    for t in (0, 400, 999):
        sigma = math.sqrt((1 - BARS[t]) / BARS[t])
        torch.testing.assert_close(prior.denoise(x, sigma), exact(x, sigma), rtol=1e-9, atol=1e-9)
        x0, pull = prior.x0_vjp(0.5 * x, Level(0.5, 0.5 * sigma))
        torch.testing.assert_close(x0, exact(x, sigma), rtol=1e-9, atol=1e-9)
        want = TAU**2 / (TAU**2 + sigma**2) / 0.5 * x
        torch.testing.assert_close(pull(x), want, rtol=1e-9, atol=1e-9)
    assert prior.value_range == (-1.0, 1.0)


@pytest.mark.parametrize("kind", PRIORS)
def test_a_solver_runs_on_it(kind: str) -> None:
    A = AveragePool(2, (4, 4))
    problem = Problem(seeded(1, 3, 2, 2), A, GaussianNoise(0.1), (3, 4, 4))
    assert solve(problem, PRIORS[kind](), DPS(schedule=VP(3))).samples.isfinite().all()


def test_the_range_matters() -> None:
    """Negative twin: taken for a denoiser on [-1, 1], it is another one."""
    x = seeded(1, 3, 4, 4)
    assert (OnUnitRange()(x, 0.5) - exact(x, 0.5)).abs().max() > 0.1


def test_networks_are_frozen() -> None:
    net = OnUnitRange()
    from_deepinv(net)
    assert not net.training and not net.mean.requires_grad
    net = OnUnitRange()
    prior = from_eps_model(net, BARS)
    assert not net.mean.requires_grad and len(prior.fingerprint) == 16


def test_a_physics_is_no_denoiser() -> None:
    class Physics:
        def A(self, x: object) -> object:
            return x

        __call__ = A

    with pytest.raises(InvdiffError, match=r"found Physics; Operator\.from_deepinv"):
        from_deepinv(Physics())


def test_a_table_that_rises() -> None:
    with pytest.raises(InvdiffError, match="falls strictly"):
        from_eps_model(eps_model, np.linspace(0.1, 0.9, 10))
