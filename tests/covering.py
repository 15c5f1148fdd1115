"""Covering designs: few runs in which all kinds of things meet, in place of every pair."""

from __future__ import annotations

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
    held = {candidate: frozenset(items(candidate)) for candidate in candidates}
    left = set[Hashable]().union(*held.values())
    chosen, used = set[T](), Counter[Hashable]()
    while left:
        best = max(held, key=lambda c: (len(held[c] & left), -used[spread(c)]))
        chosen.add(best)
        used[spread(best)] += 1
        left -= held[best]
    return [candidate for candidate in held if candidate in chosen]
