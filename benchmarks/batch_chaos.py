"""What survives when a batch is killed, finds no room, or meets another one.

    python benchmarks/batch_chaos.py --kills 30
    python benchmarks/batch_chaos.py --kills 30 --ray      kills actors of a local Ray too

A batch of small pictures, one of them broken, is killed (SIGKILL) at random moments: its driver,
one of its workers, or an actor. What was killed is started again, until the batch ends, and then a
new one begins, until there were enough kills. Then come a full disk, a folder that turns read-only
(small tmpfs; needs the right to mount), an input that vanishes and comes back, two items of one
name, and two drivers on one folder. Every time the results have to be those of an undisturbed run,
byte by byte, each item once in the manifest, and nothing else in the folder. Exit code 1 where
anything was lost, made twice, half-written or different.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

import chaos
from chaos import Child, start
from invdiff.batch.place import Place
from invdiff.batch.report import all_lines
from invdiff.cli import main as invdiff
from invdiff.priors.load import load_prior

OPTIONS = ["--noise", "0.1", "--steps", "3", "--samples", "2", "--quiet", "--shard-size", "4"]
TIMES = {"seconds"}
"""Fields of a line that differ between two runs that are alike."""
BROKEN = "b/broken.png"
PATIENCE = 900.0
"""Seconds after which a batch is given up."""
ENDS = (0, 3)
"""Exit codes of a batch that ended: with and without items that failed."""


def pictures(folder: Path, count: int) -> None:
    """Small pictures in three folders, one of them cut."""
    for i in range(count):
        path = folder / "abc"[i % 3] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    whole = (folder / "a/000.png").read_bytes()
    (folder / BROKEN).write_bytes(whole[: len(whole) // 2])


def contents(out: Path) -> dict[str, bytes]:
    """Files of results, and the lines of the manifest; both without times."""
    found = {}
    for path in sorted((out / "items").rglob("*")):
        if path.is_file():
            found[str(path.relative_to(out))] = _timeless(path)
    for line in all_lines(Place(out)):
        key = f"manifest: {line['id']}"
        if key in found:
            raise AssertionError(f"{line['id']} is in the manifest twice")
        found[key] = _plain(line)
    return found


def _timeless(path: Path) -> bytes:
    told = path.read_bytes()
    return _plain(json.loads(told)) if path.name == "item.json" else told


def _plain(line: dict[str, object]) -> bytes:
    return json.dumps({k: v for k, v in line.items() if k not in TIMES}, sort_keys=True).encode()


class Trials:
    """Batches in a folder, and what is wrong with what they left."""

    def __init__(self, folder: Path, count: int, seed: int) -> None:
        self.folder, self.random, self.wrong = folder, random.Random(seed), list[str]()
        self.found = Counter[str]()
        pictures(folder / "in", count)
        began = time.monotonic()
        code, said = self.begin("right").wait()
        self.seconds = time.monotonic() - began
        if code != 3:
            raise SystemExit(f"The undisturbed run ended with {code}: {said}")
        self.right = contents(folder / "right")
        self.right_of_all = dict(self.right)
        self._compare_sentence()

    def _compare_sentence(self) -> None:
        """An item that failed says what `invdiff restore` says of the file."""
        path, said = self.folder / "in" / BROKEN, io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            invdiff(["restore", "denoise", str(path), "--noise", "0.1", "--out", "never"])
        line = next(x for x in all_lines(Place(self.folder / "right")) if x["id"] == BROKEN)
        if said.getvalue().strip() != f"invdiff: {line['error']}":
            self.wrong.append(f"sentences differ: {said.getvalue()!r} and {line['error']!r}")
        self.found["sentence as of restore"] += 1

    def begin(self, out: str, *more: str, source: str = "in") -> Child:
        """A batch in a process of its own."""
        return start(self.folder, ["batch", "denoise", source, "--out", out, *OPTIONS, *more])

    def check(self, out: Path, what: str, right: dict[str, bytes] | None = None) -> None:
        """Note whatever differs from the undisturbed run."""
        self.found[what] += 1
        try:
            found, right = contents(out), right or self.right
        except (AssertionError, OSError, ValueError) as error:
            self.wrong.append(f"{what}: {error}")
            return
        if found != right:
            keys = [k for k in {*found, *right} if found.get(k) != right.get(k)]
            self.wrong.append(f"{what}: {len(keys)} differ, as {sorted(keys)[:3]}")
        left = [p.name for p in (out / "work").iterdir() if p.name != "locks"]
        if [name for name in left if not name.startswith(".invdiff-")]:
            self.wrong.append(f"{what}: {left} is left in work")

    def kills(self, count: int, crew: list[str], kind: str, hit: str) -> None:
        """Kill drivers, or what they started, until there were so many kills."""
        done = number = 0
        while done < count:
            out, number, code = f"{hit}-{kind}-{number}", number + 1, -9
            for _ in range(count + 5):
                child = self.begin(out, *crew)
                while done < count and self._kill(child, hit, kind):
                    done += 1
                    self.found[f"kill -9 of {hit} ({kind})"] += 1
                    if hit == "the driver":
                        break
                code, said = child.wait()
                if code in ENDS:
                    break
                if code != -signal.SIGKILL:
                    self.wrong.append(f"{hit}, {kind}: exit code {code}: {said.strip()[:200]}")
            self.check(self.folder / out, f"batch after kills of {hit} ({kind})")
            if code not in ENDS:
                self.wrong.append(f"{hit}, {kind}: the batch did not end")

    def _kill(self, child: Child, hit: str, kind: str) -> bool:
        """Wait a while, and kill; whether there was somebody to kill."""
        end = time.monotonic() + self.random.uniform(0.2, 1.2) * self.seconds
        while time.monotonic() < end or hit != "the driver":
            victims = self._victims(child.pid, hit, kind)
            if victims is None:
                return False
            if time.monotonic() > end and victims:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self.random.choice(victims).kill()
                    return True
            time.sleep(0.02)
        victims = self._victims(child.pid, hit, kind)
        for victim in victims or []:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        return bool(victims)

    @staticmethod
    def _victims(pid: int, hit: str, kind: str) -> list[psutil.Process] | None:
        """Processes that may be killed; None where the driver has ended."""
        with contextlib.suppress(psutil.Error):
            driver = psutil.Process(pid)
            if driver.status() == psutil.STATUS_ZOMBIE:
                return None
            if hit == "the driver":
                return [driver]
            word = "Actor" if kind == "ray" else "spawn_main"
            inner = driver.children(recursive=True)
            found = []
            for p in inner:
                with contextlib.suppress(psutil.Error):
                    found += [p] * (word in " ".join(p.cmdline()))
            return found
        return None

    def full(self, size: str) -> None:
        """A file system that is too small, and then is not."""
        with self._mounted(f"full-{size}", f"size={size}") as out:
            code, said = self.begin(f"{out.parent.name}/o").wait()
            if code != 3 and (code != 1 or "Nothing can be written" not in said):
                self.wrong.append(f"full disk: exit code {code}: {said.strip()[:200]}")
            self._remount(out.parent, "size=64m")
            self.begin(f"{out.parent.name}/o").wait()
            self.check(out, "full disk")

    def read_only(self) -> None:
        """A file system that turned read-only after the batch was killed, and back."""
        with self._mounted("read-only", "size=64m") as out:
            child = self.begin(f"{out.parent.name}/o")
            while not list((out / "manifest").glob("*")):
                time.sleep(0.01)
            child.send(signal.SIGKILL)
            child.wait()
            if not self._remount(out.parent, "ro"):
                self.wrong.append("read-only: it could not be made so")
            code, said = self.begin(f"{out.parent.name}/o").wait()
            if code != 1 or "Nothing can be written" not in said:
                self.wrong.append(f"read-only: exit code {code}: {said.strip()[:200]}")
            self._remount(out.parent, "rw")
            self.begin(f"{out.parent.name}/o").wait()
            self.check(out, "read-only folder")

    @contextlib.contextmanager
    def _mounted(self, name: str, options: str):
        place = self.folder / name
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], check=True)
        try:
            yield place / "o"
        finally:
            subprocess.run(["umount", "--lazy", place], check=False)

    def _remount(self, place: Path, options: str) -> bool:
        command = ["mount", "-o", f"remount,{options}", str(place)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def vanishing(self) -> None:
        """An input that is gone when its turn comes, and comes back."""
        path, aside = self.folder / "in/c/002.png", self.folder / "aside.png"
        child = self.begin("vanished")
        while not (self.folder / "vanished/batch.json").exists():
            time.sleep(0.002)
        while not json.loads((self.folder / "vanished/batch.json").read_text())["planned"]:
            time.sleep(0.002)
        path.rename(aside)
        child.wait()
        lines = {x["id"]: x for x in all_lines(Place(self.folder / "vanished"))}
        if "There is no file" in lines["c/002.png"].get("error", ""):
            self.found["vanished input was told"] += 1
        aside.rename(path)
        code, _ = self.begin("vanished", "--retry-failed").wait()
        self.check(self.folder / "vanished", "vanished input, then --retry-failed")

    def twice(self) -> None:
        """A list that names an item twice is refused."""
        (self.folder / "twice.txt").write_text("in/a/000.png\nin/c/002.png\nin/a/000.png\n")
        code, said = self.begin("twice", source="twice.txt").wait()
        self.found["two items of one name"] += 1
        if code != 2 or "Two items have the name in/a/000.png" not in said:
            self.wrong.append(f"two of one name: exit code {code}: {said.strip()[:200]}")

    def two_drivers(self, wait: float) -> None:
        """Two processes with one folder share it."""
        out = f"two-{wait:g}"
        first = self.begin(out)
        time.sleep(wait * self.seconds)
        second = self.begin(out)
        codes = [first.wait()[0], second.wait()[0]]
        if codes != [3, 3]:
            self.wrong.append(f"two drivers: exit codes {codes}")
        self.check(self.folder / out, "two drivers")


def warmed() -> None:
    """Children find modules and weights in memory, and have time on a busy machine."""
    chaos.PATIENCE = PATIENCE
    torch.set_num_threads(1)
    load_prior("photo").denoise(torch.zeros(1, 3, 20, 24), 0.1)


def run(folder: Path, kills: int, count: int, seed: int, ray: bool = False) -> Trials:
    """All trials, in an empty folder."""
    warmed()
    OPTIONS.extend(["--workers", "0"] * ("--workers" not in OPTIONS))
    trials = Trials(folder, count, seed)
    trials.kills(kills // 2, [], "in its process", "the driver")
    trials.kills(kills // 6, ["--workers", "2"], "2 workers", "the driver")
    trials.kills(kills - kills // 2 - kills // 6, ["--workers", "2"], "2 workers", "a worker")
    if ray:
        more = ["--workers", "2", "--cluster", "local"]
        trials.kills(max(1, kills // 6), more, "ray", "an actor")
    trials.twice()
    trials.vanishing()
    trials.two_drivers(0.0)
    trials.two_drivers(0.5)
    if shutil.which("mount") and subprocess.run(["id", "-u"], capture_output=True).stdout == b"0\n":
        trials.full("96k")
        trials.full("300k")
        trials.read_only()
    return trials


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ray", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="batch-chaos-") as folder:
        trials = run(Path(folder), given.kills, given.items, given.seed, given.ray)
    for what, number in trials.found.items():
        print(f"{number:4} {what}")
    print("\n".join(trials.wrong) or "all as promised")
    return int(bool(trials.wrong))


if __name__ == "__main__":
    sys.exit(main())
