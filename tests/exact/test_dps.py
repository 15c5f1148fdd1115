"""DPS beyond Gaussian noise: its Poisson losses, clipping, presets and known defects.

The transcription of its other losses is in test_transcriptions.py, its scalar oracle in
test_scalar_oracles.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense import LIBRARY_PRIOR, MATRICES, PRIOR, ROWS, SEEDS, SHAPE, VP_SCHEDULE, D, ancestral

from helpers import Dense, Given, seeded, states
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP
from invdiff.noise import NOISELESS, GaussianNoise, Poisson
from invdiff.operators import Identity, Inpaint, PhaseRetrieval
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.needs import IncompatibleError, Need, missing
from invdiff.sampling.run import solve
from invdiff.sampling.stream import DivergedError, stream
from invdiff.solvers.dps import DPS
from invdiff.solvers.losses import LOSSES
from invdiff.tasks.presets import short_dps

NOISE = Poisson(40.0, black=-6.0, white=6.0)


def counted(matrix="benign", noise=NOISE):
    A = MATRICES[matrix]
    truth = PRIOR.mu + np.random.default_rng(6).standard_normal((ROWS, D)) / 2
    operator = Dense(torch.tensor(A), SHAPE)
    return Problem(noise.sample(torch.tensor(truth @ A.T), Rng.of(SEEDS)), operator, noise, SHAPE)


def misfit(loss, y, z):
    """The losses of DPS as the paper and the official code write them, or a function's; (m,)."""
    if callable(loss):
        return loss(y, z)
    gain = 40.0 / 12.0
    counts, expected = gain * (y + 6.0), gain * (z + 6.0)
    half = np.sum((counts - expected) ** 2 / (2 * np.maximum(counts, 1.0)))
    if loss in ("poisson_diag", "poisson_norm"):
        return half if loss == "poisson_diag" else np.sqrt(2 * half)
    return np.linalg.norm(y - z) * np.mean(1 / np.maximum(np.abs(y), 0.5 / gain))


def dps(y, A, levels, z, loss, zeta, clip):
    """Chung et al. 2023, Algorithm 1; the slope of the misfit by central differences of itself."""
    x = levels[0][1] * z(-1, "init")
    for i, ((a, s), (b, r)) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
        x0, inside = PRIOR.D(x, a, s), np.ones(D)
        if clip == "value":
            inside = (np.abs(x0) <= 1).astype(float)
            x0 = np.clip(x0, -1, 1)
        slope, h = np.empty(len(y)), 1e-5
        for k, d in enumerate(h * np.eye(len(y))):
            ends = [misfit(loss, y, A @ x0 + sign * d) for sign in (1, -1)]
            slope[k] = (ends[0] - ends[1]) / (2 * h)
        gradient = PRIOR.J(a, s).T @ np.diag(inside) @ A.T @ slope
        x = ancestral(x, x0, a, s, b, r, z(i, "step")) - zeta * gradient
    return x


@pytest.mark.parametrize("clip", ["off", "value"])
@pytest.mark.parametrize(
    ("loss", "zeta"), [("poisson_diag", 0.02), ("poisson_norm", 0.3), ("poisson_official", 0.3)]
)
@pytest.mark.parametrize("matrix", ["benign", "wide"])
def test_the_losses_are_the_published_ones(matrix, loss, zeta, clip):
    """Central differences of step 1e-5 are good to some 1e-9; nine steps may amplify them."""
    problem, schedule = counted(matrix), VP_SCHEDULE
    solver = DPS(zeta=zeta, loss=loss, clip=clip, schedule=schedule)
    rng = Rng.of(SEEDS)
    got = states(solver, problem, LIBRARY_PRIOR, rng)[-1].x.flatten(1).numpy()
    levels = [(level.a, level.s) for level in schedule.levels()]
    for row in range(ROWS):

        def z(step, role, row=row):
            like = torch.empty(1, *SHAPE, dtype=torch.float64)
            return rng.rows([row]).at(step).normal(like, role).numpy().ravel()

        y = problem.y[row].numpy()
        want = dps(y, MATRICES[matrix], levels, z, loss, zeta, clip)
        np.testing.assert_allclose(got[row], want, rtol=1e-6, atol=1e-6)
        other = dps(y, MATRICES[matrix], levels, z, loss, 1.01 * zeta, clip)
        assert np.abs(got[row] - other).max() > 1e-4


