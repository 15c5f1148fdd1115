"""What everything else is made of; it knows no operator, noise, prior or solver."""

from invdiff.core.brief import SHOWN, brief, shown
from invdiff.core.errors import InvdiffError, nearest
from invdiff.core.level import CLEAN, Level
from invdiff.core.tensors import batch_dot, batch_norm, log_normal

__all__ = [
    "CLEAN",
    "SHOWN",
    "InvdiffError",
    "Level",
    "batch_dot",
    "batch_norm",
    "brief",
    "log_normal",
    "nearest",
    "shown",
]
