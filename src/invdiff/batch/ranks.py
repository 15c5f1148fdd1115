"""Which of several processes this is, as those who started it tell in the environment."""

from __future__ import annotations

from collections.abc import Mapping

from invdiff.core import InvdiffError

TOLD = (
    ("torchrun", "RANK", "WORLD_SIZE", None),
    ("a SLURM array", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
    ("srun", "SLURM_PROCID", "SLURM_NTASKS", None),
)
"""Who starts processes, and the variables for the number of one, for how many, for the first."""


def rank_and_world(env: Mapping[str, str]) -> tuple[int, int]:
    """(rank, world) from the environment; (0, 1) where nobody tells.

    Of a SLURM array within which srun starts several, both count. Raises InvdiffError for variables
    that contradict each other.
    """
    found = []
    for who, number, count, first in TOLD:
        if number in env and count in env:
            try:
                rank = int(env[number]) - int(env.get(first or "", 0))
                world = int(env[count])
            except ValueError:
                rank, world = -1, 0
            if not 0 <= rank < world:
                raise InvdiffError(
                    f"{number}={env[number]} and {count}={env[count]}, of {who}, are no rank below "
                    "a world; give --rank and --world, with arrays in steps of 1."
                )
            found.append((who, rank, world))
    if not found or found[0][0] == "torchrun":
        return found[0][1:] if found else (0, 1)
    rank, world = 0, 1
    for _, r, w in found:
        rank, world = rank * w + r, world * w
    return rank, world