def test_the_official_weight_is_6_8_on_the_8_bit_grid():
    """One number for the image: for y uniform on the 256 levels, the mean of 1 / |y|."""
    y = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).reshape(1, 1, 16, 16)
    problem = Problem(y, Identity(), Poisson(255.0), (1, 16, 16))
    r = seeded(1, 1, 16, 16)
    found = LOSSES["poisson_official"](problem, r, r, 1.0)
    factor = 255 / 256 * 2 * sum(1 / j for j in range(1, 256, 2))
    torch.testing.assert_close(found, factor * r / r.norm(), rtol=1e-12, atol=0)
    assert factor == pytest.approx(6.8, abs=0.05)


def test_the_official_weight_is_finite_at_0_and_of_measured_entries_alone():
    """Half a count is the least |y|; an entry that was never measured is no entry."""
    noise, r = Poisson(100.0), torch.tensor([1.0, 2.0, 3.0, 0.0]).reshape(1, 1, 2, 2)
    y = torch.tensor([0.0, 0.5, -0.25, float("nan")]).reshape(1, 1, 2, 2)
    mask = torch.tensor([1.0, 1, 1, 0]).reshape(1, 1, 2, 2)
    problem = Problem(y, Inpaint(mask), noise, (1, 2, 2))
    found = LOSSES["poisson_official"](problem, r, r, 1.0)
    torch.testing.assert_close(found, (100 + 2 + 4) / 3 * r / r.norm())


def test_the_weighted_loss_is_the_likelihoods_gaussian_limit():
    """At z = y it has the likelihood's curvature; a norm alone weighs dark and bright alike."""
    y = torch.tensor([-0.8, 0.0, 0.9], dtype=torch.float64).reshape(1, 1, 1, 3)
    noise = Poisson(1e4)
    problem = Problem(y, Identity(), noise, (1, 1, 3))
    step = torch.full_like(y, 1e-3)
    z = (y - step).requires_grad_()
    (exact,) = torch.autograd.grad(noise.log_prob(y, z).sum(), z)
    found = LOSSES["poisson_diag"](problem, step, step, 1.0)
    torch.testing.assert_close(found, exact, rtol=1e-2, atol=0)
    flat = LOSSES["poisson_official"](problem, step, step, 1.0)
    assert flat.max() == flat.min() and found.max() > 9 * found.min()


def test_a_dark_pixel_has_a_finite_weight():
    y = torch.tensor([-1.0, 1.0]).reshape(1, 1, 1, 2)  # no count, and 50 of them
    problem = Problem(y, Identity(), Poisson(50.0), (1, 1, 2))
    r = torch.ones(1, 1, 1, 2)
    for floor in (1.0, 4.0):
        found = LOSSES["poisson_diag"](problem, r, r, floor).flatten()
        assert found.tolist() == pytest.approx([25**2 / floor, 25**2 / 50])


# ---- what it needs


def test_needs_follow_the_loss():
    both = {Need.PRIOR_VJP, Need.OPERATOR_VJP}
    assert DPS().requires()[0] == DPS(loss="l2sq").requires()[0] == both
    assert DPS(loss="gaussian").requires()[0] == both | {Need.GAUSSIAN, Need.NOISY}
    y = torch.zeros(1, 1, 4, 4)
    gaussian, noiseless, poisson = (
        Problem(y, Identity(), noise, (1, 4, 4)) for noise in (GaussianNoise(0.1), NOISELESS, NOISE)
    )
    for loss in ("l2", "l2sq"):
        assert not any(missing(DPS(loss=loss), p) for p in (gaussian, noiseless, poisson))
    assert missing(DPS(loss="gaussian"), poisson) == [Need.GAUSSIAN, Need.NOISY]
    for loss in ("poisson_diag", "poisson_norm", "poisson_official"):
        assert DPS(loss=loss).requires()[0] == both | {Need.POISSON}
        assert not missing(DPS(loss=loss), poisson)
        with pytest.raises(
            IncompatibleError, match="needs Poisson noise and the noise is GaussianNoise"
        ):
            solve(gaussian, Denoiser(lambda x, sigma: x), DPS(loss=loss, schedule=VP(2)))


