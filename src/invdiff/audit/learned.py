"""Simulation-based calibration on a learned prior: truths that the prior `fashion28` drew itself.

Truths are 250 ancestral steps of the prior, so that it is right about them. Whether a sampler's
draws scatter about them as it says is then a property of the sampler, and not of the prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from invdiff.audit.coverage import blurred_share
from invdiff.audit.ranks import ranks, tarp_distances
from invdiff.core.rng import Rng
from invdiff.core.schedules import Karras
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Identity, Linear
from invdiff.operators.downsample import AveragePool
from invdiff.operators.inpaint import Inpaint
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.problem import Problem
from invdiff.sampling.needs import missing
from invdiff.sampling.run import row_seed, solve
from invdiff.sampling.solver import Solver
from invdiff.solvers import registry
from invdiff.solvers.unconditional import Unconditional
from invdiff.tasks import TASKS
from invdiff.tasks.auto import configured

PRIOR, SHAPE, SAMPLES = "fashion28", (1, 28, 28), 15
SIGMA, SPREAD = 0.05, 0.02
"""Noise on [-1, 1]; and the noise on truths and samples whose intervals are counted."""
CASES = {"half": "inpaint", "x4": "super-resolution"}
"""Measurement to the task whose presets are taken."""
FEW, MOST = ("ddrm", "spectral-ancestral"), 100
"""Solvers of `--quick`; in full, steps of a preset beyond which a solver has to be named."""


def operator(case: str) -> Linear:
    """The left half of the image, or block means of 4 x 4."""
    if case == "x4":
        return AveragePool(4, SHAPE[1:])
    left = torch.zeros(1, 1, *SHAPE[1:])
    left[..., :14] = 1
    return Inpaint(left)


@lru_cache(maxsize=2)
def truths(count: int, steps: int = 250) -> Tensor:
    """Draws of the prior, (count, 1, 28, 28)."""
    blank = Problem(torch.zeros(1, *SHAPE), Identity(), GaussianNoise(1.0), SHAPE)
    solver = Unconditional(schedule=Karras(steps, 80.0, 0.01))
    return solve(blank, load_prior(PRIOR), solver, count, seed=77, batch=96).samples[0]


def problem(case: str, truth: Tensor) -> Problem:
    """The measurements of all truths, each with noise of its own."""
    A, rng = operator(case), Rng.of([row_seed(5, i, 0) for i in range(len(truth))])
    return Problem(GaussianNoise(SIGMA).sample(A(truth), rng), A, GaussianNoise(SIGMA), SHAPE)


def rows(names: Sequence[str], quick: bool) -> dict[str, Solver]:
    """Solvers with the presets of a task, as `restore` takes them: short ones, or those named."""
    toy, found = problem("half", torch.zeros(1, *SHAPE)), {}
    for name in registry():
        solver = configured(TASKS["inpaint"], name, toy)
        short = name in FEW if quick else solver.num_steps <= MOST
        if not solver.estimates and (name in names if names else short):
            found[name] = solver
    return found


def detail(x: Tensor) -> Tensor:
    """Energy of differences of neighbours, over the last two axes and the channel."""
    across, down = x.diff(dim=-1).square(), x.diff(dim=-2).square()
    return across.mean((-1, -2, -3)) + down.mean((-1, -2, -3))


def unseen_pixels(p: Problem) -> Tensor:
    """Those of which y says nothing by itself, bool, (1, 1, H, W)."""
    ones = torch.ones(1, *p.x_shape, dtype=p.y.dtype)
    return p.linear.pinv(p.A(ones)) < 0.5


def uncertain(p: Problem) -> Tensor:
    """The pixels whose intervals are counted, bool (H, W): what is not seen, or all where y tells
    no pixel by itself."""
    unseen = unseen_pixels(p)[0, 0]
    return unseen if bool(unseen.any()) else torch.ones_like(unseen)


def reference(p: Problem) -> Tensor:
    """Points of TARP that follow y: the measurement, where nothing is known the mean of y."""
    back = p.linear.pinv(p.y)
    unseen = unseen_pixels(p).to(back.dtype)
    level = (back.flatten(1).sum(1) / (1 - unseen).flatten(1).sum(1))[:, None, None, None]
    return back + level * unseen


def measured(solver: Solver, case: str, count: int) -> dict[str, Any] | None:
    """Ranks of `count` truths among SAMPLES samples, coverage of pixels, residual, and cost."""
    prior: Prior = load_prior(PRIOR)
    truth = truths(count, 250 if count >= 96 else 60)
    p = problem(case, truth)
    preset = configured(TASKS[CASES[case]], solver.name, p)
    if missing(preset, p, prior):
        return None
    result = solve(p, prior, preset, SAMPLES, seed=1, batch=240)
    x = result.resampled()
    r = p.y[:, None] - p.A(x.flatten(0, 1)).reshape(count, SAMPLES, *p.y.shape[1:])
    kept = p.A.restrict(torch.ones_like(p.y)).bool()
    misfit = (r.square() * kept[:, None]).flatten(2).sum(2) / SIGMA**2
    own = (p.A.restrict(p.y - p.A(truth)).square().flatten(1).sum(1)) / SIGMA**2
    pair = tarp_distances(truth.flatten(1), x.flatten(2), reference(p).flatten(1))
    pairs = {
        "mean": (truth.mean((-1, -2, -3)), x.mean((-1, -2, -3))),
        "detail": (detail(truth), detail(x)),
        "residual": (own, misfit),
        "tarp": pair,
    }
    found: dict[str, Any] = {
        f"rank_{name}": ranks(t, s, 3).tolist() for name, (t, s) in pairs.items()
    }
    counts = uncertain(p)
    share = blurred_share(truth[..., counts], x[..., counts], SPREAD)
    found["covered"] = [round(v, 4) for v in share.tolist()]
    found["residual"] = [round(v, 4) for v in (misfit.mean(1) / kept.flatten(1).sum(1)).tolist()]
    return found | {"nfe": result.nfe, "vjps": result.vjps, "seconds": round(result.seconds, 1)}
