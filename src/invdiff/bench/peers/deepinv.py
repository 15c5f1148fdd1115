"""Samplers of deepinv (github.com/deepinv/deepinv) for a bench.

deepinv has images on [0, 1]: u = (x + 1) / 2 of ours. A linear measurement y = A x + n becomes
(y + A 1) / 2 = A u + n / 2, and one that is not linear y = A(2 u - 1) + n. Its classes DDRM,
DiffPIR and DPS have their own settings; DDRM and DiffPIR have 100 steps, DPS has 1000. pigdm and
mmps are what deepinv has for log p(y | x_t) of these names, within the schedule, the solver and the
number of steps of its class DPS.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from invdiff.bench.peers.base import Draw, Peer
from invdiff.operators.algebra import Linear, Spectral
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling.needs import Need


def denoiser(prior: Prior, unit: bool = True) -> torch.nn.Module:
    """A prior as deepinv calls one: (x, sigma) to E[x0 | x0 + sigma eps = x], (B, *x_shape).

    unit: of images on [0, 1], for a prior on [-1, 1]; else of those of the prior. sigma: a number
    or a tensor of equal ones.
    """

    class Wrapped(torch.nn.Module):
        def forward(self, x: Tensor, sigma: Any, **_: Any) -> Tensor:
            level = float(torch.as_tensor(sigma).flatten()[0])
            if level == 0:
                return x
            if not unit:
                return prior.denoise(x, level)
            return (prior.denoise(2 * x - 1, 2 * level) + 1) / 2

    return Wrapped()


def physics(problem: Problem) -> tuple[Any, Tensor]:
    """The measurement as a `Physics` of images on [0, 1], and its y.

    One with a singular value decomposition is a `DecomposablePhysics`.
    """
    from deepinv.physics import DecomposablePhysics, GaussianNoise, LinearPhysics, Physics

    A, x = problem.A, problem.x_like
    if not isinstance(A, Linear):
        given = Physics(A=lambda u, **_: A(2 * u - 1), noise_model=GaussianNoise(problem.sigma_y))
        return given, problem.y
    y = (problem.y + A(torch.ones_like(x))) / 2
    noise = GaussianNoise(problem.sigma_y / 2)
    if not isinstance(A, Spectral):
        ways = {"A": lambda u, **_: A(u), "A_adjoint": lambda v, **_: A.adjoint(v)}
        return LinearPhysics(noise_model=noise, **ways), y
    c = A.Vt(x)
    given = DecomposablePhysics(
        U=A.U, U_adjoint=A.Ut, V=A.V, V_adjoint=A.Vt, noise_model=noise,
        mask=A.spectrum(c).expand(c.shape).clone(),
    )  # fmt: skip
    return given, y


def _ddrm(problem: Problem, prior: Prior, steps: int, count: int) -> Tensor:
    import numpy as np
    from deepinv.sampling import DDRM

    given, y = physics(problem)
    sampler = DDRM(denoiser(prior), sigmas=np.linspace(1, 0, steps))
    return _back(sampler(y, given))


def _diffpir(problem: Problem, prior: Prior, steps: int, count: int) -> Tensor:
    """Its L2 data term; it is told the level of the noise."""
    from deepinv.optim.data_fidelity import L2
    from deepinv.sampling import DiffPIR

    given, y = physics(problem)
    sampler = DiffPIR(
        denoiser(prior), L2(), sigma=problem.sigma_y / 2, max_iter=steps, device=y.device
    )
    return _back(sampler(y, given))


def _dps(problem: Problem, prior: Prior, steps: int, count: int) -> Tensor:
    from deepinv.sampling import DPS

    given, y = physics(problem)
    sampler = DPS(denoiser(prior), num_steps=steps, device=y.device)
    return _back(sampler(y, given, x_init=(count, *problem.x_shape)))


def _guided(fidelity: str) -> Draw:
    """One of its terms for log p(y | x_t), in what its class DPS does else."""

    def draw(problem: Problem, prior: Prior, steps: int, count: int) -> Tensor:
        from deepinv.sampling import (
            PosteriorDiffusion,
            VariancePreservingDiffusion,
            noisy_datafidelity,
        )
        from deepinv.sampling.sde_solver import DDPMSolver

        given, y = physics(problem)
        times = torch.linspace(1, 0, steps, dtype=torch.float64, device=y.device)
        sampler = PosteriorDiffusion(
            getattr(noisy_datafidelity, fidelity)(),
            denoiser(prior),
            VariancePreservingDiffusion(alpha=1.0, device=y.device),
            DDPMSolver(times),
            device=y.device,
        )
        return _back(sampler(y, given, x_init=(count, *problem.x_shape)))

    return draw


def _back(u: Tensor) -> Tensor:
    """Images on [0, 1] as those on [-1, 1]."""
    return 2 * u - 1


LINEAR = frozenset({Need.LINEAR, Need.GAUSSIAN, Need.NOISY})
GRADIENTS = frozenset({Need.PRIOR_VJP, Need.OPERATOR_VJP})
PEERS = (
    Peer("deepinv:ddrm", 100, frozenset({Need.SVD, Need.GAUSSIAN}), _ddrm),
    Peer("deepinv:diffpir", 100, LINEAR, _diffpir),
    Peer("deepinv:dps", 1000, GRADIENTS, _dps),
    Peer("deepinv:mmps", 1000, LINEAR | {Need.PRIOR_VJP}, _guided("MomentMatchingDataFidelity")),
    Peer("deepinv:pigdm", 1000, LINEAR | {Need.PRIOR_VJP}, _guided("PiGDMDataFidelity")),
)
"""Its samplers."""
