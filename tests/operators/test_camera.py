"""The response curve, bracketed exposures and photon counts."""

from __future__ import annotations

import math

import pytest
import torch

from helpers import seeded
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import Poisson
from invdiff.operators import Bracket, CameraResponse, Operator, PseudoInvertible, to_photons

EPS = torch.finfo(torch.float64).eps


def srgb(u: float) -> float:
    """IEC 61966-2-1 with its rounded constants."""
    return 12.92 * u if u <= 0.0031308 else 1.055 * u ** (1 / 2.4) - 0.055


def test_the_default_response_is_srgb():
    u = torch.linspace(0, 1, 1001).double()
    y = (CameraResponse()(2 * u - 1) + 1) / 2
    expected = torch.tensor([srgb(float(v)) for v in u]).double()
    # the standard rounds the toe's slope and end: the curves differ by at most the jump there
    assert (y - expected).abs().max() < 4e-5
    assert (CameraResponse(2.2)(2 * u - 1) - (2 * expected - 1)).abs().max() > 0.01


@pytest.mark.parametrize("curve", [CameraResponse(), CameraResponse(1.8, 0.2), CameraResponse(1)])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_inverse_is_the_inverse(curve, reverse):
    """For all numbers, those beyond [-1, 1] too; rising, smooth, slopes finite."""
    A = curve.inverse() if reverse else curve
    x = torch.linspace(-3, 3, 2001).double()
    y = A(x)
    # the error of y, eps |y|, counts as much more in x as the curve is flatter (slope 1/13 at most)
    torch.testing.assert_close(A.pinv(y), x, rtol=0, atol=64 * EPS * 13)
    slope = A.vjp(x, torch.ones_like(x))
    assert torch.isfinite(slope).all() and (slope > 0).all()
    h = 1e-6
    torch.testing.assert_close((A(x + h) - A(x - h)) / (2 * h), slope, rtol=0, atol=1e-4)


def test_the_toe_touches_the_curve():
    """Value and slope agree on both sides of where the toe ends."""
    end, slope = CameraResponse()._toe()
    at = torch.tensor([end / slope]).double()
    for d in (-1e-9, 1e-9):
        x = 2 * (at + d) - 1
        torch.testing.assert_close(
            CameraResponse()(x) / 2 + 0.5, torch.tensor([end]).double() + slope * d
        )
        torch.testing.assert_close(
            CameraResponse().vjp(x, torch.ones(1).double()),
            torch.tensor([slope]).double(),
            rtol=1e-5,
            atol=0,
        )


def test_bracket_is_its_formula():
    x = torch.tensor([[-1.2, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 3.5]]).double()
    y = Bracket((0.5, 1.0, 4.0))(x)
    assert y.shape == (1, 3, 8) == (1, *Bracket((0.5, 1.0, 4.0)).y_shape((8,)))
    expected = [
        [-1, -1, -0.75, -0.5, -0.25, 0, 0.25, 1],
        [-1, -1, -0.5, 0, 0.5, 1, 1, 1],
        [-1, -1, 1, 1, 1, 1, 1, 1],
    ]
    torch.testing.assert_close(y[0], torch.tensor(expected).double(), rtol=0, atol=4 * EPS)


def test_merging_exposures():
    """All light that one exposure sees comes back; beyond, what the measurement tells."""
    A = Bracket((4.0, 0.5, 1.0))
    x = torch.linspace(-1, 3, 801).double()[None]
    torch.testing.assert_close(A.pinv(A(x)), x, rtol=0, atol=16 * EPS)
    beyond = torch.tensor([[-2.0, 4.0, 100.0]]).double()
    torch.testing.assert_close(A.pinv(A(beyond)), torch.tensor([[-1.0, 3.0, 3.0]]).double())
    wild = 4 * seeded(2, 3, 5, 4)
    torch.testing.assert_close(A(A.pinv(A(wild))), A(wild), rtol=0, atol=16 * EPS)


