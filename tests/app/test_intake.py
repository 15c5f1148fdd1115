"""Uploads, visits and forms without a page: what strangers send stays in the private folder."""

from __future__ import annotations

import asyncio
import io
import json
import multiprocessing
import os
import stat
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
from PIL import Image

from invdiff.app import forms, words, worker
from invdiff.app.asked import AskedAgain, AskedJob, HowOptions
from invdiff.app.intake import Intake, added, added_run, harmless, measurement
from invdiff.app.ledger import Ledger
from invdiff.app.messages import Begun, Done, Failed, Running, Stopped, Waiting
from invdiff.app.pool import Pool
from invdiff.app.settings import AppOptions
from invdiff.app.visits import Visits
from invdiff.core import InvdiffError
from invdiff.core.option import option
from invdiff.restoration.checkpoint import checkpoint_folder
from invdiff.tasks import TASKS
from invdiff.tasks.base import Task


@pytest.fixture
def visits(tmp_path: Path) -> Visits:
    (tmp_path / "root").mkdir()
    return Visits(tmp_path / "root")


@pytest.fixture
def intake(visits: Visits) -> Intake:
    return Intake(visits.copies, 1, 4)


def upload(visits: Visits, name: str, content: bytes) -> str:
    """A file where the page's library puts uploads."""
    folder = visits.copies / "ab12"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return str(folder / name)


@pytest.mark.parametrize(
    "name, kept",
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("<img src=x onerror=alert(1)>.png", "_img src_x onerror_alert_1__.png"),
        ("...", "upload"),
        ("", "upload"),
        ("a" * 300 + ".png", "a" * 76 + ".png"),
        ("naïve photo.PNG", "naïve photo.PNG"),
        ("nul\0byte\n.png", "nul_byte_.png"),
        (".hidden", "hidden"),
    ],
)
def test_names_are_harmless(name: str, kept: str) -> None:
    assert harmless(name) == kept and len(kept) <= 80


def test_only_uploads_are_read(visits: Visits, intake: Intake, tmp_path: Path) -> None:
    """A traversal, a path elsewhere, a link, a folder and a pipe; a plain upload is the twin."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    (visits.copies / "link.png").symlink_to(secret)
    (visits.copies / "linked").symlink_to(tmp_path)
    os.mkfifo(visits.copies / "pipe.png")
    room = visits.of("one").room("r")
    wrong = [
        str(secret), f"{visits.copies}/../../secret.png", f"{visits.copies}/link.png",
        f"{visits.copies}/linked/secret.png", str(visits.copies), f"{visits.copies}/pipe.png",
        "/etc/passwd", f"{visits.copies}/none.png", "",
    ]  # fmt: skip
    for path in wrong:
        with pytest.raises(InvdiffError, match="uploaded to it|upload it once more"):
            intake.take([path], room)
    assert list(room.iterdir()) == []
    (file,) = intake.take([upload(visits, "fine.png", b"fine")], room)
    assert file == room / "fine.png" and file.read_bytes() == b"fine"


def test_large_uploads_are_refused(visits: Visits, intake: Intake) -> None:
    file = io.BytesIO()
    Image.new("1", (2500, 2000)).save(file, "PNG")
    with pytest.raises(InvdiffError, match="2500 x 2000. has more than 4 megapixels"):
        intake.take([upload(visits, "many.png", file.getvalue())], visits.of("one").room("r"))
    with pytest.raises(InvdiffError, match="heavy.npy has 2 MB, which is more than the 1 MB"):
        intake.take([upload(visits, "heavy.npy", bytes(2_000_000))], visits.of("one").room("r"))


def test_a_zip_gives_two_members_and_no_more(visits: Visits, intake: Intake) -> None:
    """Names that climb, links and bombs in a zip write nothing; the two files of a run are read."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../outside.txt", "x")
        archive.writestr("../run.json", "{}")
        link = zipfile.ZipInfo("a/run.safetensors")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    room = visits.of("one").room("r")
    intake.take_run([upload(visits, "run.zip", file.getvalue())], room)
    assert sorted(p.name for p in room.iterdir()) == ["run.json", "run.safetensors", "run.zip"]
    assert (room / "run.safetensors").read_bytes() == b"/etc/passwd"  # a link is no link any more
    assert not (room / "run.safetensors").is_symlink()
    assert not (visits.root / "outside.txt").exists() and not (room.parent / "run.json").exists()
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("run.json", bytes(3_000_000))
    with pytest.raises(InvdiffError, match="run.json in the zip has more than the 1 MB"):
        intake.take_run([upload(visits, "b.zip", bomb.getvalue())], visits.of("one").room("r"))
    with pytest.raises(InvdiffError, match="There is no run.safetensors; upload"):
        intake.take_run([upload(visits, "run.json", b"{}")], visits.of("one").room("r"))
    with pytest.raises(InvdiffError, match="There is no run.json and no run.safetensors"):
        intake.take_run([], visits.of("one").room("r"))


