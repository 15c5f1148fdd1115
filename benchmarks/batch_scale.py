"""What `invdiff batch` costs beside the network: per item, per shard, and in memory.

    python benchmarks/batch_scale.py                  100,000 items and a solver that is free
    python benchmarks/batch_scale.py --efficiency 200  200 pictures, one and two workers
    python benchmarks/batch_scale.py --evaluation      of the prior `photo`, in CPU seconds

The free solver writes one file of 100 bytes for each item; everything else is as in a run: the
plan, the locks, the folders that appear whole, hashes, fsync, the manifest. Memory is that of the
process after each tenth of the items. --efficiency compares the wall time of `invdiff batch`, from
its start to its end, with the bare time of the same restorations in one process without a batch,
divided by the number of workers; and CPU seconds, which other load changes less. Bare ones run as
many together as a batch does, and one by one with --alone; their process has the allocator as glibc
sets it, unless MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ say otherwise (invdiff.allocator).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from invdiff.allocator import keep_freed
from invdiff.audit.cost import Clocked
from invdiff.batch.drive import count, drive
from invdiff.batch.items import BatchItem, ItemSource, seed_of
from invdiff.batch.outputs import placed
from invdiff.batch.place import Place
from invdiff.batch.plan import planned
from invdiff.batch.recipe import BatchRecipe
from invdiff.batch.workers import Here
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.restoration.perform import perform
from invdiff.restoration.together import perform_together, room

MEGA = 1e6
LOOK = 1.0
"""Seconds between two looks at the CPU times of a batch, each of which takes some 5 ms from its
workers. What a process does after the last one is not counted."""


@dataclass(frozen=True)
class Simulated(ItemSource):
    """So many items that are no files."""

    number: int = 0

    def items(self, passed: Any = None) -> Iterator[BatchItem]:
        for i in range(self.number):
            yield BatchItem(f"{i // 1000:04}/{i:08}.png", f"/nowhere/{i:08}.png")


def free(place: Place, item: BatchItem, ahead: Sequence[BatchItem] = ()) -> dict[str, Any]:
    """An item that costs nothing: a file of 100 bytes."""
    line = {
        "id": item.id,
        "seed": seed_of(0, item.id),
        "warnings": [],
        "misfit": {"samples": [1.0]},
    }
    return placed(place, item, line, lambda folder: _write(folder / "estimate.png"))


def _write(path: Path) -> None:
    path.write_bytes(bytes(100))


def simulated(folder: Path, number: int) -> dict[str, float]:
    """Seconds for each item and for the plan, and memory, with a solver that is free."""
    place, recipe = Place(folder / "out"), BatchRecipe("denoise", {"noise": "0.1"})
    began = time.perf_counter()
    planned(place, Simulated(("simulated",), number=number), recipe)
    plan = time.perf_counter() - began
    process, memory, done = psutil.Process(), list[float](), 0

    def progress(ok: bool) -> None:
        nonlocal done
        done += 1
        if done % (number // 10) == 0:
            memory.append(process.memory_info().rss / MEGA)

    began, before = time.perf_counter(), process.cpu_times()
    drive(place, Here(place, free), progress=progress)
    spent, after = time.perf_counter() - began, process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    began = time.perf_counter()
    assert count(place).done == number
    looked = time.perf_counter() - began
    manifest = sum(p.stat().st_size for p in (folder / "out/manifest").iterdir())
    plans = sum(p.stat().st_size for p in (folder / "out/plan").iterdir())
    return {
        "items": number, "shards": place.told()["shards"], "plan, ms an item": 1e3 * plan / number,
        "run, ms an item": 1e3 * spent / number, "run, CPU ms an item": 1e3 * cpu / number,
        "looking, s": looked,
        "manifest, bytes an item": manifest / number, "plan, bytes an item": plans / number,
        "memory after a tenth, MB": memory[0], "memory at the end, MB": memory[-1],
    }  # fmt: skip


def efficiency(
    folder: Path, number: int, side: int, steps: int, crews: list[int], alone: bool
) -> dict[str, float]:
    """Wall time of one and of two workers, beside the bare time of the restorations."""
    for i in range(number):
        pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)
        (folder / "in").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "in" / f"{i:04}.png")
    recipe = BatchRecipe("denoise", {"noise": "0.1"}, steps=steps, samples=2)
    source, found = ItemSource((str(folder / "in"),)), dict[str, float]()
    torch.set_num_threads(1)
    prior, items = Clocked(recipe.loaded_prior()), list(source.items())
    for what, most in [*([("one by one", 1)] if alone else []), ("together", number)]:
        began, before = time.perf_counter(), time.process_time()
        _bare(recipe, items, prior, most)
        found[f"bare, {what}, s"] = bare = time.perf_counter() - began
        found[f"bare, {what}, CPU s"] = spent = time.process_time() - before
        found[f"bare, {what}, network, s"] = network = prior.seconds
        prior.seconds = 0.0
    for workers in crews:
        out, known = folder / f"workers-{workers}", f"{workers} workers"
        wall, start, cpu = _whole_command(folder / "in", out, steps, workers)
        found |= {f"{known}, s": wall, f"{known}, s to the first item": start}
        found |= {f"{known}, wall of ideal": wall / (bare / workers)}
        found[f"{known}, wall of the network's ideal"] = wall / (network / workers)
        found[f"{known}, without the start"] = (wall - start) / (bare / workers)
        found[f"{known}, CPU s with the start"] = cpu
        found[f"{known}, CPU of bare"] = cpu / spent
    return found


def _whole_command(source: Path, out: Path, steps: int, workers: int) -> tuple[float, float, float]:
    """Seconds of `invdiff batch` as a user starts it; to the first item; of all its processes."""
    told = f"denoise {source} --out {out} --noise 0.1 --samples 2 --steps {steps}"
    asked = [sys.executable, "-m", "invdiff", "batch", *told.split(), "--workers", str(workers)]
    began, first, cpu = time.perf_counter(), 0.0, dict[int, float]()
    with psutil.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        while driver.poll() is None:
            for process in [driver, *_below(driver)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    spent = process.cpu_times()
                    cpu[process.pid] = spent.user + spent.system
            if not first and next((out / "items").glob("**/item.json"), None):
                first = time.perf_counter() - began
            with contextlib.suppress(subprocess.TimeoutExpired, psutil.TimeoutExpired):
                driver.wait(LOOK if first else 0.05)
    assert driver.returncode == 0
    return time.perf_counter() - began, first, sum(cpu.values())


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _bare(recipe: BatchRecipe, items: list[BatchItem], prior: Prior, most: int) -> None:
    """Restore items without a batch, at most so many together."""
    while items:
        first = recipe.job(items[0], Path(items[0].path), prior)
        count = min(most, room(first))
        jobs = [first, *(recipe.job(i, Path(i.path), prior) for i in items[1:count])]
        items = items[count:]
        if len(jobs) == 1:
            perform(first, quiet=True)
        else:
            perform_together(jobs)


def evaluation() -> dict[str, float]:
    """CPU seconds of one evaluation of `photo` in one thread, as a batch runs it, by side."""
    torch.set_num_threads(1)
    keep_freed()
    prior, found = load_prior("photo", precision="auto"), dict[str, float]()
    for side in (48, 128, 256):
        x = torch.zeros(1, 3, side, side)
        prior.denoise(x, 0.05)
        began = time.process_time()
        prior.denoise(x, 0.05)
        found[f"evaluation of {side} x {side}, CPU s"] = time.process_time() - began
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--efficiency", type=int, default=0, help="so many pictures")
    parser.add_argument("--side", type=int, default=48)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--alone", action="store_true", help="also bare, one by one")
    parser.add_argument("--evaluation", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="batch-scale-") as name:
        folder = Path(name)
        if given.evaluation:
            found = evaluation()
        elif given.efficiency:
            found = efficiency(
                folder, given.efficiency, given.side, given.steps, given.workers, given.alone
            )
        else:
            found = simulated(folder, given.items)
    found["load"] = os.getloadavg()[2]
    for what, value in found.items():
        print(f"{what:<40}{value:.4g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
