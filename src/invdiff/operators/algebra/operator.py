"""The lowest rung: any map from images to measurements, with its gradient."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from invdiff.core import InvdiffError, brief, leaf, with_gradients
from invdiff.core.arguments import admit, admitting

T = TypeVar("T")


class Piece(NamedTuple):
    """A(x) = slope x + offset for pixels from low to high."""

    low: float
    high: float
    slope: float
    offset: float


@dataclass(frozen=True, eq=False)
class Operator:
    """A map from images (B, *x_shape) to measurements (B, *y_shape).

    `2 * A`, `-A`, `A / 2`, `A + B` and `A - B` are operators too, and `outer @ inner`.
    batched: names of the tensor fields whose first axis is the batch (or 1, shared by all rows).
    differentiable: False where no gradient passes (real JPEG, quantisation).
    cells: True where the measurement tells an interval for each of its coefficients (JPEG).
    guesses: whether `guess` works.
    pieces: of an operator that measures every pixel by itself, linearly in pieces (`Piece`).
    """

    made_by: ClassVar[str] = "Operator.from_function(FUNCTION)"
    batched: ClassVar[tuple[str, ...]] = ()
    differentiable: ClassVar[bool] = True
    cells: ClassVar[bool] = False
    guesses: ClassVar[bool] = False
    __array_ufunc__: ClassVar[None] = None  # numbers of NumPy leave `number * A` to A

    def __post_init__(self) -> None:
        admit(self)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Where an operator that measures every pixel by itself is linear; none of any other."""
        return ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let a `__post_init__` of the subclass find fields that are what they are annotated as."""
        super().__init_subclass__(**kwargs)
        if "__repr__" not in cls.__dict__:  # else every dataclass prints all of its numbers
            cls.__repr__ = Operator.__repr__  # type: ignore[method-assign]
        admitting(cls)

    def __repr__(self) -> str:
        """Its fields, arrays by their shapes."""
        return brief(self, defaults=False)

    def __call__(self, x: Tensor) -> Tensor:
        """A(x)."""
        raise NotImplementedError

    @staticmethod
    def from_function(
        function: Callable[..., Any],
        vjp: Callable[..., Any] | None = None,
        differentiable: bool = True,
        numpy: bool = False,
    ) -> Operator:
        """y = function(x), any function of the user's own; its gradient by automatic
        differentiation, unless `vjp` is given.

        function: from a batch of images (B, *x_shape) to a batch of measurements, row by row;
        with numpy = True, from the numpy array of one image to that of one measurement.
        vjp(x, v): (dA/dx)^T v, of the same kind of arrays; a function of numpy has no other.
        differentiable: False where no gradient passes.
        """
        from invdiff.operators.given.functions import FromFunction

        return FromFunction(function, vjp, differentiable, numpy)

    @staticmethod
    def from_deepinv(physics: Any, x_shape: tuple[int, ...], check: bool = True) -> Operator:
        """The operator of a deepinv `Physics`: Linear of a `LinearPhysics`, with its A_adjoint.

        x_shape: of one image. check: the dot test, in float32. The noise model of the physics is
        not taken: give a `Problem` its own. Where an operator of invdiff does the same, it offers
        more: deepinv's decompositions and pseudo-inverses are not used. A copy of the physics is
        kept for each precision and device.
        Raises InvdiffError when it is no Physics, the dot test fails or deepinv is not there.
        """
        from invdiff.operators.given.adapters import from_deepinv

        return from_deepinv(physics, x_shape, check)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """(dA/dx)^T v at x; shapes of x, of A(x), result like x. By automatic differentiation.

        Raises InvdiffError where the operator is not differentiable.
        """
        if not self.differentiable:
            raise InvdiffError(
                f"No gradient passes through {type(self).__name__}; take a solver that needs none."
            )
        with with_gradients():
            x = leaf(x)
            return torch.autograd.grad(self(x), x, v)[0]

    def pull(self, x: Tensor, r: Tensor) -> Tensor:
        """A direction in which A(x) moves by about r, of the shape of x: the vector-Jacobian
        product, and what stands for it where A has lost its slope."""
        return self.vjp(x, r)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one measurement of an image of shape x_shape, both without the batch axis.

        Raises InvdiffError when images of this shape do not fit the operator.
        """
        return tuple(self(torch.zeros(1, *x_shape)).shape[1:])

    def norm(self, x_shape: tuple[int, ...] | None = None, tol: float = 1e-4) -> float:
        """The largest singular value of a linear operator; see `Linear.norm`.

        Raises InvdiffError for any other.
        """
        raise InvdiffError(
            f"{type(self).__name__} is not linear, so it has no norm; divide it by a number that "
            "you choose."
        )

    def restrict(self, y: Tensor) -> Tensor:
        """y with the entries that were never measured set to zero."""
        return y

    def guess(self, y: Tensor, x_shape: tuple[int, ...]) -> Tensor:
        """A first image (B, *x_shape) for a measurement, where a fit may start."""
        raise NotImplementedError

    @property
    def _in_rows(self) -> tuple[str, ...]:
        """Names of the fields that hold a row for each measurement, or one row for all."""
        return self.batched

    @property
    def batch_rows(self) -> int:
        """How many measurements its `batched` fields are for; 1 where it is for any number."""
        found = [1]

        def tensor(name: str, t: Tensor) -> Tensor:
            found.append(len(t) if name in self._in_rows else 1)
            return t

        def operator(op: Operator) -> Operator:
            found.append(op.batch_rows)
            return op

        self._map(tensor, operator)
        return max(found)

    def rows(self, index: Tensor) -> Self:
        """The operator of the batch rows index (rows may repeat)."""
        return self._map(
            lambda name, t: t[index] if name in self._in_rows and t.shape[0] > 1 else t,
            lambda op: op.rows(index),
        )

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """The operator with its tensors on another device; real floating ones in dtype if given."""

        def move(_: str, t: Tensor) -> Tensor:
            return t.to(device, dtype if dtype and t.is_floating_point() else t.dtype)

        return self._map(move, lambda op: op.to(device, dtype))

    def __matmul__(self, inner: Operator) -> Operator:
        """self after inner."""
        from invdiff.operators.algebra.compose import compose

        return compose(self, inner)

    def __mul__(self, scale: float) -> Operator:
        """scale A(x), on the rung of A; scale is a number that is not 0."""
        from invdiff.operators.algebra.scaling import multiplied

        return multiplied(self, scale)

    def __rmul__(self, scale: float) -> Operator:
        return self * scale

    def __neg__(self) -> Operator:
        return self * -1.0

    def __truediv__(self, divisor: float) -> Operator:
        """A(x) / divisor."""
        from invdiff.operators.algebra.scaling import divided

        return divided(self, divisor)

    def __add__(self, other: Operator) -> Operator:
        """A(x) + B(x), linear where both are."""
        from invdiff.operators.algebra.sums import add

        return add(self, other)

    def __radd__(self, other: int) -> Operator:
        """A itself for 0, where `sum` begins."""
        return self if type(other) is int and other == 0 else self + other  # type: ignore[operator]

    def __sub__(self, other: Operator) -> Operator:
        from invdiff.operators.algebra.sums import add, subtracted

        return add(self, subtracted(other))

    def __rsub__(self, other: Any) -> Operator:
        return -self + other  # one sentence: other is no operator

    def _scaled(self, scale: float) -> Operator:
        """scale A(x) for a scale other than 0 and 1."""
        from invdiff.operators.algebra.scaling import ScaledOperator

        return ScaledOperator(self, scale)

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
                parts = tuple(operator(v) for v in value)
                same = all(a is b for a, b in zip(parts, value, strict=True))
                changes[f.name] = value if same else parts
        new = any(value is not getattr(self, name) for name, value in changes.items())
        return dataclasses.replace(self, **changes) if new else self

    def _as(self, name: str, like: Tensor) -> Tensor:
        """The real tensor attribute `name` in the precision and on the device of like, kept."""

        def cast() -> Tensor:
            value: Tensor = getattr(self, name)
            dtype = like.real.dtype if like.is_complex() else like.dtype
            return value.to(like.device, dtype.to_complex() if value.is_complex() else dtype)

        return self._once(name, like, cast)

    def _once(self, name: str, like: Tensor, make: Callable[[], T]) -> T:
        """What make() gives for the precision and device of like, kept under `name`."""
        casts: dict[object, T] = self.__dict__.setdefault("_casts", {})
        key = (name, like.dtype, like.device)
        if key not in casts:
            casts[key] = make()
        return casts[key]
