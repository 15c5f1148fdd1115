"""The measured distance of every solver stays what docs/posterior.json says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from invdiff.audit.distance import CELLS, distances, floor, mean_and_error
from invdiff.solvers import registry

RECORD = json.loads((Path(__file__).parents[2] / "docs" / "posterior.json").read_text())
CHANGE = 0.01
"""Seeds are fixed, so a run repeats its distance up to round-off; a changed algorithm does not."""

CHAOTIC = {"mcg", "psld", "pyramid"}
"""Steps along a gradient whose length does not fall with the misfit: after hundreds of them,
round-off (of a batch of another size) decides. Their distance is compared within its standard
errors; that they are the paper's is tested by their transcriptions."""


def test_every_solver_was_measured_and_nothing_else():
    assert set(RECORD) == {"exact", *registry()}
    assert all(RECORD[name]["steps"] == cls().num_steps for name, cls in registry().items())


@pytest.mark.parametrize("name", registry())
def test_the_distance_is_the_recorded_one(name):
    (d, dy), recorded = CELLS[0], RECORD[name]["distances"]
    found = distances(registry()[name](), d, dy, 0, count=4 if name in CHAOTIC else 1)
    if found is None:
        assert not recorded
    elif name in CHAOTIC:
        pairs = [mean_and_error([rows]) for rows in (found, recorded[f"{d},{dy}"][0])]
        (a, s), (b, t) = pairs
        assert abs(a - b) < 4 * (s**2 + t**2) ** 0.5
    else:
        assert found[0] == pytest.approx(recorded[f"{d},{dy}"][0][0], rel=CHANGE)


def test_another_solver_is_another_distance():
    """Negative twin: the band tells solvers apart."""
    mine = distances(registry()["ddrm"](), *CELLS[0], 0, count=1)
    theirs = RECORD["mmps"]["distances"]["8,4"][0][0]
    assert mine is not None and mine[0] != pytest.approx(theirs, rel=10 * CHANGE)


def test_exact_clouds_are_at_the_recorded_floor():
    for d, dy in CELLS:
        assert floor(d, dy, 0) == pytest.approx(RECORD["exact"]["distances"][f"{d},{dy}"][0])


def test_the_exact_sampler_has_no_bias_and_a_sampler_that_ignores_y_is_far():
    for d, dy in CELLS:
        key = f"{d},{dy}"
        exact, error = mean_and_error(RECORD["exact"]["distances"][key])
        plain, other = mean_and_error(RECORD["unconditional"]["distances"][key])
        assert plain - exact > 4 * (error**2 + other**2) ** 0.5
