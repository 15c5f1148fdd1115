"""A short form of benchmarks/chaos.py: runs are killed, interrupted, short of disk, and meet."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import chaos


def test_a_few_trials_of_each_kind(tmp_path: Path) -> None:
    """The list is of broken promises."""
    found = chaos.run(tmp_path, trials=4, seed=1)
    told = chaos.table(found) + "\n".join(text for t in found.values() for text in t.said)
    assert not chaos.broken(found), told
    assert {kind: t.trials for kind, t in found.items()} == {
        "kill -9": 2, "interrupted twice": 1, "disk full": 1, "two writers": 1,
    }, told  # fmt: skip
    assert sum(t.resumed for t in found.values()) >= 1, told


def test_what_is_broken_is_told() -> None:
    """The negative twin: each promise, broken once."""
    good = chaos.Tally(trials=9, checkpoints=5, resumed=5, finished=9, equal=9)
    assert not chaos.broken({"kill -9": good})
    for name in ("half_written", "mixed", "touched"):
        assert chaos.broken({"kill -9": chaos.Tally(trials=1, **{name: 1})})
    assert chaos.broken({"kill -9": chaos.Tally(trials=9, finished=9, equal=8)})
    assert chaos.broken({"kill -9": chaos.Tally(trials=9, checkpoints=5, resumed=4)})
