"""Metrics against closed forms and a second transcription."""

import math
import sys

import pytest
import torch
import torch.nn.functional as F

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise
from invdiff.operators import (
    HDR,
    ClosurePhases,
    CodedDiffraction,
    Identity,
    Interferometry,
    PhaseRetrieval,
    earth_rotation,
)
from invdiff.problem import Problem
from invdiff.problem.metrics import (
    align,
    best_by_residual,
    projected_wasserstein,
    psnr,
    residuals,
    sliced_wasserstein,
    ssim,
)

RANGE = (-1.0, 1.0)


def noise(*shape, role="z", seed=0):
    return Rng.of(seed).normal(torch.empty(1, *shape, dtype=torch.float64), role)[0]


def wang(x: torch.Tensor, ref: torch.Tensor, data_range: float) -> torch.Tensor:
    """Wang et al. 2004, eq. 13 with K1 = 0.01, K2 = 0.03 and an 11 x 11 window of sigma 1.5."""
    taps = torch.exp(-0.5 * (torch.arange(-5, 6, dtype=torch.float64) / 1.5) ** 2)
    taps = taps / taps.sum()
    channels = x.shape[1]
    window = torch.outer(taps, taps).expand(channels, 1, 11, 11)

    def mean(v):
        return F.conv2d(v, window, groups=channels)

    mx, mr = mean(x), mean(ref)
    vx, vr, cov = mean(x * x) - mx**2, mean(ref * ref) - mr**2, mean(x * ref) - mx * mr
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    score = (2 * mx * mr + c1) * (2 * cov + c2) / ((mx**2 + mr**2 + c1) * (vx + vr + c2))
    return score.flatten(1).mean(1)


