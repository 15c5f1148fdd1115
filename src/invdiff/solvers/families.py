"""Families of laws that are fitted to a posterior: x = G(z), z ~ N(0, I), with weights of G.

A family is a description; its weights are one flat vector, held by whoever fits it. Gradients with
respect to weights come from `push_vjp`, and the caller supplies those with respect to x.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError

Pull = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Family:
    """Laws of images of shape `shape` (without a batch axis)."""

    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of weights."""
        raise NotImplementedError

    def start(self, z: Tensor) -> Tensor:
        """Weights to begin with, from white noise z (..., size): same shape."""
        raise NotImplementedError

    def push(self, weights: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = G(z), shape of z (B, *shape), and log |det dG/dz|, (B,); row i depends on z[i]."""
        raise NotImplementedError

    def push_vjp(self, weights: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Pull]:
        """push, and pull(v, c) = d(sum v x + sum c log|det|) / d weights; pull works once."""
        with torch.enable_grad():
            w = weights.detach().requires_grad_()
            x, log_det = self.push(w, z)

        def pull(v: Tensor, c: Tensor) -> Tensor:
            return torch.autograd.grad((x, log_det), w, (v, c))[0]

        return x.detach(), log_det.detach(), pull


@dataclass(frozen=True)
class DiagonalFamily(Family):
    """x = mean + |std| z, pixel by pixel; weights are (mean, std)."""

    @property
    def size(self) -> int:
        return 2 * math.prod(self.shape)

    def start(self, z: Tensor) -> Tensor:
        """mean 0.05 z, std 1."""
        mean, std = z.chunk(2, dim=-1)
        return torch.cat([0.05 * mean, torch.ones_like(std)], dim=-1)

    def push(self, weights: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = weights.reshape(2, *self.shape)
        return mean + std.abs() * z, std.abs().log().sum().expand(len(z))


@dataclass(frozen=True)
class RealNVP(Family):
    """Dinh, Sohl-Dickstein, Bengio 2017 (arXiv 1605.08803), on zuko's maps (the extra `bayes`).

    A flow step is two affine coupling layers: they scale and shift one half of the numbers given
    the other half, then the other way round. The halves of step i are a permutation that i
    determines. The scales of a layer lie between 1 / e and e: without that, far draws blow up.
    flow_steps: how many. width: of the two hidden layers of a coupling's network. No layer
    normalises over a batch, so a sample does not depend on the others. It starts as the identity:
    the last layers of the networks are 0, the hidden ones N(0, 1 / inputs).
    """

    flow_steps: int = 8
    width: int = 16
    most: ClassVar[float] = 1e8

    def __post_init__(self) -> None:
        n = math.prod(self.shape)
        about = 2 * self.flow_steps * self.width * (1.5 * n + self.width)
        if about > self.most:
            raise InvdiffError(
                f"A RealNVP of {self.flow_steps} flow steps and width {self.width} on {n} pixels "
                f"has {about:.1g} weights, more than {self.most:.0g}; make the images, flow_steps "
                "or width smaller, or take the family gaussian."
            )

    @functools.cached_property
    def _layers(self) -> list[tuple[Tensor, list[tuple[int, ...]]]]:
        """For every coupling: which numbers are given, and the shapes of its weights."""
        n, w, found = math.prod(self.shape), self.width, []
        for i in range(self.flow_steps):
            half = torch.from_numpy(np.random.default_rng(i).permutation(n) % 2 == 0)
            for given in (half, ~half):
                a = int(given.sum())
                out = 2 * (n - a)
                found.append((given, [(w, a), (w,), (w, w), (w,), (out, w), (out,)]))
        return found

    @property
    def size(self) -> int:
        return sum(math.prod(s) for _, shapes in self._layers for s in shapes)

    def start(self, z: Tensor) -> Tensor:
        spread = []
        for _, shapes in self._layers:
            stds = [max(shapes[0][1], 1) ** -0.5, 0, self.width**-0.5, 0, 0, 0]
            spread += [z.new_full((math.prod(s),), f) for s, f in zip(shapes, stds, strict=True)]
        return z * torch.cat(spread)

    def push(self, weights: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        try:
            from zuko.transforms import CouplingTransform
        except ImportError:
            raise InvdiffError(
                "A RealNVP posterior needs zuko; install it with `pip install invdiff[bayes]`, or "
                "take the family gaussian."
            ) from None
        x, log_det = z.flatten(1), z.new_zeros(len(z))
        sizes = [sum(math.prod(s) for s in shapes) for _, shapes in self._layers]
        for (given, shapes), part in zip(self._layers, torch.split(weights, sizes), strict=True):
            pieces = torch.split(part, [math.prod(s) for s in shapes])
            w = [piece.reshape(s) for piece, s in zip(pieces, shapes, strict=True)]
            layer = CouplingTransform(functools.partial(_affine, w), given.to(z.device))
            x, change = layer.call_and_ladj(x)
            log_det = log_det + change
        return x.reshape(z.shape), log_det


def _affine(w: list[Tensor], known: Tensor) -> Any:
    """The affine map of the other half: its shift and scale by a network of the known half."""
    from zuko.transforms import DependentTransform, MonotonicAffineTransform

    h = F.leaky_relu(F.linear(known, w[0], w[1]))
    h = F.leaky_relu(F.linear(h, w[2], w[3]))
    h = F.linear(h, w[4], w[5])
    half = len(w[5]) // 2
    shift, scale = h[..., :half], h[..., half:]
    return DependentTransform(MonotonicAffineTransform(shift, scale, slope=1 / math.e), 1)
