"""A prior of few channels for images of many."""

from __future__ import annotations

import pytest
import torch

from helpers import seeded
from invdiff.core import InvdiffError, Level
from invdiff.priors.base import Denoiser
from invdiff.priors.channels import PerChannel
from invdiff.priors.gaussian import GaussianPrior

LAW = GaussianPrior(seeded(1, 3, 4), torch.linspace(0.1, 1.0, 12).double().reshape(1, 3, 4))
PAIRS = GaussianPrior(seeded(2, 3, 4), torch.linspace(0.1, 1.0, 24).double().reshape(2, 3, 4))


@pytest.mark.parametrize(("law", "channels"), [(LAW, 1), (PAIRS, 2)])
def test_every_group_is_denoised_by_itself(law, channels):
    x = seeded(3, 4, 3, 4, seed=1)
    found = PerChannel(law, channels).denoise(x, 0.7)
    for k in range(0, 4, channels):
        part = slice(k, k + channels)
        torch.testing.assert_close(found[:, part], law.denoise(x[:, part], 0.7))
    assert not torch.equal(found, found.roll(channels, dims=1))


@pytest.mark.parametrize("level", [Level(1.0, 0.7), Level(0.6, 0.8)])
def test_gradients_are_those_of_the_denoiser(level):
    prior, x, v = PerChannel(LAW), seeded(2, 2, 3, 4, seed=1), seeded(2, 2, 3, 4, seed=2)
    x0, pull = prior.x0_vjp(x, level)
    torch.testing.assert_close(x0, prior.x0(x, level))
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(prior.x0(leaf, level), leaf, v)
    torch.testing.assert_close(pull(v), expected)


def test_it_tells_what_the_prior_tells():
    inner = Denoiser(lambda x, sigma: x, shape=(1, None, 8), name="grey")
    prior = PerChannel(inner)
    assert prior.shape == (None, None, 8) and prior.name == "grey-per-channel"
    assert PerChannel(Denoiser(lambda x, sigma: x)).shape is None
    assert PerChannel(LAW).fingerprint == LAW.fingerprint != ""
    blind = Denoiser(lambda x, sigma: x)
    blind.differentiable = False
    assert not PerChannel(blind).differentiable


def test_channels_that_do_not_divide_are_refused():
    with pytest.raises(InvdiffError, match="groups of 2 channels, found 3"):
        PerChannel(PAIRS, 2).denoise(torch.zeros(1, 3, 3, 4), 1.0)
