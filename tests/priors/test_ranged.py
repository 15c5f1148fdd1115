"""A prior of images on another range, as one on [-1, 1]."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invdiff.core import Level
from invdiff.priors.base import Prior
from invdiff.priors.ranged import Ranged

LEVEL = Level(0.6, 0.8)


class Law(Prior):
    """N(mean, std^2) for every pixel, and a v that is the noise level."""

    learned_variance = True
    sigma_min, sigma_max = 0.01, 10.0

    def __init__(self, mean: float, std: float, value_range: tuple[float, float]) -> None:
        self.mean, self.std, self.value_range = mean, std, value_range

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return self.mean + (x - self.mean) * self.std**2 / (self.std**2 + sigma**2)

    def denoise_v(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        return self.denoise(x, sigma), torch.full_like(x, sigma)


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (0.0, 255.0), (-3.0, 1.0)])
def test_it_is_the_same_law_on_another_range(value_range: tuple[float, float]) -> None:
    low, high = value_range
    half = (high - low) / 2
    same = Law(0.2, 0.3, (-1.0, 1.0))
    found = Ranged(Law(low + half * 1.2, half * 0.3, value_range))
    assert found.value_range == (-1.0, 1.0) and found.learned_variance
    assert (found.sigma_min, found.sigma_max) == pytest.approx((0.01 / half, 10 / half))
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(1, 1, 3, 4)
    assert torch.allclose(found.denoise(x, 0.7), same.denoise(x, 0.7), atol=1e-12)
    assert torch.allclose(found.x0(x, LEVEL), same.x0(x, LEVEL), atol=1e-12)
    x0, v = found.x0_v(x, LEVEL)
    assert torch.allclose(x0, same.x0(x, LEVEL), atol=1e-12)
    assert torch.allclose(v, torch.full_like(v, half * LEVEL.sigma))
    (x0, pull), (known, back) = found.x0_vjp(x, LEVEL), same.x0_vjp(x, LEVEL)
    assert torch.allclose(x0, known, atol=1e-12)
    assert torch.allclose(pull(x.sin()), back(x.sin()), atol=1e-12)


def test_a_wrong_range_is_seen() -> None:
    """The negative twin: without the wrapper the two differ."""
    x = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    ranged, same = Law(0.6, 0.15, (0.0, 1.0)), Law(0.2, 0.3, (-1.0, 1.0))
    assert not torch.allclose(ranged.denoise(x, 0.7), same.denoise(x, 0.7), atol=0.01)
