"""Manifold constrained gradients: a gradient of the misfit off the data, then replacement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from invdiff.core import Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, VP, Schedule
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State


@dataclass(frozen=True)
class MCG(Solver):
    """x' = reverse step; x'' = x' - rho (I - A^+ A) g; x = x'' + lam A^+ (a y + s A z - A x'').

    Chung, Sim, Ryu, Ye 2022, "Improving diffusion models for inverse problems using manifold
    constraints", arXiv 2206.00941. g = grad_{x_i} |W (y - A x0(x_i))|: the paper writes the square
    of the norm with a step alpha, its code takes the norm itself with rho, as here. H -> A. weight
    "identity" is W = I (inpainting, colourisation), "pinv" is W = A^+ (CT, where the paper takes
    filtered back-projection). With lam = 1 and an exact A^+ the overwrite undoes whatever g changed
    in the data, so that the projection I - A^+ A changes nothing.

    known_level: noise level of the pasted data. "next" is where x then is; "current", one level too
    noisy, is the official code's; "clean", without noise, is the official code's for CT, where its
    lam falls from 1 to 0.6 (lam_drop 0.4). final "none" pastes at known_level in the last step too:
    the official code, which leaves the noise of "current" in the result.
    clip: as in DPS; "value" is the official code. variance: as in DPS; "learned" is the official
    code. `official("inpaint")` has both, and its respacing to n steps is `VP(n, spacing="ends")`.
    Deviations: norms are per sample (there over the batch); colourisation takes the misfit to y
    (there to a noised y); the Langevin corrector of the variance-exploding runs for colour and CT
    is left out, and `schedule=VE(...)` gives their ancestral steps, to which rho = 0.1 belongs on
    [0, 1] and 0.2 on [-1, 1]; for CT the overwrite there is lam A^T (y - A x) / (A^T A 1), here of
    A^+. Noise in y is copied into the result: for noisy data prefer DPS. g is in the frame of the
    schedule: rho = 1 belongs to variance-preserving schedules, and to images of 256 x 256: the norm
    grows with the side. `MCG(rho=10, schedule=VP(100))` takes a tenth of the steps; docs/short.md
    tells at what cost.
    """

    name: ClassVar[str] = "mcg"
    paper: ClassVar[str] = "Chung, Sim, Ryu, Ye 2022, arXiv 2206.00941"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PRIOR_VJP, Need.PINV})

    when_it_diverges: ClassVar[str] = "a smaller rho or more steps"

    rho: float = knob(1.0, "step size of the gradient; 0 is plain replacement", 0)
    weight: Literal["identity", "pinv"] = knob("identity", "W: the norm in which y is missed")
    lam: float = knob(1.0, "strength of the overwrite: 1 replaces, 0 leaves x''", 0, 1)
    lam_drop: float = knob(0.0, "how much lam has fallen, linearly, at the last step", 0, 1)
    known_level: Literal["next", "current", "clean"] = knob("next", "noise level of the data")
    final: Literal["clean", "none"] = knob("clean", "whether y itself is put into the result")
    clip: steps.Clip = knob("off", "whether x0 is clipped, and the gradient too")
    variance: steps.Variance = knob("lower", "variance of the fresh noise")
    schedule: Schedule = field(default=VP(1000, spacing="trailing"), kw_only=True)

    def requires(self) -> tuple[frozenset[Need], ...]:
        more = {Need.LEARNED_VARIANCE} if self.variance == "learned" else set()
        return (self.needs | more,)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """Files of HJ-harry/MCG_diffusion, as far as MCG has them (its docstring tells what not).

        inpaint: guided_diffusion/gaussian_diffusion.py, the gradient of the norm times 1, 1000
        steps, x0 clipped. colorize and ct: run_colorization.py and run_CT_recon.py, N 2000,
        sigma_max 378, weight .1, on images on [0, 1]; for CT lam falls by .4.
        """
        how: dict[str, Any] = {"known_level": "current", "final": "none"}
        schedule = VE.published(2000, 378.0, 0.01, value_range)
        rho = 0.1 * (value_range[1] - value_range[0])
        ct: dict[str, Any] = {"weight": "pinv", "lam_drop": 0.4, "known_level": "clean"}
        return {
            "inpaint": cls(clip="value", variance="learned", **how),
            "colorize": cls(rho=rho, schedule=schedule, **how),
            "ct": cls(rho=rho, schedule=schedule, final="none", **ct),
        }

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        A = problem.linear
        z = rng.normal(state.x, "step")
        if self.variance == "learned":
            x0, v, pull = prior.x0_v_vjp(state.x, level, once=True)
            z = steps.spread(z, v, level, to)
        else:
            x0, pull = prior.x0_vjp(state.x, level, once=True)
        x0, inside = steps.clipped(x0, prior.value_range, self.clip)
        x = steps.ddim(x0, eps_from(state.x, x0, level), level, to, z, 1.0)
        g = -pull(inside * self._weighted(problem.residual(x0), problem))
        x = x - self.rho * (g - A.pinv(A(g)))
        known = {"next": to, "current": level, "clean": Level(to.a, 0.0)}[self.known_level]
        known = to if to.s == 0 and self.final == "clean" else known
        lam = self.lam - self.lam_drop * state.step / max(self.num_steps - 1, 1)
        x = steps.replace(x, problem, known, rng.normal(x, "known"), lam)
        return State(state.step + 1, x, x0)

    def _weighted(self, r: Tensor, problem: Problem) -> Tensor:
        """-d|W r| / dx0 = A^T W^T W r / |W r|; for W = A^+ that is A^+ r / |A^+ r|."""
        A = problem.linear
        return steps.unit(A.pinv(r)) if self.weight == "pinv" else A.adjoint(steps.unit(r))
