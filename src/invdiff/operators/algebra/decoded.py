"""What is measured of the image that a latent stands for: A after a decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from invdiff.operators.algebra import Linear, Operator
from invdiff.operators.algebra.compose import Composed, ComposedLinear


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """decoder: latents (B, *z_shape) to images (B, *x_shape); encoder: back. Both differentiable.

    The encoder is a function of the image alone: where a network gives a law, its mean.
    """

    decoder: Operator
    encoder: Operator


@dataclass(frozen=True, eq=False)
class Decoded(Composed):
    """A(D(z)): `outer` is A, on images; `inner` is D, the decoder; `encoder` is E, beside it."""

    encoder: Operator

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """(d A(D(z)) / dz)^T v at z, for the cost of one decoding: D is differentiated by torch."""
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            image = self.inner(z)
        uphill = self.outer.vjp(image.detach(), v)
        return torch.autograd.grad(image, z, uphill)[0]

    @property
    def linear(self) -> Linear:
        """A, typed as Linear: for solvers that declared IMAGE_LINEAR, and so were checked."""
        return cast("Linear", self.outer)


@dataclass(frozen=True, eq=False)
class DecodedLinear(ComposedLinear):
    """The same where A and D are both linear: then the exact posterior of z is known too."""

    encoder: Operator

    linear = Decoded.linear


def decoded(A: Operator, autoencoder: Autoencoder) -> Decoded | DecodedLinear:
    """A after the decoder, with the encoder beside it; linear where both are."""
    D, E = autoencoder.decoder, autoencoder.encoder
    if isinstance(A, Linear) and isinstance(D, Linear):
        return DecodedLinear(A, D, E)
    return Decoded(A, D, E)