def test_psnr_of_a_known_error():
    ref = noise(3, 1, 4, 4)
    error = torch.tensor([0.2, 0.02, 2.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    found = psnr(ref + error, ref, RANGE)
    expected = torch.tensor([20.0, 40.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


def test_psnr_does_not_depend_on_the_range_in_which_it_is_computed():
    x, ref = noise(2, 1, 4, 4), noise(2, 1, 4, 4, role="ref")
    as_bytes = psnr(127.5 * (x + 1), 127.5 * (ref + 1), (0.0, 255.0))
    torch.testing.assert_close(as_bytes, psnr(x, ref, RANGE), rtol=1e-12, atol=1e-12)


def test_psnr_of_the_same_image_is_infinite():
    x = noise(2, 1, 4, 4)
    assert psnr(x, x, RANGE).tolist() == [math.inf, math.inf]


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_the_published_one(channels):
    smooth = torch.linspace(0, 6, 20, dtype=torch.float64).sin()
    ref = 0.5 * smooth.outer(smooth).expand(2, channels, 20, 20) + 0.02 * noise(2, channels, 20, 20)
    x = ref + torch.tensor([0.05, 0.5]).reshape(2, 1, 1, 1) * noise(2, channels, 20, 20, role="x")
    found = ssim(x, ref, RANGE)
    torch.testing.assert_close(found, wang(x, ref, 2.0), rtol=0, atol=1e-10)
    assert found[0] > found[1]
    torch.testing.assert_close(ssim(x.float(), ref.float(), RANGE), found, rtol=0, atol=1e-4)


def test_ssim_of_the_same_image_is_1():
    x = noise(2, 3, 16, 16)
    torch.testing.assert_close(ssim(x, x, RANGE), torch.ones(2).double(), rtol=0, atol=1e-12)


def test_ssim_without_its_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    with pytest.raises(InvdiffError, match=r"pip install invdiff\[bench\]"):
        ssim(noise(1, 1, 16, 16), noise(1, 1, 16, 16), RANGE)


@pytest.mark.parametrize("shape", [(1, 1, 10, 16), (1, 16, 16)])
def test_ssim_needs_room_for_its_window(shape):
    with pytest.raises(InvdiffError, match="at least 11"):
        ssim(noise(*shape), noise(*shape), RANGE)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_shapes_must_agree(metric):
    with pytest.raises(InvdiffError, match="equal shapes"):
        metric(noise(1, 3, 16, 16), noise(1, 1, 16, 16), RANGE)


def test_wasserstein_in_one_dimension_is_that_of_sorted_samples():
    a, b = torch.tensor([[3.0], [0.0], [1.0]]), torch.tensor([[2.0], [5.0], [0.5]])
    assert sliced_wasserstein(a, b, 7, 0) == pytest.approx((0.5 + 1 + 2) / 3, rel=1e-14)


def test_order_of_samples_does_not_matter():
    a, b = noise(50, 1, 2, 3), noise(50, 1, 2, 3, role="b")
    # a projection may be added up in another order where its row stands elsewhere
    assert sliced_wasserstein(a, a.flip(0), 50, 0) < 16 * torch.finfo(a.dtype).eps
    distance = sliced_wasserstein(a, b, 50, 0)
    assert distance == pytest.approx(sliced_wasserstein(b, a.flip(0), 50, 0), rel=1e-13)
    assert distance == sliced_wasserstein(a, b, 50, 0) != sliced_wasserstein(a, b, 50, 1)


def test_a_shift_costs_its_mean_projection():
    """Every slice costs |theta . c|; over the sphere of R^4 that has mean 4/(3 pi) |c|
    and mean square |c|^2 / 4, which gives the standard error."""
    a, shift, slices = noise(20, 4), torch.tensor([3.0, 0, 0, 4.0]).double(), 20_000
    mean = 5 * 4 / (3 * math.pi)
    error = math.sqrt((25 / 4 - mean**2) / slices)
    assert abs(sliced_wasserstein(a, a + shift, slices, 0) - mean) < 5 * error
    assert abs(sliced_wasserstein(a, a + 1.05 * shift, slices, 0) - mean) > 5 * error


def test_directions_can_be_given():
    a, shift = noise(20, 4), torch.tensor([3.0, 0, 0, 4.0]).double()
    directions = torch.eye(4).repeat(100, 1)
    assert projected_wasserstein(a, a + shift, directions) == pytest.approx(7 / 4, rel=1e-12)


def test_wasserstein_of_order_2():
    """In one dimension: {0, 0} and {0, 2} are 1 apart in W1, sqrt(2) in W2; over two directions
    squares are averaged, so that (3, 4) is sqrt(25 / 2) away and not 7 / 2."""
    a, b, axis = torch.zeros(2, 1), torch.tensor([[0.0], [2.0]]), torch.ones(1, 1)
    assert projected_wasserstein(a, b, axis) == pytest.approx(1.0)
    assert projected_wasserstein(a, b, axis, order=2) == pytest.approx(math.sqrt(2))
    x, shift = torch.randn(7, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([3.0, 4])
    found = projected_wasserstein(x, x + shift, torch.eye(2), order=2)
    assert found == pytest.approx(math.sqrt(25 / 2), rel=1e-6)


def test_clouds_of_two_sizes_are_refused():
    with pytest.raises(InvdiffError, match="equal shapes"):
        sliced_wasserstein(noise(5, 2), noise(6, 2), 10, 0)


def test_the_sample_that_explains_the_measurement_best_is_chosen():
    """For each measurement on its own; the truth is not asked."""
    A = HDR()
    truth = torch.linspace(-0.4, 0.4, 24, dtype=torch.float64).reshape(2, 1, 3, 4)
    problem = Problem(A(truth), A, GaussianNoise(0.1), (1, 3, 4))
    samples = torch.stack([truth + 0.1, truth, truth - 0.02], dim=1)
    samples[1, :2] = samples[1, [1, 0]]
    found = residuals(samples, problem)
    expected = torch.tensor([[0.2, 0, 0.04], [0, 0.2, 0.04]], dtype=torch.float64) * 12**0.5
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(best_by_residual(samples, problem), truth)
    assert torch.equal(best_by_residual(samples[:, 2:], problem), truth - 0.02)
    for wrong in (truth, samples[:1], samples[..., :2]):
        with pytest.raises(InvdiffError, match=r"have shape \(2, K, 1, 3, 4\)"):
            residuals(wrong, problem)


def test_aligning_undoes_what_the_operator_cannot_tell_and_no_more():
    """Each candidate measures like the reference where it is undone, and not where it is kept."""
    x = torch.zeros(1, 2, 9, 8).double()
    x[..., 2:7, 2:6] = noise(1, 2, 5, 4)
    turned, moved = x.flip(-2, -1), x.roll((1, -2), (-2, -1))
    array = earth_rotation(6, 2, 3.0, seed=2)
    magnitudes, masks = PhaseRetrieval(), CodedDiffraction.random((9, 8), 2, seed=0)
    phases = ClosurePhases(array.triangles()) @ Interferometry(array.uv, (9, 8))
    light = PhaseRetrieval(unit_range=True)
    dark = [2 * v - 1 for v in (x, turned, moved)]  # its border is empty at -1
    undone = [
        (magnitudes, -x, x, 0),
        (magnitudes, turned, x, 0),
        (magnitudes, -moved.flip(-2, -1), x, 2),
        (light, dark[1], dark[0], 0),
        (light, dark[2], dark[0], 2),
        (masks, -x, x, 0),
        (phases, moved, x, 2),
    ]
    for A, candidate, reference, shift in undone:
        torch.testing.assert_close(A(candidate), A(reference), rtol=0, atol=1e-10)
        assert torch.equal(align(candidate, reference, A, shift), reference)
    kept = [(masks, turned), (phases, turned), (phases, -x), (Identity(), -x)]
    for A, candidate in kept:
        assert torch.equal(align(candidate, x, A).abs(), candidate.abs())
        assert (align(candidate, x, A) - x).abs().max() > 0.1
        assert (A(candidate) - A(x)).abs().max() > 0.01
    assert not torch.equal(align(moved, x, magnitudes), x)  # no shift was allowed
    assert not torch.equal(align(-dark[0], dark[0], light), dark[0])  # light has a sign
    assert (light(-dark[0]) - light(dark[0])).abs().max() > 0.01
