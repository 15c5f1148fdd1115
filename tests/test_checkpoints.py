"""Checkpoints: written by the clock, whole at any moment, believed only when they are whole."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers import sentence
from invdiff import fields
from invdiff.core import InvdiffError, checksum
from invdiff.core.encode import encode
from invdiff.core.signals import held, interrupts
from invdiff.restoration import checkpoint
from invdiff.restoration.checkpoint import BusyError, Checkpoints, Progress, begin
from invdiff.restoration.job import Job, prepare
from invdiff.restoration.perform import perform
from invdiff.sampling import record
from invdiff.sampling.run import Snapshot
from invdiff.tasks import task_class


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    np.save(folder / "a.npy", np.random.default_rng(0).random((8, 8, 3)))
    task = fields.build(task_class("denoise"), {"noise": 0.1}, "denoise")
    configure = lambda solver: solver.with_steps(3)  # noqa: E731
    return prepare(task, folder / "a.npy", samples=2, batch=1, configure=configure)


@pytest.fixture(scope="module")
def middle(job: Job) -> Progress:
    """Where it stands in its second chunk."""
    seen: list[Snapshot] = []
    best: list[Snapshot] = []
    perform(job, watch=seen.append, quiet=True, best_watch=best.append)
    return Progress(best[-1], next(s for s in seen if s.steps_done == 5))


@pytest.fixture
def kept(job: Job, middle: Progress, tmp_path: Path) -> Checkpoints:
    """Written, and left."""
    found = Checkpoints(job, tmp_path / "out")
    found.progress = middle
    found.save()
    found.leave()
    return found


def again(job: Job, kept: Checkpoints) -> Checkpoints:
    """What goes on from a checkpoint."""
    return begin(dataclasses.replace(job, out=kept.out), 60.0, None, True, False)


def test_a_run_goes_on_to_the_same_bits(job: Job, kept: Checkpoints) -> None:
    whole = perform(job, quiet=True)
    found = again(job, kept)
    other = perform(job, found.progress.samples, None, True, found.progress.estimate)
    assert torch.equal(whole.result.samples, other.result.samples)
    assert torch.equal(whole.result.estimate, other.result.estimate)
    assert whole.result.nfe == other.result.nfe
    found.remove()
    assert not found.folder.exists()


def edit_json(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        form = json.loads((folder / "checkpoint.json").read_text())
        change(form)
        (folder / "checkpoint.json").write_text(json.dumps(form))

    return edit


def signed(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """With the checksum that belongs to it, as one who knows the format would."""

    def edit(form: dict) -> None:
        change(form)
        form["checksum"] = checksum.of_json({k: v for k, v in form.items() if k != "checksum"})

    return edit_json(edit)


def edit_tensor(name: str, change: Callable[[Tensor], Tensor], sign: bool = False):
    def edit(folder: Path) -> None:
        (path,) = folder.glob("*.safetensors")
        tensors = load_file(path)
        tensors[name] = change(tensors[name]).contiguous()
        save_file(tensors, path)
        if sign:
            signed(lambda form: form.update(tensors=checksum.of_tensors(tensors)))(folder)

    return edit


def cut(pattern: str, share: float) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (path,) = folder.glob(pattern)
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])

    return edit


def samples(form: dict) -> dict:
    return form["progress"]["fields"]["samples"]["fields"]


FILES = ("*.safetensors", "checkpoint.json")
EDITS: dict[str, Callable[[Path], None]] = {
    **{f"cut {p} {s}": cut(p, s) for p in FILES for s in (0.0, 0.1, 0.5, 0.9, 0.999)},
    **{f"no {p}": lambda folder, p=p: next(folder.glob(p)).unlink() for p in FILES[:1]},
    **{
        f"{text[:12]} for JSON": lambda folder, t=text: (folder / FILES[1]).write_text(t)
        for text in ("", "{}", "[]", "null", "[" * 99_999, '{"checksum": 1}', "NaN", "1" * 9999)
    },
    **{
        f"{key} = {value}": edit_json(lambda form, k=key, v=value: form.update({k: v}))
        for key in ("format", "job", "file", "tensors", "progress", "checksum")
        for value in (None, 7)
    },
    **{
        f"step {n}": edit_json(lambda form, n=n: samples(form)["state"]["fields"].update(step=n))
        for n in (0, 3, 99, -1, 1.5, "1", None)
    },
    **{
        f"{name} {n}": edit_json(lambda form, k=name, n=n: samples(form).update({k: n}))
        for name in ("steps", "chunks", "nfe")
        for n in (0, 4)
    },
    "NaN in a sample": edit_tensor("samples.done.0", lambda t: t * torch.nan),
    "zeros in a sample": edit_tensor("samples.done.0", lambda t: 0 * t),
    "another state": edit_tensor("samples.state.x", lambda t: t + 1e-7),
    "float64": edit_tensor("samples.state.x", lambda t: t.double()),
    "two rows": edit_tensor("samples.state.x", lambda t: torch.cat([t, t])),
    "another estimate": edit_tensor("estimate.state.x", lambda t: t + 1),
    "signed step": signed(lambda form: samples(form)["state"]["fields"].update(step=99)),
    "signed format": signed(lambda form: form.update(format=2)),
    "signed path": signed(lambda form: form.update(file="../../etc/passwd")),
    "signed class": signed(lambda form: form.update(progress={"type": "os:x", "fields": {}})),
    "signed NaN": edit_tensor("samples.state.x", lambda t: t * torch.nan, True),
    "signed rows": edit_tensor("samples.state.x", lambda t: torch.cat([t, t]), True),
    "signed dtype": edit_tensor("samples.done.0", lambda t: t.int(), True),
}


def test_there_are_as_many_edits_as_were_tried_by_hand() -> None:
    assert len(EDITS) >= 47


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_checkpoint_is_refused(edit: str, job: Job, kept: Checkpoints) -> None:
    """In one sentence: when it is read or, of numbers, before the first step; and it stays."""
    EDITS[edit](kept.folder)

    def go_on() -> None:
        found = again(job, kept)
        try:
            perform(job, found.progress.samples, None, True, found.progress.estimate)
        finally:
            found.leave()

    sentence(go_on)


def test_another_job_is_told(job: Job, kept: Checkpoints) -> None:
    for other in ({"seed": 1}, {"samples": 3}, {"batch": 2}, {"want": "samples"}):
        sentence(lambda o=other: again(dataclasses.replace(job, **o), kept), "other options")
    again(job, kept).leave()  # its own is taken


def test_the_clock_and_the_steps(job: Job, middle: Progress, tmp_path: Path) -> None:
    """Every `every` seconds, but never more than a hundredth of the time; every `steps` steps."""
    state = middle.samples
    assert state is not None
    kept = Checkpoints(job, tmp_path / "a", every=1e-9)
    kept.watch(state)
    assert kept.there
    first = (kept.folder / "checkpoint.json").read_bytes()
    kept._cost = 1e6  # as if it had taken days
    kept.watch(state)
    assert (kept.folder / "checkpoint.json").read_bytes() == first
    kept.steps = 3  # one step since the last checkpoint
    kept.watch(state)
    assert (kept.folder / "checkpoint.json").read_bytes() == first
    kept.watch(state)
    assert (kept.folder / "checkpoint.json").read_bytes() != first
    assert len(list(kept.folder.glob("*.safetensors"))) == 1
    kept.remove()
    never = Checkpoints(job, tmp_path / "b", every=0)
    never.watch(state)
    assert not never.there
    never.leave()
    assert os.listdir(tmp_path) == []


def test_a_write_that_fails_leaves_the_checkpoint_of_before(
    job: Job, kept: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = again(job, kept)
    before = sorted(os.listdir(kept.folder))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("write_tensors", "write_text"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, name, fail)
            with pytest.raises(OSError, match="No space"):
                found.save()
        assert sorted(os.listdir(kept.folder)) == before
    found.leave()
    again(job, kept).leave()


def test_a_rescue_goes_elsewhere_where_there_is_no_room(
    job: Job, middle: Progress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found, real = Checkpoints(job, tmp_path / "out"), record.write_tensors
    found.progress = middle

    def full(path: Path, tensors: dict[str, Tensor]) -> None:
        if path.parent == found.folder:
            raise OSError(28, "No space left on device")
        real(path, tensors)

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    out = found.rescue()
    assert out is not None and out.name == "out" and out != found.out
    elsewhere = begin(dataclasses.replace(job, out=out), 60.0, None, True, False)
    assert elsewhere.progress.samples.steps_done == 5
    elsewhere.remove()
    found.leave()


def test_two_processes_do_not_share_a_checkpoint(job: Job, tmp_path: Path) -> None:
    here = dataclasses.replace(job, out=tmp_path / "out")
    first = begin(here, 60.0, None, False, False)
    second = begin(here, 60.0, None, False, True)  # with --overwrite too
    assert (first.out.name, second.out.name) == ("out", "out-2")
    first.progress = Progress()
    with pytest.raises(BusyError, match="Another process restores into"):
        Checkpoints(job, here.out)
    first.leave(), second.leave()
    third = begin(here, 60.0, None, False, False)
    assert third.out == here.out
    third.leave()
    assert os.listdir(tmp_path) == []


def test_files_of_others_are_not_taken_for_a_checkpoint(job: Job, tmp_path: Path) -> None:
    here = dataclasses.replace(job, out=tmp_path / "out")
    folder = tmp_path / "out.checkpoint"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        sentence(lambda o=overwrite: begin(here, 60.0, None, False, o), "notes.txt")
    assert os.listdir(folder) == ["notes.txt"]
    shutil.rmtree(folder)
    folder.symlink_to(tmp_path)
    sentence(lambda: begin(here, 60.0, None, False, True), "no folder of checkpoints")


def test_signals_wait_while_something_is_written(request: pytest.FixtureRequest) -> None:
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
    request.addfinalizer(lambda: signal.signal(signal.SIGHUP, hangup))
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts():
        with held():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.raise_signal(number)
            done.append("written")
        done.append("not reached")
    assert done == ["written"]
    with interrupts():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGINT)  # a second one raises nothing
        with held():
            signal.raise_signal(signal.SIGTERM)
    assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


def test_what_a_signal_broke_counts_as_the_signal() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:  # as a context manager that finds what it holds in pieces
            raise RuntimeError("trying to pop from empty mode stack")
    with pytest.raises(RuntimeError, match="of another kind"), interrupts():
        raise RuntimeError("of another kind")


def test_nohup_stays() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_checkpoint_costs_little(job: Job, middle: Progress, tmp_path: Path) -> None:
    """At most SHARE of the time since the last, by the clock: below 2 %, whatever one takes."""
    assert checkpoint.SHARE < 0.02
    tensors: dict[str, Tensor] = {}
    encode(middle, tensors)
    assert set(tensors) >= {"samples.state.x", "samples.state.x0", "samples.done.0"}


def test_a_snapshot_of_other_numbers_is_refused(job: Job, middle: Progress) -> None:
    """In Python too."""
    state = middle.samples.state
    for wrong in (
        dataclasses.replace(state, step=99),
        dataclasses.replace(state, x=state.x * torch.nan),
        dataclasses.replace(state, x0=state.x0[..., 1:]),
    ):
        start = dataclasses.replace(middle.samples, state=wrong)
        with pytest.raises(InvdiffError, match="The snapshot"):
            perform(job, start, quiet=True)
