"""MRI of the head from few samples: a real 8-coil measurement, or one that is made from a picture.

    python examples/mri.py --out mri-example
    python examples/mri.py --retrospective --accel 4 --out mri-example

The first line reconstructs k-space as it was measured, 12.4 % of it. Coil sensitivities come from
its fully sampled centre alone (ESPIRiT), the scale from the undersampled image (Jalal et al. 2021),
the noise from the outermost samples; both are printed. There is no truth to compare with. By
default the middle of k-space is used, so that voxels are as large as those that the prior knows;
--rows 0 keeps the full resolution.

The second line takes the SENSE reconstruction of that measurement (or --image FILE, a grey picture)
for the truth, samples it again with one coil, and prints how near each solver comes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import invdiff.operators as ops
from invdiff import Prior, Problem, load_prior, psnr, read_kspace, solve, ssim
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.files.figures import overview
from invdiff.noise import GaussianNoise
from invdiff.priors.base import Denoiser
from invdiff.scans.kspace_problem import mri_problem
from invdiff.solvers import Solver
from invdiff.tasks import Mri, auto
from invdiff.tasks.presets import TYPICAL

HERE = Path(__file__).resolve().parent


def configured(name: str, steps: int | None) -> Solver:
    """A solver with settings for magnitudes of 0 to 1, on fewer steps than its paper takes."""
    solver = auto.configured(Mri, name, Mri.toy(TYPICAL))
    return solver.with_steps(steps) if steps else solver


def measured(args: argparse.Namespace) -> tuple[Problem, float]:
    """The real measurement as a problem, and the scale that divided it."""
    k = read_kspace(args.kspace, slice=args.slice)
    rows = args.rows if 0 < args.rows < k.mask.shape[0] else None
    found = mri_problem(k, rows=rows)
    if args.sigma is None:
        return found.problem, found.scale
    return replace(found.problem, noise=GaussianNoise(args.sigma)), found.scale


def sense(problem: Problem) -> Tensor:
    """Regularised SENSE, without a prior: (A^H A + 0.02)^-1 A^H y."""
    return problem.linear.solve(problem.linear.adjoint(problem.y), 0.02)


def retrospective(args: argparse.Namespace) -> tuple[Problem, Tensor]:
    """One coil, Gaussian lines, and the truth that they were taken from."""
    if args.image is None:
        truth = sense(measured(args)[0])
    else:
        from PIL import Image

        pixels = np.asarray(Image.open(args.image).convert("L"), np.float32) / 255
        grey = torch.from_numpy(pixels)[None, None]
        phase = 2.0 * torch.linspace(-1, 1, grey.shape[-1]) ** 2 + 0.7
        truth = torch.cat([grey * phase.cos(), grey * phase.sin()], dim=1)
    mask = ops.gaussian_lines(truth.shape[-2:], args.accel, args.seed)
    A, sigma = ops.Fourier(mask), 0.01 if args.sigma is None else args.sigma
    y = GaussianNoise(sigma).sample(A(truth), Rng.of([args.seed]))
    return Problem(y, A, GaussianNoise(sigma), tuple(truth.shape[1:])), truth


def wiener(size: tuple[int, int]) -> Prior:
    """A normal law with the spectrum of pictures, to compare with: no network, no edges."""
    rows, columns = (torch.arange(n).float() - n // 2 for n in size)
    power = 400 / (1 + torch.hypot(rows[:, None], columns) ** 2) ** 1.2

    def denoise(x: Tensor, sigma: float) -> Tensor:
        k = ops.fft2c(ops.as_complex(x))
        return ops.as_channels(ops.ifft2c(k * (power / (power + sigma**2)).to(k.device)))

    return Denoiser(denoise, name="wiener")


def main() -> None:
    """Measure, reconstruct with every solver, draw."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument(
        "--kspace", type=Path, default=HERE / "brain8coil.npz", help=".npz, .npy, .h5, .cfl"
    )
    p.add_argument("--slice", type=int, help="of an .h5 file; the middle one without it")
    p.add_argument("--rows", type=int, default=128, help="rows of k-space kept; 0 keeps all")
    p.add_argument("--retrospective", action="store_true", help="undersample a picture")
    p.add_argument("--image", type=Path, help="grey picture to undersample")
    p.add_argument("--accel", type=float, default=4.0, help="acceleration of --retrospective")
    p.add_argument("--sigma", type=float, help="noise per real part, after scaling")
    p.add_argument("--prior", default="brain", help="brain, wiener, or any that load_prior takes")
    names = ["dps", "diffpir", "mmps", "score-mri", "csgm"]
    p.add_argument("--solvers", nargs="+", default=names, help="which ones, in this order")
    p.add_argument("--steps", type=int, help="of every solver; by default its own number")
    p.add_argument("--samples", type=int, default=4, help="of each solver")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=Path("mri-example"), help="folder of the figure")
    args = p.parse_args()
    try:
        run(args)
    except InvdiffError as error:
        raise SystemExit(str(error)) from None


