"""What is refused: one sentence that says what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InvdiffError(ValueError):
    """A request that cannot be met; the message is one sentence that says what to do."""


def nearest(name: str, known: Iterable[str], kind: str) -> InvdiffError:
    """The error for an unknown name, with the names that come nearest."""
    known = list(known)
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}."
    return InvdiffError(f"There is no {kind} called {name!r}; {hint}")
