"""What replacement becomes as its budget grows: with a corrector the posterior, without one not.

Two pixels of a normal law, one of them measured. Every step is affine, x' = P x + q y + R z, and is
read off the solver's own code, so that mean and covariance of long runs are exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from helpers import Recorder
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, VP
from invdiff.noise import NOISELESS
from invdiff.operators import Inpaint
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem
from invdiff.sampling.state import State
from invdiff.solvers.replacement import Replacement

F64 = torch.float64
SHAPE = (1, 1, 2)
SIGMA = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=F64)
PRIOR = GaussianPrior(torch.zeros(SHAPE, dtype=F64), SIGMA)
A = Inpaint(torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2))


@dataclass(frozen=True)
class Impulses(Rng):
    """Row i of a draw is row i of the table of its role."""

    table: dict[str, Tensor] = field(default_factory=dict)

    def normal(self, like: Tensor, role: str) -> Tensor:
        return self.table[role].reshape(like.shape).clone()


def step_matrices(solver: Replacement, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """P (2, 2), q (2,), R (2, draws) of one step; a row of everything shows that it is affine."""
    asked = Recorder((0,), step)
    one = torch.zeros(1, *SHAPE, dtype=F64)
    solver.step(State(step, one, one), Problem(one, A, NOISELESS, SHAPE), PRIOR, asked)
    roles = [role for _, role in asked.asked]
    inputs = torch.eye(3 + 2 * len(roles), dtype=F64)  # x, y, then every draw
    inputs = torch.cat([inputs, torch.linspace(-1.3, 1.7, inputs.shape[1], dtype=F64)[None]])
    x, y = inputs[:, :2].reshape(-1, *SHAPE), torch.zeros(len(inputs), *SHAPE, dtype=F64)
    y[:, 0, 0, 0] = inputs[:, 2]
    table = {role: inputs[:, 3 + 2 * i : 5 + 2 * i] for i, role in enumerate(roles)}
    problem = Problem(y, A, NOISELESS, SHAPE)
    rng = Impulses((0,) * len(inputs), step, table=table)
    out = solver.step(State(step, x, x), problem, PRIOR, rng).x.reshape(-1, 2)
    columns = out[:-1].mT
    torch.testing.assert_close(out[-1], columns @ inputs[-1], rtol=1e-9, atol=1e-9)
    return columns[:, :2], columns[:, 2], columns[:, 3:]


def moments(solver: Replacement) -> tuple[Tensor, Tensor]:
    """Coefficient of y, (2,), and covariance given y, (2, 2), of the samples."""
    mean, covariance = torch.zeros(2, dtype=F64), solver.levels[0].s ** 2 * torch.eye(2, dtype=F64)
    for step in range(solver.num_steps):
        P, q, R = step_matrices(solver, step)
        mean, covariance = P @ mean + q, P @ covariance @ P.mT + R @ R.mT
    return mean, covariance


def error(solver: Replacement, sigma_y: float = 0.0) -> float:
    """Largest error of mean and covariance against the posterior for y = x[0] + sigma_y n."""
    mean, covariance = moments(solver)
    gain = SIGMA[:, 0] / (SIGMA[0, 0] + sigma_y**2)
    exact = SIGMA - gain[:, None] * SIGMA[0]
    return float(max((mean - gain).abs().max(), (covariance - exact).abs().max()))


SCHEDULES = {"ve": lambda n: VE(n, 20.0, 0.01), "vp": lambda n: VP(n, spacing="trailing")}
on_schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def errors(schedule, M, sigma_y=0.0, budgets=(50, 200, 800)):
    """With a larger and larger number of steps; annealed, to stay affine in the noise."""
    solvers = [Replacement(0.3, M, corrector="annealed", schedule=schedule(n)) for n in budgets]
    return [error(solver, sigma_y) for solver in solvers]


@on_schedules
def test_with_a_corrector_replacement_approaches_the_posterior(schedule):
    """Each level is visited for longer as steps grow, and the last ones hold y almost exactly."""
    once = errors(schedule, 1)
    assert once[1] < 0.6 * once[0] and once[2] < 0.6 * once[1]
    assert errors(schedule, 3, budgets=(200,))[0] < 0.6 * once[1]


@on_schedules
def test_without_a_corrector_it_does_not(schedule):
    """Negative twin: why its claim depends on a knob, and replacement alone is `heuristic`."""
    found = errors(schedule, 0)
    assert found[2] > 0.9 * found[0] > 0.25


def test_with_noise_in_y_it_does_not():
    """The measured pixel is y, whatever its noise: the error of its mean is 1 - 1 / (1 + 0.25)."""
    floor = 1 - 1 / (1 + 0.5**2)
    assert min(errors(SCHEDULES["ve"], 1, sigma_y=0.5)) > 0.999 * floor
