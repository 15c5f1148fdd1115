"""What `restore` leaves behind: pictures, figures and the run itself; and its checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from invdiff.commands.job import Job, renamed
from invdiff.core import InvdiffError
from invdiff.figures import overview, uncertainty_picture
from invdiff.io import from_range, save_picture
from invdiff.operators.base import Linear
from invdiff.operators.inpaint import Inpaint
from invdiff.photos import beyond, shown
from invdiff.result import Result
from invdiff.run import Snapshot
from invdiff.serial import decode, encode, whole_folder

MARKER = "run.json"


def write(result: Result, job: Job, overwrite: bool) -> None:
    """Write sample-K.png, mean.png, uncertainty.png, overview.png, run.json and run.safetensors.

    The folder job.out appears when all are complete. Without a second sample there is no
    uncertainty.
    """
    result = renamed(job, result)
    value_range = job.prior.image_range
    samples = shown(result.samples[0], job.grey, value_range)
    mean, count = samples.mean(0), len(samples)
    std = samples.std(0) if count > 1 else None
    with whole_folder(job.out, overwrite, MARKER) as folder:
        for i, sample in enumerate(samples, 1):
            save_picture(folder / f"sample-{i}.png", sample, job.alpha, job.icc)
        save_picture(folder / "mean.png", mean, job.alpha, job.icc)
        if std is not None:
            uncertainty_picture(std, count, folder / "uncertainty.png")
        panels = [("input", seen(job))]
        panels += [(f"mean of {count} samples", mean)] if count > 1 else []
        panels += [(f"sample {i}", sample) for i, sample in enumerate(samples[:4], 1)]
        title = f"{job.facts['task']['name']}: {job.solver.name}, {job.solver.num_steps} steps"
        overview(panels, std, folder / "overview.png", title)
        result.write(folder)


def seen(job: Job) -> Tensor:
    """The measurement as a picture, (C, h, w) on [0, 1]; missing pixels are middle grey."""
    y, A = job.problem.y[0].cpu(), job.problem.A.to("cpu")
    if isinstance(A, Linear):
        y = y + beyond(A, job.problem.x_shape, job.prior.image_range)[0]
    pixels = from_range(y, job.prior.image_range)
    if isinstance(A, Inpaint):
        pixels = torch.where(A.mask[0].cpu().bool(), pixels, 0.5)
    return pixels.mean(0, keepdim=True) if job.grey else pixels


def written(job: Job) -> list[tuple[str, str]]:
    """(label, text) lines on what was written."""
    names = "sample-1.png" + (f" to sample-{job.samples}.png" if job.samples > 1 else "")
    uncertainty = "uncertainty.png, " if job.samples > 1 else ""
    lines = [("results", f"{job.out}: overview.png, mean.png, {uncertainty}{names}")]
    if job.samples == 1:
        lines.append(("", "one sample shows no uncertainty; give --samples 2 or more"))
    return [*lines, ("again", f"invdiff restore --from {job.out / MARKER}")]


def checkpoint_folder(out: Path) -> Path:
    """Where the checkpoint of a run into `out` lies."""
    return out.with_name(out.name + ".checkpoint")


def save_checkpoint(snapshot: Snapshot, job: Job) -> None:
    """Write where a run stands; an older checkpoint is replaced."""
    tensors: dict[str, Tensor] = {}
    form = {"digest": job.digest, "snapshot": encode(snapshot, tensors)}
    with whole_folder(checkpoint_folder(job.out), True, "checkpoint.json") as folder:
        # clones, because a solver's x and x0 may be one tensor
        save_file({k: v.clone() for k, v in tensors.items()}, folder / "checkpoint.safetensors")
        (folder / "checkpoint.json").write_text(json.dumps(form) + "\n")


def load_checkpoint(job: Job) -> Snapshot:
    """Where an interrupted run stands. Raises InvdiffError when it was another run, or none."""
    folder = checkpoint_folder(job.out)
    if not folder.exists():
        raise InvdiffError(f"There is no checkpoint {folder}; leave --resume out.")
    try:
        form = json.loads((folder / "checkpoint.json").read_text())
        tensors = load_file(folder / "checkpoint.safetensors")
        device = job.problem.y.device
        moved = {k: v.to(device) if k.startswith("state.") else v for k, v in tensors.items()}
        digest, snapshot = form["digest"], decode(form["snapshot"], moved)
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise InvdiffError(f"{folder} is a broken checkpoint; delete it and begin anew.") from error
    if digest != job.digest:
        raise InvdiffError(
            f"{folder} is the checkpoint of a run with other options; repeat the command that was "
            "interrupted, or give --overwrite without --resume to begin anew."
        )
    found: Snapshot = snapshot
    return found


def check_checkpoint(out: Path, overwrite: bool) -> None:
    """Raise InvdiffError when an interrupted run would be lost."""
    folder = checkpoint_folder(out)
    if folder.exists() and not overwrite:
        raise InvdiffError(
            f"{folder} is the checkpoint of an interrupted run; give --resume to go on, or "
            "--overwrite to begin anew."
        )


def remove_checkpoint(out: Path) -> None:
    """Delete the checkpoint of a run that is complete."""
    shutil.rmtree(checkpoint_folder(out), ignore_errors=True)
