"""What survives when a batch is killed, finds no room, or meets another one.

    python benchmarks/batch_chaos.py --kills 30
    python benchmarks/batch_chaos.py --kills 30 --ray      kills actors of a local Ray too

A batch of small pictures, one of them broken, is killed (SIGKILL) at random moments: its driver,
one of its workers, or an actor. What was killed is started again, until the batch ends, and then a
new one begins, until there were enough kills; some batches write tar files. An item that was hit
three times is given up, as one that ends processes by itself would be, and retried. Then come a
full disk, also for the report alone, a folder that turns read-only (small tmpfs; needs the right to
mount), an input that vanishes and comes back, inputs that are broken in ten ways, two items of one
name, and two drivers on one folder. Every time the results have to be those of an undisturbed run,
byte by byte, each item once in the manifest, and nothing else in the folder. Exit code 1 where
anything was lost, made twice, half-written or different.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch

import chaos
from batch_trials import OPTIONS, Trials, of_tars
from chaos import Child
from invdiff.batch.place import Place
from invdiff.batch.report import all_lines
from invdiff.priors.load import load_prior

PATIENCE = 900.0
"""Seconds after which a batch is given up."""
ENDS = (0, 3)
"""Exit codes of a batch that ended: with and without items that failed."""
STARTS = "Processes end before their first item"
"""What a run says that gives up because its workers are killed before they begin."""


class Kills(Trials):
    """Trials that kill."""

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
                if code == 1 and STARTS in said:
                    self.found["told that workers die before they begin"] += 1
                elif code != -signal.SIGKILL:
                    self.wrong.append(f"{hit}, {kind}: exit code {code}: {said.strip()[:200]}")
            right = of_tars(self.right) if "--tar" in crew else None
            if code in ENDS and self._given_up(out):
                self.begin(out, *crew, "--retry-failed").wait()
            self.check(self.folder / out, f"batch after kills of {hit} ({kind})", right)
            if code not in ENDS:
                self.wrong.append(f"{hit}, {kind}: the batch did not end")

    def _given_up(self, out: str) -> int:
        """Items that a batch gave up, for three processes were killed at each of them."""
        lines = all_lines(Place(self.folder / out))
        count = sum(line.get("kind") == "died" for line in lines)
        self.found["items given up after three kills, then --retry-failed"] += count
        return count

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
            word = "Actor" if kind == "ray" else "forkserver"  # and what forks them
            inner = driver.children(recursive=True)
            found = []
            for p in inner:
                with contextlib.suppress(psutil.Error):
                    found += [p] * (word in " ".join(p.cmdline()))
            return found
        return None


def warmed() -> None:
    """Children find modules and weights in memory, and have time on a busy machine."""
    chaos.PATIENCE = PATIENCE
    torch.set_num_threads(1)
    load_prior("photo").denoise(torch.zeros(1, 3, 20, 24), 0.1)


def run(folder: Path, kills: int, count: int, seed: int, ray: bool = False) -> Kills:
    """All trials, in an empty folder."""
    warmed()
    OPTIONS.extend(["--workers", "0"] * ("--workers" not in OPTIONS))
    trials = Kills(folder, count, seed)
    trials.kills(kills // 2, [], "in its process", "the driver")
    trials.kills(kills // 6, ["--workers", "2"], "2 workers", "the driver")
    trials.kills(kills - kills // 2 - kills // 6, ["--workers", "2"], "2 workers", "a worker")
    tars = ["--workers", "2", "--tar"]
    trials.kills(max(1, kills // 6), ["--tar"], "in its process, to tar files", "the driver")
    trials.kills(max(1, kills // 6), tars, "2 workers, to tar files", "a worker")
    if ray:
        more = ["--workers", "2", "--cluster", "local"]
        trials.kills(max(1, kills // 6), more, "ray", "an actor")
    trials.twice()
    trials.broken()
    trials.vanishing()
    trials.two_drivers(0.0)
    trials.two_drivers(0.5)
    if shutil.which("mount") and subprocess.run(["id", "-u"], capture_output=True).stdout == b"0\n":
        trials.full("96k")
        trials.full("300k")
        trials.full_for_report()
        trials.read_only()
    return trials


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ray", action="store_true")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="batch-chaos-") as folder:
        trials = run(Path(folder), given.kills, given.items, given.seed, given.ray)
    for what, number in trials.found.items():
        print(f"{number:4} {what}")
    print(f"{time.monotonic() - began:.0f} s, load {os.getloadavg()[2]:.1f}")
    print("\n".join(trials.wrong) or "all as promised")
    return int(bool(trials.wrong))


if __name__ == "__main__":
    sys.exit(main())
