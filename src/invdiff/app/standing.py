"""Where a stopped job stands, in a file of its visit, so that it can go on in any worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from invdiff.core.encode import decode, encode
from invdiff.restoration.job import Job
from invdiff.restoration.perform import Progress

PARTS = ("estimate", "samples")


def folder_of(out: Path) -> Path:
    """Where it is written for results in `out`."""
    return out.with_name(out.name + ".stopped")


def keep(job: Job, progress: Progress, out: Path) -> None:
    """Write where the job stands."""
    tensors: dict[str, Tensor] = {}
    form = {p: encode(getattr(progress, p), tensors, p) for p in PARTS}
    folder = folder_of(out)
    folder.mkdir(exist_ok=True)
    # clones, because a solver's x and x0 may be one tensor
    save_file({k: v.clone() for k, v in tensors.items()}, folder / "tensors.safetensors")
    (folder / "form.json").write_text(json.dumps({"job": job.digest, "form": form}))


def kept(job: Job, out: Path) -> Progress:
    """Where it stood; the beginning where there is nothing, or it was another job."""
    folder = folder_of(out)
    if not (folder / "form.json").is_file():
        return Progress()
    record = json.loads((folder / "form.json").read_text())
    if record["job"] != job.digest:
        return Progress()
    device = job.problem.y.device
    tensors = load_file(folder / "tensors.safetensors")
    moved = {k: v.to(device) if ".state." in k else v for k, v in tensors.items()}
    found: dict[str, Any] = {p: decode(record["form"][p], moved) for p in PARTS}
    return Progress(**found)
