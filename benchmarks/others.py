"""Samplers of azula and deepinv on the problems of `particles.py`, with the same exact denoiser.

Both are optional (`pip install azula einops`; `pip install deepinv`, with a torchvision that
matches torch): without one there are no such rows. The denoiser is wrapped as in `invdiff bench`.
The samplers have their own defaults but for what is named; all travel in 100 steps of a VE schedule
from 300 to 0.02.

azula: in float64; mmps is told the covariance of the noise, tds the twist of our isotropic one, and
pgdm takes fresh noise in every step. deepinv: `PosteriorDiffusion` with its ancestral solver, fresh
noise in every step (alpha = 1), the last state denoised; it calls the denoiser in float32. Its
rows are named by what stands for log p(y | x_t) there; its own classes DDRM, DiffPIR and DPS are
made for images on [0, 1], which they cut there, and have no row.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from invdiff.audit.gmm25 import GMM25
from invdiff.bench.peers import azula, deepinv
from invdiff.bench.peers.base import flat
from invdiff.priors.base import Denoiser

Row = Callable[[GMM25, int], Tensor]
STEPS, TOP, BOTTOM, CLOUD = 100, 300.0, 0.02, 16


def rows() -> dict[str, Row]:
    """Samplers by name: samples (size, *x_shape) of a problem. What is not installed is told."""
    return azula_rows() | deepinv_rows()


def matrix(cell: GMM25) -> Tensor:
    """A of a problem, (numbers of y, numbers of x)."""
    return cell.problem.A(
        torch.eye(cell.problem.x_shape[-1], dtype=torch.float64)[:, None, None]
    ).mT


def azula_rows() -> dict[str, Row]:
    """Those of azula."""
    try:
        from azula.guidance import dps, mmps, pgdm, tds
        from azula.linalg.covariance import IsotropicCovariance
        from azula.noise import VESchedule
        from azula.sample import DDPMSampler
    except ImportError as error:
        print(f"azula is left out: {error}", file=sys.stderr)
        return {}

    how: dict[str, Any] = {"steps": STEPS, "silent": True, "dtype": torch.float64}

    def travelled(sampler: Any, cell: GMM25, size: int) -> Tensor:
        x: Tensor = sampler(sampler.init((size, *cell.problem.x_shape), dtype=torch.float64))
        return x

    def seeded(sampler: Any, cell: GMM25, size: int) -> Tensor:
        torch.manual_seed(0)
        return travelled(sampler, cell, size)

    def parts(cell: GMM25) -> tuple[Any, Tensor, Callable[[Tensor], Tensor]]:
        exact = azula.denoiser(cell.prior, VESchedule(BOTTOM, TOP))
        return exact, flat(cell.problem.y.double()), azula.forward(cell.problem)

    def moments(cell: GMM25, size: int, iterations: int) -> Tensor:
        noise = IsotropicCovariance(cell.problem.sigma_y**2)
        guided = mmps.MMPSDenoiser(*parts(cell), noise, solver="cg", iterations=iterations)
        return seeded(DDPMSampler(guided, **how), cell, size)

    def pulled(cell: GMM25, size: int) -> Tensor:
        sampler = pgdm.PGDMSampler(*parts(cell), cell.problem.spectral.pinv, eta=1.0, **how)
        return seeded(sampler, cell, size)

    def descended(cell: GMM25, size: int) -> Tensor:
        return seeded(dps.DPSSampler(*parts(cell), **how), cell, size)

    def twisted(cell: GMM25, size: int) -> Tensor:
        exact, _, _ = parts(cell)
        sampler = tds.TDSSampler(exact, azula.log_twist(cell.problem, data_std=1.0), **how)
        torch.manual_seed(0)
        return torch.cat([travelled(sampler, cell, CLOUD) for _ in range(size // CLOUD)])

    return {
        "azula: mmps, 1 iteration": lambda cell, size: moments(cell, size, 1),
        "azula: mmps, 4 iterations": lambda cell, size: moments(cell, size, 4),
        "azula: tds, 16 particles": twisted,
        "azula: pgdm": pulled,
        "azula: dps": descended,
    }


def deepinv_rows() -> dict[str, Row]:
    """Those of deepinv."""
    try:
        from deepinv.physics import GaussianNoise, LinearPhysics
        from deepinv.sampling import PosteriorDiffusion, VarianceExplodingDiffusion
        from deepinv.sampling.noisy_datafidelity import (
            DPSDataFidelity,
            MomentMatchingDataFidelity,
            PiGDMDataFidelity,
        )
        from deepinv.sampling.sde_solver import AncestralSolver
    except (ImportError, RuntimeError) as error:  # a torchvision that does not match torch
        print(f"deepinv is left out: {error}", file=sys.stderr)
        return {}

    def exact(cell: GMM25) -> torch.nn.Module:
        """The mixture's denoiser, in float64, as deepinv takes it."""
        denoise = cell.prior.denoise
        return deepinv.denoiser(
            Denoiser(lambda x, sigma: denoise(x.double(), sigma).to(x)), unit=False
        )

    def travelled(fidelity: Any, cell: GMM25, size: int) -> Tensor:
        problem, M = cell.problem, matrix(cell).float()
        physics = LinearPhysics(
            A=lambda x, **_: x.flatten(1) @ M.mT.to(x),
            A_adjoint=lambda y, **_: (y @ M.to(y)).reshape(-1, *problem.x_shape),
            noise_model=GaussianNoise(problem.sigma_y),
        )
        sampler = PosteriorDiffusion(
            fidelity,
            exact(cell),
            VarianceExplodingDiffusion(sigma_min=BOTTOM, sigma_max=TOP, alpha=1.0),
            AncestralSolver(
                torch.linspace(1, 0, STEPS + 1, dtype=torch.float64), rng=torch.Generator()
            ),
            minus_one_one=False,
        )
        y = problem.y.float().reshape(1, -1).expand(size, -1)
        x: Tensor = sampler(y, physics, x_init=(size, *problem.x_shape), seed=0)
        return x.double()

    return {
        "deepinv: moment matching": lambda cell, size: travelled(
            MomentMatchingDataFidelity(), cell, size
        ),
        "deepinv: pigdm": lambda cell, size: travelled(PiGDMDataFidelity(), cell, size),
        "deepinv: dps": lambda cell, size: travelled(DPSDataFidelity(), cell, size),
        "deepinv: dps, annealed": lambda cell, size: travelled(
            DPSDataFidelity(guidance="annealed"), cell, size
        ),
    }
