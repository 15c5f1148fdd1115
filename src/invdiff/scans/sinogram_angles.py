"""The angles of the views in degrees, and the order of the axes: what they tell, or a question."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError

Unit = Literal["degrees", "radians"]
First = Literal["views", "bins", "rows"]
Angles = Tensor | tuple[float, float]
SHORT = {"deg": "degrees", "degree": "degrees", "rad": "radians", "radian": "radians"}
TWO_TURNS = 4 * math.pi + 1e-6
WIDEST_STEP = math.pi / 4
"""A scan of fewer views than eight a turn is none."""
UNEVEN, LEAST = 3.0, 0.1
"""Ratio, and least value, of the spread of sums along the second axis over that along the first,
from which views seem to stand second: a parallel scan that sees the whole object has the same sum
in every view."""


def in_degrees(
    path: Path, views: int, theta: np.ndarray | None, told: str | None, unit: Unit | None,
    angles: Angles | None,
) -> tuple[tuple[float, ...], str]:  # fmt: skip
    """The angles of so many views in degrees, and how their unit was told.

    theta, told: of the file, with the unit that it names; angles: in place of them.
    Raises InvdiffError where there are none, they do not fit, or their unit is open.
    """
    if isinstance(angles, tuple):
        (start, stop), unit = angles, "degrees"
        angles = start + (stop - start) * torch.arange(views, dtype=torch.float64) / views
    theta = theta if angles is None else angles.double().numpy()
    if theta is None:
        raise InvdiffError(f"{path} holds no angles; give the angle of each of its {views} views.")
    theta = np.asarray(theta, np.float64).squeeze()
    if theta.ndim == 0:
        theta = theta[None]
    if theta.shape != (views,) or not np.isfinite(theta).all():
        raise InvdiffError(
            f"{path} has {views} views, but its angles are of shape {theta.shape}, or not finite."
        )
    if views > 1 and np.ptp(theta) < 1e-9:
        raise InvdiffError(f"All {views} views of {path} have the same angle, {theta[0]:g}.")
    used, how = _unit(path, theta, told if angles is None else None, unit)
    if used == "radians":
        theta = np.degrees(theta)
    reach = f"angles from {theta.min():g} to {theta.max():g} degrees"
    return tuple(theta.tolist()), f"{reach} (read as {used}: {how})"


def _unit(path: Path, theta: np.ndarray, told: str | None, unit: Unit | None) -> tuple[str, str]:
    """The unit of the angles, and how it is known."""
    named = (told or "").strip().lower()
    named = SHORT.get(named, named)
    reach = float(np.abs(theta).max())
    if unit is not None:
        used, how = str(unit), "as asked"
    elif named in ("degrees", "radians"):
        used, how = named, "as the file says"
    elif reach > TWO_TURNS:
        used, how = "degrees", "radians would be more than two turns"
    elif _half_turns(theta):
        used, how = "radians", "they are half a turn or a turn in equal steps"
    else:
        low, high = float(theta.min()), float(theta.max())
        raise InvdiffError(
            f"The angles of {path} run from {low:.4g} to {high:.4g} and do not say their unit: "
            f"degrees, or radians ({math.degrees(low):.4g} to {math.degrees(high):.4g} degrees); "
            "give --angle-unit degrees or --angle-unit radians."
        )
    if used == "radians" and reach > TWO_TURNS:
        raise InvdiffError(
            f"The angles of {path} are called radians but reach {reach:.4g}; give unit='degrees' "
            "(--angle-unit degrees)."
        )
    return used, how


def _half_turns(theta: np.ndarray) -> bool:
    """Whether angles reach over pi or 2 pi to within a step, which degrees would by chance."""
    if len(theta) < 4:
        return False
    ordered = np.sort(theta)
    step = float(np.median(np.diff(ordered)))
    whole = float(np.ptp(theta))
    ends = [abs(whole - k * math.pi + part * step) for k in (1, 2) for part in (0, 1)]
    return 0 < step <= WIDEST_STEP and min(ends) <= 0.51 * step


def ordered_axes(
    path: Path, data: np.ndarray, count: int | None, first: First | None
) -> tuple[np.ndarray, str]:
    """`data` with its views first, and what was done, in words.

    (views, bins), (bins, views), (views, rows, bins) or (rows, views, bins). count: of the angles,
    None for START,STOP. Raises InvdiffError where the number of angles fits no axis.
    """
    if data.ndim not in (2, 3):
        return data, ""
    axes = {"views": 0, "rows": 1 if data.ndim == 3 else 0, "bins": data.ndim - 1}
    if first is not None:
        if first == "rows" and data.ndim == 2 or first == "bins" and data.ndim == 3:
            raise InvdiffError(
                f"{path} has shape {data.shape}; its first axis is views or "
                f"{'bins' if data.ndim == 2 else 'rows'}."
            )
        at, how = axes[first], "as asked"
    else:
        at, how = _axis_of(data.shape, count), f"for there are {count} angles"
    if at == 0:
        return data, ""
    name = "bins" if data.ndim == 2 else "rows"
    return np.moveaxis(data, at, 0), f"axes ({name}, views{', bins' * (data.ndim == 3)}), {how}"


def _axis_of(shape: tuple[int, ...], count: int | None) -> int:
    """The axis of the views by their number: the first one, unless only the second fits."""
    if count is None or shape[0] == count or shape[1] != count:
        return 0
    return 1


def check_rows(path: Path, data: np.ndarray) -> None:
    """Raise InvdiffError where (views, rows, bins) look as if rows stood first: the sums of a row
    are about the same in all views, and differ from row to row as the object does."""
    if data.ndim != 3 or min(data.shape[:2]) < 4 or data.dtype.kind not in "iuf":
        return
    steps = [-(-n // 64) for n in data.shape[:2]]
    sums = np.asarray(data[:: steps[0], :: steps[1]], np.float64).sum(-1)
    if not np.isfinite(sums).all() or sums.mean() == 0:
        return
    along = [float(sums.std(axis).mean() / abs(sums.mean())) for axis in (0, 1)]
    if along[0] > LEAST and along[0] > UNEVEN * along[1]:
        raise InvdiffError(
            f"The sums of {path} along its bins differ by {100 * along[0]:.0f} % along the first "
            f"axis, and by {100 * along[1]:.0f} % along the second, but those of views differ "
            "least: its axes may be (rows, views, bins); give --first rows, or --first views if "
            "views stand first."
        )


def check_order(path: Path, integrals: Tensor, first: First | None) -> None:
    """Raise InvdiffError where the sums of (views, bins) look as if the axes were exchanged."""
    if first is not None or min(integrals.shape) < 4:
        return
    z = integrals.double()

    def spread(sums: Tensor) -> float:
        return float(sums.std() / sums.mean().abs().clamp_min(1e-12))

    rows, columns = spread(z.sum(1)), spread(z.sum(0))
    if rows > LEAST and rows > UNEVEN * columns:
        raise InvdiffError(
            f"The sums of the {z.shape[0]} rows of {path} differ by {100 * rows:.0f} %, those of "
            f"its {z.shape[1]} columns by {100 * columns:.0f} %, but every view of an object has "
            "about the same sum: its axes may be (bins, views); give --first bins, or --first "
            "views if rows are views."
        )
