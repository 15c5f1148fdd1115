"""Laws of the audit's verdicts: exact samples pass, wrong ones do not, and figures are right."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from invdiff.audit import conformal, stein
from invdiff.audit.cells import ratio_and_error
from invdiff.audit.counts import binomial_cdf, binomial_p, holm, places_p, share_interval
from invdiff.audit.coverage import (
    blurred_share,
    covered,
    expected,
    highest_density,
    interval_expected,
    interval_share,
    mean_p,
)
from invdiff.audit.ranks import band, ecp, ranks, shape, tarp_distances, uniform_p
from invdiff.core import InvdiffError

F64 = torch.float64


def draw(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_binomial_laws_are_those_of_scipy():
    from scipy import stats

    for n, p in ((1, 0.5), (40, 0.9), (300, 1 / 32)):
        assert binomial_cdf(n, p).numpy() == pytest.approx(stats.binom.cdf(range(n + 1), n, p))
    for k in (0, 7, 20):
        exact = stats.binomtest(k, 20).proportion_ci(0.95)
        assert share_interval(k, 20) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert binomial_p(36, 40, 0.9) == 1 and binomial_p(25, 40, 0.9) < 1e-4


def test_places_have_the_exact_law_of_sums():
    """All 6^3 places of three problems with 5 replicas, counted."""
    sums = [sum(p) for p in itertools.product(range(6), repeat=3)]
    for total in (0, 7, 15):
        found = places_p((total, 0, 0) if total < 6 else (5, total - 5 - 2, 2) if total < 13 else
                         (5, 5, 5), 5)  # fmt: skip
        assert found == pytest.approx(sum(s >= total for s in sums) / len(sums))
    assert places_p((0, 0, 0), 5) == pytest.approx(1)
    assert places_p((0, 0, 0), 5, True) == pytest.approx(2 / 216)


def test_holm_controls_what_bonferroni_would():
    assert holm({"a": 0.004, "b": 0.006, "c": 0.5}, 0.01) == {"a": False, "b": False, "c": False}
    assert holm({"a": 0.003, "b": 0.005, "c": 0.5}, 0.01) == {"a": True, "b": True, "c": False}
    assert holm({"a": 0.003, "b": 0.006, "c": 0.5}, 0.01) == {"a": True, "b": False, "c": False}


def test_uniform_ranks_pass_as_often_as_is_said_and_others_fail():
    rng, n, samples = np.random.default_rng(1), 100, 15
    p = [uniform_p(torch.from_numpy(rng.integers(0, samples + 1, n)), samples) for _ in range(400)]
    low, high = 400 * 0.05 - 4 * math.sqrt(400 * 0.0475), 400 * 0.05 + 4 * math.sqrt(400 * 0.0475)
    assert low < sum(v < 0.05 for v in p) < high
    narrow = ranks(draw(n), 0.5 * draw(n, samples, seed=1))
    wide = ranks(draw(n), 2 * draw(n, samples, seed=1))
    low_ = ranks(draw(n), draw(n, samples, seed=1) - 0.8)
    for found, word in ((narrow, "too narrow"), (wide, "too wide"), (low_, "samples too low")):
        assert uniform_p(found, samples) < 0.01 and shape(found, samples) == word


def test_the_band_holds_all_points_at_once():
    n, samples = 60, 15
    low, high = band(n, samples, 0.9)
    rng, inside = np.random.default_rng(3), 0
    for _ in range(500):
        counts = np.bincount(rng.integers(0, samples + 1, n), minlength=samples + 1)
        share = torch.from_numpy(counts.cumsum()[:-1] / n).float()
        inside += bool(((share >= low - 1e-6) & (share <= high + 1e-6)).all())
    assert abs(inside - 450) < 4 * math.sqrt(500 * 0.09)  # pointwise bands would hold about 300


def test_ties_are_split():
    """A sampler that returns the truth itself has uniform ranks; without the split all are 0."""
    truth = torch.ones(400)
    assert uniform_p(ranks(truth, truth[:, None].expand(400, 15)), 15) > 0.001
    assert uniform_p((truth[:, None] > truth[:, None].expand(400, 15)).sum(1), 15) < 0.001


def test_tarp_passes_exact_samples_in_many_dimensions_and_needs_references_that_follow_y():
    """x ~ N(0, I), y = x + n: with random references the prior passes, as is known."""
    n, samples, d = 150, 15, 400
    x, y = draw(n, d), draw(n, d) + draw(n, d, seed=1)
    exact = y[:, None] / 2 + draw(n, samples, d, seed=2) / math.sqrt(2)
    plain = draw(n, samples, d, seed=3)

    def p(cloud, at):
        return uniform_p(ranks(*tarp_distances(x, cloud, at), 1), samples)

    assert p(exact, y) > 0.01 and ecp(ranks(*tarp_distances(x, exact, y), 1), samples) < 0.15
    assert p(plain, y) < 1e-3 < 0.01 < p(plain, draw(n, d, seed=4))


def test_regions_of_exact_samples_hold_what_is_said_and_softmax_weights_do_not():
    """d = 64, S = 50: 45 / 51. Weights by density once more hold next to nothing."""
    n, samples, d = 400, 50, 64
    truth, cloud = -draw(n, d).square().sum(1) / 2, -draw(n, samples, d, seed=1).square().sum(2) / 2
    assert expected(0.9, samples) == 45 / 51
    found = covered(highest_density(truth, cloud), 0.9, samples)
    assert found.p > 0.001 and found.band[0] <= found.expected <= found.band[1]
    ordered = cloud.sort(1, descending=True).values
    last = (ordered.softmax(1).cumsum(1) < 0.9).sum(1)
    weighted = truth >= ordered.gather(1, last[:, None])[:, 0]
    assert float(weighted.double().mean()) < 0.2
    half = covered(highest_density(truth, cloud / 2), 0.9, samples)  # half the variance
    assert half.p < 1e-6


def test_intervals_of_pixels():
    truth, cloud = draw(200, 30), draw(200, 19, 30, seed=1)
    share = interval_share(truth, cloud)
    assert interval_expected(0.9, 19) == pytest.approx(0.9)
    assert mean_p(share, 0.9) > 0.001 and mean_p(interval_share(truth, 0.7 * cloud), 0.9) < 0.001


def test_the_kernel_is_that_of_its_definition():
    """u_ij by automatic differentiation, for a score that is not linear."""
    x, c = draw(2, 3), 0.7

    def score(v):
        return -v + torch.sin(v)

    def k(a, b):
        return (c * c + (a - b).square().sum()) ** -0.5

    a, b = (v.clone().requires_grad_() for v in x)
    ka, kb = torch.autograd.grad(k(a, b), (a, b), create_graph=True)
    trace = sum(torch.autograd.grad(ka[i], b, retain_graph=True)[0][i] for i in range(3))
    direct = k(a, b) * score(a) @ score(b) + score(a) @ kb + score(b) @ ka + trace
    assert stein.kernel_matrix(x, score(x), c)[0, 1] == pytest.approx(float(direct.detach()))


def stein_p(x: torch.Tensor, score: torch.Tensor, seed: int = 0) -> float:
    u = stein.kernel_matrix(x, score, 0.5)
    null = stein.bootstrap(u, x.shape[1], 199, seed)
    return stein.p_value(stein.discrepancy(u, x.shape[1]), null)


def test_stein_has_its_level_sees_half_the_variance_and_is_blind_to_a_missing_mode():
    p = [stein_p(x, -x, i) for i in range(100) for x in [draw(60, 8, seed=i)]]
    assert sum(v <= 0.05 for v in p) < 5 + 4 * math.sqrt(100 * 0.0475)
    x = math.sqrt(0.5) * draw(120, 8)
    assert stein_p(x, -x) < 0.01
    one = draw(60, 8) + 6  # of two modes at +-6
    pull = torch.tanh(one @ torch.full((8,), 6.0, dtype=F64))[:, None] * 6 - one
    assert stein_p(one, pull) > 0.05


def test_the_published_v_statistic_prefers_half_the_spread_and_ours_does_not():
    """Its diagonal is what it prefers: the square of a score that grows as samples spread."""
    scale = torch.cat([torch.full((4,), 0.2), torch.ones(12)]).double()
    v, p = [], []
    for x in (scale * draw(150, 16), 0.5 * scale * draw(150, 16)):
        v.append(float(stein.kernel_matrix(x, -x / scale.square(), 0.5).mean()))
        p.append(stein_p(x, -x / scale.square()))
    assert v[1] < v[0] and p[1] < 0.01 < p[0]


def test_widened_intervals_hold_what_they_promise():
    """On new images the risk is below epsilon; half the spread needs twice the factor."""
    truth, cloud = draw(120, 100), draw(120, 10, 100, seed=1)
    middle = cloud.mean(1, keepdim=True)
    right = conformal.widening(truth, cloud)
    narrow = conformal.widening(truth, middle + 0.5 * (cloud - middle))
    assert right.bound <= 0.1 and narrow.factor == pytest.approx(2 * right.factor, rel=0.02)
    new = draw(400, 100, seed=2), draw(400, 10, 100, seed=3)
    outside = (new[0] - new[1].mean(1)).abs() > narrow.factor * 0.5 * new[1].std(1)
    assert float(outside.double().mean()) < 0.1 < narrow.before
    with pytest.raises(InvdiffError, match="3 calibration images cannot promise"):
        conformal.widening(truth[:3], cloud[:3])


def test_noise_on_both_sides_keeps_the_share_of_exact_samples():
    """Also of those that are one value; who hardly differs and is wrong cannot hide."""
    exact, n = interval_expected(0.9, 15), 400
    truth, samples = draw(n, 100, seed=1), draw(n, 15, 100, seed=2)
    black = torch.zeros(n, 100), torch.zeros(n, 15, 100)
    nearly = 1e-3 * truth, 1e-4 * samples
    band = 5 * math.sqrt(exact * (1 - exact) / (100 * n))
    for t, s in ((truth, samples), black, nearly):
        assert float(blurred_share(t, s, 0.02).mean()) == pytest.approx(exact, abs=band)
    assert float(interval_share(*nearly).mean()) < 0.2
    assert float(blurred_share(truth, 1e-3 * samples, 0.02).mean()) < 0.1


def test_a_ratio_has_the_error_that_it_scatters_by():
    floor = 1 + 0.5 * draw(400, 50, seed=5).abs()
    values = 1.5 * floor + 0.3 * draw(400, 50, seed=6)
    each = [
        ratio_and_error(list(zip(*p, strict=True)))
        for p in zip(values.tolist(), floor.tolist(), strict=True)
    ]
    ratio, error = torch.tensor(each, dtype=F64).unbind(1)
    assert float(ratio.mean()) == pytest.approx(1.5, abs=0.01)
    assert float(error.mean()) == pytest.approx(float(ratio.std()), rel=0.1)


def test_the_bound_covers():
    """Of a risk above the bound the observed mean would be rarer than delta: binomial losses."""
    assert conformal.upper_bound(0.05, 100, 0.1) == pytest.approx(0.107, abs=1e-3)
    bound = conformal.upper_bound(0.0, 50, 0.1)
    assert (1 - bound) ** 50 == pytest.approx(0.1, rel=0.01)  # Hoeffding's is exact at 0
