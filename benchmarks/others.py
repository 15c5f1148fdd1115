"""Samplers of azula and deepinv on the problems of `particles.py`, with the same exact denoiser.

Both are optional (`pip install azula einops`; `pip install deepinv`, with a torchvision that
matches torch): without one there are no such rows. The samplers have their own defaults but for
what is named; all travel in 100 steps of a VE schedule from 300 to 0.02.

azula: in float64; mmps is told the covariance of the noise, tds the twist of our isotropic one, and
pgdm takes fresh noise in every step. deepinv: `PosteriorDiffusion` with its ancestral solver, fresh
noise in every step (alpha = 1), the last state denoised; it calls the denoiser in float32. Its
rows are named by what stands for log p(y | x_t) there; its own classes DDRM, DiffPIR and DPS are
made for images on [0, 1], which they cut there, and have no row.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from invdiff.audit.gmm25 import GMM25

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
        from azula.denoise import Denoiser, DiracPosterior
        from azula.guidance import dps, mmps, pgdm, tds
        from azula.linalg.covariance import IsotropicCovariance
        from azula.noise import VESchedule
        from azula.sample import DDPMSampler
    except ImportError as error:
        print(f"azula is left out: {error}", file=sys.stderr)
        return {}

    class Exact(Denoiser):  # type: ignore[misc]
        """The mixture's denoiser, as azula takes it."""

        def __init__(self, cell: GMM25) -> None:
            super().__init__()
            self.cell, self.schedule = cell, VESchedule(BOTTOM, TOP)

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> Any:
            x = x_t.reshape(-1, *self.cell.problem.x_shape)
            mean = self.cell.prior.denoise(x, float(self.schedule(t)[1]))
            return DiracPosterior(mean.reshape(x_t.shape))

    def travelled(sampler: Any, cell: GMM25, size: int) -> Tensor:
        torch.manual_seed(0)
        x = sampler.init((size, math.prod(cell.problem.x_shape)), dtype=torch.float64)
        return sampler(x).reshape(size, *cell.problem.x_shape)

    how: dict[str, Any] = {"steps": STEPS, "silent": True, "dtype": torch.float64}

    def parts(cell: GMM25) -> tuple[Any, Tensor, Callable[[Tensor], Tensor], Any]:
        problem = cell.problem
        M = matrix(cell)
        noise = IsotropicCovariance(problem.sigma_y**2)
        return Exact(cell), problem.y.double(), lambda x: x @ M.mT, noise

    def moments(cell: GMM25, size: int, iterations: int) -> Tensor:
        exact, y, A, noise = parts(cell)
        guided = mmps.MMPSDenoiser(exact, y, A, noise, solver="cg", iterations=iterations)
        return travelled(DDPMSampler(guided, **how), cell, size)

    def pulled(cell: GMM25, size: int) -> Tensor:
        exact, y, A, _ = parts(cell)
        pinv = cell.problem.spectral.pinv
        sampler = pgdm.PGDMSampler(exact, y, A, lambda r: pinv(r).flatten(1), eta=1.0, **how)
        return travelled(sampler, cell, size)

    def descended(cell: GMM25, size: int) -> Tensor:
        exact, y, A, _ = parts(cell)
        return travelled(dps.DPSSampler(exact, y, A, **how), cell, size)

    def twisted(cell: GMM25, size: int) -> Tensor:
        exact, y, A, _ = parts(cell)
        M = A(torch.eye(cell.problem.x_shape[-1], dtype=torch.float64)).mT
        eye = torch.eye(len(M), dtype=torch.float64)

        def log_p(x0: Tensor, sigma: Tensor) -> Tensor:
            S = cell.problem.sigma_y**2 * eye + sigma**2 / (1 + sigma**2) * M @ M.mT
            r = y - A(x0)
            return -0.5 * (r * torch.linalg.solve(S, r.mT).mT).sum(1)

        sampler = tds.TDSSampler(exact, log_p, **how)
        torch.manual_seed(0)
        return torch.cat([_cloud(sampler, cell) for _ in range(size // CLOUD)])

    def _cloud(sampler: Any, cell: GMM25) -> Tensor:
        x = sampler.init((CLOUD, math.prod(cell.problem.x_shape)), dtype=torch.float64)
        return sampler(x).reshape(CLOUD, *cell.problem.x_shape)

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

    class Exact(torch.nn.Module):
        """The mixture's denoiser, as deepinv takes it."""

        def __init__(self, cell: GMM25) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: Tensor, sigma: Any, **_: Any) -> Tensor:
            level = float(torch.as_tensor(sigma).flatten()[0])
            return self.cell.prior.denoise(x.double(), level).to(x)

    def travelled(fidelity: Any, cell: GMM25, size: int) -> Tensor:
        problem, M = cell.problem, matrix(cell).float()
        physics = LinearPhysics(
            A=lambda x, **_: x.flatten(1) @ M.mT.to(x),
            A_adjoint=lambda y, **_: (y @ M.to(y)).reshape(-1, *problem.x_shape),
            noise_model=GaussianNoise(problem.sigma_y),
        )
        sampler = PosteriorDiffusion(
            fidelity,
            Exact(cell),
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
