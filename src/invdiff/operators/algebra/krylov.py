"""Krylov solvers over batches: every sample is its own system."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from invdiff.core import InvdiffError, batch_dot
from invdiff.core.arguments import admitted_as
from invdiff.core.rng import Rng


class Adjointable(Protocol):
    """A linear map with its adjoint."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def adjoint(self, y: Tensor) -> Tensor: ...


@dataclass
class Bounds:
    """Systems that reached their bound of iterations before their tolerance, while watched.

    systems: how many; iterations: the bound of the worst of them, and residual: what it left of its
    right side.
    """

    systems: int = 0
    iterations: int = 0
    residual: float = 0.0

    def __add__(self, other: Bounds) -> Bounds:
        worst = max(self, other, key=lambda found: found.residual)
        return Bounds(self.systems + other.systems, worst.iterations, worst.residual)


_WATCHED: ContextVar[Bounds | None] = ContextVar("bounds", default=None)


@contextmanager
def watched_bounds(found: Bounds) -> Iterator[Bounds]:
    """Count what `conjugate_gradients` leaves unsolved within the block, of its tolerance."""
    token = _WATCHED.set(found)
    try:
        yield found
    finally:
        _WATCHED.reset(token)


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    iterations: int,
    tol: float = 0.0,
    start: Tensor | None = None,
    enough: float = 0.0,
    precondition: Callable[[Tensor], Tensor] | None = None,
    rounding: Tensor | None = None,
) -> Tensor:
    """Solve apply(x) = b for every sample, apply symmetric and positive semidefinite.

    b: (B, ...), real or complex. A sample stops changing once its residual is below
    tol * |b| (or the round-off of its dtype), or below `enough` in root mean square over its
    numbers; scalars are float64. rounding: of b, in root mean square for each sample (B, 1, ...): a
    residual below it is not followed, for where apply is singular round-off has no solution, and
    grows. precondition(r): an approximation of apply^-1 r, symmetric and
    positive definite. Off the CPU only every tenth iteration asks the device whether to go on.
    """
    x = torch.zeros_like(b) if start is None else start
    r = b if start is None else b - apply(x)
    p = z = r if precondition is None else precondition(r)
    bb = batch_dot(b, b).double()
    rr = bb if start is None else batch_dot(r, r).double()
    rz = rr if precondition is None else batch_dot(r, z).double()
    floor = (max(tol, torch.finfo(b.dtype).eps) ** 2 * bb).clamp_min(enough**2 * b[0].numel())
    if rounding is not None:
        floor = torch.maximum(floor, rounding**2 * b[0].numel())
    every = 1 if b.device.type == "cpu" else PATIENCE
    compiling = torch.compiler.is_compiling()  # then nothing asks, and all iterations are done
    asks, watched = b.device.type != "meta" and not compiling, not compiling and _watched()
    for k in range(iterations):
        active = rr > floor
        if asks and k % every == 0 and not bool(active.any()):
            break
        q = apply(p)
        pq = batch_dot(p, q).double()
        go = active & (pq > 0)
        step = torch.where(go, rz / torch.where(go, pq, 1.0), 0.0).to(b.dtype)
        x = torch.addcmul(x, step, p)
        if k == iterations - 1 and not watched:
            break
        r = torch.addcmul(r, step, q, value=-1)
        left = batch_dot(r, r).double()
        rr = torch.where(go, left, 0.0)
        if k == iterations - 1:
            break
        z = r if precondition is None else precondition(r)
        new = left if precondition is None else batch_dot(r, z).double()
        ratio = torch.where(go, new / torch.where(go, rz, 1.0), 0.0).to(b.dtype)
        p = torch.addcmul(z, ratio, p)
        rz = torch.where(go, new, 0.0)
    if watched and (tol > 0 or enough > 0):
        _note_bound(rr, floor, bb, iterations)
    return x


def _watched() -> bool:
    return _WATCHED.get() is not None


PATIENCE = 10
"""Iterations between two questions to a device that computes beside the program."""


def _note_bound(rr: Tensor, floor: Tensor, bb: Tensor, iterations: int) -> None:
    """Count the systems whose residual is still above its floor, where they are watched."""
    found = _WATCHED.get()
    if found is None or rr.device.type == "meta":
        return
    open_ = rr > floor
    count = int(open_.sum())
    if count:
        found.systems += count
        worst = float((rr / bb.clamp_min(torch.finfo(bb.dtype).tiny))[open_].max().sqrt())
        if worst >= found.residual:
            found.residual, found.iterations = worst, iterations


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


def least_squares(A: Adjointable, y: Tensor, iterations: int) -> Tensor:
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


def inverse_squared_norm(A: Adjointable, like: Tensor, iterations: int = 30) -> Tensor:
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


def largest_singular_value(
    A: Adjointable,
    x_shape: tuple[int, ...],
    rows: int = 1,
    tol: float = 1e-4,
    iterations: int = 500,
) -> float:
    """|A|, the largest over `rows` rows of images of x_shape, by the Lanczos method on A^T A.

    Lanczos 1950, without orthogonalisation: round-off repeats values that were found and spoils
    none (Paige 1976). It starts from a constant image and fixed noise in equal parts, so it always
    gives the same. What it returns is at most |A| and rises; it stops when a singular value lies
    within tol of it, relative, by the residual, and after `iterations`: then, of random starts, it
    is some 3e-4 too small at worst (Kuczynski and Wozniakowski 1992, theorem 3.2, a million
    pixels). In float32, or float64 for a tol below 1e-5; no gradient passes.
    Raises InvdiffError where A is not finite, and for a tol that is not above 0 and below 1.
    """
    if not 0 < admitted_as(float, tol, "tol") < 1:
        raise InvdiffError(f"tol is a number above 0 and below 1, found {tol}.")
    dtype = torch.float32 if tol >= 1e-5 else torch.float64
    noise = Rng.of(range(rows), portable=True).normal(torch.empty(rows, *x_shape, dtype=dtype), "A")
    v, before, beta = noise + 1, torch.zeros_like(noise), 0.0
    v = v / v.norm()
    diagonal: list[float] = []
    beside: list[float] = []
    largest = 0.0
    with torch.no_grad():
        for k in range(iterations):
            z = A(v)
            diagonal.append(float(batch_dot(z, z).double().sum()))
            if not math.isfinite(diagonal[-1]):
                raise InvdiffError("The operator makes values that are not finite of plain images.")
            w = A.adjoint(z) - beta * before
            w = w - diagonal[-1] * v
            beta = float(batch_dot(w, w).double().sum().sqrt())
            if k < 16 or k % 8 == 0 or k == iterations - 1:
                largest, last = _largest_ritz(diagonal, beside)
                if beta * last <= 2 * tol * largest or beta <= torch.finfo(dtype).eps * largest:
                    break
            beside.append(beta)
            before, v = v, w / beta
    return math.sqrt(largest)


def _largest_ritz(diagonal: list[float], beside: list[float]) -> tuple[float, float]:
    """The largest eigenvalue of a symmetric tridiagonal matrix, and the size of the last entry of
    its eigenvector."""
    off = torch.tensor(beside[: len(diagonal) - 1], dtype=torch.float64)
    T = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(off, 1)
    values, vectors = torch.linalg.eigh(T, UPLO="U")
    return max(float(values[-1]), 0.0), abs(float(vectors[-1, -1]))
