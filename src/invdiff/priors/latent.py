"""A prior of latents: what a decoder makes of them are images. The operator is composed with it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from invdiff.core import InvdiffError, Level
from invdiff.operators.algebra import Operator
from invdiff.operators.algebra.decoded import Autoencoder, Decoded, DecodedLinear, decoded
from invdiff.priors.base import Prior
from invdiff.problem import Problem


class LatentPrior(Prior):
    """A prior of latents z, and the decoder D whose images x = D(z) are what is looked for.

    prior: of z, with its shape, range and noise levels. decoder: D, (B, *z_shape) to images.
    encoder: E, back; needed by PSLD, ReSample and LATINO, and for the shape of z.
    image_shape: (C, H, W) of images, with None for a free size; None for any shape.
    image_range: of images, (low, high).
    `denoise` and all that follows from it speak of z; `invdiff.solve` composes A with D and returns
    images (Rombach et al. 2022, arXiv 2112.10752).
    """

    def __init__(
        self,
        prior: Prior,
        decoder: Operator,
        encoder: Operator,
        image_shape: tuple[int | None, ...] | None = None,
        image_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        self.prior, self.name = prior, prior.name
        self.autoencoder: Autoencoder = Autoencoder(decoder, encoder)
        self._image_shape, self._image_range = image_shape, image_range
        self.shape, self.value_range = prior.shape, prior.value_range
        self.sigma_min, self.sigma_max = prior.sigma_min, prior.sigma_max
        self.differentiable = prior.differentiable

    @property
    def image_shape(self) -> tuple[int | None, ...] | None:
        return self._image_shape

    @property
    def image_range(self) -> tuple[float, float]:
        return self._image_range

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return self.prior.denoise(x, sigma)

    def x0(self, xt: Tensor, level: Level) -> Tensor:
        return self.prior.x0(xt, level)

    def x0_vjp(
        self, xt: Tensor, level: Level, once: bool = False
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return self.prior.x0_vjp(xt, level, once)

    @property
    def inner(self) -> tuple[Prior, ...]:
        return (self.prior,)

    def to(self, device: torch.device | str) -> LatentPrior:
        parts = self.autoencoder
        coders = parts.decoder.to(device), parts.encoder.to(device)
        prior = self.prior.to(device)
        return LatentPrior(prior, *coders, self.image_shape, self.image_range)


def in_latent_space(problem: Problem, prior: Prior) -> Problem:
    """The problem of the latents: the same y and noise, A after the prior's decoder.

    A problem that is one already, and any problem of a prior of images, is returned as it is.
    Raises InvdiffError when the decoder makes no images of problem.x_shape.
    """
    parts = prior.autoencoder
    if parts is None or isinstance(problem.A, Decoded | DecodedLinear):
        return problem
    z_shape = parts.encoder.y_shape(problem.x_shape)
    made = tuple(parts.decoder.y_shape(z_shape))
    if made != problem.x_shape:
        have, want = (" x ".join(map(str, shape)) for shape in (problem.x_shape, made))
        raise InvdiffError(
            f"The prior {prior.name} decodes images of {want}, but the problem asks for {have}; "
            "resize or crop the picture."
        )
    return Problem(problem.y, decoded(problem.A, parts), problem.noise, z_shape)
