"""Small items that are alike run together, and do not show it: the same bytes as alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from invdiff.batch import one
from invdiff.batch.drive import drive
from invdiff.batch.items import BatchItem, ItemSource
from invdiff.batch.place import Place
from invdiff.batch.plan import planned
from invdiff.batch.recipe import BatchRecipe
from invdiff.batch.report import all_lines
from invdiff.batch.workers import Here
from invdiff.core import InvdiffError
from invdiff.restoration import together
from invdiff.restoration.job import Job

SIZES = ((16, 20), (16, 20), (20, 16), (16, 20), (16, 20), (16, 20))


@pytest.fixture()
def pictures(tmp_path: Path) -> Path:
    """Six pictures, one of another size, and one that is broken."""
    root = tmp_path / "in"
    root.mkdir()
    for i, size in enumerate(SIZES):
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
    (root / "broken.png").write_bytes((root / "0.png").read_bytes()[:200])
    return root


def results(out: Path, root: Path, recipe: BatchRecipe) -> dict[str, Any]:
    """Bytes of all files, and lines without times, of a batch of one shard."""
    place = Place(out)
    planned(place, ItemSource((str(root),)), recipe, size=100)
    drive(place, Here(place))
    found: dict[str, Any] = {x["id"]: x | {"seconds": 0} for x in all_lines(place)}
    files = [p for p in place.items.rglob("*") if p.is_file() and p.name != "item.json"]
    return found | {str(p.relative_to(out)): p.read_bytes() for p in files}


@pytest.mark.parametrize("solver", ["auto", "dps"])
def test_the_same_bytes_with_one_two_and_five(
    solver: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = BatchRecipe("denoise", {"noise": "0.1"}, solver=solver, steps=2, samples=1)
    sizes, run = list[int](), one.perform_together

    def counted(jobs: list[Job]) -> Any:
        sizes.append(len(jobs))
        return run(jobs)

    monkeypatch.setattr(one, "perform_together", counted)
    found, groups = [], []
    for most in (1, 2, 5):
        monkeypatch.setattr(together, "ROWS", most * recipe.samples)
        sizes.clear()
        found.append(results(tmp_path / f"o{most}", pictures, recipe))
        groups.append(sorted(sizes))
    assert groups == [[], [2, 2], [5]]
    assert len(found[0]) == 7 + 6 * 3 and "error" in found[0]["broken.png"]
    assert found[0] == found[1] == found[2]
    assert len({found[0][f"items/{i}.png/sample-1.png"] for i in range(6)}) == 6


def test_what_differs_is_not_run_together(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of masks beside the pictures each has its own operator; large pictures are run alone."""
    for i in range(2):
        mask = np.zeros((16, 20), np.uint8)
        mask[4 + i : 8] = 255
        Image.fromarray(mask).save(pictures / f"{i}-mask.png")
    recipe = BatchRecipe("inpaint", {"mask": "{stem}-mask.png"}, steps=2, samples=2)
    restorer = one.Restorer(recipe)

    def job(i: int) -> Job:
        path = pictures / f"{i}.png"
        return recipe.job(BatchItem(path.name, str(path)), path, restorer.prior)

    first, second = job(0), job(1)
    assert together.kind(first) != together.kind(second)
    assert together.kind(first) == together.kind(job(0))
    dim = Image.fromarray(np.asarray(Image.open(pictures / "0.png")) // 2 + 9)
    dim.save(pictures / "0.png")  # nothing is black or white, which takes fewer evaluations
    denoise = BatchRecipe("denoise", {"noise": "0.1"})
    kinds = [
        together.kind(denoise.job(BatchItem(f"{i}.png", ""), pictures / f"{i}.png", restorer.prior))
        for i in (0, 1, 3)
    ]
    assert kinds[0] != kinds[1] == kinds[2]
    assert together.room(first) == together.ROWS // 2 and together.room(first, batch=3) == 1
    monkeypatch.setattr(together, "PIXELS", 16 * 20 - 1)
    assert together.room(first) == 1


def test_one_that_fails_lets_the_others_be(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where several cannot run as one, each runs alone."""

    def diverged(jobs: list[Job]) -> Any:
        raise InvdiffError("It diverged.")

    monkeypatch.setattr(one, "perform_together", diverged)
    recipe = BatchRecipe("denoise", {"noise": "0.1"}, steps=2, samples=2, want="estimate")
    found = results(tmp_path / "o", pictures, recipe)
    assert [i for i in found if "/" not in i and "error" in found[i]] == ["broken.png"]
    assert sum(name.endswith("estimate.png") for name in found) == 6
