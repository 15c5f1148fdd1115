"""Denoisers of other libraries as priors, in one line each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from invdiff.core import InvdiffError
from invdiff.core.arguments import admitted_as
from invdiff.priors.base import Denoiser
from invdiff.priors.precond import NetworkPrior, predicts_eps

Shape = tuple[int | None, ...]


def from_deepinv(
    denoiser: Callable[[Tensor, float], Tensor], shape: Shape | None = None, name: str = "deepinv"
) -> Denoiser:
    """Any denoiser of deepinv, whose images and noise levels are on [0, 1], as a prior on [-1, 1].

    denoiser(x, sigma): x is (B, C, H, W) on [0, 1], sigma a number on the same scale; frozen, in
    place. shape: as in Prior. A denoiser trained for small noise alone is no prior far above it.
    Raises InvdiffError for a Physics, which `Operator.from_deepinv` takes.
    """
    if not callable(denoiser) or hasattr(denoiser, "A"):
        raise InvdiffError(
            f"A denoiser of deepinv is needed, found {type(denoiser).__name__}; "
            "Operator.from_deepinv takes a Physics."
        )
    _freeze(denoiser)
    return Denoiser(_OnUnitRange(denoiser), shape, name=name)


def from_k_diffusion(
    model: Callable[[Tensor, Tensor], Tensor], shape: Shape | None = None, name: str = "k-diffusion"
) -> Denoiser:
    """A denoiser called as those of k-diffusion are, model(x, sigma) -> x0 with sigma (B,).

    x = x0 + sigma eps is (B, ...) on [-1, 1]; frozen, in place. shape: as in Prior.
    """
    admitted_as(Callable, model, "from_k_diffusion: model")
    _freeze(model)
    return Denoiser(_Batched(model), shape, name=name)


def from_eps_model(
    model: Callable[[Tensor, Tensor], Tensor],
    alphas_cumprod: Sequence[float] | np.ndarray | Tensor,
    shape: Shape | None = None,
    name: str = "eps-model",
) -> NetworkPrior:
    """A network model(x_t, t) -> eps or (eps, variance), trained on a table of alphas_cumprod.

    x_t is (B, C, ...), t (B,) whole numbers, indices of the table, of which the nearest in
    log sigma is taken; frozen, in place. shape: as in Prior. Raises InvdiffError when the table
    does not fall strictly between 1 and 0.
    """
    bars = np.asarray(
        alphas_cumprod.cpu() if isinstance(alphas_cumprod, Tensor) else alphas_cumprod
    )
    return NetworkPrior(_Indexed(model), predicts_eps(bars, "nearest"), shape, name=name)


class _OnUnitRange:
    """A denoiser of images on [0, 1], for images on [-1, 1]."""

    def __init__(self, denoiser: Callable[[Tensor, float], Tensor]) -> None:
        self.denoiser = denoiser

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        inside = ((x + 1) / 2).to(_dtype(self.denoiser, x))
        return _like(2 * self.denoiser(inside, sigma / 2) - 1, x)


class _Batched:
    """A denoiser that takes a noise level for each row."""

    def __init__(self, model: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.model = model

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        inside = x.to(_dtype(self.model, x))
        return _like(self.model(inside, inside.new_full((len(x),), sigma)), x)


def _dtype(model: object, x: Tensor) -> torch.dtype:
    """The floating type of a network's weights; that of x for anything else."""
    weights = model.parameters() if isinstance(model, nn.Module) else ()
    return next((w.dtype for w in weights if w.is_floating_point()), x.dtype)


def _like(found: Tensor, x: Tensor) -> Tensor:
    """A result of the network's floating type in that of x; anything else is looked at later."""
    floating = isinstance(found, Tensor) and found.is_floating_point()
    return found.to(x.dtype) if floating else found


class _Indexed(nn.Module):
    """The model with its time as a whole number."""

    def __init__(self, model: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out: Tensor = self.model(x, time.round().long())
        return out


def _freeze(model: object) -> None:
    if isinstance(model, nn.Module):
        model.eval().requires_grad_(False)
