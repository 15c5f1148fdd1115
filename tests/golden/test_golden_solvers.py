"""Every solver computes what its authors' code computed: the stored numbers of tests/golden."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from golden_cases import INDEX, Feed, GoldenCase
from golden_solvers import SOLVERS, solver_of
from torch import Tensor

from invdiff.core.rng import Rng
from invdiff.core.schedules import VP
from invdiff.operators.algebra.decoded import decoded
from invdiff.sampling.state import State
from invdiff.sampling.stream import finish, stream
from invdiff.solvers import Solver
from invdiff.solvers.resample import ReSample, fit

RUNS = [c["name"] for c in INDEX if c["compare"] == "all"]
STEPWISE = [c["name"] for c in INDEX if c["compare"] == "stepwise"]
PARTS = [c["name"] for c in INDEX if c["compare"] == "parts"]


def gap(found: Tensor, official: Tensor, where: Tensor | None = None) -> float:
    """Largest |difference| / largest |official|; `where`: the pixels that count."""
    keep = torch.ones_like(official) if where is None else where.expand_as(official)
    return float(((found - official).abs() * keep).max() / (official.abs() * keep).max())


def offset(case: GoldenCase, solver: Solver) -> int:
    """The step of the solver's run with which the stored one begins: 0, but for CSGM."""
    if case.told["family"] != "csgm":
        return 0
    first = case.levels[0].sigma
    return next(i for i, v in enumerate(solver.levels) if math.isclose(v.sigma, first))


def run(
    case: GoldenCase, solver: Solver, count: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[State], set[tuple[int, str]]]:
    """The first `count` states of the run that was stored, and the stored draws that it took."""
    begin, start = offset(case, solver), case.first
    feed = Feed(case, set(), begin)
    monkeypatch.setattr(Rng, "normal", lambda rng, like, role: feed(rng, like, role))
    if start is not None and solver.init is not Solver.init:  # what init keeps for later steps
        init = next(stream(case.problem, case.prior, solver, range(len(case.states[0]))))
        start = dataclasses.replace(start, extra=init.extra)
    start = start and dataclasses.replace(start, step=begin)
    states = stream(case.problem, case.prior, solver, range(len(case.states[0])), start)
    return list(itertools.islice(states, count)), feed.asked


def test_every_case_is_compared():
    assert sorted(RUNS + STEPWISE + PARTS) == sorted(c["name"] for c in INDEX)
    assert {GoldenCase(name).told["family"] for name in RUNS + STEPWISE} == set(SOLVERS)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_the_official_one(name, monkeypatch):
    case = GoldenCase(name)
    solver, told = solver_of(case), case.told
    every = told["states_every"]
    official = case.states[: told["compare_states"]]
    count = (len(official) - 1) * every + 1
    found, asked = run(case, solver, count, monkeypatch)
    mixed = case["mixed"] if "mixed" in case.arrays else None
    where = None if mixed is None else (mixed == 0).double()
    gaps = [gap(s.x, x, where) for s, x in zip(found[::every], official, strict=True)]
    assert max(gaps) <= told["tolerance"], gaps
    if len(found) == solver.num_steps + 1 and told["family"] not in ("reddiff", "scoremri"):
        result = finish(found[-1], case.problem, case.prior, solver, range(len(found[-1].x)))
        assert gap(result, case["final"]) <= told["tolerance"]
    left = {key for key in case.noise if key not in asked and -1 < key[0] < count - 1}
    ends = {(k, "step") for k in range(count - 1) if solver.levels[k + 1].s == 0}
    assert left <= ends, f"stored noise was not asked for: {sorted(left - ends)[:5]}"


@pytest.mark.parametrize("name", RUNS + STEPWISE)
def test_the_named_path_is_the_official_grid(name):
    case = GoldenCase(name)
    solver = solver_of(case)
    begin = offset(case, solver)
    found = solver.levels[begin : begin + len(case.levels) - ("csgm" in name)]
    if "csgm" not in name:
        assert len(solver.levels) == len(case.levels)
    pairs = [(v.a, v.s) for v in found], case.arrays["levels"][: len(found)]
    np.testing.assert_allclose(*pairs, rtol=1e-12, atol=1e-14)


RESULTS = {
    "scoremri-real": "noisy",
    "scoremri-complex": "denoised",
    "scoremri-ssos-3coils": "denoised",
}