# ---- known defects of the official code


def shrinking(x, sigma):
    return x / (1 + sigma**2)


def final(problem, solver=None, prior=None):
    solver = solver or DPS(schedule=VP(8))
    rng = Rng.of(SEEDS[: problem.batch])
    return states(solver, problem, prior or Denoiser(shrinking), rng)[-1].x


@pytest.mark.parametrize("loss", ["l2", "l2sq", "poisson_norm", "poisson_official"])
def test_the_norm_is_of_each_sample(loss):
    """The official norm is over the batch: a neighbour of large misfit would shrink the step."""
    y = seeded(2, 1, 4, 4)
    calm = Problem(y, Identity(), NOISE, (1, 4, 4))
    wild = Problem(torch.stack([y[0], 1e3 * y[1]]), Identity(), NOISE, (1, 4, 4))
    solver = DPS(loss=loss, schedule=VP(8))
    assert torch.equal(final(calm, solver)[0], final(wild, solver)[0])
    assert not torch.equal(final(calm, solver)[1], final(wild, solver)[1])


def test_noise_where_nothing_was_measured_does_not_shrink_the_step():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    y = seeded(1, 1, 4, 4)
    dirty = y + 5 * (1 - mask) * seeded(1, 1, 4, 4, seed=1)
    masked = [final(Problem(v, Inpaint(mask), GaussianNoise(0.1), (1, 4, 4))) for v in (y, dirty)]
    assert torch.equal(*masked)
    blind = Dense(torch.diag(mask.flatten().double()), (1, 4, 4))  # knows of no mask
    seen = [final(Problem(v.flatten(1), blind, GaussianNoise(0.1), (1, 4, 4))) for v in (y, dirty)]
    assert (seen[0] - seen[1]).abs().max() > 1e-2


@pytest.mark.parametrize("loss", ["l2", "l2sq", "gaussian", "poisson_norm"])
def test_a_residual_of_0_gives_no_step(loss):
    constant = Denoiser(lambda x, sigma: 0 * x + 0.3)
    noise = NOISE if loss.startswith("poisson") else GaussianNoise(0.1)
    problem = Problem(torch.full((1, 1, 4, 4), 0.3), Identity(), noise, (1, 4, 4))
    ours = final(problem, DPS(loss=loss, schedule=VP(8)), constant)
    assert torch.equal(ours, final(problem, DPS(zeta=0.0, schedule=VP(8)), constant))


def test_the_step_of_the_norm_does_not_fall_with_the_residual():
    """Why noiseless data jitter under "l2", and not under the likelihood."""
    problem = Problem(torch.zeros(1, 1, 4, 4), Identity(), GaussianNoise(0.1), (1, 4, 4))
    r = seeded(1, 1, 4, 4, dtype=torch.float32)
    for loss, ratio in (("l2", 1.0), ("l2sq", 1.0), ("gaussian", 1e-3)):
        large, small = (
            LOSSES[loss](problem, scale * r, scale * r, 1.0).norm() for scale in (1, 1e-3)
        )
        assert float(small / large) == pytest.approx(ratio, rel=1e-5)


