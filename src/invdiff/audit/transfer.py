"""What a solver does to each singular value of a normal problem, in closed form.

x ~ N(0, I), y = s x + sigma n with a diagonal operator of several s at once. Most solvers are then
affine in y and in the noise that they draw: x = b + c y + sum_k r_k z_k, mode by mode. One row of a
batch for y, and one for each draw, give b, c and r without any sampling error; a further row of
random numbers shows whether it is so. Of a solver that is not affine, or whose rows see each other,
mean and variance are estimated from samples. A solver that takes only A^T A = c I is given the
modes that are seen one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from invdiff.audit.distance import UNCHANGED
from invdiff.audit.gmm25 import DenseOperator
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.operators.algebra.decoded import decoded
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem
from invdiff.sampling.needs import Need, missing
from invdiff.sampling.run import row_seed, solve
from invdiff.sampling.solver import Solver
from invdiff.sampling.stream import posed_for

SNR = (10.0, 2.5, 1.0, 0.5, 0.25, 0.0)
"""s / sigma of the modes; the last is not seen."""
SIGMA = 0.1
DRAWS = 800
"""Samples where there is no closed form, half of them for each of two y."""
TOLERANCE = 1e-6


class NotAffineError(InvdiffError):
    """The solver has no closed form on this problem."""


@dataclass(frozen=True)
class Impulses(Rng):
    """Noise that is 1 in one draw of each row, and given in the last row; it counts the draws.

    draws: (step, role) to the row in which that draw is 1. given: of the last row.
    """

    draws: dict[tuple[int, str], int] = field(default_factory=dict)
    given: dict[tuple[int, str], Tensor] = field(default_factory=dict)

    def at(self, step: int) -> Rng:
        return replace(self, step=step)

    def rows(self, index: Sequence[int]) -> Rng:
        raise NotAffineError("It draws for some rows alone.")

    def normal(self, like: Tensor, role: str) -> Tensor:
        key = (self.step, role)
        self.draws.setdefault(key, len(self.draws) + 2)
        out = torch.zeros_like(like)
        if len(self.seeds) > 2:
            out[self.draws[key]] = 1
            z = super().normal(like[:1].expand_as(like), role)[-1]
            self.given[key] = z.flatten().double()
            out[-1] = z
        return out

    def uniform(self, like: Tensor, role: str) -> Tensor:
        raise NotAffineError("It draws uniform numbers.")

    def poisson(self, rate: Tensor, role: str) -> Tensor:
        raise NotAffineError("It draws counts.")

    def gamma(self, shape: float, like: Tensor, role: str) -> Tensor:
        raise NotAffineError("It draws gamma numbers.")


@dataclass(frozen=True)
class Transfer:
    """Mean and variance of the samples of each mode, as they depend on y, beside the exact ones.

    offset, coefficient: the mean is offset + coefficient y. variance: given y. All (modes,).
    closed: whether they are free of sampling error. noiseless: whether y was. draws: how many
    samples, where they are not. s: singular value of each mode.
    """

    offset: Tensor
    coefficient: Tensor
    variance: Tensor
    closed: bool
    noiseless: bool
    draws: int = 0
    s: Tensor = field(default_factory=lambda: singular())

    @property
    def sigma(self) -> float:
        """Noise of y."""
        return 0.0 if self.noiseless else SIGMA

    @property
    def exact(self) -> tuple[Tensor, Tensor]:
        """Coefficient and variance of the posterior."""
        total = self.s.square() + self.sigma**2
        safe = torch.where(total > 0, total, 1.0)
        return self.s / safe, torch.where(total > 0, self.sigma**2 / safe, 1.0)

    @property
    def error(self) -> Tensor:
        """Wasserstein-2 distance to the posterior of each mode, mean square over y, (modes,).

        In standard deviations of the posterior of noisy y, also where y had no noise.
        """
        coefficient, variance = self.exact
        spread_y = self.s.square() + self.sigma**2
        mean = self.offset.square() + (self.coefficient - coefficient).square() * spread_y
        width = (self.variance.clamp_min(0).sqrt() - variance.sqrt()).square()
        return ((mean + width) / (SIGMA**2 / (self.s.square() + SIGMA**2))).sqrt()

    @property
    def standard_errors(self) -> tuple[Tensor, Tensor]:
        """Of the coefficient and of the variance, (modes,) each; 0 for a closed form."""
        if self.closed:
            return torch.zeros(len(self.s)), torch.zeros(len(self.s))
        step = (self.s.square() + self.sigma**2).sqrt().clamp_min(1e-12)
        coefficient = (self.variance / self.draws).sqrt() / step
        return coefficient * (self.s > 0), self.variance * math.sqrt(2 / (self.draws - 2))


def apart(closed: Transfer, drawn: Transfer) -> float:
    """The largest difference of coefficients and variances, in standard errors of those drawn."""
    pairs = zip(("coefficient", "variance"), drawn.standard_errors, strict=True)
    off = [(getattr(closed, k) - getattr(drawn, k)).abs() / (se + 1e-9) for k, se in pairs]
    return float(torch.cat(off).max())


def singular() -> Tensor:
    """s of every mode, (modes,), float64."""
    return SIGMA * torch.tensor(SNR, dtype=torch.float64)


def _seen(s: Tensor) -> int:
    """How many modes are seen; they are the first."""
    return int((s > 0).sum())


def _prior(s: Tensor) -> GaussianPrior:
    return GaussianPrior(torch.zeros(1, 1, len(s), dtype=torch.float64), 1.0)


def _problem(y: Tensor, solver: Solver, s: Tensor) -> Problem | None:
    """y (rows, modes seen) as a problem that the solver can take; None where there is none."""
    seen, eye, shape = _seen(s), torch.eye(len(s), dtype=torch.float64), (1, 1, len(s))
    A = DenseOperator(eye[:seen, :seen], s[:seen], eye, shape)
    asked = decoded(A, UNCHANGED) if solver.always_needs(Need.AUTOENCODER) else A
    for noise in (GaussianNoise(SIGMA), NOISELESS):
        problem = Problem(y, asked, noise, shape)
        if not missing(solver, problem, _prior(s)):
            return problem
    return None


def transfer(solver: Solver, simulate: bool = False) -> Transfer | None:
    """The solver's, in closed form where there is one; None where it cannot solve the problem."""
    s = singular()
    if not solver.always_needs(Need.ISOMETRY):
        return _transfer(solver, s, simulate)
    if solver.estimates:  # its level is the task's to give
        return None
    each = [_transfer(solver, value[None], simulate) for value in s[: _seen(s)]]
    found = [one for one in each if one is not None]
    return _together(found) if len(found) == len(each) else None


