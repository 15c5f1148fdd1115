"""Noise as a function of (seed, step, role): sample 7 is sample 7, alone or in a batch."""

from __future__ import annotations

import hashlib
import math
import numbers
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.arguments import admit, admitted_as

_KEPT = threading.local()
MAX_COUNT = 9e18
"""Counts are 64-bit integers."""


@dataclass(frozen=True)
class Rng:
    """White noise keyed by (seed, step, role), one seed for each batch row.

    seeds: one integer per row. step: where the draw belongs (-1 for `init`).
    portable: draw on the CPU even for a tensor elsewhere, so that a GPU run repeats a CPU run's
    noise; otherwise normal noise is drawn on the tensor's own device.

    On the CPU the key is the whole state, 256 bits, of numpy's SFC64 (torch's CPU generator keeps
    only 32 bits of a seed); on a device it is 63 bits of torch's own Philox.
    """

    seeds: tuple[int, ...]
    step: int = -1
    portable: bool = False

    def __post_init__(self) -> None:
        """Raise InvdiffError for seeds that are no whole numbers; a step's own are not looked at
        again."""
        plain = type(self.seeds) is tuple and all(type(s) is int for s in self.seeds)
        if not plain or type(self.step) is not int or type(self.portable) is not bool:
            admit(self)

    @staticmethod
    def of(seeds: Sequence[int] | int, portable: bool = False) -> Rng:
        """Rng of a list of seeds, or of one seed. Raises InvdiffError for any but whole numbers."""
        given: Any = (seeds,) if isinstance(seeds, numbers.Number) else seeds
        if not isinstance(given, tuple) or not all(type(s) is int for s in given):
            given = admitted_as(tuple[int, ...], given, "Seeds")
        return Rng(given, portable=portable)

    def at(self, step: int) -> Rng:
        """The same seeds at another step."""
        return Rng(self.seeds, step, self.portable)

    def rows(self, index: Sequence[int]) -> Rng:
        """The same step for the rows index."""
        return Rng(tuple(self.seeds[i] for i in index), self.step, self.portable)

    def _keys(self, role: str) -> list[bytes]:
        """32 bytes for each row."""
        end, digest = f"/{self.step}/{role}".encode(), hashlib.blake2b
        return [digest(str(s).encode() + end, digest_size=32).digest() for s in self.seeds]

    def _generators(self, role: str) -> Iterator[np.random.Generator]:
        """One generator of this thread, keyed anew for each row: cheaper than a new one."""
        if not hasattr(_KEPT, "generator"):
            _KEPT.generator = np.random.Generator(np.random.SFC64(0))
        generator: np.random.Generator = _KEPT.generator
        bits = generator.bit_generator
        state: Any = dict(bits.state, has_uint32=0, uinteger=0)
        for key in self._keys(role):
            state["state"]["state"][:] = np.frombuffer(key, np.uint64)
            bits.state = state
            yield generator

    def normal(self, like: Tensor, role: str) -> Tensor:
        """N(0, I) of the shape, dtype and device of like; row i depends on seeds[i] only.

        A float64 tensor receives the float32 draw, so that precision does not change the noise.
        Raises ValueError when like has another number of rows than there are seeds.
        """
        self._check(like)
        if like.device.type == "cpu" or self.portable:
            z = self._box_muller(like[0].numel(), role).reshape(like.shape)
            return z.to(device=like.device, dtype=like.dtype)
        out = torch.empty(like.shape, dtype=torch.float32, device=like.device)
        generator = torch.Generator(device=like.device)
        for row, key in zip(out, self._keys(role), strict=True):
            generator.manual_seed(int.from_bytes(key[:8], "little") >> 1)
            row.normal_(generator=generator)
        return out.to(like.dtype)

    def _box_muller(self, n: int, role: str) -> Tensor:
        """(rows, n) float32 normals from 32-bit words: two words make two numbers, |z| < 6.7.

        All rows at once, which is cheaper than numpy's own normals.
        """
        half = (n + 1) // 2
        words = self._words(half, role)
        bits = torch.from_numpy(words.view(np.int32))
        radius = (bits[:, :half] & 0x7FFFFFFF).float().add_(0.5).mul_(2.0**-31)
        radius = radius.log_().mul_(-2).sqrt_()
        angle = bits[:, half:].float().mul_(math.pi * 2.0**-31)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :n]

    def _words(self, n: int, role: str) -> np.ndarray[Any, Any]:
        """(rows, n) 64-bit words of the generators."""
        if len(self.seeds) > 4 * n:  # else it takes as long as numpy's generator, or longer
            states = np.frombuffer(b"".join(self._keys(role)), np.uint64)
            return sfc64(states.reshape(-1, 4), n)
        words = np.empty((len(self.seeds), n), np.uint64)
        for row, generator in zip(words, self._generators(role), strict=True):
            row[:] = generator.bit_generator.random_raw(n)
        return words

    def uniform(self, like: Tensor, role: str) -> Tensor:
        """U[0, 1) of the shape, dtype and device of like, drawn on the CPU."""
        self._check(like)
        shape = tuple(like.shape[1:])
        draws = [
            torch.from_numpy(np.asarray(generator.random(shape, np.float32)))
            for generator in self._generators(role)
        ]
        return torch.stack(draws).to(device=like.device, dtype=like.dtype)

    def poisson(self, rate: Tensor, role: str) -> Tensor:
        """Poisson counts of the given rates (B, ...), drawn on the CPU."""
        self._check(rate)
        if not bool((rate < MAX_COUNT).all()):
            raise InvdiffError(f"Poisson counts are drawn for rates below {MAX_COUNT:g}.")
        rates = rate.detach().cpu().double().numpy()
        draws = [
            torch.from_numpy(np.asarray(generator.poisson(r), np.float64))
            for generator, r in zip(self._generators(role), rates, strict=True)
        ]
        return torch.stack(draws).to(device=rate.device, dtype=rate.dtype)

    def gamma(self, shape: float, like: Tensor, role: str) -> Tensor:
        """Gamma(shape, 1) of the shape, dtype and device of like, drawn on the CPU in float64."""
        self._check(like)
        draws = [
            torch.from_numpy(np.asarray(generator.standard_gamma(shape, tuple(like.shape[1:]))))
            for generator in self._generators(role)
        ]
        return torch.stack(draws).to(device=like.device, dtype=like.dtype)

    def _check(self, like: Tensor) -> None:
        if like.shape[0] != len(self.seeds):
            raise ValueError(f"{like.shape[0]} rows need as many seeds, found {len(self.seeds)}")


def sfc64(states: np.ndarray[Any, Any], n: int) -> np.ndarray[Any, Any]:
    """The first n words of numpy's SFC64 from each state (rows, 4), (rows, n), all rows at once:
    that is cheaper for many rows that are short."""
    a, b, c, count = states.T
    words = np.empty((len(states), n), np.uint64)
    for i in range(n):
        words[:, i] = word = a + b + count
        a, b, c = b ^ (b >> 11), c + (c << 3), ((c << 24) | (c >> 40)) + word
        count = count + 1
    return words
