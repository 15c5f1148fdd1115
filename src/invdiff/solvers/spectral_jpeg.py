"""Ancestral sampling for JPEG: every coefficient is drawn within the cell that the file tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.core.rng import Rng
from invdiff.core.schedules import Karras, Schedule
from invdiff.operators.jpeg_cells import Plane, axes, block_variance, planes
from invdiff.priors.base import Prior, eps_from
from invdiff.priors.modes import Covariance, channel_basis
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import Solver, knob
from invdiff.sampling.state import State
from invdiff.solvers.normal import Kind, covariance, own_size, truncated_normal


@dataclass(frozen=True)
class SpectralJPEG(Solver):
    """X ~ N(D, V), its coefficients drawn anew within their cells; then as `spectral-ancestral`.

    Measurements as in Kawar et al. 2022 (DDRM-JPEG, arXiv 2209.11888), who correct means instead.
    The measurement is no number with noise but a set: the file tells the interval of each quantised
    coefficient. Plane by plane, brightness and then the colour differences, is moved along the axis
    that leaves those before it (`jpeg_cells.axes`). Each of its coefficients is drawn from the
    normal law with the mean of D on that axis, and V at the block's frequencies, cut to its cell.
    Coefficients are drawn one by one: neighbours are correlated through D alone. Samples lie in all
    cells before they are rounded to 8 bits, but for blocks that the picture does not fill: these
    are drawn as if it went on by repetition.
    """

    name: ClassVar[str] = "spectral-jpeg"
    paper: ClassVar[str] = "this project; the JPEG form of spectral-ancestral"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CELLS, Need.NOISELESS})

    when_it_diverges: ClassVar[str] = "a lower inflation"

    covariance: Kind = knob(
        "local", "what is known of V: the spectrum and where edges are, the spectrum, or the mean"
    )
    own_scale: float = knob(0.5, "how far the size of V may be the image's own: relative spread", 0)
    inflation: float = knob(1.0, "factor on V", 0.1, 10)
    schedule: Schedule = field(default=Karras(10, 0.5, 0.01), kw_only=True)

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        top, z = self.levels[0], rng.normal(problem.x_like, "init")
        return State(0, top.a * problem.y + top.s * z, problem.y.clone())

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x0, x = prior.x0(state.x, level), state.x / level.a
        V = covariance(prior, level.sigma, x0, self.covariance)
        V = V.scaled(self.inflation * own_size(x - x0, V, level.sigma, self.own_scale))
        X = self._in_cells(x0, x0 + V.root(rng.normal(x0, "x0")), V, problem, rng)
        if to.s == 0:
            return State(state.step + 1, X, X.clone())
        x = steps.ddim(X, eps_from(state.x, X, level), level, to, rng.normal(x0, "step"), 1.0)
        return State(state.step + 1, x, x0)

    def _in_cells(self, x0: Tensor, X: Tensor, V: Covariance, problem: Problem, rng: Rng) -> Tensor:
        """X with the coefficients of each plane drawn within their cells, about those of x0."""
        known = planes(problem.jpeg, problem.y)
        _, groups = channel_basis(tuple(x0.shape[1:2]))
        for k, (plane, axis) in enumerate(zip(known, axes(known), strict=True)):
            along = axis.direction.to(x0)[:, None, None]
            mean = plane.coefficients(
                (X + (along * (x0 - X)).sum(1, keepdim=True) * along).double()
            )
            spectrum = V.diagonal[0, groups.index(min(k, max(groups)))]
            std = abs(axis.gain) * self._std(spectrum, V, plane, mean)
            u = rng.uniform(mean.float(), f"plane {k}").double()
            drawn = truncated_normal(mean, std, *plane.cells, u)
            X = axis.moved(X, plane, drawn - plane.coefficients(X.double()))
        return X

    @staticmethod
    def _std(spectrum: Tensor, V: Covariance, plane: Plane, like: Tensor) -> Tensor:
        """Standard deviation of the coefficients along the plane's axis, (B, rows, columns, 8, 8),
        for an axis of length 1."""
        std = block_variance(spectrum.double(), plane.factors).sqrt()
        if V.factors is None:
            return std.expand_as(like)
        rows, columns = like.shape[1:3]
        local = torch.nn.functional.adaptive_avg_pool2d(V.factors[:, 0].double(), (rows, columns))
        return local.sqrt()[..., None, None] * std
