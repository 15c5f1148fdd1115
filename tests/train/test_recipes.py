"""Recipes: what is held out, and what a recipe must say."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from invdiff.core import InvdiffError
from invdiff.train.recipes import PHOTO, RECIPES, recipe

NAMES = [f"{prefix}{i}.webp" for prefix in ("cid22-", "clic-", "wall-") for i in range(300)]
DATA = Path(__file__).parents[2] / "benchmarks" / "data"


def test_held_out_is_the_rule_of_the_card() -> None:
    """SHA-256 of the name, as an integer, divisible by 10; of the two prefixes only."""
    for name in NAMES:
        digest = int(hashlib.sha256(name.encode()).hexdigest(), 16)
        expected = digest % 10 == 0 and not name.startswith("wall-")
        assert PHOTO.held_out(name) == expected
    share = sum(PHOTO.held_out(n) for n in NAMES[:600]) / 600
    assert abs(share - 0.1) < 4 * (0.1 * 0.9 / 600) ** 0.5


def test_held_out_follows_the_recipe() -> None:
    assert not any(replace(PHOTO, hold_out=()).held_out(n) for n in NAMES)
    every = replace(PHOTO, hold_out=("wall-",), hold_out_one_in=1)
    assert [n for n in NAMES if every.held_out(n)] == NAMES[600:]


def test_the_benchmark_was_held_out() -> None:
    """The photographs in benchmarks/data were never trained on."""
    names = [p.name for p in DATA.glob("*.webp")]
    assert len(names) == 12 and all(PHOTO.held_out(n) for n in names)


def test_recipes_by_name() -> None:
    assert all(recipe(name).name == name for name in RECIPES)
    with pytest.raises(
        InvdiffError, match=r"no recipe called 'phto'; known are photo, brain, .*\w\.$"
    ):
        recipe("phto")
