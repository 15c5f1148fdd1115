"""Which items there are, by which names, and who works on them."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from invdiff.batch.archives import unpacked
from invdiff.batch.drive import shards_of
from invdiff.batch.items import BatchItem, ItemSource, name_of, seed_of, shard_of
from invdiff.batch.ranks import rank_and_world
from invdiff.core import InvdiffError


def filled(root: Path, *names: str) -> Path:
    """A folder with files of these names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def ids(*words: str | Path, **more: object) -> list[str]:
    """The names of the items of sources."""
    return sorted(i.id for i in ItemSource(tuple(map(str, words)), **more).items())  # type: ignore[arg-type]


def test_a_folder_is_mirrored(tmp_path: Path) -> None:
    """Hidden files, files of other kinds, and the folder of results are passed over."""
    names = ("a.png", "b/c.jpg", "b/d/e.npy", "b/.hidden.png", "notes.txt", "out/items/x.png")
    root, passed = filled(tmp_path, *names), []
    found = ItemSource((str(root),), apart=root / "out").items(passed.append)
    assert sorted(i.id for i in found) == ["a.png", "b/c.jpg", "b/d/e.npy"]
    assert passed == [str(root / "notes.txt")]
    assert ids(root) == ["a.png", "b/c.jpg", "b/d/e.npy", "out/items/x.png"]


def test_what_lies_beside_items_is_none(tmp_path: Path) -> None:
    root = filled(tmp_path, "a.png", "a-mask.png", "b.png", "masks/b.png")
    assert ids(root, patterns=("{stem}-mask.png",)) == ["a.png", "b.png", "masks/b.png"]
    assert ids(root, patterns=("masks/{name}", "{stem}-mask.png")) == ["a.png", "b.png"]


def test_globs_files_and_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = filled(tmp_path, "a.png", "b/c.png", "b/d.jpg")
    assert ids(f"{root}/**/*.png") == ["a.png", "b/c.png"]
    assert ids(f"{root}/b/*") == ["c.png", "d.jpg"]
    monkeypatch.chdir(root / "b")
    assert ids("c.png", "../a.png") == ["a.png", "c.png"]
    (root / "list.txt").write_text("# of these\nb/d.jpg\n\na.png\n")
    (item, other) = ItemSource((str(root / "list.txt"),)).items()
    assert (item.id, item.path) == ("b/d.jpg", str(root / "b/d.jpg")) and other.id == "a.png"
    assert name_of("/data/../x/./y.png") == "x/y.png"


@pytest.mark.parametrize(
    ("text", "said"),
    [("\n# nothing\n", "lists no file"), ("..\n", "names no file"), ("a\na/b\n", "cannot both")],
)
def test_lists_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InvdiffError, match=said):
        ids(tmp_path / "list.txt")


def test_what_is_not_there() -> None:
    with pytest.raises(InvdiffError, match="There is no nowhere"):
        ids("nowhere")


def test_members_of_a_tar(tmp_path: Path) -> None:
    """Each image of a webdataset is an item, is read in place, and finds those of its key."""
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for name in ("x/1.png", "x/1.mask.png", "x/1.json", "x/2.png", "../evil.png"):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    source = ItemSource((str(tmp_path),), ("{stem}.mask.png",))
    found = {item.id: item for item in source.items()}
    assert sorted(found) == ["shard.tar/x/1.png", "shard.tar/x/2.png"]
    item = found["shard.tar/x/1.png"]
    (tmp_path / "to").mkdir()
    assert unpacked(item.path, item.within, tmp_path / "to").read_text() == "x/1.png"
    assert (tmp_path / "to/1.mask.png").read_text() == "x/1.mask.png"
    os.truncate(tmp_path / "shard.tar", 600)
    with pytest.raises(InvdiffError, match="is cut: it ends within x/1.mask.png"):
        unpacked(item.path, item.within, tmp_path / "to")
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(InvdiffError, match="cannot be read as a tar file"):
        list(ItemSource((str(tmp_path / "bad.tar"),)).items())


def test_names_decide_shards_and_seeds() -> None:
    """Frozen: another function would give other pictures to runs of before."""
    assert shard_of("a/b.png", 100) == 15
    assert seed_of(0, "a/b.png") == 11134558384252
    assert seed_of(1, "a/b.png") != seed_of(0, "a/b.png") != seed_of(0, "a/c.png")
    shards = [shard_of(BatchItem(f"{i}.png", "").id, 10) for i in range(5000)]
    assert all(400 < shards.count(s) < 600 for s in range(10))  # 500, deviation 21


def test_every_rank_takes_its_own_first() -> None:
    assert shards_of(5, 0, 1) == [0, 1, 2, 3, 4]
    assert shards_of(5, 1, 2) == [1, 3, 0, 2, 4]
    assert sorted(shards_of(7, 2, 3)) == list(range(7))


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, (1, 4)),
        ({"SLURM_ARRAY_TASK_ID": "6", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "5"},
         (1, 3)),
        ({"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_PROCID": "2",
          "SLURM_NTASKS": "4"}, (6, 8)),
        ({"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "1", "SLURM_NTASKS": "3"}, (0, 2)),
        ({"SLURM_PROCID": "1"}, (0, 1)),
    ],
)  # fmt: skip
def test_the_environment_tells_the_rank(env: dict[str, str], expected: tuple[int, int]) -> None:
    assert rank_and_world(env) == expected


@pytest.mark.parametrize(
    "env",
    [
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "x", "WORLD_SIZE": "2"},
        {"SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_COUNT": "3"},
    ],
)
def test_an_environment_that_contradicts_itself(env: dict[str, str]) -> None:
    with pytest.raises(InvdiffError, match="no rank below a world"):
        rank_and_world(env)
