"""The prior: one contract, E[x0 | x0 + sigma eps = x], for every network and every exact law."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from invdiff.core import Level
from invdiff.operators.algebra.decoded import Autoencoder
from invdiff.priors.spectrum import ErrorSpectrum


class Prior:
    """A denoiser. Subclasses implement `denoise`; the frame of a path is handled here.

    shape: (C, H, W) that images must have, with None for a free size; None for any shape.
    value_range: range of clean images, (low, high).
    sigma_min, sigma_max: noise levels at which the denoiser can be trusted.
    differentiable: whether x0_vjp works.
    learned_variance: whether denoise_v works: a network that learned the variance of its steps.
    autoencoder: of a prior of latents, what makes images of them; None for a prior of images.
    spectrum: covariance of x0 given x, as `invdiff priors measure` found it; None without one.
    name: what users call it; fingerprint: a hash of its weights.
    presumed: how it was trained, in words, as far as neither its file nor an option told it.
    """

    name: str = "prior"
    shape: tuple[int | None, ...] | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    differentiable: bool = True
    learned_variance: bool = False
    autoencoder: Autoencoder | None = None
    spectrum: ErrorSpectrum | None = None
    presumed: tuple[str, ...] = ()

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """E[x0 | x0 + sigma eps = x], shape of x (B, ...), sigma >= 0."""
        raise NotImplementedError

    def denoise_v(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """denoise(x, sigma) and v, both of the shape of x, in one evaluation; sigma > 0.

        v tells the variance of an ancestral step, from -1 for the lower bound to 1 for the upper
        (Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 15; `steps.spread`).
        """
        raise NotImplementedError

    def x0(self, xt: Tensor, level: Level) -> Tensor:
        """E[x0 | x_t] for x_t = a x0 + s eps, in any frame."""
        if level.s == 0:
            return xt / level.a
        return self.denoise(xt if level.a == 1 else xt / level.a, level.sigma)

    def x0_vjp(self, xt: Tensor, level: Level) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """x0(xt) and pull(v) = (d x0 / d xt)^T v: the only place where gradients pass a network.

        pull may be called several times. It keeps the activations alive until it is dropped.
        """
        with torch.enable_grad():
            x = xt.detach().requires_grad_()
            x0 = self.x0(x, level)

        def pull(v: Tensor) -> Tensor:
            return torch.autograd.grad(x0, x, v, retain_graph=True)[0]

        return x0.detach(), pull

    def x0_v(self, xt: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """x0(xt) and v of `denoise_v`, in one evaluation."""
        return self.denoise_v(xt if level.a == 1 else xt / level.a, level.sigma)

    def x0_v_vjp(
        self, xt: Tensor, level: Level
    ) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """x0(xt), v of `denoise_v` and pull of `x0_vjp`, in one evaluation."""
        with torch.enable_grad():
            x = xt.detach().requires_grad_()
            x0, v = self.x0_v(x, level)

        def pull(u: Tensor) -> Tensor:
            return torch.autograd.grad(x0, x, u, retain_graph=True)[0]

        return x0.detach(), v.detach(), pull

    def eps(self, xt: Tensor, level: Level) -> Tensor:
        """E[eps | x_t] = (x_t - a x0) / s."""
        return eps_from(xt, self.x0(xt, level), level)

    def score(self, xt: Tensor, level: Level) -> Tensor:
        """grad log p_t(x_t) = (a x0 - x_t) / s^2."""
        return (level.a * self.x0(xt, level) - xt) / level.s**2

    @property
    def fingerprint(self) -> str:
        """Short hash of what defines the prior; empty when there is nothing to hash."""
        return ""

    @property
    def image_shape(self) -> tuple[int | None, ...] | None:
        """Shape of the images that are looked for: `shape` but for a prior of latents."""
        return self.shape

    @property
    def image_range(self) -> tuple[float, float]:
        """Range of the images that are looked for: `value_range` but for a prior of latents."""
        return self.value_range

    def to(self, device: torch.device | str) -> Prior:
        """The prior on another device."""
        return self


def eps_from(xt: Tensor, x0: Tensor, level: Level) -> Tensor:
    """(x_t - a x0) / s: the noise that explains x_t by x0."""
    return (xt - level.a * x0) / level.s


class Counted(Prior):
    """A prior that counts its evaluations (one per call, whatever the batch) and its pulls."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self.nfe = 0
        self.vjps = 0
        self.name, self.shape, self.value_range = prior.name, prior.shape, prior.value_range
        self.sigma_min, self.sigma_max = prior.sigma_min, prior.sigma_max
        self.differentiable, self.autoencoder = prior.differentiable, prior.autoencoder
        self.spectrum = prior.spectrum
        self.learned_variance = prior.learned_variance

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        self.nfe += 1
        return self.prior.denoise(x, sigma)

    def x0(self, xt: Tensor, level: Level) -> Tensor:
        self.nfe += 1
        return self.prior.x0(xt, level)

    def denoise_v(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        self.nfe += 1
        return self.prior.denoise_v(x, sigma)

    def x0_v(self, xt: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        self.nfe += 1
        return self.prior.x0_v(xt, level)

    def x0_vjp(self, xt: Tensor, level: Level) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        self.nfe += 1
        x0, pull = self.prior.x0_vjp(xt, level)
        return x0, self._counted(pull)

    def x0_v_vjp(
        self, xt: Tensor, level: Level
    ) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        self.nfe += 1
        x0, v, pull = self.prior.x0_v_vjp(xt, level)
        return x0, v, self._counted(pull)

    def _counted(self, pull: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def counted(v: Tensor) -> Tensor:
            self.vjps += 1
            return pull(v)

        return counted

    @property
    def image_shape(self) -> tuple[int | None, ...] | None:
        return self.prior.image_shape

    @property
    def image_range(self) -> tuple[float, float]:
        return self.prior.image_range

    @property
    def fingerprint(self) -> str:
        return self.prior.fingerprint


class Denoiser(Prior):
    """Any callable denoiser(x, sigma) -> x0 as a prior, in one line."""

    def __init__(
        self,
        denoiser: Callable[[Tensor, float], Tensor],
        shape: tuple[int | None, ...] | None = None,
        value_range: tuple[float, float] = (-1.0, 1.0),
        name: str = "denoiser",
    ) -> None:
        self.denoiser, self.shape, self.value_range, self.name = denoiser, shape, value_range, name

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return self.denoiser(x, sigma)
