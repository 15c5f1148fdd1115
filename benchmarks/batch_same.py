"""Does it matter who works on a batch? The same pictures by one worker, two, Ray, and torchrun.

    python benchmarks/batch_same.py --items 200 --solvers ddrm diffpir dps pigdm

Small pictures, in two folders, each solver, four times: `invdiff batch` with one process, with two,
with two actors of a local Ray, and started twice by torchrun. Every result (pictures, std.npy,
item.json) and every line of the manifest has to be the same byte by byte, but for the seconds that
it took. Ray is left out where it is not installed. Exit code 1 where a byte differs, or an item is
missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from batch_trials import contents

OPTIONS = ["--noise", "0.1", "--steps", "3", "--samples", "2", "--quiet"]
INVDIFF = [sys.executable, "-m", "invdiff"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--no-python"]
WAYS = {
    "1 worker": ([], ["--workers", "1"]),
    "2 workers": ([], ["--workers", "2"]),
    "Ray, 2 actors": ([], ["--workers", "2", "--cluster", "local"]),
    "torchrun, 2 processes": (TORCHRUN, ["--workers", "0"]),
}
"""Who works: what starts the command, and its options."""


def pictures(folder: Path, count: int, side: int) -> None:
    """Pictures of noise over a ramp, of two sizes, half of them grey."""
    for i in range(count):
        path = folder / "ab"[i % 2] / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (side, side + 4 * (i % 2)) + (3,) * (i % 4 < 2)
        drawn = np.random.default_rng(i).integers(0, 64, shape)
        ramp = np.linspace(0, 190, side).reshape(-1, *[1] * (len(shape) - 1))
        Image.fromarray((drawn + ramp).astype(np.uint8)).save(path)


def run(folder: Path, solver: str, way: str) -> dict[str, bytes]:
    """The contents of a batch, by whoever; tells the time that it took."""
    before, more = WAYS[way]
    out = folder / f"{solver}-{way.partition(',')[0].replace(' ', '-')}"
    command = [*before, *INVDIFF, "batch", "denoise", "in", "--out", out.name, *OPTIONS, *more]
    began = time.monotonic()
    done = subprocess.run(
        [*command, "--solver", solver], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr + done.stdout
        raise SystemExit(f"{solver}, {way}: exit code {done.returncode}: {said[-2000:]}")
    found = contents(out)
    load = os.getloadavg()[0]
    took = f"{time.monotonic() - began:6.1f} s (load {load:.1f})"
    print(f"{solver:<12}{way:<24}{took}  {len(found)} files and lines", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--solvers", nargs="+", default=["ddrm", "diffpir", "dps", "pigdm"])
    given = parser.parse_args()
    ways = [w for w in WAYS if "Ray" not in w or importlib.util.find_spec("ray")]
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="batch-same-") as name:
        folder = Path(name)
        pictures(folder / "in", given.items, given.side)
        for solver in given.solvers:
            right, *others = [run(folder, solver, way) for way in ways]
            lines = sum(key.startswith("manifest: ") for key in right)
            differ = [sum(found.get(k) != right.get(k) for k in {*found, *right})
                      for found in others]  # fmt: skip
            wrong += sum(differ) + (lines != given.items)
            said = f"{lines} items, {len(right)} files and lines"
            print(f"{solver}: {said}; others differ from {ways[0]} in {differ}", flush=True)
    print("byte-identical" if not wrong else f"{wrong} differ")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
