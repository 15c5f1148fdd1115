"""CCDF (Chung et al. 2022): any solver, started from a noised first guess.

    python examples/ccdf.py

Super-resolution by 4 and inpainting of a random half, from noise and from the guess, on the same
path. The enlarged picture is a good guess, and a tenth of the steps is enough. Grey in the place of
missing pixels is a bad one: it shows through at t0 = 0.2 and hardly at 0.5.
"""

from __future__ import annotations

from pathlib import Path

import pictures

import invdiff


def main() -> None:
    """The same solver with and without the jump."""
    args = pictures.options(__doc__, "20 to 100 after the jump, 200 without").parse_args()
    prior = pictures.load(args.prior)
    x = pictures.picture(prior)
    sheet = pictures.Sheet(prior, x)
    path = invdiff.VP(200, spacing="trailing")
    base = invdiff.Replacement(corrector_steps=0, schedule=path)
    for name, A, starts in (
        ("x4", invdiff.Bicubic(4, pictures.SIZE), (0.1,)),
        ("half known", invdiff.Inpaint.random(pictures.SIZE, 0.5, seed=0), (0.2, 0.5)),
    ):
        problem = pictures.measured(A, x)
        sheet.show(f"guess: {name}", A.pinv(problem.y), score=True)
        jumps = [(f"t0 = {start}", invdiff.CCDF(base, start)) for start in starts]
        for told, solver in (("from noise", base), *jumps):
            label = f"{name}, {told}, {args.steps or solver.num_steps} steps"
            sheet.show(label, pictures.sample(label, problem, prior, solver, args), score=True)
    sheet.save(args.out or Path("ccdf.png"), "CCDF: start from a noised guess")


if __name__ == "__main__":
    main()
