"""The Wiener filter is the exact denoiser of the stationary normal law that it was fitted to."""

import torch

from invdiff.priors.gaussian import GaussianPrior
from invdiff.train.wiener import Wiener

SIDE = 4


def stationary(images: torch.Tensor) -> GaussianPrior:
    """The normal law whose covariance is the mean over all shifts of images on a torus."""
    mean = images.mean()
    shifts = [(i, j) for i in range(SIDE) for j in range(SIDE)]
    moved = torch.cat([(images - mean).roll(s, (2, 3)) for s in shifts]).flatten(1)
    return GaussianPrior(mean.expand(1, SIDE, SIDE), moved.mT @ moved / len(moved))


def test_it_is_the_exact_denoiser() -> None:
    g = torch.Generator().manual_seed(0)
    images = torch.randn(7, 1, SIDE, SIDE, generator=g, dtype=torch.float64).cumsum(2) + 0.3
    prior, exact = Wiener(images), stationary(images)
    x = torch.randn(3, 1, SIDE, SIDE, generator=g, dtype=torch.float64)
    for sigma in (0.1, 1.0):
        torch.testing.assert_close(prior.denoise(x, sigma), exact.denoise(x, sigma))
    other = Wiener(images.transpose(2, 3))
    assert not torch.allclose(other.denoise(x, 1.0), exact.denoise(x, 1.0), rtol=1e-2)


def test_channels_are_apart() -> None:
    g = torch.Generator().manual_seed(1)
    images = torch.randn(5, 2, SIDE, 6, generator=g, dtype=torch.float64)
    x = torch.randn(3, 2, SIDE, 6, generator=g, dtype=torch.float64)
    parts = [Wiener(images[:, k : k + 1]).denoise(x[:, k : k + 1], 0.5) for k in range(2)]
    torch.testing.assert_close(Wiener(images).denoise(x, 0.5), torch.cat(parts, 1))
