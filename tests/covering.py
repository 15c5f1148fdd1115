"""Covering designs: few runs in which all kinds of things meet, in place of every pair."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def covering(
    candidates: Sequence[T],
    items: Callable[[T], Iterable[Hashable]],
    spread: Callable[[T], Hashable] = lambda candidate: None,
) -> list[T]:
    """Few candidates that hold every item that any candidate holds, in their order.

    items(candidate) are the meetings that it stands for, such as (solver, kind of operator). The
    choice is greedy and the same on every machine: the candidate that adds most; of equal ones
    that whose spread(candidate) was chosen least often; of those the first.
    """
    held = [frozenset(items(candidate)) for candidate in candidates]
    left = set[Hashable]().union(*held)
    chosen, used = set[int](), Counter[Hashable]()

    def rank(i: int) -> tuple[int, int, int]:
        """The best has the least; it never falls as others are chosen."""
        return -len(held[i] & left), used[spread(candidates[i])], i

    queue = [rank(i) for i in range(len(candidates))]
    heapq.heapify(queue)
    while left:
        best = queue[0][-1]
        now = rank(best)
        if now > queue[0]:  # what it held was taken by others meanwhile
            heapq.heapreplace(queue, now)
            continue
        heapq.heappop(queue)
        chosen.add(best)
        used[spread(candidates[best])] += 1
        left -= held[best]
    return [candidates[i] for i in sorted(chosen)]
