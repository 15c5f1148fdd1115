"""The posterior of a chain by particles: normal chains, whose posterior is known."""

from __future__ import annotations

import math

import pytest
import torch

from invdiff.audit.twisted import Chain, Cloud, cloud, covariances, guides

LEVELS, SIGMA = (20.0, 8.0, 3.0, 1.2, 0.5, 0.2, 0.08), 0.3
A = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.3, -1.0]])
Y = torch.tensor([1.0, -0.4])


def normal() -> tuple[Chain, torch.Tensor]:
    """A chain with the denoiser of N(0, cov), and the covariance of the law that it draws."""
    root = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.5, 0.0], [-0.3, 0.2, 0.4]], dtype=torch.float64)
    e, U = torch.linalg.eigh(root @ root.T)

    def denoise(x: torch.Tensor, s: float) -> torch.Tensor:
        return x @ (U * (e / (e + s**2)) @ U.T).to(x.dtype)

    chain, variance = Chain(denoise, LEVELS, 3), torch.full_like(e, LEVELS[0] ** 2)
    for k, s in enumerate(LEVELS):
        kept, v = chain.move(k)
        d = e / (e + s**2)
        variance = (d + kept * (1 - d)).square() * variance + v
    return chain, U * variance @ U.T


def posterior(cov: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Mean, covariance and log p(y) in closed form."""
    B = A.double()
    S = B @ cov @ B.T + SIGMA**2 * torch.eye(2, dtype=torch.float64)
    gain, y = cov @ B.T @ torch.linalg.inv(S), Y.double()
    log_p = -0.5 * (y @ torch.linalg.solve(S, y) + torch.logdet(S) + 2 * math.log(2 * math.pi))
    return gain @ y, cov - gain @ B @ cov, float(log_p)


def clouds(inflation: float, count: int = 400) -> list[Cloud]:
    chain, _ = normal()
    g = torch.Generator().manual_seed(1)
    C = covariances(*chain.draw(2000, g))
    found = guides(chain, C, A, SIGMA, inflation)
    return [cloud(chain, found, A, Y, count, g) for _ in range(8)]


def test_a_chain_draws_its_law():
    chain, cov = normal()
    x, seen = chain.draw(20_000, torch.Generator().manual_seed(0))
    scale = cov.diagonal().sqrt()
    off = (x.double().T @ x.double() / len(x) - cov) / torch.outer(scale, scale)
    assert len(seen) == len(LEVELS)
    assert float(off.abs().max()) < 5 * math.sqrt(2 / 20_000)


@pytest.mark.parametrize("inflation", [1.0, 2.0])
def test_clouds_find_the_posterior_and_the_evidence_that_are_known(inflation):
    """Means are held to five standard errors by the spread of the clouds, deviations to 10 %."""
    mean, cov, log_p = posterior(normal()[1])
    g, found = torch.Generator().manual_seed(2), clouds(inflation)
    x = torch.stack([c.equal(g) for c in found]).double()
    each = x.mean(1)
    error = each.std(0) / math.sqrt(len(each))
    assert ((each.mean(0) - mean).abs() < 5 * error).all()
    assert (error < 0.1 * cov.diagonal().sqrt()).all()
    assert (x.flatten(0, 1).std(0) / cov.diagonal().sqrt() - 1).abs().max() < 0.1
    evidence = torch.tensor([c.log_evidence for c in found], dtype=torch.float64)
    assert abs(float(evidence.mean()) - log_p) < 5 * float(evidence.std()) / math.sqrt(8) + 0.01
    assert float(evidence.std()) < 0.2
    assert all(1 < c.roots <= 400 for c in found)


def test_without_its_weights_a_guided_chain_is_wrong():
    """The negative twin: a guess of C that is far off, whose weights are left out."""
    chain, law = normal()
    mean, cov, _ = posterior(law)
    g = torch.Generator().manual_seed(3)
    C = [c.diagonal().diag() for c in covariances(*chain.draw(2000, g))]
    found = guides(chain, C, A, SIGMA, 4.0)
    kept = [cloud(chain, found, A, Y, 400, g) for _ in range(8)]
    right = torch.stack([c.equal(g) for c in kept]).double().mean((0, 1))
    wrong = cloud(chain, found, A, Y, 1, g), *(cloud(chain, found, A, Y, 1, g) for _ in range(999))
    off = torch.cat([c.x for c in wrong]).double().mean(0)
    sd = cov.diagonal().sqrt()
    assert float(((right - mean) / sd).abs().max()) < 0.15
    assert float(((off - mean) / sd).abs().max()) > 0.3