def run(args: argparse.Namespace) -> None:
    """All of it."""
    truth = None
    if args.retrospective:
        problem, truth = retrospective(args)
    else:
        problem, scale = measured(args)
        print(f"scale: {scale:.4g} (99th percentile of the undersampled image)")
    (accel,) = ops.acceleration(problem.A.mask)  # type: ignore[attr-defined]
    print(f"image {problem.x_shape}, k-space {tuple(problem.y.shape)}, noise {problem.sigma_y:.4f}")
    print(f"true acceleration {accel:.2f}")
    size = (int(problem.x_shape[1]), int(problem.x_shape[2]))
    prior = wiener(size) if args.prior == "wiener" else load_prior(args.prior)

    top = 1.0 if truth is None else float(magnitude(truth).max())
    panels = [] if truth is None else [("truth", magnitude(truth))]
    panels += [("zero-filled", magnitude(problem.linear.adjoint(problem.y)))]
    panels += [("SENSE without prior", magnitude(sense(problem)))] if truth is None else []
    std = None
    for name in args.solvers:
        solver = configured(name, args.steps)
        with tqdm(total=solver.num_steps, desc=name, unit="step") as bar:
            result = solve(
                problem, prior, solver, args.samples, args.seed,
                watch=lambda s, bar=bar: bar.update(s.state.step - bar.n),
            )  # fmt: skip
        mean = magnitude(result.mean)
        if args.samples > 1:
            std = (result.samples.var(1).sum(1, keepdim=True)).sqrt()[0]
        r = torch.view_as_real(problem.residual(result.samples[:, 0]))[problem.y != 0]
        line = (
            f"{name}: {result.nfe} evaluations, {result.seconds:.0f} s, misfit {float(r.std()):.4f}"
        )
        title = name
        if truth is not None:
            score = [f(mean, magnitude(truth), (0.0, top)) for f in (psnr, ssim)]
            line += f", PSNR {float(score[0]):.2f} dB, SSIM {float(score[1]):.3f}"
            title = f"{name}, {float(score[0]):.2f} dB"
        print(line)
        panels.append((title, mean))
    args.out.mkdir(parents=True, exist_ok=True)
    kind = "retrospective" if args.retrospective else "measured"
    file = args.out / f"mri-{kind}.png"
    shown = [(title, (image[0] / 1.2).clamp(0, 1)) for title, image in panels]
    headline = f"MRI of the head, {accel:.1f} times fewer samples, prior: {prior.name}; "
    headline += f"means of {args.samples} samples, uncertainty of {args.solvers[-1]}"
    overview(shown, std, file, headline)
    print(f"written: {file}")


def magnitude(x: Tensor) -> Tensor:
    """|x| of complex images (B, 2, H, W), (B, 1, H, W)."""
    return ops.root_sum_of_squares(x)


if __name__ == "__main__":
    main()
