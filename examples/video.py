"""Videos by reconstruction guidance: the next frames of a clip, and more pixels for every frame.

    python examples/video.py --out video-example

A clip is drawn from the prior (or read from --clip), and measured in two ways: its first half, and
all of it with a fraction of the pixels. Each measurement is answered by `vdm` in several settings.
Written: extension.png and super-resolution.png (one row for each clip, one column for each frame),
and the same as animations, extension.gif and super-resolution.gif.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from invdiff import (
    VP,
    AveragePool,
    Frames,
    GaussianNoise,
    Identity,
    Operator,
    Prior,
    VideoGuidance,
    load_prior,
    psnr,
    registry,
    solve,
)
from invdiff.core import InvdiffError
from invdiff.files.pictures import from_range, to_range
from invdiff.problem import Problem
from invdiff.solvers import Solver

Row = tuple[str, Tensor]


def draw(problem: Problem, prior: Prior, solver: Solver, samples: int, seed: int) -> Tensor:
    """Samples (samples, C, T, H, W), with a progress bar."""
    with tqdm(total=solver.num_steps, desc=solver.name, leave=False) as bar:
        result = solve(problem, prior, solver, samples, seed, watch=lambda s: bar.update(
            s.state.step - bar.n))  # fmt: skip
    return result.samples[0]


def read_clip(path: Path, shape: tuple[int, ...], value_range: tuple[float, float]) -> Tensor:
    """(1, *shape) of an array (T, H, W) or (C, T, H, W) on [0, 1]."""
    array = torch.from_numpy(np.load(path)).float()
    clip = array[None, None] if array.ndim == 3 else array[None]
    if tuple(clip.shape[1:]) != shape:
        raise InvdiffError(f"{path} has shape {tuple(array.shape)}, but the prior wants {shape}.")
    return to_range(clip, value_range)


def settings(path: VP, A: Operator) -> dict[str, Solver]:
    """What is compared, by the title of its row.

    The weight is for measurements with A A^T = 1, as known frames; means over blocks have 1 / S^2.
    A weight far above 2 breaks the known frames, unless they are overwritten.
    """
    if isinstance(A, AveragePool):
        guided = VideoGuidance(weight=2.0 * A.factor**2, schedule=path)
        return {"guidance": guided, "guidance, corrector": replace(guided, delta=0.1)}
    guided = VideoGuidance(schedule=path)
    both = replace(guided, replace_known=True)
    return {
        "replacement alone": replace(both, weight=0.0),
        "guidance alone": guided,
        "both": both,
        "both, corrector": replace(both, delta=0.1),
        "both, weight 10": replace(both, weight=10.0),
    }


def compare(
    A: Operator, truth: Tensor, prior: Prior, path: VP, args: argparse.Namespace
) -> list[Row]:
    """Samples of every setting for the measurement A(truth); their distances are printed."""
    extension = isinstance(A, Frames)
    problem = Problem(A(truth), A, GaussianNoise(0.0), tuple(truth.shape[1:]))
    rows: list[Row] = []
    for name, solver in settings(path, A).items():
        began = time.perf_counter()
        found = draw(problem, prior, solver, args.samples, args.seed)
        seconds = time.perf_counter() - began
        misfit = (A(found) - problem.y).square().mean().sqrt()
        new = [t for t in range(truth.shape[2]) if not extension or t not in A.indices]
        close = psnr(found[:, :, new], truth[:, :, new].expand_as(found[:, :, new]),
                     prior.value_range)  # fmt: skip
        spread = found[:, :, new].std(0).mean() if len(found) > 1 else torch.zeros(())
        print(f"  {name:<22} misfit {misfit:.4f}   PSNR to the truth {close.mean():5.2f} dB   "
              f"spread {spread:.3f}   {seconds:5.1f} s")  # fmt: skip
        rows += [(name if k == 0 else "", clip) for k, clip in enumerate(found)]
    return rows


def filmstrip(rows: list[Row], value_range: tuple[float, float], path: Path) -> None:
    """One row for each clip (C, T, H, W), one column for each frame; NaN is left white."""
    from matplotlib.figure import Figure

    frames = rows[0][1].shape[1]
    figure = Figure(figsize=(1.1 * frames + 1.9, 1.1 * len(rows)), dpi=100, facecolor="white")
    grid = figure.subplots(len(rows), frames, squeeze=False)
    for (name, clip), line in zip(rows, grid, strict=True):
        for t, axes in enumerate(line):
            picture = from_range(clip[:, t], value_range).clamp(0, 1)
            axes.imshow(picture.permute(1, 2, 0).squeeze(-1), cmap="gray", vmin=0, vmax=1,
                        interpolation="nearest")  # fmt: skip
            axes.set_axis_off()
        line[0].text(-0.1, 0.5, name, transform=line[0].transAxes, ha="right", va="center")
    figure.subplots_adjust(left=1.9 / (1.1 * frames + 1.9), right=1, top=1, bottom=0,
                           wspace=0.03, hspace=0.03)  # fmt: skip
    figure.savefig(path)


def animation(rows: list[Row], value_range: tuple[float, float], path: Path, zoom: int = 4) -> None:
    """The clips side by side, one picture for each frame, as a GIF that repeats."""
    pictures = []
    height, width = (zoom * n for n in rows[0][1].shape[2:])
    for t in range(rows[0][1].shape[1]):
        sheet = Image.new("RGB", ((width + 4) * len(rows), height + 14), "white")
        for k, (name, clip) in enumerate(rows):
            levels = from_range(clip[:, t], value_range).clamp(0, 1).nan_to_num(1.0) * 255
            array = levels.round().byte().permute(1, 2, 0).squeeze(-1).numpy()
            frame = Image.fromarray(array).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(frame, (k * (width + 4), 14))
            ImageDraw.Draw(sheet).text((k * (width + 4), 1), name, "black")
        pictures.append(sheet)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=150, loop=0)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--prior", default="moving-fashion", help="a prior of clips (C, T, H, W)")
    p.add_argument("--clip", type=Path, help=".npy array (T, H, W) on [0, 1]; else a sample")
    p.add_argument("--steps", type=int, default=128, help="ancestral steps")
    p.add_argument("--scale", type=int, default=4, help="super-resolution factor")
    p.add_argument("--samples", type=int, default=2, help="clips for each setting")
    p.add_argument("--seed", type=int, default=0, help="of the samples; the clip's is one more")
    p.add_argument("--out", type=Path, default=Path("video-example"), help="folder")
    args = p.parse_args()
    torch.set_grad_enabled(False)
    prior = load_prior(args.prior)
    shape = tuple(int(n or 0) for n in prior.shape or ())
    path = VP(args.steps, betas="cosine")
    if args.clip:
        truth = read_clip(args.clip, shape, prior.value_range)
    else:
        anything = Problem(torch.zeros(1, *shape), Identity(), GaussianNoise(0.0), shape)
        plain = registry()["unconditional"](schedule=path)
        truth = draw(anything, prior, plain, 1, args.seed + 1)
    args.out.mkdir(parents=True, exist_ok=True)
    kept = Frames(range(shape[1] // 2), shape[1])
    tasks: list[tuple[str, Operator]] = [
        ("extension", kept),
        ("super-resolution", AveragePool(args.scale, (shape[2], shape[3]))),
    ]
    for name, A in tasks:
        print(f"{name}:")
        rows = compare(A, truth, prior, path, args)
        y = A(truth)
        if isinstance(A, Frames):
            shown = torch.full_like(truth, float("nan"))
            shown[:, :, list(A.indices)] = y
        else:
            shown = y.repeat_interleave(args.scale, -1).repeat_interleave(args.scale, -2)
        rows = [("truth", truth[0]), ("measured", shown[0]), *rows]
        filmstrip(rows, prior.value_range, args.out / f"{name}.png")
        animation(rows, prior.value_range, args.out / f"{name}.gif")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
