"""What solvers need and problems offer: incompatibility is one sentence, found before the loop."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING

from invdiff.core import InvdiffError, Problem
from invdiff.noise import Gaussian
from invdiff.operators.base import Linear, Operator, Spectral
from invdiff.priors.base import Prior

if TYPE_CHECKING:
    from invdiff.solvers.base import Solver


class Need(Enum):
    """A capability; its value completes the sentence `it needs ...`."""

    PRIOR_VJP = "gradients through the prior"
    OPERATOR_VJP = "gradients through the operator"
    LINEAR = "a linear operator"
    PINV = "a pseudo-inverse"
    SVD = "a singular value decomposition"
    GAUSSIAN = "Gaussian noise"
    NOISELESS = "a measurement without noise"
    NOISY = "a noise level above 0"
    DENSITY = "noise that has a density"


IMPLIES = {Need.SVD: Need.PINV, Need.PINV: Need.LINEAR, Need.LINEAR: Need.OPERATOR_VJP}


class IncompatibleError(InvdiffError):
    """A solver was asked for a problem that it cannot solve."""


def closure(needs: Iterable[Need]) -> frozenset[Need]:
    """needs with all that they imply."""
    found = set(needs)
    for need in list(found):
        while need in IMPLIES:
            need = IMPLIES[need]
            found.add(need)
    return frozenset(found)


def offers(problem: Problem, prior: Prior | None = None) -> frozenset[Need]:
    """What a problem and a prior provide, derived from their types alone."""
    found: set[Need] = set()
    A: Operator = problem.A
    if isinstance(A, Spectral):
        found.add(Need.SVD)
    elif isinstance(A, Linear):
        found.add(Need.PINV)
    elif A.differentiable:
        found.add(Need.OPERATOR_VJP)
    if isinstance(problem.noise, Gaussian):
        found |= {Need.GAUSSIAN, Need.NOISELESS if problem.noise.sigma == 0 else Need.NOISY}
    if problem.noise.has_density:
        found.add(Need.DENSITY)
    if prior is None or prior.differentiable:
        found.add(Need.PRIOR_VJP)
    return closure(found)


def missing(solver: Solver, problem: Problem, prior: Prior | None = None) -> list[Need]:
    """What solver needs and problem (with prior) lacks, strongest needs only, in a fixed order."""
    lacking = closure(solver.needs) - offers(problem, prior)
    implied = {IMPLIES[n] for n in lacking if n in IMPLIES}
    return [n for n in Need if n in lacking and n not in implied]


def why_not(solver: Solver, problem: Problem, prior: Prior | None = None) -> str:
    """One sentence on what is missing; empty when the solver can."""
    lacking = missing(solver, problem, prior)
    if not lacking:
        return ""
    A, noise = type(problem.A).__name__, problem.noise
    has = {Need.PRIOR_VJP: "this prior", Need.GAUSSIAN: f"the noise is {type(noise).__name__}"}
    has[Need.NOISELESS] = f"the noise is {noise}"
    has[Need.NOISY] = "there is no noise"
    has[Need.DENSITY] = f"{noise} has none"
    reasons = []
    for need in lacking:
        reason = has.get(need, f"{A} offers none")
        reason = f"{reason} offers none" if need is Need.PRIOR_VJP else reason
        reasons.append(f"it needs {need.value} and {reason}")
    return f"{solver.name} cannot solve {A}: {'; '.join(reasons)}."


def check(
    solver: Solver,
    problem: Problem,
    prior: Prior | None = None,
    others: Iterable[Solver] = (),
) -> None:
    """Raise IncompatibleError, naming what is missing and which of `others` could do it."""
    sentence = why_not(solver, problem, prior)
    if sentence:
        able = [o.name for o in others if not o.ignores_y and not missing(o, problem, prior)]
        raise IncompatibleError(f"{sentence} These can: {', '.join(able)}." if able else sentence)
    if prior is not None and prior.shape is not None:
        fits = len(prior.shape) == len(problem.x_shape) and all(
            want in (None, have) for want, have in zip(prior.shape, problem.x_shape, strict=True)
        )
        if not fits:
            want = " x ".join("any" if d is None else str(d) for d in prior.shape)
            have = " x ".join(str(d) for d in problem.x_shape)
            axes = "frames x height x width" if len(prior.shape) == 4 else "height x width"
            raise IncompatibleError(
                f"The prior {prior.name} makes images of {want} (channels x {axes}), but "
                f"the problem asks for {have}; resize or crop the picture, or take another prior."
            )
