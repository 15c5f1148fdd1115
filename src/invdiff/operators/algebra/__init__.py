"""The ladder of operators: Operator, PseudoInvertible, Linear, Spectral; and how they compose.

Every operator is a frozen dataclass over image shapes, batch first. What a rung promises:

  Operator           A(x), vjp(x, v)                   any differentiable map
  PseudoInvertible   pinv(y)                           A(A^+(A(x))) = A(x), linear or not
  Linear             adjoint(y), solve(b, shift)       conjugate gradients unless overridden
  Spectral           s, V(c), Vt(x), U(c), Ut(y)       A = U s Vt in closed form
"""

from invdiff.operators.algebra.linear import Linear, PseudoInvertible
from invdiff.operators.algebra.operator import Operator, Piece
from invdiff.operators.algebra.spectral import Identity, Spectral

__all__ = ["Identity", "Linear", "Operator", "Piece", "PseudoInvertible", "Spectral"]
