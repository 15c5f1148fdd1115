"""Denoisers of other libraries as priors, in one line each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor, nn

from invdiff.core import InvdiffError
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
    return Denoiser(lambda x, s: 2 * denoiser((x + 1) / 2, s / 2) - 1, shape, name=name)


def from_k_diffusion(
    model: Callable[[Tensor, Tensor], Tensor], shape: Shape | None = None, name: str = "k-diffusion"
) -> Denoiser:
    """A denoiser called as those of k-diffusion are, model(x, sigma) -> x0 with sigma (B,).

    x = x0 + sigma eps is (B, ...) on [-1, 1]; frozen, in place. shape: as in Prior.
    """
    _freeze(model)
    return Denoiser(lambda x, s: model(x, x.new_full((len(x),), s)), shape, name=name)


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