def test_merging_weighs_as_it_says():
    """One pixel by hand, exposures in any order."""
    y = torch.tensor([[[-0.1], [-0.7], [-0.5]]], dtype=torch.float64)
    found = Bracket((1.5, 0.5, 1.0)).pinv(y)
    above = below = 0.0
    far = 1.0
    for e, v in ((0.5, 0.15), (1.0, 0.25), (1.5, 0.45)):
        far *= (1 - v) ** 2
        above += e * v * far * v
        below += e * v * far * e
    assert float(found) == pytest.approx(2 * above / below - 1, abs=1e-14)


def test_noise_on_what_is_clipped_counts_little():
    """A bright pixel of which the long exposures are white but for noise of 1 %."""
    A = Bracket((0.25, 1.0, 4.0))
    x = torch.full((2000, 1), 3.0).double()  # u = 2: at e = 1/4 half of white, white elsewhere
    y = A(x) + 0.02 * seeded(2000, 3, 1)
    # from the first exposure alone, noise of 0.02 on y is 0.08 on x
    assert (A.pinv(y) - x).square().mean().sqrt() < 0.1


def test_the_whole_camera_has_a_generalised_inverse():
    """A(A^+(A(x))) = A(x) for display values, saturated or not; solvers are offered it."""
    curve = CameraResponse()
    A = curve @ Bracket((0.5, 1.0, 4.0)) @ curve.inverse()
    assert isinstance(A, PseudoInvertible) and A.consistent((3, 5, 4))
    z = A(2 * seeded(2, 3, 5, 4))
    saturated = (z.abs() - 1).abs() < 4 * EPS
    assert saturated.any() and not saturated.all()
    # round-off of the light, eps, counts as the slope of the curve at black, 13, times that
    torch.testing.assert_close(A(A.pinv(z)), z, rtol=0, atol=64 * EPS * 13)


def test_gradients_where_the_sensor_saturates():
    """The derivative; a clipped exposure does not pull, another one does, or all when asked."""
    A, x, v = Bracket((0.5, 1.0, 4.0)), 2 * seeded(2, 3, 5, 4), seeded(2, 3, 3, 5, 4, seed=1)
    torch.testing.assert_close(A.vjp(x, v), Operator.vjp(A, x, v), rtol=0, atol=1e-14)
    truth, far = torch.tensor([[0.2]]).double(), torch.tensor([[2.5]]).double()
    assert A.vjp(far, A(truth) - A(far)).item() < 0
    short_only = Bracket((1.0, 4.0))
    assert short_only.vjp(far, short_only(truth) - short_only(far)).item() == 0
    through = Bracket((1.0, 4.0), straight_through=True)
    assert through.vjp(far, through(truth) - through(far)).item() < 0


def test_photon_counts_agree_with_poisson_noise():
    """Counts of peak 50 drawn in photons are those drawn on the image's scale."""
    A, x = to_photons(50.0), seeded(1, 1, 4, 4).clamp(-0.9, 0.9)
    torch.testing.assert_close(A(x), 25 * (x + 1))
    rng = Rng.of(3)
    counts = Poisson(50.0, black=0.0, white=50.0).sample(A(x), rng)
    scaled = Poisson(50.0).sample(x, rng)
    torch.testing.assert_close(counts, 25 * (scaled + 1), rtol=0, atol=1e-5)
    assert torch.equal(counts, counts.round())


def test_errors_are_sentences():
    for bad in ((), (0.0,), (1.0, -1.0), (float("nan"),), (float("inf"),)):
        with pytest.raises(InvdiffError, match="finite numbers above 0"):
            Bracket(bad)
    for gamma, offset in ((0.5, 0.055), (2.4, 0.0), (float("nan"), 0.1), (2.4, float("inf"))):
        with pytest.raises(InvdiffError, match="gamma from 1 to 5"):
            CameraResponse(gamma, offset)
    zero, finite = "photons above 0", "peak must be a finite"
    for peak, words in ((0.0, zero), (-1.0, zero), (math.inf, finite), (math.nan, finite)):
        with pytest.raises(InvdiffError, match=words):
            to_photons(peak)
