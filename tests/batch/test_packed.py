"""Results as tar files: their names, their bytes, and what a process that ends leaves."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from invdiff.batch import shard
from invdiff.batch.drive import drive
from invdiff.batch.items import BatchItem, ItemSource
from invdiff.batch.outputs import placed
from invdiff.batch.packed import read, swept
from invdiff.batch.place import Place, StoppedError
from invdiff.batch.plan import planned
from invdiff.batch.recipe import BatchRecipe
from invdiff.batch.report import all_lines
from invdiff.batch.workers import Here
from invdiff.core import InvdiffError

RECIPE = BatchRecipe("denoise", {"noise": "0.1"})
NAMES = ("a/1.png", "a/1.jpg", "b.c.png", "bad.png")


def solver(place: Place, item: BatchItem, ahead: Sequence[BatchItem] = ()) -> dict[str, Any]:
    """One that costs nothing; its results have a folder within."""
    solver.made.append(item.id)  # type: ignore[attr-defined]
    line = {"id": item.id, "seconds": len(solver.made), "warnings": []}  # type: ignore[attr-defined]
    if item.id == "bad.png":
        return line | {"error": "It is bad."}

    def write(folder: Path) -> None:
        (folder / "estimate.png").write_text(item.id)
        (folder / "slices").mkdir()
        (folder / "slices/0.dcm").write_text(f"slice of {item.id}")

    return placed(place, item, line, write)


@pytest.fixture()
def root(tmp_path: Path) -> Path:
    solver.made = []  # type: ignore[attr-defined]
    for name in NAMES:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    return tmp_path


def begun(root: Path, out: str, **more: Any) -> Place:
    place = Place(root / out)
    planned(place, ItemSource((str(root / "in"),)), RECIPE, size=10, **more)
    return place


def run(root: Path, out: str) -> Place:
    place = begun(root, out, tar=True)
    drive(place, Here(place, solver))
    return place


def test_a_tar_has_names_of_webdataset(root: Path) -> None:
    """What is before the first point of the last part of a name is the key, another for each."""
    place = run(root, "o")
    with tarfile.open(place.packed(0)) as tar:
        found = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
        assert {(m.mtime, m.uid, m.uname) for m in tar} == {(0, 0, "")}
    keys = ["a/1_jpg", "a/1_png", "b_c_png"]
    ends = ["json", "estimate.png", "slices.0.dcm"]
    assert list(found) == [f"{key}.{end}" for key in keys for end in ends]
    assert found["a/1_png.slices.0.dcm"] == b"slice of a/1.png"
    line = json.loads(found["b_c_png.json"])
    assert line["id"] == "b.c.png" and "seconds" not in line
    told = {line["id"]: line for line in all_lines(place)}
    assert read(place, told["a/1.jpg"], "estimate.png") == b"a/1.jpg"
    assert "at" not in told["bad.png"]
    assert not [p for p in place.items.rglob("*") if p.is_file()]
    swept(place)
    assert not list(place.items.iterdir())


def test_the_bytes_are_always_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the times, also where a process ended between the tar and the manifest."""
    right = run(root, "o").packed(0).read_bytes()
    assert run(root, "again").packed(0).read_bytes() == right

    def full(*args: Any) -> None:
        raise StoppedError("Nothing can be written.")

    with monkeypatch.context() as m, pytest.raises(StoppedError):
        m.setattr(shard, "write_lines", full)
        run(root, "ended")
    solver.made.clear()  # type: ignore[attr-defined]
    assert run(root, "ended").packed(0).read_bytes() == right


def test_what_is_new_is_packed_with_what_is_there(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a tar was made anew, and its manifest was not, so that places have changed."""
    old = run(root, "o")
    (root / "in/a/0.png").touch()
    right = run(root, "new").packed(0).read_bytes()
    solver.made.clear()  # type: ignore[attr-defined]

    def full(*args: Any) -> None:
        raise StoppedError("Nothing can be written.")

    begun(root, "o", tar=True)
    with monkeypatch.context() as m, pytest.raises(StoppedError):
        m.setattr(shard, "write_lines", full)
        drive(old, Here(old, solver))
    assert old.packed(0).read_bytes() == right
    assert read(old, next(all_lines(old)), "estimate.png") == b"a/1.jpg"  # by its name
    drive(old, Here(old, solver))
    assert old.packed(0).read_bytes() == right
    assert set(solver.made) == {"a/0.png"}  # type: ignore[attr-defined]
    old.packed(0).write_bytes(right.replace(b"slice of a/1.png", b"slice of a/2.png"))
    (root / "in/a/3.png").touch()
    with pytest.raises(InvdiffError, match="was changed; remove .*00000.jsonl to make it anew"):
        run(root, "o")


def test_a_batch_is_in_tars_or_in_folders(root: Path) -> None:
    run(root, "o")
    with pytest.raises(InvdiffError, match="was begun otherwise .with --tar."):
        begun(root, "o")
