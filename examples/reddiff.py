"""RED-diff on linear tasks: super-resolution, deblurring and inpainting of one photograph.

    python examples/reddiff.py [--scaling official]

RED-diff seeks a mode: another seed gives nearly the same picture, not another sample.
"""

from __future__ import annotations

import crops
from torch import Tensor

from invdiff import VP, AveragePool, GaussianNoise, Inpaint, Linear, REDDiff, blur, gaussian_kernel


def main() -> None:
    """Solve the three tasks, print PSNR and write the sheet."""
    p = crops.parser(__doc__.split("\n")[0], steps=100)
    p.add_argument("--scaling", choices=["likelihood", "official"], default="likelihood")
    p.add_argument("--sigma", type=float, default=0.02, help="noise; black is 0, white is 1")
    args = p.parse_args()
    prior, truth = crops.prior_of(args), crops.crop(args)
    size = (args.size, args.size)
    tasks: dict[str, Linear] = {
        "super-resolution": AveragePool(4, size),
        "deblur": blur(gaussian_kernel(2.0), size),
        "inpaint": Inpaint.random(size, 0.5, seed=args.seed),
    }
    panels: list[tuple[str, Tensor]] = []
    for task, A in tasks.items():
        problem = crops.measure(truth, A, GaussianNoise.on_unit_range(args.sigma), args.seed)
        solver = REDDiff(schedule=VP(args.steps))
        if args.scaling == "official":
            solver = REDDiff.official(task).with_steps(args.steps)
        x = crops.samples_of(problem, prior, solver, args.seed)
        other = crops.samples_of(problem, prior, solver, args.seed + 1)
        print(f"{task}: {crops.score(x, truth):.2f} dB; two seeds differ by "
              f"{float((x - other).square().mean().sqrt()):.3f} (rms, on [-1, 1])")  # fmt: skip
        panels.append((task, crops.shown(problem.y)))
        panels.append((f"RED-diff: {crops.score(x, truth):.1f} dB", crops.shown(x)))
    panels.append(("truth", crops.shown(truth)))
    crops.sheet(args, "reddiff", f"RED-diff, {args.scaling} scaling, noise {args.sigma:g}", panels)


if __name__ == "__main__":
    main()
