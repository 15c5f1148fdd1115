"""Every row of the table, through the exact network of a normal law, gives the exact denoiser.

Each network below is written from what it was trained to predict, in its own frame, and knows
nothing of the table: E[. | x_t] of x0 ~ N(m, C), C diagonal, with x_t = a x0 + s eps.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from invdiff.core import InvdiffError, Level
from invdiff.core.schedules import VP
from invdiff.priors.gaussian import GaussianPrior
from invdiff.priors.precond import (
    NetworkPrior,
    predicts_edm,
    predicts_eps,
    predicts_flow,
    predicts_score,
    predicts_v,
    predicts_x0,
)

F64 = torch.float64
SHAPE = (2, 1, 3)
MEAN = torch.linspace(-1, 2, 6, dtype=F64).reshape(SHAPE)
VAR = torch.linspace(0.05, 3, 6, dtype=F64).reshape(SHAPE)
EXACT = GaussianPrior(MEAN, VAR)
BARS = VP(10).alpha_bars()
SIGMAS = np.sqrt((1 - BARS) / BARS)
X = torch.linspace(-2, 2, 18, dtype=F64).reshape(3, *SHAPE)
DATA = 0.7


def x0_given(xt, a, s):
    return MEAN + a * VAR / (a**2 * VAR + s**2) * (xt - a * MEAN)


def eps_given(xt, a, s):
    return s / (a**2 * VAR + s**2) * (xt - a * MEAN)


def vp(target):
    """A network on the DDPM table that answers at any time, log sigma being linear in between."""

    def net(xt, t):
        assert t.shape == (len(xt),)
        sigma = math.exp(np.interp(float(t[0]), np.arange(len(BARS)), np.log(SIGMAS)))
        a, s = 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)
        return target(xt, a, s)

    return net


def ve(target):
    return lambda x, t: target(x, 1.0, math.exp(float(t[0])))


def score_given(xt, a, s):
    return -eps_given(xt, a, s) / s


def flow_net(xt, t):
    a, s = 1 - float(t[0]), float(t[0])
    return eps_given(xt, a, s) - x0_given(xt, a, s)


def edm_net(x_in, c_noise):
    """Table 1 of Karras et al.: the training target is (x0 - c_skip x) / c_out."""
    sigma = math.exp(4 * float(c_noise[0]))
    x = x_in * math.sqrt(sigma**2 + DATA**2)
    c_skip = DATA**2 / (sigma**2 + DATA**2)
    c_out = sigma * DATA / math.sqrt(sigma**2 + DATA**2)
    return (x0_given(x, 1.0, sigma) - c_skip * x) / c_out


ROWS = {
    "x0": (vp(x0_given), predicts_x0(BARS)),
    "eps": (vp(eps_given), predicts_eps(BARS)),
    "v": (vp(lambda x, a, s: a * eps_given(x, a, s) - s * x0_given(x, a, s)), predicts_v(BARS)),
    "score": (ve(score_given), predicts_score()),
    "sigma score": (ve(lambda x, a, s: s * score_given(x, a, s)), predicts_score(times_sigma=True)),
    "flow": (flow_net, predicts_flow()),
    "edm": (edm_net, predicts_edm(DATA)),
}
FAR = [("edm", row) for row in ("x0", "eps", "v")]  # an index is no logarithm of a sigma: overflow
every_row = pytest.mark.parametrize(("net", "precond"), ROWS.values(), ids=ROWS.keys())


class Toy(nn.Module):
    """eps = w x in `channels` times as many channels; remembers what it was given."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("count", torch.tensor(0))
        self.channels, self.seen = channels, None

    def forward(self, x, t):
        self.seen = (x.detach(), t)
        return torch.cat([(k + 1) * self.w * x for k in range(self.channels)], dim=1)


@every_row
@pytest.mark.parametrize("sigma", [0.0101, 0.03, 0.5, 1.0, 7.7, 150.0])
def test_every_row_is_the_exact_denoiser(net, precond, sigma):
    x = MEAN + math.sqrt(1 + sigma**2) * X
    found = NetworkPrior(net, precond).denoise(x, sigma)
    torch.testing.assert_close(found, EXACT.denoise(x, sigma), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("right", "wrong"), [p for p in itertools.product(ROWS, ROWS) if p not in FAR]
)
def test_a_wrong_row_is_seen(right, wrong):
    """The twin: no row passes for another one at a middling noise level."""
    x = MEAN + 2 * X
    found = NetworkPrior(ROWS[right][0], ROWS[wrong][1]).denoise(x, 0.8)
    close = torch.allclose(found, EXACT.denoise(x, 0.8), rtol=1e-3, atol=1e-3)
    assert close == (right == wrong)


