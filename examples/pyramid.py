"""Super-resolution from coarse to fine: a portrait of 16 x 16 pixels becomes one of 64 x 64.

    python examples/pyramid.py --out pyramid-example
    python examples/pyramid.py --photo FACE.png          a picture of your own, cut to --size

Without --photo the picture is a sample of the prior itself. It is averaged over blocks of --scale x
--scale pixels; `pyramid` draws an image at the coarsest scale, then at each finer one. Written:
pyramid.png with the clean estimate half way through and at the end of every scale, the result of
overwriting instead of following a gradient, and that of as many steps at the full size alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from invdiff import (
    AveragePool,
    GaussianNoise,
    Identity,
    Prior,
    load_prior,
    psnr,
    stream,
)
from invdiff.core import InvdiffError
from invdiff.files.pictures import from_range, read_photo, to_range
from invdiff.problem import Problem
from invdiff.solvers.pyramid import Pyramid


def run(problem: Problem, prior: Prior, solver: Pyramid, seed: int, title: str) -> list[Tensor]:
    """The clean estimate half way through and at the end of every scale, (1, C, H, W) each."""
    scales = [move.scale for move in solver.moves]
    ends = [i + 1 for i in range(len(scales)) if i + 1 == len(scales) or scales[i + 1] < scales[i]]
    starts = [0, *ends[:-1]]
    wanted = sorted({(a + b) // 2 for a, b in zip(starts, ends, strict=True)} | set(ends))
    states = tqdm(
        stream(problem, prior, solver, [seed]), total=len(scales) + 1, desc=title, leave=False
    )
    return [state.x0 for state in states if state.step in wanted]


def read_square(path: Path, size: int, value_range: tuple[float, float]) -> Tensor:
    """The middle square of a picture at size x size, (1, 3, size, size), averaged down."""
    pixels = read_photo(path).pixels
    side = min(pixels.shape[1:])
    if side < size:
        raise InvdiffError(f"{path} has {side} pixels a side, but {size} are needed.")
    top, left = ((n - side) // 2 for n in pixels.shape[1:])
    square = pixels[:, top : top + side, left : left + side].expand(3, -1, -1)
    return to_range(F.adaptive_avg_pool2d(square[None], size), value_range)


def sheet(panels: list[tuple[str, Tensor]], prior: Prior, path: Path, columns: int) -> None:
    """One picture of titled pictures (1, C, H, W)."""
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.3 * columns, 2.55 * rows), dpi=100, facecolor="white")
    figure.set_layout_engine("constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid:
        axes.set_axis_off()
    for axes, (name, x) in zip(grid, panels, strict=False):
        picture = from_range(x[0], prior.value_range).clamp(0, 1).permute(1, 2, 0)
        axes.imshow(picture.squeeze(-1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(name, fontsize=9)
    figure.savefig(path)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--prior", default="multiscale", help="a prior of any size")
    p.add_argument("--photo", type=Path, help="picture to degrade; else a sample of the prior")
    p.add_argument("--size", type=int, default=64, help="side of the picture")
    p.add_argument("--scale", type=int, default=4, help="super-resolution factor")
    p.add_argument("--scales", type=int, default=3, help="scales of the pyramid")
    p.add_argument("--steps", type=int, default=300, help="of all scales together")
    p.add_argument("--rho", type=float, default=Pyramid.rho, help="step size of the gradient")
    p.add_argument("--seed", type=int, default=0, help="of the samples; the picture's is one more")
    p.add_argument("--out", type=Path, default=Path("pyramid-example"), help="folder")
    args = p.parse_args()
    torch.set_grad_enabled(False)
    prior = load_prior(args.prior)
    size = (args.size, args.size)
    pyramid = Pyramid(scales=args.scales, rho=args.rho).with_steps(args.steps)
    if args.photo:
        truth = read_square(args.photo, args.size, prior.value_range)
    else:
        plain = Problem(torch.zeros(1, 3, *size), Identity(), GaussianNoise(0.0), (3, *size))
        generated = dataclasses.replace(pyramid, rho=0.0)
        truth = run(plain, prior, generated, args.seed + 1, "picture")[-1].clamp(*prior.value_range)
    A = AveragePool(args.scale, size)
    problem = Problem(A(truth), A, GaussianNoise(0.0), (3, *size))

    panels = [("truth", truth), ("measured", A.pinv(problem.y))]
    solvers = {
        "coarse to fine": pyramid,
        "coarse to fine, overwritten": dataclasses.replace(pyramid, data="overwrite"),
        "full size alone": dataclasses.replace(pyramid, scales=1),
    }
    for name, solver in solvers.items():
        began = time.perf_counter()
        found = run(problem, prior, solver, args.seed, name)
        seconds = time.perf_counter() - began
        pixels = sum(4.0**-move.scale for move in solver.moves)
        misfit = float((A(found[-1]) - problem.y).square().mean().sqrt())
        close = float(psnr(found[-1], truth, prior.value_range))
        print(f"{name:<28} {seconds:5.1f} s   {solver.num_steps} evaluations, worth {pixels:.0f} "
              f"at full size   misfit {misfit:.4f}   PSNR {close:5.2f} dB")  # fmt: skip
        if name == "coarse to fine":
            sides = [
                args.size // 2 ** min(k, args.scales - 1) for k in reversed(range(args.scales))
            ]
            for i, x in enumerate(found):
                end = "end" if i % 2 else "half way"
                panels.append((f"{sides[i // 2]} x {sides[i // 2]}, {end}", x))
        else:
            panels.append((name, found[-1]))
    args.out.mkdir(parents=True, exist_ok=True)
    sheet(panels, prior, args.out / "pyramid.png", columns=5)
    print(f"written to {args.out / 'pyramid.png'}")


if __name__ == "__main__":
    main()
