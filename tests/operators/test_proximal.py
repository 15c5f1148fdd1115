"""The proximal step of the data, with and without an image to begin at."""

from __future__ import annotations

import pytest
import torch

import invdiff.operators as ops
from helpers import seeded
from invdiff.operators.algebra import Linear

SIZE, SHIFT = (16, 12), 0.05
MAPS = ops.ring_maps(4, SIZE).to(torch.complex128)
POINTS = ops.poisson_disc(SIZE, 3.0, 0)
OPERATORS: dict[str, tuple[Linear, int, bool]] = {
    "blur": (ops.Blur(ops.motion_kernel(5, 30.0).double(), SIZE), 3, True),
    "three times the blur": (3.0 * ops.Blur(ops.motion_kernel(5, 30.0).double(), SIZE), 3, True),
    "points of k-space": (ops.Sense(MAPS, POINTS), 2, True),
    "lines of k-space": (ops.Sense(MAPS, ops.equispaced(SIZE, 2)), 2, False),
    "all of k-space": (ops.Sense(MAPS, torch.ones(1, 1, *SIZE)), 2, False),
    "rays": (ops.Radon(ops.sparse_view(9), SIZE, pixel=1 / 16, cg_tol=1e-3), 1, True),
    "bicubic": (ops.Bicubic(2, (16, 12)), 3, False),
    "pixels": (ops.Inpaint.random(SIZE, 0.5, 1), 3, False),
}
"""Operator, channels, and whether it solves by iterations."""


@pytest.mark.parametrize("name", OPERATORS)
def test_it_is_the_least_of_its_sum(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the gradient of |y - A z|^2 + shift |z - x|^2 is 0, within the tolerance, whatever it
    begins at; a change to begin at alters nothing in closed forms, and saves steps elsewhere."""
    A, channels, iterates = OPERATORS[name]
    x, y = seeded(2, channels, *SIZE), A(seeded(2, channels, *SIZE, seed=1))
    assert A.iterates(x) is iterates
    z = A.proximal(x, y, SHIFT)
    assert torch.equal(z, x + A.ridge(y - A(x), SHIFT))
    calls, called = [0], type(getattr(A, "base", A))
    forward = called.__call__

    def counted(self: Linear, x: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return forward(self, x)

    monkeypatch.setattr(called, "__call__", counted)
    counts = []
    for change in (None, z - x):
        calls[0] = 0
        again = A.proximal(x, y, SHIFT, change)
        counts.append(calls[0])
        gradient = A.adjoint(A(again) - y) + SHIFT * (again - x)
        right = A.adjoint(y - A(x))
        left = gradient.flatten(1).norm(dim=1) / right.flatten(1).norm(dim=1)
        assert float(left.max()) <= 1e-3
    assert counts[1] < counts[0] if iterates else torch.equal(again, z)


@pytest.mark.parametrize("name", ["blur", "three times the blur"])
def test_it_ends_within_the_deviation_of_every_direction(name: str) -> None:
    """With little noise, where a residual of 1e-3 of the right side is many deviations off."""
    A, channels, _ = OPERATORS[name]
    x, sigma = seeded(2, channels, *SIZE), 1e-4
    shift, y = sigma**2, A(seeded(2, channels, *SIZE, seed=1))
    exact = A.proximal(x, y, shift, sigma=1e-6 * sigma)
    off = [A.proximal(x, y, shift, sigma=s) - exact for s in (0.0, 0.03 * sigma)]
    worst = [float((A(d).square().sum() + shift * d.square().sum()).sqrt()) / sigma for d in off]
    n = x.numel()
    assert worst[0] > 10 * worst[1] and worst[1] <= 0.03 * n**0.5
