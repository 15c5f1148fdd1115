"""A posterior of up to 25 far-apart modes, known exactly: the reduced GMM-25 protocol.

Oracle: the exact posterior of a mixture of normal laws (Cardoso et al. 2024, arXiv 2308.07983),
and samples of it made in two ways that share no algebra. Distances are sliced Wasserstein-1.
Every tolerance is Monte Carlo error, estimated from independent clouds; every test is repeated on
a sampler that is wrong, which must fail it.

Order of the published samplers, seen again here: Rozet et al. 2024 (arXiv 2405.13712) use the
denoiser's own Jacobian as covariance and come closest; PiGDM's likelihood, taken as a score, comes
as close. All of them are biased at any number of steps, because a
mixture is not normal given x_t.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import Bulk, repeated, states
from invdiff.audit.gmm25 import GMM25, gmm25_problem
from invdiff.core.schedules import VP
from invdiff.solvers import Solver, solver_class

CELLS = [(8, 4), (80, 2)]  # dimension, number of measurements
PROBLEMS = 4
CLOUDS, SIZE = 4, 50  # of each solver, for each problem
SLICES = 256
ERRORS = 4  # standard errors; one side of a normal law: 3 in 100 000

Draw = Callable[[GMM25, int, int], Tensor]


def stock(d: int, dy: int) -> dict[str, Solver]:
    """The published settings, all at 100 steps. MMPS: as many iterations as measurements."""
    return {
        "mmps": solver_class("mmps")(iterations=dy, schedule=VP(100)),
        "ddrm": solver_class("ddrm")(schedule=VP(100)),
        "pigdm": solver_class("pigdm")(guidance="paper", schedule=VP(100)),
        "pigdm-score": solver_class("pigdm")(schedule=VP(100)),
        "dps": solver_class("dps")(schedule=VP(100)),
        "diffpir": solver_class("diffpir")(schedule=VP(100, spacing="quad")),
        "unconditional": solver_class("unconditional")(schedule=VP(100)),
    }


def library(cell: GMM25, n: int, seed: int) -> Tensor:
    """n exact samples from means and covariances that the library derives."""
    return cell.posterior().sample(n, 10_000 + seed)


def conditioned(cell: GMM25, n: int, seed: int, sees_y: bool = True) -> Tensor:
    """n exact samples by conditioning draws, in numpy: no posterior covariance is ever formed.

    k ~ w_k N(y; A m_k, A A^T + sigma^2), x ~ N(m_k, 1), then Matheron's rule,
    x + A^T (A A^T + sigma^2)^-1 (y - A x - sigma n).
    sees_y False is wrong on purpose: k ~ w_k, so that only the place within a mode depends on y.
    """
    rng = np.random.default_rng(seed)
    size = cell.problem.x_shape[-1]
    eye = torch.eye(size, dtype=torch.float64).reshape(size, *cell.problem.x_shape)
    A, y = cell.problem.A(eye).numpy().T, cell.problem.y[0].numpy()
    means, sigma = cell.prior.means.flatten(1).numpy(), cell.problem.sigma_y
    S = A @ A.T + sigma**2 * np.eye(len(A))
    rest = y - means @ A.T
    log_w = np.log(cell.prior.weights.numpy())
    if sees_y:
        log_w = log_w - 0.5 * np.einsum("ki,ki->k", rest, np.linalg.solve(S, rest.T).T)
    w = np.exp(log_w - log_w.max())
    k = rng.choice(len(w), size=n, p=w / w.sum())
    x = means[k] + rng.standard_normal((n, size))
    miss = y - x @ A.T - sigma * rng.standard_normal((n, len(A)))
    x = x + np.linalg.solve(S, miss.T).T @ A
    return torch.tensor(x).reshape(n, *cell.problem.x_shape)


def other_law(cell: GMM25, n: int, seed: int) -> Tensor:
    """n samples of the prior: no sampler of the posterior at all."""
    return cell.prior.sample(n, seed)


def blind_between_modes(cell: GMM25, n: int, seed: int) -> Tensor:
    return conditioned(cell, n, seed, sees_y=False)


def mean_and_error(values: list[float]) -> tuple[float, float]:
    spread = np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values)), float(spread)


# ---- exact samples are exact


def at_the_floor(cell: GMM25, draw: Draw) -> bool:
    """Whether clouds of `draw` are as near to exact clouds as exact clouds are to each other.

    A z-test of two means of independent distances, 8 each, of clouds of 400.
    """
    n, repeats = 400, 8
    exact = [library(cell, n, seed) for seed in range(3 * repeats)]
    own = [draw(cell, n, seed) for seed in range(repeats)]
    ours, a = mean_and_error(
        [cell.distance(x, e, SLICES, i) for i, (x, e) in enumerate(zip(own, exact, strict=False))]
    )
    pairs = zip(exact[repeats : 2 * repeats], exact[2 * repeats :], strict=True)
    floor, b = mean_and_error([cell.distance(x, e, SLICES, i) for i, (x, e) in enumerate(pairs)])
    return ours - floor < ERRORS * math.hypot(a, b)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_two_exact_samplers_agree_and_wrong_ones_are_found_out(cell):
    """Wrong: the prior itself; y seen within modes but not between them."""
    for seed in range(2):
        problem = gmm25_problem(*cell, seed)
        assert at_the_floor(problem, conditioned)
        assert not at_the_floor(problem, other_law)
        assert not at_the_floor(problem, blind_between_modes)


# ---- which sampler comes how close


@pytest.fixture(scope="module")
def distances() -> dict[str, np.ndarray]:
    """Solver -> distances to exact clouds, shape (cells, problems, clouds)."""
    found = {name: np.empty((len(CELLS), PROBLEMS, CLOUDS)) for name in stock(8, 4)}
    for c, (d, dy) in enumerate(CELLS):
        for p in range(PROBLEMS):
            cell = gmm25_problem(d, dy, p)
            reference = library(cell, CLOUDS * SIZE, 0).split(SIZE)
            many = repeated(cell.problem, CLOUDS * SIZE)
            for name, solver in stock(d, dy).items():
                samples = states(solver, many, cell.prior, Bulk((0,)))[-1].x
                for i, (own, exact) in enumerate(zip(samples.split(SIZE), reference, strict=True)):
                    found[name][c, p, i] = cell.distance(own, exact, SLICES, i)
    return found


def beats(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether a's mean distance over these problems is below b's, beyond Monte Carlo error.

    a, b: (..., clouds). The clouds of one problem are independent of each other, and paired by
    their exact cloud.
    """
    gap = b - a
    error = math.sqrt((gap.var(axis=-1, ddof=1) / gap.shape[-1]).sum()) / gap[..., 0].size
    return bool(gap.mean() > ERRORS * error)


