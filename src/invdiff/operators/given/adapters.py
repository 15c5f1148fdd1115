"""Operators of other libraries: SciPy's and deepinv's."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.algebra import Linear, Operator
from invdiff.operators.given.functions import FromFunction, from_functions


def from_scipy(
    operator: Any, x_shape: tuple[int, ...], y_shape: tuple[int, ...] | None, check: bool
) -> Linear:
    """See `Linear.from_scipy`."""
    if not all(callable(getattr(operator, name, None)) for name in ("matvec", "rmatvec")):
        raise InvdiffError(
            f"A LinearOperator has matvec and rmatvec, and {type(operator).__name__} has not."
        )
    m, n = operator.shape
    shape_y = (int(m),) if y_shape is None else tuple(y_shape)
    if (int(m), int(n)) != (int(np.prod(shape_y)), int(np.prod(x_shape))):
        raise InvdiffError(
            f"An operator from images {tuple(x_shape)} to measurements {shape_y} is "
            f"{np.prod(shape_y)} x {np.prod(x_shape)}, found {m} x {n}."
        )

    def back(y: np.ndarray) -> np.ndarray:
        try:
            x = operator.rmatvec(y.reshape(-1))
        except NotImplementedError:
            raise InvdiffError(
                "This LinearOperator has no rmatvec, which is the adjoint that a solver needs."
            ) from None
        return np.real(x).reshape(x_shape)

    def there(x: np.ndarray) -> np.ndarray:
        return np.asarray(operator.matvec(x.reshape(-1))).reshape(shape_y)

    return from_functions(there, back, x_shape, numpy=True, check=check)


def from_deepinv(physics: Any, x_shape: tuple[int, ...], check: bool) -> Operator:
    """See `Operator.from_deepinv`."""
    try:
        from deepinv.physics import LinearPhysics, Physics
    except (ImportError, RuntimeError) as error:
        raise InvdiffError(
            f"deepinv cannot be imported ({error}); it needs a torchvision that matches torch."
        ) from error
    if not isinstance(physics, Physics):
        raise InvdiffError(f"A Physics of deepinv is needed, found {type(physics).__name__}.")
    copies: dict[tuple[torch.dtype, torch.device], Any] = {}

    def at(t: Tensor) -> Any:
        key = (t.dtype.to_real(), t.device)
        if key not in copies:
            copies[key] = _in_precision(copy.deepcopy(physics).to(t.device), key[0])
        return copies[key]

    if not isinstance(physics, LinearPhysics):
        return FromFunction(lambda x: at(x).A(x))
    return from_functions(
        lambda x: at(x).A(x),
        lambda y: at(y).A_adjoint(y),
        x_shape,
        dtype=torch.float32,
        check=check,
    )


def _in_precision(physics: Any, dtype: torch.dtype) -> Any:
    """A physics with its tensors in a real dtype, complex ones in the complex one of that size.

    `to(dtype)` would take the real part of complex tensors.
    """

    def wanted(old: torch.dtype) -> torch.dtype:
        if not (old.is_floating_point or old.is_complex):
            return old
        return dtype.to_complex() if old.is_complex else dtype

    own = getattr(physics, "dtype", None)
    if isinstance(own, torch.dtype):  # some cast y to it
        physics.dtype = wanted(own)
    return physics._apply(lambda t: t.to(wanted(t.dtype)))
