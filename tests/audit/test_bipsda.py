"""Four problems in ten dimensions: what is taken for their posteriors, and what the figures see."""

from __future__ import annotations

import pytest
import torch

from invdiff.audit import bipsda
from invdiff.audit.bipsda import Weighed, figures, measured, posterior, prior, problem, weighed
from invdiff.core.rng import Rng
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.dps import DPS
from invdiff.solvers.mmps import MMPS

F64 = torch.float64


@pytest.mark.parametrize("case", ["low", "high"])
def test_weighted_draws_have_the_moments_of_the_closed_form(case):
    """Within five errors of so many draws; a likelihood of another noise is seen."""
    law, exact = weighed(problem(case, 0)), prior().posterior(problem(case, 0))
    assert law.effective > bipsda.LEAST
    error = 5 * exact.cov.diag().sqrt() / law.effective**0.5
    assert bool(((law.weights @ law.draws - exact.mean.flatten()).abs() < error).all())
    off = law.draws - exact.mean.flatten()
    variance = exact.cov.diag()
    fourth = law.weights @ off**4  # of a mixture it is not three times the square
    close = 5 * ((fourth - variance**2) / law.effective).sqrt()
    assert bool(((law.weights @ off.square() - variance).abs() < close).all())
    other = weighed(problem("low" if case == "high" else "high", 0))
    assert not bool(((other.weights @ other.draws - exact.mean.flatten()).abs() < error).all())


@pytest.mark.parametrize("case", bipsda.CASES)
def test_every_posterior_is_known_by_enough_draws(case):
    assert all(posterior(case, number).effective > bipsda.LEAST for number in range(4))


def test_densities_are_those_of_the_paper():
    """log p(y | x) of phases and of counts, written out for one image."""
    x = prior().sample(1, Rng.of(5))
    B = bipsda.drawn(5, 10, 2)
    posed = problem("phase", 0)
    r = posed.y.flatten() - (B @ x.flatten()) ** 2
    gap = bipsda.likelihood(posed, x) - bipsda.likelihood(posed, 0 * x)
    want = -0.5 * (r.square().sum() - posed.y.square().sum()) / 25.0**2
    torch.testing.assert_close(gap[0], want)
    posed = problem("xray", 0)
    u = Rng.of(3).uniform(torch.empty(1, 15, 10, dtype=F64), "bipsda")[0]
    C, k = 0.01 + 0.04 * u, 1000 * posed.y.flatten()
    assert torch.equal(k, k.round()) and 0.01 <= float(C.min()) and float(C.max()) <= 0.05
    want = torch.distributions.Poisson(1000 * torch.exp(-C @ x.flatten())).log_prob(k).sum()
    torch.testing.assert_close(bipsda.likelihood(posed, x)[0], want)


def test_figures_see_what_is_wrong_and_pass_what_is_exact():
    law = posterior("high", 2)  # several modes
    sets = [figures(law.sample(seed), law, 9) for seed in range(1, 12)]
    most = {k: max(one[k] for one in sets[:8]) for k in bipsda.FIGURES}
    assert all(one[k] < 2 * most[k] for one in sets[8:] for k in most)
    mean = law.weights @ law.draws
    narrow = mean + (law.sample(1) - mean) / 2
    ignores = prior().sample(bipsda.SIZE, 3).flatten(1)
    for wrong, seen in ((narrow, ("variance", "moments", "mmd")), (ignores, bipsda.FIGURES)):
        found = figures(wrong, law, 9)
        assert all(found[k] > 2 * most[k] for k in seen)


def test_draws_of_a_law_have_its_weights():
    law = Weighed(torch.arange(3.0, dtype=F64)[:, None], torch.tensor([0.5, 0.1, 0.4], dtype=F64))
    counts = torch.bincount(law.sample(1).flatten().long(), minlength=3)
    assert law.effective == pytest.approx(1 / 0.42)
    assert (counts - torch.tensor([250, 50, 200])).abs().max() <= 1


def test_solvers_are_measured_where_they_can():
    """A linear one not on squares; moment matching is far nearer than the prior; DPS takes all."""
    assert measured(DDRM(), "phase", 1) is None and measured(MMPS(), "xray", 1) is None
    near, far = (measured(s, "low", 1) for s in (MMPS().with_steps(50), None))
    assert near is not None and far is not None
    assert near["mean"][0] < 0.1 * far["mean"][0] and near["mmd"][0] < 0.1 * far["mmd"][0]
    found = measured(DPS().with_steps(10), "phase", 1)
    assert found is not None and len(found["mean"]) == len(found["mean_exact"]) == 1
    assert found["effective"] > bipsda.LEAST
