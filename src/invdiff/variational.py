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
class DiagonalGaussian(Family):
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
    """Dinh, Sohl-Dickstein, Bengio 2017 (arXiv 1605.08803), by zuko (the extra `bayes`).

    A flow step is two affine coupling layers, which change one half of the numbers given the other
    half and then the other way round, each followed by a scale and a shift of every number. The
    halves of step i are a permutation that i determines. The scales of a layer lie between 1e-3
    and 1e3. flow_steps: how many. width: of the two hidden layers of a coupling's network. No
    layer normalises over a batch, so a sample does not depend on the others. It starts as the
    identity: the last layers are 0, the hidden ones N(0, 1 / inputs).
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
    def _template(self) -> tuple[torch.nn.Module, list[tuple[str, torch.Size]], Tensor]:
        return _template(math.prod(self.shape), self.flow_steps, self.width)

    @property
    def size(self) -> int:
        return len(self._template[2])

    def start(self, z: Tensor) -> Tensor:
        return z * self._template[2].to(z.device, z.dtype)

    def push(self, weights: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        module, shapes, _ = self._template
        parts = weights.split([shape.numel() for _, shape in shapes])
        named = {k: w.reshape(s) for (k, s), w in zip(shapes, parts, strict=True)}
        if z.device.type != "cpu":
            named |= {k: b.to(z.device) for k, b in module.named_buffers()}
        x, log_det = torch.func.functional_call(module, named, (z.flatten(1),))
        return x.reshape(z.shape), log_det


@functools.lru_cache(maxsize=8)
def _template(
    n: int, flow_steps: int, width: int
) -> tuple[torch.nn.Module, list[tuple[str, torch.Size]], Tensor]:
    """The flow without weights of its own, names and shapes of its weights, and their spread."""
    try:
        from zuko.flows.coupling import GeneralCouplingTransform
        from zuko.flows.gaussianization import ElementWiseTransform
    except ImportError:
        raise InvdiffError(
            "A RealNVP posterior needs zuko; install it with `pip install invdiff[bayes]`, or "
            "take the family gaussian."
        ) from None

    class Chain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers: list[Any] = []
            for i in range(flow_steps):
                half = torch.from_numpy(np.random.default_rng(i).permutation(n) % 2 == 0)
                for mask in (half, ~half) if n > 1 else ():
                    hidden = {"hidden_features": [width] * 2, "activation": torch.nn.LeakyReLU}
                    layers.append(GeneralCouplingTransform(n, mask=mask, **hidden))
                    layers.append(ElementWiseTransform(n))
            self.layers = torch.nn.ModuleList(layers or [ElementWiseTransform(n)])

        def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
            total = z.new_zeros(len(z))
            for layer in self.layers:
                z, log_det = layer().call_and_ladj(z)
                total = total + log_det
            return z, total

    with torch.random.fork_rng(devices=[]):  # zuko draws weights, which are not used
        module = Chain()
    shapes = [(name, p.shape) for name, p in module.named_parameters()]
    last = max((int(k.split(".")[3]) for k, _ in shapes if "hyper" in k), default=0)
    spread = []
    for name, shape in shapes:
        hidden = "hyper" in name and name.endswith("weight") and int(name.split(".")[3]) < last
        spread.append(torch.full(shape, shape[-1] ** -0.5 if hidden else 0.0).flatten())
    return module, shapes, torch.cat(spread)
