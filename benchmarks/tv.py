"""Total variation by sigpy, for problems with white noise: what is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.problem import Problem


def sigpy_operator(p: Problem) -> tuple[Any, Callable[[np.ndarray], Tensor]]:
    """The operator of a problem on one slice as sigpy's, and its images as ours, (1, *x_shape)."""
    import sigpy

    shape = tuple(p.x_shape[-2:])
    is_complex = p.x_shape[0] == 2

    def image(z: np.ndarray) -> Tensor:
        z = torch.from_numpy(np.ascontiguousarray(z))
        z = torch.stack([z.real, z.imag]) if is_complex else z[None]
        return z[None].float()

    def array(x: Tensor) -> np.ndarray:
        x = x[0]
        return (torch.complex(x[0], x[1]) if is_complex else x[0]).numpy()

    class Op(sigpy.linop.Linop):
        """Our operator on one slice, as sigpy's."""

        def __init__(self) -> None:
            super().__init__(tuple(p.y.shape[1:]), shape, repr_str="A")

        def _apply(self, z: np.ndarray) -> np.ndarray:
            return p.A(image(z))[0].numpy()

        def _adjoint_linop(self) -> sigpy.linop.Linop:
            return Adjoint()

    class Adjoint(sigpy.linop.Linop):
        """Its adjoint."""

        def __init__(self) -> None:
            super().__init__(shape, tuple(p.y.shape[1:]), repr_str="AH")

        def _apply(self, y: np.ndarray) -> np.ndarray:
            return array(p.linear.adjoint(torch.from_numpy(np.ascontiguousarray(y))[None]))

        def _adjoint_linop(self) -> sigpy.linop.Linop:
            return Op()

    return Op(), image


def total_variation(p: Problem, weight: float, iterations: int = 100) -> Tensor:
    """argmin |y - A x|^2 / 2 + weight |grad x|_1 of every measurement, (M, *x_shape).

    By ADMM with 10 conjugate gradients in each iteration: on MRI and CT of norm 1 the objective is
    then within 0.5 % of what 5000 iterations of sigpy's primal-dual method reach, which after a few
    hundred is still far off.

    p: with a linear operator; images of one channel, or complex ones of two.
    """
    import sigpy

    op, image = sigpy_operator(p)
    shape = tuple(p.x_shape[-2:])
    G = sigpy.linop.FiniteDifference(shape)
    done = []
    for y in p.y:
        app = sigpy.app.LinearLeastSquares(
            op, y.numpy(), proxg=sigpy.prox.L1Reg(G.oshape, weight), G=G,
            solver="ADMM", rho=0.1, max_cg_iter=10, max_iter=iterations, show_pbar=False,
        )  # fmt: skip
        done.append(image(np.asarray(app.run())))
    return torch.cat(done)


def l1_wavelet(p: Problem, weight: float, iterations: int = 200) -> tuple[Tensor, float, float]:
    """argmin |y - A x|^2 / 2 + weight |W x|_1, W the Daubechies-4 wavelets, of one measurement.

    By FISTA with steps of 1, for operators of norm 1. Returns the image (1, *x_shape), its
    objective, and how much of the objective the second half of the iterations took off.
    """
    import sigpy

    op, image = sigpy_operator(p)
    W = sigpy.linop.Wavelet(tuple(p.x_shape[-2:]), wave_name="db4")
    prox = sigpy.prox.UnitaryTransform(sigpy.prox.L1Reg(W.oshape, weight), W)
    y, x, value = p.y[0].numpy(), None, []
    for _ in range(2):
        app = sigpy.app.LinearLeastSquares(
            op, y, x=x, proxg=prox, alpha=1, max_iter=iterations // 2, show_pbar=False
        )
        x = np.asarray(app.run())
        value.append(0.5 * float(np.square(np.abs(op * x - y)).sum())
                     + weight * float(np.abs(W * x).sum()))  # fmt: skip
    return image(x), value[-1], 1 - value[-1] / value[0]


def tv_objective(p: Problem, x: Tensor, weight: float) -> float:
    """|y - A x|^2 / 2 + weight |grad x|_1 of complex images (1, 2, H, W), as `total_variation`."""
    z = torch.complex(x[:, 0], x[:, 1])
    steps = sum(float((z - z.roll(1, axis)).abs().sum()) for axis in (-2, -1))
    return 0.5 * float(p.residual(x).abs().square().sum()) + weight * steps
