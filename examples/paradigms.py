"""Replacement and reconstruction at work: the two pictures of docs/paradigms.md.

    python examples/paradigms.py [--out docs/images] [--steps 200] [--seed 0]

Above, in two dimensions where everything is known: the prior is a mixture of three normal laws,
the horizontal coordinate x1 is measured, and six chains end in samples; the law of x2, which is not
measured, is beside the exact posterior's. Below, a photograph whose right half is to be filled:
the state x_t, and what the network makes of it, on the way.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import invdiff
from invdiff.core.schedules import VE, VP, Karras
from invdiff.noise import GaussianNoise
from invdiff.operators import Inpaint
from invdiff.sampling.stream import stream
from invdiff.solvers import Solver, solver_class

HERE = Path(__file__).resolve().parent
SIGMA_Y = 0.1
Y = 0.25
CHAINS = 3000


def toy() -> tuple[invdiff.GaussianMixture, invdiff.Problem]:
    """Three normal laws in the plane, of which the line x1 = Y cuts two off centre."""
    means = torch.tensor([[-0.6, 0.7], [0.7, 0.35], [0.1, -0.7]], dtype=torch.float64)
    covs = torch.stack(
        [
            torch.tensor([[a, c], [c, b]], dtype=torch.float64)
            for a, b, c in ((0.12, 0.03, -0.03), (0.06, 0.05, 0.03), (0.09, 0.02, 0.02))
        ]
    )
    weights = torch.tensor([0.4, 0.3, 0.3], dtype=torch.float64)
    prior = invdiff.GaussianMixture(weights, means.reshape(3, 1, 1, 2), covs)
    A = Inpaint(torch.tensor([[[[1.0, 0.0]]]]))
    y = torch.tensor([[[[Y, 0.0]]]], dtype=torch.float64)
    return prior, invdiff.Problem(y, A, GaussianNoise(SIGMA_Y), (1, 1, 2))


def chains(solver: Solver, seed: int) -> tuple[Tensor, invdiff.GaussianMixture, Tensor]:
    """x_t / a_t of every step, (steps + 1, CHAINS, 2); the prior; exact posterior samples."""
    prior, problem = toy()
    many = problem.rows(torch.zeros(CHAINS, dtype=torch.long))
    seeds = [seed * CHAINS + i for i in range(CHAINS)]
    found = []
    bar = tqdm(stream(many, prior, solver, seeds), total=solver.num_steps + 1, desc=solver.name)
    for state, level in zip(bar, solver.levels, strict=True):
        found.append(state.x.reshape(-1, 2) / level.a)
    exact = prior.posterior(problem).sample(CHAINS, seed).reshape(-1, 2)
    return torch.stack(found), prior, exact


def draw_toy(axes: Any, side: Any, solver: Solver, seed: int) -> None:
    """The plane with a few chains, and the law of x2 that they end in."""
    paths, prior, exact = chains(solver, seed)
    grid = torch.linspace(-1.8, 1.8, 181, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid).reshape(-1, 1, 1, 2)
    density = prior.log_prob(points).exp().reshape(181, 181).mT
    axes.contour(grid, grid, density, levels=6, cmap="Greys", linewidths=0.8)
    axes.axvspan(Y - 2 * SIGMA_Y, Y + 2 * SIGMA_Y, color="tab:blue", alpha=0.15, lw=0)
    first = sum(level.sigma > 0.5 for level in solver.levels)  # before that it is all noise
    for k in range(6):
        axes.plot(*paths[first:, k].T, lw=0.6, alpha=0.8)
        axes.plot(*paths[-1, k], "o", ms=4, color=axes.lines[-1].get_color())
    axes.set(xlim=(-1.8, 1.8), ylim=(-1.8, 1.8), xlabel="$x_1$, measured", ylabel="$x_2$")
    axes.set_aspect("equal")
    bins = np.linspace(-1.4, 1.4, 57)
    style = {"orientation": "horizontal", "density": True}
    side.hist(exact[:, 1], bins, color="0.75", label="exact posterior", **style)
    side.hist(paths[-1, :, 1], bins, histtype="step", color="tab:red", label=solver.name, **style)
    side.set(ylim=(-1.8, 1.8), xlabel="density of $x_2$", yticks=[])
    side.legend(fontsize=7, loc="upper right")


def draw_photo(rows: Any, solver: Solver, seed: int, shown: list[float]) -> None:
    """x_t / a_t and the network's x0 near the noise levels `shown`."""
    picture = Image.open(HERE / "alpacas.webp").convert("RGB").crop((128, 96, 256, 224))
    truth = torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    A = Inpaint.box((128, 128), 0, 72, 128, 56)
    problem = invdiff.Problem(A(truth), A, GaussianNoise(0.0), (3, 128, 128))
    prior = invdiff.load_prior("photo", precision="bfloat16")
    states = list(
        tqdm(stream(problem, prior, solver, [seed]), total=solver.num_steps + 1, desc=solver.name)
    )
    sigmas = np.array([level.sigma for level in solver.levels[:-1]])
    picks = [int(np.abs(np.log(sigmas) - np.log(s)).argmin()) for s in shown]
    panels = [(f"$x_t/a_t$, $\\sigma$ = {sigmas[i]:.2g}", states[i]) for i in picks]
    for axes, (title, state), i in zip(rows[0], panels, picks, strict=False):
        axes.imshow(visible(state.x / solver.levels[i].a))
        axes.set_title(title, fontsize=8)
    for axes, i in zip(rows[1], picks, strict=False):
        axes.imshow(visible(states[i + 1].x0))
        axes.set_title("$\\hat x_0(x_t)$", fontsize=8)
    rows[0][-1].imshow(visible(problem.y))
    rows[0][-1].set_title("measured", fontsize=8)
    rows[1][-1].imshow(visible(states[-1].x))
    rows[1][-1].set_title("sample", fontsize=8)
    for axes in rows.flat:
        axes.axis("off")


