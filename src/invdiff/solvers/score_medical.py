"""Score-based reconstruction for CT and MRI: mix the measurement in before every update."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from torch import Tensor

from invdiff.core import CLEAN, Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, Schedule
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State
from invdiff.solvers.replacement import Corrector, correction, predicted

FILES = {
    "mri-brats": (1.0, 0.517, 128.0),
    "ct-lidc": (0.841, 0.246, 128.0),
    "ct-ldct": (0.72, 0.40, 220.0),
    "ct-metal": (0.355, 0.0, 128.0),
    "ct-metal-sparse": (0.865, 0.261, 128.0),
    "ct-metal-sparse-180": (0.27, 0.0, 128.0),
}
"""lam, snr and sigma_max (on [0, 1]) of 1000 levels in the configuration files of the official
repository (yang-song/score_inverse_problems, configs/ve): brats_ncsnpp_continuous,
ct2d_320_ncsnpp_continuous, ldct_512_ncsnpp_continuous, ct2d_320_mar, ct2d_320_sparse_mar and
ct2d_320_sparse_mar_180. snr 0 stands for no corrector.

MRI of 240 x 240 pixels with 30 projections; CT of 320 x 320 (LIDC) and 512 x 512 (LDCT) with 23
angles; metal artefacts with 320, 23 and 180 angles. They were found there by a search for the best
SSIM, with the official CT operator: a start for one's own.
"""


@dataclass(frozen=True)
class ScoreMedical(Solver):
    """Predictor-corrector sampling in which x_t is mixed with a noised y before each update.

    Song, Shen, Xing, Ermon 2022, "Solving inverse problems in medical imaging with score-based
    generative models", arXiv 2111.08005. Per step: M times (mix, Langevin corrector),
    then (mix, predictor), all at the level of x_t, with fresh noise z in every
      mix: x <- x + lam A^+ (a y + s A z - A x).
    lambda -> lam, r -> snr, P(Lambda) T -> A. After the last predictor step, which is Tweedie's
    formula, y itself is mixed in with lam = 1 (`final`).

    The paper mixes in the space of T, with A = P(Lambda) T. That is this formula where T is
    orthonormal, as the Fourier transform of complex images is. For another invertible T the two
    take A x to the same value and differ in the null space of A, where A^+ changes nothing. For
    real images the official code keeps the real part; where the sampled frequencies are not
    symmetric, that goes half of the way, and A^+ all of it.

    corrector "none": y is mixed in M times before the predictor and nothing else is done. So does
    the official code without a corrector, where M is 1: y is mixed in twice in each step, with the
    strength 1 - (1 - lam)^2 together.

    Deviations: the default predictor is ancestral (the official code: "reverse-diffusion"); the
    step size of the corrector is per sample (the official code averages it over the batch); of M
    corrector steps each follows a mixing of its own, where the official code mixes once before
    them; the official code takes Tweedie's formula after its last predictor step, with one more
    evaluation. Published levels are of images on [0, 1]: the default, 128 to 0.01 there, is 256 to
    0.02 here, for images on [-1, 1]. y is taken for noiseless; lam < 1 tolerates noise, and an A^+
    that is not exact: for CT that is CGLS, and `Radon.cg_iterations` its budget. `official(task)`
    has the settings of the official code. In place of these 2000 evaluations,
    `ScoreMedical(schedule=Karras(60, 20, 0.02))` takes 120; docs/short.md tells at what cost.
    """

    name: ClassVar[str] = "score-medical"
    paper: ClassVar[str] = "Song, Shen, Xing, Ermon 2022, arXiv 2111.08005"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PINV})

    when_it_diverges: ClassVar[str] = "a smaller snr or more steps"

    lam: float = knob(1.0, "strength lambda of the data: 1 replaces, 0 ignores y", 0, 1)
    snr: float = knob(0.517, "signal-to-noise ratio r of the Langevin corrector", 0, 1)
    corrector_steps: int = knob(1, "corrector steps M per predictor step", 0, 10)
    final: Literal["clean", "none"] = knob("clean", "whether y itself is put into the result")
    corrector: Corrector = knob("langevin", "what follows each of the first M mixings")
    predictor: Literal["ancestral", "reverse-diffusion"] = knob(
        "ancestral", "how a step goes from one level to the next"
    )
    schedule: Schedule = field(default=VE.published(1000, 128.0, 0.01), kw_only=True)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """configs/ve/*.py of yang-song/score_inverse_problems, with their predictor."""
        return {
            task: cls(
                lam,
                snr,
                corrector="langevin" if snr else "none",
                predictor="reverse-diffusion",
                schedule=VE.published(1000, sigma_max, 0.01, value_range),
            )
            for task, (lam, snr, sigma_max) in FILES.items()
        }

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x = state.x
        for m in range(self.corrector_steps):
            x = steps.replace(x, problem, level, rng.normal(x, f"known {m}"), self.lam)
            if self.corrector != "none":
                z, score = rng.normal(x, f"corrector {m}"), prior.score(x, level)
                size = correction(score, z, level, to, self.snr, self.corrector)
                x = steps.langevin(x, score, size, z)
        x = steps.replace(x, problem, level, rng.normal(x, "known"), self.lam)
        x0 = prior.x0(x, level)
        x = predicted(x, x0, level, to, rng.normal(x, "step"), self.predictor)
        if to.s == 0 and self.final == "clean":
            x = steps.replace(x, problem, CLEAN, 0.0 * x)
        return State(state.step + 1, x, x0)


@dataclass(frozen=True)
class ScoreMedicalBaseline(Solver):
    """Predictor-corrector sampling with the score of a noised y added to the prior's.

    The baseline of Song, Shen, Xing, Ermon 2022, arXiv 2111.08005, after Song et al. 2021
    (arXiv 2011.13456): s(x) + A^T (y_t - A x) / (kappa s_t)^2, y_t = a y + s A z with fresh z in
    each evaluation. It shares the corrector, the predictor, the deviations and the short schedule
    of `ScoreMedical`. The annealed Langevin samplers of brats_ncsnpp_ald.py and _ald_projection.py,
    of correctors alone, are not offered.
    """

    name: ClassVar[str] = "score-medical-baseline"
    paper: ClassVar[str] = "Song, Shen, Xing, Ermon 2022, arXiv 2111.08005, baseline"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LINEAR})

    when_it_diverges: ClassVar[str] = "a larger kappa, or an operator scaled to a norm of 1"

    kappa: float = knob(1.231, "width of the likelihood of y_t, in units of s_t", 1e-3)
    snr: float = knob(0.608, "signal-to-noise ratio r of the Langevin corrector", 0, 1)
    corrector_steps: int = knob(1, "corrector steps M per predictor step", 0, 10)
    predictor: Literal["ancestral", "reverse-diffusion"] = knob(
        "ancestral", "how a step goes from one level to the next"
    )
    schedule: Schedule = field(default=VE.published(1000, 128.0, 0.01), kw_only=True)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """configs/ve/brats_ncsnpp_baseline.py of yang-song/score_inverse_problems."""
        schedule = VE.published(1000, 128.0, 0.01, value_range)
        return {"mri-brats": cls(predictor="reverse-diffusion", schedule=schedule)}

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x = state.x
        for m in range(self.corrector_steps):
            given = GivenNoisedY(prior, problem, self.kappa, rng.normal(x, f"known {m}"))
            z, score = rng.normal(x, f"corrector {m}"), given.score(x, level)
            size = correction(score, z, level, to, self.snr, "langevin")
            x = steps.langevin(x, score, size, z)
        given = GivenNoisedY(prior, problem, self.kappa, rng.normal(x, "known"))
        x0 = given.x0(x, level)
        x = predicted(x, x0, level, to, rng.normal(x, "step"), self.predictor)
        return State(state.step + 1, x, x0)


class GivenNoisedY(Prior):
    """The prior with the likelihood N(y_t; A x_t, (kappa s)^2), y_t = a y + s A z for a given z."""

    def __init__(self, prior: Prior, problem: Problem, kappa: float, z: Tensor) -> None:
        self.prior, self.problem, self.kappa, self.z = prior, problem, kappa, z

    def x0(self, xt: Tensor, level: Level) -> Tensor:
        """Tweedie's formula: the prior's x0 + s^2 / a times the score of y_t."""
        A, y = self.problem.linear, self.problem.y
        r = level.a * y + level.s * A(self.z) - A(xt)
        return self.prior.x0(xt, level) + A.adjoint(r) / (self.kappa**2 * level.a)


OFFICIAL: dict[str, ScoreMedical | ScoreMedicalBaseline] = {
    **{
        task: dataclasses.replace(solver, predictor="ancestral")
        for task, solver in ScoreMedical.configurations((0.0, 1.0)).items()
    },
    "mri-brats-baseline": ScoreMedicalBaseline(schedule=VE(1000, 128.0, 0.01)),
}
"""The settings of `FILES` with this library's predictor, on levels of images on [0, 1].
`ScoreMedical.official(task)` has the official predictor too, and levels of images on [-1, 1]."""