def _together(each: Sequence[Transfer]) -> Transfer:
    """Modes that were measured one by one."""
    names = ("offset", "coefficient", "variance", "s")
    offset, slope, variance, s = (torch.cat([getattr(one, k) for one in each]) for k in names)
    closed, first = all(one.closed for one in each), each[0]
    return Transfer(offset, slope, variance, closed, first.noiseless, first.draws, s)


def _transfer(solver: Solver, s: Tensor, simulate: bool) -> Transfer | None:
    found = _problem(torch.zeros(1, _seen(s), dtype=torch.float64), solver, s)
    if found is None:
        return None
    if not simulate and not solver.coupled:
        try:
            return _closed(solver, s, found.sigma_y == 0)
        except NotAffineError:
            pass
    return _simulated(solver, s, found.sigma_y == 0)


@torch.no_grad()
def _run(problem: Problem, prior: GaussianPrior, solver: Solver, rng: Rng) -> Tensor:
    problem = posed_for(problem, prior, solver).problem
    state = solver.init(problem, prior, rng.at(-1))
    for step in range(solver.num_steps):
        state = solver.step(state, problem, prior, rng.at(step))
    x = solver.finish(state, problem, prior, rng.at(solver.num_steps))
    return x.double().flatten(1)


def _closed(solver: Solver, s: Tensor, noiseless: bool) -> Transfer:
    seen, prior = _seen(s), _prior(s)
    plain = Impulses((0,))
    first = _problem(torch.zeros(1, seen, dtype=torch.float64), solver, s)
    assert first is not None
    _run(first, prior, solver, plain)
    rows = len(plain.draws) + 3
    y = torch.zeros(rows, seen, dtype=torch.float64)
    y[1] = 1
    y[-1] = torch.linspace(-1.3, 1.7, seen, dtype=torch.float64)
    rng = Impulses(tuple(range(rows)), draws=dict(plain.draws))
    problem = _problem(y, solver, s)
    assert problem is not None
    x = _run(problem, prior, solver, rng)
    offset, columns = x[0], x[1:-1] - x[0]
    z = torch.stack([torch.nn.functional.pad(v, (0, len(s) - len(v))) for v in
                     ([y[-1], *(rng.given[key] for key in rng.draws)])])  # fmt: skip
    if len(rng.draws) != len(plain.draws):
        raise NotAffineError("How often it draws depends on y.")
    told = offset + (columns * z).sum(0)
    size = 1 + (columns * z).abs().sum(0)
    if not bool(((told - x[-1]).abs() < TOLERANCE * size).all()):
        raise NotAffineError("Its samples are not affine in y and the noise, mode by mode.")
    return Transfer(offset, columns[0], columns[1:].square().sum(0), True, noiseless, s=s)


def _simulated(solver: Solver, s: Tensor, noiseless: bool) -> Transfer:
    seen, sigma = _seen(s), 0.0 if noiseless else SIGMA
    far = (s[:seen].square() + sigma**2).sqrt()
    problem = _problem(torch.stack([far, -far]), solver, s)
    assert problem is not None
    result = solve(problem, _prior(s), solver, samples=DRAWS // 2, seed=row_seed(3, 0, 0) % 1000)
    x = result.resampled().double().flatten(2)
    mean, variance = x.mean(1), x.var(1).mean(0)
    coefficient = torch.nn.functional.pad(
        (mean[0] - mean[1])[:seen] / (2 * far), (0, len(s) - seen)
    )
    return Transfer(mean.mean(0), coefficient, variance, False, noiseless, DRAWS, s)


def null_errors(
    draws: int = DRAWS, replicas: int = 200, noiseless: bool = False, s: Tensor | None = None
) -> Tensor:
    """`error` of as many exact samples by the same estimates, (replicas, modes): the null."""
    s = singular() if s is None else s
    seen, sigma, unseen = _seen(s), 0.0 if noiseless else SIGMA, len(s) - _seen(s)
    nothing = torch.zeros(len(s))
    exact = Transfer(nothing, nothing, nothing + 1, False, noiseless, draws, s).exact
    far = (s[:seen].square() + sigma**2).sqrt()
    generator = torch.Generator().manual_seed(11)
    found = []
    for _ in range(replicas):
        z = torch.randn(2, draws // 2, len(s), generator=generator, dtype=torch.float64)
        x = exact[1].sqrt() * z
        centre = torch.nn.functional.pad(exact[0][:seen] * far, (0, unseen))
        x = x + torch.stack([centre, -centre])[:, None]
        mean, variance = x.mean(1), x.var(1).mean(0)
        slope = torch.nn.functional.pad((mean[0] - mean[1])[:seen] / (2 * far), (0, unseen))
        one = Transfer(mean.mean(0), slope, variance, False, noiseless, draws, s)
        found.append(one.error)
    return torch.stack(found)
