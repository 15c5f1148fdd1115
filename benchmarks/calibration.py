"""Are samples calibrated, and do they agree with y? By task and prior, on images with a truth.

    python benchmarks/calibration.py [--tasks NAME ...] [--side 128] [--images 12] [--samples 8]
    python benchmarks/calibration.py --solvers ddrm ...         others than the default
    python benchmarks/calibration.py --page                     docs/calibration.md again

The benchmark's photographs, which chose nothing; brain and CT slices that their priors were not
trained on. Measurements of photographs are rounded to 8 bits and clipped, as files are. Every row
replaces the one of the same measurement, side and solver in src/invdiff/calibration.json.

coverage: share of pixels whose true value lies in the interval of Student's t for one further draw,
from the mean and the deviation of the samples (90 and 50 % intervals); samples are rounded to 8
bits, and half a grey level of uniform noise is added, which counts rounding as uncertainty. For
exact samples it is 0.90 and 0.50. Of inpainting the unknown pixels count alone. error / predicted:
rms error of the mean over the rms of what the deviation predicts; 1 for exact samples. residual:
rms of (y - A x) / sigma of single samples; 1.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import restoration
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import NOISELESS, DiagonalGaussian, GaussianNoise
from invdiff.operators.algebra import Identity, Operator
from invdiff.operators.bayer import Bayer
from invdiff.operators.blur import blur
from invdiff.operators.blur_kernels import gaussian_kernel
from invdiff.operators.coils import ring_maps
from invdiff.operators.color import REC601, Grayscale
from invdiff.operators.downsample import Bicubic
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.jpeg import JPEG
from invdiff.operators.jpeg_cells import planes
from invdiff.operators.mri import Sense
from invdiff.operators.radon import Radon, limited_angle
from invdiff.operators.sampling import equispaced
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.problem import Problem
from invdiff.problem.metrics import psnr
from invdiff.sampling.checks import misfit
from invdiff.sampling.run import row_seed, solve
from invdiff.tasks import TASKS
from invdiff.tasks.auto import choose, configured, estimator
from invdiff.tasks.enlarge_jpeg import SmallCoefficients, stored

RECORD = Path(__file__).parents[1] / "src/invdiff/calibration.json"
ROUNDING = 2 / (255 * math.sqrt(12))
"""Standard deviation of rounding to 8 bits, on [-1, 1]."""
Size = tuple[int, int]


@dataclass(frozen=True)
class Row:
    """A measurement: operator by size, noise on the range of the images' units, and the task."""

    key: str
    task: str
    title: str
    operator: Callable[[Size], Operator]
    sigma: float
    prior: str = "photo"
    picture: bool = True


def _blur(size: Size) -> Operator:
    return blur(gaussian_kernel(2.0), size, "reflect")


def _coils(accel: int) -> Callable[[Size], Operator]:
    def make(size: Size) -> Operator:
        return Sense(ring_maps(8, size), equispaced(size, accel))

    return make


def _views(views: int, span: float = 180.0) -> Callable[[Size], Operator]:
    def make(size: Size) -> Operator:
        return Radon(limited_angle(span, span / views), size, pixel=1 / size[0])

    return make


