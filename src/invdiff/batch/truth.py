"""Items whose truth is known: what lies beside them is read and compared with what they gave."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from invdiff.batch.items import BatchItem
from invdiff.core import InvdiffError
from invdiff.files.frames import listed
from invdiff.restoration.job import Job
from invdiff.restoration.restored import Restoration, stacked
from invdiff.tasks.base import Task
from invdiff.tasks.truth import Truth

DIGITS = 6
"""Of a PSNR."""


def truth_of(path: Path, item: BatchItem, file: Path, task: Task, job: Job) -> Truth:
    """The truth of an item, of the shape of its result. file: of the item, as it lies here.

    Raises InvdiffError where it cannot be read, or is of another shape.
    """
    try:
        found = task.truth(path, job.view, _among(item, file, task))
        x = torch.zeros(job.problem.batch, 1, *job.problem.x_shape)
        return found.fitted(job.view.array(job.view.values(stacked(x)))[0])
    except InvdiffError as error:
        raise InvdiffError(f"--truth: {error}") from error


def _among(item: BatchItem, file: Path, task: Task) -> tuple[int, int] | None:
    """Which picture of its file an item is, from 0, and of how many; None for the only one."""
    if "frame" in item.within or "page" in item.within:
        places = listed(item.path)
        same = [k for k, at in enumerate(places) if _number(at) == _number(item.within)]
        return (same[0], len(places)) if same else None
    places = listed(file) if file.is_file() else []
    asked = getattr(task, "frame", None)
    same = [k for k, at in enumerate(places) if _number(at) == asked] or [0]
    return (same[0], len(places)) if places else None


def _number(at: dict[str, Any]) -> int:
    return int(at["page"] if "page" in at else at["frame"])


def compared(done: Restoration, truth: Truth) -> dict[str, Any]:
    """What an item's line tells: `psnr`, in dB, of the estimate and of what stands for the samples;
    `psnr_worst`, the frame or the slice where it is lowest, where there are several."""
    images = {} if done.want == "samples" else {"estimate": done.estimate}
    images |= {done.view.summary_name: done.mean} if done.drawn and done.want != "estimate" else {}
    found: dict[str, Any] = {"psnr": {}}
    for name, image in images.items():
        whole, parts = truth.psnr(image)
        found["psnr"][name] = finite(whole)
        if parts:
            k = min(range(len(parts)), key=parts.__getitem__)
            worst = found.setdefault("psnr_worst", {})
            worst[name] = {truth.part: k, "psnr": finite(parts[k])}
    return found


def finite(number: float) -> float | None:
    """A number as JSON has it, to 6 digits; None for what JSON has not."""
    return float(f"{number:.{DIGITS}g}") if math.isfinite(number) else None
