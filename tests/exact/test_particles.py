"""Particles: clouds, systematic resampling, evidence without bias, and what grows with them.

Oracle: as in `test_weights.py`, a chain of unguided steps on a scalar normal prior has a normal law
of known variance; the mean weight of a cloud, with its evidence, is p(y) under it, whatever
guidance, resampling and the size of the cloud. DDSMC's chain with eta 1 is the same one.
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from dense import MATRICES, VP_SCHEDULE, assert_agrees
from scalar import PRIOR, measured
from test_weights import ERRORS, SCHEDULES, SIGMA_Y, chain_variance, in_errors

from helpers import Dense, seeded
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, Karras
from invdiff.noise import GaussianNoise
from invdiff.operators import Identity, Inpaint
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.particles import clouds, members, resampled, same_measurement
from invdiff.sampling.result import Result
from invdiff.sampling.run import solve
from invdiff.solvers import Solver
from invdiff.solvers.ddsmc import DDSMC
from invdiff.solvers.mcgdiff import MCGDiff
from invdiff.solvers.tds import TDS

F64 = torch.float64
N = 8
MADE = {
    "tds": lambda **k: TDS(N, **k),
    "tds-every": lambda **k: TDS(N, threshold=1.0, **k),
    "tds-moments": lambda **k: TDS(N, twist="moments", **k),
    "tds-frozen": lambda **k: TDS(N, twist="frozen", data_std=0.5, **k),
    "ddsmc": lambda **k: DDSMC(N, **k),
    "mcgdiff": lambda **k: MCGDiff(N, **k),
    "mcgdiff-eta": lambda **k: MCGDiff(N, kappa=0.05, eta_ddim=0.8, **k),
}
solvers = pytest.mark.parametrize("make", MADE.values(), ids=MADE)


# ---- clouds


def test_rows_of_a_measurement_fill_the_fewest_clouds():
    assert clouds([0] * 7, 3).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert clouds([0] * 3, 16).tolist() == [0, 0, 0]
    assert clouds([0, 1, 0, 1, 0], 2).tolist() == [0, 2, 0, 2, 1]
    sizes = [m.tolist() for m in members(clouds([0, 1, 0, 1, 0], 2).double())]
    assert sizes == [[[4]], [[0, 2], [1, 3]]]


def test_measurements_are_told_apart_by_y_and_by_A():
    A = Inpaint(torch.tensor([[1.0, 0, 1], [1, 0, 1], [0, 1, 1]]).reshape(3, 1, 1, 3))
    y = torch.ones(3, 1, 1, 3, dtype=F64)
    z = seeded(1, 1, 1, 3)
    assert same_measurement(Problem(y, A, GaussianNoise(1.0), (1, 1, 3)), z) == [0, 0, 2]
    y[1, 0, 0, 0] = 2.0
    assert same_measurement(Problem(y, A, GaussianNoise(1.0), (1, 1, 3)), z) == [0, 1, 2]


def test_a_cloud_is_resampled_alone_and_its_evidence_kept():
    """Shares 1/2, 1/2, 0, 0 of the first cloud; the second is even, and stays."""
    log_w = torch.tensor([0.0, 0.0, -800.0, -800.0, 3.0, 3.0, 3.0, 3.0], dtype=F64)
    zero = torch.zeros(8, dtype=F64)
    extra = {"cloud": torch.tensor([0.0] * 4 + [1.0] * 4), "log_w": zero, "evidence": zero + 0.5}
    index, new = resampled(extra, log_w, 0.9, Rng.of(tuple(range(8))))
    assert index.tolist() == [0, 0, 1, 1, 4, 5, 6, 7]
    assert new["log_w"].tolist() == [0.0] * 4 + [3.0] * 4
    torch.testing.assert_close(new["evidence"][:4], zero[:4] + 0.5 + math.log(0.5))
    assert (new["evidence"][4:] == 0.5).all() and (extra["evidence"] == 0.5).all()
    index, new = resampled(extra, log_w, 0.4, Rng.of(tuple(range(8))))
    assert index.tolist() == list(range(8)) and torch.equal(new["log_w"], log_w)


# ---- evidence


def weighed(solver: Solver, y: float, rows: int) -> Result:
    problem = measured(1.0, torch.tensor([y], dtype=F64), SIGMA_Y)
    return solve(problem, PRIOR, solver, samples=rows)


def laws(solver: Solver, y: float) -> tuple[float, float, float]:
    """p(y), and mean and standard deviation of x0 given y, under the solver's own chain.

    MCGdiff takes y for a measurement of the chain at the level tau below y's noise, of which the
    chain then makes x0: their variances and their covariance are those of the chain.
    """
    if isinstance(solver, MCGDiff):
        levels = solver.levels
        most = (1 - solver.kappa) * SIGMA_Y**2
        tau = next(i for i, u in enumerate(levels) if u.sigma**2 <= most)
        V, gain, at = levels[0].sigma ** 2, 1.0, 0.0
        for i, (t, u) in enumerate(pairwise(levels)):
            fresh2 = solver.eta_ddim**2 * u.sigma**2 * (1 - (u.sigma / t.sigma) ** 2)
            d = 1 / (1 + t.sigma**2)
            g = d + math.sqrt(u.sigma**2 - fresh2) * (1 - d) / t.sigma if u.s else d
            V = g**2 * V + (fresh2 if u.s else t.sigma**2)
            gain = gain * g if i >= tau else 1.0
            at = V if i + 1 == tau else at
        total = at + SIGMA_Y**2 - levels[tau].sigma ** 2
        mean, variance = gain * at / total * y, V - (gain * at) ** 2 / total
    else:
        V = chain_variance(solver.schedule, 1.0)
        total = V + SIGMA_Y**2
        mean, variance = V / total * y, V * SIGMA_Y**2 / total
    evidence = math.exp(-0.5 * y**2 / total) / math.sqrt(2 * math.pi * total)
    return evidence, mean, math.sqrt(variance)


@solvers
def test_the_mean_weight_of_a_cloud_is_the_evidence(make):
    """E = N(y; 0, V + sigma_y^2): a z-test over 400 clouds, which twice the evidence fails."""
    solver, y = make(weights=True, schedule=SCHEDULES["ve"]), 1.3
    evidence, _, _ = laws(solver, y)
    result = weighed(solver, y, 400 * N)
    means = result.log_weight[0].exp().reshape(400, N).mean(1)
    assert in_errors(means, evidence) < ERRORS < in_errors(means, 2 * evidence)


@solvers
def test_weighted_and_equal_samples_have_the_posteriors_moments(make):
    """Of the chain's law after y, by 2000 rows: weighted in clouds of 8, or one large cloud."""
    y, rows = 1.3, 2000
    for solver in (make(weights=True, schedule=SCHEDULES["ve"]), make(schedule=SCHEDULES["ve"])):
        _, mean, std = laws(solver, y)
        if not solver.weights:
            object.__setattr__(solver, "particles", rows)
        result = weighed(solver, y, rows)
        ess = float(result.ess[0]) if solver.weights else rows / 4  # copies count once
        assert abs(float(result.mean.flatten()) - mean) < ERRORS * std / math.sqrt(ess)
        assert float(result.std.flatten()) == pytest.approx(std, rel=ERRORS / math.sqrt(2 * ess))


