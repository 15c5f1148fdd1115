"""What survives when restorations are killed, interrupted twice, run out of disk, or meet.

    python benchmarks/chaos.py --trials 200

Every trial is `invdiff restore` in a process of its own, in a folder with files of others whose
names lie near: half of the trials are killed (SIGKILL) at a random moment, a fifth get two of
SIGINT, SIGTERM and SIGHUP within milliseconds, 15 % find the disk full (a small tmpfs, or a limit
on the size of files where mounting is not allowed), and 15 % are two processes with one --out. Then
the run goes on with --resume where there is a checkpoint, and begins anew where there is none; the
results have to be those of an undisturbed run, byte by byte. A table tells what was found; the exit
code is 1 where anything was half-written, mixed, touched or different.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from invdiff.cli import main as invdiff
from invdiff.core import InvdiffError
from invdiff.priors.load import load_prior
from invdiff.sampling.result import Result

ARGS = [
    "restore", "denoise", "photo.png", "--noise", "0.1", "--steps", "5", "--samples", "4",
    "--batch", "1", "--checkpoint-steps", "1", "--quiet",
]  # fmt: skip
PROMISED = 0.95
"""Share of kills after the first checkpoint from which a run goes on."""
PATIENCE = 120.0
"""Seconds after which a child is given up."""
SHARES = {"kill -9": 0.5, "interrupted twice": 0.2, "disk full": 0.15, "two writers": 0.15}
OTHERS = {"o.part/thesis.txt": "years", "o.old/photo.txt": "only copy", "o.txt": "o", "o-9/x": "y"}
"""Files of others that lie beside the results, with their content."""
TIMES = {"seconds", "estimate_seconds", "checksums"}
"""Fields of run.json that differ between two runs that are alike."""


@dataclass
class Tally:
    """What was counted of one kind of trial."""

    trials: int = 0
    half_written: int = 0
    mixed: int = 0
    touched: int = 0
    checkpoints: int = 0
    resumed: int = 0
    finished: int = 0
    equal: int = 0
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Child:
    """A run in a process of its own."""

    pid: int
    log: Path

    def wait(self) -> tuple[int, str]:
        """Its exit code (negative: a signal), and what it wrote on stderr."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status), self.log.read_text()
            time.sleep(0.005)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return -99, f"no end within {PATIENCE} s"

    def send(self, number: int) -> None:
        """A signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def start(folder: Path, args: list[str], largest: int | None = None) -> Child:
    """Run a command in a folder. largest: bytes of any file that it may write."""
    log = folder.parent / f"{folder.name}.{time.monotonic_ns()}.log"
    log.touch()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return Child(pid, log)
    code = 99
    try:
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), 2)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), line_buffering=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        tempfile.tempdir = str(folder.parent)
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        code = invdiff(args)
    finally:
        os._exit(code)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of results; run.json without times."""
    found = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    told = json.loads(found["run.json"])
    found["run.json"] = repr(sorted((k, v) for k, v in told.items() if k not in TIMES)).encode()
    return found


