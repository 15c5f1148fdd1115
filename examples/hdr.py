"""High dynamic range: restore what a sensor clipped, y = clip(2 x, -1, 1) + noise.

    python examples/hdr.py [--gain 2]

Where the sensor saturated, the prior alone decides, within what saturation allows: it can continue
shading and edges from around, and cannot know what was lost in the middle of a large white area.
"""

from __future__ import annotations

import crops

from invdiff import HDR, VP, GaussianNoise, Problem, REDDiff
from invdiff.tasks.presets import short_dps


def main() -> None:
    """Solve, print PSNR and write the sheet."""
    p = crops.parser(__doc__.split("\n")[0], steps=100)
    p.add_argument("--gain", type=float, default=2.0, help="of the sensor, before it clips")
    p.add_argument("--sigma", type=float, default=0.01, help="noise; black is 0, white is 1")
    args = p.parse_args()
    prior, truth = crops.prior_of(args), crops.crop(args)
    A = HDR(args.gain)
    problem = crops.measure(truth, A, GaussianNoise.on_unit_range(args.sigma), args.seed)
    lost = float((A(truth).abs() == 1).float().mean())
    print(f"{lost:.0%} of the values are clipped")
    plain = problem.y / args.gain
    panels = [("measurement", crops.shown(problem.y))]
    panels.append((f"y / gain: {crops.score(plain, truth):.1f} dB", crops.shown(plain)))
    size = (args.size, args.size)
    solvers = {
        "RED-diff": REDDiff(schedule=VP(args.steps)),
        "DPS": short_dps("hdr", size, args.steps),
    }
    for name, solver in solvers.items():
        A = HDR(args.gain, straight_through=name == "DPS")
        problem = Problem(problem.y, A, problem.noise, problem.x_shape)
        x = crops.samples_of(problem, prior, solver, args.seed)[0]
        print(f"{name}: {crops.score(x, truth):.2f} dB")
        panels.append((f"{name}: {crops.score(x, truth):.1f} dB", crops.shown(x)))
    panels.append(("truth", crops.shown(truth)))
    crops.sheet(args, "hdr", f"Clipped at gain {args.gain:g}: {lost:.0%} of the values", panels)


if __name__ == "__main__":
    main()
