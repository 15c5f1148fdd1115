"""A sampler that diverges says at which step, and which of its knobs to turn: one sentence, no NaN.

Every absurd value has a cure, the knob that the sentence names, and with it the same run ends.
Without one the advice would be a guess.
"""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from helpers import Dense, seeded
from invdiff.core.schedules import VE, VP, Schedule
from invdiff.noise import GaussianNoise
from invdiff.operators import Identity, Inpaint
from invdiff.operators.algebra import Linear
from invdiff.operators.algebra.scaling import ScaledSpectral
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.sampling.stream import DivergedError
from invdiff.solvers import Solver, registry, solver_class

SHAPE = (1, 4, 4)
STEPS = 50


def gain(x: Tensor, sigma: float) -> Tensor:
    """The denoiser of white images of variance 1."""
    return x / (1 + sigma**2)


def skewed(x: Tensor, sigma: float) -> Tensor:
    """No law's denoiser: its Jacobian is not symmetric, like that of a network."""
    return (x + x.roll(1, -2)) / 2 / (1 + sigma**2)


def steep() -> Linear:
    """16 x 16, with singular values from 1 down to 1e-7."""
    left, right = (torch.linalg.qr(seeded(16, 16, seed=k))[0] for k in (3, 5))
    return Dense((left * torch.logspace(0, -7, 16).double()) @ right, SHAPE)


def measured(A: Linear, sigma: float, added: float) -> Problem:
    """y = A x + added n, which is said to have noise of std sigma; float32."""
    z = A(seeded(2, *SHAPE, dtype=torch.float32))
    y = z + added * seeded(*z.shape, seed=1, dtype=torch.float32)
    return Problem(y, A, GaussianNoise(sigma), SHAPE)


FLAT = measured(Identity(), 1e-3, 1e-3)
HALF = measured(Inpaint.box((4, 4), 0, 0, 2, 4), 1e-3, 1e-3)
HUGE = measured(ScaledSpectral(Identity(), 10.0), 1e-3, 1e-3)
STEEP = measured(steep(), 0.0, 10.0)
NOISY = measured(steep(), 10.0, 10.0)
LOW = VE(STEPS, 3.0, 0.01)


def made(name: str, knobs: dict, schedule: Schedule = VP(STEPS)) -> Solver:  # noqa: B008
    return solver_class(name)(**knobs, schedule=schedule)


MOMENTS = {"centre": "moments", "iterations": 12}
CASES = [
    ("dps", {"zeta": 1e6}, "smaller zeta", {"zeta": 1.0}, FLAT, VP(STEPS)),
    ("dps", {"zeta": 1e6, "loss": "gaussian"}, "smaller zeta", {"zeta": 1e-7}, FLAT, VP(STEPS)),
    ("dps", {"zeta": 1e6, "loss": "l2sq"}, "smaller zeta", {"zeta": 1.0}, FLAT, VP(STEPS)),
    ("mcg", {"rho": 1e6}, "smaller rho", {"rho": 1.0}, HALF, VP(STEPS)),
    ("pigdm", {"weight": 1e6, "reach": 1e9}, "smaller weight", {"weight": 1.0}, FLAT, VP(STEPS)),
    ("vdm", {"weight": 1e6}, "smaller weight", {"weight": 1.0}, FLAT, VP(STEPS)),
    ("vdm", {"weight": 30.0, "delta": 0.5}, "smaller weight", {"weight": 2.0}, FLAT, VP(STEPS)),
    ("pyramid", {"rho": 1e6, "smallest": 1}, "smaller rho", {"rho": 2.0}, FLAT, VP(STEPS)),
    ("csgm", {"c": 2.0}, "smaller c", {"c": 0.1}, FLAT, LOW),
    ("csgm", {"weight": 1e6}, "smaller c or weight", {"weight": 1.0}, FLAT, LOW),
    ("csgm", {"gamma": 0.1, "c": 0.5}, "larger gamma", {"gamma": 1.0}, FLAT, LOW),
    ("reddiff", {"lr": 1e6}, "smaller lr", {"lr": 0.1}, FLAT, VP(STEPS)),
    ("reddiff", {"lam": 1e30}, "or lam", {"lam": 30.0}, FLAT, VP(STEPS)),
    ("score-prior", {"lr": 1e6}, "smaller lr", {"lr": 2e-3}, FLAT, LOW),
    ("score-prior", {"lr": 1e6, "family": "gaussian"}, "smaller lr", {"lr": 2e-3}, FLAT, LOW),
    ("score-medical-baseline", {"kappa": 1e-3}, "larger kappa", {"kappa": 1.0}, FLAT, VP(STEPS)),
    ("diffpir", {"lam": 1e-6}, "larger lam", {"lam": 1e9}, STEEP, VP(STEPS)),
    ("diffpir", {"sigma_floor": 1e-6}, "sigma_floor", {"sigma_floor": 0.1}, STEEP, VP(STEPS)),
    ("mmps", {"iterations": 50}, "fewer iterations", {"iterations": 1}, FLAT, VP(STEPS)),
    ("mmps", {"iterations": 50}, "krylov gmres", {"krylov": "gmres"}, FLAT, VP(STEPS)),
    ("dds", {"gamma": 1e12, "iterations": 50}, "smaller gamma", {"gamma": 1.0}, NOISY, VP(STEPS)),
    ("dds", {"iterations": 200}, "fewer iterations", {"iterations": 1}, STEEP, VP(STEPS)),
    ("daps", {"inner": "langevin", "lr": 1.0}, "smaller lr", {"lr": 1e-7}, FLAT, LOW),
    ("daps", {"inner": "langevin", "lr": 1.0}, "inner exact", {"inner": "exact"}, FLAT, LOW),
    ("daps", MOMENTS, "fewer iterations", {"iterations": 1}, FLAT, VP(STEPS)),
    ("ilvr", {"up": "pinv"}, "up transpose", {"up": "transpose"}, STEEP, VP(STEPS)),
]
ids = [f"{name}-{list(knobs)[0]}-{advice}" for name, knobs, advice, *_ in CASES]


