"""The ladder of operators: Operator, Linear, Spectral; and how they compose.

Every operator is a frozen dataclass over image shapes, batch first. What a rung promises:

  Operator   A(x), vjp(x, v)                           any differentiable map
  Linear     adjoint(y), solve(b, shift), pinv(y)      conjugate gradients unless overridden
  Spectral   s, V(c), Vt(x), U(c), Ut(y)               A = U s Vt in closed form
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from invdiff.core import batch_dot
from invdiff.rng import Rng


@dataclass(frozen=True, eq=False)
class Operator:
    """A map from images (B, *x_shape) to measurements (B, *y_shape).

    batched: names of the tensor fields whose first axis is the batch (or 1, shared by all rows).
    differentiable: False only for operators through which no gradient passes (real JPEG).
    """

    batched: ClassVar[tuple[str, ...]] = ()
    differentiable: ClassVar[bool] = True

    def __call__(self, x: Tensor) -> Tensor:
        """A(x)."""
        raise NotImplementedError

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """(dA/dx)^T v at x; shapes of x, of A(x), result like x. By automatic differentiation."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self(x), x, v)[0]

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one measurement of an image of shape x_shape, both without the batch axis.

        Raises InvdiffError when images of this shape do not fit the operator.
        """
        return tuple(self(torch.zeros(1, *x_shape)).shape[1:])

    def restrict(self, y: Tensor) -> Tensor:
        """y with the entries that were never measured set to zero."""
        return y

    def rows(self, index: Tensor) -> Self:
        """The operator of the batch rows index (rows may repeat)."""
        return self._map(
            lambda name, t: t[index] if name in self.batched and t.shape[0] > 1 else t,
            lambda op: op.rows(index),
        )

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """The operator with its tensors on another device; real floating ones in dtype if given."""

        def move(_: str, t: Tensor) -> Tensor:
            return t.to(device, dtype if dtype and t.is_floating_point() else t.dtype)

        return self._map(move, lambda op: op.to(device, dtype))

    def __matmul__(self, inner: Operator) -> Operator:
        """self after inner."""
        from invdiff.operators.algebra import compose

        return compose(self, inner)

    def _map(
        self, tensor: Callable[[str, Tensor], Tensor], operator: Callable[[Operator], Operator]
    ) -> Self:
        changes: dict[str, Any] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                changes[f.name] = tensor(f.name, value)
            elif isinstance(value, Operator):
                changes[f.name] = operator(value)
            elif isinstance(value, tuple) and value and isinstance(value[0], Operator):
                changes[f.name] = tuple(operator(v) for v in value)
        return dataclasses.replace(self, **changes) if changes else self

    def _as(self, name: str, like: Tensor) -> Tensor:
        """The real tensor attribute `name` in the precision and on the device of like, kept."""
        casts = self.__dict__.setdefault("_casts", {})
        key = (name, like.dtype, like.device)
        if key not in casts:
            value = getattr(self, name)
            dtype = like.real.dtype if like.is_complex() else like.dtype
            if value.is_complex():
                dtype = dtype.to_complex()
            casts[key] = value.to(like.device, dtype)
        kept: Tensor = casts[key]
        return kept


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    iterations: int,
    tol: float = 0.0,
    start: Tensor | None = None,
) -> Tensor:
    """Solve apply(x) = b for every sample, apply symmetric and positive semidefinite.

    b: (B, ...), real or complex. A sample stops changing once its residual is below
    tol * |b| (or the round-off of its dtype); scalars are float64. Nothing waits for a device:
    the loop ends early only on the CPU.
    """
    x = torch.zeros_like(b) if start is None else start
    r = b if start is None else b - apply(x)
    p = r
    rr = batch_dot(r, r).double()
    floor = max(tol, torch.finfo(b.dtype).eps) ** 2 * batch_dot(b, b).double()
    for _ in range(iterations):
        active = rr > floor
        if b.device.type == "cpu" and not bool(active.any()):
            break
        q = apply(p)
        pq = batch_dot(p, q).double()
        go = active & (pq > 0)
        step = torch.where(go, rr / torch.where(go, pq, 1.0), 0.0)
        x = x + step.to(b.dtype) * p
        r = r - step.to(b.dtype) * q
        new = batch_dot(r, r).double()
        ratio = torch.where(go, new / torch.where(go, rr, 1.0), 0.0)
        p = r + ratio.to(b.dtype) * p
        rr = torch.where(go, new, 0.0 * rr)
    return x


def gmres(apply: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """Minimise |apply(x) - b| over the Krylov space of `iterations` steps, for every sample.

    Saad and Schultz 1986. apply: linear, square, not necessarily symmetric; it is called
    `iterations` times. b: real, (B, ...). The small least-squares problem is solved in float64,
    in the directions that round-off leaves. Nothing waits for a device.
    """

    def column(v: Tensor) -> Tensor:
        return v.to(b.dtype).reshape(-1, *[1] * (b.ndim - 1))

    def unit(v: Tensor, norm: Tensor) -> Tensor:
        return v * column(torch.where(norm > 0, 1 / norm, 0.0))

    norm = batch_dot(b, b).double().sqrt().flatten()
    basis = [unit(b, norm)]
    H = torch.zeros(len(b), iterations + 1, iterations, dtype=torch.float64, device=b.device)
    for k in range(iterations):
        w = apply(basis[k])
        for j in range(k + 1):
            H[:, j, k] = batch_dot(basis[j], w).double().flatten()
            w = w - column(H[:, j, k]) * basis[j]
        H[:, k + 1, k] = batch_dot(w, w).double().sqrt().flatten()
        basis.append(unit(w, H[:, k + 1, k]))
    rhs = torch.zeros(len(b), iterations + 1, 1, dtype=torch.float64, device=b.device)
    rhs[:, 0, 0] = norm
    weights = (torch.linalg.pinv(H, rtol=torch.finfo(b.dtype).eps) @ rhs)[:, :, 0]
    x = torch.zeros_like(b)
    for k in range(iterations):
        x = x + column(weights[:, k]) * basis[k]
    return x


def least_squares(A: Linear, y: Tensor, iterations: int) -> Tensor:
    """The shortest x that minimises |A x - y|, for every sample, by CGLS (Hestenes, Stiefel 1952).

    A^T r is computed afresh in each iteration, so it stays in the row space of A: conjugate
    gradients on A^T A x = A^T y diverge along the null space once they reach round-off.
    A sample stops changing at |r| <= 8 eps |y| or |A^T r| <= 8 eps |A| |r|, eps of its dtype and
    |A| the largest gain met so far. Nothing waits for a device: only the CPU ends the loop early.
    """

    def square(v: Tensor) -> Tensor:
        return batch_dot(v, v).double().flatten()

    def along(factor: Tensor, v: Tensor) -> Tensor:
        return factor.to(v.real.dtype).reshape(-1, *[1] * (v.ndim - 1)) * v

    r, s = y, A.adjoint(y)
    p, x, ss, gain = s, torch.zeros_like(s), square(s), torch.zeros_like(square(s))
    eps2 = (8 * torch.finfo(s.dtype).eps) ** 2
    active, floor = ss > 0, eps2 * square(y)
    for _ in range(iterations):
        q = A(p)
        qq, pp = square(q), square(p)
        gain = torch.maximum(gain, qq / torch.where(active, pp, 1.0))
        active = active & (qq > eps2 * gain * pp)
        step = torch.where(active, ss / torch.where(active, qq, 1.0), 0.0)
        x, r = x + along(step, p), r - along(step, q)
        s, rr = A.adjoint(r), square(r)
        new = square(s)
        active = active & (rr > floor) & (new > eps2 * gain * rr)
        if y.device.type == "cpu" and not bool(active.any()):
            break
        p = s + along(torch.where(active, new / torch.where(active, ss, 1.0), 0.0), p)
        ss = new
    return x


def inverse_squared_norm(A: Linear, like: Tensor, iterations: int = 30) -> Tensor:
    """1 / |A|^2 for every row of like (B, *x_shape), and 0 where A is 0: shape (B, 1, 1, ...).

    |A|^2 is the larger of what A does to a constant image, which is exact for averages (block
    means, bicubic decimation, blur), and of a power iteration from fixed noise: a lower bound.
    """
    x = Rng.of(0, portable=True).normal(like[:1], "power").expand_as(like)
    for _ in range(iterations):
        x = A.adjoint(A(x))
        size = batch_dot(x, x).sqrt()
        x = x / torch.where(size > 0, size, 1.0)
    z, flat = A(x), A(torch.ones_like(like) / like[0].numel() ** 0.5)
    squared = torch.maximum(batch_dot(z, z).flatten(), batch_dot(flat, flat).flatten())
    found = torch.where(squared > 0, 1 / squared, 0.0)
    return found.reshape(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True, eq=False)
class Linear(Operator):
    """An operator with an adjoint. cg_iterations bounds the default solve and pinv."""

    cg_iterations: ClassVar[int] = 200

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y (A^H y where complex): <A x, y> = <x, A^T y>."""
        raise NotImplementedError

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return self.adjoint(v)

    def solve(self, b: Tensor, shift: float) -> Tensor:
        """(A^T A + shift)^-1 b for shift > 0; b and result have the shape of an image."""
        return conjugate_gradients(
            lambda x: self.adjoint(self(x)) + shift * x, b, self.cg_iterations
        )

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y: the shortest least-squares solution, by `least_squares`."""
        return least_squares(self, y, self.cg_iterations)


@dataclass(frozen=True, eq=False)
class Spectral(Linear):
    """A = U s V^T with V square and orthonormal; coefficients keep a natural shape.

    s: singular values >= 0, float64, broadcastable over the coefficients (B, ...).
    V, Vt: coefficients to image and back. U, Ut: coefficients to measurement and back;
    Ut(U(c)) = c where s > 0, and coefficients with s = 0 carry nothing.
    """

    @property
    def s(self) -> Tensor:
        raise NotImplementedError

    def V(self, c: Tensor) -> Tensor:
        raise NotImplementedError

    def Vt(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def U(self, c: Tensor) -> Tensor:
        raise NotImplementedError

    def Ut(self, y: Tensor) -> Tensor:
        raise NotImplementedError

    def spectrum(self, like: Tensor) -> Tensor:
        """s in the precision of like, numerically zero values (s <= n eps max s) set to 0.

        n is the longest side of the coefficient array; this is the usual rank decision of pinv.
        """
        casts = self.__dict__.setdefault("_casts", {})
        key = ("spectrum", like.dtype, like.device)
        if key not in casts:
            s = self.s
            cut = s.max() * torch.finfo(like.dtype).eps * max(s.shape)
            casts[key] = torch.where(s > cut, s, 0.0).to(like.device, like.dtype)
        kept: Tensor = casts[key]
        return kept

    def inverse_spectrum(self, like: Tensor) -> Tensor:
        """1 / s, and 0 where s is numerically zero: the singular values of A^+."""
        casts = self.__dict__.setdefault("_casts", {})
        key = ("inverse", like.dtype, like.device)
        if key not in casts:
            s = self.spectrum(like)
            casts[key] = torch.where(s > 0, 1 / torch.where(s > 0, s, 1.0), 0.0)
        kept: Tensor = casts[key]
        return kept

    def __call__(self, x: Tensor) -> Tensor:
        return self.U(self.spectrum(x) * self.Vt(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.V(self.spectrum(y) * self.Ut(y))

    def solve(self, b: Tensor, shift: float) -> Tensor:
        return self.V(self.Vt(b) * (1 / (self._as("s", b) ** 2 + shift)))

    def pinv(self, y: Tensor) -> Tensor:
        return self.V(self.inverse_spectrum(y) * self.Ut(y))


@dataclass(frozen=True, eq=False)
class Identity(Spectral):
    """y = x: denoising."""

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return x_shape

    @property
    def s(self) -> Tensor:
        return torch.ones(1, dtype=torch.float64)

    def V(self, c: Tensor) -> Tensor:
        return c

    def Vt(self, x: Tensor) -> Tensor:
        return x

    def U(self, c: Tensor) -> Tensor:
        return c

    def Ut(self, y: Tensor) -> Tensor:
        return y
