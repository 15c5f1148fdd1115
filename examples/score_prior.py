"""Posteriors of a 28 x 28 image by a variational fit with a diffusion model's own density.

    python examples/score_prior.py [--task all] [--steps 600] [--seed 0] [--out score-prior.png]

Four measurements of one garment: noise, the 8 x 8 lowest frequencies, a quarter of the columns of
the Fourier plane, and the visibilities of a small radio array. To each, a RealNVP is fitted with a
bound of log p of the prior (Feng and Bouman 2024, arXiv 2309.01949) or with log p itself (Feng et
al. 2023, arXiv 2304.11751; slow). The figure shows mean, standard deviation and samples of each
law. First, log p of the garment and of noise is printed, by the probability-flow equation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import invdiff
from invdiff import operators as ops
from invdiff.core.schedules import VE
from invdiff.noise import GaussianNoise
from invdiff.priors.base import Prior
from invdiff.priors.likelihood import ProbabilityFlow, Window, rademacher
from invdiff.sampling.stream import finish, stream
from invdiff.solvers.score_prior import ScorePrior

HERE = Path(__file__).resolve().parent
SIZE = (28, 28)
SHAPE = (1, *SIZE)
LOW, HIGH = 0.05, 50.0
"""Noise levels between which the density is computed: that of images with noise of 0.05."""
SAMPLES = 64
SHOWN = 3


def columns(keep: int, seed: int) -> Tensor:
    """A mask of whole columns of the Fourier plane: the 4 in the middle, and others at random."""
    mask = torch.zeros(SIZE)
    mask[:, 12:16] = 1
    others = [c for c in range(SIZE[1]) if not 12 <= c < 16]
    mask[:, np.random.default_rng(seed).choice(others, keep - 4, replace=False)] = 1
    return mask


def measurements(seed: int) -> dict[str, tuple[ops.Linear, float]]:
    """Name to operator and noise level, on the scale where black is -1 and white is 1."""

    def fourier(uv: Tensor) -> ops.Linear:
        return ops.Interferometry(uv, SIZE)

    return {
        "denoise": (ops.Identity(), 0.4),
        "deblur": (fourier(ops.grid_uv(ops.low_frequencies(SIZE, 8))), 0.1),
        "mri-like": (fourier(ops.grid_uv(columns(7, seed))), 0.1),
        "interferometry": (fourier(ops.earth_rotation(7, 10, 10.0, seed).uv), 0.1),
    }


def densities(prior: Prior, truth: Tensor, seed: int) -> str:
    """log p of the garment, of it upside down, and of noise of the same mean and spread."""
    rng = invdiff.Rng.of((seed, seed, seed))
    noise = truth.mean() + truth.std() * rng.normal(truth.expand(3, *SHAPE), "noise")[:1]
    x = torch.cat([truth, truth.flip(2), noise])
    flow = ProbabilityFlow(Window(LOW, HIGH), steps=30)
    log_p = flow.log_prob(prior, x, rademacher(x, 8, rng)) / x[0].numel()
    return "log p in nats per pixel: garment {:.2f}, upside down {:.2f}, noise {:.2f}".format(
        *log_p.tolist()
    )


def fitted(problem: invdiff.Problem, prior: Prior, solver: ScorePrior, name: str) -> Tensor:
    """SAMPLES draws of the law that is fitted to a measurement."""
    rows = problem.rows(torch.zeros(SAMPLES, dtype=torch.long))
    seeds = list(range(SAMPLES))
    recent: list[float] = []
    with tqdm(total=solver.num_steps, desc=name, unit="step") as bar:
        for state in stream(rows, prior, solver, seeds):
            if state.step:
                recent = [*recent[-49:], float(state.extra["evidence"])]
                bar.set_postfix_str(f"bound of log p(y) {np.mean(recent):.0f}", refresh=False)
                bar.update()
    return finish(state, rows, prior, solver, seeds)


def main() -> None:
    """Fit, print and draw."""
    names = list(measurements(0))
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--task", choices=["all", *names], default="all")
    p.add_argument("--steps", type=int, default=600, help="of Adam, for each measurement")
    p.add_argument("--seed", type=int, default=0, help="of the noise and of the fit")
    p.add_argument("--out", type=Path, default=Path("score-prior.png"), help="figure to write")
    p.add_argument("--image", type=Path, default=HERE / "boot.png", help="28 x 28, grey")
    p.add_argument("--prior", default="fashion28")
    p.add_argument("--family", choices=["realnvp", "gaussian"], default="realnvp")
    p.add_argument("--prior-term", choices=["elbo", "exact"], default="elbo")
    o = p.parse_args()

    prior = invdiff.load_prior(o.prior)
    pixels = np.asarray(Image.open(o.image).convert("L"), dtype=np.float32)
    truth = torch.from_numpy(pixels / 127.5 - 1)[None, None]
    tqdm.write(densities(prior, truth, o.seed))
    solver = ScorePrior(
        prior_term=o.prior_term,
        family=o.family,
        flow_steps=4,
        lr=1e-2,
        warmup=0.1,
        cooldown=0.4,
        ode_steps=10,
        probes=1,
        schedule=VE(o.steps, HIGH, LOW),
    )
    chosen = names if o.task == "all" else [o.task]
    figure, axes = plt.subplots(
        len(chosen), 4 + SHOWN, figsize=(1.6 * (4 + SHOWN), 1.75 * len(chosen)), squeeze=False
    )
    for row, name in zip(axes, chosen, strict=True):
        A, sigma = measurements(o.seed)[name]
        noise = GaussianNoise(sigma)
        y = noise.sample(A(truth), invdiff.Rng.of((o.seed,)))
        x = fitted(invdiff.Problem(y, A, noise, SHAPE), prior, solver, name)
        mean, std = x.mean(0), x.std(0)
        misfit = float((A(mean[None]) - y).abs().square().mean().sqrt())
        expected = sigma * (2**0.5 if y.is_complex() else 1.0)
        psnr = float(invdiff.psnr(mean[None], truth, prior.value_range))
        error = float((mean - truth[0]).square().mean().sqrt())
        tqdm.write(
            f"{name}: PSNR of the mean {psnr:.1f} dB, error {error:.3f} where the law says "
            f"{float(std.square().mean().sqrt()):.3f}; misfit {misfit:.3f}, noise {expected:.3f}"
        )
        panels = [("truth", truth[0]), ("A* y", A.adjoint(y)[0]), ("mean", mean), ("std", std)]
        panels += [("sample", sample) for sample in x[:SHOWN]]
        for ax, (title, image) in zip(row, panels, strict=True):
            limits = {} if title == "std" else {"vmin": -1, "vmax": 1}
            ax.imshow(image[0], cmap="inferno" if title == "std" else "gray", **limits)
            top = f" (0 to {float(image.max()):.2f})" if title == "std" else ""
            ax.set_title(title + top, fontsize=8)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=9)
    figure.tight_layout()
    figure.savefig(o.out, dpi=150)
    tqdm.write(f"wrote {o.out}")


if __name__ == "__main__":
    main()
