"""Learned denoisers of Levy processes: one small network for each law, beside the exact one.

arXiv 2509.12821 measures solvers with a denoiser that was trained; so does this, with a network of
its own, which `benchmarks/levy_networks.py` trains and measures against `oracle.py`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invdiff.priors.base import Prior
from invdiff.priors.photo_net import NoiseCode

WIDTHS, CODE = (32, 48, 64), 64
LEAST, MOST = 0.01, 300.0
"""Noise levels that it is trained on; beyond them that at the end stands in."""
SCALES = {"gauss": 2.5, "laplace": 7.0, "bl": 2.0, "student1": 30.0, "student2": 12.0,
          "student3": 8.0}  # fmt: skip
"""sigma_data of the preconditioning: about the median size of a signal."""
FILE = Path(__file__).with_name("levy.safetensors")


class Block(nn.Module):
    """h + conv(silu(conv(h) (1 + gain) + bias)), gain and bias from the code."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)
        self.modulation = nn.Linear(CODE, 2 * width)
        for weight in (*self.second.parameters(), *self.modulation.parameters()):
            nn.init.zeros_(weight)

    def forward(self, h: Tensor, code: Tensor) -> Tensor:
        gain, bias = self.modulation(code)[..., None, None].chunk(2, dim=1)
        return h + self.second(F.silu(self.first(h) * (1 + gain) + bias))


def _conv(a: int, b: int) -> nn.Conv2d:
    """Over signals (B, a, 1, L): of two axes, channels last, it is twice as fast as of one."""
    return nn.Conv2d(a, b, (1, 3), padding=(0, 1))


class LevyNet(nn.Module):
    """E[s | s + sigma n = x] of signals (B, L), in the preconditioning of Karras et al. 2022 (EDM).

    Signals of heavy tails are divided by their own size first, of which the network is told, so
    that jumps of any height are within its reach. scale: sigma_data.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.code = NoiseCode(CODE)
        self.size = nn.Linear(1, CODE)
        self.head = _conv(3, WIDTHS[0])
        self.down = nn.ModuleList(nn.ModuleList((Block(w), Block(w))) for w in WIDTHS)
        pairs = list(pairwise(WIDTHS))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, (1, 2), (1, 2)) for a, b in pairs)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, (1, 2), (1, 2)) for a, b in pairs)
        self.up = nn.ModuleList(Block(a) for a, _ in pairs)
        self.tail = _conv(WIDTHS[0], 1)
        for weight in self.tail.parameters():
            nn.init.zeros_(weight)

    def forward(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(the estimate, how large an error of it counts as 1), (B, L) and (B, 1).

        sigma: (B, 1).
        """
        total = (sigma**2 + self.scale**2).sqrt()
        size = ((1 + (x / total).square().mean(1, keepdim=True)) / 2).sqrt()
        steps = torch.cat([x[:, :1], x.diff(dim=1)], 1) / (2 * sigma**2 + 1).sqrt()
        place = torch.linspace(0, 1, x.shape[1]).to(x).expand_as(x)
        h = torch.stack([x / (total * size), torch.asinh(steps), place], 1)[:, :, None]
        h = self.head(h.contiguous(memory_format=torch.channels_last))
        code, skips = self.code(sigma.log()[:, 0] / 4) + self.size(size.log()), list[Tensor]()
        for i, blocks in enumerate(self.down):
            for block in blocks.children():
                h = block(h, code)
            if i < len(self.shrink):
                skips.append(h)
                h = self.shrink[i](h)
        for i in reversed(range(len(self.grow))):
            h = self.up[i](skips[i] + self.grow[i](h), code)
        out = sigma * self.scale / total * size
        return (self.scale / total) ** 2 * x + out * self.tail(F.silu(h))[:, 0, 0], out


class Learned(Prior):
    """The network of a law as a prior of signals (B, 1, 1, L); it calculates in float32."""

    def __init__(self, net: LevyNet, law: str) -> None:
        self.net, self.name = net.eval().requires_grad_(False), f"network of {law}"
        self.value_range = (-math.inf, math.inf)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        if sigma == 0:
            return x
        level = torch.full((len(x), 1), min(max(sigma, LEAST), MOST))
        return self.net(x.flatten(1).float(), level)[0].reshape(x.shape).to(x.dtype)


@lru_cache(maxsize=8)
def learned(law: str) -> Learned:
    """The network that was trained on a law of `gibbs.LAWS`."""
    from safetensors import safe_open

    net = LevyNet(SCALES[law])
    with safe_open(FILE, "pt") as file, torch.no_grad():
        for name, weight in net.named_parameters():
            weight.copy_(file.get_tensor(f"{law}.{name}"))
    return Learned(net, law)
