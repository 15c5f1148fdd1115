"""What the page costs: the first preview after the click, and its time over `invdiff restore`.

    python benchmarks/page.py [--runs 3] [--samples 2] [--side 256]

A noisy photograph is restored in the page, by a browser, and by `invdiff.restore` in a process that
is warm as the page's worker is, with the same seed and in turn. The page's clock runs from the
click to "Done."; its processor time is that of the server and its worker together. The medians are
told. The exit code is 1 where the first preview takes more than 5 s, where the page takes more than
1.1 times the processor's time of the other, or where the pictures are not the same bytes. Where the
machine was quiet, which is where all that is no part of this kept less than a tenth of a core busy,
the same bar holds by the clock; else the clock tells of the others, and is not judged. The browser
shares the cores with the page.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).parents[1]
FIRST, SHARE = 5.0, 1.1
"""The bars: seconds until the first preview, and time over that of `invdiff restore`."""
QUIET = 0.1
"""Cores that others keep busy, at most, where the clock is judged."""
PATIENCE = 300_000
"""Milliseconds."""
BESIDE = """
import json, sys, time
import invdiff
from invdiff import restore
print(invdiff.__file__, flush=True)
photo, out, samples = sys.argv[1], sys.argv[2], int(sys.argv[3])
for line in sys.stdin:
    wall, processor = time.perf_counter(), time.process_time()
    restore("denoise", photo, noise="0.1", samples=samples, seed=0, progress=False).save(
        out, overwrite=True
    )
    print(json.dumps([time.perf_counter() - wall, time.process_time() - processor]), flush=True)
"""
"""Restores at every line that it is sent, and tells its seconds: of the clock, of the processor."""

CLOCK = """() => {
  const began = performance.now(), told = window.told = {first: null, busy: false, ended: null};
  const look = () => {
    const now = (performance.now() - began) / 1000, all = (s) => document.querySelector(s);
    if (told.first === null && all("#restore-preview img")) told.first = now;
    told.busy ||= !!all("#restore-status .iv-busy, #restore-status .iv-wrong");
    if (told.busy && !told.ended && all("#restore-status :is(.iv-done, .iv-wrong)")) {
      told.ended = now;
      told.said = all("#restore-status").innerText.trim();
      seen.disconnect();
    }
  };
  const seen = new MutationObserver(look);
  seen.observe(document.body, {childList: true, subtree: true, characterData: true});
  document.querySelector("#restore-go").click();
}"""
"""Clicks, and notes when the first preview and the end are seen."""


@dataclass(frozen=True)
class Spent:
    """Seconds of a restoration. first: until the first preview. server: of `processor`, what is
    not its worker's. others: cores that what is no part of this kept busy."""

    wall: float
    processor: float
    first: float = 0.0
    server: float = 0.0
    others: float = 0.0


def photograph(side: int, path: Path) -> None:
    """The middle of the example, with noise."""
    with Image.open(ROOT / "examples" / "alpacas.webp") as image:
        left, top = (image.width - side) // 2, (image.height - side) // 2
        cut = np.asarray(image.convert("RGB").crop((left, top, left + side, top + side)))
    noisy = cut / 255 + 0.1 * np.random.default_rng(0).standard_normal(cut.shape)
    Image.fromarray((noisy * 255).round().clip(0, 255).astype(np.uint8)).save(path)


@contextmanager
def page(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """(address, process) of `invdiff app`."""
    log = folder / "page.log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "invdiff", "app", "--port", "0"]
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | {"PYTHONUNBUFFERED": "1"}
        )
    try:
        while (found := re.search(r"page +(http\S+)", log.read_text())) is None:
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.1)
        yield found[1], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def browsing(url: str, photo: Path, samples: int) -> Iterator[Any]:
    """The page in a browser, with the photograph and the options given."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        seen = browser.new_page()
        seen.set_default_timeout(PATIENCE)
        seen.goto(url)
        seen.wait_for_selector("#restore-go")
        seen.set_input_files("#restore-file input[type=file]", str(photo))
        seen.wait_for_selector('#restore-status:has-text("is ready")')
        seen.click("#restore-task input")
        seen.click('ul[role=listbox] li:has-text("(denoise)")')
        seen.fill("#restore-denoise-noise textarea, #restore-denoise-noise input", "0.1")
        seen.click('.tabitem:visible button:has-text("How it is run")')
        seen.fill("#restore-samples input", str(samples))
        yield seen
        browser.close()


def processor(process: psutil.Process) -> tuple[float, float]:
    """Seconds of a process, and of it with those that it started."""
    each = []
    for part in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has ended just now
            times = part.cpu_times()
            each.append(times.user + times.system)
    return each[0], sum(each)


class Others:
    """What is no part of this, from now on."""

    def __init__(self) -> None:
        self._began, self._busy = time.monotonic(), self._spent()

    @staticmethod
    def _spent() -> float:
        """Seconds of processors of the whole machine, less those of this and all that it started;
        what a virtual machine was kept waiting for counts too."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        return sum(times) - idle - twice - processor(psutil.Process())[1]

    @property
    def cores(self) -> float:
        """That they kept busy, on average."""
        return (self._spent() - self._busy) / (time.monotonic() - self._began)