@pytest.mark.parametrize(
    ("name", "absurd", "advice", "cure", "problem", "schedule"), CASES, ids=ids
)
def test_an_absurd_knob_is_named(name, absurd, advice, cure, problem, schedule):
    prior = Denoiser(skewed if name in ("mcg", "mmps") or "centre" in absurd else gain)
    sentence = rf"^{re.escape(name)} (left|reached) .* at step \d+ of {STEPS}; try .*{advice}"
    with pytest.raises(DivergedError, match=sentence) as caught:
        solve(problem, prior, made(name, absurd, schedule))
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    found = solve(problem, prior, made(name, {**absurd, **cure}, schedule)).samples
    assert torch.isfinite(found).all() and found.abs().max() < 1e3


@pytest.mark.parametrize("name", ["score-mri", "score-medical-baseline"])
def test_an_operator_that_stretches_is_named(name):
    """These step along A^T r, which is a step of length |A|^2: no knob of theirs mends that."""
    schedule = VE(STEPS, 30.0, 0.01)
    with pytest.raises(DivergedError, match=rf"{name} .* an operator scaled to a norm of 1"):
        solve(HUGE, Denoiser(gain), made(name, {}, schedule))
    assert solve(FLAT, Denoiser(gain), made(name, {}, schedule)).samples.abs().max() < 10


@pytest.mark.parametrize("name", ["ddrm", "ddnm", "ddnm+", "ddrm-jpeg"])
def test_noise_that_was_not_declared_is_named(name):
    """A^+ amplifies it a million times; these have no knob that could make them diverge."""
    told = "noisy measurements" if name == "ddrm-jpeg" else "noise level that the measurement"
    with pytest.raises(DivergedError, match=rf"^{re.escape(name)} .*{told}"):
        solve(STEEP, Denoiser(gain), made(name, {}))
    honest = Problem(STEEP.y, STEEP.A, GaussianNoise(10.0), SHAPE)
    noisy = {"ddnm": "ddnm+", "ddrm-jpeg": "ddrm"}.get(name, name)
    assert solve(honest, Denoiser(gain), made(noisy, {})).samples.abs().max() < 10


def test_a_wrapped_solver_names_its_own_knob():
    base = solver_class("dps")(zeta=1e6, schedule=VP(STEPS))
    with pytest.raises(DivergedError, match=r"^ccdf .* at step \d+ of 26; try a smaller zeta"):
        solve(FLAT, Denoiser(gain), solver_class("ccdf")(base, start=0.5, schedule=VP(STEPS)))


def test_how_large_is_too_large_depends_on_the_range_of_images():
    """Counts up to 600000 are no divergence for a prior of such images."""

    def constant(x: Tensor, sigma: float) -> Tensor:
        return 0 * x + 6e5

    plain, wide = Denoiser(constant), Denoiser(constant, value_range=(0.0, 65535.0))
    solver = made("unconditional", {})
    assert float(solve(FLAT, wide, solver).samples.max()) == 6e5
    with pytest.raises(DivergedError, match=r"beyond 100000 at step 1 of 50"):
        solve(FLAT, plain, solver)


@pytest.mark.parametrize("name", registry())
def test_the_advice_can_be_followed(name):
    """It names a knob of the solver, or what else there is to choose: schedule, operator, noise."""
    solver = solver_class(name)()
    knobs = {*vars(solver), *vars(getattr(solver, "base", solver))}
    words = set(re.findall(r"\w+", solver.when_it_diverges))
    assert words & (knobs | {"steps", "schedule", "operator", "noise"})