def test_a_run_names_no_file_of_the_machine(tmp_path: Path) -> None:
    """The weights that a run.json names are those of the package, or none."""
    from invdiff import restore

    photo = np.random.default_rng(0).random((16, 16, 3))
    done = restore("denoise", photo, noise=0.1, samples=1, steps=1, want="samples", progress=False)
    run = done.save(tmp_path / "run")
    job = AskedAgain(str(run), str(tmp_path / "out")).job("cpu")
    assert job.samples == 1 and job.out == tmp_path / "out"
    record = json.loads((run / "run.json").read_text())
    record["prior_spec"] = str(tmp_path / "weights.pt")
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(InvdiffError):
        AskedAgain(str(run), str(tmp_path / "out")).job("cpu")


def test_a_visit_ends_with_its_files(visits: Visits) -> None:
    """Also copies that the page's library made, but not those that another visit has too."""
    mine, shared = upload(visits, "mine.png", b"1"), upload(visits, "shared.png", b"2")
    one = visits.of("one")
    visits.of("two")
    (one.room("r") / "x").write_text("x")
    for name, path in (("one", mine), ("one", shared), ("two", shared)):
        visits.claim(name, path)
    visits.claim("one", "/etc/passwd")
    visits.claim("one", str(visits.copies / ".." / ".." / "x"))
    assert visits.of("one") is one and one.folder.stat().st_mode & 0o077 == 0
    visits.end("one")
    assert not one.folder.exists() and one.closed.is_set() and not Path(mine).exists()
    assert Path(shared).exists()
    visits.end("two")
    assert not Path(shared).exists() and list(visits.copies.iterdir()) == []
    assert visits.of("one") is not one
    visits.end_all()
    assert not visits.root.exists()


def test_the_ledger_reads_both_sides(visits: Visits) -> None:
    """A path in a request, and one that a stream cuts in two, belong to the visit."""
    asked, shown = upload(visits, "asked.png", b"1"), upload(visits, "sh ow\u00e9n.png", b"2")
    body = json.dumps({"data": [{"path": asked}], "session_hash": "one"}).encode()
    reply = b'data: {"x": {"path": ' + json.dumps(shown).encode() + b"}}\n\n"

    async def app(scope, receive, send):
        if scope["path"].endswith("join"):
            assert (await receive())["body"] == body
        else:
            for part in (reply[:40], reply[40:]):
                await send({"type": "http.response.body", "body": part})

    async def receive():
        return {"type": "http.request", "body": body}

    async def send(message):
        pass

    ledger = Ledger(app, visits)
    join = {"type": "http", "path": "/gradio_api/queue/join"}
    data = {"type": "http", "path": "/gradio_api/queue/data", "query_string": b"session_hash=one"}
    with ThreadPoolExecutor() as another:  # a browser of other tests has a loop in this thread
        for scope in (join, data):
            another.submit(lambda s=scope: asyncio.run(ledger(s, receive, send))).result()
    visits.of("one")
    visits.end("one")
    assert not Path(asked).exists() and not Path(shown).exists()


@pytest.mark.parametrize("task", list(TASKS))
def test_forms_have_every_option(task: str) -> None:
    """What is left as it is tells nothing, whatever the field; what is filled in is built."""
    from invdiff import fields

    known = fields.options(TASKS[task])
    entries = forms.entries(TASKS[task])
    assert [e.name for e in entries] == list(known) and all(e.help for e in entries)
    assert forms.told(TASKS[task], {e.name: forms.seen(e, None) for e in entries}, {}) == {}
    assert "auto" == forms.solvers_for(task)[0] and len(forms.solvers_for(task)) > 3


@pytest.mark.parametrize(
    "text", ["/etc/passwd", "../x.png", "mask.png", "~/mask", "C:\\mask.png", "a/b"]
)
def test_forms_read_no_path(text: str) -> None:
    with pytest.raises(InvdiffError, match="The page reads no path; upload the file for --mask"):
        forms.told(TASKS["inpaint"], {"mask": text}, {})
    assert forms.told(TASKS["inpaint"], {"mask": "box:1,2,3,4"}, {}) == {"mask": "box:1,2,3,4"}
    assert forms.told(TASKS["inpaint"], {"mask": text}, {"mask": "/up/load.png"}) == {
        "mask": "/up/load.png"
    }