@pytest.mark.parametrize(("kernel", "right"), [("analytic", True), ("ancestral", False)])
def test_the_analytic_kernel_keeps_the_priors_width_in_few_steps(kernel, right):
    """x0 ~ N(0, 1) after y, exactly, by 4 steps; DDPM's kernel keeps a hundredth of the width."""
    y, rows = 1.3, 4000
    solver = TDS(rows, twist="moments", kernel=kernel, schedule=VE(4, 300.0, 0.001))
    result = weighed(solver, y, rows)
    mean, std = y / (1 + SIGMA_Y**2), SIGMA_Y / math.sqrt(1 + SIGMA_Y**2)
    few = rows / 4  # copies count once
    assert (abs(float(result.mean.flatten()) - mean) < ERRORS * std / math.sqrt(few)) or not right
    width = float(result.std.flatten()) / std
    assert abs(width - 1) < ERRORS / math.sqrt(2 * few) if right else width < 0.01


def test_weights_of_float32_are_kept_in_float64():
    problem = measured(1.0, torch.tensor([1.3]), SIGMA_Y)
    result = solve(problem, PRIOR, TDS(N, weights=True, schedule=SCHEDULES["ve"]), samples=N)
    assert result.samples.dtype == torch.float32 and result.log_weight.dtype == F64
    assert result.mean.dtype == torch.float32


# ---- several modes


MODES, Y = torch.tensor([-6.0, -2.0, 2.0, 6.0], dtype=F64), 0.9
NARROW, NOISE = 0.05, 3.0


