"""ScoreSDE by replacement (Song et al. 2021): inpainting and colourisation.

    python examples/replacement.py

Half of the pixels at random, a square hole, and a grey photograph; each with 60 predictor and 60
corrector steps. The shipped prior knows texture and no objects: the hole is filled with something
like fur, and colours are invented patch by patch.
"""

from __future__ import annotations

from pathlib import Path

import pictures

import invdiff


def main() -> None:
    """Three problems, one figure."""
    args = pictures.options(__doc__, "60").parse_args()
    prior = pictures.load(args.prior)
    x = pictures.picture(prior)
    sheet = pictures.Sheet(prior, x)
    solver = invdiff.Replacement(schedule=invdiff.Karras(60, 20.0, 0.02))
    for name, A in (
        ("half of the pixels", invdiff.Inpaint.random(pictures.SIZE, 0.5, seed=0)),
        ("hole", invdiff.Inpaint.box(pictures.SIZE, 70, 40, 32, 32)),
        ("grey", invdiff.Grayscale()),
    ):
        problem = pictures.measured(A, x)
        sheet.show(f"measured: {name}", A.pinv(problem.y))
        found = pictures.sample(name, problem, prior, solver, args)
        sheet.show(f"sample: {name}", found, score=True)
    sheet.save(args.out or Path("replacement.png"), "replacement: predictor, corrector, overwrite")


if __name__ == "__main__":
    main()