def test_a_task_of_others_has_a_form_and_solvers_have_knobs() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Fog(Task):
        """Take fog away."""

        name: ClassVar[str] = "fog"
        density: float = option("of the fog", 0.5, min=0, max=1)
        kind: Literal["thin", "thick"] | None = option("of the fog", None)
        map: Path | None = option("file of its depth", None)

        rounds: int | None = option("at most", None)

    density, kind, depth, rounds = forms.entries(Fog)
    assert not rounds.counted and forms.changed(rounds, "") is None
    assert forms.seen(rounds, None) == "" and forms.changed(rounds, "3") == "3"
    assert density.help == "of the fog; from 0 to 1" and depth.files and not kind.files
    told = forms.told(Fog, {"density": "0.7", "kind": "thin", "map": ""}, {"map": "/up/x.npy"})
    assert told == {"density": "0.7", "kind": "thin", "map": "/up/x.npy"}
    found = {e.name: e for e in forms.knobs("inpaint", "ddrm")}
    assert found["eta_prop"].default == 1.0 and "schedule.rho" in found  # of the preset


def test_sentences_are_those_of_the_command_line() -> None:
    asked = AskedJob("deblur", "x.png", "out", {"kernel": "gaussian:x"})
    with pytest.raises(InvdiffError) as told:
        asked.built()
    from invdiff.tasks.values import Kernel

    with pytest.raises(InvdiffError) as same:
        Kernel.parse("gaussian:x")
    assert str(told.value) == str(same.value)
    for how, said in (
        ({"prior": "/weights.pt"}, "There is no prior of the package called '/weights.pt'"),
        ({"steps": 0}, "--steps is from 1 to 100000"),
        ({"solver": "ddrn"}, "ddrm"),
    ):
        with pytest.raises(InvdiffError, match=said):
            HowOptions(**how)
    with pytest.raises(InvdiffError, match="choose one by its name"):
        AskedJob("jpeg", "x.jpg", "out", knobs={"lam": "1"}).built()


def test_words_hold_no_markup_of_files() -> None:
    evil = "<script>alert(1)</script>"
    for text in (words.status(evil), words.lines([(evil, evil)]), words.status(evil, "wrong")):
        assert "<script>" not in text and "&lt;script&gt;" in text
    shown = words.pictures([np.zeros((4, 4), np.uint8)], ['" onload="alert(1)'])
    assert 'alt="&quot; onload=&quot;alert(1)"' in shown
    folder = Path("/tmp/root/visit-1")
    told = words.without_folder("/tmp/root/visit-1/measurement-x_1/a b.png is no image", folder)
    assert told == "a b.png is no image"
    assert words.duration(0.2) == "1 s" and words.duration(600) == "10 min"