def visible(x: Tensor) -> np.ndarray:
    """The first image of a batch on [-1, 1] as an array for imshow."""
    return ((x[0].permute(1, 2, 0).float().numpy() + 1) / 2).clip(0, 1)


def figure(toy_solver: Solver, photo_solver: Solver, title: str, seed: int, out: Path) -> None:
    """One of the two pictures."""
    shown = [3.0, 1.0, 0.3, 0.1]
    page = plt.figure(figsize=(9, 8.4), layout="constrained")
    page.suptitle(title)
    top, bottom = page.subfigures(2, 1, height_ratios=(1.15, 1))
    axes, side = top.subplots(1, 2, width_ratios=(2, 1))
    draw_toy(axes, side, toy_solver, seed)
    draw_photo(bottom.subplots(2, len(shown) + 1), photo_solver, seed, shown)
    page.savefig(out, dpi=80)
    plt.close(page)
    print(out)


def main() -> None:
    """Write replacement.png and reconstruction.png."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--out", type=Path, default=HERE.parent / "docs" / "images")
    p.add_argument("--steps", type=int, default=200)
    p.add_argument("--seed", type=int, default=0)
    given = p.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    Replacement, DPS = solver_class("replacement"), solver_class("dps")
    figure(
        Replacement(corrector_steps=0, schedule=VE(given.steps, 20.0, 0.01)),
        Replacement(corrector_steps=1, schedule=Karras(given.steps, 10.0, 0.02)),
        "Replacement: overwrite the measured part of the state",
        given.seed,
        given.out / "replacement.png",
    )
    figure(
        DPS(loss="gaussian", zeta=0.01, schedule=VP(5 * given.steps, spacing="trailing")),
        DPS(zeta=6.0, schedule=VP(given.steps, spacing="trailing")),
        "Reconstruction: follow the gradient of the misfit of $\\hat x_0(x_t)$",
        given.seed,
        given.out / "reconstruction.png",
    )


if __name__ == "__main__":
    main()
