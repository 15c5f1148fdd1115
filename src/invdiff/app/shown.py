"""Pictures of a restoration as files: the saved ones, and others of what has no colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invdiff.files.pictures import save_picture
from invdiff.restoration.directions import Directions
from invdiff.restoration.restored import Restoration


@dataclass(frozen=True)
class Showing:
    """How numbers are seen. part: magnitude or phase, of complex ones. level, width: the value of
    middle grey and the span from black to white, in the units of the file; None as usual."""

    part: str = "magnitude"
    level: float | None = None
    width: float | None = None


def is_complex(done: Restoration) -> bool:
    """Whether its images are complex."""
    return bool(np.iscomplexobj(_arrays(done)[1]))


def window(done: Restoration) -> tuple[float, float, str] | None:
    """(level, width, units) as usual; None of photographs, which have none."""
    scale = done.view.scale
    if not scale.units:
        return None
    return (scale.low + scale.high) / 2, scale.high - scale.low, scale.units


def answers(done: Restoration, folder: Path, how: Showing) -> list[tuple[Path, str]]:
    """(file, caption) of the estimate, then the samples, then what stands for them."""
    names, arrays = _arrays(done)
    found = []
    for (name, caption), array in zip(names, arrays, strict=True):
        saved = folder / f"{name}.png"
        if how != Showing() or not saved.is_file():
            saved = folder.parent / f"{folder.name}-{name}-{_stamp(how)}.png"
            if not saved.exists():
                Image.fromarray(pixels(done, array, how)).save(saved)
        found.append((saved, caption))
    return found


def _stamp(how: Showing) -> str:
    return f"{how.part}-{how.level}-{how.width}"


def _arrays(done: Restoration) -> tuple[list[tuple[str, str]], list[np.ndarray]]:
    """((name of the file, caption), array in the units of the file) of every answer."""
    names: list[tuple[str, str]] = []
    arrays: list[np.ndarray] = []
    if done.want != "samples":
        names.append(("estimate", "estimate: the best single picture"))
        arrays.append(done.estimate)
    if done.want != "estimate":
        samples = done.samples
        names += [(f"sample-{i + 1}", f"sample {i + 1}") for i in range(len(samples))]
        arrays += list(samples)
        names.append((done.view.summary_name, f"{done.view.summary_name} of the samples"))
        arrays.append(done.mean)
    return names, arrays


def pixels(done: Restoration, array: np.ndarray, how: Showing) -> np.ndarray:
    """Bytes (H, W) or (H, W, 3) of an array in the units of the file; a stack's middle slice."""
    array = done.view.seen(array)
    if how.part == "phase" and np.iscomplexobj(array):
        unit: np.ndarray = (np.angle(array) + np.pi) / (2 * np.pi)
    elif how.level is not None and how.width is not None and array.ndim == 2:
        unit = (np.abs(array) if np.iscomplexobj(array) else array) - how.level
        unit = unit / max(how.width, 1e-12) + 0.5
    else:
        values = np.atleast_3d(array).transpose(2, 0, 1)
        unit = done.view.picture(torch.from_numpy(np.ascontiguousarray(values))).numpy()
        unit = unit.transpose(1, 2, 0).squeeze()
    return np.asarray((np.nan_to_num(unit) * 255).round().clip(0, 255).astype(np.uint8))


def before(done: Restoration, file: Path) -> tuple[Path, str]:
    """(file, caption): the measurement, or what is made of it without a prior, in the size of the
    results."""
    title, picture = done.view.measurement(done.problem)[0]
    save_picture(file, picture)
    size = done.view.size(tuple(done.result.samples.shape[2:]))
    with Image.open(file) as image:
        if image.size != (size[1], size[0]):
            image.resize((size[1], size[0]), Image.Resampling.NEAREST).save(file)
    return file, title


def moving(done: Restoration, file: Path) -> Path:
    """The samples one after the other, as a PNG that moves, without loss."""
    frames = [Image.fromarray(pixels(done, a, Showing())) for a in done.samples]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=600, loop=0)
    return file


def along(done: Restoration, found: Directions, coefficients: Sequence[float], file: Path) -> Path:
    """The mean, so many standard deviations along the directions."""
    values: Tensor = found.at(coefficients)
    save_picture(file, done.view.picture(values))
    return file


def one(done: Restoration, index: int, file: Path) -> Path:
    """One sample."""
    Image.fromarray(pixels(done, done.samples[index], Showing())).save(file)
    return file
