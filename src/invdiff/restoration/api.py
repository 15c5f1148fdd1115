"""`invdiff.restore`: the main job in one call."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from invdiff import fields
from invdiff.core import InvdiffError
from invdiff.priors.base import Prior
from invdiff.restoration.job import Precision, Want, prepare
from invdiff.restoration.perform import Watch, perform
from invdiff.restoration.restored import Restoration
from invdiff.sampling.solver import Solver
from invdiff.tasks import task_class
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
    precision: Precision = "float32",
    prior_options: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
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
    drawn; batch: how many together. want: "estimate", "samples" or "both".
    watch(snapshot): called after every step. progress: whether a bar is shown.
    Raises InvdiffError, in one sentence, for whatever does not fit; nothing is written.
    """
    if isinstance(task, Task):
        if options:
            raise InvdiffError(f"A task has its options already; leave {', '.join(options)} out.")
        asked = task
    else:
        asked = fields.build(task_class(task), options, task)
    with tempfile.TemporaryDirectory() as folder:
        job = prepare(
            asked,
            _in_file(file, Path(folder)),
            prior=str(prior) if isinstance(prior, Path) else prior,
            prior_options=prior_options,
            precision=precision,
            solver=solver,
            configure=lambda s: s if steps is None else s.with_steps(steps),
            samples=samples,
            seed=seed,
            batch=batch,
            want=want,
            device=device,
        )
    return perform(job, watch=watch, quiet=not progress)


def _in_file(value: Source, folder: Path) -> Path:
    """A picture or an array as a file, which is what tasks read."""
    if isinstance(value, Image.Image):
        value.save(folder / "image.png")
        return folder / "image.png"
    if isinstance(value, Tensor):
        value = value.detach().cpu().resolve_conj().numpy()
    if isinstance(value, np.ndarray):
        np.save(folder / "image.npy", value)
        return folder / "image.npy"
    return Path(value)
