"""The prior: one contract, E[x0 | x0 + sigma eps = x], for every network and every exact law."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from invdiff.core import InvdiffError, Level, leaf, with_gradients
from invdiff.core.arguments import admitted_as
from invdiff.operators.algebra.decoded import Autoencoder
from invdiff.priors.spectrum import ErrorSpectrum


class Prior:
    """A denoiser. Subclasses implement `denoise`; the frame of a schedule is handled here.

    shape: (C, H, W) that images must have, with None for a free size; None for any shape.
    value_range: range of clean images, (low, high).
    sigma_min, sigma_max: noise levels at which the denoiser can be trusted.
    differentiable: whether x0_vjp works.
    learned_variance: whether denoise_v works: a network that learned the variance of its steps.
    autoencoder: of a prior of latents, what makes images of them; None for a prior of images.
    spectrum: covariance of x0 given x, as `invdiff priors measure` found it; None without one.
    tile: images of more than tile * tile pixels are denoised in tiles of about this side, which see
    `overlap` pixels around them; None for images that are denoised whole.
    name: what users call it; fingerprint: a hash of its weights.
    presumed: how it was trained, in words, as far as neither its file nor an option told it.
    """

    made_by: ClassVar[str] = 'invdiff.load_prior("photo")'
    name: str = "prior"
    shape: tuple[int | None, ...] | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    differentiable: bool = True
    learned_variance: bool = False
    autoencoder: Autoencoder | None = None
    spectrum: ErrorSpectrum | None = None
    tile: int | None = None
    overlap: int = 0
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
        return self.denoise(xt / level.a, level.sigma)  # a copy, into which it may write

    def x0_vjp(
        self, xt: Tensor, level: Level, once: bool = False
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """x0(xt) and pull(v) = (d x0 / d xt)^T v: the only place where gradients pass a network.

        once: pull is called once and lets go of the activations as it goes, which takes less
        memory. Else it may be called several times, and keeps them alive until it is dropped.
        """
        with with_gradients():
            x = leaf(xt)
            x0 = self.x0(x, level)
        _check_graph(x0, self.name)

        def pull(v: Tensor) -> Tensor:
            return torch.autograd.grad(x0, x, v, retain_graph=not once)[0]

        return x0.detach(), pull

    def x0_v(self, xt: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """x0(xt) and v of `denoise_v`, in one evaluation."""
        return self.denoise_v(xt / level.a, level.sigma)

    def x0_v_vjp(
        self, xt: Tensor, level: Level, once: bool = False
    ) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """x0(xt), v of `denoise_v` and pull of `x0_vjp`, in one evaluation."""
        with with_gradients():
            x = leaf(xt)
            x0, v = self.x0_v(x, level)
        _check_graph(x0, self.name)

        def pull(u: Tensor) -> Tensor:
            return torch.autograd.grad(x0, x, u, retain_graph=not once)[0]

        return x0.detach(), v.detach(), pull

    def eps(self, xt: Tensor, level: Level) -> Tensor:
        """E[eps | x_t] = (x_t - a x0) / s."""
        return eps_from(xt, self.x0(xt, level), level)

    def score(self, xt: Tensor, level: Level) -> Tensor:
        """grad log p_t(x_t) = (a x0 - x_t) / s^2."""
        return (level.a * self.x0(xt, level) - xt) / level.s**2

    @property
    def fingerprint(self) -> str:
        """Short hash of what defines the prior, that of the prior inside where there is one; empty
        when there is nothing to hash."""
        return self.inner[0].fingerprint if len(self.inner) == 1 else ""

    @property
    def inner(self) -> tuple[Prior, ...]:
        """The priors that this one is made of."""
        return ()

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


def answered(found: Any, x: Tensor, name: str) -> Tensor:
    """What a denoiser made of x. Raises InvdiffError where it is no image like x.

    name: of the denoiser. NaN and infinities are looked for on the CPU, where nothing waits.
    """
    wrong = ""
    if not isinstance(found, Tensor):
        wrong = f"a {type(found).__name__}" if found is not None else "None"
    elif found.shape != x.shape:
        wrong = f"the shape {tuple(found.shape)}"
    elif found.dtype != x.dtype:
        wrong = f"{str(found.dtype).removeprefix('torch.')}"
    elif found.device != x.device:
        wrong = f"a tensor on {found.device}"
    elif found.device.type == "cpu" and not bool(found.detach().sum().isfinite()):
        broken = not bool(found.detach().isfinite().all())
        if broken and bool(x.detach().isfinite().all()):
            wrong = "values that are NaN or infinite"
    if wrong:
        kind = str(x.dtype).removeprefix("torch.")
        raise InvdiffError(
            f"The prior {name} returned {wrong} for an image {tuple(x.shape)} of {kind} on "
            f"{x.device}; a denoiser returns a finite tensor of the shape, type and device of x."
        )
    return cast(Tensor, found)


def _check_graph(x0: Tensor, name: str) -> None:
    """Raise InvdiffError where no gradient leads from x0 to what it was made of."""
    if isinstance(x0, Tensor) and not x0.requires_grad:
        raise InvdiffError(
            f"The prior {name} returned a result without a gradient, which this solver needs; "
            "compute it without detach, no_grad and NumPy, or take a solver that needs none."
        )


def _told(vjp: Callable[..., Any], once: bool) -> dict[str, bool]:
    """once as an argument of the method of a prior, which may be one written without it."""
    return {"once": True} if once and "once" in inspect.signature(vjp).parameters else {}


class Counted(Prior):
    """A prior in a run: what it returns is looked at, and its evaluations and pulls are counted.

    An evaluation is one call, whatever the batch.
    """

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
        return answered(self.prior.denoise(x.clone(), sigma), x, self.name)

    def x0(self, xt: Tensor, level: Level) -> Tensor:
        self.nfe += 1
        return answered(self.prior.x0(xt, level), xt, self.name)

    def denoise_v(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        self.nfe += 1
        x0, v = self.prior.denoise_v(x.clone(), sigma)
        return answered(x0, x, self.name), answered(v, x, self.name)

    def x0_v(self, xt: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        self.nfe += 1
        x0, v = self.prior.x0_v(xt, level)
        return answered(x0, xt, self.name), answered(v, xt, self.name)

    def x0_vjp(
        self, xt: Tensor, level: Level, once: bool = False
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        self.nfe += 1
        x0, pull = self.prior.x0_vjp(xt, level, **_told(self.prior.x0_vjp, once))
        return answered(x0, xt, self.name), self._counted(pull)

    def x0_v_vjp(
        self, xt: Tensor, level: Level, once: bool = False
    ) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        self.nfe += 1
        x0, v, pull = self.prior.x0_v_vjp(xt, level, **_told(self.prior.x0_v_vjp, once))
        return answered(x0, xt, self.name), answered(v, xt, self.name), self._counted(pull)

    def _counted(self, pull: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def counted(v: Tensor) -> Tensor:
            self.vjps += 1
            return pull(v)

        return counted

    @property
    def inner(self) -> tuple[Prior, ...]:
        return (self.prior,)

    @property
    def image_shape(self) -> tuple[int | None, ...] | None:
        return self.prior.image_shape

    @property
    def image_range(self) -> tuple[float, float]:
        return self.prior.image_range


class Denoiser(Prior):
    """Any callable denoiser(x, sigma) -> x0 as a prior, in one line.

    x is a tensor (B, ...) in value_range plus noise, which it may overwrite; sigma a float. The
    result has the shape, dtype and device of x; with solvers that need gradients it is made by
    torch from x. shape: of an image, None for free sizes.
    Raises InvdiffError, here or when it is called, for what is not so.
    """

    def __init__(
        self,
        denoiser: Callable[[Tensor, float], Tensor],
        shape: tuple[int | None, ...] | None = None,
        value_range: tuple[float, float] = (-1.0, 1.0),
        name: str = "denoiser",
    ) -> None:
        self.denoiser = admitted_as(Callable, denoiser, "Denoiser: denoiser")
        self.shape = admitted_as(tuple[int | None, ...] | None, shape, "Denoiser: shape")
        self.value_range = admitted_as(tuple[float, float], value_range, "Denoiser: value_range")
        if not self.value_range[0] < self.value_range[1]:
            raise InvdiffError(
                f"Denoiser: value_range is (low, high) with low < high, found {self.value_range}."
            )
        self.name = admitted_as(str, name, "Denoiser: name")

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return answered(self.denoiser(x.clone(), sigma), x, self.name)
