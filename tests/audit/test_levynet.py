"""Networks of Levy processes: near the exact denoiser, for signals of any size; in the audit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from invdiff.audit import levy, tables
from invdiff.audit.gibbs import LAWS, increments
from invdiff.audit.levynet import SCALES, LevyNet, learned
from invdiff.audit.oracle import Oracle
from invdiff.audit.parts import Budget, items
from invdiff.core import Level
from invdiff.solvers.ddrm import DDRM


def noisy(law: str, sigma: float, count: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(7)
    s = increments(law, count, levy.LENGTH, rng).cumsum(1)
    return s, s + sigma * torch.from_numpy(rng.standard_normal(s.shape))


@pytest.mark.parametrize("sigma", [0.3, 3.0, 30.0])
@pytest.mark.parametrize("law", LAWS)
def test_errors_are_near_those_of_the_exact_denoiser(law: str, sigma: float) -> None:
    """The network's mean lies within a third of the exact one's error of it, in root mean square:
    so far from E[s | x], its own error is at most 0.5 dB above the least there can be."""
    s, x = noisy(law, sigma)
    x = x.reshape(-1, 1, 1, levy.LENGTH)
    exact, found = Oracle(law, 20, 60).denoise(x, sigma), learned(law).denoise(x, sigma)
    least = (exact.flatten(1) - s).square().mean(1)
    apart = (exact - found).flatten(1).square().mean(1)
    assert float(apart.median() / least.median()) < 1 / 9


def test_a_network_knows_a_signal_by_its_size() -> None:
    """Its estimate of 1000 times a signal, at 1000 times the noise of the largest level, is finite;
    gradients pass; one noise level or several are the same."""
    prior, (_, x) = learned("student1"), noisy("student1", 1.0)
    x = x.reshape(-1, 1, 1, levy.LENGTH)
    assert bool(prior.denoise(1000 * x, 1e5).isfinite().all())
    x0, pull = prior.x0_vjp(x, Level(1.0, 1.0))
    back = pull(torch.ones_like(x0))
    step = 1e-2 * torch.ones_like(x)
    ahead = prior.denoise(x + step, 1.0) - prior.denoise(x - step, 1.0)
    slope = ahead.flatten(1).sum(1) / 0.02
    assert torch.allclose(back.flatten(1).sum(1), slope, rtol=0.05, atol=0.05 * 64)
    net = LevyNet(SCALES["bl"]).eval()
    rows, levels = torch.randn(2, levy.LENGTH), torch.tensor([[0.5], [2.0]])
    both = net(rows, levels)[0]
    each = torch.cat([net(rows[i : i + 1], levels[i : i + 1])[0] for i in range(2)])
    assert torch.allclose(both, each, atol=1e-6)


def test_an_audit_measures_solvers_with_networks_too() -> None:
    """Rows of their own, beside what was published; none where none is asked for."""
    how = Budget(laws=("gauss",), operators=("identity",), truths=4, networks=3, chain=50)
    found = {item.name: item for item in items(["ddrm"], ["levy"], how)}
    assert "levy/ddrm, network/gauss,identity" in found and "levy/ddrm/gauss,identity" in found
    lines = [found[n].measured() for n in found if "ddrm" in n]
    assert {len(line["values"]["gap"]) for line in lines} == {3, 4}
    text = "\n".join(tables._levy(lines))
    assert "| `ddrm` | network | 3 |" in text and "| `ddrm` | exact | 4 |" in text
    none = items(["ddrm"], ["levy"], Budget(laws=("gauss",), networks=0))
    assert not any("network" in item.name for item in none)


def test_a_solver_is_as_good_with_a_network_as_with_the_exact_denoiser() -> None:
    """Of DDRM, with Laplace increments, 6 signals: gaps differ by less than half a decibel."""
    gaps = []
    for network in (False, True):
        found = levy.measured(DDRM(), "laplace", "identity", 6, 200, network)
        assert found is not None
        gaps.append(torch.tensor(found["gap"]))
    difference = gaps[1] - gaps[0]
    assert abs(float(difference.mean())) < 0.5
