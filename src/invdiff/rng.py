"""Noise as a function of (seed, step, role): sample 7 is sample 7, alone or in a batch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Rng:
    """White noise keyed by (seed, step, role), one seed for each batch row.

    seeds: one integer per row. step: where the draw belongs (-1 for `init`).
    portable: draw on the CPU even for a tensor elsewhere, so that a GPU run repeats a CPU run's
    noise; otherwise normal noise is drawn on the tensor's own device.

    On the CPU the key is 128 bits of numpy's Philox (torch's CPU generator keeps only 32 bits of a
    seed); on a device it is 63 bits of torch's own Philox.
    """

    seeds: tuple[int, ...]
    step: int = -1
    portable: bool = False

    @staticmethod
    def of(seeds: Sequence[int] | int, portable: bool = False) -> Rng:
        """Rng of a list of seeds, or of one seed."""
        seeds = (seeds,) if isinstance(seeds, int) else tuple(int(s) for s in seeds)
        return Rng(seeds, portable=portable)

    def at(self, step: int) -> Rng:
        """The same seeds at another step."""
        return Rng(self.seeds, step, self.portable)

    def rows(self, index: Sequence[int]) -> Rng:
        """The same step for the rows index."""
        return Rng(tuple(self.seeds[i] for i in index), self.step, self.portable)

    def _key(self, seed: int, role: str) -> bytes:
        text = f"{seed}/{self.step}/{role}".encode()
        return hashlib.blake2b(text, digest_size=16).digest()

    def _philox(self, seed: int, role: str) -> np.random.Philox:
        return np.random.Philox(key=np.frombuffer(self._key(seed, role), dtype=np.uint64))

    def _generator(self, seed: int, role: str) -> np.random.Generator:
        return np.random.Generator(self._philox(seed, role))

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
        for row, seed in zip(out, self.seeds, strict=True):
            generator.manual_seed(int.from_bytes(self._key(seed, role)[:8], "little") >> 1)
            row.normal_(generator=generator)
        return out.to(like.dtype)

    def _box_muller(self, n: int, role: str) -> Tensor:
        """(rows, n) float32 normals from 32-bit words: two words make two numbers, |z| < 6.8.

        All rows at once, which is cheaper than numpy's own normals.
        """
        half = (n + 1) // 2
        bits = np.stack(self._words(half, role))
        words = torch.from_numpy(bits.view(np.uint32).astype(np.float32))
        radius = ((words[:, :half] + 0.5) * 2.0**-32).log_().mul_(-2).sqrt_()
        angle = words[:, half:] * (2 * math.pi * 2.0**-32)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :n]

    def _words(self, n: int, role: str) -> list[np.ndarray]:
        """n 64-bit words for each row, of one generator that is re-keyed: cheaper than new ones."""
        generator, zeros, words = np.random.Philox(key=0), np.zeros(4, np.uint64), []
        for seed in self.seeds:
            key = np.frombuffer(self._key(seed, role), dtype=np.uint64)
            generator.state = {
                "bit_generator": "Philox",
                "state": {"counter": zeros, "key": key},
                "buffer": zeros,
                "buffer_pos": 4,
                "has_uint32": 0,
                "uinteger": 0,
            }
            words.append(generator.random_raw(n))
        return words

    def uniform(self, like: Tensor, role: str) -> Tensor:
        """U[0, 1) of the shape, dtype and device of like, drawn on the CPU."""
        self._check(like)
        shape = tuple(like.shape[1:])
        draws = [
            torch.from_numpy(np.asarray(self._generator(s, role).random(shape, np.float32)))
            for s in self.seeds
        ]
        return torch.stack(draws).to(device=like.device, dtype=like.dtype)

    def poisson(self, rate: Tensor, role: str) -> Tensor:
        """Poisson counts of the given rates (B, ...), drawn on the CPU."""
        self._check(rate)
        rates = rate.detach().cpu().double().numpy()
        draws = [
            torch.from_numpy(np.asarray(self._generator(s, role).poisson(r), np.float64))
            for s, r in zip(self.seeds, rates, strict=True)
        ]
        return torch.stack(draws).to(device=rate.device, dtype=rate.dtype)

    def _check(self, like: Tensor) -> None:
        if like.shape[0] != len(self.seeds):
            raise ValueError(f"{like.shape[0]} rows need as many seeds, found {len(self.seeds)}")