ROWS = (
    Row("denoise", "denoise", "noise 0.1", lambda s: Identity(), 0.2),
    Row("x4", "super-resolution", "bicubic x4, rounding alone",
        lambda s: Bicubic(4, s), 0.0),
    Row("x4-noise", "super-resolution", "bicubic x4, noise 0.01", lambda s: Bicubic(4, s), 0.02),
    Row("deblur", "deblur", "Gaussian 2.0, noise 0.02", _blur, 0.04),
    Row("deblur-sharp", "deblur", "Gaussian 2.0, rounding alone", _blur, 0.0),
    Row("random", "inpaint", "half of the pixels at random",
        lambda s: Inpaint.random(s, 0.5, seed=0), 0.0),
    Row("hole", "inpaint", "a hole of 24 x 24 pixels",
        lambda s: Inpaint.box(s, s[0] // 2 - 12, s[1] // 2 - 12, 24, 24), 0.0),
    Row("jpeg", "jpeg", "quality 10, 4:2:0", lambda s: JPEG(10), 0.0),
    Row("enlarge-jpeg", "enlarge-jpeg", "x2 of quality 30, 4:2:0",
        lambda s: SmallCoefficients(2, s, 3, JPEG(30)), 0.0),
    Row("demosaic", "demosaic", "RGGB, noise 0.01", lambda s: Bayer("RGGB"), 0.02),
    Row("colorize", "colorize", "luma, noise 0.01", lambda s: Grayscale(REC601), 0.02),
    Row("mri-4", "mri", "8 coils, equispaced columns, R = 4", _coils(4), 0.01, "brain", False),
    Row("mri-8", "mri", "8 coils, equispaced columns, R = 8", _coils(8), 0.01, "brain", False),
    Row("ct-60", "ct", "60 views", _views(60), 0.01, "ct", False),
    Row("ct-23", "ct", "23 views", _views(23), 0.01, "ct", False),
    Row("ct-90", "ct", "60 views over 90 degrees", _views(60, 90.0), 0.01, "ct", False),
)  # fmt: skip


def truths(row: Row, side: int, count: int, data: Path | None) -> Tensor:
    """Images in the range of the row's prior, (count, C, side, side)."""
    if row.prior == "photo":
        off = (256 - side) // 2
        return restoration.photographs(count)[..., off : off + side, off : off + side].contiguous()
    if data is None:
        raise InvdiffError(f"{row.key} needs --data: what the prior {row.prior} was trained on.")
    return restoration.held_out(row.prior, data, count, side)


def problem(row: Row, truth: Tensor) -> Problem:
    """The measurement of every image, with noise that is always the same."""
    A = row.operator((int(truth.shape[-2]), int(truth.shape[-1])))
    shape = tuple(truth.shape[1:])
    if row.task == "jpeg":
        return Problem(A(truth), A, NOISELESS, shape)
    if isinstance(A, SmallCoefficients):
        small = A.jpeg(Bicubic(A.scale, A.size)(truth))
        each = [stored(planes(A.jpeg, t), t) for t in small.split(1)]
        sigmas = torch.cat([sigma for _, sigma in each])
        return Problem(torch.cat([y for y, _ in each]), A, DiagonalGaussian(sigmas), shape)
    rng = Rng.of([row_seed(2026, i, 0) for i in range(len(truth))])
    y = GaussianNoise(row.sigma).sample(A(truth), rng)
    sigma = row.sigma
    if row.picture:
        y, sigma = ((y.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1, math.hypot(sigma, ROUNDING)
    return Problem(A.restrict(y), A, GaussianNoise(sigma), shape)


def counted(p: Problem) -> Tensor | None:
    """The pixels that count, (1, 1, H, W): the unknown ones of inpainting; None for all."""
    return ~p.A.mask.bool() if isinstance(p.A, Inpaint) else None


def student(level: float, samples: int) -> float:
    """Half the width of the interval of a further draw, in standard deviations of the samples."""
    from scipy.stats import t

    return float(t.ppf(0.5 + level / 2, samples - 1)) * math.sqrt(1 + 1 / samples)


def calibration(
    samples: Tensor, truth: Tensor, picture: bool, where: Tensor | None = None
) -> dict[str, list[float]]:
    """coverage90, coverage50 and error / predicted of each image; samples (M, K, C, H, W).

    where: the pixels that count, (1, 1, H, W); all unless told.
    """
    if where is not None:
        truth, samples = truth[..., where[0, 0]], samples[..., where[0, 0]]
    if picture:
        g = torch.Generator().manual_seed(0)
        samples = ((samples.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
        samples = samples + (torch.rand(samples.shape, generator=g) - 0.5) / 127.5
    k, mean, std = samples.shape[1], samples.mean(1), samples.std(1)
    found = {}
    for name, level in (("coverage90", 0.9), ("coverage50", 0.5)):
        inside = (truth - mean).abs() <= student(level, k) * std
        found[name] = inside.float().flatten(1).mean(1).tolist()
    predicted = (std.square() * (1 + 1 / k)).flatten(1).mean(1)
    found["ratio"] = ((truth - mean).square().flatten(1).mean(1) / predicted).sqrt().tolist()
    return found


def measure(row: Row, args: argparse.Namespace, solver_name: str | None) -> dict:
    """One row of the record."""
    prior: Prior = load_prior(row.prior)
    truth = truths(row, args.side, args.images, args.data)
    p = problem(row, truth)
    if solver_name is None:
        solver, best = choose(TASKS[row.task], p)[0], estimator(TASKS[row.task], p)
    else:
        solver, best = configured(TASKS[row.task], solver_name, p), None
    window = (-1.0, 1.0)

    def quality(x: Tensor) -> float:
        return float(psnr(restoration.shown(x), restoration.shown(truth), window).mean())

    result = solve(p, prior, solver, args.samples, seed=1, batch=args.batch)
    inside = calibration(result.samples, truth, row.picture, counted(p))
    count = len(truth)
    found = {
        "key": row.key, "task": row.task, "title": row.title, "prior": row.prior,
        "side": args.side, "images": count, "samples": args.samples, "solver": solver.name,
        "default": solver_name is None, "nfe": result.nfe, "seconds": round(result.seconds, 1),
        "mean": round(quality(result.mean), 2),
        "one": round(sum(quality(x) for x in result.samples.unbind(1)) / args.samples, 2),
    }  # fmt: skip
    for name, values in inside.items():
        v = torch.tensor(values)
        found[name] = round(float(v.mean()), 3)
        found[name + "_error"] = round(float(v.std() / math.sqrt(count)), 3)
    residuals = torch.stack([misfit(p, x) for x in result.samples.unbind(1)])
    found["residual"] = round(float(residuals.mean()), 3)
    if isinstance(p.A, Inpaint):
        off = ((result.samples - truth[:, None]) * 127.5).round().abs()
        kept = p.A.mask.bool().expand_as(truth)[:, None].expand_as(off)
        found["kept_off_by"] = int(off[kept].max())
        found["kept_moved"] = round(float((off[kept] > 0).float().mean()), 4)
    if best is not None:
        one = solve(p, prior, best[0], 1, seed=0, batch=args.batch)
        found |= {"estimator": best[0].name, "estimate": round(quality(one.samples[:, 0]), 2),
                  "estimate_nfe": one.nfe}  # fmt: skip
    return found


def again(row: Row, args: argparse.Namespace) -> dict:
    """The default row of the record with its estimate measured anew."""
    rows = json.loads(RECORD.read_text())
    kept = [r for r in rows if (r["key"], r["side"], r["default"]) == (row.key, args.side, True)]
    if not kept:
        raise InvdiffError(f"{row.key} has no row to renew; leave --estimates out.")
    prior, truth = load_prior(row.prior), truths(row, args.side, kept[0]["images"], args.data)
    p = problem(row, truth)
    best = estimator(TASKS[row.task], p)
    assert best is not None
    one = solve(p, prior, best[0], 1, seed=0, batch=args.batch)
    found = float(
        psnr(restoration.shown(one.samples[:, 0]), restoration.shown(truth), (-1, 1)).mean()
    )
    made = {"estimator": best[0].name, "estimate": round(found, 2), "estimate_nfe": one.nfe}
    return kept[0] | made


def keep(found: dict) -> None:
    """Put a row into the record."""
    rows = json.loads(RECORD.read_text()) if RECORD.exists() else []
    same = ("key", "side", "solver", "default")
    rows = [r for r in rows if any(r[k] != found[k] for k in same)]
    order = [row.key for row in ROWS]
    rows.append(found)
    rows.sort(key=lambda r: (order.index(r["key"]), r["side"], not r["default"], r["solver"]))
    RECORD.write_text(json.dumps(rows, indent=1) + "\n")


PAGE = restoration.DOCS / "calibration.md"
FIGURE = restoration.DOCS / "images/calibration.png"


def table() -> list[str]:
    """The record as a table: what is taken by default, then other solvers."""
    lines = [
        "| measurement | images | solver, NFE | coverage of 90 % | of 50 % | error / predicted | "
        "residual | estimate (NFE) | mean | one sample |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = sorted(json.loads(RECORD.read_text()), key=lambda r: not r["default"])
    for r in rows:
        best = f"{r['estimate']:.2f} ({r['estimate_nfe']})" if "estimate" in r else "-"
        jpeg = r["task"] == "jpeg"
        lines.append(
            f"| {r['task']}: {r['title']} | {r['images']} of {r['side']} x {r['side']}, "
            f"{r['samples']} samples | {r['solver']}, {r['nfe']} "
            f"| {r['coverage90']:.3f} ± {r['coverage90_error']:.3f} | {r['coverage50']:.3f} "
            f"| {r['ratio']:.2f} ± {r['ratio_error']:.2f} "
            f"| {'in cells' if jpeg else format(r['residual'], '.2f')} | {best} "
            f"| {r['mean']:.2f} | {r['one']:.2f} |"
        )
    return lines


INTRODUCTION = """# Calibration: what an estimate, a sample and an uncertainty are worth

`restore` makes two things, for one number cannot serve both. The **estimate** is the best single
picture, by a deterministic method. A **sample** is a draw of what may be true: noisier than the
estimate, as it has to be. The **mean** of infinitely many samples would be the estimate of least
error; that of 8 has 1/8 more of it, half a decibel. The **uncertainty** is the deviation of the
samples; whether the truth lies where it says is measured here.

`coverage`: share of pixels whose true value lies in the interval that the mean and the deviation
of the samples give (Student's t, for one further draw); 0.90 and 0.50 for exact samples. `error /
predicted`: rms error of the mean over what the deviation predicts; 1 for exact samples, above it
the samples are too sure. `residual`: rms of (y - A x) / sigma of single samples; 1 for exact ones.
PSNR in dB. ± is the standard error over images. The images chose nothing: constants were found on
other photographs. Measurements of photographs are rounded to 8 bits and clipped.

![calibrated samples beside over-confident ones](images/calibration.png)

Super-resolution by 4: `spectral-ancestral`, which is what `auto` takes, and `ddrm` with a preset
for the best mean. Samples of the second hardly differ, and are wrong together.
"""


def page() -> None:
    """Write docs/calibration.md from the record."""
    text = [INTRODUCTION, *table(), ""]
    text += [
        "Made by `python benchmarks/calibration.py` (photographs), and with `--data` for the",
        "priors of scans; `--solvers NAME` measures others. Where a row is missing nothing was",
        "measured, and `restore` says so. Rows of few images have wide errors.",
        "",
        "What a prior is wrong by, on which samples rest, is measured by `invdiff priors measure`",
        "(the file NAME.spectrum.json beside its weights). `python benchmarks/learned.py` measures",
        "the 28 x 28 prior on truths that it drew, `python benchmarks/checks.py` the warnings.",
    ]
    PAGE.write_text("\n".join(text) + "\n")


SHOWN = ("denoise", "x4", "deblur", "random", "jpeg")
"""Rows of the README's table."""
README = restoration.DOCS.parent / "README.md"


def readme() -> None:
    """Write the README's table from the record."""
    rows = json.loads(RECORD.read_text())
    rows = {r["key"]: r for r in rows if r["default"] and r["side"] == 128}
    lines = [
        "| measurement | coverage of 90 % | error / predicted | residual | estimate (NFE) "
        "| mean of 8 | one sample (NFE) |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in (rows[k] for k in SHOWN):
        residual = "in cells" if r["task"] == "jpeg" else f"{r['residual']:.2f}"
        lines.append(
            f"| {r['task']}: {r['title']} | {r['coverage90']:.2f} | {r['ratio']:.2f} | {residual} "
            f"| {r['estimate']:.2f} ({r['estimate_nfe']}) | {r['mean']:.2f} "
            f"| {r['one']:.2f} ({r['nfe']}) |"
        )
    before, rest = README.read_text().split("<!-- calibration -->\n")
    after = rest.split("<!-- /calibration -->\n")[1]
    table = "\n".join(lines)
    README.write_text(f"{before}<!-- calibration -->\n{table}\n<!-- /calibration -->\n{after}")


def figure() -> None:
    """Calibrated samples beside over-confident ones, of one photograph."""
    from invdiff.files.figures import new_figure

    row = next(r for r in ROWS if r.key == "x4")
    truth = truths(row, 128, 12, None)[5:6]
    p, prior = problem(row, truth), load_prior("photo")
    figure = new_figure(12, 5.4)
    figure.set_layout_engine("constrained")
    grid = figure.subplots(2, 5)
    best = estimator(TASKS[row.task], p)
    assert best is not None
    first = [solve(p, prior, best[0]).samples[0, 0], truth[0]]
    for k, name in enumerate(("spectral-ancestral", "ddrm")):
        solver = configured(TASKS[row.task], name, p)
        x = solve(p, prior, solver, 8, seed=1).samples
        found = calibration(x, truth, True)
        names = ["estimate" if k == 0 else "truth", "sample 1", "sample 2", "std of 8", "|error|"]
        shown = [first[k], x[0, 0], x[0, 1]]
        for axes, title, image in zip(grid[k], names, shown, strict=False):
            axes.imshow((image.clamp(-1, 1) / 2 + 0.5).permute(1, 2, 0).numpy())
            axes.set_title(
                title if title in ("estimate", "truth") else f"{name}: {title}", fontsize=9
            )
        std, error = x[0].std(0), (x[0].mean(0) - truth[0]).abs()
        for axes, title, image in zip(grid[k][3:], names[3:], (std, error), strict=True):
            flat = image.square().mean(0).sqrt().numpy()
            axes.imshow(flat, cmap="inferno", vmin=0, vmax=0.4)
            held = f", 90 % intervals hold {100 * found['coverage90'][0]:.0f} %"
            axes.set_title(title + (held if title.startswith("std") else ""), fontsize=9)
    for axes in grid.flatten():
        axes.set_axis_off()
    figure.savefig(FIGURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=[r.key for r in ROWS])
    parser.add_argument("--solvers", nargs="+", help="in place of what auto takes")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--data", type=Path, help="what the prior was trained on, for brain and ct")
    parser.add_argument("--estimates", action="store_true", help="measure the estimates alone")
    parser.add_argument("--page", action="store_true", help="write the page alone")
    parser.add_argument("--figure", action="store_true", help="draw the page's figure alone")
    args = parser.parse_args()
    if args.figure:
        figure()
    elif not args.page:
        for row in ROWS:
            if row.key not in (args.tasks or [r.key for r in ROWS if r.picture]):
                continue
            for name in args.solvers or [None]:
                found = again(row, args) if args.estimates else measure(row, args, name)
                keep(found)
                print(json.dumps(found), flush=True)
    page()
    readme()


if __name__ == "__main__":
    main()
