"""Where an interrupted restoration stands, in a folder beside its results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.encode import decode, encode
from invdiff.core.folders import whole_folder
from invdiff.restoration.job import Job
from invdiff.sampling.run import Snapshot


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
