"""Several images of one file, restored one by one, and put together: slices, echoes, times."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from invdiff.core import InvdiffError
from invdiff.core.durable import write_text
from invdiff.core.folders import check_folder, remove_results, written
from invdiff.fields import build
from invdiff.restoration.job import Job, prepare
from invdiff.restoration.perform import perform
from invdiff.restoration.restored import MARKER, Restoration
from invdiff.tasks import task_class
from invdiff.tasks.base import Parts, Task

SERIES = "series.json"
"""What a folder of several restorations holds when it is complete."""
STARTED = "series.part.json"
"""What it holds before: the parts that are done."""


@dataclass(frozen=True, eq=False)
class Series:
    """Restorations of several images of one file, in order.

    parts: how they are put together. images: each a `Restoration`.
    """

    parts: Parts
    images: tuple[Restoration, ...]

    @property
    def estimate(self) -> np.ndarray:
        """The best picture of every image, (images, H, W)."""
        return np.stack([best(r) for r in self.images])

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """A folder for each image, and the volume of all. Raises InvdiffError when it exists."""
        out = Path(folder)
        begin(out, overwrite, False)
        for name, image in zip(self.parts.names, self.images, strict=True):
            image.save(out / name)
        finish(out, self.parts, self.images)
        return out


def best(r: Restoration) -> np.ndarray:
    """The estimate, or where samples alone were drawn what stands for them."""
    return r.mean if r.want == "samples" else r.estimate


def restore_all(task: str | Task, file: str | Path, **more: Any) -> Series:
    """`invdiff.restore` for every image of a file that the task asks for, as `slice="all"`.

    more: options of the task, where it is a name, and of `prepare` (prior, solver, samples, seed,
    want, device, ...). Raises InvdiffError where the task asks for one image.
    """
    takes = {"prior", "solver", "samples", "seed", "batch", "want", "device", "precision"}
    how = {k: v for k, v in more.items() if k in takes}
    options = {k: v for k, v in more.items() if k not in takes}
    asked = task if isinstance(task, Task) else build(task_class(task), options, str(task))
    parts = asked.parts(Path(file))
    if parts is None:
        raise InvdiffError("One image is asked for; invdiff.restore makes it.")
    images = [perform(prepare(one, file, **how), quiet=True) for one in parts.tasks]
    return Series(parts, tuple(images))


def begin(out: Path, overwrite: bool, resume: bool) -> dict[str, str]:
    """The folder of a series; the parts that an interrupted run has done, with their digests.

    Raises InvdiffError for a folder that is there, and is not to be replaced or gone on with.
    """
    started = out / STARTED
    if resume:
        try:
            found = json.loads(started.read_text())["done"]
        except (OSError, ValueError, LookupError, TypeError):
            found = None
        if not isinstance(found, dict):
            raise InvdiffError(f"{out} is no series that was interrupted; leave --resume out.")
        return found
    if started.is_file() and not overwrite:
        raise InvdiffError(
            f"{out} is a series that was interrupted; give --resume to go on, or --overwrite to "
            "begin anew."
        )
    marker = STARTED if started.is_file() else SERIES
    check_folder(out, overwrite, marker)
    if out.exists():
        remove_results(out, marker)
    out.mkdir(parents=True)
    _mark(out, STARTED, (), done={})
    return {}


def each(
    parts: Parts, out: Path, done: dict[str, str], job_of: Callable[[Task, Path], Job]
) -> Iterator[tuple[str, Job | None]]:
    """(name, job) of every part; None for one that was done by the same job."""
    for task, name in zip(parts.tasks, parts.names, strict=True):
        job = job_of(task, out / name)
        same = done.get(name) == job.digest and (out / name / MARKER).is_file()
        yield name, None if same else job
        done[name] = job.digest
        _mark(out, STARTED, done, done=done)


def abandon(out: Path) -> None:
    """Remove the folder of a series of which nothing was done."""
    with contextlib.suppress(InvdiffError):
        remove_results(out, STARTED)


def finish(out: Path, parts: Parts, images: tuple[Restoration, ...]) -> list[str]:
    """Write what the parts are together; the names of the files."""
    stack = np.stack([best(r) for r in images])
    names = parts.join(out, stack, tuple(r.view for r in images))
    _mark(out, SERIES, parts.names, names, parts=parts.names)
    (out / STARTED).unlink(missing_ok=True)
    return names


def _mark(
    out: Path, marker: str, within: Iterable[str], more: Iterable[str] = (), **told: Any
) -> None:
    """Tell in a file of the folder what was written there, and what else is to be known.

    within: names of the folders of parts; what they hold is in their own markers.
    """
    inner = [f"{part}/{name}" for part in within for name in written(out / part, MARKER)]
    known = {"invdiff": version("invdiff"), "files": sorted({marker, *more, *inner})}
    write_text(out / marker, json.dumps(known | told) + "\n")
