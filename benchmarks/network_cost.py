"""What gradients through a network cost in memory, and what compiling it gains.

    python benchmarks/network_cost.py gradients [--out FILE]
    python benchmarks/network_cost.py compile [--side 256] [--out FILE]

gradients: two steps of DPS on a picture of 3 x 256 x 256, inpainting, with two UNet2DModels
of diffusers of 12.9 million parameters: the largest resident size beyond what was resident before
the first step, and processor seconds, with checkpoint=False and True. Each in a process of its own,
on one thread.

compile: the prior `photo` on one picture, as it is and compiled, one after the other in one process
on one thread: processor seconds of an evaluation (median of 5), of the first one, and the largest
difference.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from invdiff.core.schedules import VP
from invdiff.noise import GaussianNoise
from invdiff.operators import Inpaint
from invdiff.priors.hub import Labelled
from invdiff.priors.load import load_prior
from invdiff.priors.precond import NetworkPrior, predicts_eps
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.solvers import solver_class

SIDE = 256
CASES = {"diffpir": ("diffpir", False), "dps": ("dps", False), "dps, checkpoint": ("dps", True)}
"""Solver and checkpoint, by the name of a row."""
NETS: dict[str, dict[str, Any]] = {
    "1 block a level": {
        "block_out_channels": (64, 96, 192, 256), "layers_per_block": 1, "add_attention": False,
        "down_block_types": ["DownBlock2D"] * 4, "up_block_types": ["UpBlock2D"] * 4,
    },
    "2 blocks a level, attention": {
        "block_out_channels": (64, 128, 128, 192), "layers_per_block": 2,
        "down_block_types": (*["DownBlock2D"] * 3, "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", *["UpBlock2D"] * 3),
    },
}  # fmt: skip
"""Of 12.9 million parameters each."""


def network(name: str) -> NetworkPrior:
    """One of NETS, with random weights."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    net = Labelled(UNet2DModel(sample_size=SIDE, **NETS[name]), 8, None)
    return NetworkPrior(net, predicts_eps(VP(1000).alpha_bars()))


def run(net: str, case: str) -> dict[str, Any]:
    """What a row of the table needs, measured in this process."""
    torch.set_num_threads(1)
    name, asked = CASES[case]
    prior, A = network(net), Inpaint.box((SIDE, SIDE), 64, 64, 128, 128)
    prior.set_checkpoint(asked)
    x = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    problem = Problem(A(0.3 * x), A, GaussianNoise(0.05), (3, SIDE, SIDE))
    solver = solver_class(name)().with_steps(2)
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # Linux: begin a new maximum
    began = time.process_time()
    samples = solve(problem, prior, solver).samples
    seconds = time.process_time() - began
    peak = 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    parameters = sum(p.numel() for p in prior.net.parameters())  # type: ignore[union-attr]
    return {
        "memory": (peak - before) / 1e6, "seconds": seconds, "parameters": parameters,
        "sum": float(samples.double().sum()),
    }  # fmt: skip


def gradients() -> list[str]:
    """Lines of the table; a row is a process of its own."""
    lines = [
        "| network | solver | peak beyond the start | seconds of two steps | sum of the sample |"
    ]
    lines += ["|---|---|---|---|---|"]
    for net, case in itertools.product(NETS, CASES):
        command = [sys.executable, __file__, "one", "--net", net, "--case", case]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        memory, seconds = f"{found['memory']:.0f} MB", f"{found['seconds']:.1f}"
        lines.append(f"| {net} | {case} | {memory} | {seconds} | {found['sum']:.4f} |")
    return lines


def compiled(side: int) -> list[str]:
    """Lines of the table: `photo` as it is and compiled, in turns."""
    torch.set_num_threads(1)
    usual, fast = load_prior("photo"), load_prior("photo", compile=True)
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    seconds: dict[str, list[float]] = {"as it is": [], "compiled": []}
    lines = [f"| photo, 1 x 3 x {side} x {side} | first | evaluation |", "|---|---|---|"]
    with torch.no_grad():
        for _ in range(6):
            for name, prior in zip(seconds, (usual, fast), strict=True):
                began, clock = time.process_time(), time.perf_counter()
                prior.denoise(x, 0.5)
                seconds[name].append(time.process_time() - began)
                if len(seconds[name]) == 1:
                    lines.append(f"| {name} | {time.perf_counter() - clock:.1f} s | ")
        worst = float((fast.denoise(x, 0.5) - usual.denoise(x, 0.5)).abs().max())
    for i, found in enumerate(seconds.values()):
        lines[2 + i] += f"{statistics.median(found[1:]):.3f} s |"
    return [*lines, "", f"Largest difference: {worst:.1e}."]


def main() -> int:
    """Print a table."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("part", choices=["gradients", "compile", "one"])
    p.add_argument("--net", choices=NETS, default="1 block a level")
    p.add_argument("--case", choices=CASES, default="dps")
    p.add_argument("--side", type=int, default=SIDE)
    p.add_argument("--out", type=Path, default=None)
    args = p.parse_args()
    if args.part == "one":
        print(json.dumps(run(args.net, args.case)))
        return 0
    lines = gradients() if args.part == "gradients" else compiled(args.side)
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
