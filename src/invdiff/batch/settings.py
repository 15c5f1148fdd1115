"""The options of `invdiff batch` that `invdiff restore` has not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from invdiff.core import InvdiffError
from invdiff.core.option import check_ranges, option

OF_ONE = {"out", "overwrite", "resume", "checkpoint_every", "checkpoint_steps"}
"""Options of a run of `restore` that a batch has not, or has with another meaning."""


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Where the results go, who works, and what is done with what is there."""

    out: Path = option("folder for all results; the same command goes on with one that is there")
    workers: int = option(
        "processes on this machine, or actors of --cluster; 0: in this process", 1, min=0, max=4096
    )
    retry_failed: bool = option("restore the items again that failed before", False)
    shard_size: int | None = option(
        "items that are handed out together; by the number of items without it", None,
        min=1, max=1_000_000,
    )  # fmt: skip
    truth: str | None = option(
        "what is clean, a pattern as {stem}-truth.png or one file: tells the PSNR of each item",
        None,
    )
    tar: bool = option(
        "results as tar files, one for each shard, with names as webdataset has them", False
    )
    animate: bool = option(
        "write the frames of each animation and video together too, of its kind and frame rate, in "
        "OUT/videos", False,
    )  # fmt: skip
    column: str | None = option("column of images in parquet files, where several could be", None)
    cluster: str | None = option(
        "address of a Ray cluster, or `local` for one on this machine; needs the extra `cluster`",
        None,
    )
    rank: int | None = option(
        "which of --world processes this is, from 0; torchrun and SLURM tell it", None, min=0
    )
    world: int | None = option("how many processes share --out", None, min=1)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.animate and self.tar:
            raise InvdiffError(
                "--animate reads the results of all frames, which --tar packs; leave one of them "
                "out."
            )
        if (self.rank is None) != (self.world is None):
            raise InvdiffError("--rank and --world belong together; give both, or none.")
        if self.rank is not None and self.world is not None and self.rank >= self.world:
            raise InvdiffError(
                f"--rank is below --world, found {self.rank} of {self.world}; ranks begin at 0."
            )
