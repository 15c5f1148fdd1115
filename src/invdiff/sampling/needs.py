"""What solvers need and problems offer: incompatibility is one sentence, found before the loop."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from invdiff.core import InvdiffError
from invdiff.noise import Coloured, GaussianNoise, Poisson
from invdiff.operators.algebra import Linear, Operator, PseudoInvertible, Spectral
from invdiff.operators.algebra.compose import ComposedPseudoInvertible
from invdiff.operators.algebra.decoded import Decoded, DecodedLinear
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.problem.whiten import whiten

if TYPE_CHECKING:
    from invdiff.sampling.solver import Solver


class Need(Enum):
    """A capability; its value completes the sentence `it needs ...`."""

    PRIOR_VJP = "gradients through the prior"
    OPERATOR_VJP = "gradients through the operator"
    LINEAR = "a linear operator"
    GENERALISED_INVERSE = "a generalised inverse"
    PINV = "a pseudo-inverse"
    SVD = "a singular value decomposition"
    ISOMETRY = "an operator with A^T A a multiple of the identity"
    GAUSSIAN = "Gaussian noise"
    NOISELESS = "a measurement without noise"
    NOISY = "a noise level above 0"
    POISSON = "Poisson noise"
    DENSITY = "noise that has a density"
    AUTOENCODER = "an autoencoder"
    CELLS = "quantised coefficients whose cells are known"
    PIECES = "pixels that are measured one by one, linearly in pieces"
    IMAGE_LINEAR = "an operator that is linear on images"
    GUESS = "a first guess of the image"
    LEARNED_VARIANCE = "a prior that learned its variance"


IMPLIES: dict[Need, frozenset[Need]] = {
    Need.ISOMETRY: frozenset({Need.SVD}),
    Need.SVD: frozenset({Need.PINV}),
    Need.PINV: frozenset({Need.LINEAR, Need.GENERALISED_INVERSE}),
    Need.LINEAR: frozenset({Need.OPERATOR_VJP}),
    Need.CELLS: frozenset({Need.GENERALISED_INVERSE}),
    Need.GENERALISED_INVERSE: frozenset({Need.GUESS}),
}


class Asking(Protocol):
    """What needs something of a problem: a solver, or a sampler of another library."""

    @property
    def name(self) -> str: ...
    def requires(self) -> tuple[frozenset[Need], ...]: ...


class IncompatibleError(InvdiffError):
    """A solver was asked for a problem that it cannot solve."""


def closure(needs: Iterable[Need]) -> frozenset[Need]:
    """needs with all that they imply."""
    found = frozenset(needs)
    more = found.union(*(IMPLIES.get(need, ()) for need in found))
    return found if more == found else closure(more)


def offers(
    problem: Problem, prior: Prior | None = None, white: Problem | None = None
) -> frozenset[Need]:
    """What a problem and a prior provide, derived from their types.

    white: the problem with white noise, where it is known already.

    A composition whose generalised inverse is only an approximation offers it when it was made
    with approximate = True, and not otherwise. Gaussian noise that is not white is what a solver
    sees of it: white, with the operator of `problem.whiten.whiten`.
    """
    image_A, decoded = problem.A, False
    if isinstance(image_A, Decoded | DecodedLinear):  # whitening hides the decoder
        image_A, decoded = image_A.outer, True
    if isinstance(problem.noise, Coloured):
        problem = white or whiten(problem)
    found: set[Need] = set()
    A: Operator = problem.A
    if isinstance(A, Spectral):
        found.add(Need.ISOMETRY if _isometric(A) else Need.SVD)
    elif isinstance(A, Linear):
        found.add(Need.PINV)
    elif isinstance(A, PseudoInvertible) and (_accepted(A) or A.consistent(problem.x_shape)):
        found.add(Need.GENERALISED_INVERSE)
    if A.cells:
        found.add(Need.CELLS)
    if A.pieces:
        found.add(Need.PIECES)
    if decoded:
        found.add(Need.AUTOENCODER)
    if isinstance(image_A, Linear):
        found.add(Need.IMAGE_LINEAR)
    if A.differentiable:
        found.add(Need.OPERATOR_VJP)
    if isinstance(problem.noise, GaussianNoise):
        found |= {Need.GAUSSIAN, Need.NOISELESS if problem.noise.sigma == 0 else Need.NOISY}
    if type(problem.noise) is Poisson:  # read noise is in no Poisson loss
        found.add(Need.POISSON)
    if problem.noise.has_density:
        found.add(Need.DENSITY)
    if A.guesses:
        found.add(Need.GUESS)
    if prior is None or prior.differentiable:
        found.add(Need.PRIOR_VJP)
    if prior is None or prior.learned_variance:
        found.add(Need.LEARNED_VARIANCE)
    return closure(found)


def _isometric(A: Spectral) -> bool:
    """Whether all singular values are equal, up to round-off, and none is 0."""
    low, high = float(A.s.min()), float(A.s.max())
    return 0 < low and high - low <= 1e-6 * high


def _accepted(A: Operator) -> bool:
    return isinstance(A, ComposedPseudoInvertible) and A.approximate


def missing(solver: Solver, problem: Problem, prior: Prior | None = None) -> list[Need]:
    """What solver needs and problem (with prior) lacks, strongest needs only, in a fixed order.

    Of a solver with several sets of needs, the first one that lacks least counts.
    """
    return _lacking(solver, offers(problem, prior))[0]


def _lacking(solver: Asking, offered: frozenset[Need]) -> list[list[Need]]:
    """The shortest lists of what is missing, one for each set of needs that comes nearest."""
    found: list[list[Need]] = []
    for needs in solver.requires():
        lacking = closure(needs) - offered
        implied = frozenset[Need]().union(*(IMPLIES.get(need, ()) for need in lacking))
        strongest = [n for n in Need if n in lacking and n not in implied]
        found += [strongest] if strongest not in found else []
    return [lacking for lacking in found if len(lacking) == min(map(len, found))]


def why_not(
    solver: Asking, problem: Problem, prior: Prior | None = None, white: Problem | None = None
) -> str:
    """One sentence on what is missing; empty when the solver can. white: as in `offers`."""
    ways = _lacking(solver, offers(problem, prior, white))
    if not ways[0]:
        return ""
    A, noise = type(problem.A).__name__, problem.noise
    if isinstance(noise, Coloured):
        A = f"{A} with {type(noise).__name__} noise"
    if isinstance(problem.A, Decoded | DecodedLinear):
        A = f"{A} {type(problem.A.outer).__name__}"
    has = {
        Need.PRIOR_VJP: "this prior offers none",
        Need.GAUSSIAN: f"the noise is {type(noise).__name__}",
        Need.NOISELESS: f"the noise is {noise}",
        Need.NOISY: "there is no noise",
        Need.POISSON: f"the noise is {type(noise).__name__}",
        Need.DENSITY: f"{noise} has none",
        Need.AUTOENCODER: "this prior is of images, not of latents",
        Need.LEARNED_VARIANCE: "this one did not",
    }
    if isinstance(problem.A, PseudoInvertible):  # and yet GENERALISED_INVERSE is missing
        advice = "offers an approximate one only, which approximate=True accepts"
        has[Need.GENERALISED_INVERSE] = f"{A} {advice}"
    reasons = [
        "; ".join(f"it needs {n.value} and {has.get(n, f'{A} offers none')}" for n in lacking)
        for lacking in ways
    ]
    return f"{solver.name} cannot solve {A}: {'; or '.join(reasons)}."


def check(
    solver: Solver,
    problem: Problem,
    prior: Prior | None = None,
    others: Iterable[Solver] = (),
    white: Problem | None = None,
) -> None:
    """Raise IncompatibleError, naming what is missing and which of `others` could do it.

    white: as in `offers`.
    """
    sentence = why_not(solver, problem, prior, white)
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
                f"the problem asks for {have}; {_to_fit(prior.shape, problem.x_shape)}."
            )


def _to_fit(shape: tuple[int | None, ...], x_shape: tuple[int, ...]) -> str:
    """What to do where a prior makes images of another shape."""
    if len(shape) == len(x_shape) == 4 and shape[1] is not None and shape[1] != x_shape[1]:
        if x_shape[1] < shape[1]:
            return f"give a clip of {shape[1]} frames or more, or take another prior"
        return "invdiff.Windows(prior) takes longer clips"
    return (
        "resize or crop the picture, give a published network the option any_size=true, or take "
        "another prior"
    )
