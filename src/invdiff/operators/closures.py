"""Closure quantities: what visibilities tell whatever the gains and phases of the stations are.

A station multiplies all of its visibilities by a complex gain that is seldom known: V_ab becomes
g_a conj(g_b) V_ab. Around closed loops the gains cancel (phases: Jennison 1958,
doi:10.1093/mnras/118.3.276; amplitudes: Twiss, Carter, Little 1960).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.algebra import Operator


def _check_loops(loops: Tensor, sides: int, name: str) -> None:
    if loops.ndim != 2 or loops.shape[1] != sides or not len(loops) or loops.is_floating_point():
        raise InvdiffError(
            f"{name} are whole numbers of shape (count, {sides}), found {tuple(loops.shape)} of "
            f"{loops.dtype}."
        )
    if loops.is_complex() or int(loops.min()) < 0:
        raise InvdiffError(f"{name} number visibilities from 0.")


def _measured(loops: Tensor, name: str, x_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the closures of visibilities (C, M)."""
    if len(x_shape) != 2 or x_shape[1] <= int(loops.max()):
        raise InvdiffError(
            f"These {name} are of visibilities (channels, {int(loops.max()) + 1} or more), found "
            f"shape {tuple(x_shape)}."
        )
    return (x_shape[0], len(loops))


@dataclass(frozen=True, eq=False)
class ClosurePhases(Operator):
    """y = B / |B|, B = V_ab V_bc conj(V_ac): the phase around triangles of stations, as a phasor.

    Complex visibilities (B, C, M) to complex numbers of length 1, (B, C, T): unlike an angle a
    phasor does not jump, and |y - y'|^2 = 2 - 2 cos of the difference. Where B = 0, y is 0.
    triangles: (T, 3), visibilities a-b, b-c and a-c, as `TelescopeArray.triangles` gives them.
    `ClosurePhases(t) @ Interferometry(uv, size)` measures images.
    Raises InvdiffError for triangles of another shape, or of visibilities that are not there.
    """

    triangles: Tensor

    def __post_init__(self) -> None:
        _check_loops(self.triangles, 3, "Triangles")

    def __call__(self, x: Tensor) -> Tensor:
        ab, bc, ac = (x[..., i] for i in self.triangles.to(x.device).unbind(1))
        # each of length 1 before they are multiplied: three faint visibilities do not underflow
        return torch.sgn(ab) * torch.sgn(bc) * torch.sgn(ac).conj()

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return _measured(self.triangles, "triangles", x_shape)


@dataclass(frozen=True, eq=False)
class ClosureAmplitudes(Operator):
    """y = log (|V_p| |V_q| / (|V_r| |V_s|)) around quadrangles of stations, real.

    Complex visibilities (B, C, M) to (B, C, Q). quadrangles: (Q, 4), visibilities p, q, r, s, as
    `TelescopeArray.quadrangles` gives them. log: False for the ratio itself, more skewed by noise.
    A |V| below 1e-12 counts as that, and has no gradient.
    `ClosureAmplitudes(q) @ Interferometry(uv, size)` measures images.
    Raises InvdiffError for quadrangles of another shape, or of visibilities that are not there.
    """

    quadrangles: Tensor
    log: bool = True

    def __post_init__(self) -> None:
        _check_loops(self.quadrangles, 4, "Quadrangles")

    def __call__(self, x: Tensor) -> Tensor:
        size = x.abs().clamp_min(1e-12).log()
        p, q, r, s = (size[..., i] for i in self.quadrangles.to(x.device).unbind(1))
        y = p + q - r - s
        return y if self.log else y.exp()

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return _measured(self.quadrangles, "quadrangles", x_shape)
