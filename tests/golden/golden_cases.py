"""The stored cases as problems, priors and noise of this library; README.md tells their format."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import Level
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise, Noise, Poisson
from invdiff.operators import (
    HDR,
    AveragePool,
    Fourier,
    Grayscale,
    Inpaint,
    Linear,
    Operator,
    PhaseRetrieval,
    PseudoInvertible,
    RealFourier,
    Sense,
)
from invdiff.priors.channels import PerChannel
from invdiff.priors.latent import LatentPrior
from invdiff.priors.precond import NetworkPrior, Precond
from invdiff.problem import Problem
from invdiff.sampling.state import State

HERE = Path(__file__).parent / "solvers"
INDEX: list[dict[str, Any]] = json.loads((HERE / "index.json").read_text())["cases"]
CASES = {case["name"]: case for case in INDEX}


def tensor(array: np.ndarray) -> Tensor:
    """As float64, or complex128."""
    wide = np.complex128 if np.iscomplexobj(array) else np.float64
    return torch.from_numpy(np.asarray(array, wide))


@dataclass(frozen=True)
class GoldenCase:
    """One case of the index, its arrays read when they are asked for."""

    name: str

    @property
    def told(self) -> dict[str, Any]:
        """What the index says."""
        return CASES[self.name]

    @property
    def settings(self) -> dict[str, Any]:
        """The official code's settings, by its names."""
        return self.told["settings"]

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(HERE / f"{self.name}.npz") as file:
            return dict(file)

    def __getitem__(self, name: str) -> Tensor:
        return tensor(self.arrays[name])

    @cached_property
    def x_shape(self) -> tuple[int, ...]:
        return tuple(self.told["x_shape"])

    @cached_property
    def levels(self) -> list[Level]:
        """The grid of the official run."""
        return [Level(float(a), float(s)) for a, s in self.arrays["levels"]]

    @cached_property
    def states(self) -> Tensor:
        """(states, B, *x_shape): after step i * states_every."""
        return self["states"]

    @cached_property
    def noise(self) -> dict[tuple[int, str], Tensor]:
        """(step, role) to the draw, (B, *x_shape); step -1 is before the first."""
        found = {}
        for key in self.arrays:
            if key.startswith("z_"):
                z, role = self[key], key[2:].replace("_", " ")
                for k, row in zip(self.arrays[f"k_{key[2:]}"], z, strict=True):
                    found[int(k), role] = row
        return found

    @cached_property
    def operator(self) -> Operator:
        """A; of images, for a prior of latents too."""
        told, y = self.told["operator"], self.arrays["y"]
        kind = told["kind"]
        if kind == "dense":
            return Linear.from_matrix(self["op_matrix"], self.x_shape, y.shape[1:])
        if kind == "pool":
            side = 2 * self.x_shape[-1] if "dec_w" in self.arrays else self.x_shape[-1]
            return AveragePool(told["factor"], (side, side))
        made = {
            "mask": lambda: Inpaint(self["op_mask"][None, None]),
            "grey": lambda: Grayscale(tuple(told["weights"])),
            "phase": lambda: PhaseRetrieval(told["oversampling"]),
            "fourier": lambda: (RealFourier if self.x_shape[0] == 1 else Fourier)(
                self["op_mask"][None, None]
            ),
            "realfourier": lambda: RealFourier(self["op_mask"][None, None]),
            "sense": lambda: Sense(self["op_maps"][None], self["op_mask"][None, None]),
            "hdr": lambda: HDR(told["gain"]),
            "jpeg": lambda: SoftJPEG(
                *(self[f"op_{part}"] for part in ("to_ycc", "from_ycc", "dct", "luma", "chroma"))
            ),
        }
        return made[kind]()

    @cached_property
    def image_shape(self) -> tuple[int, ...]:
        """Of what A measures: twice as wide as the latents where there is a decoder."""
        c, h, w = self.x_shape
        return (c, 2 * h, 2 * w) if "dec_w" in self.arrays else self.x_shape

    @cached_property
    def problem(self) -> Problem:
        # the official Poisson noise: counts of 255 for the range [-1, 1], black at -1
        poisson = "poisson" in self.settings.get("noise", "")
        noise: Noise = Poisson(255.0) if poisson else GaussianNoise(self.told["sigma_y"])
        return Problem(self["y"], self.operator, noise, self.image_shape)

    @cached_property
    def prior(self) -> LatentPrior | NetworkPrior | PerChannel:
        """D(x, sigma), with a constant v beside it where the settings have one."""
        made = {"conv": self.conv, "mixture": self.mixture}[self.told["denoiser"]]
        v = self.settings.get("v")

        def net(x: Tensor, time: Tensor) -> Tensor:
            x0 = made(x, float(time[0]))
            return x0 if v is None else torch.cat([x0, torch.full_like(x0, v)], dim=1)

        same = Precond(lambda s: 1.0, lambda s: 0.0, lambda s: 1.0, lambda s: s)
        prior = NetworkPrior(net, same, name="golden", learned_variance=v is not None)
        if "net_w1" in self.arrays and self.arrays["net_w1"].shape[1] < self.x_shape[0]:
            return PerChannel(prior)
        if "dec_w" in self.arrays:
            coders = (Coder(self[f"{p}_w"], self[f"{p}_b"], p) for p in ("dec", "enc"))
            return LatentPrior(prior, *coders)
        return prior

    def conv(self, u: Tensor, sigma: float) -> Tensor:
        """D of the kind `conv`."""
        k = math.sqrt(1 + sigma**2)
        h = F.conv2d(u / k, self["net_w1"], self["net_b1"], padding=1)
        h = torch.sin(h + 0.3 * math.log(1 + sigma))
        h = 0.7 * F.conv2d(h, self["net_w2"], self["net_b2"], padding=1) + 0.8 * u / k**2
        return self["net_amp"] * torch.tanh(h)

    def mixture(self, u: Tensor, sigma: float) -> Tensor:
        """D of the kind `mixture`: the posterior mean."""
        means, variances = self["net_means"], self["net_variances"]
        f = u[:, None] - means
        t = variances + sigma**2
        d = means[0].numel()
        log_w = self["net_weights"].log() - f.flatten(2).square().sum(2) / (2 * t)
        w = (log_w - d / 2 * t.log()).softmax(1)
        ones = [1] * (means.ndim - 1)
        each = means + (variances / t).reshape(-1, *ones) * f
        return (w.reshape(*w.shape, *ones) * each).sum(1)

    @property
    def first(self) -> State | None:
        """The state to start from, where it was given to the official code; else None."""
        if self.told["init"] != "given":
            return None
        return State(0, self.states[0], torch.zeros_like(self.states[0]))


