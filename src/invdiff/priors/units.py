"""How physical values become the numbers that a prior knows."""

from __future__ import annotations

from torch import Tensor

HU_WINDOW = (-1024.0, 1500.0)
"""Hounsfield units that the prior `ct` calls -1 and 1."""


def hu_to_x(hu: Tensor) -> Tensor:
    """Hounsfield units to x of the prior `ct`: HU_WINDOW becomes [-1, 1]; nothing is clipped."""
    low, high = HU_WINDOW
    return (hu - low) * (2 / (high - low)) - 1


def x_to_hu(x: Tensor) -> Tensor:
    """x of the prior `ct` to Hounsfield units: the inverse of `hu_to_x`."""
    low, high = HU_WINDOW
    return (x + 1) * ((high - low) / 2) + low
