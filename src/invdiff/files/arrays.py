"""Arrays in files, and what their numbers mean as brightness."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from invdiff.core import InvdiffError

FAR = 10.0
"""Numbers beyond it are on no scale where black is 0 and white is 1, noise or not."""
BRIGHT, DARK = 1.25, -0.25
"""Where the upper and the lower twentieth of a picture on [0, 1] lie at the most, without noise."""


@dataclass(frozen=True)
class Told:
    """What is known of a file's numbers before it is read.

    span: its numbers for black and for white; None where the file tells. spread: standard deviation
    of its noise on [0, 1]. flag: the option that tells the span, where there is one. free: whether
    only proportions count, so that the largest of numbers without a scale is white.
    """

    span: tuple[float, float] | None = None
    spread: float = 0.0
    flag: str = ""
    free: bool = False


NOTHING = Told()


def check_file(path: Path) -> None:
    """Raise InvdiffError unless path is a file that can be read: no folder, no pipe, no device."""
    shown = str(path) if len(str(path)) <= 200 else f"{str(path)[:200]}..."
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a null byte is a ValueError
        raise InvdiffError(f"There is no file {shown}; give the path of one.") from None
    except OSError as error:
        raise InvdiffError(f"{shown} cannot be read ({error.strerror}).") from None
    if stat.S_ISDIR(mode):
        raise InvdiffError(f"{shown} is a folder; give a file.")
    if not stat.S_ISREG(mode):
        raise InvdiffError(f"{shown} is a pipe or a device and no file; save its content first.")
    if not os.access(path, os.R_OK):
        raise InvdiffError(f"{shown} cannot be read (Permission denied); change its permissions.")


def read_array(path: Path) -> np.ndarray:
    """The numbers in a .npy file, real or complex, mapped from disk; never unpickled.

    Raises InvdiffError, one sentence with the name of the file, when it holds none.
    """
    check_file(path)
    try:
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:
        raise InvdiffError(
            f"{path} is not a numpy array that can be read; save it with numpy.save."
        ) from error
    check_numbers(array, path)
    return array


def read_only_array(path: Path) -> np.ndarray:
    """The numbers in a .npy file, or in a .npz file that holds one array.

    Raises InvdiffError when there is none, or there are several.
    """
    if path.suffix.lower() != ".npz":
        return read_array(path)
    check_file(path)
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            names = list(archive.files)
            array: np.ndarray | None = archive[names[0]] if len(names) == 1 else None
    except Exception as error:  # of zipfile, numpy, and the tokenizer that numpy asks
        raise InvdiffError(
            f"{path} is no archive of numpy arrays that can be read; save it with numpy.savez."
        ) from error
    if array is None:
        raise InvdiffError(
            f"{path} holds {len(names)} arrays ({', '.join(names[:5])}); save the one that is "
            "meant with numpy.save."
        )
    check_numbers(array, path)
    return array


def check_numbers(array: np.ndarray, path: Path) -> None:
    """Raise InvdiffError unless an array of a file holds numbers."""
    if array.dtype.kind not in "buifc":
        raise InvdiffError(f"{path} holds {array.dtype} and not numbers; save it as a plain array.")


def check_real(array: np.ndarray, name: str) -> None:
    """Raise InvdiffError unless the array called name holds real numbers."""
    if array.dtype.kind not in "buif":
        raise InvdiffError(f"{name} holds {array.dtype}; real numbers are needed here.")


def span_of(array: np.ndarray, name: str, told: Told = NOTHING) -> tuple[float, float]:
    """The numbers of black and of white in an array.

    Bytes, unsigned integers of 16 bits and booleans tell it by their type, numbers that can be on
    [0, 1], with their noise, are taken to be. Raises InvdiffError, a question with all readings and
    what answers it, for others.
    """
    if told.span is not None:
        return told.span
    whole = {"uint8": 255.0, "uint16": 65535.0, "bool": 1.0}.get(array.dtype.name)
    if whole is not None:
        return 0.0, whole
    values = np.asarray(array, np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if told.free:
        return 0.0, high if high > 1 else 1.0
    whole_words = f"{8 * array.dtype.itemsize}-bit integer"
    kind = "floating-point" if array.dtype.kind == "f" else whole_words
    said = f"{name} holds {kind} values from {low:.4g} to {high:.4g}"
    step = max(1, values.size // 1_000_000)
    lower, upper = np.quantile(values.flat[::step], [0.05, 0.95])
    room = 3 * told.spread
    if array.dtype.kind != "f" and (low < 0 or high > 1):
        raise _question(said, _integer_spans(array.dtype, low, high), told)
    if lower < DARK - room and max(-low, high) <= FAR:
        raise _question(said, [(-1, 1), (0, 1)], told)
    if max(-low, high) > FAR or upper > BRIGHT + room:
        raise _question(said, _large_spans(low, high), told)
    return 0.0, 1.0


def _integer_spans(dtype: np.dtype, low: float, high: float) -> list[tuple[float, float]]:
    info = np.iinfo(dtype)
    found = [(0.0, 255.0)] if 0 <= low and high <= 255 else []
    if 0 <= low and high <= 65535 < info.max:
        found.append((0.0, 65535.0))
    found.append((0.0, float(info.max)))
    return found if info.min == 0 else [*found, (float(info.min), float(info.max))]


def _large_spans(low: float, high: float) -> list[tuple[float, float]]:
    top = next((float(t) for t in (255, 1023, 4095, 16383, 65535) if high <= 1.02 * t), 0.0)
    found = [(0.0, top)] if top and low >= -0.05 * top else []
    return [*found, (low, high)] if (low, high) not in found else found


def _question(said: str, spans: list[tuple[float, float]], told: Told) -> InvdiffError:
    pairs = [f"{a:.12g},{b:.12g}" for a, b in spans]
    words = " or ".join(f"{a:.12g} to {b:.12g}" for a, b in spans)
    far = "far from [0, 1], " if max(abs(v) for pair in spans for v in pair) > 1 else ""
    if not told.flag:
        return InvdiffError(
            f"{said}, {far}and black and white may be {words}; divide it so that black is 0 and "
            "white is 1."
        )
    answers = " or ".join(f"{told.flag} {pair}" for pair in pairs)
    return InvdiffError(
        f"{said}, {far}and nothing tells whether black and white are {words}; give {answers}."
    )
