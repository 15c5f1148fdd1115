"""Does an answer agree with its measurement, and is it an image at all? Without a truth."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.noise import Coloured, GaussianNoise, Poisson, PoissonGaussian
from invdiff.problem import Problem
from invdiff.problem.whiten import centre, whiten
from invdiff.sampling.growth import growth, ringing, usual_growth

MISFIT, EXCESS = 1.5, 0.05
GROWTH, USUAL, RINGING = 3.0, 1.05, 3.5
"""Misfit above which an answer contradicts y, and excess above which it is no image; of an estimate
also growth, where it is USUAL times the usual one too, and ringing. They lie between right and
spoilt answers of `benchmarks/checks.py`. A misfit far below 1 is no contradiction: the noise of
files is supposed with care, and an estimate may keep what was measured as it is."""

SEEN = 100
"""Measured numbers of a frame from which its misfit is told: of noise alone, it is then within 0.3
of 1."""
OUTSIDE = 0.5
"""Distance from the cells of a JPEG file, in half steps, above which an answer contradicts it. It
lies between the answers of spectral-jpeg, pocs, ddrm-jpeg (0.04 at most) and pigdm (0.22) and
another picture (0.94 at least), of `benchmarks/cells.py`: two crops at qualities 10, 40 and 85."""


@dataclass(frozen=True)
class Check:
    """What was found of an answer.

    misfit: rms of (y - A x) / sigma over what was measured, of each sample; 1 for exact samples.
    None where the noise has no level. excess: rms by which values leave the prior's range, over
    half of the range. growth: mean |gradient| of x over that of y, where they have the same shape.
    warnings: sentences, none when all is well. frames: of clips, the misfit of each frame, of the
    sample where it is largest; None of images, and 0 where less than `SEEN` numbers were measured.
    """

    misfit: tuple[float, ...] | None
    excess: float
    growth: float | None
    warnings: tuple[str, ...] = ()
    frames: tuple[float, ...] | None = None

    def as_dict(self) -> dict[str, object]:
        """JSON values."""

        def short(v: float) -> float:
            return float(f"{v:.4g}")

        return {
            "misfit": None if self.misfit is None else [short(m) for m in self.misfit],
            "excess": short(self.excess),
            "growth": None if self.growth is None else short(self.growth),
            "warnings": list(self.warnings),
            **({} if self.frames is None else {"frames": [short(m) for m in self.frames]}),
        }


def misfit(problem: Problem, x: Tensor) -> Tensor:
    """rms of (y - A x) / sigma over the measured numbers of each row, (M,).

    x: (M, *x_shape). Photon noise is compared with its own deviation at A x. Of a file that tells
    cells (JPEG) it is the rms distance of coefficients from their cells, over half a step.
    """
    if problem.A.cells:
        return _outside(problem, x)
    if isinstance(problem.noise, Coloured):
        problem = whiten(problem)
    square, seen = _squares(problem, x)
    return ((square * seen).flatten(1).sum(1) / seen.flatten(1).sum(1)).sqrt()


def misfit_of_frames(problem: Problem, x: Tensor) -> Tensor | None:
    """The misfit of each frame of clips, (M, T); None where y is not of the frames of x.

    0 of frames in which less than `SEEN` numbers were measured, too few to tell.
    """
    y = problem.y
    if y.ndim != 5 or len(problem.x_shape) != 4 or y.shape[2] != problem.x_shape[1]:
        return None
    if isinstance(problem.noise, Coloured):
        problem = whiten(problem)
    square, seen = (t.movedim(2, 1).flatten(2) for t in _squares(problem, x))
    count = seen.sum(2)
    return ((square * seen).sum(2) / count.clamp_min(1)).sqrt() * (count >= SEEN)


def _squares(problem: Problem, x: Tensor) -> tuple[Tensor, Tensor]:
    """|(y - A x) / sigma|^2 of every number, 1 on average, and which were measured."""
    problem = centre(problem)
    z = problem.A(x)
    r = problem.y - z
    seen = problem.A.restrict(torch.ones_like(problem.y)).abs().gt(0)
    return (r / _deviation(problem, z)).abs().square() / (2 if r.is_complex() else 1), seen


def comparable(problem: Problem) -> bool:
    """Whether `misfit` has a level, or cells, to compare with."""
    noise = problem.noise
    if isinstance(noise, Coloured):
        return True
    if isinstance(noise, GaussianNoise):
        return noise.sigma > 0 or problem.A.cells
    return isinstance(noise, Poisson)


def _deviation(problem: Problem, z: Tensor) -> Tensor | float:
    """Standard deviation of the noise of A x = z."""
    noise = problem.noise
    if isinstance(noise, GaussianNoise):
        return max(noise.sigma, 1e-12)
    assert isinstance(noise, Poisson)
    read = noise.read_sigma if isinstance(noise, PoissonGaussian) else 0.0
    return (noise.rate(z).clamp_min(0) + read**2).sqrt().clamp_min(1e-3) / noise.gain


def _outside(problem: Problem, x: Tensor) -> Tensor:
    """rms distance of the coefficients from their cells, over half a step; 0 within."""
    from invdiff.operators.jpeg_cells import planes

    total, count = torch.zeros(len(x), dtype=torch.float64), 0
    for plane in planes(problem.jpeg, problem.y):
        c = plane.coefficients(x.double()) / plane.steps - plane.index
        beyond = (2 * c.abs() - 1).clamp_min(0).square()
        total += beyond.flatten(1).sum(1).cpu()
        count += beyond[0].numel()
    return (total / count).sqrt()


def excess(x: Tensor, value_range: tuple[float, float]) -> float:
    """rms by which values leave the range, over half of it; 0 for a range without an end."""
    low, high = value_range
    if not (math.isfinite(low) and math.isfinite(high)):
        return 0.0
    half = (high - low) / 2
    return float(((x - (low + high) / 2).abs() / half - 1).clamp_min(0).square().mean().sqrt())


def check(
    problem: Problem,
    x: Tensor,
    value_range: tuple[float, float],
    estimate: bool = False,
    white: Problem | None = None,
) -> Check:
    """Compare answers x (M, K, *x_shape) with what was measured.

    estimate: whether x are estimates, whose growth tells ringing; samples are rougher by nature.
    white: the problem with white noise, where it is known already; growth is that over y as given.
    """
    flat = x.flatten(0, 1)
    rows = torch.arange(problem.batch).repeat_interleave(x.shape[1])
    each = problem.rows(rows.to(problem.y.device))
    flat = flat.to(problem.y.device, problem.x_like.dtype)
    judged = each if white is None else white.rows(rows.to(white.y.device))
    found = misfit(judged, flat).tolist() if comparable(problem) else None
    beyond, grown = excess(flat, value_range), growth(each, flat)
    rung = ringing(each, flat) if estimate and grown is not None else None
    frames = None if found is None else misfit_of_frames(judged, flat)
    worst = None if frames is None else tuple(frames.amax(0).tolist())
    return Check(
        None if found is None else tuple(found),
        beyond,
        grown,
        _warnings(problem, found, beyond, grown, rung, estimate, worst),
        worst,
    )


def said_once(warnings: Iterable[str]) -> list[str]:
    """Sentences of the form "what: why" with what has one cause in one sentence."""
    causes = dict[str, list[str]]()
    for text in warnings:
        what, _, why = text.partition(": ")
        causes.setdefault(why or text, []).append(what)
    return [
        why if what == [why] else f"{' and '.join(dict.fromkeys(what))}: {why}"
        for why, what in causes.items()
    ]


def _warnings(
    problem: Problem, found: list[float] | None, beyond: float, grown: float | None,
    rung: float | None, estimate: bool, frames: tuple[float, ...] | None,
) -> tuple[str, ...]:  # fmt: skip
    answer, said = "the estimate" if estimate else "a sample", []
    worst = max(found) if found else 0.0
    if problem.A.cells and worst > OUTSIDE:
        said.append(
            f"{answer} lies outside of what the file allows, by {worst:.1f} half steps of its "
            "quantisation: it shows what was not in the file"
        )
    elif not problem.A.cells and worst > MISFIT:
        said.append(
            f"{answer} misses the measurement by {worst:.1f} times its noise: the operator (a "
            "kernel, a mask, a scale) may be another than the one that made it, or the noise "
            "larger than was told, or the solver does not keep to a measurement like this"
        )
    elif frames and max(frames) > MISFIT:
        said.append(
            f"{answer} misses the measurement in frame {frames.index(max(frames))} by "
            f"{max(frames):.1f} times its noise, and in others it does not: they may have been "
            "measured in another way, or hold what the prior does not know"
        )
    if beyond > EXCESS:
        said.append(
            f"values of {answer} leave the range of images by {100 * beyond:.0f} % of its half: "
            "the noise may be larger than was told, the operator wrong, or the prior of another "
            "kind of images"
        )
    cause = "the kernel may be another than the one that blurred, or the noise larger than was told"
    usual = usual_growth(problem) if estimate and grown and grown > GROWTH else math.inf
    if grown and (usual is None or grown > USUAL * usual):
        expected = "" if usual is None else f", where {usual:.1f} times is usual,"
        said.append(
            f"the estimate is {grown:.1f} times as rough as the measurement{expected} as ringing "
            f"and noise are: {cause}"
        )
    elif rung is not None and rung > RINGING:
        said.append(
            f"the estimate holds {rung:.1f} times as much of the waves that the blur took away as "
            f"of those that it passed, as ringing is: {cause}"
        )
    return tuple(said)
