"""Folders of results: whole or not there, and nothing of others is touched."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from helpers import sentence
from invdiff.core import InvdiffError, durable, folders
from invdiff.core.folders import check_folder, whole_folder, write_folder


def write(folder: Path, text: str = "1", **more: str) -> None:
    """Files of a result, as the marker lists them."""
    files = ["run.json", "a.png", *more]
    (folder / "run.json").write_text(json.dumps({"invdiff": text, "files": files}))
    (folder / "a.png").write_text(text)
    for name, content in more.items():
        (folder / name).write_text(content)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("exchange", [True, False], ids=["swapped at once", "in two moves"])
def test_files_of_others_stay(
    exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the system cannot swap two folders in one move."""
    if not exchange:
        monkeypatch.setattr(durable, "_call", lambda: None)
    for near in ("out.part", "out.old", "out.checkpoint", "out-2", ".invdiff-0"):
        (tmp_path / near).mkdir()
        (tmp_path / near / "thesis.txt").write_text("years")
    before = names(tmp_path)
    out = tmp_path / "out"
    assert write_folder(out, write) == out
    assert write_folder(out, lambda part: write(part, "2"), overwrite=True) == out
    assert (out / "a.png").read_text() == "2" and names(tmp_path) == sorted([*before, "out"])
    assert all((tmp_path / n / "thesis.txt").read_text() == "years" for n in before)
    (out / "notes.txt").write_text("mine")
    for call in (check_folder, lambda *a: write_folder(a[0], write, a[1], a[2])):
        sentence(lambda c=call: c(out, True, "run.json"), "notes.txt", "not overwritten")
    assert (out / "notes.txt").read_text() == "mine" and (out / "a.png").read_text() == "2"


@pytest.mark.parametrize("text", ["", "{}", "[]", "1", "[" * 9999, '{"files": ["notes.txt"]}'])
def test_a_marker_of_others_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text(text)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    sentence(lambda: check_folder(tmp_path / "out", True, "run.json"), "not overwritten")
    assert names(tmp_path / "out") == ["notes.txt", "run.json"]


def test_what_a_marker_lists_may_be_no_folder_and_no_link(tmp_path: Path) -> None:
    out = write_folder(tmp_path / "out", write)
    (out / "a.png").unlink()
    (out / "a.png").mkdir()
    sentence(lambda: check_folder(out, True, "run.json"), "a.png")
    (out / "a.png").rmdir()
    (out / "a.png").symlink_to(tmp_path)
    sentence(lambda: check_folder(out, True, "run.json"), "a.png")


def test_one_that_came_into_being_meanwhile(tmp_path: Path) -> None:
    """Samples go to another name; what is cheap to make again is refused."""

    def late(part: Path) -> None:
        write(part)
        (tmp_path / "out").mkdir(exist_ok=True)  # empty, which rename(2) would replace
        (tmp_path / "out-2").mkdir(exist_ok=True)

    assert write_folder(tmp_path / "out", late) == tmp_path / "out-3"
    assert names(tmp_path / "out") == names(tmp_path / "out-2") == []
    assert names(tmp_path / "out-3") == ["a.png", "run.json"]

    def refused() -> None:
        with whole_folder(tmp_path / "b") as part:
            write(part)
            (tmp_path / "b").mkdir()

    sentence(refused, "came into being meanwhile")
    assert names(tmp_path) == ["b", "out", "out-2", "out-3"]


def test_two_writers(tmp_path: Path) -> None:
    """Each folder is of one of them."""
    meet, found = threading.Barrier(4), []

    def work(text: str) -> None:
        def both(part: Path) -> None:
            write(part, text)
            meet.wait()

        found.append(write_folder(tmp_path / "out", both))

    threads = [threading.Thread(target=work, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(tmp_path) == ["out", "out-2", "out-3", "out-4"] and len(set(found)) == 4
    told = [(json.loads((p / "run.json").read_text())["invdiff"], p) for p in found]
    assert sorted(t for t, _ in told) == list("0123")
    assert all((p / "a.png").read_text() == t for t, p in told)


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        out = write_folder(tmp_path / "out", write)
    finally:
        os.umask(before)
    assert stat.S_IMODE(out.stat().st_mode) == 0o750
    assert stat.S_IMODE((out / "a.png").stat().st_mode) == 0o640


def test_odd_names_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    before = names(tmp_path)
    for name, words in {
        "..": "not overwritten", "/": "not overwritten", "../x/..": "names no",
        "gone": "a link to nowhere, which is not there", "link": "a link to empty",
        "file": "is a file", "a" * 300: "File name too long", "a" * 250: "too long",
        "new/" * 2000: "File name too long", "a\0b": "no name of a folder", "new/..": "names no",
    }.items():  # fmt: skip
        with pytest.raises(InvdiffError, match=words) as caught:
            check_folder(Path(name), True, "run.json")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    for name in (".", ""):
        with pytest.raises(InvdiffError, match="no run.json of a run"):
            check_folder(Path(name), True, "run.json")
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(InvdiffError, match="is the working folder"):
        check_folder(Path("."), True, "run.json")
    check_folder(tmp_path / "empty" / "a", True, "run.json")
    assert names(tmp_path) == before and names(tmp_path / "empty") == []


def test_all_is_on_the_disk_before_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, their folder, and after the rename the folder around it."""
    done, rename = [], folders.rename_new
    where = "/proc/self/fd/{}".format
    monkeypatch.setattr(durable.os, "fsync", lambda d: done.append(os.readlink(where(d))))

    def named(source: Path, target: Path) -> None:
        done.append("named")
        rename(source, target)

    monkeypatch.setattr(folders, "rename_new", named)
    write_folder(tmp_path / "out", write)
    at = done.index("named")
    assert {Path(p).name for p in done[: at - 1]} >= {"a.png", "run.json"}
    assert Path(done[at - 1]).name.startswith(".invdiff-") and done[at + 1] == str(tmp_path)


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(part: Path) -> None:
        write(part)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_folder(tmp_path / "deep" / "er" / "out", fail)
    assert names(tmp_path) == []
