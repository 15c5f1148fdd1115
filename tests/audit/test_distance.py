"""The measured distance of every solver stays what docs/posterior.json says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from invdiff.audit.calibration import normal_problem, spread
from invdiff.audit.cells import mean_and_error
from invdiff.audit.distance import (
    CELLS,
    MOST_STEPS,
    floor,
    judged,
    measured,
    nearer,
    rows,
)
from invdiff.audit.gmm25 import gmm25_problem
from invdiff.solvers import registry

RECORD = json.loads((Path(__file__).parents[2] / "docs" / "posterior.json").read_text())
CHANGE = 0.01
"""Seeds are fixed, so a run repeats its distance up to round-off; a changed algorithm does not."""

CHAOTIC = {"mcg", "psld", "pyramid", "pigdm, paper"}
"""Round-off decides where their samples go: steps along a gradient whose length does not fall with
the misfit, or an unstable one. A relative change of y of 1e-13 moves the
distance of one cloud of pyramid by a factor of 4, so that FACTOR is all that can be asked; that
they are the paper's is tested by their transcriptions. The score of PiGDM moves by 1e-8."""
MOVED = {"tmpd": 0.009, "score-medical-baseline": 0.021, "score-prior": 0.33}
"""By how much, relatively, a relative change of the denoiser by 1e-7 moves the distance. Normal
numbers are float32, and differ so much from one processor to another. MMPS moves by 2e-7."""
FACTOR = 6.0
SOLVERS = rows()


def cell_of(name: str, key: str, cell: tuple[int, int] = CELLS[0]) -> list[float]:
    found: list[float] = RECORD[name]["cells"]["{},{}".format(*cell)][key]
    return found


def test_every_solver_was_measured_and_nothing_else():
    assert set(RECORD) == {"exact", *SOLVERS}
    assert set(SOLVERS) > set(registry())
    assert max(solver.num_steps for solver in SOLVERS.values()) == MOST_STEPS
    assert all(RECORD[n]["steps"] == s.num_steps for n, s in SOLVERS.items())
    for row in RECORD.values():
        assert all(len(v) == 16 for cell in row["cells"].values() for v in cell.values())


@pytest.mark.parametrize("name", SOLVERS)
def test_the_distance_is_the_recorded_one(name):
    found, recorded = measured(SOLVERS[name], *CELLS[0], 0, clouds=1), RECORD[name]["check"]
    if found is None:
        assert recorded is None and not RECORD[name]["cells"]
    elif name in CHAOTIC:
        assert recorded / FACTOR < found.distance < FACTOR * recorded
    else:
        assert found.distance == pytest.approx(recorded, rel=max(CHANGE, 3 * MOVED.get(name, 0)))


def test_another_solver_is_another_distance():
    """Negative twin: the band tells solvers apart."""
    mine = measured(SOLVERS["ddrm"], *CELLS[0], 0, clouds=1)
    assert mine is not None
    assert mine.distance != pytest.approx(RECORD["mmps"]["check"], rel=10 * CHANGE)


def test_exact_clouds_are_at_the_recorded_floor():
    for cell in CELLS:
        found = floor(*cell, 0)
        for key, value in found._asdict().items():
            assert value == pytest.approx(cell_of("exact", key, cell)[0], abs=1e-5)
        assert found.modes < 0.1 and found.ess == 1


def test_the_exact_sampler_has_no_bias_and_a_sampler_that_ignores_y_is_far():
    for cell in CELLS:
        exact, plain = (cell_of(n, "distance", cell) for n in ("exact", "unconditional"))
        assert nearer(exact, plain, errors=4) and not nearer(plain, exact, errors=0)
        modes = mean_and_error(cell_of("unconditional", "modes", cell))[0]
        assert modes > 0.5 > 10 * mean_and_error(cell_of("exact", "modes", cell))[0]


def both(name: str) -> float:
    return sum(mean_and_error(cell_of(name, "distance", cell))[0] for cell in CELLS) / len(CELLS)


def test_weighted_samples_and_the_score_come_as_near_as_is_said():
    """Weighted MMPS: within 1.5 of the floor; the score of PiGDM below 2.5, and the printed not."""
    assert both("mmps, weights, wide") < 1.5 * both("exact") < both("mmps, wide")
    assert both("pigdm") < 2.5 < both("pigdm, paper")


def test_a_drawn_x0_is_calibrated_at_few_steps():
    for name, low, high in (("mmps, draw, 20 steps", 0.9, 1.1), ("mmps, 20 steps", 0.4, 0.8)):
        assert all(low < ratio < high for ratio in RECORD[name]["spread"])


def test_what_is_judged_is_seen():
    """Samples of one wrong mode, and samples that are y's own noise."""
    cell = gmm25_problem(*CELLS[0], 0)
    means = cell.prior.means
    wrong = means[int(cell.posterior().weights.argmin())].expand(50, *means.shape[1:])
    assert judged(cell, cell.problem, wrong).modes > 0.99
    fits = cell.problem.A.pinv(cell.problem.y).expand(50, *means.shape[1:])
    assert judged(cell, cell.problem, fits).residual < 1e-20
    assert judged(cell, cell.problem, cell.prior.sample(50, 0)).residual > 2


def test_spread_is_1_for_exact_samples_and_not_for_others():
    """Within 5 standard errors; without y, the seen variance is the prior's."""
    seen, unseen = spread(None)
    assert abs(seen - 1) < 5 / 400**0.5 and abs(unseen - 1) < 5 / 1200**0.5
    problem, _ = normal_problem()
    s2 = problem.spectral.s[:2].square()
    prior = float(((s2 + 0.09) / 0.09).mean())
    assert spread(SOLVERS["unconditional"])[0] == pytest.approx(prior, rel=0.25)


def test_nearer_wants_more_than_luck():
    one, other = [1.0, 5.0, 2.0, 9.0], [1.5, 5.6, 2.4, 9.5]
    assert nearer(one, other) and not nearer(other, one) and not nearer(one, one)
    assert not nearer(one, [1.5, 4.0, 4.0, 9.5])
