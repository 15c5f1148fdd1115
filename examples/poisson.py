"""Poisson noise: a photograph taken with few photons, restored by DPS with three losses.

python examples/poisson.py [--peak 30] [--blur 0]
"""

from __future__ import annotations

import dataclasses

import crops

from invdiff import Identity, Poisson, blur, gaussian_kernel
from invdiff.tasks.presets import short_dps


def main() -> None:
    """Solve with each loss, print PSNR and write the sheet."""
    p = crops.parser(__doc__.split("\n")[0], steps=100)
    p.add_argument("--peak", type=float, default=30.0, help="photons expected at white")
    p.add_argument("--blur", type=float, default=0.0, help="std of a Gaussian blur, in pixels")
    args = p.parse_args()
    prior, truth = crops.prior_of(args), crops.crop(args)
    size = (args.size, args.size)
    A = blur(gaussian_kernel(args.blur), size) if args.blur else Identity()
    problem = crops.measure(truth, A, Poisson(args.peak), args.seed)
    panels = [(f"measurement: {crops.score(problem.y, truth):.1f} dB", crops.shown(problem.y))]
    norm = short_dps("poisson", size, args.steps)
    solvers = {
        "norm": norm,
        "weighted norm": dataclasses.replace(norm, loss="poisson_norm", zeta=0.3 * norm.zeta),
        "official": dataclasses.replace(norm, loss="poisson_official", zeta=0.2 * norm.zeta),
    }
    for name, solver in solvers.items():
        x = crops.samples_of(problem, prior, solver, args.seed)[0]
        print(f"{name}: {crops.score(x, truth):.2f} dB")
        panels.append((f"{name}: {crops.score(x, truth):.1f} dB", crops.shown(x)))
    panels.append(("truth", crops.shown(truth)))
    crops.sheet(args, "poisson", f"Poisson noise, {args.peak:g} photons at white", panels)


if __name__ == "__main__":
    main()
