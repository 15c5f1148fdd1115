"""Weighted samples: exact in the mean, nearer to a posterior of several modes, and kept with a run.

Oracle: a chain of unguided ancestral steps has a law of its own, which on a scalar normal prior is
normal with a variance that a recursion of one line gives. Weighted rows are draws of the posterior
of that law, and the mean of their weights is p(y) under it, whatever the guidance.
"""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from scalar import PRIOR, measured

from helpers import Given, Levels, seeded
from invdiff.audit.gmm25 import gmm25_problem
from invdiff.core import InvdiffError, Level
from invdiff.core.encode import decode, encode
from invdiff.core.schedules import VE, VP, Karras, Schedule
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.operators import Identity, Inpaint
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem
from invdiff.sampling import importance
from invdiff.sampling.needs import IncompatibleError, missing
from invdiff.sampling.result import Result
from invdiff.sampling.run import Snapshot, solve
from invdiff.sampling.state import State
from invdiff.solvers import Solver
from invdiff.solvers.ccdf import CCDF
from invdiff.solvers.mmps import MMPS
from invdiff.solvers.pigdm import PiGDM

F64 = torch.float64
ERRORS = 5  # standard errors
ROWS = 4000
SIGMA_Y = 0.3
PRESERVING = tuple(
    Level(1 / math.hypot(1, u.sigma), u.sigma / math.hypot(1, u.sigma))
    for u in VE(12, 20.0, 0.05).levels()
)
SCHEDULES = {
    "ve": VE(12, 20.0, 0.05),
    "vp": Levels(12, given=PRESERVING),
    "karras": Karras(12, 50.0, 0.02),
}
"""Levels that fall by a steady share: a step's noise is then wider than what guidance moves. The
last steps of a short VP table are not such, and weights degenerate there."""
WEIGHED = {
    "mmps": lambda schedule: MMPS(1, weights=True, schedule=schedule),
    "mmps-eta": lambda schedule: MMPS(1, eta_ddim=0.8, weights=True, schedule=schedule),
    "pigdm": lambda schedule: PiGDM(weights=True, schedule=schedule),
    "pigdm-half": lambda schedule: PiGDM(0.5, weights=True, schedule=schedule),
    "pigdm-blind": lambda schedule: PiGDM(0.0, weights=True, schedule=schedule),
}
solvers = pytest.mark.parametrize("make", WEIGHED.values(), ids=WEIGHED)


def chain_variance(schedule: Schedule, eta: float) -> float:
    """Of x0 at the end of unguided steps by D = a x / (a^2 + s^2), the last a draw of N(D, v^2)."""
    levels = schedule.levels()
    V = levels[0].s ** 2
    for t, u in zip(levels[:-2], levels[1:-1], strict=True):
        d = t.a / (t.a**2 + t.s**2)
        fresh2 = eta**2 * u.s**2 * (1 - (u.sigma / t.sigma) ** 2)
        V = (u.a * d + math.sqrt(u.s**2 - fresh2) * (1 - t.a * d) / t.s) ** 2 * V + fresh2
    last = levels[-2]
    return (last.a / (last.a**2 + last.s**2)) ** 2 * V + last.sigma**2


def weighed(solver: Solver, y: float, gain: float = 1.0, rows: int = ROWS) -> Result:
    problem = measured(gain, torch.tensor([y], dtype=F64), SIGMA_Y)
    return solve(problem, PRIOR, solver, samples=rows)


def in_errors(values: torch.Tensor, expected: float) -> float:
    """|mean - expected| in standard errors of the mean."""
    return float((values.mean() - expected).abs() / (values.std() / math.sqrt(len(values))))


# ---- exact on a normal law


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@solvers
def test_the_mean_weight_is_the_evidence_of_the_chains_law(make, schedule):
    """E[w] = N(y; 0, V + sigma_y^2), a z-test, which an evidence off by a quarter fails."""
    solver = make(schedule)
    V = chain_variance(schedule, solver.eta_ddim) + SIGMA_Y**2
    result = weighed(solver, y=1.3)
    evidence = math.exp(-0.5 * 1.3**2 / V) / math.sqrt(2 * math.pi * V)
    w = result.log_weight[0].exp()
    assert in_errors(w, evidence) < ERRORS
    assert float(result.log_evidence[0]) == pytest.approx(math.log(float(w.mean())), abs=1e-12)
    assert in_errors(w, 1.25 * evidence) > ERRORS


