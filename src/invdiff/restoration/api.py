"""`invdiff.restore`: the main job in one call."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invdiff import fields
from invdiff.core import InvdiffError
from invdiff.core.arguments import admitted_as
from invdiff.priors.base import Prior
from invdiff.priors.precision import AskedPrecision
from invdiff.restoration.forecast import forecast
from invdiff.restoration.job import Want, prepare
from invdiff.restoration.perform import Progress, Watch, perform
from invdiff.restoration.preview import Following, Tell
from invdiff.restoration.restored import Restoration
from invdiff.sampling.run import Snapshot
from invdiff.sampling.solver import Solver
from invdiff.tasks import task_class
from invdiff.tasks.auto import in_steps
from invdiff.tasks.base import Task

Source = str | Path | Image.Image | np.ndarray | Tensor


def restore(
    task: str | Task,
    file: Source,
    *,
    prior: str | Path | Prior | None = None,
    solver: str | Solver = "auto",
    samples: int = 4,
    seed: int = 0,
    steps: int | None = None,
    batch: int | None = None,
    want: Want = "both",
    device: str = "auto",
    precision: AskedPrecision = "auto",
    prior_options: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
    preview: Tell | None = None,
    start: Progress | None = None,
    progress: bool = True,
    **options: Any,
) -> Restoration:
    """Restore an image from one measurement: its best estimate, and samples of what it may be.

        invdiff.restore("deblur", "photo.jpg", kernel="gaussian:2.0").save("sharp")
        invdiff.restore(Deblur(kernel=Kernel("gaussian:2.0")), "photo.jpg").save("sharp")

    task: a name of `invdiff tasks` with its options, or a task of `invdiff.tasks`. file: a path, a
    PIL image, or an array or tensor as the task's files hold them: of pictures (H, W) or (H, W, 3),
    bytes or numbers on [0, 1]. options: of the task, as the command line has them, with _ for -; a
    mask or a kernel may be an array or a picture too. noise, where the task has it: its level,
    "estimate" or "correlated"; without it what the file tells.
    prior: a name, a path, or a prior; without it the task's. solver: "auto", a name, for which the
    task's preset is taken, or a solver; steps: another number of its steps. samples: how many are
    drawn; batch: how many together. precision: of the network: "auto" is bfloat16 where the device
    is fast at it and the noise is large enough not to tell (`priors.precision`). want: "estimate",
    "samples" or "both".
    watch(snapshot): called after every step of the samples. preview(preview): after every step of
    both (`Preview`): pictures, and the time that is left; an exception in it ends the run. start:
    the `progress` of a preview of the same call, to go on from; the result is bit for bit that of
    an uninterrupted run. progress: whether a bar is shown, and whether an evaluation is measured
    first, to refuse what the memory will not hold.
    Raises InvdiffError, in one sentence, for whatever does not fit; nothing is written.
    """
    _check_kinds(prior, solver, watch, prior_options)
    progress = fields.convert(bool, progress, "progress")
    if steps is not None:
        steps = fields.convert(int, steps, "steps")
    if isinstance(task, type) and issubclass(task, Task):
        task = fields.build(task, options, getattr(task, "name", task.__name__))
        options = {}
    if isinstance(task, Task):
        if options:
            raise InvdiffError(f"A task has its options already; leave {', '.join(options)} out.")
        asked = task
    else:
        asked = fields.build(task_class(task), options, str(task))

    def configure(given: Solver) -> Solver:
        if steps is None:
            return given
        return given.with_steps(steps) if isinstance(solver, Solver) else in_steps(given, steps)

    with tempfile.TemporaryDirectory() as folder:
        job = prepare(
            asked,
            _in_file(file, Path(folder)),
            prior=str(prior) if isinstance(prior, Path) else prior,
            prior_options=prior_options,
            precision=precision,
            solver=solver,
            configure=configure,
            samples=samples,
            seed=seed,
            batch=batch,
            want=want,
            device=device,
        )
    if progress:
        forecast(job)
    start = start or Progress()
    if preview is None:
        return perform(job, start.samples, watch, not progress, start.estimate)
    follow = Following(job, preview, start)

    def both(snapshot: Snapshot) -> None:
        if watch is not None:
            watch(snapshot)
        follow.watch(snapshot)

    return perform(job, start.samples, both, not progress, start.estimate, follow.watch_estimate)


def _check_kinds(prior: Any, solver: Any, watch: Any, prior_options: Any) -> None:
    """Raise InvdiffError for arguments of kinds that no option of the command line has."""
    admitted_as(str | Path | Prior | None, prior, "prior")
    admitted_as(str | Solver, solver, "solver")
    admitted_as(Callable[..., None] | None, watch, "watch")
    admitted_as(Mapping[str, Any] | None, prior_options, "prior_options")


def _in_file(value: Source, folder: Path) -> Path:
    """A picture or an array as a file, which is what tasks read."""
    if isinstance(value, Image.Image):
        name = folder / "image.png"
        try:
            value.save(name)
        except OSError as error:  # of modes that PNG has not
            raise InvdiffError(
                f"A picture of mode {value.mode} is not taken; give picture.convert('RGB')."
            ) from error
        return name
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            raise InvdiffError("The tensor is sparse; give tensor.to_dense().")
        value = value.detach().cpu().resolve_conj().resolve_neg()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, np.ma.MaskedArray):
        raise InvdiffError("The array has masked entries; give array.filled(VALUE), or a mask.")
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "buifc":
            raise InvdiffError(f"The array holds {value.dtype} and not numbers.")
        np.save(folder / "image.npy", value)
        return folder / "image.npy"
    if not isinstance(value, str | Path):
        raise InvdiffError(
            "The measurement is a path, a PIL image, an array or a tensor, found "
            f"{fields.seen(value)}."
        )
    return Path(value)