@pytest.mark.parametrize(("name", "final"), RESULTS.items())
def test_the_results_of_score_mri_are_the_official_ones(name, final, monkeypatch):
    """Real images keep the last noise, with y pasted once more; complex ones lose it."""
    case = GoldenCase(name)
    solver = dataclasses.replace(solver_of(case), final=final)
    states, _ = run(case, solver, solver.num_steps + 1, monkeypatch)
    seeds = range(len(states[-1].x))
    found = finish(states[-1], case.problem, case.prior, solver, seeds)
    assert gap(found, case["final"]) <= case.told["tolerance"]


@pytest.mark.parametrize("name", STEPWISE)
def test_every_step_is_the_official_one(name):
    case = GoldenCase(name)
    solver = solver_of(case)
    gaps = []
    for k, (x, then) in enumerate(itertools.pairwise(case.states)):
        states = stream(case.problem, case.prior, solver, (0,), State(k, x, torch.zeros_like(x)))
        gaps.append(gap(list(itertools.islice(states, 2))[1].x, then))
    assert max(gaps) <= case.told["tolerance"], gaps


def test_the_parts_of_resample_are_the_official_ones():
    """One DDIM step from each index, the draw around both latents, and the two fits."""
    case = GoldenCase(PARTS[0])
    s, tol, z, r = case.settings, case.told["tolerance"], case["z_z"][0], case["z_r"][0]
    path = VP(s["S"], s["schedule"], "strided", 1000, s["beta_start"], s["beta_end"], None, 1)
    assert [(v.a, v.s) for v in path.levels()] == pytest.approx(case.arrays["levels"], abs=1e-13)
    never = ReSample(s["gamma"], every=10**6, eta_ddim=s["eta"], schedule=path)
    for i, index in enumerate(s["indices"]):
        step = s["S"] - 1 - index
        start = State(step, z, torch.zeros_like(z))
        states = stream(case.problem, case.prior, never, (0,), start)
        found = list(itertools.islice(states, 2))[1]
        assert gap(found.x, case.states[i]) <= tol and gap(found.x0, case["pred_x0"][i]) <= tol
        drawn = never._resampled(0.3 * z + r, z, *path.levels()[step : step + 2], r)
        assert gap(drawn, case["resampled"][i]) <= tol
    A, y, n = decoded(case.operator, case.prior.autoencoder), case["y"], s["iterations"]
    for end, decay in (("", 0.0), ("_adamw", 0.01)):
        found = fit(0.1 * z, A, y, s["lr_latent"], n, s["eps"], decay)
        assert gap(found, case["latent_fit" + end]) <= tol
        found = fit(case["image_start"], case.operator, y, s["lr_image"], n, s["eps"], decay)
        assert gap(found, case["image_fit" + end]) <= tol


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("dps-inpaint-repo-clipping", {"clip": "off"}),
        ("dps-sr2-learned-range", {"variance": "lower"}),
        ("dps-sr2-repo", {"schedule": VP(20)}),
        ("ilvr-down2-20-clipping", {"clip": "off"}),
        ("mcg-inpaint-50-clipping", {"clip": "off"}),
        ("diffpir-deblur-clipping-20", {"clip": "off"}),
        ("daps-pool4-10", {"lr_min_ratio": 1.0}),
        ("reddiff-phase-retrieval-script", {"init_from": "adjoint"}),
        ("scoremedical-ct-metal-lam0.355", {"corrector_steps": 0}),
        ("scoremri-complex", {"parts": "together"}),
        ("scoremri-ssos-3coils", {"order": "corrector-first"}),
        ("replacement-ve-rd-ald", {"corrector": "langevin"}),
        ("replacement-ve-rd-langevin", {"known_level": "next"}),
    ],
)
def test_the_option_of_a_case_matters(name, other, monkeypatch):
    """Negative twins: with the other choice a run is far from the official one."""
    case = GoldenCase(name)
    solver = dataclasses.replace(solver_of(case), **other)
    every = case.told["states_every"]
    official = case.states[: case.told["compare_states"]][:3]
    found, _ = run(case, solver, (len(official) - 1) * every + 1, monkeypatch)
    pairs = zip(found[::every], official, strict=True)
    assert max(gap(s.x, x) for s, x in pairs) > 10 * case.told["tolerance"]
