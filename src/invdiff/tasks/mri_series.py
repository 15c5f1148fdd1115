"""All slices, echoes or times of a file: one task for each image, and one volume of all."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from invdiff.core import InvdiffError
from invdiff.scans import KSpace, NonCartesianKSpace
from invdiff.scans.volumes import write_volume
from invdiff.tasks.base import Parts, View
from invdiff.tasks.mri_values import Which
from invdiff.tasks.mri_view import ComplexView

if TYPE_CHECKING:
    from invdiff.tasks.mri import Mri

MOST = 10_000
"""Images of one file."""


def series_of(task: Mri, k: KSpace | NonCartesianKSpace, whole: tuple[str, ...]) -> Parts:
    """The images of a file of which k is one. whole: by what all are asked for, slowest first."""
    numbers = [k.counts.get(name, (0,)) for name in whole]
    count = int(np.prod([len(n) for n in numbers]))
    if count > MOST:
        raise InvdiffError(f"The file holds {count} images, more than {MOST}; choose some of them.")
    chosen = list(itertools.product(*numbers))
    each: list[dict[str, Any]] = [
        {n: Which(v) for n, v in zip(whole, values, strict=True)} for values in chosen
    ]
    tasks = tuple(dataclasses.replace(task, **{"save_as": None, **one}) for one in each)
    names = tuple(
        "-".join(f"{n}-{v:03d}" for n, v in zip(whole, values, strict=True)) for values in chosen
    )
    shape = tuple(len(n) for n in numbers)
    deep = any(fact.startswith("3-D") for fact in k.facts)
    name = None if task.save_as is None else task.save_as.name

    def join(folder: Path, images: np.ndarray, views: tuple[View, ...]) -> list[str]:
        stack = images.reshape(*shape, *images.shape[1:])
        np.save(folder / "estimate.npy", stack)
        if name is None:
            return ["estimate.npy"]
        first = cast(ComplexView, views[0])
        affines = None
        if first.affine is not None:
            slices = shape[-1] if whole[-1] == "slice" else 1
            mine = [cast(ComplexView, view).affine for view in views[:slices]]
            affines = np.stack([a.numpy() for a in mine if a is not None])
        files = write_volume(folder / name, stack, whole, affines, first.placed, deep)
        return ["estimate.npy", *files]

    return Parts(tasks, names, join)
