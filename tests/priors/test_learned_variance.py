"""Networks that learned the variance of their steps: what they give, and what solvers do."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from helpers import seeded
from invdiff.core import CLEAN, InvdiffError
from invdiff.core.schedules import VP
from invdiff.noise import NOISELESS
from invdiff.operators import AveragePool
from invdiff.priors.base import Counted
from invdiff.priors.precond import NetworkPrior, Precond
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import IncompatibleError, Need
from invdiff.sampling.run import solve
from invdiff.solvers.dps import DPS
from invdiff.solvers.ilvr import ILVR
from invdiff.solvers.mcg import MCG

SAME = Precond(lambda s: 1.0, lambda s: 0.0, lambda s: 1.0, lambda s: s)
A = AveragePool(2, (4, 4))
PROBLEM = Problem(A(seeded(1, 3, 4, 4)), A, NOISELESS, (3, 4, 4))
SOLVERS = [
    DPS(variance="learned", schedule=VP(5)),
    ILVR(variance="learned", schedule=VP(5)),
    MCG(variance="learned", schedule=VP(5)),
]
each_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.name)


def prior(v: float | None, learned: bool = True) -> NetworkPrior:
    """x0 = x / (1 + sigma^2), with v in as many further channels."""

    def net(x, time):
        x0 = x / (1 + float(time[0]) ** 2)
        return x0 if v is None else torch.cat([x0, torch.full_like(x0, v)], 1)

    return NetworkPrior(net, SAME, learned_variance=learned)


@each_solver
def test_the_lower_end_is_the_lower_bound(solver):
    """v = -1 is the variance of variance "lower"; v = 1 is another."""
    lower = dataclasses.replace(solver, variance="lower")
    plain = solve(PROBLEM, prior(-1.0), lower).samples
    torch.testing.assert_close(solve(PROBLEM, prior(-1.0), solver).samples, plain)
    assert not torch.allclose(solve(PROBLEM, prior(1.0), solver).samples, plain, atol=1e-3)
    assert torch.equal(solve(PROBLEM, prior(0.5), lower).samples, plain)  # v is not read


@each_solver
def test_it_costs_nothing(solver):
    lower = dataclasses.replace(solver, variance="lower")
    told, plain = (solve(PROBLEM, prior(0.3), s) for s in (solver, lower))
    assert (told.nfe, told.vjps) == (plain.nfe, plain.vjps)


@each_solver
def test_a_prior_without_is_refused(solver):
    with pytest.raises(IncompatibleError, match="a prior that learned its variance and this one"):
        solve(PROBLEM, prior(None, learned=False), solver)
    with pytest.raises(InvdiffError, match="no learned variance beside its 3 channels"):
        solve(PROBLEM, prior(None), solver)
    assert not dataclasses.replace(solver, variance="lower").always_needs(Need.LEARNED_VARIANCE)


def test_the_variance_is_between_the_two_bounds():
    """Nichol and Dhariwal 2021, eq. 15, for one step of the table: ln beta and ln beta-tilde."""
    level, to = VP(20).levels()[3:5]
    beta = 1 - (level.a / to.a) ** 2
    tilde = beta * to.s**2 / level.s**2
    for v, variance in ((-1.0, tilde), (1.0, beta), (0.0, (beta * tilde) ** 0.5)):
        z = steps.spread(torch.ones(1, dtype=torch.float64), torch.tensor([v]).double(), level, to)
        assert float(z * steps.ddim_std(level, to, 1.0)) ** 2 == pytest.approx(variance)
    assert steps.spread(torch.ones(1), torch.ones(1), level, CLEAN) == 1


def test_x0_v_is_x0_with_v():
    x, level = seeded(2, 3, 4, 4), VP(20).levels()[5]
    counted = Counted(prior(0.25))
    x0, v = counted.x0_v(x, level)
    assert torch.equal(x0, prior(0.25).x0(x, level)) and (v == 0.25).all()
    again, v, pull = counted.x0_v_vjp(x, level)
    w = seeded(2, 3, 4, 4, seed=1)
    assert torch.equal(again, x0) and (v == 0.25).all()
    torch.testing.assert_close(pull(w), prior(0.25).x0_vjp(x, level)[1](w))
    assert (counted.nfe, counted.vjps) == (2, 1)