@solvers
def test_weighted_moments_are_the_posteriors(make):
    """Of the chain's law after y: self-normalised estimates, their errors by the weights."""
    schedule, y = SCHEDULES["ve"], 1.3
    V, result = chain_variance(schedule, make(schedule).eta_ddim), weighed(make(schedule), y)
    mean, variance = V / (V + SIGMA_Y**2) * y, V * SIGMA_Y**2 / (V + SIGMA_Y**2)
    x, W = result.samples.flatten(), torch.softmax(result.log_weight[0], 0)
    for value, expected in ((x, mean), ((x - mean).square(), variance)):
        error = float((W * (value - expected)).square().sum().sqrt())
        assert abs(float(W @ value) - expected) < ERRORS * error
    assert float(result.mean.flatten()) == pytest.approx(float(W @ x), abs=1e-12)
    assert float(result.std.flatten()) == pytest.approx(variance**0.5, rel=0.2)
    assert float(result.ess[0]) == pytest.approx(1 / float(W.square().sum()))
    assert 1 < float(result.ess[0]) < ROWS


def test_a_blind_proposal_needs_its_weights():
    """Negative twin: the rows of the unguided chain alone are the prior."""
    result = weighed(PiGDM(0.0, weights=True, schedule=SCHEDULES["ve"]), y=1.3)
    assert abs(float(result.samples.mean())) < 0.1 < 1.0 < float(result.mean)
    assert result.ess[0] < ROWS / 2


def test_on_a_fine_path_it_is_the_evidence_of_the_prior_itself():
    """N(y; 0, g^2 + sigma_y^2), within Monte Carlo error and that of the chain's variance."""
    schedule, gain, y = Karras(100, 80.0, 0.02), 0.7, -0.8
    off = abs(chain_variance(schedule, 1.0) - 1)
    assert off < 0.1
    V = gain**2 + SIGMA_Y**2
    result = weighed(MMPS(1, weights=True, schedule=schedule), y, gain, rows=1500)
    w = result.log_weight[0].exp()
    error = float(w.std() / w.mean()) / math.sqrt(len(w))
    exact = -0.5 * y**2 / V - 0.5 * math.log(2 * math.pi * V)
    bias = 0.5 * gain**2 * off / V * max(1.0, y**2 / V)
    assert abs(float(result.log_evidence[0]) - exact) < ERRORS * error + 1.5 * bias < 0.3


def test_only_what_was_measured_is_evidence():
    """Pixels behind a mask change neither weights nor evidence: three pixels, one of them seen."""
    prior = GaussianPrior(torch.zeros(1, 1, 3, dtype=F64), 1.0)
    A = Inpaint(torch.tensor([0.0, 1.0, 0.0]).reshape(1, 1, 1, 3))
    y = torch.tensor([math.nan, 1.3, math.nan], dtype=F64).reshape(1, 1, 1, 3)
    solver, schedule = MMPS(1, weights=True, schedule=SCHEDULES["ve"]), SCHEDULES["ve"]
    result = solve(Problem(y, A, GaussianNoise(SIGMA_Y), (1, 1, 3)), prior, solver, samples=ROWS)
    V = chain_variance(schedule, 1.0) + SIGMA_Y**2
    evidence = math.exp(-0.5 * 1.3**2 / V) / math.sqrt(2 * math.pi * V)
    assert in_errors(result.log_weight[0].exp(), evidence) < ERRORS


# ---- several modes


def test_on_a_mixture_weights_bring_the_samples_nearer():
    """Sliced W2 over 6 problems of GMM-25, paired: nearer by 3 standard errors over problems.

    Twin: with the weights of other rows, which are the same numbers, the samples are no nearer.
    """
    schedule, gaps, shuffled = Karras(60, 1000.0, 0.02), [], []
    for number in range(6):
        cell = gmm25_problem(80, 2, number)
        exact = cell.posterior().sample(150, 10_000)
        plain = solve(cell.problem, cell.prior, MMPS(2, schedule=schedule), samples=150)
        solver = MMPS(2, weights=True, schedule=schedule)
        result = solve(cell.problem, cell.prior, solver, samples=150)
        other = dataclasses.replace(result, log_weight=result.log_weight.flip(1))
        far, near, wrong = (
            cell.distance(x[0], exact, 256, order=2)
            for x in (plain.samples, result.resampled(), other.resampled())
        )
        gaps.append(far - near)
        shuffled.append(wrong - near)
    for gap in (gaps, shuffled):
        found = torch.tensor(gap)
        assert found.mean() > 3 * found.std() / len(gap) ** 0.5


# ---- resampling


def test_systematic_resampling_takes_each_row_its_share():
    """Between floor(n W) and ceil(n W) times, and n W in the mean over u."""
    log_w = seeded(1, 40, seed=3) * 1.5
    W = torch.softmax(log_w[0], 0)
    counts = torch.stack(
        [
            torch.bincount(importance.systematic(log_w, torch.tensor([u]))[0], minlength=40)
            for u in (torch.arange(500) + 0.5) / 500
        ]
    ).double()
    assert (counts >= (40 * W).floor() - 1e-9).all() and (counts <= (40 * W).ceil() + 1e-9).all()
    torch.testing.assert_close(counts.mean(0), 40 * W, rtol=0, atol=2 / 500)
    same = importance.systematic(torch.zeros(2, 7), torch.tensor([0.01, 0.99]))
    assert torch.equal(same, torch.arange(7).expand(2, 7))