class Chaos:
    """Trials in a folder. figures: whether the sheets are drawn, which takes most of the time."""

    def __init__(self, folder: Path, seed: int = 0, mounts: bool = True) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.mounts = mounts and os.geteuid() == 0
        self.count = 0
        self.right = {s: self._undisturbed(s) for s in (0, 1)}

    def _undisturbed(self, seed: int) -> dict[str, bytes]:
        place, began = self._place(), time.monotonic()
        code, said = start(place, [*ARGS, "--out", "o", "--seed", str(seed)]).wait()
        if code:
            raise SystemExit(f"The undisturbed run failed: {said}")
        self.seconds = time.monotonic() - began
        return contents(place / "o")

    def _place(self) -> Path:
        """A new folder with a photograph and files of others."""
        self.count += 1
        return self.place(self.folder / f"trial-{self.count}")

    @staticmethod
    def place(place: Path) -> Path:
        """A folder with a photograph and files of others."""
        place.mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "photo.png")
        for name, text in OTHERS.items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text(text)
        return place

    def kill(self, tally: Tally) -> None:
        """SIGKILL at a random moment of a run."""
        place = self._place()
        child = start(place, [*ARGS, "--out", "o"])
        if self.random.random() < 0.7:  # most of the others come before there is a checkpoint
            self._await(place / "o.checkpoint" / "checkpoint.json")
            time.sleep(self.random.uniform(0, 0.6 * self.seconds))
        else:
            time.sleep(self.random.uniform(0, 1.05 * self.seconds))
        child.send(signal.SIGKILL)
        child.wait()
        self._go_on(place, tally, [*ARGS, "--out", "o"])

    def _await(self, path: Path) -> None:
        """Until a file is there, or the time of a run is over."""
        end = time.monotonic() + 2 * self.seconds
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.002)

    def interrupt(self, tally: Tally) -> None:
        """Two signals within milliseconds."""
        place = self._place()
        child = start(place, [*ARGS, "--out", "o"])
        self._await(place / "o.checkpoint")
        time.sleep(self.random.uniform(0, 0.6) * self.seconds)
        for wait in (self.random.uniform(0.0001, 0.008), 0.0):
            child.send(self.random.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
            time.sleep(wait)
        code, said = child.wait()
        ended = code in (-signal.SIGTERM, -signal.SIGHUP)
        early = ended and not (place / "o.checkpoint").exists()  # before anything was begun
        late = ended and "; go on with: " in said  # the second, when the first had been answered
        if code not in (0, 130) and not early and not late:
            tally.said.append(f"exit {code} after two signals: {said.strip()[:200]}")
            tally.half_written += 1
        self._go_on(place, tally, [*ARGS, "--out", "o"])

    def full(self, tally: Tally) -> None:
        """No room: a small file system, or a limit on the size of files."""
        place = self._place()
        size = self.random.choice([16, 32, 48, 64, 96, 128])
        mounted = self.mounts and self._mount(place, f"size={size + 24}k")
        if mounted:
            for path in (self.folder / "trial-1").iterdir():
                if path.name == "photo.png":
                    shutil.copy(path, place)
        child = start(place, [*ARGS, "--out", "o"], None if mounted else size * 512)
        code, said = child.wait()
        resume = said.partition("go on with: ")[2].strip()
        if mounted:
            self._mount(place, "remount,size=16m")
            for name, text in OTHERS.items():
                (place / name).parent.mkdir(exist_ok=True)
                (place / name).write_text(text)
        if code not in (0, 1) or (code and not said.startswith("invdiff: ")):
            tally.said.append(f"exit {code} on a full disk: {said.strip()[:200]}")
        args = shlex.split(resume)[1:] if resume else [*ARGS, "--out", "o"]
        self._go_on(place, tally, args)
        if mounted:
            subprocess.run(["umount", "--lazy", place], check=False)

    def _mount(self, place: Path, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def writers(self, tally: Tally) -> None:
        """Two processes with one --out, and other seeds."""
        place, tally.trials = self._place(), tally.trials + 1
        children = []
        for seed in ("0", "1"):
            children.append(start(place, [*ARGS, "--out", "o", "--seed", seed]))
            time.sleep(self.random.choice([0, 0.01, 0.1, self.seconds / 2]))
        said = [child.wait() for child in children]
        found = [contents(p) for p in (place / "o", place / "o-2") if p.exists()]
        wrong = [f for f in found if f not in self.right.values()]
        tally.mixed += bool(wrong)
        tally.finished += 1
        both = len(found) == 2 and not wrong and found[0] != found[1]
        tally.equal += both
        if not both:
            tally.said.append(f"two writers left {sorted(os.listdir(place))}: {said}")
        self._check_others(place, tally)

    def _go_on(self, place: Path, tally: Tally, args: list[str]) -> None:
        """After what happened: is all whole, does the run go on, are the results right?"""
        tally.trials += 1
        out = place / args[args.index("--out") + 1]
        there = out.exists()
        if there and not self._whole(out, tally):
            tally.half_written += 1
            return
        kept = (out.with_name(out.name + ".checkpoint") / "checkpoint.json").exists()
        if not there:
            tally.checkpoints += kept
            args = [*args, "--resume"] if kept and "--resume" not in args else args
            code, said = start(place, args).wait()
            if code and kept:
                tally.said.append(f"did not go on: {said.strip()[:300]}")
                code, said = start(place, [*ARGS, "--out", "o", "--overwrite"]).wait()
            elif kept:
                tally.resumed += 1
            if code:
                tally.said.append(f"did not begin anew: {said.strip()[:300]}")
        tally.finished += 1
        tally.equal += out.exists() and contents(out) == self.right[0]
        self._check_others(place, tally)

    def _whole(self, out: Path, tally: Tally) -> bool:
        try:
            Result.load(out)
            return contents(out) == self.right[0]
        except (InvdiffError, OSError, LookupError, ValueError) as error:
            tally.said.append(f"half-written: {error}")
            return False

    def _check_others(self, place: Path, tally: Tally) -> None:
        same = all(
            (place / n).is_file() and (place / n).read_text() == t for n, t in OTHERS.items()
        )
        tally.touched += not same

    def trial(self, kind: str, tally: Tally) -> None:
        """One trial of a kind."""
        call: dict[str, Callable[[Tally], None]] = {
            "kill -9": self.kill,
            "interrupted twice": self.interrupt,
            "disk full": self.full,
            "two writers": self.writers,
        }
        call[kind](tally)


def run(folder: Path, trials: int, seed: int = 0, minutes: float = 60.0) -> dict[str, Tally]:
    """Trials of all kinds, until `minutes` are over. folder: an empty one, which is filled."""
    torch.set_num_threads(1)
    load_prior("photo").denoise(torch.zeros(1, 3, 20, 24), 0.1)  # children find all of it there
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        place = Chaos.place(folder / "warm")  # children find all modules there
        args = [*ARGS, "--out", str(place / "o")]
        invdiff([str(place / a) if a == "photo.png" else a for a in args])
    chaos, end = Chaos(folder, seed), time.monotonic() + 60 * minutes
    found = {kind: Tally() for kind in SHARES}
    for kind, share in SHARES.items():
        for _ in range(max(1, round(share * trials))):
            if time.monotonic() < end:
                chaos.trial(kind, found[kind])
    return found


def broken(found: dict[str, Tally]) -> list[str]:
    """What was promised and did not hold."""
    wrong = []
    for kind, t in found.items():
        for name, count in (
            ("half-written", t.half_written),
            ("mixed", t.mixed),
            ("with files of others touched", t.touched),
            ("not equal to the byte", t.finished - t.equal),
        ):
            wrong += [f"{kind}: {count} {name}"] if count else []
        if t.resumed < PROMISED * t.checkpoints:
            wrong.append(f"{kind}: {t.resumed} of {t.checkpoints} checkpoints were gone on from")
    return wrong


def table(found: dict[str, Tally]) -> str:
    """The counts, in Markdown."""
    lines = [
        "| what happened | trials | half-written | mixed | files of others touched "
        "| had a checkpoint | went on | equal to the byte |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, t in found.items():
        lines.append(
            f"| {kind} | {t.trials} | {t.half_written} | {t.mixed} | {t.touched} "
            f"| {t.checkpoints} | {t.resumed} | {t.equal} of {t.finished} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no trial after these")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        found = run(Path(folder), given.trials, given.seed, given.minutes)
    print(table(found))
    for kind, tally in found.items():
        for text in tally.said:
            print(f"{kind}: {text}")
    wrong = broken(found)
    print("\n".join(wrong) or "all as promised")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
