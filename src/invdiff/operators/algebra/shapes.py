"""The shape of the images that an operator is for, as far as its fields tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.arguments import admitted_as
from invdiff.operators.algebra.operator import Operator

CHANNELS = (1, 2, 3)
"""Numbers of channels that are tried, in this order."""


def fitting_shape(A: Operator, x_shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """x_shape where it is given and fits A, else `image_shape`.

    Raises InvdiffError when x_shape does not fit, and when it is needed.
    """
    if x_shape is not None:
        shape: tuple[int, ...] = admitted_as(tuple[int, ...], x_shape, "The shape of an image")
        A.y_shape(shape)
        return shape
    found = image_shape(A)
    if found is None:
        raise InvdiffError(
            f"The fields of {type(A).__name__} do not tell the shape of its images; give it, for "
            "example as A.norm((3, 256, 256))."
        )
    return found


def image_shape(A: Operator) -> tuple[int, ...] | None:
    """The shape of one image that A takes, with as few channels as fit; None where nothing tells.

    It is read from a field `x_shape`, a field `size` (H, W), or an array (batch, channels, ...)
    such as a mask, of A or of the operators that it is made of, and asked for by `y_shape`.
    """
    for shape in _candidates(A):
        try:
            A.y_shape(shape)
        except (RuntimeError, ValueError, IndexError, TypeError):
            continue
        return shape
    return None


def _candidates(A: Operator) -> Iterator[tuple[int, ...]]:
    """Shapes that fields of A suggest; those of its parts last."""
    values = {f.name: getattr(A, f.name, None) for f in dataclasses.fields(A)}
    whole, size = values.get("x_shape"), values.get("size")
    if isinstance(whole, tuple):
        yield whole
    sizes = [size] if isinstance(size, tuple) else []
    arrays = [v for v in values.values() if isinstance(v, Tensor) and v.ndim >= 4]
    sizes += [tuple(t.shape[2:]) for t in arrays]
    yield from ((c, *size) for size in sizes for c in (*CHANNELS, *(len(t[0]) for t in arrays)))
    for part in _parts(tuple(values.values())):
        yield from _candidates(part)


def _parts(values: tuple[Any, ...]) -> Iterator[Operator]:
    """The operators among values and in tuples there, the last ones first: they meet the image."""
    for value in reversed(values):
        if isinstance(value, Operator):
            yield value
        elif isinstance(value, tuple):
            yield from _parts(value)