def clicked(seen: Any, process: psutil.Process) -> Spent:
    """One restoration in the page."""
    before, others = processor(process), Others()
    seen.evaluate(CLOCK)
    seen.wait_for_function("window.told.ended", polling=250)  # not at every frame, which would cost
    told, cores = seen.evaluate("window.told"), others.cores
    if told["said"] != "Done.":
        raise SystemExit(told["said"])
    server, total = processor(process)
    return Spent(told["ended"], total - before[1], told["first"], server - before[0], cores)


def restored(beside: subprocess.Popen[str]) -> Spent:
    """The same restoration without the page."""
    assert beside.stdin is not None and beside.stdout is not None
    others = Others()
    beside.stdin.write("again\n")
    beside.stdin.flush()
    told = json.loads(beside.stdout.readline())
    return Spent(*told, others=others.cores)


def same(seen: Any, folder: Path) -> bool:
    """Whether the zip of the page holds the bytes of the other's pictures."""
    with seen.expect_download() as found:
        seen.click("#restore-zip")
    with zipfile.ZipFile(io.BytesIO(Path(found.value.path()).read_bytes())) as inside:
        names = [n for n in inside.namelist() if n.endswith(".png")]
        return all(inside.read(n) == (folder / n).read_bytes() for n in names) and bool(names)


def told(run: int, page: Spent, other: Spent) -> str:
    """A line about one run of both."""
    name = f"run {run}" if run else "warming up"
    return (
        f"{name}: preview {page.first:.2f} s; page {page.wall:.2f} s ({page.processor:.2f} s of "
        f"processors, {page.server:.2f} of them the server's); restore {other.wall:.2f} s "
        f"({other.processor:.2f} s); others kept {max(page.others, other.others):.2f} cores busy"
    )


def judged(ours: list[Spent], others: list[Spent], equal: bool) -> int:
    """Tells what was found of all runs, of which the first made both warm; the exit code."""
    by = {
        kind: median(getattr(s, kind) for s in ours[1:])
        / median(getattr(s, kind) for s in others[1:])
        for kind in ("wall", "processor")
    }
    first, busy = max(s.first for s in ours), median(s.others for s in ours[1:] + others[1:])
    quiet = busy <= QUIET
    clock = (
        f"bar {SHARE:g}; the machine was quiet"
        if quiet
        else f"not judged, for others kept {busy:.2f} cores busy"
    )
    print(f"the first preview, at most: {first:.2f} s (bar {FIRST:g} s)")
    print(f"page / restore, processor: {by['processor']:.3f} (bar {SHARE:g})")
    print(f"page / restore, clock: {by['wall']:.3f} ({clock})")
    print(f"the same bytes: {'yes' if equal else 'NO'}")
    late = by["processor"] > SHARE or (quiet and by["wall"] > SHARE)
    return int(not equal or first > FIRST or late)


def main() -> int:
    parser = argparse.ArgumentParser(description="What the page costs.")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--side", type=int, default=256)
    given = parser.parse_args()
    ours, others = list[Spent](), list[Spent]()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        photo, out = folder / "noisy.png", folder / "out"
        photograph(given.side, photo)
        beside = subprocess.Popen(
            [sys.executable, "-c", BESIDE, photo, out, str(given.samples)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert beside.stdout is not None
        print(f"of {Path(beside.stdout.readline()).parent}", flush=True)
        with page(folder) as (url, process), browsing(url, photo, given.samples) as seen:
            for run in range(given.runs + 1):
                ours.append(clicked(seen, process))
                others.append(restored(beside))
                print(told(run, ours[-1], others[-1]), flush=True)
            equal = same(seen, out)
        beside.communicate()
    return judged(ours, others, equal)


if __name__ == "__main__":
    sys.exit(main())
