"""What a network costs: gradients in memory, the numbers that it runs in, and compiling it.

    python benchmarks/network_cost.py gradients [--out FILE]
    python benchmarks/network_cost.py numbers [--side 128] [--out FILE]
    python benchmarks/network_cost.py compile [--side 256] [--out FILE]

gradients: two steps of DPS on a picture of 3 x 256 x 256, inpainting, with two UNet2DModels
of diffusers of 12.9 million parameters: the largest resident size beyond what was resident before
the first step, and processor seconds, with checkpoint=False and True; and of two gradients of the
network alone. Each in a process of its own, on one thread.

numbers: the prior `photo` on six of the benchmark's photographs, in float32, with its blocks in
bfloat16 and all in bfloat16, in turns on one thread: what it adds to the error in dB, by noise
level, and processor seconds (median of all levels).

compile: the prior `photo` on one picture, as it is and compiled, one after the other in one process
on one thread: processor seconds of an evaluation (median of 5), of the first one, and the largest
difference.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

import restoration
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
LEVELS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0, 5.0)
"""Noise levels of `numbers`."""
CASES = {
    "gradient of the network alone": ("", False), "diffpir": ("diffpir", False),
    "dps": ("dps", False), "dps, checkpoint": ("dps", True),
}  # fmt: skip
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


def alone(net: Any, x: Tensor) -> Tensor:
    """Two gradients of a network: what no sampler that follows gradients can do without."""
    for _ in range(2):
        x = x.requires_grad_()
        (x,) = torch.autograd.grad(net(x, torch.tensor([500])).square().sum(), x)
    return x


def run(net: str, case: str) -> dict[str, Any]:
    """What a row of the table needs, measured in this process."""
    torch.set_num_threads(1)
    name, asked = CASES[case]
    prior, A = network(net), Inpaint.box((SIDE, SIDE), 64, 64, 128, 128)
    prior.set_checkpoint(asked)
    x = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    problem = Problem(A(0.3 * x), A, GaussianNoise(0.05), (3, SIDE, SIDE))
    solver = solver_class(name)().with_steps(2) if name else None
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # Linux: begin a new maximum
    began = time.process_time()
    samples = alone(prior.net, x) if solver is None else solve(problem, prior, solver).samples
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


def numbered(side: int) -> list[str]:
    """Lines of the table: `photo` in float32, in blocks and in bfloat16."""
    torch.set_num_threads(1)
    priors = {kind: load_prior("photo", precision=kind) for kind in ("float32", "bfloat16")}
    priors["blocks"] = blocks = load_prior("photo")
    blocks.precision = "blocks"
    blocks.spectrum = dataclasses.replace(blocks.spectrum, bfloat16_from=None, blocks_from=0.0)
    off = (SIDE - side) // 2
    x = restoration.photographs(6)[..., off : off + side, off : off + side].contiguous()
    added: dict[str, list[str]] = {kind: [] for kind in priors}
    seconds: dict[str, list[float]] = {kind: [] for kind in priors}
    for sigma in LEVELS:
        z = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        errors = dict[str, float]()
        for kind, prior in priors.items():
            began = time.process_time()
            with torch.no_grad():
                found = prior.denoise(x + sigma * z, sigma)
            seconds[kind].append(time.process_time() - began)
            errors[kind] = float((found - x).double().square().mean())
            added[kind].append(f"{10 * math.log10(errors[kind] / errors['float32']):.4f}")
    head = (
        f"| six of {side} x {side}, dB added at sigma | {' | '.join(map(str, LEVELS))} | seconds |"
    )
    lines = [head, "|---" * (len(LEVELS) + 2) + "|"]
    for kind in ("float32", "blocks", "bfloat16"):
        spent = f"{statistics.median(seconds[kind]):.2f}"
        lines.append(f"| {kind} | {' | '.join(added[kind])} | {spent} |")
    return lines


def main() -> int:
    """Print a table."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("part", choices=["gradients", "numbers", "compile", "one"])
    p.add_argument("--net", choices=NETS, default="1 block a level")
    p.add_argument("--case", choices=CASES, default="dps")
    p.add_argument("--side", type=int, default=0)
    p.add_argument("--out", type=Path, default=None)
    args = p.parse_args()
    if args.part == "one":
        print(json.dumps(run(args.net, args.case)))
        return 0
    made = {"gradients": gradients, "numbers": lambda: numbered(args.side or 128)}
    lines = made.get(args.part, lambda: compiled(args.side or SIDE))()
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
