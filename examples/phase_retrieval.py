"""Phase retrieval: an image from the magnitude of its Fourier transform, by several starts.

    python examples/phase_retrieval.py [--starts 8] [--masks 0] [--oversample 4]

Most starts fail. The best is chosen by its own misfit |y - A(x)|, without the truth; the truth is
used for scoring alone, there also to undo the sign and the turn by 180 degrees that a magnitude
cannot tell, channel by channel. --masks K measures through K random masks (coded diffraction).
"""

from __future__ import annotations

import crops
import torch

from invdiff import DPS, VP, CodedDiffraction, GaussianNoise, PhaseRetrieval, best_by_residual
from invdiff.metrics import residuals
from invdiff.operators import Operator, resolve_ambiguity


def main() -> None:
    """Solve from every start, print misfit and PSNR of each, and write the sheet."""
    p = crops.parser(__doc__.split("\n")[0], steps=200, size=64)
    p.add_argument("--starts", type=int, default=8, help="samples, of which one is chosen")
    p.add_argument("--masks", type=int, default=0, help="random masks; 0 for oversampling alone")
    p.add_argument("--oversample", type=float, default=4.0, help="2 pads by a half, 4 doubles")
    p.add_argument("--sigma", type=float, default=0.01, help="noise; black is 0, white is 1")
    p.add_argument("--zeta", type=float, default=4.0, help="step of DPS")
    args = p.parse_args()
    prior, truth = crops.prior_of(args), crops.crop(args, shrink=2)
    A: Operator = PhaseRetrieval(args.oversample)
    if args.masks:
        A = CodedDiffraction.random((args.size, args.size), args.masks, args.seed)
    problem = crops.measure(truth, A, GaussianNoise.on_unit_range(args.sigma), args.seed)
    solver = DPS(zeta=args.zeta, clip="straight-through", path=VP(args.steps))
    x = crops.samples_of(problem, prior, solver, args.seed, args.starts)
    misfit = residuals(x[None], problem)[0] / problem.y.numel() ** 0.5
    found = [resolve_ambiguity(s[None], truth) for s in x]
    scores = torch.tensor([crops.score(s, truth) for s in found])
    for k in range(args.starts):
        print(f"start {k}: misfit {misfit[k]:.4f} per entry (noise {2 * args.sigma:g}), "
              f"{scores[k]:.2f} dB")  # fmt: skip
    chosen = resolve_ambiguity(best_by_residual(x[None], problem), truth)
    print(f"chosen by misfit: {crops.score(chosen, truth):.2f} dB; best {scores.max():.2f} dB")
    spectrum = problem.y[0, :, 0] if args.masks else problem.y[0]
    panels = [("measurement, log", torch.log1p(spectrum) / torch.log1p(spectrum).max())]
    order = misfit.argsort()
    for k in (order[len(order) // 2], order[-1]):
        which = "median" if k != order[-1] else "worst"
        panels.append((f"{which} start: {scores[k]:.1f} dB", crops.shown(found[int(k)])))
    panels.append((f"chosen: {crops.score(chosen, truth):.1f} dB", crops.shown(chosen)))
    panels.append(("truth", crops.shown(truth)))
    kind = f"{args.masks} masks" if args.masks else f"oversampling {args.oversample:g}"
    title = f"Phase retrieval, {kind}, {args.starts} starts"
    crops.sheet(args, "phase_retrieval", title, panels)


if __name__ == "__main__":
    main()
