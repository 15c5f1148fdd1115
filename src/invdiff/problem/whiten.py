"""Whitening: Gaussian noise of any covariance becomes white, and the operator takes the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.noise import (
    Coloured,
    CorrelatedGaussian,
    DiagonalGaussian,
    GaussianNoise,
    StationaryGaussian,
)
from invdiff.operators.algebra import Identity, Linear, Operator
from invdiff.operators.algebra.compose import Affine
from invdiff.operators.algebra.scaling import Scaled, ScaledSpectral, scaled
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.weighted import Mixed, Weighted, Whitening
from invdiff.problem.problem import Problem


def centre(problem: Problem) -> Problem:
    """The problem without the offset of an affine operator: the same for additive noise."""
    A = problem.A
    if isinstance(A, Affine) and problem.noise.additive:
        y = problem.y - A.offset.to(problem.y.device, problem.y.dtype)
        return Problem(y, A.linear, problem.noise, problem.x_shape)
    return problem


def whiten(problem: Problem) -> Problem:
    """The same posterior with white noise: (c L^-1 y, c L^-1 A, c n) for noise L n.

    c is the noise's `level`; a problem whose noise is not `Coloured` is returned as it is. Entries
    with an infinite standard deviation become entries that were not measured. The operator stays
    linear; `Identity`, `Inpaint` and `Weighted` keep their decomposition where entries of the noise
    are independent, and `Identity` where the noise is stationary. log p(y | x) changes by a
    constant, log |det c L^-1|.
    Raises InvdiffError where correlated noise meets an axis that was measured in part, and where
    stationary noise meets a measurement with gaps.
    """
    if not isinstance(problem.noise, Coloured):
        return problem
    problem = centre(problem)
    noise, y, A = problem.noise, problem.y, problem.A
    assert isinstance(noise, Coloured)
    W: Linear
    if isinstance(noise, CorrelatedGaussian):
        _check_whole(problem, noise)
        W = Mixed(noise.level * noise.inverse_factor(y), noise.axis)
    elif isinstance(noise, StationaryGaussian):
        _check_all(problem)
        W = Whitening(noise, (int(y.shape[-2]), int(y.shape[-1])))
    else:
        assert isinstance(noise, DiagonalGaussian)
        W = Weighted((noise.level / noise.sigmas.double()).to(y.device, y.dtype.to_real()))
    return Problem(W(y), _after(W, A, y), GaussianNoise(noise.level), problem.x_shape)


def _after(W: Linear, A: Operator, like: Tensor) -> Operator:
    """W after A, as one operator with a decomposition where both are diagonal."""
    if isinstance(A, Identity):
        return W
    if isinstance(A, Scaled | ScaledSpectral):
        return scaled(_after(W, A.base, like), A.scale)
    if isinstance(W, Weighted) and isinstance(A, Weighted | Inpaint):
        gains = A._as("weights" if isinstance(A, Weighted) else "mask", like)
        return Weighted(W.weights * gains)
    return W @ A


def _check_whole(problem: Problem, noise: CorrelatedGaussian) -> None:
    """Raise InvdiffError unless all of the correlated axis was measured wherever some was."""
    seen = problem.A.restrict(torch.ones_like(problem.y)).real
    axis = seen.flatten(1) if noise.axis is None else seen.movedim(noise.axis, -1)
    if bool((axis != axis[..., :1]).any()):
        raise InvdiffError(
            "Where noise is correlated along an axis, all of the axis was measured or none; "
            "give the covariance of what was measured, or leave out the rest."
        )


def _check_all(problem: Problem) -> None:
    """Raise InvdiffError unless all of y was measured."""
    if not bool(problem.A.restrict(torch.ones_like(problem.y)).all()):
        raise InvdiffError(
            "Where noise is correlated between neighbouring pixels all of them were measured; with "
            "gaps its spectrum tells nothing. Give a level of white noise."
        )
