"""What it costs to begin: imports, help, loading a prior, and the first denoising.

    python benchmarks/loading.py [--runs 5] [--out docs/loading.md]

Every figure is the median over fresh processes. Beside the seconds of the clock is the time of the
processor: on one thread, with files that the system holds in memory, it is what the clock shows
when nothing else runs. A bar is missed when the processor time is longer; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from invdiff.priors.load import BUILT_IN
from invdiff.train.recipes import recipe

ENV = os.environ | {"OMP_NUM_THREADS": "1"}
CLOCKS = """
import json, time
found = {}
def timed(name, action):
    wall, processor = time.perf_counter(), time.process_time()
    value = action()
    found[name] = (time.perf_counter() - wall, time.process_time() - processor)
    return value
timed("import torch", lambda: __import__("torch"))
"""
IMPORTS = """
def names(*which):
    import invdiff
    return [getattr(invdiff, name) for name in which or invdiff.__all__]
timed("bare", lambda: __import__("invdiff"))
timed("usual", lambda: names("load_prior", "solve", "Problem", "Inpaint", "GaussianNoise", "DDRM"))
timed("all", names)
print(json.dumps(found))
"""
PRIOR = """
import torch
from invdiff import load_prior
prior = timed("load", lambda: load_prior({name!r}))
x = torch.randn(1, *{shape}, generator=torch.Generator().manual_seed(0))
timed("first", lambda: prior.denoise(x, 0.5))
timed("second", lambda: prior.denoise(x, 0.5))
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Row:
    """A line of the table: medians in seconds, and the bar where there is one."""

    what: str
    wall: float
    processor: float
    bar: float | None = None

    @property
    def missed(self) -> bool:
        """Whether it takes longer than it may."""
        return self.bar is not None and self.processor > self.bar

    def __str__(self) -> str:
        bar = "" if self.bar is None else f"{self.bar:g}" + " (missed)" * self.missed
        return f"| {self.what} | {self.wall:.3f} | {self.processor:.3f} | {bar} |"


def fresh(code: str, runs: int) -> dict[str, tuple[float, float]]:
    """Medians of what `code` prints in fresh processes."""
    found = []
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENV
        )
        found.append(json.loads(done.stdout))
    return {
        key: (median(f[key][0] for f in found), median(f[key][1] for f in found))
        for key in found[0]
    }


def help_row(runs: int) -> Row:
    """`invdiff --help`, from the start of Python to its end."""
    walls, processors = [], []
    for _ in range(runs):
        began, before = time.perf_counter(), os.times()
        subprocess.run([sys.executable, "-m", "invdiff", "--help"], capture_output=True, check=True)
        after = os.times()
        walls.append(time.perf_counter() - began)
        user = after.children_user - before.children_user
        processors.append(user + after.children_system - before.children_system)
    return Row("`invdiff --help`", median(walls), median(processors), 0.5)


def shape(name: str) -> tuple[int, ...]:
    """Of one image as the prior's recipe validates it."""
    r = recipe(name)
    sides = r.shape or (r.net.channels, None, None)
    return tuple(side or r.validation for side in sides)


def rows(runs: int) -> list[Row]:
    """Everything that is measured."""
    found = fresh(CLOCKS + IMPORTS, runs)
    total = [found["bare"][i] + found["usual"][i] for i in (0, 1)]
    every = [total[i] + found["all"][i] for i in (0, 1)]
    table = [
        Row("`import torch`, for comparison", *found["import torch"]),
        Row("`import invdiff`, after torch", *found["bare"], 0.3),
        Row("the same with `load_prior`, `solve`, a problem and a solver", *total, 0.3),
        Row("the same with every public name", *every),
        help_row(runs),
    ]
    for name in BUILT_IN:
        size = shape(name)
        found = fresh(CLOCKS + PRIOR.format(name=name, shape=size), runs)
        table += [
            Row(f'`load_prior("{name}")`', *found["load"], 1.0),
            Row(f"first denoising, {' x '.join(map(str, size))}", *found["first"]),
            Row("second denoising", *found["second"]),
        ]
        print("\n".join(map(str, table[-3:])), file=sys.stderr, flush=True)
    return table


def page(table: list[Row], runs: int) -> str:
    """The text of docs/loading.md."""
    import torch

    head = [
        "# What it costs to begin",
        "",
        f"Made by `python benchmarks/loading.py`: medians of {runs} fresh processes on one thread "
        f"of a CPU, torch {torch.__version__}, in seconds of the clock and of the processor. "
        "On an idle machine both are about equal, when files are in memory; other programs "
        "lengthen the clock's. A bar is the longest processor time that is allowed.",
        "",
        "| | clock | processor | bar |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *map(str, table)]) + "\n"


def main() -> int:
    """Measure and print the table; exit code 1 when a bar is missed."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--out", type=Path, default=None, help="write the page to this file")
    args = p.parse_args()
    table = rows(args.runs)
    text = page(table, args.runs)
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    return int(any(row.missed for row in table))


if __name__ == "__main__":
    sys.exit(main())
