"""What the allocator costs: evaluations of `photo` in processes with glibc's setting and ours.

    python benchmarks/allocator.py

In turns, in new processes, one thread: CPU milliseconds of one evaluation (the fastest quarter of
them), pages that were asked of the system, and the largest memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time

from invdiff.allocator import SETTINGS, keep_freed

CASES = ((128, 2, 30), (256, 1, 12), (512, 1, 6))
"""Side of the pictures, pictures, evaluations."""
TURNS = 3


def measured(side: int, count: int, rounds: int) -> str:
    """One case, in this process."""
    import torch

    from invdiff.core import Level
    from invdiff.priors.load import load_prior

    torch.set_num_threads(1)
    prior, found = load_prior("photo", precision="auto"), []
    x = torch.rand(count, 3, side, side) * 2 - 1
    with torch.inference_mode():
        for _ in range(rounds):
            began = time.process_time()
            prior.x0(x, Level(1.0, 0.05))
            found.append(time.process_time() - began)
    used = resource.getrusage(resource.RUSAGE_SELF)
    best = 1e3 * sorted(found)[rounds // 4]
    return f"{best:.1f} ms, {used.ru_minflt} pages, {used.ru_maxrss / 1e3:.0f} MB"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--case", type=int, nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        if given.ours:
            assert keep_freed()
        print(measured(*given.case))
        return 0
    plain = {k: v for k, v in os.environ.items() if k not in SETTINGS}
    for case in CASES:
        for ours in [False, True] * TURNS:
            asked = [sys.executable, __file__, "--case", *map(str, case), *["--ours"] * ours]
            done = subprocess.run(asked, check=True, capture_output=True, text=True, env=plain)
            name = "invdiff's" if ours else "glibc's"
            print(f"{case[1]} x {case[0]} x {case[0]}, {name:<10}{done.stdout.strip()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