def test_settings(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("ann:one\n\nbob:t:wo\n")
    assert AppOptions(auth=str(tmp_path / "users")).users == [("ann", "one"), ("bob", "t:wo")]
    assert AppOptions(auth="ann:one").users == [("ann", "one")] and AppOptions().users is None
    assert AppOptions(device="cpu").devices == ["cpu"] and AppOptions().host == "127.0.0.1"
    for told in ({"auth": "ann"}, {"auth": ":x"}, {"device": "tpu"}):
        with pytest.raises(InvdiffError):
            found = AppOptions(**told)
            _ = found.users, found.devices
    for told in ({"port": 70000}, {"root_path": "x"}, {"host": ""}, {"upload": 0}):
        with pytest.raises(InvdiffError):
            AppOptions(**told)


def test_a_second_upload_takes_the_place_of_the_first() -> None:
    """A field adds to the files that it has; a header waits for what it belongs to."""
    assert added(["a.png"], []) == ["a.png"]
    assert added(["a.png", "b.png"], ["a.png"]) == ["b.png"]
    assert added(["a.png", "a.png"], ["a.png"]) == ["a.png"]
    assert added(["k.hdr", "k.cfl"], ["k.hdr"]) == ["k.hdr", "k.cfl"]
    assert added(["k.hdr", "k.cfl", "a.npy"], ["k.hdr", "k.cfl"]) == ["a.npy"]


def test_a_second_run_takes_the_place_of_the_first() -> None:
    """But of the two files of a run one waits for the other."""
    assert added_run(["a.zip"], []) == ["a.zip"]
    assert added_run(["a.zip", "b.zip"], ["a.zip"]) == ["b.zip"]
    assert added_run(["1/run.json", "1/run.safetensors"], ["1/run.json"]) == [
        "1/run.json", "1/run.safetensors",
    ]  # fmt: skip
    assert added_run(["1/run.json", "2/run.json"], ["1/run.json"]) == ["2/run.json"]
    whole = ["1/run.json", "1/run.safetensors"]
    assert added_run([*whole, "b.zip"], whole) == ["b.zip"]
    assert added_run([*whole, "2/run.json"], whole) == ["2/run.json"]  # of another run
    assert added_run(["1/run.json", "b.zip"], ["1/run.json"]) == ["b.zip"]
    assert added_run(["notes.txt", "run.json"], ["notes.txt"]) == ["run.json"]


def test_the_measurement_is_not_its_header(tmp_path: Path) -> None:
    files = [tmp_path / "k.hdr", tmp_path / "k.cfl"]
    assert measurement(files) == tmp_path / "k.cfl"
    with pytest.raises(InvdiffError, match="The measurement is missing"):
        measurement(files[:1])


@pytest.mark.parametrize("asked", [(), ("a job",)])
def test_a_worker_rehearses_until_it_is_asked(
    asked: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole job, of which nothing is left; none where somebody waits already."""
    here, there = multiprocessing.Pipe()
    told, real = [], worker.do

    def listened(job, send, stopped, device):
        real(job, told.append, stopped, device)

    monkeypatch.setattr(worker, "do", listened)
    for text in asked:
        there.send(text)
    worker.rehearse(here, str(tmp_path), "cpu")
    assert ([type(m) for m in told[-1:]] == [Done]) is not bool(asked)
    assert list(tmp_path.iterdir()) == []


def test_the_line_is_kept_and_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    """One worker: a second job waits, a third is turned away; one is killed, the next is done."""
    photo = tmp_path / "photo.npy"
    np.save(photo, np.random.default_rng(0).random((16, 16, 3)))

    def asked(name: str, steps: int) -> AskedJob:
        how = HowOptions(want="samples", samples=1, steps=steps)
        return AskedJob("denoise", str(photo), str(tmp_path / name), {"noise": "0.1"}, how)

    pool, halt = Pool(["cpu"], 1), threading.Event()
    try:
        first = pool.run(asked("a", 20_000), halt.is_set)
        assert any(isinstance(m, Running) for m in first)
        second = pool.run(asked("b", 1), lambda: False)
        assert next(second) == Waiting(1)
        with pytest.raises(InvdiffError, match="1 jobs wait already"):
            next(pool.run(asked("c", 1), lambda: False))
        os.kill(pool.workers[0].pid or 0, 9)
        assert [m for m in first if m is not None][-1] == Failed(
            "The process that did this job ended without a word, perhaps for lack of memory; "
            "try again."
        )
        assert isinstance([m for m in second if m is not None][-1], Done)
        assert (tmp_path / "b" / "sample-1.png").is_file()
        third = pool.run(asked("d", 20_000), halt.is_set)
        assert any(isinstance(m, Running) and m.steps_done for m in third)
        halt.set()
        ended = [m for m in third if m is not None][-1]
        assert isinstance(ended, Stopped) and ended.kept and ended.steps == 20_000
        kept = checkpoint_folder(tmp_path / "d")
        assert kept.is_dir() and not (tmp_path / "d").exists()
        more = replace(asked("d", 20_000), resume=True)
        again = [m for m in pool.run(more, halt.is_set) if isinstance(m, Stopped)][-1]
        assert again.steps_done >= ended.steps_done and again.kept
        halt.clear()
        (tensors,) = kept.glob("*.safetensors")
        tensors.write_bytes(tensors.read_bytes()[:-1])  # what is broken is told, and not begun anew
        assert [m for m in pool.run(more, halt.is_set) if m and not isinstance(m, Begun)] == [
            Failed(
                "What was stopped cannot go on, because its checkpoint is broken or of other "
                "files; press Restore to begin anew."
            )
        ]
        anew = [m for m in pool.run(asked("d", 1), halt.is_set) if m is not None]
        assert isinstance(anew[-1], Done) and not kept.exists()
        gone = [m for m in pool.run(more, halt.is_set) if m and not isinstance(m, Begun)]
        assert [type(m) for m in gone] == [Failed] and "not there any more" in gone[0].text
        wrong = [m for m in pool.run(asked("e", 1), halt.is_set) if m is not None]
        assert isinstance(wrong[-1], Done)
        missing = AskedJob("jpeg", str(tmp_path / "none.png"), str(tmp_path / "f"))
        assert [m for m in pool.run(missing, halt.is_set) if m is not None] == [
            Failed(f"There is no file {tmp_path / 'none.png'}; give the path of one.")
        ]
        last, pid = pool.run(missing, halt.is_set), pool.workers[0].pid
        assert any(isinstance(m, Failed) for m in last)
        last.close()  # who leaves at the last message leaves an idle worker
        assert pool.workers[0].alive and pool.workers[0].pid == pid
    finally:
        pool.end()
