"""Time and memory of large photographs, and whether tiles show.

    python benchmarks/large.py [--quick] [--out docs/large.md]

A photograph is made by mirroring the benchmark's crops side by side; then `invdiff restore` runs
as a user would run it, in a process of its own whose largest resident size is read. Seams: the
largest and the root-mean-square difference between the denoiser in tiles and in one piece.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from invdiff.priors.load import load_prior
from restoration import photographs


def mosaic(height: int, width: int) -> torch.Tensor:
    """A picture (1, 3, height, width) on [-1, 1] without hard edges between its parts."""
    p = photographs()
    rows = []
    for i in range(-(-height // 256)):
        row = torch.cat([p[(5 * i + j) % 12] for j in range(-(-width // 256))], dim=-1)
        rows.append(row)
    return torch.cat(rows, dim=-2)[None, :, :height, :width]


def save(x: torch.Tensor, path: Path) -> None:
    """Write as an 8-bit PNG."""
    pixels = ((x[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).byte().numpy()
    Image.fromarray(pixels).save(path)


def restore(height: int, width: int, *flags: str) -> tuple[float, float]:
    """Seconds and peak resident gigabytes of `invdiff restore` x2 with one sample."""
    with tempfile.TemporaryDirectory() as folder:
        small, out = Path(folder) / "small.png", Path(folder) / "out"
        save(mosaic(height // 2, width // 2), small)
        command = [sys.executable, "-m", "invdiff", "restore", "super-resolution",
                   str(small), "--quiet", "--scale", "2", "--samples", "1",
                   "--out", str(out), *flags]  # fmt: skip
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6


def seams(height: int, width: int) -> list[tuple[int, float, float]]:
    """(overlap, largest, root-mean-square) difference of tiles of 256 to one piece, sigma 0.3."""
    prior = load_prior("photo")
    x = mosaic(height, width)
    x = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    found = []
    with torch.no_grad():
        prior.tile = 10_000
        whole = prior.denoise(x, 0.3)
        for overlap in (0, 32, 64, prior.net.reach):
            prior.tile, prior.overlap = 256, overlap
            d = prior.denoise(x, 0.3) - whole
            found.append((overlap, float(d.abs().max()), float(d.square().mean().sqrt())))
    return found


def main() -> None:
    """Print the tables."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--quick", action="store_true", help="leave out the 2000 x 1500 photograph")
    p.add_argument("--out", type=Path, default=None)
    args = p.parse_args()
    lines = ["# Large photographs: time, memory, and seams of tiles", "",
             "| `restore super-resolution --scale 2 --samples 1` | seconds | peak memory |",
             "|---|---|---|"]  # fmt: skip
    sizes = [(512, 512)] if args.quick else [(512, 512), (1500, 2000)]
    for height, width in sizes:
        flags = () if height * width < 1e6 else ("--precision", "bfloat16")
        seconds, memory = restore(height, width, *flags)
        name = f"to {width} x {height} {' '.join(flags)}".strip()
        lines.append(f"| {name} | {seconds:.0f} | {memory:.2f} GB |")
        print(lines[-1], flush=True)
    lines += ["", "| overlap of tiles of 256 | largest difference | root mean square |",
              "|---|---|---|"]  # fmt: skip
    for overlap, largest, rms in seams(768, 1024):
        lines.append(f"| {overlap} | {largest:.1e} | {rms:.1e} |")
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
