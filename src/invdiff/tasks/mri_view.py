"""How images of MRI are shown and saved: magnitude, phase, complex numbers, and volumes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from invdiff.files.figures import Scale
from invdiff.files.pictures import save_picture
from invdiff.operators.coils import root_sum_of_squares
from invdiff.operators.mri import as_complex
from invdiff.operators.noncartesian import NonCartesian
from invdiff.problem import Problem
from invdiff.scans.volumes import write_volume
from invdiff.tasks.base import View
from invdiff.tasks.values import Size

WHITE = 1.2
"""Magnitude on the prior's scale that is shown as white."""
SHARE = 0.02
"""Weight of the identity in SENSE without a prior, which is shown beside the results."""


@dataclass(frozen=True, eq=False)
class ComplexView(View):
    """Samples as magnitude and phase. unit: x times unit is in the units of the file.

    cut: (H, W) of the middle of the image that the scanner shows; None for all of it. support:
    (H, W), False where the coils see nothing and the image is 0; None without it. save_as: a name
    in the folder of results, for the estimate. affine: (4, 4), from (row, column, 0) of what is
    shown to mm; placed: whether it tells a position in the scanner.
    """

    unit: float = 1.0
    cut: tuple[int, int] | None = None
    support: Tensor | None = None
    save_as: str = ""
    affine: Tensor | None = None
    placed: bool = False

    @property
    def scale(self) -> Scale:
        return Scale(0.0, WHITE * self.unit, "units of the k-space")

    @property
    def beside(self) -> str:
        told = "each with its phase (-phase.png: black -pi, white pi) and complex numbers (.npy)"
        return f"{told}; the estimate in {self.save_as}" if self.save_as else told

    def size(self, x_shape: tuple[int, ...]) -> Size:
        h, w = self.cut or x_shape[-2:]
        return min(h, x_shape[-2]), min(w, x_shape[-1])

    def values(self, x: Tensor) -> Tensor:
        if self.support is not None:
            x = x * self.support.to(x.device)
        (h, w), (height, width) = self.size(tuple(x.shape)), x.shape[-2:]
        top, left = height // 2 - h // 2, width // 2 - w // 2
        return x[..., top : top + h, left : left + w] * self.unit

    def array(self, values: Tensor) -> np.ndarray:
        return np.asarray(as_complex(values)[:, 0].numpy())

    def picture(self, values: Tensor) -> Tensor:
        return root_sum_of_squares(values[None])[0] / (WHITE * self.unit)

    def std(self, values: Tensor) -> Tensor:
        """Of the complex number: the root of the variance of both its parts."""
        return values.var(0).sum(0, keepdim=True).sqrt()

    def measurement(self, problem: Problem) -> list[tuple[str, Tensor]]:
        """Zero-filled, or gridded, and of several coils SENSE without a prior."""
        A = problem.linear
        back = A.adjoint(problem.y)
        panels = [("zero-filled", back)]
        if isinstance(A, NonCartesian):
            panels = [("gridded", A.gridded(problem.y))]
        if problem.y.shape[1] > 1:
            panels.append(("SENSE without prior", A.solve(back, SHARE)))
        return [(title, self.picture(self.values(x)[0])) for title, x in panels]

    def save(self, folder: Path, name: str, values: Tensor) -> None:
        z = as_complex(values[None])[0]
        save_picture(folder / f"{name}.png", self.picture(values))
        save_picture(folder / f"{name}-phase.png", z.angle() / (2 * math.pi) + 0.5)
        np.save(folder / f"{name}.npy", z[0].numpy())
        volume = folder / self.save_as
        if self.save_as and name in ("estimate", self.summary_name) and not volume.exists():
            affine = None if self.affine is None else self.affine[None].numpy()
            write_volume(volume, z[0].numpy(), (), affine, self.placed)
