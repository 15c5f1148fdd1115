"""score-MRI: predictor-corrector sampling with k-space overwritten by the measurement itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from invdiff.core import CLEAN, Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, Schedule
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import Range, knob
from invdiff.sampling.state import State
from invdiff.solvers.replacement import Replacement


@dataclass(frozen=True)
class ScoreMRI(Replacement):
    """Replacement with y as it is, not noised, through the adjoint: x <- x + lam A^H (y - A x).

    Chung and Ye 2022, "Score-based diffusion models for accelerated MRI", arXiv 2110.05243,
    Algorithms 1 to 4. A -> mask F (S), snr -> r, corrector_steps -> M, hybrid_every -> m,
    hybrid_end -> the last lambda. A must not stretch (|A| <= 1: normalised sensitivities). Where
    its singular values are 0 and 1, as for complex images, this overwrites what was sampled.

    Which of the paper's variants it is depends on the problem and the prior, not on a knob:
      real          RealFourier, a prior of 1 channel
      complex       Fourier, a prior of 2 channels; or PerChannel(prior of 1 channel), which takes
                    real part and imaginary part apart, at twice the cost
      sum of squares  the same with every coil as a measurement of its own; the samples are joined
                    by root_sum_of_squares
      parallel      Sense, one combined image; hybrid_every adds the paper's step
                    x <- x + lambda_i A^H (y - A x) every m steps, lambda_i from 1 to hybrid_end

    order "corrector-first": Algorithms 1 to 3, and the official code for one coil. In that code the
    samplers of several coils are "predictor-first": first the predictor, then the corrector, both
    with the score at the level of the step's start, so that the corrector sees a state that is less
    noisy than it is told; the last predictor keeps its noise for the corrector after it.
    parts "together": the corrector's step size is that of the whole image. "apart": that of each
    channel, as in the official code, which corrects real part and imaginary part by themselves.
    `official(variant)` has both, and the official numbers of steps.

    Published levels are of images whose magnitude is on [0, 1], and so are those of complex images
    with parts on [-1, 1]: the default is right for these. Real images on [-1, 1] want twice as
    much: `official("real", value_range=(-1, 1))`.

    Deviations: the step size of the corrector is per sample (the official code averages it over the
    batch); the predictor is ancestral ("reverse-diffusion" is the official code's). The result is
    the denoised image ("noisy": the official code's, with the noise of the last level where nothing
    was sampled; with "predictor-first" it is the last corrector that leaves its noise out). The
    first state is complex noise where the image is complex (the official code: real), and lambda_i
    ends where it says (the official code divides by 2000 whatever N is). The official hybrid step
    takes images that were weighted by S already, and comes after the first step and every m steps
    from there; here it is that of the combined image, after every m steps. Noise in y
    is not modelled. noised = True noises y to the level of the state, as ScoreSDE does; known_level
    and start have a meaning only then. In place of 4000 evaluations, `ScoreMRI(schedule=Karras(60,
    20, 0.02))` takes 120; docs/short.md tells at what cost.
    """

    name: ClassVar[str] = "score-mri"
    paper: ClassVar[str] = "Chung, Ye 2022, arXiv 2110.05243, Algorithms 1 to 4"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LINEAR})

    when_it_diverges: ClassVar[str] = "an operator scaled to a norm of 1, or a smaller snr"

    noised: bool = knob(False, "noise y to the level of the state before it is pasted")
    final: Literal["denoised", "noisy"] = knob("denoised", "what becomes of the last level's noise")
    hybrid_every: int = knob(0, "one more data step every so many steps; 0 for none", 0)
    hybrid_end: float = knob(0.2, "weight of the last of these, falling linearly from 1", 0, 1)
    order: Literal["corrector-first", "predictor-first"] = knob(
        "corrector-first", "which of the two a step begins with"
    )
    parts: Literal["together", "apart"] = knob(
        "together", "whether the corrector's step size is of the image or of each channel"
    )
    schedule: Schedule = field(default=VE(2000, 378.0, 0.01), kw_only=True)

    @classmethod
    def configurations(cls, value_range: Range = (0.0, 1.0)) -> dict[str, Self]:
        """Scripts of HJ-harry/score-MRI: inference_real.py and inference_single-coil.py, 2000
        steps; inference_multi-coil_SSOS.py and inference_multi-coil_hybrid.py, 500 steps; snr 0.16
        and M 1 in all of them."""

        how: dict[str, Any] = {"predictor": "reverse-diffusion", "parts": "apart"}
        one = how | {"schedule": VE.published(2000, 378.0, 0.01, value_range)}
        coils = how | {"schedule": VE.published(500, 378.0, 0.01, value_range)}
        coils["order"] = "predictor-first"
        return {
            "real": cls(**one),
            "complex": cls(**one),
            "sum-of-squares": cls(**coils),
            "parallel": cls(hybrid_every=50, **coils),
        }

    @classmethod
    def official(cls, task: str, value_range: Range = (0.0, 1.0)) -> Self:
        """As in `Solver`, but value_range is that of published images if it is not given: of
        complex images, whose magnitude is on [0, 1]."""
        return super().official(task, value_range)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        first = self.order == "predictor-first"
        new = (self._reversed if first else super().step)(state, problem, prior, rng)
        A, x = problem.linear, new.x
        if self.final == "noisy" and new.step == self.num_steps and not first:
            z = rng.normal(x, "last")
            x = x + self.levels[state.step].sigma * (z - self.lam * A.adjoint(A(z)))
        if self.hybrid_every and new.step % self.hybrid_every == 0:
            x = x + self._hybrid_weight(state.step) * A.adjoint(problem.residual(x))
        return State(new.step, x, new.x0)

    def finish(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> Tensor:
        if self.final == "denoised":
            return state.x
        return self._overwrite(state.x, problem, CLEAN, 0.0 * state.x)

    def _reversed(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        """Predictor, then corrector, each followed by the overwrite; both at the first level."""
        level, to = self.levels[state.step], self.levels[state.step + 1]
        last, z = to.s == 0, rng.normal(state.x, "step")
        x0 = prior.x0(state.x, level)
        x = self._predict(state.x, x0, level, to, z) + (level.sigma * z if last else 0.0)
        x = self._overwrite(x, problem, to, rng.normal(x, "known"))
        for m in range(self.corrector_steps):
            z, score = rng.normal(x, f"corrector {m}"), prior.score(x, level)
            size = self._correction(score, z, level, to)
            if last and m == self.corrector_steps - 1 and self.final == "denoised":
                z = 0.0 * z
            x = steps.langevin(x, score, size, z)
            x = self._overwrite(x, problem, to, rng.normal(x, f"known {m}"))
        return State(state.step + 1, x, x0)

    def _norm(self, x: Tensor) -> Tensor:
        if self.parts == "together":
            return super()._norm(x)
        return x.flatten(2).norm(dim=2).reshape(*x.shape[:2], *[1] * (x.ndim - 2))

    def _overwrite(self, x: Tensor, problem: Problem, known: Level, z: Tensor) -> Tensor:
        level = known if self.noised else Level(known.a, 0.0)
        return x + self.lam * problem.linear.adjoint(steps.noised_residual(x, problem, level, z))

    def _hybrid_weight(self, step: int) -> float:
        """Linear in the step, from 1 at the first to hybrid_end at the last."""
        return 1 + (self.hybrid_end - 1) * step / max(self.num_steps - 1, 1)