def test_clipping_by_value_stops_the_gradient_and_straight_through_does_not():
    """One pixel far out of range, y asks it back: nothing, a pull, a pull at the clipped value."""
    prior = Denoiser(lambda x, sigma: 1.7 + 0.1 * torch.tanh(x))
    problem = Problem(torch.zeros(1, 1, 1, 1), Identity(), NOISELESS, (1, 1, 1))
    rng = Given((0,), table=lambda step, role: torch.zeros(1))
    moved = {}
    for clip in ("off", "value", "straight-through"):
        on, off = (DPS(zeta=zeta, clip=clip, schedule=VP(8)) for zeta in (1.0, 0.0))
        state = on.init(problem, prior, rng.at(-1))
        after = on.step(state, problem, prior, rng.at(0))
        assert float(after.x0) == pytest.approx(1.7 if clip == "off" else 1.0)
        moved[clip] = float((after.x - off.step(state, problem, prior, rng.at(0)).x).abs())
    assert moved["value"] == 0 and moved["off"] > 0.01
    assert moved["straight-through"] == pytest.approx(moved["off"], rel=1e-5)


def test_clipping_changes_nothing_within_the_range():
    problem = Problem(0.1 * seeded(1, 1, 4, 4), Identity(), GaussianNoise(0.1), (1, 4, 4))
    prior = Denoiser(lambda x, sigma: 0.5 * torch.tanh(x))
    runs = [final(problem, DPS(clip=clip, schedule=VP(8)), prior)
            for clip in ("off", "value", "straight-through")]  # fmt: skip
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])


def test_a_noise_level_has_a_range():
    """The paper's 0.05 is on [0, 1], the code's is on [-1, 1]: half of it."""
    assert GaussianNoise.on_unit_range(0.05) == GaussianNoise(0.1)


# ---- presets


def test_official_configurations_are_the_repositorys():
    made = DPS.official("super-resolution")
    assert made == DPS(zeta=0.3, clip="value", variance="learned") and made.num_steps == 1000
    assert DPS.official("inpaint").zeta == 0.5 and DPS.official("phase-retrieval").zeta == 1.0
    with pytest.raises(InvdiffError, match="did you mean deblur"):
        DPS.official("deblurr")


def test_the_short_configuration_has_one_step_for_a_pixel():
    """The same picture tiled 2 x 2 has a norm twice as long: twice the zeta moves pixels alike."""
    assert short_dps("deblur", (256, 256)) == DPS(zeta=20.0, schedule=VP(100))
    small, large = short_dps("deblur", (64, 64)), short_dps("deblur", (128, 128))
    assert large.zeta == 2 * small.zeta == 2 * short_dps("deblur", (64, 64), 50).zeta / 2
    r = seeded(1, 1, 4, 4)
    one = Problem(r, Identity(), GaussianNoise(0.1), (1, 4, 4))
    four = Problem(r.tile(2, 2), Identity(), GaussianNoise(0.1), (1, 8, 8))
    moves = [
        small.zeta * LOSSES[small.loss](one, one.y, one.y, 1.0),
        large.zeta * LOSSES[large.loss](four, four.y, four.y, 1.0),
    ]
    torch.testing.assert_close(moves[1], moves[0].tile(2, 2))
    with pytest.raises(InvdiffError, match="did you mean inpaint"):
        short_dps("inpant", (64, 64))


def test_the_literal_reading_is_twice_the_step():
    """zeta' / |r| on the gradient of |r|^2."""
    problem = Problem(seeded(1, 1, 4, 4), Identity(), GaussianNoise(0.1), (1, 4, 4))
    knobs = {"schedule": VP(8)}
    assert torch.equal(
        final(problem, DPS(0.3, "l2sq", **knobs)), final(problem, DPS(0.6, "l2", **knobs))
    )


# ---- divergence


@pytest.mark.parametrize("loss", ["l2", "gaussian"])
def test_too_large_a_step_on_phase_retrieval_is_reported(loss):
    A = PhaseRetrieval()
    problem = Problem(A(seeded(1, 1, 8, 8, dtype=torch.float32)), A, GaussianNoise(0.1), (1, 8, 8))
    solver = DPS(zeta=1e30, loss=loss, schedule=VP(20))
    with pytest.raises(DivergedError, match=r"dps .* at step \d+ of 20; try a smaller zeta"):
        list(stream(problem, Denoiser(shrinking), solver, [0]))
