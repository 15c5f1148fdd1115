"""The proximal step of the data, and where it ends."""

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
def test_it_is_the_least_of_its_sum(name: str) -> None:
    """The gradient of |y - A z|^2 + shift |z - x|^2 is 0, within the tolerance; a sigma changes
    nothing in closed forms, and is kept elsewhere."""
    A, channels, iterates = OPERATORS[name]
    x, y = seeded(2, channels, *SIZE), A(seeded(2, channels, *SIZE, seed=1))
    assert A.iterates(x) is iterates
    z = A.proximal(x, y, SHIFT)
    assert torch.equal(z, x + A.ridge(y - A(x), SHIFT))
    nearer = A.proximal(x, y, SHIFT, sigma=1e-6)
    right = A.adjoint(y - A(x)).flatten(1).norm(dim=1)
    for found, bound in ((z, 1e-3 * right), (nearer, 1e-6 * (SHIFT * x[0].numel()) ** 0.5)):
        gradient = A.adjoint(A(found) - y) + SHIFT * (found - x)
        assert bool((gradient.flatten(1).norm(dim=1) <= 1.01 * bound).all())
    assert torch.equal(nearer, z) is not iterates


@pytest.mark.parametrize("name", ["blur", "three times the blur"])
def test_it_ends_by_the_deviations_of_directions(name: str) -> None:
    """With little noise, where a residual of 1e-3 of the right side is many deviations off."""
    A, channels, _ = OPERATORS[name]
    x, sigma = seeded(2, channels, *SIZE), 1e-4
    shift, y = sigma**2, A(seeded(2, channels, *SIZE, seed=1))
    exact = A.proximal(x, y, shift, sigma=1e-6 * sigma)
    off = [A.proximal(x, y, shift, sigma=s) - exact for s in (0.0, 0.03 * sigma)]
    worst = [float((A(d).square().sum() + shift * d.square().sum()).sqrt()) / sigma for d in off]
    n = x.numel()
    assert worst[0] > 10 * worst[1] and worst[1] <= 0.03 * n**0.5
