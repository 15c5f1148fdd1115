"""Arrays of telescopes: which pair measured which visibility, and sets of closed loops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.arguments import checked
from invdiff.operators.sizes import check_count


@dataclass(frozen=True, eq=False)
class TelescopeArray:
    """The visibilities of an array: frequencies, pairs of stations and times.

    uv: (1, M, 2), float64, as `Interferometry` takes it. pairs: (M, 2), the stations a < b of each
    visibility. times: (M,), the number of the exposure, from 0. No pair comes twice at a time.
    """

    uv: Tensor
    pairs: Tensor
    times: Tensor

    def _exposures(self) -> Iterator[tuple[dict[tuple[int, int], int], list[int]]]:
        """For each time: the index of each pair's visibility, and the stations that measured."""
        for t in sorted(set(self.times.tolist())):
            here = (self.times == t).nonzero().flatten().tolist()
            of = {(int(self.pairs[m, 0]), int(self.pairs[m, 1])): m for m in here}
            yield of, sorted({s for pair in of for s in pair})

    def triangles(self) -> Tensor:
        """A largest independent set of triangles, (T, 3): visibilities a-b, b-c and a-c, a < b < c.

        At a time with n stations, all those that hold the first one: (n - 1)(n - 2) / 2. Raises
        InvdiffError where no three stations measure together, or a pair of theirs is missing.
        """
        found = []
        for of, seen in self._exposures():
            _check_complete(of, seen)
            for b, c in itertools.combinations(seen[1:], 2):
                a = seen[0]
                found.append([of[a, b], of[b, c], of[a, c]])
        return _loops(found, 3)

    def quadrangles(self) -> Tensor:
        """A largest independent set of quadrangles, (Q, 4): visibilities p, q, r, s whose
        |V_p| |V_q| / (|V_r| |V_s|) no station's gain changes.

        At a time with n stations n (n - 3) / 2. Raises InvdiffError as `triangles`, for four.
        """
        found = []
        for of, seen in self._exposures():
            _check_complete(of, seen)
            for loop in independent_quadrangles(len(seen)):
                found.append([of[seen[i], seen[j]] for i, j in loop])
        return _loops(found, 4)


def _check_complete(of: dict[tuple[int, int], int], seen: list[int]) -> None:
    missing = [pair for pair in itertools.combinations(seen, 2) if pair not in of]
    if missing:
        raise InvdiffError(
            f"Closed loops need every pair of the stations that measure at a time, but stations "
            f"{missing[0][0]} and {missing[0][1]} have no visibility."
        )


def _loops(found: list[list[int]], stations: int) -> Tensor:
    if not found:
        raise InvdiffError(f"There is no time at which {stations} stations measure together.")
    return torch.tensor(found)


@lru_cache(maxsize=64)
def independent_quadrangles(n: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Pairs of n stations, (p, q, r, s) each, whose log ratios are a basis of all such ratios.

    Quadrangles in lexical order, both ratios of each; one that the ones before it give is left out.
    """
    column = {pair: k for k, pair in enumerate(itertools.combinations(range(n), 2))}
    basis: list[np.ndarray] = []
    found = []
    for a, b, c, d in itertools.combinations(range(n), 4):
        for loop in (((a, b), (c, d), (a, c), (b, d)), ((a, b), (c, d), (a, d), (b, c))):
            row = np.zeros(len(column))
            row[[column[pair] for pair in loop]] = [1, 1, -1, -1]
            for known in basis * 2:  # twice: the second pass removes the round-off of the first
                row = row - (row @ known) * known
            if np.linalg.norm(row) > 1e-6:
                basis.append(row / np.linalg.norm(row))
                found.append(loop)
    return tuple(found)


@checked
def earth_rotation(
    stations: int,
    times: int,
    radius: float,
    seed: int = 0,
    hours: float = 24.0,
    declination: float = 12.0,
    elevation: float = 10.0,
) -> TelescopeArray:
    """The tracks of an array that spans the Earth.

    stations: telescopes at random places on the globe, by `seed`. They look at a source at
    `declination` (degrees) `times` times, spread over `hours`; a pair counts while the source
    stands at least `elevation` degrees above both horizons. radius: of the longest pair that
    counts, in cycles per field of view. A baseline b seen along the source's direction s is
    (u, v) = (b . east, b . north), east and north being those of the sky at s.
    Raises InvdiffError when no pair sees the source.
    """
    check_count("stations", stations, 1000)
    check_count("times", times)
    check_radius(radius)
    if seed < 0:
        raise InvdiffError(f"A seed of an array is 0 or more, found {seed}.")
    rng = np.random.default_rng(seed)
    place = rng.standard_normal((stations, 3))
    place /= np.linalg.norm(place, axis=1, keepdims=True)
    delta = math.radians(declination)
    uv, pairs, when = [], [], []
    for k, t in enumerate(np.linspace(-0.5, 0.5, times, endpoint=False)):
        angle = t * hours * math.pi / 12
        east = np.array([-math.sin(angle), math.cos(angle), 0.0])
        source = np.array(
            [math.cos(delta) * math.cos(angle), math.cos(delta) * math.sin(angle), math.sin(delta)]
        )
        north = np.cross(source, east)
        seen = np.flatnonzero(place @ source >= math.sin(math.radians(elevation)))
        for a, b in itertools.combinations(seen.tolist(), 2):
            baseline = place[b] - place[a]
            uv.append([baseline @ east, baseline @ north])
            pairs.append([a, b])
            when.append(k)
    if not uv:
        raise InvdiffError(
            f"No two of the {stations} stations see a source at declination {declination}; take "
            "more stations, another seed or a lower elevation."
        )
    longest = np.linalg.norm(uv, axis=1).max()
    scaled = torch.from_numpy(np.array(uv) * radius / longest)[None]
    return TelescopeArray(scaled, torch.tensor(pairs), torch.tensor(when))


def check_radius(radius: float) -> None:
    """Raise InvdiffError unless radius is above 0."""
    if not 0 < radius < math.inf:
        raise InvdiffError(f"An array has a finite radius above 0, found {radius}.")
