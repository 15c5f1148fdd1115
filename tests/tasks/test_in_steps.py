"""`--steps`: a run that is shorter than its preset ends earlier, and what is told wins."""

from __future__ import annotations

import numpy as np
import pytest

import invdiff
from invdiff.restoration.knobs import as_asked
from invdiff.tasks import TASKS
from invdiff.tasks.auto import LAST, configured, in_steps

TOY = TASKS["super-resolution"].toy()


def preset(name: str):
    return configured(TASKS["super-resolution"], name, TOY)


@pytest.mark.parametrize("name", ["ddrm", "spectral-ancestral", "diffpir"])
def test_fewer_steps_end_earlier(name: str) -> None:
    """Never below the preset, never above a fifth of the start, with the same start."""
    whole, ends = preset(name), []
    for steps in (2, 4, 8, whole.num_steps - 1):
        found = in_steps(whole, steps)
        assert found.num_steps == steps
        assert found.levels[0].sigma == pytest.approx(whole.levels[0].sigma)
        ends.append(found.levels[-2].sigma)
        top = found.levels[0].sigma / 5
        expected = max(whole.levels[-2].sigma, min(LAST / steps, top))
        assert ends[-1] == pytest.approx(expected)
    assert ends == sorted(ends, reverse=True) and ends[0] > whole.levels[-2].sigma


def test_a_preset_and_more_steps_keep_their_end() -> None:
    whole = preset("ddrm")
    for steps in (whole.num_steps, whole.num_steps + 30):
        assert in_steps(whole, steps) == whole.with_steps(steps)


@pytest.mark.parametrize("name", ["hqs", "dps"])
def test_estimates_and_tables_keep_their_levels(name: str) -> None:
    """hqs follows the noise of y to its end; VP has the levels of a network's training."""
    whole = preset(name)
    assert in_steps(whole, 3) == whole.with_steps(3)


def test_what_is_told_wins() -> None:
    whole = preset("ddrm")
    found = as_asked(whole, {"schedule.sigma_min": "0.003"}, 3)
    assert found.schedule.sigma_min == 0.003 and found.num_steps == 3
    assert as_asked(whole, {"eta_b": "0.5"}, 3) == as_asked(
        in_steps(whole, 3), {"eta_b": "0.5"}, None
    )
    assert as_asked(whole, {}, None) is whole


def test_a_solver_of_the_users_own_keeps_its_schedule() -> None:
    """In Python a solver object is taken as it is, but for the number of its steps."""
    own, picture = preset("ddrm"), np.full((8, 8, 3), 0.5)
    for solver, expected in ((own, own.with_steps(2)), ("ddrm", in_steps(own, 2))):
        found = invdiff.restore(
            "super-resolution", picture, scale=2, noise=0.05, solver=solver, steps=2, samples=1,
            want="samples", progress=False,
        )  # fmt: skip
        told = found.result.config["solver"]
        assert told["fields"]["schedule"]["fields"]["sigma_min"] == pytest.approx(
            expected.schedule.sigma_min
        ), told
