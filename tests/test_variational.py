"""Families of laws: their determinants, gradients and rows, and what they refuse."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from helpers import seeded
from invdiff.core import InvdiffError
from invdiff.solvers.families import DiagonalFamily, Family, RealNVP

SHAPE = (1, 2, 3)
FAMILIES: dict[str, Family] = {
    "gaussian": DiagonalFamily(SHAPE),
    "realnvp": RealNVP(SHAPE, flow_steps=3, width=5),
    "realnvp-odd": RealNVP((1, 1, 3), flow_steps=2, width=4),
    "realnvp-pixel": RealNVP((1, 1, 1), flow_steps=2, width=4),
}
each = pytest.mark.parametrize("name", FAMILIES)


def setting(name: str, rows: int = 4) -> tuple[Family, torch.Tensor, torch.Tensor]:
    """A family, weights away from where it starts, and latent rows."""
    q = FAMILIES[name]
    weights = q.start(seeded(q.size, seed=1)) + 0.3 * seeded(q.size, seed=2)
    return q, weights, seeded(rows, *q.shape, seed=3)


@each
def test_determinant(name):
    """log |det dG/dz| by the dense Jacobian of each row."""
    q, weights, z = setting(name)
    x, log_det = q.push(weights, z)
    assert x.shape == z.shape and log_det.shape == (4,)
    for i in range(4):
        J = torch.autograd.functional.jacobian(lambda v: q.push(weights, v)[0], z[i : i + 1])
        J = J.reshape(z[0].numel(), -1)
        assert float(log_det[i]) == pytest.approx(float(torch.linalg.slogdet(J)[1]), abs=1e-10)
    if name == "realnvp":
        assert J.abs().gt(1e-12).all()  # every number depends on every other
        assert log_det.std() > 1e-2


@each
def test_pull_is_the_gradient_in_the_weights(name):
    q, weights, z = setting(name)
    v, c = seeded(*z.shape, seed=4), seeded(4, seed=5)
    x, log_det, pull = q.push_vjp(weights, z)
    assert not x.requires_grad and not log_det.requires_grad and not weights.requires_grad
    d, h = seeded(q.size, seed=6), 1e-6

    def loss(w):
        x, log_det = q.push(w, z)
        return float((v * x).sum() + (c * log_det).sum())

    numeric = (loss(weights + h * d) - loss(weights - h * d)) / (2 * h)
    found = float((pull(v, c) * d).sum())
    assert found == pytest.approx(numeric, rel=1e-6)
    assert found != pytest.approx(1.001 * numeric, rel=1e-6)


@each
def test_a_row_depends_on_its_own_latent(name):
    """In the official code the batch norm of training mode couples the samples of a batch."""
    q, weights, z = setting(name)
    x, log_det = q.push(weights, z)
    for i in range(4):
        own, det = q.push(weights, z[i : i + 1])
        torch.testing.assert_close(own, x[i : i + 1], rtol=0, atol=1e-13)
        torch.testing.assert_close(det, log_det[i : i + 1], rtol=0, atol=1e-13)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_start(name, dtype):
    """Of the noise alone: torch's own generator is neither read nor moved."""
    q = FAMILIES[name]
    noise = seeded(2, q.size, dtype=dtype)
    before = torch.get_rng_state()
    weights = torch.stack([q.start(row) for row in noise])
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(weights, q.start(noise)) and weights.dtype == dtype
    assert not torch.equal(weights[0], weights[1]) or name == "realnvp-pixel"
    z = seeded(3, *q.shape, seed=3, dtype=dtype)
    x, log_det = q.push(weights[0], z)
    assert x.dtype == log_det.dtype == dtype
    if name.startswith("realnvp"):
        assert torch.equal(x, z) and not log_det.any()
    else:
        torch.testing.assert_close(x, z + 0.05 * noise[0, :6].reshape(SHAPE))


def test_diagonal_gaussian_is_its_density():
    """H = E[log |det|] + n/2 log(2 pi e), and a negative std counts as its size."""
    q = DiagonalFamily((1, 1, 2))
    weights = torch.tensor([0.5, -1.0, 2.0, -0.25], dtype=torch.float64)
    x, log_det = q.push(weights, torch.ones(1, 1, 1, 2, dtype=torch.float64))
    assert x.flatten().tolist() == [2.5, -0.75]
    assert float(log_det) == pytest.approx(math.log(0.5))


def test_realnvp_counts_its_weights():
    """Two hidden layers; shift and scale of the other half."""
    n, w = 6, 5
    coupling = (3 * w + w) + (w * w + w) + (2 * 3 * w + 2 * 3)
    assert RealNVP((n,), 3, w).size == 3 * 2 * coupling


def test_realnvp_refuses(monkeypatch):
    with pytest.raises(InvdiffError, match="more than 1e.08; make the images, flow_steps or width"):
        RealNVP((3, 256, 256), 8, 24576)
    monkeypatch.setitem(sys.modules, "zuko.transforms", None)
    q = RealNVP((1, 1, 2), 1, 4)
    with pytest.raises(InvdiffError, match=r"pip install invdiff\[bayes\]"):
        q.push(torch.zeros(q.size), torch.zeros(1, 1, 1, 2))
