"""ILVR (Choi et al. 2021): low frequencies from a small picture, everything else from the prior.

    python examples/ilvr.py

Super-resolution by 8 with the paper's filter and with the exactly consistent one; then the picture
only as a reference, whose layout is kept at N = 16 and 32 and not in the last steps.
"""

from __future__ import annotations

from pathlib import Path

import pictures

import invdiff


def main() -> None:
    """Two ways to be consistent, and two to be guided."""
    args = pictures.options(__doc__, "100").parse_args()
    prior = pictures.load(args.prior)
    x = pictures.picture(prior)
    sheet = pictures.Sheet(prior, x)

    def show(name: str, N: int, solver: invdiff.ILVR, score: bool) -> None:
        A = invdiff.Bicubic(N, pictures.SIZE)
        problem = pictures.measured(A, x)
        found = pictures.sample(name, problem, prior, solver, args)
        misfit = float((A(found) - problem.y).abs().max())
        print(f"{name}: largest |A x - y| is {misfit:.4f} on [-1, 1]")
        sheet.show(name, found, score)

    A = invdiff.Bicubic(8, pictures.SIZE)
    sheet.show("measured: 16 x 16 pixels, enlarged", 64 * A.adjoint(A(x)))
    show("x8, up = transpose", 8, invdiff.ILVR(), True)
    show("x8, up = pinv", 8, invdiff.ILVR(up="pinv"), True)
    free = (args.steps or 100) * 3 // 10
    show("reference, N = 16, range_t = 30 %", 16, invdiff.ILVR(range_t=free), False)
    show("reference, N = 32, range_t = 30 %", 32, invdiff.ILVR(range_t=free), False)
    sheet.save(args.out or Path("ilvr.png"), "ILVR: low frequencies are replaced in every step")


if __name__ == "__main__":
    main()
