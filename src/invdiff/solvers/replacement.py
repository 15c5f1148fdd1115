"""Replacement: overwrite the observed part of the state (ScoreSDE)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from invdiff import steps
from invdiff.core import Level, Problem, State, batch_norm
from invdiff.needs import Need
from invdiff.paths import VE, Path
from invdiff.priors.base import Prior, eps_from
from invdiff.rng import Rng
from invdiff.solvers.base import Solver, knob


@dataclass(frozen=True)
class Replacement(Solver):
    """Predictor-corrector sampling in which the observed part of x_t is a noised y.

    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole 2021, "Score-based generative modeling
    through stochastic differential equations", arXiv 2011.13456, Algorithm 2 and section 5.
    Per step: M times (Langevin corrector, overwrite), then (ancestral predictor, overwrite), with
    overwrite: x <- x + A^+(a y + s A z - A x). M_Omega -> A, snr -> r, M -> corrector_steps.

    Deviations: the corrector's step size is per sample (the official code averages it over the
    batch); the overwrite after the predictor is at the level that x has reached (known_level
    "next"), so that y itself is pasted at the end; "current", one level too noisy, is what the
    official code does. Noise in y is not modelled: it is copied into the result.
    """

    name: ClassVar[str] = "replacement"
    paper: ClassVar[str] = "Song et al. 2021, arXiv 2011.13456, Algorithm 2"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PINV})

    when_it_diverges: ClassVar[str] = "a smaller snr or more steps"

    snr: float = knob(0.16, "signal-to-noise ratio r of the Langevin corrector", 0, 1)
    corrector_steps: int = knob(1, "corrector steps M per predictor step", 0, 10)
    lam: float = knob(1.0, "strength of the overwrite: 1 replaces, 0 ignores y", 0, 1)
    known_level: Literal["next", "current"] = knob(
        "next", "noise level of the data pasted after the predictor"
    )
    path: Path = field(default_factory=lambda: VE(1000, 348.0, 0.01), kw_only=True)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x = state.x
        for m in range(self.corrector_steps):
            x = self._correct(x, level, to, prior, rng.normal(x, f"corrector {m}"))
            x = steps.replace(x, problem, level, rng.normal(x, f"known {m}"), self.lam)
        x0 = prior.x0(x, level)
        x = steps.ddim(x0, eps_from(x, x0, level), level, to, rng.normal(x, "step"), 1.0)
        known = to if self.known_level == "next" else level
        x = steps.replace(x, problem, known, rng.normal(x, "known"), self.lam)
        return State(state.step + 1, x, x0)

    def _correct(self, x: Tensor, level: Level, to: Level, prior: Prior, z: Tensor) -> Tensor:
        """Langevin step of size 2 alpha (r |z| / |score|)^2, per sample (Algorithms 4 and 5).

        alpha is 1 on a variance-exploding path and 1 - beta = (a / a')^2 on a preserving one.
        """
        score = prior.score(x, level)
        alpha = (level.a / to.a) ** 2
        size = 2 * alpha * (self.snr * batch_norm(z) / batch_norm(score)) ** 2
        return steps.langevin(x, score, size, z)