def four_modes(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """E[x0 | x]: one number, N(m, 0.05) at four places with equal chances."""
    total = NARROW + sigma**2
    W = torch.softmax(-0.5 * (x[..., None] - MODES.to(x)) ** 2 / total, -1)
    return (W * (NARROW * x[..., None] + sigma**2 * MODES.to(x)) / total).sum(-1)


def error_of_shares(solver: Solver, repeats: int) -> float:
    """Root mean square, over clouds and modes, of the error of the modes' shares."""
    shape = (1, 1, 1)
    problem = Problem(
        torch.full((1, *shape), Y, dtype=F64), Identity(), GaussianNoise(NOISE), shape
    )
    exact = torch.softmax(-0.5 * (Y - MODES) ** 2 / (NARROW + NOISE**2), 0)
    n = solver.particles
    x = solve(problem, Denoiser(four_modes), solver, samples=n * repeats).samples.flatten()
    nearest = (x[:, None] - MODES).abs().argmin(1).reshape(repeats, n)
    shares = torch.nn.functional.one_hot(nearest, 4).double().mean(1)
    return float((shares - exact).square().mean().sqrt())


SCHEDULE = Karras(20, 60.0, 0.1)
GROWING = {
    "tds": lambda n: TDS(n, schedule=SCHEDULE),
    "tds-moments": lambda n: TDS(n, twist="moments", schedule=SCHEDULE),
    "ddsmc": lambda n: DDSMC(n, schedule=SCHEDULE),
    "mcgdiff": lambda n: MCGDiff(n, schedule=SCHEDULE),
}


@pytest.mark.parametrize("make", GROWING.values(), ids=GROWING)
def test_shares_of_modes_approach_the_posteriors_as_particles_grow(make):
    """16 times the particles leave about a quarter of the error: less than 0.4 of it.

    Of 48 clouds of 16, and 12 of 256: three shares each, so errors are known to 6 and 12 %.
    """
    few, many = error_of_shares(make(16), 48), error_of_shares(make(256), 12)
    assert many < 0.4 * few and many < 0.05


def test_without_weights_they_do_not():
    """Negative twins: clouds of one row, which are guided chains; and DDSMC of another chain, that
    of eta 0, which more particles do not bring nearer."""
    assert error_of_shares(DDSMC(256, eta=0.0, schedule=SCHEDULE), 4) > 0.05
    problem = Problem(
        torch.full((1, 1, 1, 1), Y, dtype=F64), Identity(), GaussianNoise(NOISE), (1, 1, 1)
    )
    x = solve(
        problem, Denoiser(four_modes), TDS(1, schedule=SCHEDULE), samples=2048
    ).samples.flatten()
    shares = torch.bincount((x[:, None] - MODES).abs().argmin(1), minlength=4) / 2048
    exact = torch.softmax(-0.5 * (Y - MODES) ** 2 / (NARROW + NOISE**2), 0)
    assert float((shares - exact).abs().max()) > 0.05


# ---- rows


@pytest.mark.parametrize("name", ["ddsmc", "mcgdiff"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_a_row_alone_is_a_cloud_of_one(name, matrix):
    assert_agrees(name, {}, matrix, 0.2, VP_SCHEDULE)


@pytest.mark.parametrize("cls", [DDSMC, MCGDiff])
def test_two_take_no_gradient(cls):
    problem = Problem(seeded(1, 1, 4, 4), Identity(), GaussianNoise(0.1), (1, 4, 4))
    prior = Denoiser(lambda x, sigma: x / (1 + sigma**2))
    result = solve(problem, prior, cls(schedule=VE(5, 10.0, 0.1)), samples=3)
    assert (result.nfe, result.vjps) == (5, 0)


@solvers
def test_a_measurement_is_the_same_alone_and_beside_another(make):
    """Clouds know nothing of each other, though the solver is coupled."""
    A = Dense(seeded(3, 6, seed=2), (1, 2, 3))
    solver = make(schedule=VE(6, 10.0, 0.1))
    prior = Denoiser(lambda x, sigma: torch.tanh(x) / (1 + sigma**2))
    both = Problem(seeded(2, 3), A, GaussianNoise(0.2), (1, 2, 3))
    one = solve(both.rows(torch.tensor([0])), prior, solver, samples=5).samples
    torch.testing.assert_close(
        solve(both, prior, solver, samples=5).samples[:1], one, rtol=0, atol=1e-10
    )
