"""Replacement: overwrite the observed part of the state (ScoreSDE)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from torch import Tensor

from invdiff.core import CLEAN, Level, batch_norm
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, Schedule
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State

Corrector = Literal["langevin", "annealed", "none"]
Predictor = Literal["ancestral", "reverse-diffusion", "euler-maruyama", "probability-flow"]
OFFICIAL = {
    "cifar10": (1000, 50.0, 0.16),
    "celeba": (1000, 90.0, 0.17),
    "lsun": (2000, 378.0, 0.075),
    "church": (2000, 380.0, 0.075),
    "ffhq-256": (2000, 348.0, 0.075),
    "celebahq-256": (2000, 348.0, 0.075),
    "ffhq-1024": (2000, 1348.0, 0.15),
}
"""N, sigma_max on [0, 1] and snr of the continuous variance-exploding networks, by what these were
trained on: configs/ve/*_ncsnpp_continuous.py and configs/default_*_configs.py of
yang-song/score_sde_pytorch. sigma_min is 0.01 in all of them."""


@dataclass(frozen=True)
class Replacement(Solver):
    """Predictor-corrector sampling in which the observed part of x_t is a noised y.

    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole 2021, "Score-based generative modeling
    through stochastic differential equations" (ScoreSDE), arXiv 2011.13456, Algorithm 2 and
    section 5. Per step: M times (corrector, overwrite), then (predictor, overwrite), with
    overwrite: x <- x + A^+(a y + s A z - A x). M_Omega -> A, snr -> r, M -> corrector_steps.
    Colourisation, which rotates the colours until the grey is one channel, is A = Grayscale().

    With one forward step x_t = r x_u + N(0, g2), r = a / a', g2 = s^2 - (r s')^2, predictors are
      ancestral          the posterior of x_u given x_t and x0 (appendix F)
      reverse-diffusion  (2 - r) x + g2 score + sqrt(g2) z (appendix E)
      probability-flow   (2 - r) x + g2 score / 2 (appendix D.1)
      euler-maruyama     (1 - ln r) x + g2 score + sqrt(g2) z, with g2 = s^2 - s'^2 - 2 s^2 ln r;
                         the official code takes drift and diffusion at the start of the step
    and the last step returns the denoiser's x0. The official code takes "reverse-diffusion" on
    variance-exploding schedules and "euler-maruyama" on the others. In place of 2000 evaluations,
    `Replacement(schedule=Karras(60, 20, 0.02))` takes 120.
    corrector "none": y is pasted M times before the predictor, and nothing else is done, as the
    official code does without a corrector (its M is 1 then).
    The default is that of CIFAR-10: levels from 50 to 0.01 on [0, 1], here from 100 to 0.02 for
    images on [-1, 1]. `official(name, value_range)` has the others of OFFICIAL.

    Deviations: the corrector's step size is per sample (the official code averages it over the
    batch); y is pasted at the level that x has reached ("current", one level too noisy, is what the
    official code does), and the first state holds the noised y ("clean": the official code's y).
    Nothing noisy is returned: the official code leaves the last step's noise outside of the mask.
    For colours it masks the noise of its first state before it rotates them, which looks like an
    error and is not done here.
    Noise in y is not modelled: it is copied into the result. For noiseless y and with a
    corrector, samples approach the posterior as steps grow; the predictor alone keeps an error.
    """

    name: ClassVar[str] = "replacement"
    paper: ClassVar[str] = "Song et al. 2021, arXiv 2011.13456, Algorithm 2"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PINV})

    when_it_diverges: ClassVar[str] = "a smaller snr or more steps"

    snr: float = knob(0.16, "signal-to-noise ratio r of the corrector", 0, 1)
    corrector_steps: int = knob(1, "corrector steps M per predictor step", 0, 10)
    lam: float = knob(1.0, "strength of the overwrite: 1 replaces, 0 ignores y", 0, 1)
    known_level: steps.KnownLevel = knob(
        "next", "noise level of the data pasted after the predictor"
    )
    predictor: Predictor = knob("ancestral", "how a step goes from one level to the next")
    corrector: Corrector = knob(
        "langevin",
        "step size from norms of noise and score, from the noise level alone, or no step",
    )
    start: Literal["noised", "clean"] = knob("noised", "known part of the first state")
    schedule: Schedule = field(default=VE.published(1000, 50.0, 0.01), kw_only=True)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """configs/ve/*_continuous.py of yang-song/score_sde_pytorch, by what a network was trained
        on, with the samplers that these name, and inpainting of controllable_generation.py. Any
        operator will do."""
        return {
            name: cls(
                snr,
                known_level="current",
                predictor="reverse-diffusion",
                start="clean",
                schedule=VE.published(steps, sigma_max, 0.01, value_range),
            )
            for name, (steps, sigma_max, snr) in OFFICIAL.items()
        }

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        state, top = super().init(problem, prior, rng), self.levels[0]
        known = top if self.start == "noised" else CLEAN
        z = rng.normal(state.x, "known")
        return State(0, self._overwrite(state.x, problem, known, z), state.x0)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x = state.x
        for m in range(self.corrector_steps):
            if self.corrector != "none":
                x = self._correct(x, level, to, prior, rng.normal(x, f"corrector {m}"))
            x = self._overwrite(x, problem, level, rng.normal(x, f"known {m}"))
        x0 = prior.x0(x, level)
        x = self._predict(x, x0, level, to, rng.normal(x, "step"))
        known = steps.pasted(level, to, self.known_level)
        x = self._overwrite(x, problem, known, rng.normal(x, "known"))
        return State(state.step + 1, x, x0)

    def _overwrite(self, x: Tensor, problem: Problem, known: Level, z: Tensor) -> Tensor:
        return steps.replace(x, problem, known, z, self.lam)

    def _correct(self, x: Tensor, level: Level, to: Level, prior: Prior, z: Tensor) -> Tensor:
        """A Langevin step of the size of `_correction` along the score at `level`."""
        score = prior.score(x, level)
        return steps.langevin(x, score, self._correction(score, z, level, to), z)

    def _correction(self, score: Tensor, z: Tensor, level: Level, to: Level) -> float | Tensor:
        return correction(score, z, level, to, self.snr, self.corrector, self._norm)

    def _norm(self, x: Tensor) -> Tensor:
        """Of every sample; it broadcasts over x."""
        return batch_norm(x)

    def _predict(self, x: Tensor, x0: Tensor, level: Level, to: Level, z: Tensor) -> Tensor:
        return predicted(x, x0, level, to, z, self.predictor)


def correction(
    score: Tensor,
    z: Tensor,
    level: Level,
    to: Level,
    snr: float,
    corrector: Corrector,
    norm: Callable[[Tensor], Tensor] = batch_norm,
) -> float | Tensor:
    """Size of a Langevin step: 2 alpha (r |z| / |score|)^2, or 2 alpha (r s)^2, for every sample.

    alpha is 1 on a variance-exploding schedule and 1 - beta = (a / a')^2 on others (Algorithms
    4 and 5).
    """
    alpha = (level.a / to.a) ** 2
    if corrector == "annealed":
        return 2 * alpha * (snr * level.s) ** 2
    return 2 * alpha * (snr * norm(z) / norm(score)) ** 2


def predicted(
    x: Tensor, x0: Tensor, level: Level, to: Level, z: Tensor, predictor: Predictor
) -> Tensor:
    """The state at the next level, by one of the predictors of Song et al. 2021."""
    eps = eps_from(x, x0, level)
    if predictor == "ancestral" or to.s == 0:
        return steps.ddim(x0, eps, level, to, z, 1.0)
    score, r = -eps / level.s, level.a / to.a
    g2 = level.s**2 - (r * to.s) ** 2
    if predictor == "probability-flow":
        return (2 - r) * x + 0.5 * g2 * score
    if predictor == "reverse-diffusion":
        return (2 - r) * x + g2 * score + math.sqrt(g2) * z
    g2 = level.s**2 - to.s**2 - 2 * level.s**2 * math.log(r)
    return (1 - math.log(r)) * x + g2 * score + math.sqrt(g2) * z
