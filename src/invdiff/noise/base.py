"""What a noise model is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from invdiff.core import InvdiffError, brief
from invdiff.core.arguments import admit, admitting
from invdiff.core.rng import Rng


@dataclass(frozen=True)
class Noise:
    """What lies between z = A(x0) and the measurement y.

    additive: whether the law of y - z does not depend on z.
    """

    made_by: ClassVar[str] = "invdiff.GaussianNoise(SIGMA)"
    additive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        admit(self)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__repr__" not in cls.__dict__:  # else every dataclass prints all of its numbers
            cls.__repr__ = Noise.__repr__  # type: ignore[method-assign]
        admitting(cls)

    def __repr__(self) -> str:
        """Its fields, arrays by their shapes."""
        return brief(self)

    def sample(self, z: Tensor, rng: Rng) -> Tensor:
        """Draw y given z, shape (B, ...); row i depends on the i-th seed only."""
        raise NotImplementedError

    @property
    def has_density(self) -> bool:
        """Whether log_prob and score exist: not for a noiseless measurement."""
        return False

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """log p(y | z) of every sample, shape (B,)."""
        raise NotImplementedError

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        """Gradient of log p(y | z) with respect to z, shape of z.

        For complex z it is d/d(Re z) + i d/d(Im z), so that A.vjp(x, score) is the gradient with
        respect to x where z = A(x).
        """
        raise NotImplementedError

    @property
    def sigma_y(self) -> float:
        """Standard deviation of white Gaussian noise. Raises InvdiffError for any other noise."""
        raise InvdiffError(f"{type(self).__name__} noise has no single sigma.")

    def admit(self, y: Tensor) -> Tensor:
        """y with the entries that say nothing under this noise set to zero.

        Raises InvdiffError when y cannot have come from this noise.
        """
        return y

    def rows(self, index: Tensor) -> Self:
        """The noise of the batch rows index (rows may repeat)."""
        return self

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """The noise with its tensors on another device; real floating ones in dtype if given."""
        return self


def positive(what: str, value: float) -> None:
    """Raise InvdiffError unless value, which `what` names, is a finite number above 0."""
    if not 0 < value < float("inf"):
        raise InvdiffError(f"{what} is a finite number above 0, found {value}.")


def real(y: Tensor, kind: str) -> Tensor:
    """y. Raises InvdiffError where it is complex, which noise of this kind cannot be."""
    if y.is_complex():
        raise InvdiffError(f"{kind} noise is of real measurements, found complex numbers.")
    return y


def parts(t: Tensor) -> Tensor:
    """Real numbers as they are, complex ones as pairs of real numbers in a last axis."""
    return torch.view_as_real(t.resolve_conj()) if t.is_complex() else t


def whole(t: Tensor, like: Tensor) -> Tensor:
    """The inverse of `parts` for an array like `like`."""
    return torch.view_as_complex(t.contiguous()) if like.is_complex() else t


def white(like: Tensor, rng: Rng) -> Tensor:
    """The measurement's white noise: N(0, 1) in every entry, in every part of a complex one."""
    return whole(rng.normal(parts(like), "measurement"), like)
