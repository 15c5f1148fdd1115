"""Samplers that are wrong in a known way are seen by what should see them; exact ones pass."""

from __future__ import annotations

import pytest
import torch

from invdiff.audit.controls import CONTROLS, BatchNorm, caught, mixed
from invdiff.audit.counts import binomial_p
from invdiff.audit.trial import REPLICAS, trial
from invdiff.audit.verdict import flagged, joined, of_cells, p_values
from invdiff.core.schedules import VP
from invdiff.solvers.dps import DPS

NUMBERS = range(60)


@pytest.mark.parametrize("name", [n for n in CONTROLS if n not in ("exact", "prior")])
def test_a_wrong_sampler_is_seen(name):
    found, bad = caught(name, NUMBERS)
    control = CONTROLS[name]
    assert set(control.seen_by) - {"rank tarp"} <= set(bad), found
    assert not set(control.blind) & set(bad)


def test_samples_of_the_prior_are_seen_by_what_depends_on_y():
    """Not by ranks of x alone: a sampler of the prior passes any f(x)."""
    found, bad = caught("prior", NUMBERS)
    assert {"distance", "modes", "residual", "rank residual", "stein"} <= set(bad)
    assert not {"rank seen", "rank modes"} & set(bad)


def test_exact_samples_pass_everything():
    found, bad = caught("exact", NUMBERS)
    assert bad == [] and len(found) == 11


def test_exact_samples_pass_as_often_as_is_said():
    """p-values of disjoint problems: of 8 sets and 11 measurements 5 % are below 0.05."""
    sets = [caught("exact", range(5 * i, 5 * i + 5))[0] for i in range(8)]
    low = sum(p < 0.05 for one in sets for p in one.values())
    assert binomial_p(low, 8 * 11, 0.05) > 0.001


def test_a_flag_needs_more_than_one_measurement_by_chance():
    values = {"distance_place": [REPLICAS] * 2, "modes_place": [9, 10], "inside": [True, True]}
    p = p_values(values, 31)
    assert p["distance"] == pytest.approx(1 / 400) and flagged(p) == ["distance"]
    assert flagged(p, 0.002) == []
    assert joined([values, values])["inside"] == [True] * 4


def test_cells_that_share_their_numbers_do_not_count_as_more_problems():
    """Exact ranks, nine times nearly the same, as a problem has them in nine cells: pooled they
    are flagged far too often. A solver that is wrong in one cell is seen."""
    g = torch.Generator().manual_seed(0)
    pooled = bounded = 0
    for _ in range(200):
        ranks = torch.randint(0, 51, (20,), generator=g)
        cells = [
            {"rank_x": (ranks + torch.randint(-2, 3, (20,), generator=g)).clamp(0, 50).tolist()}
            for _ in range(9)
        ]
        pooled += bool(flagged(p_values(joined(cells), 50)))
        bounded += bool(flagged(of_cells(cells, 50)))
    assert pooled > 40 and binomial_p(bounded, 200, 0.01) > 0.001
    wrong = {"rank_x": [0, 1, 2, 0, 1] * 4}
    assert flagged(of_cells([*cells[:8], wrong], 50)) == ["rank x"]
    assert of_cells([], 50) == {} and of_cells([wrong, {}], 50) == {}


def test_a_solver_that_sees_its_batch_is_found():
    t = trial(8, 2, 3)
    assert mixed(DPS(schedule=VP(10)), t.problem, t.prior, 4) < 1e-9
    assert mixed(BatchNorm(schedule=VP(10)), t.problem, t.prior, 4) > 0.1
