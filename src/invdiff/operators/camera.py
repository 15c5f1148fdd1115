"""Cameras: the response curve, bracketed exposures, photon counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.arguments import checked
from invdiff.operators.algebra import Identity, Linear, Operator, PseudoInvertible
from invdiff.operators.algebra.compose import Affine
from invdiff.operators.algebra.scaling import scaled


@dataclass(frozen=True, eq=False)
class CameraResponse(PseudoInvertible):
    """From linear light to display values, pixel by pixel: a power law with a straight toe.

    On [0, 1], with u the light: (1 + offset) u^(1/gamma) - offset, and below the point where a line
    through 0 touches that curve, the line; it goes on for u < 0, so that the curve is smooth and
    invertible for all real numbers. The defaults are those of sRGB (IEC 61966-2-1), to 4e-5.
    Images of any shape, on [-1, 1]: u = (x + 1) / 2, and y is scaled likewise.
    gamma: 1 to 5; 1 changes nothing. offset: 0.001 to 1. reverse: from display values to light.
    Its generalised inverse is its inverse. Raises InvdiffError for other numbers.
    """

    gamma: float = 2.4
    offset: float = 0.055
    reverse: bool = False

    def __post_init__(self) -> None:
        if not (1 <= self.gamma <= 5 and 1e-3 <= self.offset <= 1):
            raise InvdiffError(
                f"A camera response has a gamma from 1 to 5 and an offset from 0.001 to 1, found "
                f"{self.gamma} and {self.offset}."
            )

    def inverse(self) -> CameraResponse:
        """The curve in the other direction."""
        return CameraResponse(self.gamma, self.offset, not self.reverse)

    def _toe(self) -> tuple[float, float]:
        """Where the toe ends, on the display's scale, and display units per light in it."""
        a, g = self.offset, self.gamma
        end = a / (g - 1)
        return end, end / ((end + a) / (1 + a)) ** g

    def _encoded(self, u: Tensor) -> Tensor:
        end, slope = self._toe()
        toe = u * slope <= end
        bend = torch.where(toe, 1.0, u)  # keeps the power away from 0, where it has no slope
        return torch.where(
            toe, slope * u, (1 + self.offset) * bend ** (1 / self.gamma) - self.offset
        )

    def _decoded(self, v: Tensor) -> Tensor:
        end, slope = self._toe()
        toe = v <= end
        bend = torch.where(toe, 1.0, v)
        return torch.where(toe, v / slope, ((bend + self.offset) / (1 + self.offset)) ** self.gamma)

    def __call__(self, x: Tensor) -> Tensor:
        if self.gamma == 1:
            return x
        u = (x + 1) / 2
        return 2 * (self._decoded(u) if self.reverse else self._encoded(u)) - 1

    def pinv(self, y: Tensor) -> Tensor:
        return self.inverse()(y)

    def onto(self, x_shape: tuple[int, ...]) -> bool:
        return True

    def one_to_one(self, x_shape: tuple[int, ...]) -> bool:
        return True

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(x_shape)


@dataclass(frozen=True, eq=False)
class Bracket(PseudoInvertible):
    """Bracketed exposures: y_k = clip(e_k u, 0, 1), u = (x + 1) / 2 the light; on [-1, 1] as x.

    Images (B, ...) of any shape to (B, K, ...). exposures: K numbers above 0; 1 takes white as
    white, 4 is two stops brighter. x is linear light: for a prior of display values,
    `CameraResponse() @ Bracket(e) @ CameraResponse().inverse()` is the whole camera.

    The gradient is e_k where e_k u lies in [0, 1] and 0 elsewhere; the shortest exposure sees all u
    from 0 to 1 / e_k. straight_through: give e_k everywhere instead, as `HDR` does.
    Its generalised inverse merges what is not clipped: with v_k = (y_k + 1) / 2, v_k / e_k has the
    weight e_k^2 v_k times the product of (1 - v_j)^2 over exposures j up to k, so that noise on
    what is clipped counts little; where all is clipped, the shortest decides.
    Raises InvdiffError for other exposures.
    """

    exposures: tuple[float, ...]
    straight_through: bool = False

    def __post_init__(self) -> None:
        exposures = tuple(float(e) for e in self.exposures)
        if not exposures or not all(0 < e < math.inf for e in exposures):
            raise InvdiffError(
                f"Exposures are finite numbers above 0, at least one, found {exposures}."
            )
        object.__setattr__(self, "exposures", exposures)

    def _gains(self, like: Tensor) -> Tensor:
        """The exposures, (K, 1, ...), to multiply images like (B, ...) with a new axis 1."""
        e = torch.tensor(self.exposures, dtype=like.dtype, device=like.device)
        return e.reshape(-1, *[1] * (like.ndim - 1))

    def __call__(self, x: Tensor) -> Tensor:
        return (self._gains(x) * (x[:, None] + 1) - 1).clamp(-1, 1)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        gains = self._gains(x)
        if not self.straight_through:
            inside = (gains * (x[:, None] + 1) - 1).abs() <= 1
            v = torch.where(inside, v, 0.0)
        return (gains * v).sum(1)

    def pull(self, x: Tensor, r: Tensor) -> Tensor:
        """Of every exposure, and not of those alone that do not clip x."""
        return (self._gains(x) * r).sum(1)

    def pinv(self, y: Tensor) -> Tensor:
        order = torch.tensor(self.exposures, device=y.device).argsort()
        light, gains = (y[:, order] + 1) / 2, self._gains(y[:, 0])[order]
        weight = gains * light.clamp_min(0) * (1 - light).clamp(0, 1).square().cumprod(1)
        # where nothing is between black and white: white in the shortest exposure, or black
        unseen = weight.sum(1) == 0
        total = (weight * gains).sum(1)
        u = (weight * light).sum(1) / torch.where(unseen, 1.0, total)
        return 2 * torch.where(unseen, light[:, 0].clamp(0, 1) / gains[0], u) - 1

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (len(self.exposures), *x_shape)


@checked
def to_photons(peak: float, base: Linear | None = None) -> Operator:
    """Expected photon counts, peak (z + 1) / 2 for z = base(x) on [-1, 1]; base: nothing at all.

    peak: counts at white, above 0: some 1000 in daylight, 10 in the dark. With noise that counts
    from black = 0 to white = peak, one photon is one unit of y.
    """
    if not 0 < peak < math.inf:
        raise InvdiffError(f"A peak is a finite number of photons above 0, found {peak}.")
    offset = torch.tensor(peak / 2, dtype=torch.float64)
    return Affine(scaled(base if base is not None else Identity(), peak / 2), offset)