def test_resampled_rows_are_rows_in_random_order():
    result = weighed(MMPS(1, weights=True, schedule=VP(5)), 0.4, rows=200)
    again, other = result.resampled(), result.resampled(seed=1)
    assert torch.equal(again, result.resampled()) and not torch.equal(again, other)
    assert set(again.flatten().tolist()) <= set(result.samples.flatten().tolist())
    index = [result.samples.flatten().tolist().index(v) for v in again.flatten().tolist()]
    assert index != sorted(index)
    # a weighted mean of 200 rows, each taken n W times up to one
    assert float((again.mean() - result.mean).abs()) < float(result.samples.abs().sum()) / 200
    plain = dataclasses.replace(result, log_weight=None)
    assert torch.equal(plain.resampled(), plain.samples)
    assert plain.ess is None and plain.log_evidence is None


# ---- with a run


def small(noise=GaussianNoise(0.3)) -> Problem:  # noqa: B008
    return Problem(seeded(2, 1, 2, 3), Identity(), noise, (1, 2, 3))


def test_weights_are_saved_resumed_and_the_same_in_any_chunks(tmp_path):
    solver = MMPS(1, weights=True, schedule=VP(4))
    seen: list[Snapshot] = []
    whole = solve(small(), PRIOR, solver, samples=3, batch=2, watch=seen.append)
    assert whole.log_weight.shape == (2, 3)
    apart = solve(small(), PRIOR, solver, samples=3, batch=1)
    assert torch.equal(whole.log_weight, apart.log_weight)
    for snapshot in (seen[3], seen[7], seen[-1]):
        tensors: dict[str, torch.Tensor] = {}
        start = decode(json.loads(json.dumps(encode(snapshot, tensors))), tensors)
        resumed = solve(small(), PRIOR, solver, samples=3, batch=2, start=start)
        assert torch.equal(whole.log_weight, resumed.log_weight)
    loaded = Result.load(whole.save(tmp_path / "run"))
    assert torch.equal(loaded.log_weight, whole.log_weight)
    assert loaded.solver() == solver and "log_weight" not in loaded.tensors
    plain = solve(small(), PRIOR, MMPS(1, schedule=VP(4)), samples=3)
    assert Result.load(plain.save(tmp_path / "plain")).log_weight is None


def test_the_sampler_itself_does_not_change():
    """But for the last step, which draws."""
    plain, own = (MMPS(1, weights=w, schedule=VP(4)) for w in (False, True))
    rng = Given((0, 1), table=lambda step, role: torch.tensor([0.3, -0.8]))
    state = State(1, seeded(2, 1, 2, 3), seeded(2, 1, 2, 3), {importance.KEY: torch.zeros(2)})
    a, b = (s.step(state, small(), PRIOR, rng) for s in (plain, own))
    assert torch.equal(a.x, b.x) and torch.equal(a.x0, b.x0) and not a.extra
    assert (b.extra[importance.KEY] != 0).all()


def test_older_records_of_pigdm_mean_the_printed_algorithm():
    form = encode(PiGDM(0.4, schedule=VP(7)), {})
    for name in ("guidance", "data_std", "reach", "weights"):
        del form["fields"][name]
    assert decode(form, {}) == PiGDM(0.4, guidance="paper", schedule=VP(7))
    assert decode(encode(PiGDM(), {}), {}) == PiGDM() != PiGDM(guidance="paper")


# ---- what cannot be


def test_weights_need_noise_in_y_and_in_every_step():
    for solver in (MMPS(weights=True, schedule=VP(4)), PiGDM(weights=True, schedule=VP(4))):
        with pytest.raises(IncompatibleError, match="a noise level above 0"):
            solve(small(NOISELESS), PRIOR, solver)
        still = dataclasses.replace(solver, eta_ddim=0.0)
        with pytest.raises(InvdiffError, match="eta_ddim above 0"):
            solve(small(), PRIOR, still)
    assert not missing(MMPS(), small(NOISELESS)) and not missing(PiGDM(), small(NOISELESS))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MMPS(draw=True, weights=True), "leave draw or weights"),
        (lambda: PiGDM(guidance="paper", weights=True), "leave paper out"),
        (lambda: CCDF(MMPS(weights=True)), "give mmps without weights"),
    ],
)
def test_what_has_no_weights_says_so(make, words):
    with pytest.raises(InvdiffError, match=words):
        make()
    assert CCDF(MMPS()).base == MMPS()
