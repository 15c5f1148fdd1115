"""Plans, shards and who works on them, with a solver that costs nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from invdiff.batch import workers
from invdiff.batch.drive import count, drive
from invdiff.batch.items import BatchItem, ItemSource
from invdiff.batch.outputs import placed, there
from invdiff.batch.place import Place, StoppedError, lines
from invdiff.batch.plan import default_size, planned
from invdiff.batch.recipe import BatchRecipe
from invdiff.batch.report import all_lines, write_report
from invdiff.batch.shard import ShardAsked, ShardDone, work
from invdiff.batch.status import status
from invdiff.batch.workers import Died, Event, Here, Processes, RunStopped
from invdiff.core import InvdiffError

RECIPE = BatchRecipe("denoise", {"noise": "0.1"})


class Free:
    """A solver that costs nothing. bad: items that fail; stops: one at which the run ends."""

    def __init__(self, *bad: str, stops: str = "") -> None:
        self.bad, self.stops, self.made = bad, stops, list[str]()

    def __call__(
        self, place: Place, item: BatchItem, ahead: Sequence[BatchItem] = ()
    ) -> dict[str, Any]:
        line = {"id": item.id, "config": "c"}
        found = there(place, item, line)
        if found is not None:
            return found
        if item.id == self.stops:
            raise StoppedError("Nothing can be written.")
        self.made.append(item.id)
        if item.id in self.bad:
            return line | {"error": f"{item.id} is no picture.", "kind": "input"}
        told = line | {"warnings": [], "misfit": {"samples": [float(len(self.made))]}}
        return placed(place, item, told, lambda f: (f / "estimate.png").write_text(item.id))


def source(root: Path, number: int = 12) -> ItemSource:
    """A folder of so many files."""
    (root / "in").mkdir(exist_ok=True)
    for i in range(number):
        (root / "in" / f"{i:02}.png").touch()
    return ItemSource((str(root / "in"),))


@pytest.fixture()
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path / "out")
    assert planned(found, source(tmp_path), RECIPE, size=3)["items"] == 12
    return found


def test_every_item_is_restored_once(place: Place) -> None:
    free, seen = Free("03.png"), list[bool]()
    assert drive(place, Here(place, free), progress=seen.append) == 12
    assert sorted(free.made) == [f"{i:02}.png" for i in range(12)] and seen.count(False) == 1
    told = {line["id"]: line for line in all_lines(place)}
    assert len(told) == 12 and told["03.png"]["error"] == "03.png is no picture."
    assert (place.items / "05.png/estimate.png").read_text() == "05.png"
    assert not (place.items / "03.png").exists()
    found = count(place)
    assert (found.items, found.done, found.failed, found.complete) == (12, 12, 1, True)
    assert drive(place, Here(place, again := Free())) == 0 and again.made == []
    assert drive(place, Here(place, again), retry=True) == 1 and again.made == ["03.png"]
    assert count(place).failed == 0
    assert [p.name for p in (place.out / "work").iterdir()] == ["locks"]


def test_a_run_that_stopped_goes_on(place: Place) -> None:
    """What was whole is kept, whatever of it was not yet in the manifest."""
    first = Free(stops="07.png")
    with pytest.raises(StoppedError, match="Nothing can be written"):
        drive(place, Here(place, first))
    assert not count(place).complete and status(place).under == 1
    second = Free()
    drive(place, Here(place, second))
    assert sorted(first.made + second.made) == [f"{i:02}.png" for i in range(12)]


def test_a_process_that_ended_after_its_last_line_leaves_nothing(place: Place) -> None:
    """Killed between the manifest and the end of its work; what others are at stays theirs."""
    drive(place, Here(place, Free()))
    place.at(1).write_text('"05.png"\n')
    with place.holding(1) as mine:
        assert mine and status(place).under == 1
    drive(place, Here(place, Free()))
    assert status(place).under == 0 and not place.at(1).exists()


def test_results_that_were_touched_are_made_again(place: Place) -> None:
    item = BatchItem("05.png", "")
    Free()(place, item)
    (place.items / "05.png/estimate.png").write_text("cut")
    again = Free()
    again(place, item)
    assert again.made == ["05.png"]
    assert (place.items / "05.png/estimate.png").read_text() == "05.png"


def test_a_folder_of_others_is_not_replaced(place: Place) -> None:
    (place.items / "05.png").mkdir()
    (place.items / "05.png/thesis.txt").write_text("years")
    with pytest.raises(InvdiffError, match="holds what no batch wrote"):
        Free()(place, BatchItem("05.png", ""))
    assert (place.items / "05.png/thesis.txt").read_text() == "years"


def test_results_with_a_folder_within_are_replaced(place: Place) -> None:
    """As those of DICOM files; what somebody put into it stays."""
    item, folder = BatchItem("05.png", ""), place.items / "05.png"

    def write(text: str) -> None:
        def files(part: Path) -> None:
            (part / "slices").mkdir()
            (part / "slices/0.dcm").write_text(text)

        placed(place, item, {"id": item.id}, files)

    write("first")
    write("second")
    assert (folder / "slices/0.dcm").read_text() == "second"
    (folder / "slices/thesis.txt").write_text("years")
    with pytest.raises(InvdiffError, match="holds what no batch wrote"):
        write("third")


def test_new_files_are_added(place: Place, tmp_path: Path) -> None:
    drive(place, Here(place, Free()))
    counts = planned(place, source(tmp_path, 14), RECIPE)
    assert (counts["items"], counts["new"]) == (14, 2) and not count(place).complete
    free = Free()
    drive(place, Here(place, free))
    assert sorted(free.made) == ["12.png", "13.png"]
    assert planned(place, source(tmp_path, 15), RECIPE, frozen=True)["items"] == 14


def test_another_recipe_is_refused(place: Place, tmp_path: Path) -> None:
    with pytest.raises(InvdiffError, match=r"--noise 0.1, now 0.2; --steps None, now 5"):
        planned(place, source(tmp_path), BatchRecipe("denoise", {"noise": "0.2"}, steps=5))
    with pytest.raises(InvdiffError, match="of other files"):
        planned(place, ItemSource((str(tmp_path),)), RECIPE)


def test_two_items_of_one_name_are_refused(tmp_path: Path) -> None:
    source(tmp_path)
    (tmp_path / "list.txt").write_text("in/01.png\nin/02.png\nin/../in/01.png\n")
    with pytest.raises(InvdiffError, match=r"Two items have the name in/01\.png"):
        planned(Place(tmp_path / "out"), ItemSource((str(tmp_path / "list.txt"),)), RECIPE)


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvdiffError, match="is no folder of a batch"):
        source(tmp_path)
        planned(Place(tmp_path / "in"), source(tmp_path), RECIPE)
    with pytest.raises(InvdiffError, match="has no batch.json"):
        count(Place(tmp_path / "in"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvdiffError, match="There is no image in"):
        planned(Place(tmp_path / "out"), ItemSource((str(tmp_path / "empty"),)), RECIPE)


def test_what_another_process_holds_is_left_to_it(place: Place) -> None:
    code = (
        "import fcntl, os, sys\n"
        f"file = os.open({str(place.out / 'work/locks')!r}, os.O_RDWR)\n"
        "fcntl.lockf(file, fcntl.LOCK_EX, 1, 1); print(True, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as other:  # fmt: skip
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        assert work(place, ShardAsked(1), Free()) == ShardDone(1, held=True)
        assert drive(place, Here(place, Free()), world=2) > 0
        assert count(place).shards == 3
        other.kill()
    assert not work(place, ShardAsked(1), Free()).held
    assert count(place).complete


class Dying(Here):
    """A crew whose process ends at an item, or before it has begun."""

    def __init__(self, place: Place, at: str, free: Free) -> None:
        super().__init__(place, free)
        self.at, self.deaths = at, 0

    def events(self, seconds: float) -> Iterator[Event]:
        asked = self._asked
        assert asked is not None
        ids = [line["id"] for line in lines(self.place.plan(asked.shard))]
        if self.at == "start" or (self.at in ids and self.at not in dict(asked.skip)):
            self.deaths, self._asked = self.deaths + 1, None
            if self.at != "start":
                self.place.at(asked.shard).write_text(json.dumps(self.at) + "   \n")
            yield Died(asked.shard, "signal 9")
        else:
            yield from super().events(seconds)


def test_an_item_that_ends_processes_is_put_aside(place: Place) -> None:
    crew = Dying(place, "04.png", free := Free())
    drive(place, crew)
    assert crew.deaths == 3 and len(free.made) == 11
    (failed,) = [line for line in all_lines(place) if "error" in line]
    assert failed["id"] == "04.png" and failed["error"].startswith("3 processes ended while")
    with pytest.raises(StoppedError, match="before their first item"):
        drive(place, Dying(place, "start", Free()), retry=True)


def test_what_every_item_would_meet_ends_the_run(place: Place) -> None:
    class Refused(Here):
        def events(self, seconds: float) -> Iterator[Event]:
            yield RunStopped("There is no prior.", True)

    with pytest.raises(InvdiffError, match="There is no prior") as caught:
        drive(place, Refused(place))
    assert not isinstance(caught.value, StoppedError)


def test_the_report_shows_the_worst_first(place: Place) -> None:
    free = Free("03.png")
    drive(place, Here(place, free))
    text = write_report(place).read_text()
    worst = [i for i in free.made if i != "03.png"]
    shown = [text.index(f"{name}<br>") for name in reversed(worst)]
    assert shown == sorted(shown) and "03.png is no picture." in text
    assert "http" not in text.replace("<!doctype html>", "")


def test_shards_are_few_and_small() -> None:
    assert [default_size(n) for n in (1, 200, 100_000, 10**9)] == [1, 7, 158, 1000]


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_an_interrupt_while_it_starts_is_one_line(tmp_path: Path) -> None:
    """What imports for the workers stays silent, and ends with the command."""
    (tmp_path / "in").mkdir()
    told = ["batch", "denoise", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        [sys.executable, "-m", "invdiff", *told, "--workers", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, text=True,
    ) as child:  # fmt: skip
        while not any("forkserver" in "".join(p.cmdline()) for p in below(child.pid)):
            time.sleep(0.01)
        os.killpg(child.pid, signal.SIGINT)
        said = child.communicate()[0]  # ends when all that hold the pipe have ended
    assert child.returncode != 0
    assert len(said.splitlines()) == 1 and said.startswith("invdiff: "), said


def below(pid: int) -> list[psutil.Process]:
    """The processes that it started."""
    return psutil.Process(pid).children(recursive=True)


class Dead:
    """What starts processes where none can be forked."""

    Pipe = staticmethod(multiprocessing.Pipe)

    def Process(self, **_: Any) -> Any:
        return self

    def start(self) -> None:
        raise EOFError


def test_a_process_that_cannot_be_forked_has_died(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shard is told, so that the next process can have it."""
    monkeypatch.setattr(workers, "context", Dead)
    crew = Processes(place, 1)
    crew.give(ShardAsked(3))
    assert list(crew.events(10)) == [Died(3, "it did not start")]
    assert crew.free()
    crew.end()
