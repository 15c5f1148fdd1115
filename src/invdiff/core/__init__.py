"""What everything else is made of; it knows no operator, noise, prior or solver."""

from invdiff.core.brief import SHOWN, brief, printable, shown
from invdiff.core.errors import WARNING, InvdiffError, nearest
from invdiff.core.level import CLEAN, Level
from invdiff.core.tensors import (
    as_usual,
    batch_dot,
    batch_norm,
    leaf,
    log_normal,
    undisturbed,
    with_gradients,
)

__all__ = [
    "CLEAN",
    "SHOWN",
    "WARNING",
    "InvdiffError",
    "Level",
    "as_usual",
    "batch_dot",
    "batch_norm",
    "brief",
    "leaf",
    "log_normal",
    "nearest",
    "printable",
    "shown",
    "undisturbed",
    "with_gradients",
]
