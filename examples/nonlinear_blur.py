"""Nonlinear blur: kernels that a network chooses pixel by pixel, in linear light.

    python examples/nonlinear_blur.py [--code 0]

The operator is known to the solver: this is deblurring with a known, nonlinear model.
"""

from __future__ import annotations

import crops

from invdiff import VP, GaussianNoise, NonlinearBlur, REDDiff
from invdiff.tasks.presets import short_dps


def main() -> None:
    """Solve, print PSNR and write the sheet."""
    p = crops.parser(__doc__.split("\n")[0], steps=100)
    p.add_argument("--code", type=int, default=0, help="seed of the blur's network and kernels")
    p.add_argument("--sigma", type=float, default=0.01, help="noise; black is 0, white is 1")
    args = p.parse_args()
    prior, truth = crops.prior_of(args), crops.crop(args)
    A = NonlinearBlur(args.code)
    problem = crops.measure(truth, A, GaussianNoise.on_unit_range(args.sigma), args.seed)
    panels = [(f"measurement: {crops.score(problem.y, truth):.1f} dB", crops.shown(problem.y))]
    which = A.choice(truth)[0]
    strongest = int(which.mean((1, 2)).argmax())
    panels.append((f"share of kernel {strongest}", which[strongest : strongest + 1]))
    size = (args.size, args.size)
    solvers = {
        "RED-diff": REDDiff(schedule=VP(args.steps)),
        "DPS": short_dps("nonlinear-blur", size, args.steps),
    }
    for name, solver in solvers.items():
        x = crops.samples_of(problem, prior, solver, args.seed)[0]
        print(f"{name}: {crops.score(x, truth):.2f} dB")
        panels.append((f"{name}: {crops.score(x, truth):.1f} dB", crops.shown(x)))
    panels.append(("truth", crops.shown(truth)))
    crops.sheet(args, "nonlinear_blur", f"Nonlinear blur, code {args.code}", panels)


if __name__ == "__main__":
    main()
