"""The nouns: Level, State, Problem and Case. No algorithms."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from invdiff.noise import Noise, Poisson
    from invdiff.operators.base import Linear, Operator, PseudoInvertible, Spectral
    from invdiff.operators.jpeg import JPEG
    from invdiff.operators.latent import Decoded


class InvdiffError(ValueError):
    """A request that cannot be met; the message is one sentence that says what to do."""


SHOWN = 60
"""Characters of a value of any other kind that `brief` shows."""


def brief(given: Any, defaults: bool = True) -> str:
    """The repr of a dataclass in which arrays are types and shapes: one line or two.

    defaults: whether fields that have their default are shown.
    """
    told = []
    for f in dataclasses.fields(given):
        value = getattr(given, f.name, dataclasses.MISSING)
        plain = isinstance(value, bool | int | float | str | tuple | None)
        same = value is f.default or (plain and value == f.default)
        if f.repr and value is not dataclasses.MISSING and (defaults or not same):
            told.append(f"{f.name}={shown(value)}")
    return f"{type(given).__name__}({', '.join(told)})"


def shown(value: Any) -> str:
    """A value in few characters: arrays by type and shape, long tuples by their ends."""
    if isinstance(value, Tensor | np.ndarray):
        one = value.ndim == 0 and value.device != torch.device("meta")
        kind = str(value.dtype).removeprefix("torch.")
        return f"{value.item()}" if one else f"{kind}({', '.join(map(str, value.shape))})"
    if isinstance(value, tuple | list):
        if len(value) > 6:
            return f"({shown(value[0])}, ..., {shown(value[-1])}: {len(value)} in all)"
        return f"({', '.join(map(shown, value))}{',' * (len(value) == 1)})"
    if isinstance(value, Mapping):
        return f"{{{len(value)} in all}}"
    text = repr(value)
    return text if dataclasses.is_dataclass(value) or len(text) <= SHOWN else f"{text[:SHOWN]}..."


@dataclass(frozen=True)
class Level:
    """A noise level of the frame x_t = a x0 + s eps, with eps ~ N(0, I).

    a: signal scale, > 0 (1 for variance-exploding paths). s: noise scale, >= 0.
    Python floats, so that reading a level never waits for a device.
    """

    a: float
    s: float

    @property
    def sigma(self) -> float:
        """s / a: the noise level of x_t / a, which is all that a denoiser needs."""
        return self.s / self.a

    @property
    def alpha_bar(self) -> float:
        """a^2 / (a^2 + s^2); equals a^2 on a variance-preserving path."""
        return self.a**2 / (self.a**2 + self.s**2)


CLEAN = Level(1.0, 0.0)


@dataclass(frozen=True)
class State:
    """Where a solver stands: everything that its next step needs, and nothing else.

    step: steps done, 0 to solver.num_steps. x: the chain's variable, shape (B, C, ...).
    x0: the current clean estimate, same shape as an image, in the prior's range: the preview.
    extra: further tensors that the solver carries from step to step. A State is a checkpoint.
    """

    step: int
    x: Tensor
    x0: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        return brief(self)


@dataclass(frozen=True, eq=False)
class Problem:
    """A measurement y = A(x0) + noise. It never holds the truth.

    y: measurement, batch first, shape (M, ...), in the units of A's output.
    A: operator that maps images (M, *x_shape) to the shape of y.
    noise: what was added to A(x0).
    x_shape: shape of one image without the batch axis, for example (3, 256, 256).
    Raises InvdiffError when y holds NaN or infinities, or does not have the shape of A(x).
    """

    y: Tensor
    A: Operator
    noise: Noise
    x_shape: tuple[int, ...]

    def __repr__(self) -> str:
        return brief(self)

    def __post_init__(self) -> None:
        object.__setattr__(self, "x_shape", tuple(self.x_shape))
        expected = self.A.y_shape(self.x_shape)
        if tuple(self.y.shape[1:]) != tuple(expected):
            raise InvdiffError(
                f"The measurement has shape {tuple(self.y.shape[1:])} per image, but "
                f"{type(self.A).__name__} maps images {self.x_shape} to {tuple(expected)}; "
                "give the measurement that belongs to this operator."
            )
        y = self.noise.admit(self.A.restrict(self.y))
        if not bool(torch.isfinite(y).all()):
            bad = int((~torch.isfinite(y)).sum())
            raise InvdiffError(
                f"The measurement holds {bad} values that are NaN or infinite; "
                "replace them, or mark them as unknown with a mask."
            )
        object.__setattr__(self, "y", y)

    @property
    def batch(self) -> int:
        """Number of measurements M."""
        return int(self.y.shape[0])

    @property
    def invertible(self) -> PseudoInvertible:
        """A, typed as PseudoInvertible: for solvers that declared GENERALISED_INVERSE or PINV."""
        return cast("PseudoInvertible", self.A)

    @property
    def latent(self) -> Decoded:
        """A, typed as Decoded: for solvers that declared AUTOENCODER, and so were checked."""
        return cast("Decoded", self.A)

    @property
    def linear(self) -> Linear:
        """A, typed as Linear: for solvers that declared LINEAR or PINV, and so were checked."""
        return cast("Linear", self.A)

    @property
    def spectral(self) -> Spectral:
        """A, typed as Spectral: for solvers that declared SVD, and so were checked."""
        return cast("Spectral", self.A)

    @property
    def jpeg(self) -> JPEG:
        """A, typed as JPEG: for solvers that declared CELLS, and so were checked."""
        return cast("JPEG", self.A)

    @property
    def sigma_y(self) -> float:
        """Standard deviation of white Gaussian noise. Raises InvdiffError for any other noise."""
        return float(self.noise.sigma_y)

    @property
    def poisson(self) -> Poisson:
        """The noise, typed as Poisson: for solvers that declared POISSON, and so were checked."""
        return cast("Poisson", self.noise)

    @property
    def x_like(self) -> Tensor:
        """An uninitialised image batch: shape, dtype and device of the unknown."""
        dtype = self.y.real.dtype if self.y.is_complex() else self.y.dtype
        return torch.empty((self.batch, *self.x_shape), dtype=dtype, device=self.y.device)

    def residual(self, x: Tensor) -> Tensor:
        """y - A(x), shape of y; zero where nothing was measured."""
        return self.y - self.A(x)

    def rows(self, index: Tensor) -> Problem:
        """The problem of the measurements index, one row each; a row may be repeated."""
        noise = self.noise.rows(index)
        return Problem(self.y[index], self.A.rows(index), noise, self.x_shape)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Problem:
        """The same problem on another device or in another real dtype."""
        y = self.y.to(device) if dtype is None else self.y.to(device, _as_complex(self.y, dtype))
        noise = self.noise.to(device, dtype)
        return Problem(y, self.A.to(device, dtype), noise, self.x_shape)


def _as_complex(y: Tensor, dtype: torch.dtype) -> torch.dtype:
    return dtype.to_complex() if y.is_complex() else dtype


@dataclass(frozen=True, eq=False)
class Case:
    """A problem with its truth, for benchmarks and tests only.

    truth: images of shape (M, *problem.x_shape).
    """

    problem: Problem
    truth: Tensor

    def __repr__(self) -> str:
        return brief(self)


def batch_norm(x: Tensor) -> Tensor:
    """Euclidean norm of every sample: shape (B, 1, 1, ...) so that it broadcasts over x."""
    return x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))


def batch_dot(x: Tensor, y: Tensor) -> Tensor:
    """Real inner product Re <x, y> of every sample: shape (B, 1, 1, ...)."""
    product = (x.conj() * y).real if x.is_complex() else x * y
    return product.flatten(1).sum(1).reshape(-1, *[1] * (x.ndim - 1))


def log_normal(r: Tensor, variance: float) -> Tensor:
    """log N(r; 0, variance I) of every sample, shape (B,)."""
    n = r[0].numel()
    return -0.5 * (r.flatten(1).square().sum(1) / variance + n * math.log(2 * math.pi * variance))


def nearest(name: str, known: Iterable[str], kind: str) -> InvdiffError:
    """The error for an unknown name, with the names that come nearest."""
    known = list(known)
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}."
    return InvdiffError(f"There is no {kind} called {name!r}; {hint}")
