"""How much memory is free."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
import torch


def available(device: torch.device) -> float:
    """Bytes of memory that are free: of a device, or of the host within the limits of its group."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + cached)
    free = float(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # no limit is the word `max`
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        free = min(free, float(limit - int((group / "memory.current").read_text())))
    return free
