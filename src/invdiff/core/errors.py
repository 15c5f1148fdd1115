"""What is refused: one sentence that says what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

WARNING = "warning: "
"""How a note begins that tells what may be wrong, and belongs beside the results too."""


class InvdiffError(ValueError):
    """A request that cannot be met; the message is one sentence that says what to do."""


def nearest(name: str, known: Iterable[str], kind: str) -> InvdiffError:
    """The error for an unknown name, with the names that come nearest."""
    known = list(known)
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}."
    return InvdiffError(f"There is no {kind} called {name!r}; {hint}")


def sentence(error: BaseException) -> str:
    """One sentence on a failure, whatever it is: what the command line and the page show."""
    import torch

    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, InvdiffError):
        return text
    full = isinstance(error, RuntimeError) and re.search("not enough|allocate memory", text)
    if full or isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return "There is not enough memory; give a smaller --batch or a smaller photo."
    if isinstance(error, OSError):
        return f"{text}."
    kind = type(error).__name__
    return f"unexpected {kind} ({text}); please report it with the output of --debug."
