"""Several processes that train one network together, each on its share of every batch."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from invdiff.core import InvdiffError

PATIENCE = timedelta(hours=6)
"""How long processes wait for the main one, which alone validates and writes."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; by default it is alone.

    rank, count: which of how many; the first is the main one, which writes the files. device:
    where it computes. control: the group whose messages go between hosts, so that none waits for a
    GPU.

    All processes hold the same weights and draw the same batch, of which each takes its `rows`.
    The mean of their gradients is that of the whole batch, so the number of processes changes the
    result by round-off only.
    """

    rank: int = 0
    count: int = 1
    device: str = "cpu"
    control: Any = None

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def rows(self) -> slice:
        """The rows of a batch that this process takes."""
        return slice(self.rank, None, self.count)

    def average_(self, tensors: list[Tensor]) -> None:
        """Replace tensors by their means over all processes, which get the same bits."""
        if self.count == 1:
            return
        flat = torch.cat([t.flatten() for t in tensors])
        torch.distributed.all_reduce(flat)
        flat /= self.count
        sizes = [t.numel() for t in tensors]
        for t, part in zip(tensors, torch.split(flat, sizes), strict=True):
            t.copy_(part.view(t.shape))

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in any process. All must call it."""
        if self.count == 1:
            return list(flags)
        told = torch.tensor(flags, dtype=torch.int32)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX, group=self.control)
        return [bool(t) for t in told]

    def check_equal(self, value: float, what: str) -> None:
        """Raise InvdiffError, in every process, unless all have the same value of `what`."""
        low, high = torch.tensor([[value], [value]], dtype=torch.float64)
        if self.count > 1:
            ops = torch.distributed.ReduceOp
            torch.distributed.all_reduce(low, ops.MIN, group=self.control)
            torch.distributed.all_reduce(high, ops.MAX, group=self.control)
        if float(low) != float(high):
            raise InvdiffError(
                f"The {self.count} processes begin with different {what}; give them the same data, "
                "and an --out folder that all of them see."
            )

    def wait(self) -> None:
        """Until all processes have come here."""
        self.any()

    @contextlib.contextmanager
    def interrupts(self) -> Iterator[list[int]]:
        """Several processes collect the signals that would interrupt them.

        One that left on its own would leave the others waiting; they tell each other by `any`.
        """
        came: list[int] = []
        if self.count == 1 or threading.current_thread() is not threading.main_thread():
            yield came
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(n, lambda number, frame: came.append(number)) for n in numbers]
        try:
            yield came
        finally:
            for n, handler in zip(numbers, before, strict=True):
                signal.signal(n, handler)


def launched(device: str) -> Processes:
    """The processes that torchrun or `accelerate launch` started, joined by accelerate.

    device: "cpu" or "cuda"; each process takes the GPU of its local rank.
    Raises InvdiffError when the launcher's variables are incomplete, or GPUs are too few.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes(device=device)
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise InvdiffError(
                f"WORLD_SIZE is {count}, but {name} is not set; start several processes with "
                "torchrun, or unset WORLD_SIZE."
            )
    if device not in ("cpu", "cuda"):
        raise InvdiffError(
            f"{count} processes cannot share the device {device}; give --device cuda or cpu."
        )
    local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if device == "cuda" and local >= gpus:
        raise InvdiffError(
            f"This machine has {gpus} GPUs for at least {local + 1} processes; start one for each "
            f"GPU (--nproc_per_node {gpus}), or give --device cpu."
        )
    try:
        from accelerate import PartialState
    except ImportError:
        raise InvdiffError(
            "Several processes need accelerate: pip install invdiff[train]"
        ) from None
    state = PartialState(cpu=device == "cpu")
    atexit.register(_leave)
    control = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
    own = "cpu" if device == "cpu" else str(state.device)  # its cpu:0 is no place to load to
    return Processes(state.process_index, state.num_processes, own, control)


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
