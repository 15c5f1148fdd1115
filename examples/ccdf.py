"""CCDF (Chung et al. 2022): any solver, started from a noised first guess.

    python examples/ccdf.py

Super-resolution by 4 and inpainting of a random half. Above: the whole path; below: from the guess,
on the same path, with a tenth and a fifth of the steps.
"""

from __future__ import annotations

from pathlib import Path

import pictures

import invdiff


def main() -> None:
    """The same solver with and without the jump."""
    args = pictures.options(__doc__, "20 and 40 after the jump, 200 without").parse_args()
    prior = pictures.load(args.prior)
    x = pictures.picture(prior)
    sheet = pictures.Sheet(prior, x)
    path = invdiff.VP(200, spacing="trailing")
    base = invdiff.Replacement(corrector_steps=0, path=path)
    for name, A, start in (
        ("x4", invdiff.Bicubic(4, pictures.SIZE), 0.1),
        ("half of the pixels", invdiff.Inpaint.random(pictures.SIZE, 0.5, seed=0), 0.2),
    ):
        problem = pictures.measured(A, x)
        sheet.show(f"guess: {name}", A.pinv(problem.y), score=True)
        for told, solver in (("from noise", base), (f"t0 = {start}", invdiff.CCDF(base, start))):
            label = f"{name}, {told}, {args.steps or solver.num_steps} steps"
            sheet.show(label, pictures.sample(label, problem, prior, solver, args), score=True)
    sheet.save(args.out or Path("ccdf.png"), "CCDF: start from a noised guess")


if __name__ == "__main__":
    main()
