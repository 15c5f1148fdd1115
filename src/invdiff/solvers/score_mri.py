"""score-MRI: predictor-corrector sampling with k-space overwritten by the measurement itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from invdiff.core import Level, Problem, State
from invdiff.needs import Need
from invdiff.paths import VE, Path
from invdiff.priors.base import Prior
from invdiff.rng import Rng
from invdiff.solvers.base import knob
from invdiff.solvers.replacement import Replacement
from invdiff.steps import noised_residual


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

    Deviations: the step size of the corrector is per sample (the official code averages it over the
    batch); the predictor is ancestral ("reverse-diffusion" is the paper's). The result is the
    denoised image ("noisy": the official code's, with the noise of the last level where nothing
    was sampled). The first state is complex noise where the image is complex (the official code:
    real), and lambda_i ends where it says (the official code divides by 2000 whatever N is). The
    official hybrid step takes images that were weighted by S already; here it is that of the
    combined image. Noise in y is not modelled. noised = True noises y to the level of the state, as
    ScoreSDE does; known_level and start have a meaning only then. In place of 4000 evaluations,
    `ScoreMRI(path=Karras(60, 20, 0.02))` takes 120; docs/short.md tells at what cost.
    """

    name: ClassVar[str] = "score-mri"
    paper: ClassVar[str] = "Chung, Ye 2022, arXiv 2110.05243, Algorithms 1 to 4"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LINEAR})

    when_it_diverges: ClassVar[str] = "an operator scaled to a norm of 1, or a smaller snr"

    noised: bool = knob(False, "noise y to the level of the state before it is pasted")
    final: Literal["denoised", "noisy"] = knob("denoised", "what becomes of the last level's noise")
    hybrid_every: int = knob(0, "one more data step every so many steps; 0 for none", 0)
    hybrid_end: float = knob(0.2, "weight of the last of these, falling linearly from 1", 0, 1)
    path: Path = field(default_factory=lambda: VE(2000, 378.0, 0.01), kw_only=True)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        new = super().step(state, problem, prior, rng)
        A, x = problem.linear, new.x
        if self.final == "noisy" and new.step == self.num_steps:
            z = rng.normal(x, "last")
            x = x + self.levels[state.step].sigma * (z - self.lam * A.adjoint(A(z)))
        if self.hybrid_every and new.step % self.hybrid_every == 0:
            x = x + self._hybrid_weight(state.step) * A.adjoint(problem.residual(x))
        return State(new.step, x, new.x0)

    def _overwrite(self, x: Tensor, problem: Problem, known: Level, z: Tensor) -> Tensor:
        level = known if self.noised else Level(known.a, 0.0)
        return x + self.lam * problem.linear.adjoint(noised_residual(x, problem, level, z))

    def _hybrid_weight(self, step: int) -> float:
        """Linear in the step, from 1 at the first to hybrid_end at the last."""
        return 1 + (self.hybrid_end - 1) * step / max(self.num_steps - 1, 1)
