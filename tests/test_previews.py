"""What is seen of a restoration while it runs, going on from it, races, and directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from invdiff import fields, restore
from invdiff.audit import records
from invdiff.core import InvdiffError
from invdiff.restoration.directions import _directions, directions
from invdiff.restoration.job import prepare
from invdiff.restoration.preview import Preview
from invdiff.restoration.race import PULL, race
from invdiff.tasks import task_class

PHOTO = np.random.default_rng(0).random((16, 16, 3)).astype(np.float32)
QUICK = {"mask": "box:4,4,6,6", "samples": 3, "batch": 2, "steps": 3, "progress": False}


class Halted(Exception):
    """Ends a run."""


def test_a_run_goes_on_from_any_preview() -> None:
    """Bit for bit, from the estimate and from the second batch; what is done is not done again."""
    seen: list[Preview] = []
    whole = restore("inpaint", PHOTO, preview=seen.append, **QUICK)
    parts = [p.part for p in seen]
    assert parts == sorted(parts) and set(parts) == {"estimate", "samples"}
    last = seen[-1]
    assert last.steps_done == last.steps == 6 and last.left == 0 and last.evaluations == 6
    assert seen[-1].images().shape == (1, 16, 16, 3)  # of the second batch
    assert all(p.left is None or p.left > 0 for p in seen[:-1])
    for stop in (10, len(seen) - 2):
        kept = seen[stop].progress
        again: list[Preview] = []
        done = restore("inpaint", PHOTO, preview=again.append, start=kept, **QUICK)
        np.testing.assert_array_equal(done.samples, whole.samples)
        np.testing.assert_array_equal(done.estimate, whole.estimate)
        assert len(again) <= len(seen) - stop + 1


def test_a_preview_ends_a_run() -> None:
    def halt(preview: Preview) -> None:
        if preview.steps_done == 2:
            raise Halted

    with pytest.raises(Halted):
        restore("inpaint", PHOTO, preview=halt, **QUICK)


def test_directions_are_those_of_the_covariance() -> None:
    """Of values with a known law: one direction of deviation 3, one of 1, and nothing else."""
    torch.manual_seed(0)
    axes = torch.linalg.qr(torch.randn(48, 2, dtype=torch.float64)).Q.mT
    drawn = torch.randn(400, 2, dtype=torch.float64) * torch.tensor([3.0, 1.0])
    found = _directions((drawn @ axes + 5).reshape(400, 3, 4, 4), 5)
    assert len(found.axes) == 2  # the others have no variance
    flat = found.axes.flatten(1)
    torch.testing.assert_close(flat @ flat.mT, torch.eye(2, dtype=torch.float64))
    assert abs(float(flat[0] @ axes[0])) > 0.99  # 1 - O(1 / (9 * 400))
    exact = drawn.T.cov().float()
    assert found.deviations[0] ** 2 >= exact.max() - 1e-4
    torch.testing.assert_close((found.deviations**2).sum(), exact.trace())
    torch.testing.assert_close(found.share.sum(), torch.tensor(1.0))
    moved = found.at([2.0]) - found.middle
    torch.testing.assert_close(moved, 2.0 * found.deviations[0].double() * found.axes[0])
    with pytest.raises(InvdiffError, match="There are 2 directions, but 3 were given"):
        found.at([0.0] * 3)
    one = restore("inpaint", PHOTO, **QUICK | {"samples": 1})
    with pytest.raises(InvdiffError, match="without two samples"):
        directions(one)
    two = restore("inpaint", PHOTO, **QUICK | {"samples": 2})
    (axis,) = directions(two).axes  # K - 1 of them: along the line through both
    apart = torch.from_numpy(two.samples[0] - two.samples[1]).permute(2, 0, 1)
    assert abs(float((axis * apart).sum() / apart.norm())) == pytest.approx(1, abs=1e-4)


def test_a_race_is_at_equal_cost(tmp_path) -> None:
    np.save(tmp_path / "photo.npy", PHOTO)
    task = fields.build(task_class("inpaint"), {"mask": "box:4,4,6,6"}, "inpaint")
    job = prepare(task, tmp_path / "photo.npy", want="samples", samples=1)
    laps = list(race(job, task, ["ddrm", "dps", "daps"], 12))
    last = {lap.solver: lap for lap in laps}
    assert [lap.cost for lap in last.values()] == [12, 12, 12]
    assert last["dps"].gradients == last["dps"].evaluations == 12 / (1 + PULL)
    assert all(lap.step == lap.steps for lap in last.values())
    behind = [max(a.cost for a in laps[:i]) - lap.cost for i, lap in enumerate(laps) if i > 3]
    assert max(behind) <= 1 + PULL  # nobody is further behind than one step
    assert all(lap.misfit is not None and lap.values.shape == (3, 16, 16) for lap in laps)
    for names, cost, said in (
        (["ddrm"], 12, "between 2 and 4 solvers, found 1"),
        (["ddrm", "ddrm"], 12, "between 2 and 4 solvers, found 1"),
        (["ddrm", "dps"], 2, "A step of dps costs 3 evaluations, but 2 were allowed"),
        (["ddrm", "ddrm-jpeg"], 12, "ddrm-jpeg"),
    ):
        with pytest.raises(InvdiffError, match=said):
            next(race(job, task, names, cost))


def test_a_race_of_solvers_whose_path_begins_at_the_noise(tmp_path) -> None:
    """Whatever the noise is: what a step costs is counted on a problem with a noise of its own."""
    np.save(tmp_path / "photo.npy", PHOTO)
    task = fields.build(task_class("denoise"), {"noise": "0.05"}, "denoise")
    job = prepare(task, tmp_path / "photo.npy", want="samples", samples=1)
    last = {lap.solver: lap for lap in race(job, task, ["spectral-ancestral", "ddrm"], 3)}
    assert [lap.cost for lap in last.values()] == [3, 3]


def test_the_record_of_the_audit_is_found() -> None:
    cells = records.cells()
    assert cells["all"] == "all 9 sizes" and cells["8,4"] == "8 unknowns, 4 measured"
    for cell in cells:
        rows = records.rows(cell, "distance")
        assert len(rows) > 20 and rows == sorted(rows, key=lambda row: row["figure"])
        assert next(r for r in rows if r["solver"] == "exact")["kind"] == "exact samples"
    assert records.rows("8,4", "nothing") == []
