"""Where an unfinished restoration stands, in a folder beside its results, at any moment.

OUT.checkpoint holds checkpoint.json, the tensors that it names, and a file `lock`, on which a
running process has a lock: it ends with the process, however that ends. checkpoint.json is replaced
in one move, so there is always the whole checkpoint of before or the whole new one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
from pathlib import Path
from secrets import token_hex
from typing import IO, Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from invdiff.core import InvdiffError, checksum
from invdiff.core.durable import sync, write_text
from invdiff.core.encode import decode, encode
from invdiff.core.folders import beside
from invdiff.core.forms import check_form
from invdiff.core.signals import check_interrupted, held
from invdiff.restoration.job import Job
from invdiff.restoration.perform import Progress
from invdiff.sampling.record import LARGEST, write_tensors
from invdiff.sampling.run import Snapshot

FORMAT = 1
JSON_FILE, LOCK = "checkpoint.json", "lock"
OURS = re.compile(
    r"checkpoint\.json(\.[0-9a-f]{8})?|(tensors-[0-9a-f]{8}|checkpoint)\.safetensors"
    r"|lock|\.tmp\w{6}"
)
"""Files of a checkpoint, of versions before, and of writes that were cut short."""
SHARE = 0.01
"""Of its time, what a run spends on checkpoints that are due by the clock, at most."""


class BusyError(InvdiffError):
    """Another process restores into the folder."""


def checkpoint_folder(out: Path) -> Path:
    """Where the checkpoint of a run into `out` lies."""
    return out.with_name(out.name + ".checkpoint")


class Checkpoints:
    """The checkpoints of one run, in a folder that this process holds until `remove` or `leave`.

    every: seconds between two; more where one takes more than SHARE of that. steps: write one
    after so many steps too. progress: where the run stands now.
    Raises InvdiffError when the folder holds anything else, BusyError when another process has it.
    """

    def __init__(self, job: Job, out: Path, every: float = 60.0, steps: int | None = None) -> None:
        self.job, self.out, self.folder = job, out, checkpoint_folder(out.absolute())
        self.every, self.steps = every, steps
        self.progress, self.resumed = Progress(), False
        self._missing = [p for p in self.folder.parents if not p.exists()]
        self._saved, self._cost, self._since = time.monotonic(), 0.0, 0
        self._lock = _locked(self.folder)

    @property
    def there(self) -> bool:
        """Whether there is a checkpoint."""
        return (self.folder / JSON_FILE).exists()

    def watch_estimate(self, snapshot: Snapshot) -> None:
        """After every step of the estimate."""
        self._step(Progress(snapshot), snapshot.state.step)

    def watch(self, snapshot: Snapshot) -> None:
        """After every step of the samples."""
        self._step(Progress(self.progress.estimate, snapshot), snapshot.state.step)

    def _step(self, progress: Progress, step: int) -> None:
        """Note where the run stands, and write it where that is due."""
        self.progress = progress
        self._since += step > 0  # a chunk tells of its beginning too
        check_interrupted()
        waited = time.monotonic() - self._saved
        due = self.every > 0 and waited >= max(self.every, self._cost / SHARE)
        if not due and (self.steps is None or self._since < self.steps):
            return
        try:
            self.save()
        except OSError:  # the run goes on, and may find room later
            self._saved = time.monotonic()

    def save(self) -> None:
        """Write where the run stands; the checkpoint of before is there until this one is."""
        began, name = time.monotonic(), f"tensors-{token_hex(4)}.safetensors"
        with held():
            tensors: dict[str, Tensor] = {}
            form = encode(self.progress, tensors)
            try:
                write_tensors(self.folder / name, tensors)
                sync(self.folder / name)
                record = {"format": FORMAT, "job": self.job.digest, "progress": form, "file": name}
                record["tensors"] = checksum.of_tensors(tensors)
                record["checksum"] = checksum.of_json(record)
                write_text(self.folder / JSON_FILE, json.dumps(record) + "\n")
            except OSError:
                (self.folder / name).unlink(missing_ok=True)
                raise
            for path in self.folder.glob("*.safetensors"):
                if path.name != name and OURS.fullmatch(path.name):
                    path.unlink(missing_ok=True)
        self._since = 0
        self._saved = time.monotonic()
        self._cost = self._saved - began

    def load(self) -> Progress:
        """Where the run stood. Raises InvdiffError when that was another run, or is broken."""
        self.progress, self.resumed = _read(self.folder, self.job), True
        return self.progress

    def rescue(self) -> Path | None:
        """Write where the run stands, beside the results or, where that fails, in a folder for
        temporary files; the results that --resume goes on to then. None where there is no place.
        """
        with contextlib.suppress(OSError):
            self.save()
            return self.out
        if self.there:  # the one of before is whole
            return self.out
        with contextlib.suppress(OSError):
            place = Path(tempfile.mkdtemp(prefix="invdiff-"))
            there = Checkpoints(self.job, place / self.out.name)
            there.progress = self.progress
            there.save()
            there.leave()
            return there.out
        return None

    def remove(self) -> None:
        """Delete the checkpoint, and let others have the folder."""
        with held():
            (self.folder / JSON_FILE).unlink(missing_ok=True)
            self.leave()

    def leave(self) -> None:
        """Let others have the folder, as it is; what holds no checkpoint is removed."""
        if not self.there:
            with contextlib.suppress(OSError):
                for name in filter(OURS.fullmatch, os.listdir(self.folder)):
                    (self.folder / name).unlink(missing_ok=True)
                self.folder.rmdir()
                if self.progress == Progress():  # as if nothing had begun
                    for path in self._missing:
                        path.rmdir()
        self._lock.close()


def begin(job: Job, every: float, steps: int | None, resume: bool, overwrite: bool) -> Checkpoints:
    """The checkpoints of a run that begins, or goes on.

    Where another process restores into the folder, they are those of FOLDER-2 and so on: `out` of
    what is returned. Raises InvdiffError when there is nothing to go on from, and when the
    checkpoint of an interrupted run would be lost.
    """
    folder = checkpoint_folder(job.out)
    if resume and not (folder / JSON_FILE).exists():
        raise InvdiffError(f"There is no checkpoint {folder}; leave --resume out.")
    for out in beside(job.out):
        if out != job.out and (out.exists() or checkpoint_folder(out).exists()):
            continue
        try:
            kept = Checkpoints(job, out, every, steps)
            break
        except BusyError:
            if resume:
                raise
    if resume:
        try:
            kept.load()
        except BaseException:
            kept.leave()
            raise
    elif kept.there and not overwrite:
        kept.leave()
        raise InvdiffError(
            f"{folder} is the checkpoint of an interrupted run; give --resume to go on, or "
            "--overwrite to begin anew."
        )
    return kept


def _locked(folder: Path) -> IO[str]:
    """The locked file `lock` in a folder of checkpoints, which is made where there is none."""
    while True:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        if folder.is_symlink() or not folder.is_dir():
            raise InvdiffError(f"{folder} is no folder of checkpoints; move it, or choose another.")
        others = sorted(n for n in os.listdir(folder) if not OURS.fullmatch(n))
        if others:
            raise InvdiffError(
                f"{folder} holds other things than a checkpoint ({', '.join(others[:3])}); move "
                "them, or choose another folder for the results."
            )
        try:
            file = open(folder / LOCK, "a", encoding="utf-8")
        except FileNotFoundError:  # removed by the process that had it
            continue
        except OSError as error:
            raise InvdiffError(f"{folder} cannot be written to ({error.strerror}).") from error
        if not _lock(file):
            file.close()
            raise BusyError(f"Another process restores into {folder.stem}; wait for its end.")
        try:
            if os.stat(folder / LOCK).st_ino == os.fstat(file.fileno()).st_ino:
                return file
        except FileNotFoundError:
            pass
        file.close()


def _lock(file: IO[str]) -> bool:
    """Whether this process has the lock of a file now. Where there are none, it has."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _read(folder: Path, job: Job) -> Progress:
    broken = InvdiffError(f"{folder} is a broken checkpoint; delete it and begin anew.")
    record = _record(folder / JSON_FILE, broken)
    if record["job"] != job.digest:
        raise InvdiffError(
            f"{folder} is the checkpoint of a run with other options; repeat the command that was "
            "interrupted, or give --overwrite without --resume to begin anew."
        )
    try:
        if not OURS.fullmatch(record["file"]):
            raise broken
        tensors = load_file(folder / record["file"])
        if checksum.of_tensors(tensors) != record["tensors"]:
            raise broken
        check_form(record["progress"], Progress, "progress", tensors)
        device = job.problem.y.device
        moved = {k: v.to(device) if ".state." in k else v for k, v in tensors.items()}
        found = decode(record["progress"], moved)
    except (OSError, ValueError, LookupError, TypeError, SafetensorError, InvdiffError) as error:
        raise broken from error
    assert isinstance(found, Progress)
    return found


def _record(path: Path, broken: InvdiffError) -> dict[str, Any]:
    """What checkpoint.json tells, if it tells what was written."""
    try:
        if path.stat().st_size > LARGEST:
            raise broken
        found = json.loads(path.read_text(encoding="utf-8"))
        told = found.pop("checksum")
        if checksum.of_json(found) != told:
            raise broken
        if found["format"] != FORMAT:
            raise InvdiffError(
                f"{path.parent} is a checkpoint of another version of invdiff; begin anew with "
                "--overwrite, or go on with that version."
            )
        return {key: found[key] for key in ("job", "progress", "file", "tensors")}
    except InvdiffError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise broken from error
