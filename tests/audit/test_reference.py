"""The posterior of a chain by particles, on normal chains, whose posterior is known; the record of
the learned one, and what is said of samples by it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from invdiff.audit import claims, lines, reference
from invdiff.audit.converged import pooled, split_r_hat, standard_error
from invdiff.audit.twisted import Chain, Cloud, cloud, covariances, guides

DOCS = Path(__file__).parents[2] / "docs"
LEVELS, SIGMA = tuple(20 * 0.7**k for k in range(17)), 0.3
A = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.3, -1.0]])
Y = torch.tensor([1.0, -0.4])


def normal() -> tuple[Chain, torch.Tensor]:
    """A chain with the denoiser of N(0, cov), and the covariance of the law that it draws."""
    root = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.5, 0.0], [-0.3, 0.2, 0.4]], dtype=torch.float64)
    e, U = torch.linalg.eigh(root @ root.T)

    def denoise(x: torch.Tensor, s: float) -> torch.Tensor:
        return x @ (U * (e / (e + s**2)) @ U.T).to(x.dtype)

    def pull(x: torch.Tensor, s: float):
        return denoise(x, s), lambda w: denoise(w, s)

    chain, variance = Chain(denoise, LEVELS, 3, pull), torch.full_like(e, LEVELS[0] ** 2)
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


def clouds(inflation: float, gradient: bool, count: int = 400) -> list[Cloud]:
    chain, _ = normal()
    g = torch.Generator().manual_seed(1)
    C = covariances(*chain.draw(2000, g))
    found = guides(chain, C, A, SIGMA, inflation)
    return [cloud(chain, found, A, Y, count, g, gradient) for _ in range(8)]


def test_a_chain_draws_its_law():
    chain, cov = normal()
    x, seen = chain.draw(20_000, torch.Generator().manual_seed(0))
    scale = cov.diagonal().sqrt()
    off = (x.double().T @ x.double() / len(x) - cov) / torch.outer(scale, scale)
    assert len(seen) == len(LEVELS)
    assert float(off.abs().max()) < 5 * math.sqrt(2 / 20_000)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("inflation", [1.0, 2.0])
def test_clouds_find_the_posterior_and_the_evidence_that_are_known(inflation, gradient):
    """Means are held to five standard errors by the spread of the clouds, deviations to 10 %."""
    mean, cov, log_p = posterior(normal()[1])
    g, found = torch.Generator().manual_seed(2), clouds(inflation, gradient)
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


def test_quantiles_and_figures_of_a_law_that_is_known():
    """Of N(2, 3^2) in 60 pixels: exact samples at the floor, moved and narrow ones by as much."""
    g = torch.Generator().manual_seed(4)
    x = 2 + 3 * torch.randn(4000, 60, generator=g).double()
    weight = torch.full((4000,), 1 / 4000, dtype=torch.float64)
    law = reference.law_of(x, weight)
    normal_quantiles = 2 + 3 * torch.special.ndtri(torch.tensor(reference.LEVELS).double())
    assert (law.quantiles.mean(1) - normal_quantiles).abs().max() < 0.05
    few = 2 + 3 * torch.randn(400, 60, generator=g).double()
    exact = reference.figures(few, law)
    assert exact["mean"] == pytest.approx(1 / 20, rel=0.3) and abs(exact["log_sd"]) < 0.02
    moved = reference.figures(few + 3, law)
    assert moved["mean"] == pytest.approx(1, abs=0.1) and moved["w1"] == pytest.approx(1, abs=0.1)
    narrow = reference.figures(2 + (few - 2) / 2, law)
    assert narrow["log_sd"] == pytest.approx(-math.log(2), abs=0.03) and narrow["mean"] < 0.05
    found = reference.null(x, weight, law, 400)
    assert all(abs(exact[k]) <= found[k][1] for k in ("mean", "w1", "directions"))
    assert moved["w1"] > found["w1"][1] and abs(narrow["log_sd"]) > found["log_sd"][1]


def test_weights_count_in_a_law():
    x = torch.tensor([[0.0], [1.0], [5.0]]).double().expand(3, 12)
    law = reference.law_of(x, torch.tensor([0.25, 0.75, 0.0], dtype=torch.float64))
    assert torch.allclose(law.mean, torch.full((12,), 0.75, dtype=torch.float64))
    assert law.quantiles[:, 0].tolist() == [0.0] * 4 + [1.0] * 12


def test_r_hat_sees_clouds_that_differ():
    x = torch.randn(6, 400, 3, generator=torch.Generator().manual_seed(5))
    assert (split_r_hat(x) - 1).abs().max() < 0.02
    x[0] += 2
    assert (split_r_hat(x) > 1.1).all()


def test_clouds_are_weighed_by_their_evidence():
    one, none = torch.ones(4, 2), torch.zeros(4)
    both = [Cloud(one, none, 0.0, 4), Cloud(3 * one, none, math.log(3), 4)]
    x, weight = pooled(both)
    law = reference.law_of(x, weight)
    assert torch.allclose(law.mean, torch.full((2,), 2.5, dtype=torch.float64))
    expected = math.sqrt(((0.25 * 1.5) ** 2 + (0.75 * 0.5) ** 2) / (1 - 0.25**2 - 0.75**2))
    assert torch.allclose(standard_error(both), torch.full((2,), expected).double())


def test_the_committed_reference_converged_and_two_methods_agree():
    """R-hat of the median pixel below 1.1; means that differ by what their standard errors make
    likely (three of them), and by a quarter of what the prior differs at most."""
    found = json.loads(reference.FILE.read_text())
    assert set(found["cases"]) == set(reference.CASES)
    for case, one in found["cases"].items():
        own, other, agree = *one["convergence"].values(), one["agreement"]
        assert own["clouds"] >= 3 and other["clouds"] >= 2
        assert own["r_hat"][0] < 1.1 and other["r_hat"][0] < 1.1, case
        prior = one["prior"][str(reference.GROWN)]["mean"]
        assert agree["mean"] < 3 * agree["expected"] and agree["mean"] < prior / 4
        assert one["sd_over_prior"] < 0.7  # far from the prior
        law = reference.law(case)
        assert law.axes.shape == (reference.DIRECTIONS, 784)
        assert (law.quantiles.diff(dim=0) >= 0).all()
        assert (law.quantiles.mean(0) - law.mean)[law.counted].abs().max() < 0.05
        y = reference.measurement(case)
        assert y.shape == reference.problem_of(case, y).y.shape


def test_exact_samples_are_nearer_than_the_prior():
    for one in reference.record()["cases"].values():
        for size in (reference.FEW, reference.MANY, reference.GROWN):
            exact, prior = one["null"][str(size)], one["prior"][str(size)]
            assert all(exact[k][1] < abs(prior[k]) for k in ("mean", "w1", "directions"))


def test_a_solver_is_measured_by_the_reference():
    solver = reference.preset("spectral-ancestral", "x4")
    found = reference.measured(solver, "x4", reference.FEW)
    assert found is not None and found["nfe"] == solver.num_steps and found["vjps"] == 0
    assert 0 < found["mean"] < found["prior"]["mean"]
    assert reference.measured(reference.preset("ddnm", "x4"), "x4", reference.FEW) is None


def test_solvers_approach_posteriors_as_particles_are_added():
    """Two on the mixture, and one on the learned prior. When this fails, measure it:

    invdiff audit --quick --only growth --resume --out docs
    """
    found = [x for x in lines.read(DOCS / lines.NAME)[1] if x["part"] == "growth"]
    good = [x["item"].split("/")[2] for x in found if claims.approaches(x["values"])]
    assert good.count("mixture") >= 2 and good.count("x4") >= 1
    assert all(x["claim"] == "asymptotic" for x in found)


def test_what_does_not_approach_is_found():
    base, null = dict.fromkeys(reference.FIGURES, 1.0), {k: [0.1, 0.2] for k in reference.FIGURES}
    near = dict.fromkeys(base, 0.15)
    falls = {"1": base, "16": base, "256": near | {"mean": 0.5}, "null": null}
    assert claims.approaches(falls)
    assert not claims.approaches({"1": base, "256": base | {"mean": 0.1}, "null": null})
    assert not claims.approaches({"1": near, "256": near, "null": null})
