"""What `restore` leaves behind: pictures, figures and the run itself; and its checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from invdiff.commands.job import Job, renamed
from invdiff.core import InvdiffError, Problem
from invdiff.figures import overview, uncertainty_picture
from invdiff.result import Result
from invdiff.run import Snapshot
from invdiff.serial import decode, encode, whole_folder

MARKER = "run.json"

ESTIMATE, SAMPLE = "estimate: the best single picture", "sample {}: one that may be true"
"""What the pictures of the overview are."""


def write(result: Result, job: Job, overwrite: bool) -> list[str]:
    """Write estimate, sample-K, mean, uncertainty.png, overview.png, run.json, run.safetensors.

    How samples are written, and whether a mean stands for them, is up to the job's view. The
    folder job.out appears when all are complete. Without a second sample there is no uncertainty.
    The answers are compared with the measurement first: returns what was found to be wrong, which
    is in run.json and in the overview too. Of weighted samples the pictures are resampled ones;
    run.safetensors holds all.
    """
    result, view, problem = renamed(job, result), job.view, job.problem.to("cpu")
    checks = result.check(job.prior)
    found = [w for c in checks.values() for w in c.warnings]
    warnings = list(dict.fromkeys((*job.warnings, *found)))
    result.config["checks"] = {name: c.as_dict() for name, c in checks.items()}
    result.config.update(warnings=warnings, want=job.want)
    panels = view.measurement(problem)
    with whole_folder(job.out, overwrite, MARKER) as folder:
        if result.estimate is not None:
            best = view.values(result.estimate)[0]
            view.save(folder, "estimate", best)
            panels.append((ESTIMATE, view.picture(best)))
        std = None
        if job.draws:
            more, std = _samples(result.resampled()[0], job, problem, folder)
            panels += more
        _overview(panels, std, job, warnings, folder)
        result.write(folder)
    return warnings


def _samples(
    x: Tensor, job: Job, problem: Problem, folder: Path
) -> tuple[list[tuple[str, Tensor]], Tensor | None]:
    """Write the samples and what follows from them; panels, and the standard deviation."""
    view, values = job.view, job.view.values(x)
    count = len(values)
    std = view.std(values) if count > 1 and view.spread else None
    title, stands = view.summary(values, x, problem)
    if job.estimator is None and job.want != "samples":
        view.save(folder, "estimate", stands)
    if job.want == "estimate":
        return [(f"estimate: {title}", view.picture(stands))], None
    for i, sample in enumerate(values, 1):
        view.save(folder, f"sample-{i}", sample)
    view.save(folder, view.stands, stands)
    if std is not None:
        uncertainty_picture(std, count, folder / "uncertainty.png", view.scale)
    shown = 3 if job.estimator is not None else 4
    panels = [(title, view.picture(stands))] if count > 1 else []
    panels += [(SAMPLE.format(i), view.picture(v)) for i, v in enumerate(values[:shown], 1)]
    return panels, std


def _overview(
    panels: list[tuple[str, Tensor]],
    std: Tensor | None,
    job: Job,
    warnings: list[str],
    folder: Path,
) -> None:
    """Everything on one sheet, with what was measured of such samples and what is wrong."""
    made = [s.name for s in (job.estimator, job.solver if job.draws else None) if s]
    lines = [f"{job.facts['task']['name']}: {' and '.join(dict.fromkeys(made))}"]
    lines += [job.coverage] if job.coverage and std is not None else []
    lines += [f"warning: {text}" for text in warnings]
    overview(panels, std, folder / "overview.png", "\n".join(lines), job.view.scale)


def written(job: Job) -> list[tuple[str, str]]:
    """(label, text) lines on what was written."""
    names = [] if job.want == "samples" else ["estimate.png"]
    drawn = job.want != "estimate"
    if drawn:
        names += [f"{job.view.stands}.png"]
        names += ["uncertainty.png"] if job.samples > 1 and job.view.spread else []
        more = f" to sample-{job.samples}.png" if job.samples > 1 else ""
        names += [f"sample-1.png{more}"]
    lines = [("results", f"{job.out}: overview.png, {', '.join(names)}")]
    if job.view.beside:
        lines.append(("", job.view.beside))
    if drawn and job.samples == 1 and job.view.spread:
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
