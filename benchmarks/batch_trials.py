"""Batches of small pictures in a folder, and whether what they left is that of an undisturbed run.

The parts of `batch_chaos.py` and `batch_same.py` that tell what is right, and the trials with disks
and inputs.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from chaos import Child, start
from invdiff.batch.packed import read
from invdiff.batch.place import Place
from invdiff.batch.report import all_lines
from invdiff.cli import main as invdiff

OPTIONS = ["--noise", "0.1", "--steps", "3", "--samples", "2", "--quiet", "--shard-size", "4"]
TIMES = {"seconds", "at"}
"""Fields of a line that differ between two runs that are alike; `at` is of tar files alone."""
BROKEN = "b/broken.png"


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
        for name in line.get("at", ()):
            data = read(Place(out), line, name)
            told = _plain(json.loads(data)) if name == "json" and data else data
            found[f"items/{line['id']}/{name}"] = told or b"not there"
    return found


def of_tars(found: dict[str, bytes]) -> dict[str, bytes]:
    """The contents of a batch of folders as one of tar files has them."""
    plain = {k: v for k, v in found.items() if not k.endswith("/item.json")}
    lines = {k.removeprefix("manifest: "): v for k, v in found.items() if k[:5] == "manif"}
    return plain | {f"items/{i}/json": v for i, v in lines.items() if b'"error"' not in v}


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
        said = self._sentence(self.folder / "in" / BROKEN)
        line = next(x for x in all_lines(Place(self.folder / "right")) if x["id"] == BROKEN)
        if said != line["error"]:
            self.wrong.append(f"sentences differ: {said!r} and {line['error']!r}")
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

    def full(self, size: str) -> None:
        """A file system that is too small, and then is not."""
        with self._mounted(f"full-{size}", f"size={size}") as out:
            code, said = self.begin(f"{out.parent.name}/o").wait()
            if code != 3 and (code != 1 or "Nothing can be written" not in said):
                self.wrong.append(f"full disk: exit code {code}: {said.strip()[:200]}")
            self._remount(out.parent, "size=64m")
            self.begin(f"{out.parent.name}/o").wait()
            self.check(out, "full disk")

    def full_for_report(self) -> None:
        """A disk that has no room for the report, when all else is written."""
        with self._mounted("report", "size=64m") as out:
            self.begin(f"{out.parent.name}/o").wait()
            (out / "report.html").unlink()
            with open(out.parent / "ballast", "wb", 0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            for _ in range(2):
                code, said = self.begin(f"{out.parent.name}/o").wait()
                if code != 1 or "Nothing can be written" not in said:
                    self.wrong.append(f"full for report: exit code {code}: {said.strip()[:200]}")
            left = [p.name for p in out.glob("report*")]
            if left:
                self.wrong.append(f"full for report: {left} is left")
            (out.parent / "ballast").unlink()
            code, said = self.begin(f"{out.parent.name}/o").wait()
            if code != 3 or not (out / "report.html").read_text().startswith("<!doctype html>"):
                self.wrong.append(f"full for report, then not: exit code {code}: {said.strip()}")
            self.check(out, "full disk for the report")

    def broken(self) -> None:
        """Inputs that are broken otherwise: each is told as `invdiff restore` tells it."""
        whole, bad = (self.folder / "in/a/000.png").read_bytes(), self.folder / "bad"
        bad.mkdir()
        (bad / "whole.png").write_bytes(whole)
        for name, data in {
            "cut.png": whole[:-40], "empty.png": b"", "text.jpg": b"no picture",
            "zeros.png": bytes(5000), "head.tif": b"II*\0", "none.npy": b"\x93NUMPY",
            "x.npz": b"PK", "a b\n.png": b"",
        }.items():  # fmt: skip
            (bad / name).write_bytes(data)
        np.save(bad / "five.npy", np.zeros((2, 2, 2, 2, 2), np.float32))
        np.save(bad / "nan.npy", np.full((9, 9), np.nan, np.float32))
        (bad / "gone.png").symlink_to("nowhere.png")
        os.mkfifo(bad / "pipe.png")
        code, said = self.begin("o-bad", source="bad").wait()
        lines = {x["id"]: x for x in all_lines(Place(self.folder / "o-bad"))}
        if code != 3 or sorted(lines) != sorted(p.name for p in bad.iterdir()):
            self.wrong.append(f"broken inputs: exit code {code}, {sorted(lines)}: {said[:200]}")
        for name, line in lines.items():
            told = self._sentence(bad / name)
            if ("error" in line) == (name == "whole.png") or line.get("error", "") != told:
                self.wrong.append(f"broken inputs, {name}: {line.get('error')!r} and {told!r}")
            self.found["broken inputs, told as restore does"] += "error" in line

    def _sentence(self, path: Path) -> str:
        """What `invdiff restore` says of a file; nothing where it restores it."""
        said, options = io.StringIO(), OPTIONS[: OPTIONS.index("--shard-size")]
        out = str(self.folder / "restored")
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = invdiff(["restore", "denoise", str(path), "--out", out, *options])
        return said.getvalue().strip().removeprefix("invdiff: ") if code else ""

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
    def _mounted(self, name: str, options: str) -> Iterator[Path]:
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
