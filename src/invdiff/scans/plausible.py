"""Checks of k-space that cost nothing: could its axes, its origin or its domain be other ones?

Each raises one question, with both readings and the option that answers it. None speaks where an
array is as likely the one as the other: only for what would be read wrongly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from invdiff.core import InvdiffError
from invdiff.operators.coils import calibration_region
from invdiff.scans.asked import PARTS

NEAR = 0.3
"""Share of all energy that lies around the strongest sample of k-space, at least."""
AREA = 0.1
"""Share of all samples above which "around the strongest" says nothing."""
FLAT = 0.1
"""Share of energy around the strongest sample below which an array is no k-space of an image, if
its transform is."""
CHANNELS = (0.02, 0.1)
"""What is left of a sample of one channel, that its neighbours do not tell, by the neighbours of
all channels: below for coils (0.001 to 0.02 of a measured brain and of simulated coils), above for
images of their own (0.19 to 0.5 of heads)."""
CLEAR = 0.8
"""Share of all energy in the middle of k-space, below which noise would pass for images of their
own."""
MOST = 8
"""Channels that are looked at."""


def check_lengths(shape: tuple[int, ...], names: tuple[str, ...], what: str) -> None:
    """Raise InvdiffError where one axis of the image is much the shortest, shorter than half of the
    other and of the coils: then it is more likely the coils."""
    where = {name: k for k, name in enumerate(names)}
    odd = next((name for name in ("coils", "slices") if name in where), None)
    if odd is None:
        return
    size = {name: shape[where[name]] for name in ("y", "x", odd)}
    short = min(("y", "x"), key=lambda name: size[name])
    other = "x" if short == "y" else "y"
    if 2 * size[short] > min(size[other], size[odd]) or size[short] < 2:
        return
    rest = iter(("y", "x"))
    swapped = [
        "coils" if k == where[short] else next(rest) if name in ("y", "x", odd) else name
        for k, name in enumerate(names) if name in where and name != PARTS
    ]  # fmt: skip
    told = [name for name in names if name != PARTS]
    raise InvdiffError(
        f"{what} of {' x '.join(map(str, shape))} would have {size[odd]} {odd} of {size['y']} x "
        f"{size['x']} samples, for its axes are taken to be {', '.join(told)}; is the one of "
        f"{size[short]} the coils? Then give --axes {','.join(swapped)}, else --axes "
        f"{','.join(told)}."
    )


def check_domain(k: np.ndarray, what: str) -> None:
    """Raise InvdiffError where the strongest samples of k-space (coils, H, W) are not in the
    middle, or where it looks like an image."""
    power = np.square(np.abs(np.nan_to_num(k, posinf=0, neginf=0))).sum(0, dtype=np.float64)
    at, share = _peak(power)
    if share is None:
        return
    size = power.shape
    off = [_apart(p, n // 2, n) for p, n in zip(at, size, strict=True)]
    if share >= NEAR and any(d > max(4, n // 8) for d, n in zip(off, size, strict=True)):
        corner = all(_apart(p, 0, n) <= max(4, n // 8) for p, n in zip(at, size, strict=True))
        answer = (
            "is the zero frequency in the corner, as numpy.fft.fft2 leaves it? Then give --origin "
            "corner"
            if corner
            else "was k-space cut or shifted? Then pad it with zeros, or shift it, so that the "
            "zero frequency is in the middle"
        )
        raise InvdiffError(
            f"The strongest sample of {what} is at ({at[0]}, {at[1]}) of {size[0]} x {size[1]}, "
            f"not in the middle, ({size[0] // 2}, {size[1] // 2}): {answer}; --origin centre takes "
            "it as it is."
        )
    if share < FLAT and (power > 0).mean() > 0.5:
        image = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(k, axes=(-2, -1))), axes=(-2, -1))
        turned, theirs = _peak(np.square(np.abs(image)).sum(0, dtype=np.float64))
        middle = all(_apart(p, n // 2, n) <= 2 for p, n in zip(turned, size, strict=True))
        if theirs is not None and theirs >= 0.5 and middle:
            raise InvdiffError(
                f"{what} looks like an image and not like its k-space, for its energy is spread "
                "and that of its Fourier transform is in the middle; transform it first (centred, "
                "as invdiff.operators.fft2c), or give --origin centre if it is k-space."
            )


def _peak(power: np.ndarray) -> tuple[tuple[int, ...], float | None]:
    """Where the strongest sample is, and the share of energy around it; None where the array is
    too small to tell, or 0."""
    at = np.unravel_index(int(power.argmax()), power.shape)
    reach = [max(2, n // 16) for n in power.shape]
    near = np.ix_(*[
        np.arange(p - r, p + r + 1) % n
        for p, r, n in zip(at, reach, power.shape, strict=True)
    ])  # fmt: skip
    total = float(power.sum())
    small = np.prod([2 * r + 1 for r in reach]) > AREA * power.size
    if small or not np.isfinite(total) or total <= 0:
        return tuple(map(int, at)), None
    return tuple(map(int, at)), float(power[near].sum()) / total


def _apart(a: int, b: int, n: int) -> int:
    """Distance of two samples on a circle of n."""
    return min((a - b) % n, (b - a) % n)


def check_channels(
    array: Any, names: tuple[str, ...], what: str, numbers: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Raise InvdiffError where what are taken to be coils see different images, or where what are
    taken to be slices see one.

    Of several axes with more images than one the one of coils is looked at. numbers: from values of
    the array to complex ones.
    """
    odd = next((name for name in ("coils", "slices") if name in names), None)
    if odd is None:
        return
    axis = names.index(odd)
    index: list[Any] = [n // 2 for n in array.shape]
    n = array.shape[axis]
    index[axis] = slice(0, min(n, MOST))
    for k, name in enumerate(names):
        if name in ("y", "x", PARTS):
            index[k] = slice(None)
        elif name not in ("slices", "coils"):
            index[k] = 0
    if n < 2 or "z" in names or not {"y", "x"} <= set(names):
        return
    order = [name for name in names if name in (odd, "y", "x")]
    shape = [array.shape[names.index(name)] for name in order]
    if array.dtype.itemsize * np.prod(shape, dtype=float) > 2**28:
        return
    stack = numbers(np.asarray(array[tuple(index)]))
    stack = stack.transpose([order.index(name) for name in (odd, "y", "x")])
    left = _unexplained(stack)
    told = [name for name in names if name != PARTS]
    if left is None:
        return
    if odd == "coils" and left > CHANNELS[1]:
        other = ["slices" if name == "coils" else "coils" if name == "slices" else name
                 for name in told]  # fmt: skip
        answer = "--first slices" if len(told) == 3 else f"--axes {','.join(other)}"
        keep = "--first coils" if len(told) == 3 else f"--axes {','.join(told)}"
        raise InvdiffError(
            f"{what} has {n} images of {stack.shape[1]} x {stack.shape[2]} samples that look like "
            f"{n} slices, not like {n} coils that see one image: if they are slices give {answer}, "
            f"else {keep}."
        )
    if odd == "slices" and len(told) == 3 and left < CHANNELS[0]:
        raise InvdiffError(
            f"{what} has {n} images of {stack.shape[1]} x {stack.shape[2]} samples that look like "
            f"{n} coils that see one image, not like {n} slices: if they are coils give --first "
            "coils, else --first slices."
        )


def _unexplained(k: np.ndarray) -> float | None:
    """What is left of a channel's samples, by those around them of all channels, as a share of what
    is left by those of the channel alone; the median over the channels (n, H, W).

    Coils see one image, so that a sample of one is told by those around it of the others; images of
    their own tell little of each other. None where the middle is not sampled, too small, noise, or
    the same in all channels.
    """
    rows, columns = calibration_region(torch.from_numpy((k != 0).any(0))[None, None])
    rows, columns = min(rows, 24), min(columns, 24)
    if min(rows, columns) < 10:
        return None
    h, w = k.shape[1:]
    top, left = h // 2 - rows // 2, w // 2 - columns // 2
    c = np.asarray(k[:, top : top + rows, left : left + columns], np.complex128)
    total = np.square(np.abs(k)).sum()
    inside = np.square(np.abs(c)).sum()
    if not np.isfinite(total) or rows * columns > 0.5 * h * w or inside < CLEAR * total:
        return None
    flat = c.reshape(len(c), -1)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-30)
    if np.abs(flat @ flat[0].conj()).min() > 0.9999:
        return None
    # twice as many equations as unknowns
    others = min(len(c) - 1, ((rows - 2) * (columns - 2) // 2 - 8) // 9)
    near = np.lib.stride_tricks.sliding_window_view(c, (3, 3), axis=(1, 2)).reshape(len(c), -1, 9)
    left_over = []
    for j in range(len(c)):
        target, own = near[j][:, 4], np.delete(near[j], 4, 1)
        cross = np.concatenate([near[(j + i) % len(c)] for i in range(1, others + 1)], 1)
        alone = _residual(own, target)
        if alone > 0:
            left_over.append(_residual(np.concatenate([own, cross], 1), target) / alone)
    return float(np.median(left_over)) if left_over else None


def _residual(basis: np.ndarray, target: np.ndarray) -> float:
    """Power that a least-squares fit leaves, for each degree of freedom."""
    fit = np.linalg.lstsq(basis, target, rcond=1e-4)[0]
    return float(np.square(np.abs(target - basis @ fit)).sum()) / max(
        len(target) - basis.shape[1], 1
    )
