"""Samplers that are wrong in a known way are seen by what should see them; exact ones pass."""

from __future__ import annotations

import pytest

from invdiff.audit.controls import CONTROLS, BatchNorm, caught, mixed
from invdiff.audit.counts import binomial_p
from invdiff.audit.trial import REPLICAS, trial
from invdiff.audit.verdict import flagged, joined, p_values
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


def test_a_solver_that_sees_its_batch_is_found():
    t = trial(8, 2, 3)
    assert mixed(DPS(schedule=VP(10)), t.problem, t.prior, 4) < 1e-9
    assert mixed(BatchNorm(schedule=VP(10)), t.problem, t.prior, 4) > 0.1