@dataclass(frozen=True)
class Feed:
    """Stands for `Rng.normal`: the stored draws, and zeros for draws that cannot reach a result.

    asked: (step, role) of every draw that was stored and taken. begin: the step of the run that is
    the first of the stored one.
    """

    case: GoldenCase
    asked: set[tuple[int, str]]
    begin: int = 0

    def __call__(self, rng: Rng, like: Tensor, role: str) -> Tensor:
        key = rng.step - self.begin * (rng.step >= 0), role
        if key not in self.case.noise:
            return torch.zeros_like(like)
        self.asked.add(key)
        z = self.case.noise[key]
        assert z.shape == like.shape, key
        return z.to(like.dtype)


@dataclass(frozen=True, eq=False)
class Coder(Operator):
    """Decoder tanh(conv(up) + 0.8 up) or encoder tanh(conv(down) + down) of the latent cases."""

    weight: Tensor
    bias: Tensor
    part: str

    def __call__(self, x: Tensor) -> Tensor:
        decodes = self.part == "dec"
        x = F.interpolate(x, scale_factor=2.0) if decodes else F.avg_pool2d(x, 2)
        taps = F.conv2d(x, self._as("weight", x), self._as("bias", x), padding=1)
        return torch.tanh(taps + (0.8 if decodes else 1.0) * x)


@dataclass(frozen=True, eq=False)
class SoftJPEG(PseudoInvertible):
    """JPEG without the codec's rounding of pixels, as the official codes have it."""

    to_ycc: Tensor
    from_ycc: Tensor
    dct: Tensor
    luma: Tensor
    chroma: Tensor

    differentiable = False

    def __call__(self, x: Tensor) -> Tensor:
        planes = torch.einsum("ij,bjhw->bihw", self.to_ycc, 255 * (x + 1) / 2)
        luma = self._coded(planes[:, :1], self.luma)
        chroma = self._coded(planes[:, 1:, ::2, ::2] + 128, self.chroma) - 128
        chroma = chroma.repeat_interleave(2, 2).repeat_interleave(2, 3)
        planes = torch.cat([luma, chroma], dim=1)
        return torch.einsum("ij,bjhw->bihw", self.from_ycc, planes) / 255 * 2 - 1

    def _coded(self, plane: Tensor, table: Tensor) -> Tensor:
        b, c, h, w = plane.shape
        blocks = (plane - 128).reshape(b, c, h // 8, 8, w // 8, 8).transpose(3, 4)
        k = (self.dct @ blocks @ self.dct.mT / table).round() * table
        blocks = self.dct.mT @ k @ self.dct
        return blocks.transpose(3, 4).reshape(b, c, h, w) + 128

    def pinv(self, y: Tensor) -> Tensor:
        return y

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(x_shape)