@pytest.mark.parametrize("cell", range(len(CELLS)), ids=[str(c) for c in CELLS])
@pytest.mark.parametrize("other", ["ddrm", "pigdm", "diffpir", "unconditional"])
def test_mmps_comes_closer_in_each_cell(distances, other, cell):
    assert beats(distances["mmps"][cell], distances[other][cell])


@pytest.mark.parametrize("cell", range(len(CELLS)), ids=[str(c) for c in CELLS])
def test_the_score_of_pigdm_comes_closer_than_its_printed_algorithm(distances, cell):
    assert beats(distances["pigdm-score"][cell], distances["pigdm"][cell])


def test_mmps_comes_closer_than_dps_over_all(distances):
    """In the cell (80, 2) alone the two are near each other."""
    assert beats(distances["mmps"], distances["dps"])


@pytest.mark.parametrize("other", ["mmps", "ddrm", "pigdm", "pigdm-score", "dps", "diffpir"])
def test_a_sampler_that_ignores_y_beats_nobody(distances, other):
    """Negative twin: the same test function on the unconditional sampler."""
    assert not beats(distances["unconditional"], distances[other])


def test_mmps_stays_within_its_band(distances):
    """At most 2.5, and at most 0.35 of what ignoring y costs, in each cell."""
    for mmps, plain in zip(distances["mmps"], distances["unconditional"], strict=True):
        error = math.sqrt((mmps.var(axis=-1, ddof=1) / CLOUDS).sum()) / PROBLEMS
        assert mmps.mean() + ERRORS * error < min(2.5, 0.35 * plain.mean())


def test_no_sampler_of_these_is_exact(distances):
    """What the word `heuristic` means: all of them stay above the floor of exact clouds."""
    floor = np.empty((len(CELLS), PROBLEMS, CLOUDS))
    for c, (d, dy) in enumerate(CELLS):
        for p in range(PROBLEMS):
            cell = gmm25_problem(d, dy, p)
            pairs = zip(
                library(cell, CLOUDS * SIZE, 1).split(SIZE),
                library(cell, CLOUDS * SIZE, 0).split(SIZE),
                strict=True,
            )
            floor[c, p] = [cell.distance(a, b, SLICES, i) for i, (a, b) in enumerate(pairs)]
    for name, found in distances.items():
        assert beats(floor, found), name
