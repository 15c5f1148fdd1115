"""How far a batch is, from its folder alone, wherever it is worked on."""

from __future__ import annotations

import time
from dataclasses import dataclass

from invdiff.batch.drive import Count, count
from invdiff.batch.place import Place, head
from invdiff.restoration.forecast import duration

RECENT = 600.0
"""Seconds over which the rate is told."""


@dataclass(frozen=True)
class Status:
    """count: what is done. under: shards that processes hold, or held when they died. rate: items a
    second of late; 0 where nothing is known."""

    count: Count
    under: int
    rate: float

    def lines(self) -> list[tuple[str, str]]:
        """(label, text) for people."""
        c = self.count
        found = [
            ("items", f"{c.done} of {c.items} done, {c.failed} of them failed"),
            ("shards", f"{c.shards} of {c.all} finished, {self.under} under way"),
        ]
        if self.rate and not c.complete:
            left = duration((c.items - c.done) / self.rate)
            found.append(("rate", f"{self.rate:.3g} items a second of late; about {left} left"))
        return found


def status(place: Place) -> Status:
    """How far a batch is. Raises InvdiffError where there is none."""
    found, now = count(place), time.time()
    under = len(list((place.out / "work").glob("*.at")))
    recent, first = 0, now
    for shard in range(found.all):
        path = place.manifest(shard)
        made = path.stat().st_mtime if path.exists() else 0.0
        if now - made < RECENT:
            told = head(path) or {"items": 0, "began": made}
            recent += told["items"]
            first = min(first, told.get("began", made))
    rate = recent / max(now - first, 1e-3) if recent else 0.0
    return Status(found, under, rate)
