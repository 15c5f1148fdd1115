"""What a short run costs where a paper takes a thousand steps or more: docs/short.md.

    python benchmarks/short.py       measures every row, long runs included, and writes the page

The law is normal, and so is its posterior, which is known exactly. A test repeats the short runs.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, VP, Karras
from invdiff.noise import GaussianNoise
from invdiff.operators import Inpaint
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.solvers import Solver
from invdiff.solvers.csgm import CSGM
from invdiff.solvers.daps import DAPS
from invdiff.solvers.dps import DPS
from invdiff.solvers.mcg import MCG
from invdiff.solvers.replacement import Replacement
from invdiff.solvers.score_medical import ScoreMedical, ScoreMedicalBaseline
from invdiff.solvers.score_mri import ScoreMRI
from invdiff.solvers.snips import SNIPS
from invdiff.tasks.presets import short_dps
from make_docs import call, table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "short.md"
SIDE, SAMPLES = 16, 64
SCALE = SIDE / 256
"""A step along the gradient of a norm has a length for the whole image; published are 256 wide."""


@dataclass(frozen=True)
class Row:
    """The published budget and a short one, at a noise level of y."""

    sigma_y: float
    full: Solver
    short: Solver


GRID = Karras(60, 20.0, 0.02)
ROWS = (
    Row(0.0, Replacement(), Replacement(schedule=GRID)),
    Row(0.0, ScoreMedical(), ScoreMedical(schedule=GRID)),
    Row(0.0, ScoreMedicalBaseline(), ScoreMedicalBaseline(schedule=GRID)),
    Row(0.0, ScoreMRI(), ScoreMRI(schedule=GRID)),
    Row(0.0, MCG(rho=SCALE), MCG(rho=10 * SCALE, schedule=VP(100))),
    Row(0.1, DPS(zeta=SCALE), short_dps("super-resolution", (SIDE, SIDE))),
    Row(0.1, SNIPS(), SNIPS(c=0.15, K=2, final="denoised", schedule=VE(400, 3.0, 0.02))),
    Row(0.1, CSGM(), CSGM(c=0.2, final="denoised", schedule=VE(400, 3.0, 0.02))),
    Row(0.1, DAPS(), DAPS(centre="tweedie", schedule=Karras(50, 20.0, 0.1))),
)


def law() -> GaussianPrior:
    """Images of covariance exp(-distance / 4) / 4."""
    axis = torch.arange(SIDE, dtype=torch.float64)
    place = torch.cartesian_prod(axis, axis)
    covariance = torch.exp(-torch.cdist(place, place) / 4) / 4
    return GaussianPrior(torch.zeros(1, SIDE, SIDE, dtype=torch.float64), covariance)


def cost(solver: Solver, sigma_y: float) -> tuple[int, float, float]:
    """(evaluations, error of the mean, variance) of samples within a hole of half the side.

    The error is the root mean square of (mean of samples - mean of the posterior) / (standard
    deviation of the posterior); the variance is divided by the posterior's, mean over pixels.
    """
    prior, quarter = law(), SIDE // 4
    A = Inpaint.box((SIDE, SIDE), quarter, quarter, SIDE // 2, SIDE // 2)
    z = Rng.of((5,)).normal(prior.mean[None], "truth").flatten(1)
    truth = (z @ torch.linalg.cholesky(prior.cov).mT).reshape(1, 1, SIDE, SIDE)
    y = GaussianNoise(sigma_y).sample(A(truth), Rng.of((1,)))
    problem = Problem(y, A, GaussianNoise(sigma_y), (1, SIDE, SIDE))
    result = solve(problem, prior, solver, samples=SAMPLES)
    posterior, hole = prior.posterior(problem), ~A.mask.bool().flatten()
    mean, variance = posterior.mean.flatten()[hole], posterior.cov.diagonal()[hole]
    x = result.samples[0].flatten(1)[:, hole]
    error = ((x.mean(0) - mean).square() / variance).mean().sqrt()
    return result.nfe, float(error), float((x.var(0) / variance).mean())


def spelled(solver: Solver) -> str:
    """The solver as Python writes it: its schedule, and the knobs that are not defaults."""
    knobs = [
        f"{f.name}={getattr(solver, f.name)!r}"
        for f in dataclasses.fields(solver)
        if f.name != "schedule" and getattr(solver, f.name) != f.default
    ]
    schedule = call(solver.schedule, "steps").strip("`")
    return f"`{type(solver).__name__}({', '.join([*knobs, f'schedule={schedule}'])})`"


def cells(solver: Solver, sigma_y: float) -> list[str]:
    """How the solver is called, and its cost as printed."""
    nfe, error, variance = cost(solver, sigma_y)
    return [spelled(solver), str(nfe), f"{error:.2f}", f"{variance:.2f}"]


TEXT = f"""# Short runs

What a short run costs where a paper takes a thousand evaluations or more. Measured by
`python benchmarks/short.py` on a normal law of {SIDE} x {SIDE} pixels whose neighbours are alike,
in a hole of half the side, from {SAMPLES} samples. y has noise of 0.1 for solvers that model noise.

`error of the mean` is in standard deviations of the posterior: exact samples would have
{SAMPLES**-0.5:.2f}. `variance` is divided by the posterior's: exact samples would have 1.00.

The steps `zeta` of DPS and `rho` of MCG have a length for the whole image: those here are for
{SIDE} pixels a side, and grow in proportion to it. `score-prior` takes 1000 steps of 16 draws by
default, where its papers take 10000 to 20000 of 64.

"""


def page() -> str:
    """docs/short.md."""
    head = ["name", "solver", "evaluations", "error of the mean", "variance"]
    rows = [
        [f"`{row.short.name}`", *cells(solver, row.sigma_y)]
        for row in tqdm(ROWS)
        for solver in (row.full, row.short)
    ]
    return TEXT + "\n".join(table(head, rows)) + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
