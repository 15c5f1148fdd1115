"""What `restore` leaves behind: pictures, figures and the run itself; and its checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from invdiff.commands.job import Job, renamed
from invdiff.core import InvdiffError
from invdiff.figures import PHOTOGRAPH, overview, uncertainty_picture
from invdiff.result import Result
from invdiff.run import Snapshot
from invdiff.serial import decode, encode, whole_folder

MARKER = "run.json"


def write(result: Result, job: Job, overwrite: bool) -> None:
    """Write sample-K, mean, uncertainty.png, overview.png, run.json and run.safetensors.

    How samples are written, and whether a mean stands for them, is up to the job's view. The
    folder job.out appears when all are complete. Without a second sample there is no uncertainty.
    Of weighted samples the pictures are resampled ones; run.safetensors holds all.
    """
    result, view = renamed(job, result), job.view
    problem, x = job.problem.to("cpu"), result.resampled()[0]
    values = view.values(x)
    count = len(values)
    std = view.std(values) if count > 1 and view.spread else None
    title, best = view.summary(values, x, problem)
    scale = () if view.scale == PHOTOGRAPH else (view.scale,)
    with whole_folder(job.out, overwrite, MARKER) as folder:
        for i, sample in enumerate(values, 1):
            view.save(folder, f"sample-{i}", sample)
        view.save(folder, view.stands, best)
        if std is not None:
            uncertainty_picture(std, count, folder / "uncertainty.png", *scale)
        panels = view.measurement(problem)
        panels += [(title, view.picture(best))] if count > 1 else []
        panels += [(f"sample {i}", view.picture(v)) for i, v in enumerate(values[:4], 1)]
        sheet = f"{job.facts['task']['name']}: {job.solver.name}, {job.solver.num_steps} steps"
        overview(panels, std, folder / "overview.png", sheet, *scale)
        result.write(folder)


def written(job: Job) -> list[tuple[str, str]]:
    """(label, text) lines on what was written."""
    names = "sample-1.png" + (f" to sample-{job.samples}.png" if job.samples > 1 else "")
    spread = job.samples > 1 and job.view.spread
    uncertainty = "uncertainty.png, " if spread else ""
    lines = [("results", f"{job.out}: overview.png, {job.view.stands}.png, {uncertainty}{names}")]
    if job.view.beside:
        lines.append(("", job.view.beside))
    if job.samples == 1 and job.view.spread:
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
