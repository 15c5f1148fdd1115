"""What a user might write, with the types that a type checker must see in it.

`test_types.py` hands it to mypy; nobody imports it. A line that ends in `type: ignore` is a mistake
that must be found: mypy tells of an ignore that is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_type

import torch

import invdiff

x = torch.rand(1, 3, 32, 32)
A = invdiff.Bicubic(4, (32, 32))
noise = invdiff.GaussianNoise(0.02)
y = noise.sample(A(x), invdiff.Rng.of(0))
problem = invdiff.Problem(y, A, noise, (3, 32, 32))
prior = invdiff.load_prior("photo")
solver = invdiff.SpectralAncestral(schedule=invdiff.Karras(14, 3.0, 0.01))
result = invdiff.solve(problem, prior, solver, samples=2, estimator=invdiff.HQS())
states = invdiff.stream(problem, prior, invdiff.DPS(zeta=0.5), seeds=[7])

assert_type(A(x), torch.Tensor)
assert_type(A.pinv(y), torch.Tensor)
assert_type(noise, invdiff.GaussianNoise)
assert_type(invdiff.GaussianNoise.on_unit_range(0.1), invdiff.GaussianNoise)
assert_type(y, torch.Tensor)
assert_type(problem.sigma_y, float)
assert_type(prior, invdiff.Prior)
assert_type(prior.denoise(x, 0.1), torch.Tensor)
assert_type(solver.num_steps, int)
assert_type(solver.with_steps(3), invdiff.SpectralAncestral)
assert_type(result, invdiff.Result)
assert_type(result.samples, torch.Tensor)
assert_type(result.estimate, torch.Tensor | None)
assert_type(result.nfe, int)
assert_type(result.check(prior), dict[str, invdiff.Check])
assert_type(states, Iterator[invdiff.State])
assert_type(next(states).x0, torch.Tensor)
assert_type(invdiff.VP(100).levels(), list[invdiff.Level])
assert_type(invdiff.registry(), dict[str, type[invdiff.Solver]])
assert_type(invdiff.psnr(x, x, prior.value_range), torch.Tensor)
assert_type(invdiff.blur(torch.ones(3, 3) / 9, (32, 32)), invdiff.Linear)
assert_type(invdiff.read_kspace("scan.h5"), invdiff.KSpace)
assert_type(invdiff.__version__, str)


def explain(error: invdiff.InvdiffError) -> str:
    return str(error)


class Half(invdiff.Linear):
    """An operator of one's own."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return y / 2


count: str = result.nfe  # type: ignore[assignment]
invdiff.solve(problem, prior, "dps")  # type: ignore[arg-type]
invdiff.Bicubic("4", (32, 32))  # type: ignore[arg-type]
invdiff.DPS(zetta=1.0)  # type: ignore[call-arg]
unknown = invdiff.sovle  # type: ignore[attr-defined]
hidden = invdiff._GaussianNoise  # type: ignore[attr-defined]
