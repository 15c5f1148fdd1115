"""Phase retrieval: an image from the magnitude of its Fourier transform, by several starts.

    python examples/phase_retrieval.py [--masks 0 2] [--starts 6] [--oversample 4]

The magnitude is taken of the padded image (--masks 0), or through so many random masks (coded
diffraction). Of all starts, that of the smallest misfit |y - A(x)| is chosen, without the truth;
the truth serves for scoring alone, there also to undo the sign and the turn by 180 degrees that a
magnitude cannot tell, channel by channel. A misfit well above the noise means that a start failed.

With the photo prior, the padded transform alone fails from every start: this prior knows texture
and not objects, and cannot tell which of many arrangements is a picture. One random mask is enough.
"""

from __future__ import annotations

import argparse

import crops
from torch import Tensor

from invdiff import DPS, VP, CodedDiffraction, GaussianNoise, PhaseRetrieval, best_by_residual
from invdiff.operators import Operator
from invdiff.priors.base import Prior
from invdiff.problem.metrics import align, residuals


def solve(
    args: argparse.Namespace, masks: int, prior: Prior, truth: Tensor
) -> list[tuple[str, Tensor]]:
    """Solve from every start, print misfit and PSNR of each; the panels to show."""
    A: Operator = PhaseRetrieval(args.oversample)
    kind = f"padded {args.oversample:g}"
    if masks:
        A = CodedDiffraction.random((args.size, args.size), masks, args.seed)
        kind = f"{masks} mask" + "s" * (masks > 1)
    noise = GaussianNoise.on_unit_range(args.sigma)
    problem = crops.measure(truth, A, noise, args.seed)
    # the smallest misfit of several starts is asked for: a step of moderate length and no clipping
    # of gradients, so that a pixel that has left the range can come back
    solver = DPS(args.zeta * args.size / 64, clip="straight-through", schedule=VP(args.steps))
    x = crops.samples_of(problem, prior, solver, args.seed, args.starts)
    misfit = residuals(x[None], problem)[0] / problem.y.numel() ** 0.5
    found = [align(s[None], truth, A) for s in x]
    for k, s in enumerate(found):
        print(f"{kind}, start {k}: misfit {misfit[k]:.4f}, {crops.score(s, truth):.2f} dB")
    chosen = align(best_by_residual(x[None], problem), truth, A)
    worst = found[int(misfit.argmax())]
    y = problem.y[0, :, 0] if masks else problem.y[0]
    log = (1 + y.clamp_min(0) / noise.sigma).log()
    return [
        (f"{kind}: magnitude, log", log / log.max()),
        (f"largest misfit: {crops.score(worst, truth):.1f} dB", crops.shown(worst)),
        (f"smallest misfit: {crops.score(chosen, truth):.1f} dB", crops.shown(chosen)),
    ]


def main() -> None:
    """Solve for each kind of measurement and write the sheet."""
    p = crops.parser(__doc__.split("\n")[0], steps=150, size=64)
    p.add_argument("--masks", type=int, nargs="+", default=[0, 2], help="kinds of measurement")
    p.add_argument("--starts", type=int, default=6, help="samples, of which one is chosen")
    p.add_argument("--oversample", type=float, default=4.0, help="2 pads by a half, 4 doubles")
    p.add_argument("--sigma", type=float, default=0.01, help="noise; black is 0, white is 1")
    p.add_argument("--zeta", type=float, default=3.0, help="step of DPS for 64 pixels a side")
    args = p.parse_args()
    prior, truth = crops.prior_of(args), crops.crop(args, shrink=2)
    print(f"noise {2 * args.sigma:g} per entry")
    panels = [panel for m in args.masks for panel in solve(args, m, prior, truth)]
    panels.append(("truth", crops.shown(truth)))
    crops.sheet(args, "phase_retrieval", f"Phase retrieval, {args.starts} starts", panels)


if __name__ == "__main__":
    main()