@every_row
def test_gradients_are_exact_too(net, precond):
    x, level = MEAN + 2 * X, Level(0.6, 0.8)
    x0, pull = NetworkPrior(net, precond).x0_vjp(x, level)
    exact, exact_pull = EXACT.x0_vjp(x, level)
    torch.testing.assert_close(x0, exact, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(pull(X), exact_pull(X), rtol=1e-10, atol=1e-10)


@every_row
def test_without_noise_the_image_is_its_own_estimate(net, precond):
    assert torch.equal(NetworkPrior(net, precond).denoise(X, 0.0), X)


@pytest.mark.parametrize("match", ["nearest", "interpolated"])
def test_time_on_the_table_is_the_index(match):
    """Round-off of sigma moves an interpolated index by at most eps / (spacing in log sigma)."""
    time = predicts_eps(BARS, match).c_noise
    slack = 0 if match == "nearest" else 16 * 2**-52 / float(np.diff(np.log(SIGMAS)).min())
    assert max(abs(time(float(s)) - i) for i, s in enumerate(SIGMAS)) <= slack


def test_time_between_entries_and_beyond_the_ends():
    nearest, smooth = predicts_eps(BARS, "nearest").c_noise, predicts_eps(BARS).c_noise
    between = float(SIGMAS[500] ** 0.7 * SIGMAS[501] ** 0.3)
    assert nearest(between) == 500 and smooth(between) == pytest.approx(500.3, abs=1e-9)
    for time in (nearest, smooth):
        assert time(1e-9) == 0 and time(1e9) == 999


def test_nearest_is_exact_on_the_table_and_not_off_it():
    prior = NetworkPrior(vp(eps_given), predicts_eps(BARS, "nearest"))
    on, off = float(SIGMAS[300]), float(SIGMAS[300] ** 0.5 * SIGMAS[301] ** 0.5)
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(prior.denoise(X, on), EXACT.denoise(X, on), **close)
    assert not torch.allclose(prior.denoise(X, off), EXACT.denoise(X, off), **close)


def test_range_of_noise_levels_is_that_of_the_table():
    prior = NetworkPrior(Toy(), predicts_v(BARS))
    assert prior.sigma_min == pytest.approx(SIGMAS[0], rel=1e-12)
    assert prior.sigma_max == pytest.approx(SIGMAS[-1], rel=1e-12)


def test_a_table_that_ends_in_pure_noise_loses_its_last_entry():
    bars = np.append(BARS[:500], 0.0)
    assert predicts_v(bars).c_noise(1e9) == 499


@pytest.mark.parametrize("bars", [[], [0.5, 0.6], [1.0, 0.5], [0.5, -0.1], [0.5, math.nan]])
def test_a_table_that_does_not_fall_is_refused(bars):
    with pytest.raises(InvdiffError, match="falls strictly"):
        predicts_eps(bars)


def test_learned_variance_is_dropped():
    one, two = (NetworkPrior(Toy(c), predicts_eps(BARS)) for c in (1, 2))
    assert torch.equal(one.denoise(X, 0.5), two.denoise(X, 0.5))


def test_other_output_shapes_are_refused():
    with pytest.raises(InvdiffError, match=r"toy turned \(3, 2, 1, 3\) into \(3, 6, 1, 3\)"):
        NetworkPrior(Toy(3), predicts_eps(BARS), name="toy").denoise(X, 0.5)


def test_network_is_frozen_and_gradients_still_reach_the_image():
    net = Toy().train()
    prior = NetworkPrior(net, predicts_eps(BARS))
    assert not net.training and not net.w.requires_grad
    _, pull = prior.x0_vjp(X, Level(1.0, 0.5))
    assert pull(X).abs().sum() > 0 and net.w.grad is None


@pytest.mark.parametrize("inside", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("outside", [torch.float64, torch.float32])
def test_network_works_in_its_own_precision(inside, outside):
    net = Toy().to(inside)
    x0 = NetworkPrior(net, predicts_eps(BARS, "nearest")).denoise(X.to(outside), float(SIGMAS[998]))
    x_in, time = net.seen
    assert x0.dtype == outside and x_in.dtype == inside
    assert time.tolist() == [998.0] * 3


def test_fingerprint_is_that_of_the_weights():
    other = Toy()
    other.w.data += 1
    prints = [NetworkPrior(n, predicts_eps(BARS)).fingerprint for n in (Toy(), Toy(), other)]
    assert prints[0] == prints[1] != prints[2] and prints[0]
    assert NetworkPrior(lambda x, t: x, predicts_flow()).fingerprint == ""


def test_moving_returns_the_prior():
    prior = NetworkPrior(Toy(), predicts_flow())
    assert prior.to("cpu") is prior
